"""What goes over a link: commands of clients there, frames and ends back, and what nodes ask each other.

An entry is a JSON array: its kind, a number that the asking side chose, and what belongs to the kind.

    there  c  number, session id, command      back  f  number, message of a frame
           q  number, request                        e  number, close code of an ending
                                                     a  number, answer
                                                     x  number: no answer

Entries are encoded when they are sent, so nothing is shared with the other side and their size is known while
they wait. Kinds and members that are not known are passed over: they come from a newer node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import orjson

from engine.actors.close_reasons import BY_CODE, CloseReason
from engine.actors.commands import (
    Answer,
    Command,
    Detach,
    Erase,
    Flushed,
    Host,
    Join,
    Left,
    ListPlayers,
    Look,
    Merge,
    Rejoin,
    SubscribeNode,
    TakeOver,
    Watch,
)
from engine.actors.delivery.frame import Frame, Message
from engine.actors.delivery.subscriber import Subscriber

MESSAGE_BYTES_MAX = 1 << 20
"""Of a WebSocket message on a link."""

ENTRY_BYTES_MAX = MESSAGE_BYTES_MAX - 2
"""An entry must fit into a message, between its brackets."""

COMMAND, REQUEST = "c", "q"
FRAME, END, ANSWER, NO_ANSWER = "f", "e", "a", "x"


def keeps_listening(command: Command) -> bool:
    """Whether the reply hears more than one frame."""
    return isinstance(command, SubscribeNode)


def encode(message: Message) -> bytes:
    """The dialect of all links: a broadcast is encoded once, however many nodes it goes to."""
    return orjson.dumps(message)


# -- commands ---------------------------------------------------------------------------------------

_Check = Callable[[object], bool]


def _anything(_: object) -> bool:
    return True


def _whole(value: object) -> bool:
    return type(value) is int  # bool is a subclass of int


def _truth(value: object) -> bool:
    return type(value) is bool


def _text(value: object) -> bool:
    return type(value) is str


def _seat(value: object) -> bool:
    return type(value) is int or value == "host"


def _seats(value: object) -> bool:
    return type(value) is list and all(map(_seat, value))


def _role(value: object) -> bool:
    return value in ("player", "host", "spectator")


def _maybe(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


# How to think about this: what is listed travels, and nothing else. `reply` stays on the side that asks;
# `may_move` stays False on the other, because nobody is sent on a second time; `Merge` never leaves its node.
_KINDS: Mapping[str, tuple[type[Command], Mapping[str, _Check]]] = {
    "join": (
        Join,
        {
            "name": _anything,
            "at": _whole,
            "attach": _truth,
            "relay": _maybe(_text),
            "address": _maybe(_text),
            "ticket": _maybe(_text),
            "former_session": _maybe(_text),
            "former_player": _maybe(_whole),
        },
    ),
    "rejoin": (
        Rejoin,
        {
            "role": _role,
            "player": _maybe(_whole),
            "code": _maybe(_text),
            "epoch": _maybe(_whole),
            "offset": _maybe(_whole),
            "relay": _maybe(_text),
            "generation": _maybe(_whole),
        },
    ),
    "watch": (Watch, {"epoch": _maybe(_whole), "offset": _maybe(_whole), "relay": _maybe(_text)}),
    "look": (Look, {"role": _role, "player": _maybe(_whole), "top": _maybe(_whole)}),
    "subscribenode": (
        SubscribeNode,
        {"node": _text, "epoch": _maybe(_whole), "offset": _maybe(_whole), "seats": _maybe(_seats)},
    ),
    "listplayers": (
        ListPlayers,
        {
            "after": _whole,
            "limit": _whole,
            "generation": _maybe(_whole),
            "removed": lambda value: value is None or _truth(value),
        },
    ),
    "flushed": (Flushed, {"node": _text, "number": _whole}),
    "left": (Left, {"node": _text, "key": _seat}),
    "answer": (
        Answer,
        {
            "player": _whole,
            "id": _maybe(_text),
            "question": _whole,
            "choice": _anything,
            "at": _whole,
            "code": _maybe(_text),
        },
    ),
    "host": (
        Host,
        {
            "id": _maybe(_text),
            "do": _text,
            "player": _maybe(_whole),
            "on": _maybe(_truth),
            "seen_number": _maybe(_whole),
            "seen_phase": _maybe(_text),
            "generation": _maybe(_whole),
        },
    ),
    "takeover": (TakeOver, {}),
    "detach": (Detach, {}),
    "erase": (Erase, {"player": _maybe(_whole)}),
}


def _reader(names: tuple[str, ...]) -> Callable[[Command], tuple[object, ...]]:
    """Reads these attributes. attrgetter gives a tuple for two names and more only."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda command: tuple(getattr(command, name) for name in names)


_WRITERS = {made: (kind, tuple(checks), _reader(tuple(checks))) for kind, (made, checks) in _KINDS.items()}


def command_to_json(command: Command) -> dict[str, object]:
    """A command without its reply. What is None is left out. Raises ValueError for one that never travels."""
    if isinstance(command, Merge):
        raise ValueError("a merge stays on its node")  # noqa: TRY004 - a command, and yet the wrong one
    kind, names, read = _WRITERS[type(command)]
    given = {name: value for name, value in zip(names, read(command), strict=True) if value is not None}
    return {"t": kind, **given}


def command_from_json(data: object, reply: Subscriber) -> Command:
    """Raises ValueError for what is no command."""
    if type(data) is not dict:
        raise ValueError("a command is one JSON object")
    kind = data.get("t")
    if type(kind) is not str or kind not in _KINDS:
        raise ValueError(f"{kind!r:.40} is not a command")
    made, checks = _KINDS[kind]
    values: dict[str, Any] = {}  # as checked
    for name, check in checks.items():
        value = values[name] = data.get(name)
        if not check(value):
            raise ValueError(f"{name} of {kind} is not {value!r:.40}")
    return made(reply, **values)


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
    """Raises ValueError for what is no message of a frame."""
    if type(data) is not dict or type(data.get("t")) is not str:
        raise ValueError("a message is one JSON object with a type")
    return Frame(data)


def ending_from_json(data: object) -> CloseReason:
    """An ending that is not known lets the client come back later. Raises ValueError for what is no code."""
    if type(data) is not int:
        raise ValueError(f"an ending is not {data!r:.40}")
    return BY_CODE.get(data, CloseReason.FAILED)


def answer_from_json(data: object) -> Mapping[str, object]:
    """Raises ValueError for what is no answer."""
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
