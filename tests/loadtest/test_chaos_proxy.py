"""The way from a node to what it needs: every fault of it lasts for as long as its block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from loadtest.chaos.proxy import Proxy, proxy_to


class Echo:
    """A server on a Unix socket; `heard` is all that came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard = b""
        self.arrived = trio.Event()

    async def serve(self, task_status: trio.TaskStatus[None]) -> None:
        sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await sock.bind(str(self.path))
        sock.listen()
        await trio.serve_listeners(self._answer, [trio.SocketListener(sock)], task_status=task_status)

    async def _answer(self, stream: trio.SocketStream) -> None:
        try:
            async for data in stream:
                self.heard += data
                self.arrived.set()
                await stream.send_all(data)
        except trio.BrokenResourceError:
            pass


@pytest.fixture
async def echo(tmp_path: Path, nursery: trio.Nursery) -> Echo:
    made = Echo(tmp_path / "socket")
    await nursery.start(made.serve)
    return made


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    async with proxy_to(lambda: str(echo.path)) as made:
        yield made


Connect = Callable[[], Awaitable[trio.SocketStream]]


@pytest.fixture
async def connect(proxy: Proxy) -> AsyncIterator[Connect]:
    """Connections to the proxy; they are closed when the test is over."""
    made: list[trio.SocketStream] = []

    async def one() -> trio.SocketStream:
        made.append(await trio.open_tcp_stream("127.0.0.1", proxy.port))
        return made[-1]

    yield one
    for each in made:
        await trio.aclose_forcefully(each)


@pytest.fixture
def connected(connect: Connect) -> Connect:
    """Connections that have carried something."""

    async def one() -> trio.SocketStream:
        stream = await connect()
        assert await asked(stream, b"hello") == b"hello"
        return stream

    return one


async def asked(stream: trio.SocketStream, data: bytes) -> bytes:
    await stream.send_all(data)
    return bytes(await stream.receive_some())


async def broken(stream: trio.SocketStream) -> bool:
    """Whether the connection comes to an end without a further byte."""
    with trio.fail_after(5):
        try:
            return await stream.receive_some() == b""
        except trio.BrokenResourceError:
            return True


async def test_bytes_pass_both_ways_and_an_end_is_an_end(proxy: Proxy, connected: Connect) -> None:
    stream = await connected()
    assert len(proxy) == 1
    big = bytes(300_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, big)
        got = b""
        while len(got) < len(big):
            got += await stream.receive_some()
    await stream.aclose()
    while len(proxy):
        await trio.lowlevel.checkpoint()


async def test_a_slow_link_is_slow_in_both_directions(proxy: Proxy, connected: Connect) -> None:
    stream = await connected()
    with proxy.slow(0.05):
        began = trio.current_time()
        assert await asked(stream, b"late") == b"late"
        assert trio.current_time() - began >= 0.1
    assert await asked(stream, b"soon") == b"soon"


async def test_severed_breaks_what_is_there_and_what_comes(
    proxy: Proxy, connect: Connect, connected: Connect
) -> None:
    stream = await connected()
    with proxy.severed():
        assert await broken(stream)
        assert await broken(await connect())
    await connected()


async def test_a_silent_link_carries_nothing_and_is_cut_in_the_end(
    proxy: Proxy, echo: Echo, connect: Connect, connected: Connect
) -> None:
    stream = await connected()
    with proxy.silent():
        await stream.send_all(b"lost")
        await wait_all_tasks_blocked(0.05)
        assert echo.heard == b"hello"
        late = await connect()
    assert await broken(stream)
    assert await broken(late)
    assert echo.heard == b"hello"
    await connected()


async def test_what_a_silent_link_holds_up_may_come_late(
    proxy: Proxy, echo: Echo, connect: Connect, connected: Connect
) -> None:
    given_up = await connected()
    echo.heard, echo.arrived = b"", trio.Event()
    with proxy.silent(lost=False):
        late = await connect()
        await late.send_all(b"late")
        await given_up.send_all(b"given up")
        await given_up.aclose()
        await wait_all_tasks_blocked(0.05)
        assert echo.heard == b""
    assert await late.receive_some() == b"late"
    while b"given up" not in echo.heard:
        await trio.lowlevel.checkpoint()


async def test_it_may_lead_to_a_port(nursery: trio.Nursery, echo: Echo, proxy: Proxy) -> None:
    async with proxy_to(lambda: proxy.port) as further:
        stream = await trio.open_tcp_stream("127.0.0.1", further.port)
        assert await asked(stream, b"hello") == b"hello"
        await trio.aclose_forcefully(stream)


async def test_one_way_the_database_hears_what_nobody_hears_it_say(
    proxy: Proxy, echo: Echo, connected: Connect
) -> None:
    stream = await connected()
    echo.arrived = trio.Event()
    with proxy.silent(towards_server=False):
        await stream.send_all(b"commit")
        await echo.arrived.wait()
        assert echo.heard == b"hellocommit"
    assert await broken(stream)


async def test_a_database_that_is_away_is_a_connection_that_breaks(connect: Connect, echo: Echo) -> None:
    echo.path.unlink()
    assert await broken(await connect())
