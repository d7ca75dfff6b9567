"""Which fault is told by which alert, after how long: real nodes, PostgreSQL, Redis, Prometheus and
Alertmanager, and players.

    python -m tests.deploy.faults_table [FAULT ...]      each fault, on three nodes of its own
    python -m tests.deploy.faults_table --healthy 20     no fault for so many minutes: nothing may fire

With faults, Prometheus looks every second and the times after `for:` are a sixth; without any, rules,
intervals and routes are as in deploy/.
"""

from __future__ import annotations

import random
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import trio

from engine.domain.questions import SPELLING_MAX
from loadtest.bots.bot import Crowd
from loadtest.bots.habits import CrowdPlan
from loadtest.bots.knowledge import Knowledge
from loadtest.client.api import ApiRefused, ApiUnreachable
from loadtest.client.player import HostClient
from server.cli.chaos.node import NODE, clock_library
from server.cli.chaos.stage import Stage, staged
from server.listening import free_ports
from tests.deploy.observed import Observed, observing
from tests.settings import AT_ONCE

NODES = 3
SHARE = 6
INTERVAL = "1s"
CALM_S = 12.0
"""Without a fault, before each."""

WATCHED_S = 60.0
"""Afterwards, for what is resolved."""

SESSIONS, PLAYERS, QUESTION_S = 3, 20, 2
SPREAD = 12
"""Sessions, where the fault is one node's: of so many each node has some."""

QUIZ = {
    "title": "Long",
    "questions": [{"type": "true_false", "text": "True", "correct": True, "time_limit_s": QUESTION_S}] * 100,
}
TYPED = {
    "title": "Typed",
    "questions": [
        {"type": "text", "text": "How long?", "accept": [SPELLING_MAX * "長"], "time_limit_s": QUESTION_S}
    ]
    * 100,
}
"""Its answers are long: an answer to it is some 400 bytes of the spool."""
HELD_NODE = (sys.executable, "-m", "tests.deploy.held_node")


async def play(stage: Stage, fault: Fault, place: int) -> None:
    """Players of one session after the other, by way of one node; and again, whatever has happened to it."""
    while True:
        with suppress(ApiRefused, ApiUnreachable, OSError):
            async with stage.api(place % NODES) as api:
                settings = {**AT_ONCE, "pace": "auto", "reveal_ms": 300, "early_close": False}
                made = await api.create_session("long", settings | {"board": fault.board})
                plan = CrowdPlan(fault.players, seed=place, think_s=0.4, drop_share=0.0, patience_s=300)
                knowledge = Knowledge(fault.quiz)
                crowd = Crowd(plan, ws_url=stage.ws_urls, code=made["code"], api=api, knowledge=knowledge)
                host = HostClient(
                    stage.ws_urls[place % NODES],
                    made["code"],
                    token=made["host_token"],
                    rng=random.Random(place),
                    patience_s=300,
                )
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(crowd.run)
                    nursery.start_soon(host.run)
                    await crowd.all_in.wait()
                    await host.command("start")
        await trio.sleep(1)


@dataclass
class Seen:
    """What became of one alert: seconds since the fault, and since its end."""

    pending_s: float | None = None
    firing_s: float | None = None
    told_s: float | None = None
    resolved_s: float | None = None


@dataclass
class Watch:
    """Notes what Prometheus says of alerts, twice a second."""

    observed: Observed
    began_s: float = field(default_factory=trio.current_time)
    ended_s: float | None = None
    seen: dict[str, Seen] = field(default_factory=dict)

    async def run(self) -> None:
        while True:
            now_s = trio.current_time()
            states: dict[str, set[str]] = {}
            for each in await self.observed.query("ALERTS"):
                states.setdefault(each["metric"]["alertname"], set()).add(each["metric"]["alertstate"])
            for name, found in states.items():
                seen = self.seen.setdefault(name, Seen())
                seen.resolved_s = None
                if seen.pending_s is None:
                    seen.pending_s = now_s - self.began_s
                if "firing" in found and seen.firing_s is None:
                    seen.firing_s = now_s - self.began_s
            for name, seen in self.seen.items():
                if name not in states and seen.resolved_s is None and self.ended_s is not None:
                    seen.resolved_s = now_s - self.ended_s
                told = {each for _, status, each in self.observed.webhook.told if status == "firing"}
                if seen.told_s is None and name in told:
                    seen.told_s = now_s - self.began_s
            await trio.sleep(0.5)

    @property
    def quiet(self) -> bool:
        return all(seen.resolved_s is not None for seen in self.seen.values())


