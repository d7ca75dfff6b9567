"""A loop that gets no processor time reads late. What its players had sent in time counts, as it came."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from engine.actors.clock import SessionClock, wall_clock_ms
from server.config.config import Config
from server.realtime.conversation import ConversationDeps
from server.realtime.reactor.transport import ReactorTransport
from tests.realtime.rig import Client, RawClient, Rig, frame, rig

LIMIT_MS = 20_000


class Wall:
    """A wall clock that is set on, instead of waiting."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return wall_clock_ms() + self.ahead_ms


class Question:
    """An open question, a host, and players."""

    def __init__(self, node: Rig, clock: SessionClock, wall: Wall, host: Client, began: int) -> None:
        self.node, self.clock, self._wall, self.host, self._began = node, clock, wall, host, began

    async def leave_ms(self, ms: int) -> None:
        """So much of its time is left now."""
        self._wall.ahead_ms += self._began + LIMIT_MS - ms - self.clock.now_ms()
        self.clock.catch_up()
        (await self.node.registry.get(self.node.session_id)).wake()
        await trio.lowlevel.checkpoint()

    def hold_the_loop_until(self, over_ms: int) -> None:
        """No task runs until the question is over for so long."""
        time.sleep((self._began + LIMIT_MS + over_ms - self.clock.now_ms()) / 1000)


def transport(deps: ConversationDeps, config: Config) -> ReactorTransport:
    return ReactorTransport(deps, config)


@asynccontextmanager
async def question(players: int) -> AsyncIterator[tuple[Question, list[RawClient]]]:
    wall = Wall()
    clock = SessionClock(wall)
    async with rig(transport, clock=clock) as node, node.host() as host, trio.open_nursery() as nursery:
        clients = [await opened(node, nursery) for _ in range(players)]
        for number, client in enumerate(clients, 1):
            await client.send_message(t="join", code=node.code, name=f"P{number}")
            await client.expect_message("joined")
        await host.send(t="host", id="s", do="start")
        await host.expect("question")
        began = clock.now_ms()
        for client in clients:
            await client.expect_message("question")
        yield Question(node, clock, wall, host, began), clients
        nursery.cancel_scope.cancel()


async def opened(node: Rig, nursery: trio.Nursery) -> RawClient:
    async def stay(*, task_status: trio.TaskStatus[RawClient]) -> None:
        async with node.opened() as client:
            task_status.started(client)
            await trio.sleep_forever()

    client: RawClient = await nursery.start(stay)
    return client


def send_at_once(client: RawClient, **message: object) -> None:
    """Into the kernel, before the reactor gets a turn."""
    assert isinstance(client.stream, trio.SocketStream)
    data = frame(json.dumps(message).encode())
    assert os.write(client.stream.socket.fileno(), data) == len(data)


async def test_answers_that_lay_in_the_kernel_at_the_deadline_count_as_they_came() -> None:
    async with question(players=12) as (asked, clients):
        await asked.leave_ms(150)
        *in_time, late = clients
        for client in in_time:
            send_at_once(client, t="answer", id="a", question=1, choice=0)
        asked.hold_the_loop_until(100)
        send_at_once(late, t="answer", id="a", question=1, choice=0)
        acks = [await client.expect_message("ack") for client in in_time]
        assert {ack["status"] for ack in acks} == {"accepted"}
        assert all(LIMIT_MS - 151 <= ack["elapsed_ms"] <= LIMIT_MS for ack in acks)
        assert (await late.expect_message("error"))["code"] in ("late", "question_closed")
        assert (await asked.host.expect("reveal"))["counts"] == [11, 0, 0]


async def test_answers_that_lay_in_the_kernel_when_the_host_closes_count() -> None:
    async with question(players=12) as (asked, clients):
        await asked.host.send(t="host", id="c", do="close")
        for client in clients:
            send_at_once(client, t="answer", id="a", question=1, choice=1)
        acks = [await client.expect_message("ack") for client in clients]
        assert {ack["status"] for ack in acks} == {"accepted"}
        assert (await asked.host.expect("reveal"))["counts"] == [0, 12, 0]


async def test_the_time_in_the_kernel_is_not_the_players() -> None:
    async with question(players=1) as (asked, [client]):
        await asked.leave_ms(1_000)
        send_at_once(client, t="answer", id="a", question=1, choice=0)
        asked.hold_the_loop_until(-200)
        assert (await client.expect_message("ack"))["elapsed_ms"] < LIMIT_MS - 900
