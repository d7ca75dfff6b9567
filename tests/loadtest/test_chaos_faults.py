"""Each fault does what it says, and undoes it, also when it is broken off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest
import trio

from loadtest.chaos.inject import inject
from loadtest.chaos.plan import Fault, Kind
from loadtest.chaos.proxy import Proxy
from loadtest.chaos.timeline import AckTimeline
from loadtest.runs.histogram import Histogram


class Link:
    """In the place of a proxy."""

    def __init__(self, did: list[str], to: str = "") -> None:
        self._did = did
        self._to = to

    @contextmanager
    def _during(self, what: str) -> Iterator[None]:
        self._did.append(what)
        try:
            yield
        finally:
            self._did.append(f"no longer {what}")

    def severed(self) -> object:
        return self._during("severed")

    def slow(self, delay_s: float) -> object:
        return self._during(f"slow by {delay_s:.2f}")

    def silent(self, *, towards_server: bool = True, lost: bool = True) -> object:
        if not lost:
            return self._during(f"held up {self._to}".rstrip())
        return self._during("silent" if towards_server else "deaf")


class Recorded:
    """A stage on which nothing but notes is made."""

    def __init__(self, nodes: int = 3) -> None:
        self.did: list[str] = []
        self.nodes = nodes
        self.ws_urls: list[str] = []

    def to_postgres(self, node: int) -> Proxy:
        return cast(Proxy, Link(self.did))

    def to_redis(self, node: int) -> Proxy:
        return cast(Proxy, Link(self.did, f"redis of {node}"))

    def to_others(self, node: int) -> list[Proxy]:
        return [cast(Proxy, Link(self.did, f"{node} and {other}")) for other in range(3) if other != node]

    def set_clock(self, node: int, ahead_s: float) -> None:
        self.did.append(f"clock {node} ahead by {ahead_s:g}")

    async def copy_postgres(self) -> None:
        self.did.append("postgres copied")

    async def restore_postgres(self) -> None:
        self.did.append("postgres restored")

    async def turn_away(self, node: int, *, twin: bool) -> None:
        self.did.append(f"{'twin' if twin else 'stranger'} of {node} turned away")

    async def settled(self, within_s: float) -> None:
        self.did.append("settled")

    async def kill_node(self, node: int) -> None:
        self.did.append(f"node {node} killed")

    async def end_node(self, node: int) -> None:
        self.did.append(f"node {node} ended")

    async def start_node(self, node: int) -> None:
        self.did.append(f"node {node} started")

    def pause_node(self, node: int, on: bool) -> None:
        self.did.append(f"node {node} paused {on}")

    async def drain_node(self, node: int) -> None:
        self.did.append(f"node {node} drained")

    async def kill_redis(self) -> None:
        self.did.append("redis killed")

    async def start_redis(self) -> None:
        self.did.append("redis started")

    def pause_redis(self, on: bool) -> None:
        self.did.append(f"redis paused {on}")

    async def flush_redis(self) -> None:
        self.did.append("redis flushed")

    async def kill_postgres(self) -> None:
        self.did.append("postgres killed")

    async def kill_backend(self, share: float) -> None:
        self.did.append(f"backend killed {share}")

    async def start_postgres(self) -> None:
        self.did.append("postgres started")

    def pause_postgres(self, on: bool) -> None:
        self.did.append(f"postgres paused {on}")

    async def lock_answers(self, lasts_s: float) -> None:
        self.did.append(f"locked for {lasts_s}")
        await trio.sleep(lasts_s)

    def fill_disk(self, node: int, on: bool) -> None:
        self.did.append(f"disk {node} full {on}")

    async def cut_clients(self) -> None:
        self.did.append("clients cut")


DEEDS: dict[Kind, list[str]] = {
    Kind.NODE_KILL: ["node 2 killed", "node 2 started"],
    Kind.NODE_TERM: ["node 2 ended", "node 2 started"],
    Kind.NODE_PAUSE: ["node 2 paused True", "node 2 paused False"],
    Kind.POSTGRES_KILL: ["postgres killed", "postgres started"],
    Kind.BACKEND_KILL: ["backend killed 0.25"],
    Kind.POSTGRES_PAUSE: ["postgres paused True", "postgres paused False"],
    Kind.BOTH_KILL: ["postgres killed", "node 2 killed", "postgres started", "node 2 started"],
    Kind.TABLE_LOCK: ["locked for 2.0"],
    Kind.LINK_SLOW: ["slow by 0.07", "no longer slow by 0.07"],
    Kind.LINK_CUT: ["severed", "no longer severed"],
    Kind.LINK_HOLD: ["silent", "no longer silent"],
    Kind.LINK_ONE_WAY: ["deaf", "no longer deaf"],
    Kind.CLIENTS_CUT: ["clients cut"],
    Kind.DISK_FULL: ["severed", "disk 2 full True", "disk 2 full False", "no longer severed"],
    Kind.NODE_SLEEP: ["node 2 paused True", "node 2 paused False"],
    Kind.CLOCK_STEP: ["clock 2 ahead by 45.5", "clock 2 ahead by 0"],
    Kind.CLOCK_WRONG: ["node 2 killed", "clock 2 ahead by 45.5", "node 2 started", "clock 2 ahead by 0"],
    Kind.POSTGRES_LOSES: ["postgres copied", "postgres restored"],
    Kind.NODE_GONE: ["node 2 killed", "node 2 started"],
    Kind.NODE_FREEZE: ["node 2 paused True", "node 2 paused False"],
    Kind.NODE_DRAIN: ["node 2 drained", "node 2 ended", "node 2 started"],
    Kind.ROLL: [f"node {node} {what}" for node in (2, 0, 1) for what in ("ended", "started")],
    Kind.REDIS_KILL: ["redis killed", "redis started"],
    Kind.REDIS_PAUSE: ["redis paused True", "redis paused False"],
    Kind.REDIS_FLUSH: ["redis flushed"],
    Kind.CUT_REDIS: ["severed", "no longer severed"],
    Kind.CUT_POSTGRES: ["severed", "no longer severed"],
    Kind.CUT_BOTH: ["severed", "severed", "no longer severed", "no longer severed"],
    Kind.CUT_OTHERS: ["severed", "severed", "no longer severed", "no longer severed"],
    Kind.NODE_HANG: ["node 2 paused True", "node 2 paused False"],
    Kind.CUT_ALL: [
        *("held up", "held up redis of 2", "held up 2 and 0", "held up 2 and 1"),
        *("no longer held up 2 and 1", "no longer held up 2 and 0"),
        *("no longer held up redis of 2", "no longer held up"),
    ],
    Kind.WRONG_SECRET: ["stranger of 2 turned away"],
    Kind.NODE_TWIN: ["twin of 2 turned away"],
}


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
async def test_what_a_fault_does_and_for_how_long(kind: Kind, autojump_clock: trio.testing.MockClock) -> None:
    stage = Recorded()
    began = trio.current_time()
    await inject(Fault(1, kind, 0.0, 2.0, 0.25, node=2), stage, stage.cut_clients)
    assert stage.did == DEEDS[kind]
    times = stage.nodes if kind is Kind.ROLL else 1
    assert trio.current_time() - began == pytest.approx(2.0 * times)


async def test_a_node_that_is_cut_off_may_be_left_waiting(autojump_clock: trio.testing.MockClock) -> None:
    stage = Recorded()
    await inject(Fault(1, Kind.CUT_OTHERS, 0.0, 2.0, 0.75, node=2), stage, stage.cut_clients)
    held_up = ["held up 2 and 0", "held up 2 and 1"]
    assert stage.did == [*held_up, *(f"no longer {each}" for each in reversed(held_up))]


async def test_which_is_killed_first_is_by_the_share(autojump_clock: trio.testing.MockClock) -> None:
    stage = Recorded()
    await inject(Fault(1, Kind.BOTH_KILL, 0.0, 1.0, 0.75), stage, stage.cut_clients)
    assert stage.did[:2] == ["node 0 killed", "postgres killed"]


def test_a_clock_is_wrong_in_either_direction() -> None:
    shares = (0.0, 0.499, 0.5, 0.999)
    ahead_s = [Fault(1, Kind.CLOCK_STEP, 0.0, 1.0, share).clock_ahead_s for share in shares]
    assert ahead_s == [1.0, 89.8, -1.0, -89.8]


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind, deeds in DEEDS.items()
        if deeds[-1].endswith(("False", "ahead by 0")) or deeds[-1].startswith("no longer")
    ],
    ids=lambda kind: kind.value,
)
async def test_what_is_broken_off_is_undone(kind: Kind, autojump_clock: trio.testing.MockClock) -> None:
    stage = Recorded()
    with trio.move_on_after(1.0):
        await inject(Fault(1, kind, 0.0, 2.0, 0.25, node=2), stage, stage.cut_clients)
    assert stage.did == DEEDS[kind]


def pulse(at: float, acks: int, *latencies_s: float) -> dict[str, object]:
    heard = Histogram()
    for each in latencies_s:
        heard.add(each)
    return {
        "at": at,
        "acks": acks,
        "ack": heard.to_dict(),
        "joined": 3,
        "gone": 1,
        "never_in": 1,
        "over": False,
        "open": 2,
        "answers_sent": acks,
        "reconnects": 0,
        "refused": {"late": acks},
        "ends": {},
    }


async def test_the_tape_knows_for_how_long_there_was_no_ack() -> None:
    timeline = AckTimeline()
    for wave, at, acks in (
        (1, 10.0, 5),
        (1, 10.1, 9),
        (2, 10.1, 1),
        (1, 10.2, 9),
        (1, 12.0, 9),
        (1, 12.1, 12),
        (1, 12.2, 20),
    ):
        timeline.take(wave, pulse(at, acks))
    assert timeline.acks == 21
    assert timeline.acks_between(10.0, 12.0) == 10
    assert timeline.longest_silence_s(10.0, 12.2) == pytest.approx(2.0)
    assert timeline.longest_silence_s(5.0, 10.0) == pytest.approx(5.0)
    assert timeline.totals().refused == {"late": 21}
    assert timeline.state_of(1).came == 4


async def test_an_ack_after_a_moment_is_one_that_cannot_be_older() -> None:
    timeline = AckTimeline()
    timeline.take(1, pulse(9.9, 1))
    heard: list[float] = []

    async def wait() -> None:
        heard.append(await timeline.ack_after(10.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        timeline.take(1, pulse(10.05, 5))  # since 9.9: it may be older
        await trio.testing.wait_all_tasks_blocked()
        assert not heard
        timeline.take(1, pulse(10.15, 5))
        timeline.take(1, pulse(10.25, 6))
    assert heard == [10.25]


def test_acks_in_faults_are_counted_apart_until_a_moment_after() -> None:
    timeline = AckTimeline()
    timeline.take(1, pulse(1.0, 1, 0.1))
    timeline.begin_fault()
    timeline.take(1, pulse(1.1, 2, 0.2))
    timeline.end_fault(1.2)
    timeline.take(1, pulse(1.3, 3, 0.3))
    timeline.take(1, pulse(2.3, 4, 0.4))
    timeline.take(1, pulse(2.4, 5, 0.5))
    assert (timeline.ack.count, timeline.ack_in_faults.count) == (5, 3)
