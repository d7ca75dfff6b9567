"""The small parts: mailbox, outbox, stream, fan-out, ticker."""

from __future__ import annotations

import math

import orjson
import pytest
import trio

from engine.actors.adaptive_tick import FAN_OUT_SHARE, AdaptiveTick
from engine.actors.broadcasts import Ticker
from engine.actors.close_reasons import BY_CODE, CloseReason
from engine.actors.delivery import fanout
from engine.actors.delivery.fanout import fan_out, fan_out_each, in_slices
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.outbox import Outbox
from engine.actors.delivery.stream import BroadcastStream
from engine.actors.delivery.subscriber import ConnectionEnded, Waiter
from engine.actors.mailbox import Mailbox
from fanfare_client import reconnect
from tests.actors.world import Client


def frame(kind: str, **members: object) -> Frame:
    return Frame({"t": kind, **members})


def drained(outbox: Outbox) -> list[bytes]:
    taken = []
    while (data := outbox.pop()) is not None:
        taken.append(data)
    return taken


def test_a_frame_is_encoded_once_per_dialect() -> None:
    calls = []

    def json(message: object) -> bytes:
        calls.append(message)
        return orjson.dumps(message)

    def shout(message: object) -> bytes:
        return orjson.dumps(message).upper()

    f = frame("question")
    assert f.encoded(json) is f.encoded(json)
    assert f.encoded(shout) == b'{"T":"QUESTION"}'
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["leaderboard", "progress"])
def test_an_older_one_of_what_is_passing_gives_way(kind: str) -> None:
    outbox = Outbox(orjson.dumps, 1000)
    for f in (frame(kind, n=1), frame("reveal"), frame(kind, n=2)):
        assert outbox.push(f)
    assert drained(outbox) == [b'{"t":"reveal"}', b'{"t":"%b","n":2}' % kind.encode()]
    assert outbox.bytes == 0


def test_a_count_does_not_take_the_place_of_a_leaderboard() -> None:
    outbox = Outbox(orjson.dumps, 1000)
    kinds = ["leaderboard", "progress", "leaderboard", "progress", "progress"]
    for n, kind in enumerate(kinds):
        assert outbox.push(frame(kind, n=n))
    assert drained(outbox) == [b'{"t":"leaderboard","n":2}', b'{"t":"progress","n":4}']


def test_a_leaderboard_that_was_sent_is_not_taken_back() -> None:
    outbox = Outbox(orjson.dumps, 1000)
    outbox.push(frame("leaderboard", n=1))
    outbox.push(frame("reveal"))
    assert outbox.pop() == b'{"t":"leaderboard","n":1}'
    outbox.push(frame("leaderboard", n=2))
    assert drained(outbox) == [b'{"t":"reveal"}', b'{"t":"leaderboard","n":2}']


def test_an_outbox_is_bounded_in_bytes_but_takes_one_frame_always() -> None:
    outbox = Outbox(orjson.dumps, 40)
    assert outbox.push(frame("question", text="x" * 100))
    assert not outbox.push(frame("reveal"))
    assert len(drained(outbox)) == 1
    assert outbox.push(frame("reveal"))
    assert outbox.push(frame("leaderboard"))
    assert not outbox.push(frame("question"))
    assert outbox.push(frame("leaderboard")), "it replaces the older one"
    assert len(outbox) == 2


def test_a_full_mailbox_refuses() -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    assert [mailbox.put_nowait(n) for n in range(3)] == [True, True, False]
    mailbox.put_over(9)
    assert mailbox.peek() == 0
    assert [mailbox.pop() for _ in range(3)] == [0, 1, 9]
    assert mailbox.peek() is None


async def test_a_mailbox_wakes_its_reader(autojump_clock: trio.testing.MockClock) -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    with trio.move_on_after(10) as nothing:
        await mailbox.wait()
    assert nothing.cancelled_caught
    mailbox.wake()
    await mailbox.wait()
    with trio.move_on_after(10) as only_once:
        await mailbox.wait()
    assert only_once.cancelled_caught
    mailbox.put_nowait(1)
    await mailbox.wait()
    await mailbox.wait()
    assert mailbox.pop() == 1


