"""The conversation on one connection: which client it is, which messages it may send, and where they go.

The same for every transport. A transport feeds `receive` with the text frames of one connection and calls
`disconnected` once at the end; frames to the client go to the connection's `push` and `close`.
Everything here is synchronous, and nothing waits for a client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from engine.actors import commands, messages
from engine.actors.clock import Clock
from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import Subscriber, push_all
from engine.actors.pacing import Pacing
from engine.actors.token_bucket import TokenBucket
from engine.boundary import Boundary
from engine.latency import Latency
from server.runtime.spans import TracedJoin
from server.runtime.tracing import Tracing
from server.security.connection_tokens import ConnectionTokens, random_connection_tokens
from server.security.identity import Identities, IdentityError, no_identities
from server.security.limits import Attempts, Try, network_of
from server.security.tokens import Grant, TokenError, former_of, generation_of, new_ticket
from server.wire import protocol
from server.wire.protocol import ProtocolError


class Sessions(Protocol):
    """Where commands go. `engine.shards.router.Router` is one."""

    def deliver(self, key: str, command: commands.Command) -> None:
        """Hand a command to the session with this code or id. Never blocks; answers through `reply`."""


class TokenReader(Protocol):
    def read(self, token: str) -> Grant:
        """Raises TokenError."""


def _never(wait_s: float, do: Callable[[], None]) -> bool:  # noqa: ARG001 - as Waiting.after
    return False


@dataclass(frozen=True, slots=True)
class ConversationDeps:
    """What all conversations of a node share. `pages` are the addresses of all nodes whose web pages may come
    in here, as the cluster knows them at the time. `call_later` calls what it is given in so many seconds,
    unless it says False because too many wait already. `pacing` knows how long what is read had lain in the
    kernel. `identities` reads the identity tokens of users; without it, none are taken. `tracing` is None
    where nothing is traced. `connection_tokens` are those of the hub, by default good on this node alone.
    `resumes` counts how long clients waited that came back."""

    sessions: Sessions
    tokens: TokenReader
    clock: Clock
    attempts: Attempts
    messages_per_s: float
    messages_burst: int
    pages: Callable[[], Iterable[str]] = tuple
    boundary: Boundary = field(default_factory=Boundary)
    call_later: Callable[[float, Callable[[], None]], bool] = _never
    pacing: Pacing = field(default_factory=Pacing)
    identities: Identities = field(default_factory=no_identities)
    tracing: Tracing | None = None
    connection_tokens: ConnectionTokens = field(default_factory=random_connection_tokens)
    resumes: Latency = field(default_factory=Latency)


class _State(Enum):
    """How far a conversation has come.

    NEW -> JOINING on a join that is passed on; JOINING -> JOINED, or back to NEW, or WAITING for the host's
    approval, by the reply of the session; WAITING -> JOINING with each further join; any state -> OVER when
    the client, the session, a limit or the network ends it. Nothing leads out of OVER. A session may still be
    about to seat a conversation that is over; that seat is given back as soon as it is offered.
    """

    NEW = "new"
    JOINING = "joining"
    WAITING = "waiting"
    JOINED = "joined"
    OVER = "over"


_JOINED = _State.JOINED
"""Looked up for every frame to everyone, where a member of an enumeration costs as much as a call."""

_MAY_JOIN = (_State.NEW, _State.WAITING)


def refusal_in(frame: Frame) -> str | None:
    """The code of the refusal that the frame is; None if it is none."""
    return str(frame.message["code"]) if frame.kind == "error" else None


class Conversation:
    """The conversation on one connection; for the session it is a subscriber.

    Args:
        deps: shared by all conversations of the node.
        connection: sends frames to the client, and ends the connection.
        address: of the client, for the limit on attempts.
        may_move: the client understands `moved`. A session of another node is relayed to any other client.
    """

    __slots__ = (
        "_address",
        "_connection",
        "_deps",
        "_generation",
        "_may_move",
        "_messages",
        "_player",
        "_resumes_at",
        "_role",
        "_session",
        "_state",
        "_traced",
        "_try",
    )

    def __init__(
        self, deps: ConversationDeps, connection: Subscriber, address: str, *, may_move: bool = True
    ) -> None:
        self._deps = deps
        self._connection = connection
        self._address = address
        self._may_move = may_move
        self._messages = TokenBucket(deps.messages_per_s, deps.messages_burst)
        self._state = _State.NEW
        self._session: str | None = None
        """Where this conversation holds a seat; kept until the seat is given back."""
        self._role: str | None = None
        self._player = 0
        self._resumes_at: int | None = None
        """When the client asked to come back, until it has."""
        self._generation: int | None = None
        """The generation of the host's token."""
        self._try: Try | None = None
        """The charge for the code that is being tried."""
        self._traced: TracedJoin | None = None
        """The join that waits for the reply of its session, if it has a trace."""

    @property
    def idle(self) -> bool:
        """Whether no client has joined and no join is in progress, which a connection may be for a while
        only."""
        return self._state is _State.NEW

    @property
    def joining(self) -> bool:
        """Whether a join waits for the reply of its session."""
        return self._state is _State.JOINING

    @property
    def over(self) -> bool:
        """Whether nothing that the client says is heard any more."""
        return self._state is _State.OVER

    # -- from the client -------------------------------------------------------------------------

    def receive(self, raw: object, read: Callable[[Any], protocol.Message] = protocol.parse) -> None:
        """Take one message: the payload of one text frame, or what else `read` makes a message of. `read`
        raises ProtocolError."""
        if self._state is _State.OVER:
            return
        now = self._deps.clock.now_ms()
        if not self._messages.take(now):
            self._end_hurry()
            return
        try:
            message = read(raw)
        except ProtocolError as error:
            self._connection.push(messages.error(error.code, error.message, id=error.id, path=error.path))
            return
        if isinstance(message, protocol.Answer):
            self._answer(message, now)
        elif isinstance(message, protocol.Ping):
            self._connection.push(Frame({"t": "pong", "at": message.at, "now": now}))
        elif isinstance(message, protocol.Next):
            self._next(message)
        elif isinstance(message, protocol.Host):
            self._host(message)
        elif isinstance(message, protocol.Join):
            self._join(message, now)
        else:
            self._state = _State.OVER
            self._connection.close(CloseReason.LEFT)

    def receive_aside(self, frames: int) -> None:
        """Take so many frames that say nothing: control frames, and pieces of messages. They cost what
        messages cost, except the pongs that were asked for."""
        if self._state is not _State.OVER and not self._messages.take(self._deps.clock.now_ms(), frames):
            self._end_hurry()

    def receive_binary(self) -> None:
        """Take a binary frame, which the protocol does not know."""
        if self._state is not _State.OVER:
            self._end(CloseReason.BAD_FRAME, "bad_message", "Only text frames are understood.")

    def give_up_joining(self) -> None:
        """The session has not said a word to the join for too long: something that it waits for hangs."""
        self._end(CloseReason.RESTARTING, "busy", "The session does not answer. Try again in a moment.")

    def disconnected(self) -> None:
        """The connection is gone. Gives the seat back, if there is one."""
        self._state = _State.OVER
        self._settle(None)
        self._end_trace("left")
        self._give_back()

    def _answer(self, message: protocol.Answer, now: int) -> None:
        if self._session is None or self._role != "player":
            self._refuse_speaker("not_player", "Only players answer.", message.id)
            return
        deps = self._deps
        deps.sessions.deliver(
            self._session,
            commands.Answer(
                self,
                self._player,
                message.id,
                message.question,
                message.choice,
                now,
                held_ms=deps.pacing.reads.held_ms() or None,
                trace=None if deps.tracing is None else deps.tracing.begin(message.traceparent),
                attempt=message.attempt,
            ),
        )

    def _next(self, message: protocol.Next) -> None:
        if self._session is None or self._role != "player":
            self._refuse_speaker("not_player", "Only players go on to the next question.", message.id)
            return
        command = commands.Next(self, self._player, message.id, attempt=message.attempt)
        self._deps.sessions.deliver(self._session, command)

    def _host(self, message: protocol.Host) -> None:
        if self._session is None or self._role != "host":
            self._refuse_speaker("not_host", "Only the host may do this.", message.id)
            return
        self._deps.sessions.deliver(
            self._session,
            commands.Host(
                self,
                message.id,
                message.do,
                message.player,
                message.on,
                message.seen_number,
                message.seen_phase,
                message.closes_at,
                self._generation,
                message.percent,
            ),
        )

    def _refuse_speaker(self, code: str, message: str, id_: str | None) -> None:
        if self._session is None:
            code, message = "not_joined", "Join a session first."
        self._connection.push(messages.error(code, message, id=id_))

    def _join(self, message: protocol.Join, now: int) -> None:
        if self._state not in _MAY_JOIN:
            self._connection.push(messages.error("already_joined", "This connection has joined."))
            return
        if self._deps.tracing is not None:
            self._traced = self._deps.tracing.begin_join(message.traceparent, now)
        if message.token is not None:
            self._rejoin(message, message.token, now)
            return
        if message.watch:
            self.watch(message.code, message.epoch, message.offset, may_move=self._may_move)
            return
        identities = self._deps.identities
        if message.identity is not None:
            self._state = _State.JOINING
            identities.read(message.identity, lambda found: self._hear_of_identity(message, found))
        elif (refusal := identities.refuse_guest()) is not None:
            self._refuse_identity(refusal)
        else:
            self._join_new(message, None)

    def _hear_of_identity(self, message: protocol.Join, found: commands.Identity | IdentityError) -> None:
        if self._state is not _State.JOINING:
            return  # the client has gone
        if isinstance(found, IdentityError):
            self._state = _State.NEW
            self._refuse_identity(found)
        else:
            self._join_new(message, found)

    def _refuse_identity(self, error: IdentityError) -> None:
        self._end_trace(error.code)
        self._connection.push(messages.error(error.code, error.message, path="identity"))
        if error.guessed:
            self._count_failure(self._deps.clock.now_ms())

    def _join_new(self, message: protocol.Join, identity: commands.Identity | None) -> None:
        former_session, former_player = former_of(self._deps.tokens.read, message.former)
        join = commands.Join(
            self,
            message.name,
            self._deps.clock.now_ms(),
            attach=True,
            may_move=self._may_move,
            address=network_of(self._address),
            ticket=message.ticket or new_ticket(),
            former_session=former_session,
            former_player=former_player,
            identity=identity,
            epoch=message.epoch,
            offset=message.offset,
            trace=None if self._traced is None else self._traced.trace,
        )
        self._try_code(message.code, join)

    def _rejoin(self, message: protocol.Join, token: str, now: int) -> None:
        try:
            grant = self._deps.tokens.read(token)
        except TokenError as error:
            self._end_trace(error.code)
            self._connection.push(messages.error(error.code, error.message, path="token"))
            if error.code != "token_expired":  # that one was good once, and nobody guesses
                self._count_failure(now)
            return
        self.come_back(grant, message.code, message.epoch, message.offset, may_move=self._may_move)

    # -- from a connection that has no frames to say it with ---------------------------------------

    def come_back(
        self,
        grant: Grant,
        code: str | None,
        epoch: int | None,
        offset: int | None,
        *,
        may_move: bool = False,
    ) -> None:
        """Join as who a token was given to. `code`, when given, must be that of the token's session.
        `may_move`: the client may be told to go to another node."""
        self._generation = generation_of(grant)
        self._resumes_at = self._deps.clock.now_ms()
        self._ask(
            grant.session_id,
            commands.Rejoin(
                self,
                grant.role,
                grant.player,
                code,
                epoch,
                offset,
                may_move,
                generation=self._generation,
            ),
        )

    def come_back_as(self, user: str, key: str, epoch: int | None, offset: int | None) -> None:
        """Join the session with this code or id as the player that a user of the app is there."""
        self._resumes_at = self._deps.clock.now_ms()
        self._try_code(key, commands.Rejoin(self, "player", None, None, epoch, offset, user=user))

    def watch(self, key: str, epoch: int | None, offset: int | None, *, may_move: bool = False) -> None:
        """Join the session with this code or id as a spectator. `may_move` as in `come_back`."""
        self._try_code(key, commands.Watch(self, epoch, offset, may_move))

    def _try_code(self, key: str, command: commands.Command) -> None:
        """A token proves itself; a code might be a guess, and waits for its turn where there were many."""
        deps = self._deps
        entered = self._try = deps.attempts.enter(self._address, key, deps.clock.now_ms())
        if entered is None:
            self._end_guessing()
        elif not entered.wait_ms:
            self._ask(key, command)
        else:
            self._state = _State.JOINING
            if not deps.call_later(entered.wait_ms / 1000, lambda: self._has_waited(key, command)):
                entered.unjudged()
                self._end_guessing()

    def _has_waited(self, key: str, command: commands.Command) -> None:
        if self._state is _State.JOINING:
            self._ask(key, command)

    def _ask(self, key: str, command: commands.Command) -> None:
        # The state first: the session may answer before `deliver` returns.
        self._state = _State.JOINING
        self._deps.sessions.deliver(key, command)

    def _count_failure(self, now: int) -> None:
        if not self._deps.attempts.charge(self._address, now):
            self._end_guessing()

    def _end_hurry(self) -> None:
        self._end(CloseReason.RATE_LIMITED, "rate_limited", "Too many messages; slow down.")

    def _settle(self, frame: Frame | None) -> None:
        """What the first reply about a code that was tried tells of it; None if the client has gone before
        it."""
        entered, self._try = self._try, None
        if entered is not None:
            refusal = "session_not_found" if frame is None else refusal_in(frame)
            entered.judge(refusal, self._deps.clock.now_ms())

    def _end_trace(self, outcome: str) -> None:
        """The join that waited has come out so."""
        traced, self._traced = self._traced, None
        if traced is not None and self._deps.tracing is not None:
            now = self._deps.clock.now_ms()
            self._deps.tracing.note_join(traced, now, outcome, self._session, self._player)

    def _end_guessing(self) -> None:
        self._end(
            CloseReason.TOO_MANY_ATTEMPTS,
            "too_many_attempts",
            "Too many wrong codes or tokens; wait a minute.",
        )

    def _end(self, close_reason: CloseReason, code: str, message: str) -> None:
        self._state = _State.OVER
        self._connection.push(messages.error(code, message))
        self._connection.close(close_reason)

    # -- from the session ------------------------------------------------------------------------

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        if self._state is _JOINED:
            self._connection.push(frame)
        elif self._state is _State.OVER:
            if frame.kind == "joined":
                self._take_seat(frame)
                self._give_back()
        else:
            self._hear_of_join(frame)

    def push_all(self, frames: Sequence[Frame]) -> None:
        """As `push` with each of them."""
        if self._state is _JOINED:
            push_all(self._connection, frames)
        else:
            for frame in frames:
                self.push(frame)

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber. The session has let go of this conversation: there is no seat to give back."""
        self._state = _State.OVER
        self._session = None
        if self._try is not None:
            self._try.unjudged()
            self._try = None
        self._end_trace(close_reason.name.lower())
        self._connection.close(close_reason)

    def _hear_of_join(self, frame: Frame) -> None:
        if frame.kind == "joined":
            self._take_seat(frame)
            self._state = _State.JOINED
            if self._resumes_at is not None:
                self._deps.resumes.add((self._deps.clock.now_ms() - self._resumes_at) / 1000)
                self._resumes_at = None
        else:
            self._state = _State.WAITING if frame.kind == "waiting" else _State.NEW
        self._settle(frame)
        self._end_trace(str(frame.message["code"]) if frame.kind == "error" else str(frame.kind))
        self._connection.push(frame)
        if frame.kind == "error" and frame.message["code"] == "token_invalid":
            self._count_failure(self._deps.clock.now_ms())

    def _take_seat(self, frame: Frame) -> None:
        session, role, player = (frame.message[name] for name in ("session", "role", "player"))
        assert isinstance(session, str)
        assert isinstance(role, str)
        self._session, self._role = session, role
        if isinstance(player, int):
            self._player = player
        self._deps.attempts.know(self._address, str(frame.message["code"]))

    def _give_back(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            self._deps.sessions.deliver(session, commands.Detach(self))