# -- faults ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """Args: what: of the table. options: of the nodes. lasts_s: how long it is there. players: of each
    session. clocks: whether they have to be settable. board: when players see it: `live` sends most."""

    what: str
    inject: Callable[[Stage, Path], Awaitable[Callable[[], Awaitable[None]]]]
    lasts_s: float = 75.0
    options: Sequence[str] = ()
    program: Sequence[str] = NODE
    sessions: int = SESSIONS
    players: int = PLAYERS
    quiz: Mapping[str, Any] = field(default_factory=lambda: QUIZ)
    clocks: bool = False
    board: str = "at_close"


async def nothing(_: Stage, __: Path) -> Callable[[], Awaitable[None]]:
    return trio.lowlevel.checkpoint


async def postgres_killed(stage: Stage, _: Path) -> Callable[[], Awaitable[None]]:
    await stage.kill_postgres()
    return stage.start_postgres


async def redis_killed(stage: Stage, _: Path) -> Callable[[], Awaitable[None]]:
    await stage.kill_redis()
    return stage.start_redis


async def node_killed(stage: Stage, _: Path) -> Callable[[], Awaitable[None]]:
    await stage.kill_node(2)
    return partial(stage.start_node, 2)


async def disk_full(stage: Stage, _: Path) -> Callable[[], Awaitable[None]]:
    stage.fill_disk(2, True)
    await stage.kill_postgres()

    async def mend() -> None:
        stage.fill_disk(2, False)
        await stage.start_postgres()

    return mend


async def clock_jumps(stage: Stage, _: Path) -> Callable[[], Awaitable[None]]:
    stage.set_clock(2, -30.0)

    async def mend() -> None:
        stage.set_clock(2, 0.0)
        await trio.lowlevel.checkpoint()

    return mend


async def loop_held(_: Stage, directory: Path) -> Callable[[], Awaitable[None]]:
    hold = directory / "hold"
    hold.touch()

    async def mend() -> None:
        hold.unlink()
        await trio.lowlevel.checkpoint()

    return mend


class Repeated:
    """Something that goes on until it is mended."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self) -> None:
        with self._scope:
            while True:
                await self._work()
        self._ended.set()

    async def mend(self) -> None:
        self._scope.cancel()
        await self._ended.wait()


async def disk_slow(stage: Stage, _: Path) -> Callable[[], Awaitable[None]]:
    async def stutter() -> None:
        stage.pause_postgres(True)
        try:
            await trio.sleep(0.7)
        finally:
            stage.pause_postgres(False)
        await trio.sleep(0.3)

    repeated = Repeated(stutter)
    trio.lowlevel.spawn_system_task(repeated.run)
    return repeated.mend


