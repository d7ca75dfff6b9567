"""When nodes are struck, who is told of it, and what is made of what the players saw."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from loadtest.runs.faults import Fault, Faults, Moments, costs
from loadtest.runs.fleet import Generator, generators
from loadtest.runs.histogram import Histogram
from loadtest.runs.spread import Spreads
from loadtest.runs.timeline import Timeline
from loadtest.swarm.crowd import CrowdPlan, Seats
from loadtest.swarm.fault_log import Fault as Seen
from loadtest.swarm.fault_log import FaultLog
from tests.loadtest.test_page import pulse
from tests.loadtest.test_swarm import HABITS

RESTART_S = 4.0


class Scene:
    """Three nodes and one generator, and in their order all that was done to them, with the time of it."""

    def __init__(self) -> None:
        self.log: list[tuple[float, str]] = []
        self.alive = [0, 1, 2]

    def note(self, what: str) -> None:
        self.log.append((trio.current_time(), what))

    def running(self) -> list[int]:
        return list(self.alive)

    def name(self, place: int) -> str:
        return f"load-{place + 1}"

    def kill(self, place: int) -> None:
        self.alive.remove(place)
        self.note(f"kill {place}")

    async def restart(self, place: int) -> int:
        self.note(f"end {place}")
        await trio.sleep(RESTART_S)
        self.note(f"ready {place}")
        return 100 + place

    async def mark(self, fault: int, ws_url: str) -> None:
        await trio.sleep(0.5)
        self.note(f"marked {fault} {ws_url}")

    async def struck(self, fault: int, at_s: float) -> None:
        self.note(f"struck {fault}")
        await trio.lowlevel.checkpoint()

    def faults(self) -> Faults:
        return Faults(self, ["ws://0", "ws://1", "ws://2"], [cast(Generator, self)], random.Random(4))


async def test_all_generators_know_whom_it_will_concern_before_a_node_is_killed(
    autojump_clock: object,
) -> None:
    scene = Scene()
    faults = scene.faults()
    await faults.run(Moments(kill_s=[10.0]))
    (killed,) = {0, 1, 2} - set(scene.alive)
    assert scene.log == [
        (10.5, f"marked 0 ws://{killed}"),
        (10.5, f"kill {killed}"),
        (10.5, "struck 0"),
    ]
    assert [(fault.kind, fault.node) for fault in faults.struck] == [("kill", f"load-{killed + 1}")]


async def test_the_last_node_is_left(autojump_clock: object) -> None:
    scene = Scene()
    await scene.faults().run(Moments(kill_s=[1.0, 2.0, 3.0, 4.0]))
    assert len(scene.alive) == 1


async def test_a_roll_restarts_one_after_the_other_and_nobody_is_killed_meanwhile(
    autojump_clock: object,
) -> None:
    scene = Scene()
    faults = scene.faults()
    await faults.run(Moments(kill_s=[2.0], roll_s=[1.0]))
    done = [what for _, what in scene.log if not what.startswith(("marked", "struck"))]
    (killed,) = {0, 1, 2} - set(scene.alive)
    assert done[:3] == ["end 0", "ready 0", f"kill {killed}"]
    rest = [place for place in (1, 2) if place != killed]
    assert done[3:] == [f"{what} {place}" for place in rest for what in ("end", "ready")]
    assert faults.restarted == [100, *(100 + place for place in rest)]
    assert all(fault.ready_at_s is not None for fault in faults.struck if fault.kind == "restart")


def through(fault: Seen, **moments: Any) -> None:
    fault_log = FaultLog(0)
    for name, value in moments.items():
        setattr(fault_log, name, value)
    fault.fault_logs.append(fault_log)


def test_what_a_fault_cost_is_told_from_the_moment_of_the_fault() -> None:
    timeline = Timeline(100.0)
    beside = Histogram()
    beside.add(0.03)
    for number in range(30):
        timeline.take(0, pulse(100.5 + number, beside=beside.to_dict()))
    one, other = Seen(), Seen()
    one.struck_at = other.struck_at = 110.0
    for number in range(100):
        back_at = 112.0 + number / 100
        through(one, away_s=back_at - 110, back_at=back_at, acked_at=back_at + 1, ack_s=3.0)
    through(one)  # its session was over before
    through(other, away_s=1.5, back_at=111.5, acked_at=111.75, ack_s=1.75)
    (cost,) = costs(
        [Fault("kill", "load-2", 110.0)], [{"0": one.to_dict()}, {"0": other.to_dict()}, {}], timeline
    )
    assert (cost["kind"], cost["node"], cost["at_s"], cost["restart_s"]) == ("kill", "load-2", 10.0, None)
    assert (cost["affected"], cost["back"]) == (101, 101)
    assert cost["first_ack_ms"] == 1750
    assert cost["back_99_ms"] == pytest.approx(2980, rel=0.03)
    assert cost["away_ms"]["p100"] == pytest.approx(2990)
    assert cost["ack_ms"]["p50"] == pytest.approx(3000, rel=0.03)
    assert cost["beside_ack_ms"]["p99"] == pytest.approx(30, rel=0.03)


def test_players_that_do_not_come_back_are_counted() -> None:
    timeline = Timeline(100.0)
    timeline.take(0, pulse(100.5))
    seen = Seen()
    seen.struck_at = 101.0
    through(seen, away_s=1.0, back_at=102.0)
    through(seen, lost_since=101.0)
    (cost,) = costs([Fault("restart", "load-1", 101.0, 103.5)], [{"0": seen.to_dict()}], timeline)
    assert (cost["affected"], cost["back"], cost["back_99_ms"], cost["first_ack_ms"]) == (2, 1, None, None)
    assert cost["restart_s"] == 2.5


def test_a_fault_is_over_for_a_player_with_the_first_ack_when_no_answer_waits_any_more() -> None:
    fault_log = FaultLog(0)
    fault_log.acked(1.0, 0.5, waits=False)
    assert not fault_log.over, "it has not begun"
    fault_log.lost(2.0)
    fault_log.lost(3.0)
    fault_log.joined(6.0)
    fault_log.acked(6.5, 1.5, waits=True)
    fault_log.acked(7.0, 2.0, waits=False)
    assert (fault_log.over, fault_log.away_s, fault_log.ack_s, fault_log.acked_at) == (True, 4.0, 5.0, 6.5)
    fault_log.lost(8.0)
    fault_log.acked(20.0, 8.0, waits=False)
    assert (fault_log.ack_s, fault_log.lost_since) == (5.0, None)


async def test_a_generator_tells_whom_it_has_marked_and_what_came_of_it(tmp_path: Path) -> None:
    url = "ws://127.0.0.1:9/ws"
    seats = [Seats(0, "123456", [url], 1, 1)]
    plan = CrowdPlan(1, HABITS, time.monotonic() + 3600, 1.0, [], [("1", "0")], seats)
    async with generators(1, lambda _, pulse: None) as (crowd,):
        await crowd.begin(plan)
        with trio.fail_after(30):
            assert await crowd.left() == {"code 123456, lobby: away": 1}
            await crowd.mark(0, url)
            await crowd.struck(0, time.monotonic())
            await crowd.write(tmp_path / "ledgers")
    assert crowd.faults["0"]["affected"] == 0
    spreads = Spreads()
    spreads.read(tmp_path / "ledgers.spreads")
    assert (spreads.questions(), spreads.end()) == ([], None)
