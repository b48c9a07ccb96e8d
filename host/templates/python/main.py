"""What the host calls. It hands messages to bot.py, and shows the traceback of what goes wrong there."""

import traceback

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import Message, Reply

import bot


class Handler(exports.Handler):
    def handle(self, message: Message) -> Reply | None:
        try:
            reply = bot.handle(message)
            # The runtime would end without a word of where it is from.
            if reply is not None and not isinstance(reply, Reply):
                raise TypeError(f"handle returned {reply!r}, which is no reply")
            return reply
        except Exception as error:
            traceback.print_exc()
            raise Err(f"{type(error).__name__}: {error}") from None