async def consumers_slow(stage: Stage, _: Path) -> Callable[[], Awaitable[None]]:
    """Spectators who take no more than their kernel does, and come back when they are cut off."""
    async with stage.api() as api:
        [code] = [each["code"] for each in await api.sessions(limit=1)]
    port = int(stage.ws_urls[0].split(":")[2].split("/")[0])

    async def deaf() -> None:
        sock = trio.socket.socket(socket.AF_INET)
        with sock, suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
            await sock.connect(("127.0.0.1", port))
            await sock.send(
                b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            await sock.recv(1_024)
            message = b'{"t":"join","code":"%s","role":"spectator"}' % code.encode()
            await sock.send(bytes([0x81, 0x80 | len(message), 0, 0, 0, 0]) + message)
            poll = sock.fileno()
            while True:  # cut off: what it sends is answered by a reset
                await trio.sleep(1)
                assert poll >= 0
                await sock.send(bytes([0x8A, 0x80, 0, 0, 0, 0]))
        await trio.sleep(0.5)

    repeated = [Repeated(deaf) for _ in range(40)]
    for each in repeated:
        trio.lowlevel.spawn_system_task(each.run)

    async def mend() -> None:
        for each in repeated:
            await each.mend()

    return mend


NONE = Fault("none", nothing)
FAULTS = {
    "postgresql": Fault("PostgreSQL is killed", postgres_killed),
    "redis": Fault("Redis is killed", redis_killed),
    "node": Fault("a node of three is killed", node_killed),
    "slow-disk": Fault("PostgreSQL's disk is slow: it stands still for 0.7 s of each second", disk_slow),
    "full-disk": Fault(
        "the disk of a node is full, and PostgreSQL is away", disk_full, sessions=SPREAD, players=5
    ),
    "full-spool": Fault(
        "PostgreSQL is killed, and a spool takes no more than 1 MiB",
        postgres_killed,
        lasts_s=120.0,
        options=("--spool-bytes-max", "1048576"),
        sessions=SPREAD,
        players=10,
        quiz=TYPED,
    ),
    "clock": Fault("the clock of a node jumps back by 30 s", clock_jumps, clocks=True),
    "loop": Fault("a step of 0.2 s holds the loop every 2 s", loop_held, program=HELD_NODE),
    "slow-consumers": Fault(
        "40 clients do not read, and come back when they are cut off",
        consumers_slow,
        lasts_s=120.0,
        board="live",
        options=("--send-timeout-s", "2", "--tick-ms", "100", "--tick-max-ms", "100"),
    ),
}


@asynccontextmanager
async def observed_nodes(
    fault: Fault, directory: Path, *, hurry: bool
) -> AsyncIterator[tuple[Stage, Observed]]:
    """Nodes with players, on which nothing was done yet, and who watches them."""
    clocks = clock_library() if fault.clocks else None
    async with staged(directory, fault.options, fault.program, NODES, clocks) as stage:
        async with stage.api() as api:
            await api.add_quiz(fault.quiz, "long")
        targets = [url.removeprefix("http://") for url in stage.urls]
        watching = observing(
            directory / "observed", targets, free_ports(2), hurry=hurry, share=SHARE, interval=INTERVAL
        )
        async with watching as observed, trio.open_nursery() as nursery:
            await observed.until(f"sum(up) == {NODES}")
            for place in range(fault.sessions):
                nursery.start_soon(play, stage, fault, place)
            yield stage, observed
            nursery.cancel_scope.cancel()


async def suffer(fault: Fault, directory: Path) -> Watch:
    async with observed_nodes(fault, directory, hurry=True) as (stage, observed):
        before = Watch(observed)
        with trio.move_on_after(CALM_S):
            await before.run()
        watch = Watch(observed)
        mend = await fault.inject(stage, directory)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run)
            await trio.sleep(fault.lasts_s)
            await mend()
            watch.ended_s = trio.current_time()
            with trio.move_on_after(WATCHED_S):
                await trio.sleep(2)
                while not watch.quiet:  # noqa: ASYNC110  # another process
                    await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        for name in before.seen:
            watch.seen.setdefault(name, Seen())
        await tell_of_loops(observed)
    return watch


async def tell_of_loops(observed: Observed) -> None:
    """What nodes without a processor look like: for whoever reads the table of a busy machine."""
    for name in ("fanfare_stood_still_seconds_total", "fanfare_loop_holder_seconds"):
        for each in await observed.query(name):
            labels = {key: value for key, value in each["metric"].items() if key not in ("__name__", "job")}
            print(name, labels, each["value"][1], file=sys.stderr)


async def stay_well(minutes: float, directory: Path) -> tuple[Watch, int]:
    """Returns what was pending or fired, and how many answers were acknowledged."""
    async with observed_nodes(NONE, directory, hurry=False) as (_, observed):
        watch = Watch(observed)
        with trio.move_on_after(60 * minutes):
            await watch.run()
        [acks] = await observed.query("sum(fanfare_acks_total)")
        await tell_of_loops(observed)
        return watch, int(acks["value"][1])


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} s"


def rows(what: str, watch: Watch) -> list[str]:
    """Lines of the table; the first of them names the fault."""
    found = []
    for name, seen in sorted(watch.seen.items(), key=lambda each: each[1].firing_s or 1e9):
        resolved = f"not within {WATCHED_S:.0f} s" if seen.resolved_s is None else seconds(seen.resolved_s)
        told = seconds(seen.told_s) if seen.told_s is not None else "kept back" if seen.firing_s else ""
        cells = (f"`{name}`", seconds(seen.pending_s), seconds(seen.firing_s), told, resolved)
        found.append(f"| {what} | {' | '.join(cells)} |")
        what = ""
    return found or [f"| {what} | none | | | | |"]


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(FAULTS)))
@click.option("--healthy", type=float, help="For so many minutes nothing is done to the nodes.")
def main(names: Sequence[str], healthy: float | None) -> None:
    with tempfile.TemporaryDirectory(prefix="fanfare-") as made:
        if healthy is not None:
            watch, acks = trio.run(stay_well, healthy, Path(made))
            print("\n".join(rows("none", watch)))
            print(f"{acks:,} answers acknowledged in {healthy:g} minutes")
            sys.exit(any(seen.firing_s is not None for seen in watch.seen.values()))
        print("| fault | alert | pending | fires | is told | resolved after its end |")
        print("|---|---|---:|---:|---:|---:|")
        for name in names or FAULTS:
            began_s = time.monotonic()
            watch = trio.run(suffer, FAULTS[name], Path(tempfile.mkdtemp(dir=made)))
            print("\n".join(rows(FAULTS[name].what, watch)), flush=True)
            print(f"{name}: {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
