"""The tick of a node: between its bounds, the higher the busier, and at rest under a load that stays."""

from __future__ import annotations

from heapq import heapify, heapreplace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from engine.actors.adaptive_tick import BUSY_TARGET, AdaptiveTick
from engine.actors.delivery.frame import Frame
from engine.actors.options import ActorOptions
from tests.actors.world import Client, settle, world

BEAT_S = 0.25
READINGS = st.lists(st.tuples(st.floats(0, 1), st.floats(0.001, 20)), max_size=100)


def follow(pace: AdaptiveTick, busy: float, seconds: float) -> int:
    for _ in range(round(seconds / BEAT_S)):
        pace.follow(busy, BEAT_S)
    return pace.tick_ms


@given(st.integers(20, 10_000), st.integers(20, 60_000), READINGS, st.integers(0, 100_000))
def test_the_tick_stays_between_its_bounds(
    tick_ms: int, tick_max_ms: int, readings: list[tuple[float, float]], took_ms: int
) -> None:
    pace = AdaptiveTick(tick_ms, tick_max_ms)
    for busy, over_s in readings:
        pace.follow(busy, over_s)
        assert tick_ms <= pace.tick_ms <= pace.tick_after(took_ms) <= max(tick_ms, tick_max_ms)


@given(READINGS, st.data())
def test_who_is_busier_never_has_the_shorter_tick(
    readings: list[tuple[float, float]], data: st.DataObject
) -> None:
    one, other = AdaptiveTick(250, 10_000), AdaptiveTick(250, 10_000)
    for busy, over_s in readings:
        one.follow(busy, over_s)
        other.follow(data.draw(st.floats(busy, 1)), over_s)
        assert one.tick_ms <= other.tick_ms


@given(st.integers(20, 10_000), READINGS)
def test_bounds_that_are_equal_switch_it_off(tick_ms: int, readings: list[tuple[float, float]]) -> None:
    pace = AdaptiveTick(tick_ms, tick_ms)
    for busy, over_s in readings:
        pace.follow(busy, over_s)
    assert pace.tick_ms == pace.tick_after(1_000) == tick_ms


def test_a_surge_shows_within_a_second() -> None:
    pace = AdaptiveTick(250, 10_000)
    follow(pace, 0.3, 60)
    assert follow(pace, 1.0, 1) >= 600


def test_a_loop_with_room_comes_back_to_the_least() -> None:
    pace = AdaptiveTick(250, 10_000)
    assert follow(pace, 1.0, 30) == 10_000
    assert follow(pace, 0.1, 30) == 250


def test_a_tick_in_the_middle_stays_where_the_load_is_as_it_should_be() -> None:
    pace = AdaptiveTick(250, 10_000)
    follow(pace, 1.0, 3)
    follow(pace, BUSY_TARGET, 5)
    before = pace.tick_ms
    assert before > 1_000
    assert follow(pace, BUSY_TARGET, 60) == before


def test_a_machine_that_stood_still_is_no_surge_of_an_hour() -> None:
    pace = AdaptiveTick(250, 10_000)
    pace.follow(1.0, 3_600)
    assert pace.tick_ms <= 1_250


def played(
    pace: AdaptiveTick, sessions: int, board_s: float, other: float, seconds: float
) -> list[tuple[int, float]]:
    """Ticks and shares of a loop that sends the leaderboards of so many sessions, of `board_s` each, whenever
    they are due, and has other work for that share of its time. One pair a beat."""
    due = [pace.tick_ms / 1000 * number / sessions for number in range(sessions)]
    heapify(due)
    free_at = 0.0
    beat_at = BEAT_S
    worked: list[tuple[float, float]] = []
    seen: list[tuple[int, float]] = []
    while beat_at < seconds:
        starts_at = max(due[0], free_at)
        if starts_at >= beat_at:
            since = beat_at - BEAT_S
            spent_s = sum(max(0.0, min(end, beat_at) - max(begin, since)) for begin, end in worked)
            busy = other + (1 - other) * spent_s / BEAT_S
            pace.follow(busy, BEAT_S)
            seen.append((pace.tick_ms, busy))
            worked = [each for each in worked if each[1] > beat_at]
            beat_at += BEAT_S
        else:
            free_at = starts_at + board_s / (1 - other)
            worked.append((starts_at, free_at))
            heapreplace(due, starts_at + pace.tick_ms / 1000)
    return seen


