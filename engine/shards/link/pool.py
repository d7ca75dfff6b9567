"""Outgoing links: one WebSocket to each node that this node asks, dialled when it is first needed.

An error of the network ends the link it happened on, and nothing else. So does a bug, with a traceback in the
log.
"""

from __future__ import annotations

import logging
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Command
from engine.actors.delivery.subscriber import Subscriber
from engine.boundary import Boundary
from engine.latency import NO_LATENCY, Latency, LatencyStatistics, Signs
from engine.shards.link.auth import HANDSHAKE_S, NONCE_BYTES, ClientProof, Refused, link_key
from engine.shards.link.client import LinkClient
from engine.shards.link.codec import MESSAGE_BYTES_MAX
from engine.shards.link.keepalive import SILENCE_S
from engine.shards.link.log_once import LogOnce
from engine.shards.link.transport import RECEIVE_BYTES, BatchedTransport
from engine.shards.ports import LinkLost, Member

log = logging.getLogger(__name__)

REST_S = 0.2
REST_MAX_S = 2.0
"""How long nothing goes to a node after a failed dial: doubling from the first to the second."""

REST_SILENT_S = 1.0
"""The same after a link that ended because the node was silent. Meanwhile the node may wake, or be found
gone."""

EXPIRE_EVERY_S = 5.0
"""How often replies that waited for too long are looked for."""

PATH = "/link"

OpenStream = Callable[[str], Awaitable[trio.abc.Stream]]


async def open_stream(url: str) -> trio.abc.Stream:
    """A stream to the address of a link, which is ws:// or wss://. Raises OSError, and ValueError for any
    other address."""
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"{url!r} is not the address of a link")
    if parts.scheme == "ws":
        return await trio.open_tcp_stream(parts.hostname, parts.port or 80)
    return await trio.open_ssl_over_tcp_stream(
        parts.hostname, parts.port or 443, ssl_context=ssl.create_default_context(), https_compatible=True
    )


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """A snapshot of all links that this node has dialled. `waiting` counts entries that are still to be sent;
    `sent` and `received` count entries, `messages` the messages they were sent in, and `refused` the commands
    for which there was no room or no link."""

    open: int
    waiting: int
    waiting_bytes: int
    replies: int
    asks: int
    sent_total: int
    messages_total: int
    received_total: int
    refused_total: int
    failed_dials_total: int
    lost_total: int
    pings: LatencyStatistics = NO_LATENCY


@dataclass(frozen=True, slots=True)
class LinkCondition:
    """How the link to one run of a node is.

    Attributes:
        state: `idle` if nothing has needed the link yet; `failed` from a dial that failed, or a node that
            fell silent, until a link is open again.
        signs: of an open link, how long its pings take; of a failed one, why.
    """

    state: Literal["idle", "dialling", "open", "failed"]
    signs: Signs = field(default_factory=Signs)


@dataclass(slots=True)
class _Rest:
    """The pause after a failed dial. `until` is on trio's clock."""

    until: float
    length_s: float
    signs: Signs


class _Link:
    def __init__(self, silence_s: float, boundary: Boundary, pings: Latency) -> None:
        self.transport = BatchedTransport(silence_s, pings)
        self.end = LinkClient(self.transport, boundary)
        self.open = False
        self.why = "it does not answer"
        """What is said of a link that ends before it was open."""
        self.silent = trio.CancelScope()
        """Cancelled when the other node is silent for too long."""
        self.watched = trio.CancelScope()


