"""{{name}}: the bot. Every message starts it afresh; what has to outlive one is kept with `wit_world.imports.kv`."""

import os

from aviary import Body_Event, Body_Image, Body_Text, Event_Subscribe, Message, Reply, image, news, text


def handle(message: Message) -> Reply | None:
    """Answers a message. `None` leaves it to the next plugin; an exception is a failure, which is logged."""
    match message.body:
        case Body_Event(Event_Subscribe()):
            return text(greeting())
        case Body_Text(said) if said.content == "你好":
            return text(greeting())
        case Body_Text(said) if said.content == "文章":
            return news("{{name}}", "https://example.com/", description="一篇文章")
        case Body_Image(picture):
            return image(picture.media_id)
    return None


def greeting() -> str:
    """A setting: `env` in aviary.toml."""
    return os.environ.get("GREETING", "你好！")
