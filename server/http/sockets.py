"""Accepted connections whose sends always end, and a listener that bounds how many there are.

hypercorn sends under a shielded cancel scope and without a time limit: a client that stops reading would
hold its task for ever, through a shutdown too. These streams bring the limit with them, from below.
"""

from __future__ import annotations

import errno
import math
import socket as stdlib_socket
from collections import Counter, OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from engine.actors.token_bucket import TokenBucket
from server.runtime.request_ids import HEADER, request_id_of
from server.runtime.request_times import RequestTimes
from server.security.limits import ArrivalRate, ConnectionCount, network_of
from server.wire.errors import ApiError, busy
from server.wire.sse import UNCONFIRMED_MAX_S

SEND_BUFFER_BYTES = 128 * 1024
"""What the kernel may hold for one client. Without a bound it grows to megabytes for each that does not
read, and a slow consumer is noticed that much later."""

RECEIVE_BYTES = 16 * 1024
"""The most bytes read at a time, and so the most that hypercorn buffers for each client."""

ACCEPTED_AT_ONCE_MAX = 32
"""Connections taken out of the kernel's queue in one turn of the loop, be it to be turned away."""

STARTING_MAX = 8
"""Connections at a time that have been accepted and have no body of a response yet. The start of a
connection and its first request take 2 ms of the processor in some 25 turns of the loop, so that every other
request is slowed down by as many as start beside it."""

STARTING_MAX_S = 0.02
"""A connection that has not had its first response by then does not count any longer: it waits for its
client or for the database, and not for the processor."""

NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

TOLD_PER_S, TOLD_AT_ONCE_MAX = 20, 64
"""How many connections beyond a bound get a refusal. Further ones are closed without a word, which costs a
tenth."""

FULL = busy()
CROWDED = ApiError(
    "too_many_connections", "This address has as many connections as it may. Close some, or try again later."
)


@dataclass
class HttpTally:
    """`refused` are connections that were closed at once, by reason."""

    connections: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    requests: RequestTimes = field(default_factory=RequestTimes)


