"""Who connects to a node of a chaos cluster is told by its process, and each way can be cut by itself."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import trio

from server.cli.chaos.network import Neighbours, neighbours

HERE, OTHER = 0, 1
"""This process stands for the first node."""


@pytest.fixture
async def between(nursery: trio.Nursery) -> AsyncIterator[Neighbours]:
    async def echo(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in stream:
                await stream.send_all(data)

    link_ports = []
    for _ in (HERE, OTHER):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        link_ports.append(listener.socket.getsockname()[1])
        nursery.start_soon(trio.serve_listeners, echo, [listener])
    async with neighbours(link_ports, lambda place: os.getpid() if place == HERE else None) as made:
        yield made
        nursery.cancel_scope.cancel()


async def answers(between: Neighbours, target: int) -> bool:
    async with await trio.open_tcp_stream("127.0.0.1", between.ports[target]) as stream:
        try:
            await stream.send_all(b"link")
            return await stream.receive_some() == b"link"
        except trio.BrokenResourceError:
            return False


async def test_a_link_is_carried_on_the_way_of_who_makes_it(between: Neighbours) -> None:
    assert len(between.of(HERE)) == len(between.of(OTHER)) == 2
    with trio.fail_after(5):
        assert await answers(between, OTHER)
        there, back = between.of(HERE)
        with back.severed():
            assert await answers(between, OTHER)
        with there.severed():
            assert not await answers(between, OTHER)
        assert not await answers(between, HERE), "nobody has a link to itself"
