"""What the contract of a transport does not say: how the reactor keeps its promises to the sessions and to
the machine. The contract itself is in test_transport.py."""

from __future__ import annotations

import gc
import json
import os
import resource
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from random import Random
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.actors import commands
from engine.actors.clock import SessionClock
from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import Subscriber, push_all
from engine.websocket import Parser
from server.config.config import Config
from server.realtime.conversation import Conversation, ConversationDeps
from server.realtime.reactor import connection
from server.realtime.reactor.backlog import Backlog
from server.realtime.reactor.connection import Connection
from server.realtime.reactor.lingering_close import LingeringClose
from server.realtime.reactor.loop import READABLE, WRITABLE, Loop
from server.realtime.reactor.opening import Opening
from server.realtime.reactor.request import (
    Head,
    Malformed,
    NoHandshake,
    Request,
    RequestReader,
    read_handshake,
)
from server.realtime.reactor.timer_wheel import NEVER, Wheel
from server.realtime.reactor.transport import ReactorTransport
from server.realtime.transport import TlsUnsupported
from server.security.limits import Attempts
from server.security.tokens import Tokens
from tests.realtime.rig import ListeningPort, RawClient, frame, request

WATCH = frame(b'{"t":"join","code":"123456","role":"spectator"}')


class Seats:
    """Instead of the sessions: seats every spectator and gives the test what an actor would have."""

    def __init__(self) -> None:
        self.subscribers: list[Subscriber] = []
        self.detached: list[tuple[Subscriber, str]] = []

    def deliver(self, key: str, command: commands.Command) -> None:
        if isinstance(command, commands.Watch):
            self.subscribers.append(command.reply)
            command.reply.push(
                Frame(
                    {"t": "joined", "session": "seats", "code": "000000", "role": "spectator", "player": None}
                )
            )
        elif isinstance(command, commands.Detach):
            self.detached.append((command.reply, trio.lowlevel.current_task().name))


class Node(ListeningPort):
    def __init__(self, seats: Seats, reactor: ReactorTransport) -> None:
        super().__init__(reactor)
        self.seats = seats

    @property
    def clients(self) -> list[Connection | Opening]:
        """What looks after the sockets of clients."""
        assert isinstance(self.transport, ReactorTransport)
        assert self.transport._loop is not None
        return [each for each in self.transport._loop._handlers if isinstance(each, Connection | Opening)]

    @asynccontextmanager
    async def seated(self, receive_buffer: int | None = None) -> AsyncIterator[tuple[RawClient, Subscriber]]:
        """A client, and what the session has of it."""
        async with self.raw(receive_buffer) as client:
            await client.open()
            await client.send(WATCH)
            await client.expect_message("joined")
            yield client, self.seats.subscribers[-1]


@asynccontextmanager
async def reactor(**settings: Any) -> AsyncIterator[Node]:
    seats = Seats()
    clock = SessionClock()
    tokens = Tokens(b"a secret for these tests", 3600, clock)
    deps = ConversationDeps(seats, tokens, clock, Attempts(1000), 1000, 1000)
    node = Node(seats, ReactorTransport(deps, Config(**settings)))
    async with trio.open_nursery() as nursery:
        await nursery.start(node.serve)
        yield node
        nursery.cancel_scope.cancel()
    assert node.statistics.connections == 0


def long(number: int, kind: str = "question", size: int = 300_000) -> Frame:
    return Frame({"t": kind, "number": number, "text": "x" * size})


# -- promises to the sessions ------------------------------------------------------------------------


async def test_a_push_to_who_has_vanished_neither_raises_nor_calls_back() -> None:
    async with reactor() as node, node.seated() as (client, subscriber):
        assert isinstance(client.stream, trio.SocketStream)
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.stream.socket.close()
        for number in range(3):  # before the reactor can have noticed
            subscriber.push(Frame({"t": "question", "number": number}))
        assert node.statistics.frames_out_total == 1
        assert node.seats.detached == []
        await node.until_connections(0)
        ((gone, task),) = node.seats.detached
        assert gone is subscriber
        assert "serve" in task
        assert node.statistics.closed_total == {"connection_lost": 1}
        subscriber.push(Frame({"t": "question", "number": 4}))
        subscriber.close(CloseReason.FINISHED)


