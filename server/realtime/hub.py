"""A SignalR client: its calls become messages of the conversation, and replies become completions.

Synchronous, and the same for every transport. A transport feeds `receive` with the bytes of one client,
passes frames that are `REPLIES` through `answered`, and sends all others as they are, in the protocol that
the handshake has agreed on. What fails in `receive` ends that connection and nothing else.

How to think about it: a reply has the `id` of its request. So the hub gives every call an id of its own, the
reply with that id ends the call, and the client's id goes back into its place. The few replies without an id
answer the call that is just being made, or the `Join` that waits for its session. The reply to a call without
an invocationId is an ordinary invocation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from engine.actors import messages
from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame, Message
from engine.boundary import Boundary
from server.realtime.conversation import Conversation
from server.wire import hub, protocol
from server.wire.hub import HubMessage, HubProtocol, HubProtocolError, Type
from server.wire.protocol import ID_CHARS_MAX, ProtocolError

PING_INTERVAL_S: Final = 15.0
"""How often a hub client hears something: it takes a server that is silent for 30 s for dead."""

SILENT_INTERVALS_MAX: Final = 2
"""After so many intervals in which a client has said nothing it is let go: 30 s."""

CALLS_MAX: Final = 64
"""The most calls of a client that wait for their replies."""

REPLIES: Final = frozenset({"ack", "done", "done_all", "error", "joined", "pong", "question", "waiting"})
"""Types of frames that may answer a call. A `question` does if it has an id."""

_JOIN_REPLIES = frozenset({"joined", "waiting", "error"})
_WITH_ID = frozenset({"answer", "host", "next"})


class HubConnection(Protocol):
    """What carries a hub client."""

    def push(self, frame: Frame) -> None:
        """Subscriber."""

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""

    def agree(self, protocol: HubProtocol) -> None:
        """From here on the client is spoken to in this protocol."""

    def refuse_handshake(self, words: bytes) -> None:
        """End the connection with these bytes."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that waits for its reply. `id` is what the client called it in the message, if anything;
    `invocation` is None if nobody waits for its end."""

    kind: str
    invocation: str | None
    id: object = None


class HubClient:
    """Args:
    access_token: what the client came with: a token of a session, or of a user, with which `Join` does when
        it names none.
    bytes_max: bound of one message, whole or not.
    boundary: is told what fails.
    """

    __slots__ = (
        "_access_token",
        "_boundary",
        "_bytes_max",
        "_calls",
        "_heard",
        "_joining",
        "_marks",
        "_now",
        "_rest",
        "_silent",
        "protocol",
    )

    def __init__(self, access_token: str | None, bytes_max: int, boundary: Boundary) -> None:
        self._access_token = None if access_token == hub.NO_TOKEN else access_token
        self._bytes_max = bytes_max
        self._boundary = boundary
        self._rest = b""
        self._calls: dict[str, _Call] = {}
        """By the hub's own id."""
        self._marks = 0
        self._now: _Call | None = None
        """The call that is just being made."""
        self._joining: _Call | None = None
        """The `Join` or `Watch` that waits for its session."""
        self._heard = True
        self._silent = 0
        """Intervals in which nothing came."""
        self.protocol: HubProtocol | None = None
        """None before the handshake."""

    # -- from the client -------------------------------------------------------------------------

    def receive(self, data: bytes, conversation: Conversation, connection: HubConnection) -> None:
        """Take received bytes: any number of records, the last of them perhaps in part."""
        self._heard = True
        try:
            self._take(data, conversation, connection)
        except Exception as error:  # noqa: BLE001 - the boundary logs it
            self._boundary.caught(error, "a conversation of the hub")
            connection.close(CloseReason.FAILED)

    def _take(self, data: bytes, conversation: Conversation, connection: HubConnection) -> None:
        data = self._rest + data
        self._rest = b""
        if self.protocol is None:
            record, separator, rest = data.partition(hub.SEPARATOR)
            if not separator:
                self._keep(data, conversation, connection)
                return
            data = rest
            try:
                self.protocol = hub.read_handshake(record)
            except HubProtocolError as error:
                connection.refuse_handshake(hub.handshake_refused(str(error)))
                return
            connection.agree(self.protocol)
            connection.push(hub.SHAKEN)
            if not data:
                conversation.receive_aside(1)
                return
        try:
            records, rest = self.protocol.split(data)
            for record in records:
                if len(record) > self._bytes_max:
                    connection.close(CloseReason.TOO_LARGE)
                    return
                self._hear(self.protocol.read(record), conversation, connection)
                if conversation.over:
                    return
        except HubProtocolError:
            connection.close(CloseReason.BAD_FRAME)
            return
        if rest or not records:
            self._keep(rest, conversation, connection)

    def _keep(self, rest: bytes, conversation: Conversation, connection: HubConnection) -> None:
        """Keep the begin of a message. It costs what a message costs."""
        if len(rest) > self._bytes_max:
            connection.close(CloseReason.TOO_LARGE)
            return
        self._rest = rest
        conversation.receive_aside(1)

    def _hear(self, message: HubMessage, conversation: Conversation, connection: HubConnection) -> None:
        kind = message.type
        if kind == Type.INVOCATION:
            self._call(message, conversation, connection)
            return
        conversation.receive_aside(1)
        if conversation.over:
            return
        if kind == Type.STREAM_INVOCATION:
            call = _Call(message.target, message.invocation)
            self._fail(call, "unknown_type", "This hub has no streams.", connection)
        elif kind == Type.CLOSE:
            connection.close(CloseReason.LEFT)
        elif kind in (Type.ACK, Type.SEQUENCE):
            raise HubProtocolError("Stateful reconnect was not agreed on.")
        # Nothing follows from what belongs to a stream, and types that are not known yet are to be ignored.

    def _call(self, message: HubMessage, conversation: Conversation, connection: HubConnection) -> None:
        invocation = message.invocation
        if invocation is not None and any(each.invocation == invocation for each in self._waiting):
            raise HubProtocolError("An invocationId is used twice.")
        call = _Call(message.target.lower(), invocation)
        try:
            data = self._read_call(call.kind, message)
        except ProtocolError as error:
            conversation.receive_aside(1)
            self._fail(call, error.code, error.message, connection)
            return
        if call.kind == "leave" and invocation is not None:
            connection.push(hub.completion(invocation, None))
        if data["t"] in _WITH_ID and _may_be_id(data.get("id", "-")):
            call = _Call(call.kind, invocation, data.get("id"))
            self._marks += 1
            data["id"] = mark = str(self._marks)
            self._calls[mark] = call
        self._now = call
        conversation.receive(data, protocol.read)
        if self._now is not None and data["t"] == "join" and conversation.joining:
            self._joining = call
        self._now = None

    @property
    def _waiting(self) -> Sequence[_Call]:
        calls = list(self._calls.values())
        return calls if self._joining is None else [*calls, self._joining]

    def _read_call(self, method: str, message: HubMessage) -> dict[str, object]:
        """The message of the conversation that a call stands for. Raises ProtocolError."""
        if len(self._calls) >= CALLS_MAX:
            raise ProtocolError("busy", "Too many calls wait for their replies.")
        names = _METHODS.get(method)
        if names is None:
            shown = message.target[: protocol.NAMES_SHOWN_MAX]
            known = ", ".join(each.capitalize() for each in _METHODS)
            raise ProtocolError("unknown_type", f"{shown} is not a method of this hub; known: {known}.")
        arguments = message.arguments
        if len(arguments) == 1 and isinstance(arguments[0], dict):
            # A member that is null counts as absent: typed clients send all that they know of.
            data = {
                name: value for name, value in arguments[0].items() if value is not None or name == "choice"
            }
        elif len(arguments) <= len(names):
            data = dict(zip(names, arguments, strict=False))
        else:
            raise ProtocolError("bad_message", _takes(method, names))
        data["t"] = "join" if method == "watch" else method
        if method == "watch":
            data["role"] = "spectator"
        elif method == "join" and self._access_token is not None:
            _add_token(data, self._access_token)
        return data

    # -- to the client ---------------------------------------------------------------------------

    def fell_silent(self) -> bool:
        """Whether the client is to be let go. To be asked every PING_INTERVAL_S, when a ping is due too."""
        self._silent = 0 if self._heard else self._silent + 1
        self._heard = False
        return self._silent >= SILENT_INTERVALS_MAX

    def answered(self, frame: Frame) -> Frame | None:
        """The frame that a client gets in place of one of `REPLIES`: a completion, or the frame itself if it
        answers no call. None before the handshake, when nothing but its answer is said."""
        if self.protocol is None:
            return None
        mark = frame.message.get("id")
        call = self._calls.pop(mark, None) if isinstance(mark, str) else None
        if call is not None:
            return _ended(call, frame, _with_id(frame.message, call.id))
        if mark is not None:
            return frame
        now = self._now
        if now is not None and (frame.kind == "error" or frame.kind in _ANSWERS_NOW.get(now.kind, ())):
            self._now = None
            return _ended(now, frame, frame.message)
        joining = self._joining
        if joining is not None and frame.kind in _JOIN_REPLIES:
            self._joining = None
            return _ended(joining, frame, frame.message)
        return frame

    def _fail(self, call: _Call, code: str, sentence: str, connection: HubConnection) -> None:
        if call.invocation is None:
            connection.push(messages.error(code, sentence))
        else:
            connection.push(hub.failure(call.invocation, code, sentence))