@settings(max_examples=30)
@given(st.integers(60, 300), st.floats(0.4, 6), st.floats(0, 0.5))
def test_under_a_load_that_stays_the_tick_comes_to_rest_where_the_loop_has_room(
    sessions: int, needed_s: float, other: float
) -> None:
    board_s = needed_s * (BUSY_TARGET - other) / sessions
    seen = played(AdaptiveTick(250, 10_000), sessions, board_s, other, 120)
    late = seen[-160:]
    assert 0.6 < sum(busy for _, busy in late) / len(late) < 0.8
    ticks = [tick for tick, _ in late]
    assert max(ticks) < 1.8 * min(ticks)
    assert 0.9 * needed_s < sum(ticks) / len(ticks) / 1000 < 1.4 * needed_s


@settings(max_examples=30)
@given(st.integers(1, 300), st.floats(0, 0.5))
def test_a_load_that_fits_leaves_the_tick_alone(sessions: int, other: float) -> None:
    board_s = 0.25 * (BUSY_TARGET - 0.1 - other) / sessions
    assert {tick for tick, _ in played(AdaptiveTick(250, 10_000), sessions, board_s, other, 30)} == {250}


# -- in a session ----------------------------------------------------------------------------------


class Watcher(Client):
    """Notes when leaderboards come."""

    def __init__(self, clock: MockClock) -> None:
        super().__init__()
        self._clock = clock
        self.boards: list[tuple[float, int]] = []

    def push(self, frame: Frame) -> None:
        super().push(frame)
        if frame.kind == "leaderboard":
            tick_ms = frame.message["tick_ms"]
            assert isinstance(tick_ms, int)
            self.boards.append((self._clock.current_time(), tick_ms))


async def test_the_tick_that_is_announced_is_the_one_that_is_held(mock_clock: MockClock) -> None:
    async with world(ActorOptions(tick_ms=250, tick_max_ms=2_000)) as w:
        actor = await w.session(early_close=False, board="live")
        players = [await w.join(actor, f"P{n}") for n in range(1, 400)]
        mock_clock.jump(2)
        await w.do(actor, "start")
        screen = Watcher(mock_clock)
        w.seat(actor, screen)
        await settle()
        screen.boards.clear()
        for number, player in enumerate(players, 1):
            w.answer(actor, player, number)
            await settle()
            mock_clock.jump(0.05)
            await settle()
            w.registry.pace.follow(1.0 if number < 150 else 0.0, 0.05)
        announced = [tick_ms for _, tick_ms in screen.boards]
        assert announced[0] < 400
        assert max(announced) == 2_000
        assert announced[-1] == 250
        for (before, tick_ms), (after, _) in pairwise(screen.boards):
            assert tick_ms <= round(1000 * (after - before)) <= tick_ms + 51


async def test_the_ends_of_questions_and_sessions_do_not_wait_for_the_tick(mock_clock: MockClock) -> None:
    async with world(ActorOptions(tick_ms=250, tick_max_ms=10_000)) as w:
        follow(w.registry.pace, 1.0, 30)
        actor = await w.session(early_close=False, board="live")
        player = await w.join(actor, "Ada")
        mock_clock.jump(10)
        await w.do(actor, "start")
        mock_clock.jump(1)
        w.answer(actor, player, 1)
        await settle()
        assert player.last("leaderboard")["answered"] == 0
        await w.do(actor, "close")
        assert player.kinds[-1] == "leaderboard"
        assert player.last("leaderboard")["answered"] == 1
        assert player.last("leaderboard")["tick_ms"] == 10_000
        await w.do(actor, "next")
        w.answer(actor, player, 1, question=2)
        await settle()
        await w.do(actor, "finish")
        assert player.last("leaderboard")["answered"] == 1
        assert player.kinds[-1] == "finished"


async def test_a_session_whose_leaderboards_take_long_sends_them_more_rarely(mock_clock: MockClock) -> None:
    class Far(Client):
        def push(self, frame: Frame) -> None:
            super().push(frame)
            if frame.kind == "leaderboard":
                mock_clock.jump(0.01)

    async with world(ActorOptions(tick_ms=250)) as w:
        actor = await w.session(early_close=False)
        for _ in range(20):
            w.seat(actor, Far())
        players = [await w.join(actor, f"P{n}") for n in range(1, 4)]
        mock_clock.jump(1)
        await settle()
        assert players[0].last("leaderboard")["tick_ms"] == 1_000, "200 ms, five times"
        other = await w.session()
        nearby = await w.join(other, "Ada")
        await w.join(other, "Ben")
        mock_clock.jump(1)
        await settle()
        assert nearby.last("leaderboard")["tick_ms"] == 250