async def test_closing_thousands_in_a_row_is_marking_them() -> None:
    async with reactor() as node, node.seated() as (client, subscriber):
        subscriber.close(CloseReason.RESTARTING)
        subscriber.close(CloseReason.FINISHED)
        subscriber.push(Frame({"t": "question"}))
        assert node.statistics.closed_total == {}
        assert (await client.expect(8)).close_code == CloseReason.RESTARTING.code
        assert await client.rest() == b""
        assert node.statistics.closed_total == {"restarting": 1}
        assert node.seats.detached == []


async def test_what_the_kernel_does_not_take_arrives_whole_and_in_order() -> None:
    async with (
        reactor(outbox_bytes_max=16_000_000) as node,
        node.seated(receive_buffer=4096) as (client, subscriber),
    ):
        for number in range(8):
            subscriber.push(long(number))
        assert node.statistics.frames_out_total < 5
        await client.send(frame(b"still there?", 9))
        kinds: list[Any] = []
        while len(kinds) < 9:
            wire = await client.receive_frame()
            kinds.append(wire.message["number"] if wire.opcode == 1 else bytes(wire.payload))
        assert [each for each in kinds if isinstance(each, int)] == list(range(8))
        assert b"still there?" in kinds
        assert node.statistics.frames_out_total == 9
        subscriber.push(Frame({"t": "question", "number": 9}))
        assert (await client.receive_frame()).message["number"] == 9


async def test_an_old_leaderboard_gives_way_to_a_new_one() -> None:
    async with (
        reactor(outbox_bytes_max=16_000_000) as node,
        node.seated(receive_buffer=4096) as (client, subscriber),
    ):
        subscriber.push(long(0, size=3_000_000))
        for number in range(1, 6):
            subscriber.push(long(number, "leaderboard", 10))
        subscriber.push(long(6, size=10))
        assert [(await client.receive_frame()).message["number"] for _ in range(3)] == [0, 5, 6]


async def test_the_end_waits_for_what_was_pushed_before_it() -> None:
    async with (
        reactor(outbox_bytes_max=16_000_000) as node,
        node.seated(receive_buffer=4096) as (client, subscriber),
    ):
        for number in range(3):
            subscriber.push(long(number))
        subscriber.close(CloseReason.FINISHED)
        subscriber.push(long(3))
        assert [(await client.receive_frame()).message["number"] for _ in range(3)] == [0, 1, 2]
        assert (await client.receive_frame()).close_code == CloseReason.FINISHED.code


async def test_the_end_of_a_slow_consumer_waits_for_the_frame_that_has_begun_only() -> None:
    async with (
        reactor(outbox_bytes_max=450_000) as node,
        node.seated(receive_buffer=4096) as (client, subscriber),
    ):
        for number in range(4):
            subscriber.push(long(number))
        assert (await client.receive_frame()).message["number"] == 0
        assert (await client.receive_frame()).close_code == CloseReason.SLOW_CONSUMER.code


async def test_a_slow_client_is_cut_off_in_time_at_shutdown() -> None:
    async with reactor(outbox_bytes_max=16_000_000) as node, node.seated(receive_buffer=4096) as (_, slow):
        slow.push(long(0, size=8_000_000))
        slow.push(long(1))


# -- promises to the machine -------------------------------------------------------------------------


def alive(kind: type) -> int:
    gc.collect()
    return sum(isinstance(each, kind) for each in gc.get_objects())


