"""Replies in one line each, and the types of messages: they are those of wit/, by their Python names.

`componentize-py --wit-path wit --world bot bindings .` writes them out for an editor.
"""

from wit_world.imports.types import *
from wit_world.imports.types import Article, Reply, Reply_Image, Reply_News, Reply_Nothing, Reply_Text


def text(content: str) -> Reply:
    """A text; one of over 2,048 bytes comes in parts."""
    return Reply_Text(_string(content))


def image(media_id: str) -> Reply:
    """A picture, by its media id."""
    return Reply_Image(_string(media_id))


def news(title: str, url: str, *, description: str | None = None, picture_url: str | None = None) -> Reply:
    """An article that opens a page."""
    more = [None if value is None else _string(value) for value in (description, picture_url)]
    return Reply_News([Article(_string(title), *more, _string(url))])


def nothing() -> Reply:
    """Handled without a word: no other plugin is asked."""
    return Reply_Nothing()


def _string(value: str) -> str:
    """Refuses another type here, where the traceback shows who gave it."""
    if not isinstance(value, str):
        raise TypeError(f"a reply wants a str, and was given {value!r}")
    return value