_METHODS: Mapping[str, Sequence[str]] = {
    "join": ("code", "name"),
    "watch": ("code",),
    "answer": ("question", "choice"),
    "host": ("do",),
    "next": (),
    "leave": (),
    "ping": ("at",),
}
"""The members that a call may give one by one instead of in one object."""

_ANSWERS_NOW: Mapping[str, frozenset[str]] = {
    "join": _JOIN_REPLIES,
    "watch": _JOIN_REPLIES,
    "ping": frozenset({"pong"}),
}


def _takes(method: str, names: Sequence[str]) -> str:
    words = " or ".join(["one object", *([", ".join(names)] if names else [])])
    return f"{method.capitalize()} takes {words}."


def _may_be_id(id_: object) -> bool:
    return isinstance(id_, str) and 0 < len(id_) <= ID_CHARS_MAX


def _add_token(data: dict[str, object], token: str) -> None:
    """Join as who the client came as, if the call does not say who. A JSON Web Token is a user's."""
    if token.startswith("eyJ"):
        if not data.keys() & {"token", "role", "identity"}:
            data["identity"] = token
    elif not data.keys() & {"token", "role", "identity", "name"}:
        data["token"] = token


def _with_id(message: Message, id_: object) -> Message:
    """The message with the client's own id, or without one."""
    if id_ is not None:
        return {**message, "id": id_}
    return {name: value for name, value in message.items() if name != "id"}


def _ended(call: _Call, frame: Frame, message: Message) -> Frame:
    if call.invocation is None:
        return frame if message is frame.message else Frame(message)
    if frame.kind == "error":
        return hub.failure(call.invocation, str(message["code"]), str(message["message"]))
    return hub.completion(call.invocation, message)


HANDSHAKE_ENDED: Final = hub.handshake_refused("The connection ends before a handshake.")
"""The last message to a client that has not shaken hands."""