async def test_the_idle_have_no_buffers() -> None:
    async with reactor(outbox_bytes_max=16_000_000) as node, node.seated(4096) as (client, subscriber):
        before = alive(Parser), alive(Backlog), alive(RequestReader)
        await client.send(WATCH[:9])
        subscriber.push(long(0, size=3_000_000))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (alive(Parser), alive(Backlog)) == (before[0] + 1, before[1] + 1)
        await client.send(WATCH[9:])
        assert (await client.receive_frame()).message["number"] == 0
        assert (await client.receive_frame()).message["code"] == "already_joined"
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (alive(Parser), alive(Backlog), alive(RequestReader)) == before


async def test_a_pong_that_is_due_costs_no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    def counted(*args: Any, **options: Any) -> Parser:
        nonlocal made
        made += 1
        return Parser(*args, **options)

    monkeypatch.setattr(connection, "Parser", counted)
    async with reactor(ping_interval_s=0.1, ping_timeout_s=60) as node, node.seated() as (client, _):
        for _ in range(3):
            await client.expect(9)
            await client.send(frame(b"", 10))
        await client.expect(9)
        assert made == 0
        await client.send(frame(b"a ping of the client's", 9))
        await client.expect(10)
        assert made == 1


def send_at_once(client: RawClient, data: bytes) -> None:
    """Before the reactor gets a turn to read it."""
    assert isinstance(client.stream, trio.SocketStream)
    assert os.write(client.stream.socket.fileno(), data) == len(data)


async def test_a_late_loop_does_not_take_its_own_lateness_for_the_silence_of_a_client() -> None:
    """A node without processor time finds the pong in the kernel when the time for it is long over."""
    async with reactor(ping_interval_s=0.1, ping_timeout_s=60) as node, node.seated() as (client, _):
        (handler,) = node.clients
        await client.expect(9)
        send_at_once(client, frame(b"", 10))
        now = trio.current_time()
        handler.due(now + 61)
        handler.due(now + 122)
        await client.expect(9)
        handler.due(now + 183)
        assert (await client.receive_frame()).close_code == 4007


async def test_a_client_that_was_heard_of_since_the_last_look_is_not_pinged() -> None:
    async with reactor(ping_interval_s=100, ping_timeout_s=100) as node, node.seated() as (client, _):
        (handler,) = node.clients
        now = trio.current_time()
        for look in range(1, 4):
            handler.due(now + 100 * look)
            await client.send_message(t="ping", at=look)
            assert (await client.expect_next()).opcode == 1
        handler.due(now + 400)
        handler.due(now + 500)
        assert (await client.expect_next()).opcode == 9, "nothing came since the last look"
        handler.due(now + 600)
        assert (await client.expect_next()).close_code == 4007


class CountingSocket:
    """A socket that counts the sends, and takes no more than so many bytes of the first."""

    def __init__(self, inner: socket.socket, first: int | None = None) -> None:
        self._inner, self._first, self.sends = inner, first, 0
        self.fileno, self.recv, self.close = inner.fileno, inner.recv, inner.close

    def send(self, data: bytes) -> int:
        self.sends += 1
        return self._inner.send(data[: self._first] if self.sends == 1 else data)


async def test_frames_that_are_pushed_together_are_one_send() -> None:
    async with reactor() as node, node.seated() as (client, seat):
        (handler,) = node.clients
        assert isinstance(handler, Connection)
        counting = handler._socket = CountingSocket(handler._socket)  # type: ignore[assignment]  # as a socket
        before = node.statistics
        push_all(seat, [long(number, size=100) for number in range(3)])
        assert counting.sends == 1
        assert node.statistics.frames_out_total - before.frames_out_total == 3
        sizes = [len((await client.expect_next()).payload) + 4 for _ in range(3)]
        assert node.statistics.bytes_out_total - before.bytes_out_total == sum(sizes)


@pytest.mark.parametrize("taken", [0, 1, 5_000, 10_004, 10_005, 25_000])
async def test_of_frames_that_are_pushed_together_none_is_lost_or_torn(taken: int) -> None:
    """However much of them the kernel takes at first."""
    async with reactor() as node, node.seated() as (client, seat):
        (handler,) = node.clients
        assert isinstance(handler, Connection)
        handler._socket = CountingSocket(handler._socket, taken)  # type: ignore[assignment]  # as a socket
        before = node.statistics.frames_out_total
        push_all(seat, [long(number, size=10_000) for number in range(3)])
        seat.push(long(3, size=100))
        assert [(await client.expect_next()).message["number"] for _ in range(4)] == [0, 1, 2, 3]
        await node.until(lambda: node.statistics.frames_out_total - before == 4)


