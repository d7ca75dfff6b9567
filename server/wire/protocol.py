"""What clients say on the wire: bytes in, one typed message or one error out.

Pure: no socket, no clock. Whatever comes in, `parse` returns a message or raises ProtocolError, nothing
else. What the members mean is in docs/protocol.md; what makes a good `name` or `choice` is for the domain
to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NoReturn, get_args

import orjson

from engine.domain.extra_time import percent_of
from engine.domain.phases import Phase
from engine.domain.session_keys import is_code

SUBPROTOCOL = "fanfare.v1"

ID_CHARS_MAX = 64
IDENTITY_CHARS_MAX = 2_048
"""With an RSA signature of 4,096 bits a thousand characters are left for its claims."""
TOKEN_CHARS_MAX = 512
NAMES_SHOWN_MAX = 64
"""Characters of a client's own words that an error repeats."""

HostDo = Literal[
    "start", "next", "close", "skip", "pause", "resume", "finish",
    "lock", "approval", "admit", "refuse", "kick", "readmit", "extra_time", "extend",
]  # fmt: skip
HOST_COMMANDS: tuple[HostDo, ...] = get_args(HostDo)
EXPECTING = ("start", "next", "close", "skip")
"""Those that may say what the host saw; they are refused when that is not so any more."""

PHASES = tuple(map(str, Phase))

TICKET_CHARS_MIN, TICKET_CHARS_MAX = 8, 64


class ProtocolError(Exception):
    """A frame that is not a message of the protocol.

    Args:
        code: stable, machine-readable, as in docs/protocol.md.
        message: one sentence for a person.
        path: the offending member; None when it is the whole.
        id: the client's mark on the request, when it could be read.
    """

    def __init__(self, code: str, message: str, path: str | None = None, id: str | None = None) -> None:  # noqa: A002 - the protocol's word
        super().__init__(code, message, path, id)
        self.code = code
        self.message = message
        self.path = path
        self.id = id

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Join:
    """A client comes back with a `token`, wants to `watch`, or is new: with a `name` as of `read_name`, with
    the `ticket` that it was given if it waits for the host, and with the token of an earlier player
    (`former`). With the `identity` token of a user it may be new or come back.

    Here and below: `traceparent` is any JSON value; one that W3C Trace Context does not know counts as not
    sent."""

    code: str
    name: object = None
    token: str | None = None
    watch: bool = False
    epoch: int | None = None
    offset: int | None = None
    ticket: str | None = None
    former: str | None = None
    identity: str | None = None
    traceparent: object = None


@dataclass(frozen=True, slots=True)
class Answer:
    """`choice` is whatever JSON value the client sent."""

    id: str
    question: int
    choice: object
    traceparent: object = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Next:
    id: str | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """`player` is given with kick, readmit and extra_time, and may be with admit and refuse; `on` with lock
    and approval; `percent`, 0 for no limit, with extra_time; `closes_at` with extend. The host saw the
    question `seen_number` in the phase `seen_phase`, if it says so."""

    id: str
    do: str
    player: int | None = None
    on: bool | None = None
    seen_number: int | None = None
    seen_phase: str | None = None
    percent: int | None = None
    closes_at: int | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    at: int | float


@dataclass(frozen=True, slots=True)
class Leave:
    pass


Message = Join | Answer | Next | Host | Ping | Leave

_Members = Mapping[str, object]

_ANSWER_MEMBERS = frozenset({"t", "id", "question", "choice"})


def encode(message: Mapping[str, object]) -> bytes:
    """The wire dialect of a WebSocket text frame: UTF-8 JSON."""
    return orjson.dumps(message)


def parse(raw: str | bytes) -> Message:
    """One message from the payload of one text frame. Raises ProtocolError."""
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise ProtocolError("bad_json", "This is not JSON.") from None
    if type(data) is not dict:
        raise ProtocolError("bad_message", "A message is one JSON object.")
    return read(data)


def read(data: _Members) -> Message:
    """One message from its members, `t` among them. Raises ProtocolError."""
    kind = data.get("t")
    if kind == "answer":
        return _answer(data)
    reader = _READERS.get(kind) if type(kind) is str else None
    if reader is None:
        _refuse_type(data)
    return reader(data)


