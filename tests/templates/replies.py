"""A bot whose replies are none."""

from aviary import Message, Reply, news, text


def handle(message: Message) -> Reply | None:
    match message.body.value.content:
        case "no reply":
            return "a string"
        case "no string":
            return text(5)
        case "no link":
            return news("a title", None)
        case "no description":
            return news("a title", "https://example.com/", description=5.5)
        case _:
            return text("a reply")