async def test_a_late_loop_reads_the_join_before_it_is_too_late() -> None:
    async with reactor(join_timeout_s=60) as node, node.raw() as client, node.raw() as silent:
        for each in (silent, client):
            await each.open()
        send_at_once(client, WATCH)
        for handler in node.clients:
            handler.due(trio.current_time() + 61)
        await client.expect_message("joined")
        assert (await silent.receive_frame()).close_code == 4008


async def test_a_late_loop_reads_the_request_before_it_is_too_late() -> None:
    async with reactor(join_timeout_s=60) as node, node.raw() as client, node.raw() as silent:
        await node.until_connections(2)
        send_at_once(client, request())
        for handler in node.clients:
            handler.due(trio.current_time() + 61)
        assert (await client.response())[0] == 101
        assert (await silent.response())[0] == 408


async def test_a_late_loop_sends_what_it_could_have_sent_before_it_calls_a_client_slow() -> None:
    async with (
        reactor(send_timeout_s=60, ping_interval_s=600, outbox_bytes_max=16_000_000) as node,
        node.seated(receive_buffer=4096) as (client, seat),
    ):
        (handler,) = node.clients
        assert isinstance(handler, Connection)
        for number in range(300):
            seat.push(long(number, size=20_000))
        assert node.statistics.frames_out_total < 200
        assert isinstance(client.stream, trio.SocketStream)
        with suppress(BlockingIOError):
            while os.read(client.stream.socket.fileno(), 65_536):
                pass
        assert handler._backlog is not None
        handler.due(handler._backlog.send_by)
        assert handler._end is None
        await node.settle()
        handler.due(trio.current_time() + 122)
        await node.until(lambda: node.statistics.closed_total == {"slow_consumer": 1})


async def test_a_client_that_lags_is_read_in_the_same_round() -> None:
    """Its answer may lie in the kernel when a deadline asks for everything to be read."""
    async with (
        reactor(outbox_bytes_max=16_000_000) as node,
        node.seated(receive_buffer=4096) as (client, seat),
    ):
        (handler,) = node.clients
        assert isinstance(handler, Connection)
        for number in range(300):
            seat.push(long(number, size=20_000))
        assert handler.lags
        before = node.statistics.messages_in_total
        send_at_once(client, frame(b'{"t":"ping","at":1}'))
        handler.ready(READABLE | WRITABLE)
        assert handler.lags
        assert node.statistics.messages_in_total - before == 1


async def test_a_connection_that_is_over_leaves_nothing_to_the_garbage_collector() -> None:
    async with reactor() as node:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                async with node.seated():
                    pass
                await node.until_connections(0)
                node.seats.subscribers.clear()
                node.seats.detached.clear()
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert sum(isinstance(each, Conversation) for each in gc.get_objects()) == 0
        finally:
            gc.enable()