def read_answer(data: Mapping[str, object]) -> Answer:
    """An answer from its members, of which `traceparent` and `attempt` may be missing. Raises
    ProtocolError."""
    return Answer(
        _id(data), _integer(data, "question", 1), data["choice"], data.get("traceparent"), _attempt(data)
    )


def _attempt(data: Mapping[str, object]) -> int | None:
    return _integer(data, "attempt", 1) if "attempt" in data else None


def read_name(data: Mapping[str, object]) -> object:
    """The name of a join: any JSON value, None when it was left out. A null is a name, but not a valid
    one."""
    name = data.get("name")
    return "" if name is None and "name" in data else name


def read_token(data: Mapping[str, object], name: str = "token", most: int = TOKEN_CHARS_MAX) -> str | None:
    """The text of a token, good or not; None without one. Raises ProtocolError."""
    token = data.get(name)
    if name in data and (type(token) is not str or not 0 < len(token) <= most):
        _refuse(data, "bad_field", f"{name} is text of 1 to {most} characters.", name)
    return None if token is None else str(token)


def read_identity(data: Mapping[str, object]) -> str | None:
    """The text of an identity token, good or not; None without one. Raises ProtocolError."""
    return read_token(data, "identity", IDENTITY_CHARS_MAX)


def read_ticket(data: Mapping[str, object]) -> str | None:
    """The ticket of a player that waits for the host. Raises ProtocolError."""
    ticket = data.get("ticket")
    if "ticket" in data and (
        type(ticket) is not str
        or not TICKET_CHARS_MIN <= len(ticket) <= TICKET_CHARS_MAX
        or not ticket.isascii()
        or not ticket.isprintable()
    ):
        _refuse(
            data,
            "bad_field",
            f"ticket is text of {TICKET_CHARS_MIN} to {TICKET_CHARS_MAX} characters, as it was given.",
            "ticket",
        )
    return None if ticket is None else str(ticket)


def _answer(data: _Members) -> Answer:
    if data.keys() != _ANSWER_MEMBERS:
        _check(data, ("id", "question", "choice"), ("attempt", "traceparent"))
    return read_answer(data)


def _join(data: _Members) -> Join:
    if "token" in data:
        _check(data, ("code", "token"), ("epoch", "offset", "traceparent"))
        return Join(
            _code(data),
            token=read_token(data),
            epoch=_position(data, "epoch"),
            offset=_position(data, "offset"),
            traceparent=data.get("traceparent"),
        )
    if "role" in data:
        _check(data, ("code", "role"), ("epoch", "offset", "traceparent"))
        if data["role"] != "spectator":
            _refuse(data, "bad_field", "role is spectator; players give a name, hosts a token.", "role")
        return Join(
            _code(data),
            watch=True,
            epoch=_position(data, "epoch"),
            offset=_position(data, "offset"),
            traceparent=data.get("traceparent"),
        )
    identity = read_identity(data)
    positions = () if identity is None else ("identity", "epoch", "offset")
    _check(data, ("code",), ("name", "ticket", "former", "traceparent", *positions))
    return Join(
        _code(data),
        name=read_name(data),
        ticket=read_ticket(data),
        former=read_token(data, "former"),
        identity=identity,
        epoch=_position(data, "epoch"),
        offset=_position(data, "offset"),
        traceparent=data.get("traceparent"),
    )


def _next(data: _Members) -> Next:
    _check(data, (), ("id", "attempt"))
    return Next(_id(data) if "id" in data else None, _attempt(data))


def _host(data: _Members) -> Host:
    do = data.get("do")
    if do in ("kick", "readmit"):
        _check(data, ("id", "do", "player"))
        return Host(_id(data), str(do), player=_integer(data, "player", 1))
    if do == "extra_time":
        _check(data, ("id", "do", "player", "factor"))
        percent = percent_of(data["factor"])
        if percent is None:
            _refuse(data, "bad_field", "factor is a number from 1 to 4, or untimed.", "factor")
        return Host(_id(data), str(do), player=_integer(data, "player", 1), percent=percent)
    if do in ("admit", "refuse"):
        _check(data, ("id", "do"), ("player",))
        player = _integer(data, "player", 1) if "player" in data else None
        return Host(_id(data), str(do), player=player)
    if do in ("lock", "approval"):
        _check(data, ("id", "do", "on"))
        on = data["on"]
        if type(on) is not bool:
            _refuse(data, "bad_field", "on is true or false.", "on")
        return Host(_id(data), str(do), on=on)
    if do == "extend":
        _check(data, ("id", "do", "closes_at"))
        return Host(_id(data), do, closes_at=_integer(data, "closes_at", 1))
    if do in EXPECTING:
        _check(data, ("id", "do"), ("expect",))
        number, phase = _expect(data) if "expect" in data else (None, None)
        return Host(_id(data), do, seen_number=number, seen_phase=phase)
    _check(data, ("id", "do"))
    if type(do) is not str or do not in HOST_COMMANDS:
        _refuse(data, "bad_field", f"do is one of: {', '.join(HOST_COMMANDS)}.", "do")
    return Host(_id(data), do)


