"""The entries of a link: commands of clients one way, frames and close reasons back, and requests of nodes.

An entry is a JSON array: its kind, a number that the client of the link chose, and the members of the kind.

    to the server  c  number, session id, command    to the client  f  number, message of a frame
                   q  number, request                               e  number, close code
                                                                    a  number, answer
                                                                    x  number: no answer

An entry is encoded when it is sent: nothing is shared with the other node, and the size of an entry is known
while it waits. Unknown kinds and unknown members are ignored, because a newer node may send them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from operator import attrgetter
from types import NoneType
from typing import Any, get_args, get_type_hints

import orjson
from msgspec import Struct, ValidationError, convert, defstruct
from msgspec.structs import asdict

from engine.actors.close_reasons import BY_CODE, CloseReason
from engine.actors.commands import Command, Merge, SubscribeNode
from engine.actors.delivery.frame import Frame, Message
from engine.actors.delivery.subscriber import Subscriber

MESSAGE_BYTES_MAX = 1 << 20
"""The most bytes of a WebSocket message on a link."""

ENTRY_BYTES_MAX = MESSAGE_BYTES_MAX - 2
"""An entry must fit into a message, between its brackets."""

COMMAND, REQUEST = "c", "q"
FRAME, END, ANSWER, NO_ANSWER = "f", "e", "a", "x"


def keeps_listening(command: Command) -> bool:
    """Whether the reply receives more than one frame."""
    return isinstance(command, SubscribeNode)


def encode(message: Message) -> bytes:
    """The dialect of all links: a broadcast is encoded once, however many nodes receive it."""
    return orjson.dumps(message)


# -- commands ---------------------------------------------------------------------------------------

# How to think about this: the fields of a command, as its dataclass declares them, are its members on the
# wire. A member that is None is left out. `msgspec` checks what comes in against the declared types, in C.
# A field that is added to a command needs a default, because the release before does not send it.

_STAYS = ("reply", "may_move")
"""Fields that do not travel. `reply` stays on the asking side. `may_move` is False on the other side, because
a client is sent to another node at most once."""

_KINDS = tuple(kind for kind in get_args(Command) if kind is not Merge)
"""A merge never leaves its node."""


def _members(kind: type[Command]) -> list[Field[Any]]:
    return [each for each in fields(kind) if each.name not in _STAYS]


def _wire_type(kind: type[Command]) -> type[Struct]:
    """What a command is on the wire: its members, with `t` as the tag."""
    hints = get_type_hints(kind, include_extras=True)
    declared: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for each in _members(kind):
        hint = hints[each.name]
        if hint is object or NoneType in get_args(hint):
            declared.append((each.name, hint, None))
        elif each.default is MISSING:
            declared.append((each.name, hint))
        else:
            declared.append((each.name, hint, each.default))
    name = kind.__name__
    return defstruct(name, declared, tag_field="t", tag=name.lower(), kw_only=True, gc=False)


def _reader(names: tuple[str, ...]) -> Callable[[Command], tuple[object, ...]]:
    """Reads these attributes. `attrgetter` returns a tuple for two names and more only."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda command: tuple(getattr(command, name) for name in names)


def _writer(kind: type[Command]) -> tuple[str, tuple[str, ...], Callable[[Command], tuple[object, ...]]]:
    names = tuple(each.name for each in _members(kind))
    return kind.__name__.lower(), names, _reader(names)


_WRITERS = {kind: _writer(kind) for kind in _KINDS}
_READERS: Mapping[str, tuple[type[Struct], Callable[..., Command]]] = {
    kind.__name__.lower(): (_wire_type(kind), kind) for kind in _KINDS
}


def command_to_json(command: Command) -> dict[str, object]:
    """A command without its reply. Raises ValueError for a command that never travels."""
    if isinstance(command, Merge):
        raise ValueError("a merge stays on its node")  # noqa: TRY004 - a command, and yet the wrong one
    kind, names, read = _WRITERS[type(command)]
    given = {name: value for name, value in zip(names, read(command), strict=True) if value is not None}
    return {"t": kind, **given}


def command_from_json(data: object, reply: Subscriber) -> Command:
    """Raises ValueError if the data is not a command."""
    kind = data.get("t") if type(data) is dict else None
    if type(kind) is not str or kind not in _READERS:
        raise ValueError(f"{kind!r:.40} is not a command")
    wire_type, command_type = _READERS[kind]
    try:
        members = asdict(convert(data, wire_type))
    except ValidationError as error:
        raise ValueError(f"this is not a {kind}: {error!s:.200}") from None
    return command_type(reply, **members)


# -- entries ----------------------------------------------------------------------------------------


def command_entry(number: int, session_id: str, command: Command) -> bytes:
    """Raises ValueError for a command that never travels, that JSON cannot hold, or that is too large."""
    return _fitting(_dumps([COMMAND, number, session_id, command_to_json(command)]))


def request_entry(number: int, request: Mapping[str, object]) -> bytes:
    """Raises ValueError for a request that JSON cannot hold, or that is too large."""
    return _fitting(_dumps([REQUEST, number, dict(request)]))


def frame_entry(number: int, frame: Frame) -> bytes:
    """Raises ValueError for a frame that JSON cannot hold, or that is too large."""
    try:
        return _fitting(b'["f",%d,%b]' % (number, frame.encoded(encode)))
    except TypeError as error:
        raise ValueError(f"a {frame.kind} frame is not JSON: {error}") from None


def end_entry(number: int, close_reason: CloseReason) -> bytes:
    return b'["e",%d,%d]' % (number, close_reason.code)


def answer_entry(number: int, answer: Mapping[str, object]) -> bytes:
    """Raises ValueError for an answer that JSON cannot hold, or that is too large."""
    return _fitting(_dumps([ANSWER, number, dict(answer)]))


def no_answer_entry(number: int) -> bytes:
    return b'["x",%d]' % number


def frame_from_json(data: object) -> Frame:
    """Raises ValueError if the data is not the message of a frame."""
    if type(data) is not dict or type(data.get("t")) is not str:
        raise ValueError("a message is one JSON object with a type")
    return Frame(data)


def close_reason_from_json(data: object) -> CloseReason:
    """An unknown code lets the client come back later. Raises ValueError if the data is not a code."""
    if type(data) is not int:
        raise ValueError(f"a close code is not {data!r:.40}")
    return BY_CODE.get(data, CloseReason.FAILED)


def answer_from_json(data: object) -> Mapping[str, object]:
    """Raises ValueError if the data is not an answer."""
    if type(data) is not dict:
        raise ValueError("an answer is one JSON object")
    return data


def _dumps(entry: list[object]) -> bytes:
    try:
        return orjson.dumps(entry)
    except TypeError as error:
        raise ValueError(f"this is not JSON: {error}") from None


def _fitting(entry: bytes) -> bytes:
    if len(entry) > ENTRY_BYTES_MAX:
        raise ValueError(f"an entry of {len(entry)} bytes is too large for a link")
    return entry
