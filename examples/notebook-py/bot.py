"""Notebook: keeps what a user wants remembered, for that user alone.

| a text | answer |
|---|---|
| 记 买牛奶 | it is kept, under a number |
| 记事本 | everything that is kept |
| 删 2 | number 2 is removed |
| anything else | none: the next plugin is asked |

Notes are in `kv`, in the user's own bucket: nobody else's call can open it.
"""

from aviary import Body_Text, Message, Reply, text
from componentize_py_types import Err
from wit_world.imports import kv

# How many notes one user may keep, and how long one may be, in bytes of UTF-8, of which a Chinese character has three: all of
# them fit into one reply, which has up to 2,048.
NOTES_MAX = 30
NOTE_BYTES_MAX = 60

EMPTY = "记事本是空的。发送“记 买牛奶”，就记下一条。"


def handle(message: Message) -> Reply | None:
    match message.body:
        case Body_Text(said):
            answer = reply_to(said.content.strip())
            return text(answer) if answer else None
        case _:
            return None


def reply_to(said: str) -> str | None:
    try:
        match said.split(maxsplit=1):
            case ["记", note]:
                return add(kv.open(kv.Scope.USER), note)
            case ["删", number] if number.isdecimal():
                return remove(kv.open(kv.Scope.USER), int(number))
            case ["记事本"]:
                return notes(kv.open(kv.Scope.USER))
            case _:
                return None
    except Err as error:
        # What the user cannot mend is a failure: the operator reads it in the log.
        if not isinstance(error.value, kv.Error_Full):
            raise
        return "记事本满了，请先删掉几条。"


def add(bucket: kv.Bucket, note: str) -> str:
    if len(note.encode()) > NOTE_BYTES_MAX:
        return f"太长了，一条最多 {NOTE_BYTES_MAX // 3} 个汉字。"
    if len(bucket.keys("note/", None, NOTES_MAX)) == NOTES_MAX:
        return f"最多记 {NOTES_MAX} 条，请先删掉几条。"
    # Two messages at once get two numbers.
    number = bucket.increment("last", 1, None)
    bucket.set(key(number), note.encode(), None)
    return f"记下了，第 {number} 条：{note}"


def remove(bucket: kv.Bucket, number: int) -> str:
    if bucket.get(key(number)) is None:
        return f"没有第 {number} 条。"
    bucket.delete(key(number))
    return f"第 {number} 条删掉了。"


def notes(bucket: kv.Bucket) -> str:
    lines = []
    for name in bucket.keys("note/", None, NOTES_MAX):
        note = bucket.get(name)
        # It may have been removed meanwhile.
        if note is not None:
            lines.append(f"{int(name.removeprefix('note/'))}. {note.decode()}")
    return "\n".join(lines) or EMPTY


def key(number: int) -> str:
    # Keys are listed in the order of their bytes.
    return f"note/{number:08}"