@contextmanager
def no_more_files() -> Iterator[None]:
    """Not one more file can be opened in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.open(os.devnull, os.O_RDONLY)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_out_of_files_new_clients_are_told_and_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    async with reactor() as node, node.seated() as (client, subscriber):
        knocking = [trio.socket.socket() for _ in range(5)]
        with no_more_files():
            for each in knocking:
                await each.connect(("127.0.0.1", node.port))
                knocker = RawClient(trio.SocketStream(each))
                status, body = await knocker.response()
                assert (status, json.loads(body)["error"]["code"]) == (503, "busy")
            subscriber.push(Frame({"t": "question", "number": 1}))
            assert (await client.receive_frame()).message["number"] == 1
        for each in knocking:
            each.close()
        async with node.seated():
            assert node.statistics.connections == 2
        assert node.statistics.refused_total == {"busy": 5}
    (record,) = caplog.records
    assert "no room for new connections" in record.getMessage()
    assert "1 are open" in record.getMessage()


async def test_out_of_memory_the_port_pauses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accept = socket.socket.accept
    failures = [OSError(12, "Cannot allocate memory")] * 2

    def poor(self: socket.socket) -> Any:
        if failures:
            raise failures.pop()
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", poor)
    with trio.fail_after(8):
        async with reactor() as node, node.seated() as (client, subscriber):
            subscriber.push(Frame({"t": "question", "number": 1}))
            assert (await client.receive_frame()).message["number"] == 1
    assert len(caplog.records) == 1


async def test_tls_is_refused_with_advice() -> None:
    deps: Any = None
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(TlsUnsupported, match="trio-websocket"),
    ):
        await ReactorTransport(deps, Config()).serve(
            [listener], ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        )


async def test_a_client_that_has_sent_too_much_is_not_read_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    drained = 0
    drain = LingeringClose._drain

    def counted(self: LingeringClose) -> bool:
        nonlocal drained
        drained += 1
        return drain(self)

    monkeypatch.setattr(LingeringClose, "_drain", counted)
    async with reactor() as node, node.seated() as (client, _), trio.open_nursery() as nursery:

        async def flood() -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await client.send(frame(b"", 9) * 500_000)

        nursery.start_soon(flood)
        while (wire := await client.receive_frame()).opcode != 8:
            pass
        assert wire.close_code == CloseReason.RATE_LIMITED.code
        assert drained == 0
        await node.until_connections(0)
        assert drained <= 1
        nursery.cancel_scope.cancel()


async def test_no_round_goes_on_for_long_whatever_comes() -> None:
    """Many clients that send as much as they can: another task still gets its turn."""
    async with reactor(messages_per_s=1_000_000, messages_burst=1_000_000) as node:
        clients = []
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                client = RawClient(await trio.open_tcp_stream("127.0.0.1", node.port))
                await client.open()
                clients.append(client)

            turns = 0

            async def flood(client: RawClient) -> None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await client.send(frame(b"", 10) * 20_000)

            for client in clients:
                nursery.start_soon(flood, client)
            while node.statistics.connections:
                await trio.lowlevel.checkpoint()
                turns += 1
        assert turns > 30
        for client in clients:
            await trio.aclose_forcefully(client.stream)


class Cut:
    """A socket handler that only counts how often it was cut."""

    tick = NEVER

    def __init__(self) -> None:
        self.times_cut = 0

    def ready(self, events: int) -> None: ...

    def due(self, now: float) -> None: ...

    def stop(self) -> None: ...

    def cut(self) -> None:
        self.times_cut += 1


async def test_a_closed_socket_costs_no_other_socket_its_handler() -> None:
    loop = Loop()
    one, other = socket.socketpair()
    with one, other:
        gone, stranger = sorted((one, other), key=lambda each: each.fileno())
        handlers = Cut(), Cut()
        for each, handler in zip((gone, stranger), handlers, strict=True):
            loop.add(each.fileno(), handler, READABLE)
        loop.remove(gone.fileno())
        gone.close()
        for act in (loop.remove, lambda fd: loop.hand_over(fd, Cut())):
            with pytest.raises(ValueError, match="closed"):
                act(gone.fileno())
        await loop.each(lambda handler: handler.cut())
        assert [each.times_cut for each in handlers] == [0, 1]
    loop.close()


async def test_a_connection_that_is_cut_twice_is_counted_off_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake after the release of a socket: the boundary cuts what is closed already."""

    def mistaken(self: Connection, data: bytes) -> None:
        self.cut()
        raise RuntimeError("after the end")

    async with reactor() as node, node.seated() as (client, _), node.seated() as (neighbour, follows):
        monkeypatch.setattr(Connection, "take", mistaken)
        await client.send(frame(b"x"))
        await node.until_connections(1)
        follows.push(Frame({"t": "question", "number": 1}))
        assert (await neighbour.receive_frame()).message["number"] == 1
        monkeypatch.undo()
        await neighbour.send(frame(b"", 9))
        await neighbour.expect(10)
    assert [record.getMessage() for record in caplog.records] == ["a mistake in a connection"]