class LinkPool:
    """Port `Links`. Nothing is dialled before it is needed, and nothing at all unless `run` runs.

    Args:
        own_run: of this node.
        secret: of the cluster, the same on all nodes.
        silence_s: a node without a sign of life for this long is given up.
        gone: whether the heartbeat of a run is gone. Such a run is given up sooner if it is silent too.
        boundary: of the node.
        open: dials an address.
    """

    def __init__(
        self,
        own_run: str,
        secret: bytes,
        *,
        silence_s: float = SILENCE_S,
        gone: Callable[[str], bool] = lambda _: False,
        open: OpenStream = open_stream,  # noqa: A002 - as in io
        boundary: Boundary | None = None,
    ) -> None:
        self._boundary = boundary or Boundary()
        self._own_run = own_run
        self._silence_s = silence_s
        self._gone = gone
        self._key = link_key(secret)
        self._open = open
        self._nursery: trio.Nursery | None = None
        self._links: dict[str, _Link] = {}
        self._rests: dict[str, _Rest] = {}
        self._complaints = LogOnce(log)
        self._pings = Latency()
        self._sent = self._messages = self._received = self._refused = self._failed_dials = self._lost = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the links until cancelled; then every reply is closed."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def send(self, member: Member, session_id: str, command: Command) -> None:
        """Links."""
        link = self._link_to(member)
        if link is None:
            self._refused += 1
            command.reply.close(CloseReason.RESTARTING)
        else:
            link.end.send(session_id, command)

    def drop(self, reply: Subscriber) -> None:
        """Links."""
        for link in self._links.values():
            link.end.drop(reply)

    async def ask(self, member: Member, request: Mapping[str, object]) -> Mapping[str, object]:
        """Links. Raises ValueError for a request that JSON cannot hold, or that is too large."""
        link = self._link_to(member)
        if link is None:
            raise LinkLost(f"{member.name} cannot be reached just now")
        try:
            return await link.end.ask(request)
        except LinkLost as lost:
            raise LinkLost(f"{member.name}: {lost}") from None

    def statistics(self) -> LinkStatistics:
        links = self._links.values()
        return LinkStatistics(
            open=sum(link.open for link in links),
            waiting=sum(link.transport.waiting for link in links),
            waiting_bytes=sum(link.transport.waiting_bytes for link in links),
            replies=sum(link.end.replies for link in links),
            asks=sum(link.end.asks for link in links),
            sent_total=self._sent + sum(link.transport.sent_total for link in links),
            messages_total=self._messages + sum(link.transport.messages_total for link in links),
            received_total=self._received + sum(link.transport.received_total for link in links),
            refused_total=self._refused + sum(link.end.refused_total for link in links),
            failed_dials_total=self._failed_dials,
            lost_total=self._lost,
            pings=self._pings.statistics(),
        )

    def condition(self, run: str) -> LinkCondition:
        """Of the link to this run."""
        link, rest = self._links.get(run), self._rests.get(run)
        if link is not None and link.open:
            return LinkCondition("open", link.transport.signs)
        if rest is not None and trio.current_time() < rest.until + HANDSHAKE_S:
            return LinkCondition("failed", rest.signs)
        return LinkCondition("idle" if link is None else "dialling")

    def _link_to(self, member: Member) -> _Link | None:
        """The link to this run of a node, which may still be dialling; None during the pause after a failed
        dial."""
        link = self._links.get(member.run)
        if link is None and self._nursery is not None and not self._resting(member.run):
            link = self._links[member.run] = _Link(self._silence_s, self._boundary, self._pings)
            self._nursery.start_soon(self._keep, link, member)
            self._nursery.start_soon(self._watch, link, member)
        return link

    def _resting(self, run: str) -> bool:
        rest = self._rests.get(run)
        return rest is not None and trio.current_time() < rest.until

    async def _keep(self, link: _Link, member: Member) -> None:
        """Run a link, from the dial to its end."""
        close_reason = CloseReason.RESTARTING
        stream: trio.abc.Stream | None = None
        meet_by = trio.current_time() + HANDSHAKE_S
        try:
            with link.silent:
                with trio.move_on_at(meet_by):
                    stream = await self._open(member.link_url)
                if stream is None:
                    self._complaints.add("no link to %s: %s", member.link_url, link.why)
                else:
                    close_reason = await self._talk(link, member, stream, meet_by)
        except (OSError, ValueError) as error:
            link.why = str(error)
            self._complaints.add("no link to %s: %s", member.link_url, error)
        except Exception as error:  # noqa: BLE001 - the boundary logs it
            self._boundary.caught(error, "dialling a link")
        finally:
            link.watched.cancel()
            with trio.CancelScope(shield=True):
                if stream is not None:
                    await trio.aclose_forcefully(stream)
                await link.end.lost(close_reason)
            self._forget(link, member.run)

    async def _watch(self, link: _Link, member: Member) -> None:
        """End the link when the node is silent, also while it is dialled, because commands wait for that."""
        with link.watched:
            with self._boundary.within("watching a link"):
                await link.transport.watch(lambda: self._gone(member.run))
                log.warning("no sign of life of %s: the link to it ends", member.name)
            link.silent.cancel()

    async def _talk(
        self, link: _Link, member: Member, stream: trio.abc.Stream, meet_by: float
    ) -> CloseReason:
        """Carry the link until it is over. Returns the close reason for the replies that keep listening."""
        close_reason, why = CloseReason.RESTARTING, "it does not answer"
        try:
            async with trio.open_nursery() as library:
                try:
                    with trio.move_on_at(meet_by) as meeting:
                        websocket = await wrap_client_stream(
                            library,
                            stream,  # type: ignore[arg-type]  # the library takes any stream, but does not say so
                            urlsplit(member.link_url).netloc,
                            PATH,
                            max_message_size=MESSAGE_BYTES_MAX,
                            receive_buffer_size=RECEIVE_BYTES,
                        )
                        await self._prove(websocket, member)
                    if not meeting.cancelled_caught:
                        self._opened(link, member)
                        await self._carry(link, websocket, library)
                        closed = websocket.closed
                        if closed is not None and closed.code == CloseReason.SLOW_CONSUMER.code:
                            close_reason = CloseReason.SLOW_CONSUMER
                except (ConnectionClosed, Refused) as error:
                    why = _why(error)
                except Exception as error:  # noqa: BLE001 - the boundary logs it
                    self._boundary.caught(error, "carrying a link")
                library.cancel_scope.cancel()
        except* Exception as group:  # noqa: BLE001 - the boundary: the network costs one link
            why = "; ".join(str(error) or type(error).__name__ for error in group.exceptions)
            log.debug("a link broke: %s", why)
        if not link.open:
            link.why = why
            self._complaints.add("no link to %s: %s", member.link_url, why)
        return close_reason

    def _opened(self, link: _Link, member: Member) -> None:
        link.open = True
        self._rests.pop(member.run, None)
        self._complaints.forget(member.link_url)
        log.debug("a link to %s", member.link_url)

    async def _prove(self, websocket: WebSocketConnection, member: Member) -> None:
        proof = ClientProof(self._key, self._own_run, member.run, secrets.token_bytes(NONCE_BYTES))
        await websocket.send_message(proof.respond(await websocket.get_message()))
        proof.confirm(await websocket.get_message())

    async def _carry(self, link: _Link, websocket: WebSocketConnection, library: trio.Nursery) -> None:
        async def expire() -> None:
            while True:
                await trio.sleep(EXPIRE_EVERY_S)
                await link.end.expire()

        library.start_soon(expire)
        await link.transport.carry(websocket, link.end.hear)

    def _forget(self, link: _Link, run: str) -> None:
        """Remove a link that is over. The next command dials again, after a pause if this dial failed."""
        del self._links[run]
        self._sent += link.transport.sent_total
        self._messages += link.transport.messages_total
        self._received += link.transport.received_total
        self._refused += link.end.refused_total
        now = trio.current_time()
        last = self._rests.get(run)
        length_s = min(2 * last.length_s, REST_MAX_S) if last else REST_S
        if link.silent.cancel_called:
            length_s = max(length_s, REST_SILENT_S)
        if link.open:
            self._lost += 1
            if not link.silent.cancel_called:
                return
        else:
            self._failed_dials += 1
        # Runs do not come back: forget the pauses of runs that are not dialled any more.
        self._rests = {each: rest for each, rest in self._rests.items() if now < rest.until + HANDSHAKE_S}
        signs = link.transport.signs
        signs.failed(now, "no sign of life" if link.silent.cancel_called else link.why)
        self._rests[run] = _Rest(now + length_s, length_s, signs)


def _why(error: ConnectionClosed | Refused) -> str:
    if isinstance(error, Refused):
        return str(error)
    reason = error.reason
    return f"closed with {reason.code} {reason.reason or ''}".rstrip() if reason else "closed"