def _expect(data: _Members) -> tuple[int, str]:
    expect = data["expect"]
    if type(expect) is not dict:
        _refuse(data, "bad_field", "expect is an object with number and phase.", "expect")
    for name in expect:
        if name not in ("number", "phase"):
            _refuse(data, "unknown_field", f"{_shown(name)} is not a member of expect.", f"expect.{name}")
    number, phase = expect.get("number"), expect.get("phase")
    if type(number) is not int or number < 0:
        _refuse(data, "bad_field", "number is a whole number from 0.", "expect.number")
    if type(phase) is not str or phase not in PHASES:
        _refuse(data, "bad_field", f"phase is one of: {', '.join(PHASES)}.", "expect.phase")
    return number, phase


def _ping(data: _Members) -> Ping:
    _check(data, ("at",))
    at = data["at"]
    if type(at) is not int and type(at) is not float:
        _refuse(data, "bad_field", "at is a number.", "at")
    return Ping(at)


def _leave(data: _Members) -> Leave:
    _check(data, ())
    return Leave()


_READERS: Mapping[str, Callable[[_Members], Message]] = {
    "join": _join,
    "answer": _answer,
    "next": _next,
    "host": _host,
    "ping": _ping,
    "leave": _leave,
}


# -- members ---------------------------------------------------------------------------------------


def _check(data: _Members, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    """Exactly these members, besides `t`. The unknown are named first: a misspelt one is both."""
    for name in data:
        if name != "t" and name not in required and name not in optional:
            known = ", ".join(required + optional) or "none"
            _refuse(
                data,
                "unknown_field",
                f"{_shown(name)} is not a member of this message; known: {known}.",
                name,
            )
    for name in required:
        if name not in data:
            _refuse(data, "missing_field", f"{name} is missing.", name)


def _id(data: _Members) -> str:
    id_ = data["id"]
    if type(id_) is not str or not 0 < len(id_) <= ID_CHARS_MAX:
        _refuse(data, "bad_field", f"id is text of 1 to {ID_CHARS_MAX} characters.", "id")
    return id_


def _code(data: _Members) -> str:
    code = data["code"]
    if type(code) is not str or not is_code(code):
        _refuse(data, "bad_field", "code is text of six digits.", "code")
    return code


def _integer(data: _Members, name: str, least: int) -> int:
    value = data[name]
    # bool is a subclass of int, hence the type itself.
    if type(value) is not int or value < least:
        _refuse(data, "bad_field", f"{name} is a whole number from {least}.", name)
    return value


def _position(data: _Members, name: str) -> int | None:
    return _integer(data, name, 0) if name in data else None


# -- refusals --------------------------------------------------------------------------------------


def _refuse_type(data: _Members) -> NoReturn:
    kind = data.get("t")
    known = ", ".join(_READERS)
    if "t" not in data:
        _refuse(data, "missing_field", f"t is missing; it is one of: {known}.", "t")
    if type(kind) is not str:
        _refuse(data, "bad_field", f"t is text, one of: {known}.", "t")
    _refuse(data, "unknown_type", f"{_shown(kind)} is not a type of message; known: {known}.", "t")


def _refuse(
    data: _Members,
    code: Literal["unknown_type", "unknown_field", "missing_field", "bad_field"],
    message: str,
    path: str,
) -> NoReturn:
    id_ = data.get("id")
    known = type(id_) is str and 0 < len(id_) <= ID_CHARS_MAX
    raise ProtocolError(code, message, path[:NAMES_SHOWN_MAX], id_ if known else None)  # type: ignore[arg-type]  # `known` says it is text


def _shown(name: str) -> str:
    return name if len(name) <= NAMES_SHOWN_MAX else name[:NAMES_SHOWN_MAX] + "…"
