"""Echo: says every text back, word for word. Anything else is left to the next plugin."""

from wit_world import exports
from wit_world.imports.types import Body_Text, Message, Reply, Reply_Text


class Handler(exports.Handler):
    def handle(self, message: Message) -> Reply | None:
        match message.body:
            # WeChat refuses an empty reply.
            case Body_Text(text) if text.content:
                return Reply_Text(text.content)
            case _:
                return None