# -- the parts ---------------------------------------------------------------------------------------


class Item:
    def __init__(self) -> None:
        self.tick = NEVER


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-1, 30), st.booleans()), max_size=40), st.randoms())
def test_the_wheel_is_late_by_a_tick_at_most_and_never_early(
    moves: list[tuple[int, float, bool]], random: Random
) -> None:
    tick_s = 0.25
    wheel: Wheel[Item] = Wheel(tick_s)
    items = [Item() for _ in range(6)]
    meant: dict[Item, float] = {}
    now = 0.0
    for number, in_s, drop in moves:
        item = items[number]
        if drop:
            wheel.drop(item)
            meant.pop(item, None)
        else:
            wheel.set(item, now + in_s)
            meant[item] = max(now, now + in_s)
        now += random.choice([0, 0, 0.1, 1.7])
        assert (wheel.next_at < 1e9) == bool(meant)
        while (due := wheel.pop_due(now)) is not None:
            assert meant.pop(due) <= now
        assert all(at > now - 2 * tick_s for at in meant.values())
    for _ in range(200):
        now += tick_s
        while (due := wheel.pop_due(now)) is not None:
            del meant[due]
    assert not meant
    assert wheel.next_at == float("inf")


def requests(data: bytes, sizes: list[int], body_bytes_max: int = 4096) -> list[Request]:
    """What is read of bytes that come in pieces of these sizes, and the rest at once."""
    reader = RequestReader(body_bytes_max)
    for size in [*sizes, len(data)]:
        chunk, data = data[:size], data[size:]
        if chunk:
            reader.feed(chunk)
    found = []
    while (found_one := reader.pop()) is not None:
        found.append(found_one)
    return found


def handshake(data: bytes, sizes: list[int]) -> Head:
    (found,) = requests(data, sizes)
    return read_handshake(found)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=12))
def test_a_head_may_come_in_any_pieces(sizes: list[int]) -> None:
    data = b"\r\n" + request(
        "Origin: https://quiz.example",
        "X-Forwarded-For: 203.0.113.1",
        "X-Forwarded-For: 203.0.113.2",
        "Sec-WebSocket-Protocol: chat, fanfare.v1",
        path="/ws?a=b",
    )
    assert handshake(data, sizes) == Head(
        target="/ws?a=b",
        key=b"dGhlIHNhbXBsZSBub25jZQ==",
        host="127.0.0.1",
        origin="https://quiz.example",
        forwarded_for="203.0.113.1,203.0.113.2",
        subprotocols=("chat", "fanfare.v1"),
    )


def test_what_comes_behind_a_head_is_kept() -> None:
    (found,) = requests(request() + WATCH, [])
    assert found.rest == WATCH


@pytest.mark.parametrize(
    "data",
    [
        request().replace(b"GET", b"PUT"),
        request().replace(b"HTTP/1.1", b"HTTP/1.0"),
        request().replace(b"Version: 13", b"Version: 8"),
        request().replace(b"Host: 127.0.0.1\r\n", b""),
        request("Host: other.example"),
        request("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        request().replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"),
        request().replace(b"Connection: Upgrade", b"Connection: keep-alive"),
        request().replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        request("Content-Length: 4") + b"abcd",
        request("Transfer-Encoding: chunked") + b"0\r\n\r\n",
        b"\r\n\r\n" + request(),
        b"GET /ws HTTP/1.1\r\n" + b"A: b\r\n" * 4_000,
    ],
)
def test_what_is_no_handshake(data: bytes) -> None:
    for sizes in ([], [2], [2, 2], [4096] * 8):
        if data.startswith(b"\r\n\r\n") and sizes != [2, 2]:
            continue
        with pytest.raises((Malformed, NoHandshake)):
            handshake(data, sizes)
