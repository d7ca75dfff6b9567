"""Where a command of a client spends its time between two nodes.

While anything is traced, each answer and join that goes to another node is followed: it carries its trace
there, and its hop lasts until the first reply is back. The spans of the other node are below that of the hop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from engine.actors.clock import Clock
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Answer, Command, Join
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import Subscriber
from engine.actors.slow_answers import SLOW_MS
from engine.shards.ports import Links, Member
from engine.trace import Trace, new_span_id, new_trace_id

_FAILED = frozenset({"busy", "session_unavailable"})


@dataclass(frozen=True, slots=True)
class Hop:
    """A command on its way to another node and back.

    Attributes:
        trace: that of the command as this node got it.
        span_id: of the hop.
        what: "answer" or "join".
        node: the name of the other node.
        at: when the command was sent, in ms since the epoch.
        took_ms: until its first reply; None before that.
        error: what came instead of a reply.
    """

    trace: Trace
    span_id: str
    what: str
    node: str
    session_id: str
    at: int
    took_ms: int | None = None
    error: str | None = None


def followed(links: Links, clock: Clock, tell: Callable[[Hop], None] | None) -> Links:
    """The links, followed if anybody wants to be told. Args: as of `FollowedLinks`."""
    return links if tell is None else FollowedLinks(links, clock, tell)


class FollowedLinks:
    """Port `Links`: passes everything on to other `Links`, and follows answers and joins.

    Args:
        clock: dates the hops.
        tell: is told of each hop that is sampled, slow, or failed. Must return at once.
    """

    def __init__(self, links: Links, clock: Clock, tell: Callable[[Hop], None]) -> None:
        self._links = links
        self._clock = clock
        self._tell = tell

    def send(self, member: Member, session_id: str, command: Command) -> None:
        """Links."""
        if isinstance(command, Answer | Join):
            # Whether the reply will be slow is not known yet, so each has a trace.
            trace = command.trace or Trace(new_trace_id(), sampled=False)
            what = type(command).__name__.lower()
            hop = Hop(trace, new_span_id(), what, member.name, session_id, self._clock.now_ms())
            reply = _Followed(command.reply, hop, self._ended)
            command = replace(command, reply=reply, trace=trace.below(hop.span_id))
        self._links.send(member, session_id, command)

    def drop(self, reply: Subscriber) -> None:
        """Links."""
        self._links.drop(reply)

    async def ask(self, member: Member, request: Mapping[str, object]) -> Mapping[str, object]:
        """Links."""
        return await self._links.ask(member, request)

    def _ended(self, hop: Hop, error: str | None) -> None:
        took_ms = max(self._clock.now_ms() - hop.at, 0)
        if hop.trace.sampled or took_ms >= SLOW_MS or error is not None:
            self._tell(replace(hop, took_ms=took_ms, error=error))


class _Followed:
    """Subscriber: the reply to a command that is followed."""

    __slots__ = ("_ended", "_hop", "_reply")

    def __init__(self, reply: Subscriber, hop: Hop, ended: Callable[[Hop, str | None], None]) -> None:
        self._reply = reply
        self._hop: Hop | None = hop
        self._ended = ended

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        code = frame.message.get("code") if frame.kind == "error" else None
        self._end(code if isinstance(code, str) and code in _FAILED else None)
        self._reply.push(frame)

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""
        self._end(close_reason.name.lower())
        self._reply.close(close_reason)

    def _end(self, error: str | None) -> None:
        hop, self._hop = self._hop, None
        if hop is not None:
            self._ended(hop, error)