class BoundedStream(trio.abc.HalfCloseableStream):
    """A socket stream in which a send that makes no progress breaks the connection.

    `over` is set once nothing more will come from the client, or when the connection should end.

    Args:
        stream: the accepted connection. send_timeout_s: how long one `send_all` may take. Keep each send
        small (64 KiB), so that this bounds the
            lack of progress, not the size.
        address: for which the connection is counted; None when that is not known yet.
    """

    def __init__(self, stream: trio.SocketStream, send_timeout_s: float, address: str | None = None) -> None:
        self.socket = stream.socket
        self.over = trio.Event()
        self.address = address
        self._stream = stream
        self._send_timeout_s = send_timeout_s
        self._sending = trio.Lock()
        """hypercorn ends a connection from the task that reads, while another one still sends what
        the request before it asked for."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(self._send_timeout_s) as limit:
            async with self._sending:
                await self._stream.send_all(data)
        if limit.cancelled_caught:
            self.abort()
            raise trio.BrokenResourceError("the client does not read")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray = b""
        try:
            data = await self._stream.receive_some(min(max_bytes or RECEIVE_BYTES, RECEIVE_BYTES))
        finally:
            if not data:
                self.over.set()
        return data

    async def send_eof(self) -> None:
        """Raises BusyResourceError during a send, as trio's streams do: ending a connection must not wait for
        a client that does not read."""
        if self._sending.locked():
            raise trio.BusyResourceError("something is still being sent")
        async with self._sending:
            await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def abort(self) -> None:
        """Close at once. Whoever waits in `send_all` or `receive_some` gets ClosedResourceError."""
        self.socket.close()


class BoundedListener(trio.abc.Listener[BoundedStream]):
    """Accepts on a socket that is bound and listening already. Past a bound a new connection is closed at
    once; a few are told why, where that can be said.

    Args:
        listening: the listening socket, non-blocking.
        send_timeout_s: as in BoundedStream.
        connections_max: how many there may be, so that the process keeps file descriptors for everything
            else.
        count: how many there are and may be for each address. arrivals: how fast they may come from each.
        by_peer: whether the address of the socket is that of the client. Else each request tells it:
        `take_place`. tls: whether the clients speak TLS, so that nothing can be said to them before they
        have. tally: the running counts.
    """

    def __init__(
        self,
        listening: stdlib_socket.socket,
        *,
        send_timeout_s: float,
        connections_max: int,
        count: ConnectionCount,
        arrivals: ArrivalRate,
        by_peer: bool,
        tls: bool,
        tally: HttpTally,
    ) -> None:
        self._socket = listening
        self._knocking: OrderedDict[str, deque[BoundedStream]] = OrderedDict()
        """The waiting connections by address; an address that has had its turn goes to the end."""
        self._send_timeout_s = send_timeout_s
        self._connections_max = connections_max
        self._count = count
        self._arrivals = arrivals
        self._by_peer = by_peer
        self._tls = tls
        self._tally = tally
        self._words = TokenBucket(TOLD_PER_S, TOLD_AT_ONCE_MAX)
        self._open: set[BoundedStream] = set()
        self._starting: OrderedDict[BoundedStream, float] = OrderedDict()
        """Until when each of them counts as starting, in the order of acceptance."""
        self._one_started = trio.Event()

    async def accept(self) -> BoundedStream:
        """Serve one connection in a turn of the loop, and a few at a time until each has its first response,
        because the start of hypercorn takes long. The addresses take turns, so that no client waits behind
        the crowd of another address."""
        await trio.lowlevel.checkpoint()
        while len(self._starting) >= STARTING_MAX:
            with trio.CancelScope(deadline=next(iter(self._starting.values()))) as limit:
                self._one_started = trio.Event()
                await self._one_started.wait()
            if limit.cancelled_caught:
                self._starting.popitem(last=False)
        self._take_in()
        while not self._knocking:
            await trio.lowlevel.wait_readable(self._socket)
            self._take_in()
        address, queue = self._knocking.popitem(last=False)
        stream = queue.popleft()
        if queue:
            self._knocking[address] = queue
        self._starting[stream] = trio.current_time() + STARTING_MAX_S
        return stream

    def started(self, stream: BoundedStream) -> None:
        """The connection has the response to its first request, or begins to. As often as one likes."""
        if self._starting.pop(stream, None) is not None:
            self._one_started.set()

    def _take_in(self) -> None:
        """Those who wait in the kernel's queue, some at a time."""
        for _ in range(ACCEPTED_AT_ONCE_MAX):
            try:
                client, (peer, *_) = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in NO_ROOM:
                    continue  # of one client who has gone again
                if self._knocking:
                    return
                raise  # serve_listeners knows what to do
            self._welcome(client, str(peer))

    def _welcome(self, client: stdlib_socket.socket, peer: str) -> None:
        if len(self._open) >= self._connections_max:
            self._turn_away(client, FULL)
            return
        if self._by_peer:
            now = trio.current_time()
            if not self._arrivals.take(peer, now) or not self._count.enter(peer, now):
                self._turn_away(client, CROWDED)
                return
        _prepare(client)
        accepted = trio.SocketStream(trio.socket.from_stdlib_socket(client))
        stream = BoundedStream(accepted, self._send_timeout_s, peer if self._by_peer else None)
        self._open.add(stream)
        self._tally.connections += 1
        self._knocking.setdefault(network_of(peer), deque()).append(stream)

    def take_place(self, stream: BoundedStream, address: str) -> bool:
        """Count the connection for the client who speaks on it now: a proxy may send the requests of many
        over one. False when the address has as many as it may; then nothing has changed."""
        if stream.address == address:
            return True
        if not self._count.enter(address, trio.current_time()):
            return False
        self._leave(stream)
        stream.address = address
        return True

    def release(self, stream: BoundedStream) -> None:
        """The connection is over. Closes it in case that has not happened. Once for each."""
        self._open.discard(stream)
        self.started(stream)
        self._tally.connections -= 1
        self._leave(stream)
        stream.abort()

    def end_all(self) -> None:
        """Ask every open connection to end."""
        for stream in self._open:
            stream.over.set()

    def abort_all(self) -> None:
        """Break every open connection."""
        for stream in self._open:
            stream.abort()

    async def aclose(self) -> None:
        for queue in self._knocking.values():
            for stream in queue:
                self.release(stream)
        self._knocking.clear()
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        await trio.lowlevel.checkpoint()

    def _leave(self, stream: BoundedStream) -> None:
        if stream.address is not None:
            self._count.leave(stream.address)
            stream.address = None

    def _turn_away(self, client: stdlib_socket.socket, why: ApiError) -> None:
        self._tally.refused[why.code] += 1
        with client, suppress(OSError):
            if not self._tls and self._words.take(round(trio.current_time() * 1000)):
                client.setblocking(False)
                client.send(_refusal(why, request_id_of(None)))
                client.shutdown(stdlib_socket.SHUT_WR)
                client.recv(65_536)  # unread, it would take the answer back


def _prepare(socket: stdlib_socket.socket) -> None:
    socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if hasattr(stdlib_socket, "TCP_USER_TIMEOUT"):
        silence_ms = math.ceil(1000 * UNCONFIRMED_MAX_S)
        socket.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_USER_TIMEOUT, silence_ms)


def _refusal(error: ApiError, request_id: str) -> bytes:
    """A whole response."""
    head = [f"HTTP/1.1 {error.status} Refused", "Content-Type: application/json", "Connection: close"]
    head += [f"{name}: {value}" for name, value in (error.headers | {HEADER: request_id}).items()]
    head.append(f"Content-Length: {len(error.body)}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + error.body