def test_the_stream_counts_without_gaps() -> None:
    stream = BroadcastStream(3)
    frames = [frame("question", n=n) for n in range(5)]
    for f in frames:
        stream.next_offset()
        stream.append(f)
    assert stream.offset == 5
    assert stream.since(5, host=False) == []
    assert stream.since(3, host=False) == frames[3:]
    assert stream.since(2, host=False) == frames[2:]
    assert stream.since(1, host=False) is None
    assert stream.since(6, host=False) is None
    assert stream.since(-1, host=False) is None


async def test_fan_out_gives_way_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(fanout.time, "perf_counter", lambda: next(clock) * 0.001)
    clients = [Client() for _ in range(1000)]
    turns = 0
    done = False

    async def neighbour() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(neighbour)
        seats = dict.fromkeys(clients)
        await in_slices(fan_out(seats, seats, frame("first")))
        together = turns
        await in_slices(fan_out_each((client, frame("second", n=n)) for n, client in enumerate(clients)))
        done = True
    assert together >= 4
    assert turns >= 20
    assert all(client.kinds == ["first", "second"] for client in clients)
    assert [client.last("second")["n"] for client in clients] == list(range(1000))


async def test_a_waiter_takes_the_first_reply() -> None:
    waiter = Waiter()
    waiter.push(frame("ack", n=1))
    waiter.push(frame("ack", n=2))
    waiter.close(CloseReason.SHUTDOWN)
    assert (await waiter.wait()).message["n"] == 1
    closed = Waiter()
    closed.close(CloseReason.RESTARTING)
    closed.push(frame("ack"))
    with pytest.raises(ConnectionEnded) as ended:
        await closed.wait()
    assert ended.value.close_reason is CloseReason.RESTARTING


def test_clients_know_every_ending_and_what_to_do_after_it() -> None:
    broken_framing = {1002: "no", 1007: "no"}
    told = {close_reason.code: close_reason.reconnect.value for close_reason in CloseReason} | broken_framing
    assert {code: policy.value for code, policy in reconnect.BY_CODE.items()} == told


def test_every_ending_has_its_own_code() -> None:
    assert len(BY_CODE) == len(CloseReason)
    assert all(
        close_reason.code in (1003, 1009, 1011) or 4000 <= close_reason.code < 5000
        for close_reason in CloseReason
    )


# -- ticker -------------------------------------------------------------------------------------------


def test_a_ticker_tells_news_at_once_and_then_a_tick_later() -> None:
    ticker = Ticker(AdaptiveTick(250, 10_000).tick_after)
    assert ticker.next_at == math.inf, "there is no news"
    ticker.dirty = True
    assert ticker.next_at <= 1_000
    ticker.begin(1_000)
    assert ticker.next_at == math.inf
    ticker.dirty = True
    assert ticker.next_at == 1_250


def test_a_ticker_waits_longer_after_what_took_long_to_tell() -> None:
    ticker = Ticker(AdaptiveTick(250, 10_000).tick_after)
    ticker.begin(1_000)
    ticker.took(100)
    assert ticker.due_at == 1_250, "what was announced holds"
    ticker.put_off(2_000)
    ticker.dirty = True
    assert ticker.next_at == 2_000 + 100 * FAN_OUT_SHARE


async def test_what_is_put_back_in_a_mailbox_comes_first_and_is_newest_to_nobody() -> None:
    mailbox: Mailbox[str] = Mailbox(3)
    for item in ("a", "b", "c"):
        assert mailbox.put_nowait(item)
    first = [mailbox.pop(), mailbox.pop()]
    looked_to = mailbox.arrived
    mailbox.put_back(first)
    assert list(mailbox.newest(looked_to)) == []
    assert [mailbox.pop() for _ in range(3)] == ["a", "b", "c"]
    assert mailbox.taken == mailbox.arrived == 3


async def test_a_mailbox_that_is_not_waited_for_items_returns_at_a_wake_alone() -> None:
    mailbox: Mailbox[str] = Mailbox(3)
    mailbox.put_nowait("a")
    await mailbox.wait()
    with trio.move_on_after(0) as scope:
        await mailbox.wait(for_items=False)
    assert scope.cancelled_caught
    mailbox.wake()
    await mailbox.wait(for_items=False)
