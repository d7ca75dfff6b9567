"""What a large session tells the nodes that take part goes out no faster than they take it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from engine.actors import relay_messages
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import SubscribeNode
from engine.actors.delivery.audience import EACH_S, STALL_S, Audience, Sent
from engine.actors.delivery.fanout import in_slices
from engine.shards.link.codec import command_entry
from engine.shards.link.server import LinkServer
from engine.shards.link.transport import BATCH_BYTES_MAX, ROOM_BYTES, BatchedTransport
from tests.shards.linking import Client, Sessions

PLAYERS = 200_000
NAME = "Ω" * 24


class _Session:
    """As much of a session as its standing needs."""

    number = 1
    question_open = False

    @property
    def leaderboard(self) -> _Session:
        return self

    def ranked(self) -> Iterator[tuple[int, int, int, int]]:
        for n in range(PLAYERS):
            yield n + 1, n, PLAYERS - n, 0

    def skipped(self, question: int) -> bool:
        return False

    def result_of(self, player: int) -> tuple[bool, int]:
        return True, 1000

    def name_of(self, player: int) -> str:
        return NAME

    def streak(self, player: int) -> int:
        return 1


class _Node:
    """A node that takes part: its link, and a network that takes a message in `message_s`."""

    def __init__(self, message_s: float) -> None:
        self.message_s = message_s
        self.transport = BatchedTransport()
        self.rows = self.lasts = self.most_bytes = 0
        self.ended: int | None = None

    async def connect(self, audience: Audience, nursery: trio.Nursery, name: str) -> None:
        sessions = Sessions()
        far = LinkServer(self.transport, sessions, nursery)
        far.hear(orjson.loads(command_entry(1, "s", SubscribeNode(Client(), name, None, 0, None))))
        audience.subscribe_node(name, sessions.commands[0].reply, ())
        nursery.start_soon(self.transport.carry, self, lambda entry: None)

    async def send_message(self, message: bytes) -> None:
        self.most_bytes = max(self.most_bytes, self.transport.waiting_bytes)
        await trio.sleep(self.message_s)
        for kind, _, said in orjson.loads(message):
            if kind == "f":
                self.rows += len(said["rows"])
                self.lasts += said["last"]
            else:
                self.ended = said

    async def get_message(self) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def ping(self) -> None:
        await trio.sleep_forever()

    async def aclose(self, code: int, reason: str) -> None:
        pass


async def _tell(*nodes: _Node, then_s: float = 1.0) -> tuple[float, Audience]:
    """How long it took."""
    async with trio.open_nursery() as nursery:
        audience = Audience(Sent())
        for number, node in enumerate(nodes):
            await node.connect(audience, nursery, f"node-{number}")
        began = trio.current_time()
        session: Any = _Session()
        await in_slices(audience.casting_each(relay_messages.standing(session)))
        took_s = trio.current_time() - began
        await trio.sleep(then_s)
        nursery.cancel_scope.cancel()
    return took_s, audience


async def test_a_standing_waits_for_room(autojump_clock: MockClock) -> None:
    fast, slow = _Node(0.0001), _Node(0.005)
    took_s, audience = await _tell(fast, slow)
    for node in (fast, slow):
        assert (node.rows, node.lasts, node.ended) == (PLAYERS, 1, None)
        assert node.most_bytes < ROOM_BYTES + BATCH_BYTES_MAX
    assert took_s < EACH_S
    assert audience.has_node("node-1")


async def test_a_node_that_takes_nothing_holds_the_others_up_for_a_moment_and_is_left_out(
    autojump_clock: MockClock,
) -> None:
    well, hung, other_hung = _Node(0.0001), _Node(9.0), _Node(9.0)
    took_s, audience = await _tell(well, hung, other_hung)
    assert (well.rows, well.lasts) == (PLAYERS, 1)
    assert STALL_S <= took_s < 2 * STALL_S + 0.1
    assert [audience.has_node(f"node-{n}") for n in range(3)] == [True, False, False]
    assert hung.transport.waiting_bytes < ROOM_BYTES + BATCH_BYTES_MAX


async def test_a_node_that_is_much_too_slow_is_left_out_before_the_end(autojump_clock: MockClock) -> None:
    well, slow = _Node(0.0001), _Node(0.5)
    took_s, audience = await _tell(well, slow)
    assert (well.rows, well.lasts) == (PLAYERS, 1)
    assert EACH_S <= took_s < EACH_S + STALL_S
    assert not audience.has_node("node-1")
    assert slow.lasts == 0


async def test_nobody_waits_for_a_link_that_is_over(autojump_clock: MockClock) -> None:
    node = _Node(9.0)

    async def lose() -> None:
        await trio.sleep(0.2)
        node.transport.close(1000, "over")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lose)
        took_s, _ = await _tell(node)
        assert took_s == pytest.approx(0.2, abs=0.05)


async def test_the_node_hears_that_it_was_left_out(autojump_clock: MockClock) -> None:
    node = _Node(1.5)
    await _tell(node, then_s=60.0)
    assert (node.lasts, node.ended) == (0, CloseReason.SLOW_CONSUMER.code)
