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
from loadtest.chaos.tape import Tape
from loadtest.histogram import Histogram


class Link:
    """In the place of a proxy."""

    def __init__(self, did: list[str]) -> None:
        self._did = did

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

    def silent(self, *, towards_database: bool = True) -> object:
        return self._during("silent" if towards_database else "deaf")


class Recorded:
    """A stage on which nothing but notes is made; each says when."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.proxy = cast(Proxy, Link(self.did))

    async def kill_node(self) -> None:
        self.did.append("node killed")

    async def end_node(self) -> None:
        self.did.append("node ended")

    async def start_node(self) -> None:
        self.did.append("node started")

    def pause_node(self, on: bool) -> None:
        self.did.append(f"node paused {on}")

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

    def fill_disk(self, on: bool) -> None:
        self.did.append(f"disk full {on}")

    async def cut_clients(self) -> None:
        self.did.append("clients cut")


DEEDS: dict[Kind, list[str]] = {
    Kind.NODE_KILL: ["node killed", "node started"],
    Kind.NODE_TERM: ["node ended", "node started"],
    Kind.NODE_PAUSE: ["node paused True", "node paused False"],
    Kind.POSTGRES_KILL: ["postgres killed", "postgres started"],
    Kind.BACKEND_KILL: ["backend killed 0.25"],
    Kind.POSTGRES_PAUSE: ["postgres paused True", "postgres paused False"],
    Kind.BOTH_KILL: ["postgres killed", "node killed", "postgres started", "node started"],
    Kind.TABLE_LOCK: ["locked for 2.0"],
    Kind.LINK_SLOW: ["slow by 0.07", "no longer slow by 0.07"],
    Kind.LINK_CUT: ["severed", "no longer severed"],
    Kind.LINK_HOLD: ["silent", "no longer silent"],
    Kind.LINK_ONE_WAY: ["deaf", "no longer deaf"],
    Kind.CLIENTS_CUT: ["clients cut"],
    Kind.DISK_FULL: ["severed", "disk full True", "disk full False", "no longer severed"],
}


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
async def test_what_a_fault_does_and_for_how_long(kind: Kind, autojump_clock: trio.testing.MockClock) -> None:
    stage = Recorded()
    began = trio.current_time()
    await inject(Fault(1, kind, 0.0, 2.0, 0.25), stage, stage.cut_clients)
    assert stage.did == DEEDS[kind]
    assert trio.current_time() - began == pytest.approx(2.0)


async def test_which_is_killed_first_is_by_the_share(autojump_clock: trio.testing.MockClock) -> None:
    stage = Recorded()
    await inject(Fault(1, Kind.BOTH_KILL, 0.0, 1.0, 0.75), stage, stage.cut_clients)
    assert stage.did[:2] == ["node killed", "postgres killed"]


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind, deeds in DEEDS.items()
        if deeds[-1].endswith("False") or deeds[-1].startswith("no longer")
    ],
    ids=lambda kind: kind.value,
)
async def test_what_is_broken_off_is_undone(kind: Kind, autojump_clock: trio.testing.MockClock) -> None:
    stage = Recorded()
    with trio.move_on_after(1.0):
        await inject(Fault(1, kind, 0.0, 2.0, 0.25), stage, stage.cut_clients)
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
        "over": False,
        "open": 2,
        "answers_sent": acks,
        "reconnects": 0,
        "refused": {"late": acks},
        "ends": {},
    }


async def test_the_tape_knows_for_how_long_there_was_no_ack() -> None:
    tape = Tape()
    for wave, at, acks in (
        (1, 10.0, 5),
        (1, 10.1, 9),
        (2, 10.1, 1),
        (1, 10.2, 9),
        (1, 12.0, 9),
        (1, 12.1, 12),
        (1, 12.2, 20),
    ):
        tape.take(wave, pulse(at, acks))
    assert tape.acks == 21
    assert tape.acks_between(10.0, 12.0) == 10
    assert tape.longest_silence_s(10.0, 12.2) == pytest.approx(2.0)
    assert tape.longest_silence_s(5.0, 10.0) == pytest.approx(5.0)
    assert tape.totals().refused == {"late": 21}
    assert tape.state_of(1).came == 4


async def test_an_ack_after_a_moment_is_one_that_cannot_be_older() -> None:
    tape = Tape()
    tape.take(1, pulse(9.9, 1))
    heard: list[float] = []

    async def wait() -> None:
        heard.append(await tape.ack_after(10.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        tape.take(1, pulse(10.05, 5))  # since 9.9: it may be older
        await trio.testing.wait_all_tasks_blocked()
        assert not heard
        tape.take(1, pulse(10.15, 5))
        tape.take(1, pulse(10.25, 6))
    assert heard == [10.25]


def test_acks_in_faults_are_counted_apart_until_a_moment_after() -> None:
    tape = Tape()
    tape.take(1, pulse(1.0, 1, 0.1))
    tape.begin_fault()
    tape.take(1, pulse(1.1, 2, 0.2))
    tape.end_fault(1.2)
    tape.take(1, pulse(1.3, 3, 0.3))
    tape.take(1, pulse(2.3, 4, 0.4))
    tape.take(1, pulse(2.4, 5, 0.5))
    assert (tape.ack.count, tape.ack_in_faults.count) == (5, 3)
