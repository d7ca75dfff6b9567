"""What becomes of a node that is cut off, of its sessions, and of everybody's players.

    python -m bench.partitions
    python -m bench.partitions --cut redis --cut others --seconds 30

A cluster of three nodes, each with a proxy of its own before PostgreSQL, before Redis and before each other
node. One of them is cut off from the one, the other or both, or from the other nodes, for a while: once such
that whatever it sends is refused, and once such that it is left waiting and what it has sent arrives when the
network heals. Players answer all the time. It ends with the proof that every acknowledged answer is stored
once, and prints what was observed as a table in Markdown.
"""

from __future__ import annotations

import math
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import click
import httpx
import trio

from bench.figures import machine
from loadtest.chaos.inject import cut_off
from loadtest.chaos.proof import prove_all
from loadtest.chaos.proxy import Proxy
from loadtest.chaos.waves import SessionOf, ledgers_file, write_sessions
from loadtest.client.api import Api
from loadtest.runs.fleet import Generator, Pulse, generators
from loadtest.runs.histogram import Histogram
from loadtest.runs.load_quiz import LoadQuiz, load_quiz
from loadtest.swarm.crowd import CrowdPlan, Seats
from loadtest.swarm.player import Habits
from server.cli.chaos.command import audited
from server.cli.chaos.stage import Stage, staged
from server.cli.operate.sql import answers_of, merged_in
from tests.settings import AT_ONCE

NODES = 3
VICTIM = 0
CUTS = ("redis", "postgresql", "both", "others")
WARM_S = 6.0
"""Of play before the cut."""

AFTER_S = 12.0
"""Of play after it. Who is cut off comes back within that."""

SETTLE_WITHIN_S = 60.0
QUESTION_S, REVEAL_S = 1.0, 0.2
PULSE_S = 0.1
LOOK_EVERY_S = 0.25
LOOK_TIMEOUT_S = 3.0
SILENCE_S = 1.0
"""Of a few hundred answers a second; less without an ack is no pause."""

SPOOL = "fanfare_spool_facts"
SPOOLED = "fanfare_spool_in_facts_total"
COMMITTED = "fanfare_journal_committed_facts_total"
MERGED = "fanfare_spool_put_aside_facts_total"
FENCED = "fanfare_journal_fenced_total"

HABITS = Habits(
    even=True,
    think_s=0.3,
    skill=0.6,
    silent_share=0.0,
    duplicate_share=0.02,
    drop_share=0.0,
    stall_share=0.0,
    stall_s=0.0,
    patience_s=60.0,
)


@dataclass(frozen=True, slots=True)
class Cut:
    """From what the node is cut off, and whether it is told so."""

    what: str
    refused: bool

    def ways(self, stage: Stage) -> Sequence[Proxy]:
        to_postgres, to_redis = stage.to_postgres(VICTIM), stage.to_redis(VICTIM)
        return {
            "redis": [to_redis],
            "postgresql": [to_postgres],
            "both": [to_redis, to_postgres],
            "others": stage.to_others(VICTIM),
        }[self.what]

    def __str__(self) -> str:
        name = {
            "redis": "Redis",
            "postgresql": "PostgreSQL",
            "both": "both",
            "others": "the other nodes",
        }[self.what]
        return f"{name}, {'refused' if self.refused else 'dropped'}"


class Side:
    """The players of one side: of the sessions that the node had which is cut off, or of all others."""

    def __init__(self) -> None:
        self.pulses: list[Pulse] = []

    def acks_at(self, begin: float, end: float) -> list[float]:
        """Moments at which there were some."""
        return [
            after["at"]
            for before, after in pairwise(self.pulses)
            if after["acks"] > before["acks"] and begin <= after["at"] <= end
        ]

    def pauses(self, begin: float, end: float) -> list[tuple[float, float]]:
        """In which nobody heard an ack, as seconds from the beginning."""
        moments = [begin, *self.acks_at(begin, end), end]
        return [(a - begin, b - begin) for a, b in pairwise(moments) if b - a >= SILENCE_S]

    def latencies(self, begin: float, end: float) -> str:
        merged = Histogram()
        for pulse in self.pulses:
            if begin < pulse["at"] <= end:
                merged.merge(Histogram.from_dict(pulse["ack"]))
        found = [merged.percentiles_ms((percent,)) for percent in (50.0, 99.0)]
        return " / ".join(
            "-" if value is None else f"{value:,.0f}" for each in found for value in each.values()
        )

    def counted(self, name: str, begin: float, end: float) -> Counter[str]:
        """What a counter of the pulses, or a dictionary of them, has gained."""
        seen = [pulse[name] for pulse in self.pulses if pulse["at"] <= end]
        early = [pulse[name] for pulse in self.pulses if pulse["at"] <= begin]
        if not seen or not early:
            return Counter()
        if isinstance(seen[-1], Mapping):
            return Counter(seen[-1]) - Counter(early[-1])
        return Counter({name: seen[-1] - early[-1]})

    @property
    def over(self) -> bool:
        return bool(self.pulses) and bool(self.pulses[-1]["over"])


T = TypeVar("T")
Told = list[list[tuple[float, T]]]
"""By node: what it told of itself, and when it was asked."""


def _of_each_node() -> Told[Any]:
    return [[] for _ in range(NODES)]


@dataclass(slots=True)
class Seen:
    """One cut, from before it until after it."""

    cut: Cut
    its: Side = field(default_factory=Side)
    others: Side = field(default_factory=Side)
    metrics: Told[Mapping[str, float]] = field(default_factory=_of_each_node)
    ready: Told[str] = field(default_factory=_of_each_node)
    redis: Told[str] = field(default_factory=_of_each_node)
    """Whether it answers the node."""
    sight: Told[str] = field(default_factory=_of_each_node)
    """How many nodes it knows."""
    owned: list[tuple[float, int]] = field(default_factory=list)
    """Moments, and how many of its sessions the node still owned by the database."""
    sessions: int = 0
    cut_at: float = 0.0
    healed_at: float = 0.0
    settled_s: float = 0.0

    def meanwhile(self, told: Sequence[tuple[float, T]]) -> list[tuple[float, T]]:
        """While the node was cut off; moments are seconds since then."""
        return [(at - self.cut_at, what) for at, what in told if self.cut_at <= at <= self.healed_at]

    def gained(self, name: str) -> float:
        """What a counter of the node that was cut off has gained."""
        told = [metrics[name] for _, metrics in self.metrics[VICTIM]]
        return told[-1] - told[0] if told else 0.0


# -- playing ---------------------------------------------------------------------------------------


class Play:
    """Cuts the node off, again and again, while there is play."""

    def __init__(
        self, stage: Stage, apis: Sequence[Api], directory: Path, players: int, cut_s: float
    ) -> None:
        self.sessions: list[SessionOf] = []
        self._stage = stage
        self._apis = apis
        self._directory = directory
        self._players = players
        self._cut_s = cut_s
        questions = int((WARM_S + cut_s + AFTER_S + 2.0) / (QUESTION_S + REVEAL_S))
        self._quiz: LoadQuiz = load_quiz(questions, QUESTION_S)
        self._waves = 0

    async def prepare(self) -> None:
        await self._apis[0].add_quiz(self._quiz.data, self._quiz.id)

    async def see(self, cut: Cut) -> Seen:
        seen = Seen(cut)
        its, others = await self._open()
        seen.sessions = len(its)
        sides = (seen.its, seen.others)
        async with (
            generators(2, lambda number, pulse: sides[number].pulses.append(pulse)) as crowds,
            trio.open_nursery() as nursery,
        ):
            for crowd, opened in zip(crowds, (its, others), strict=True):
                await crowd.begin(self._plan(opened), PULSE_S)
            await trio.sleep(2.0)
            async with trio.open_nursery() as starting:
                for session in (*its, *others):
                    starting.start_soon(self._start, session)
            for place, api in enumerate(self._apis):
                nursery.start_soon(self._look, api, seen, place)
            nursery.start_soon(self._ask_owners, its, seen.owned)
            await trio.sleep(WARM_S)
            with ExitStack() as during:
                seen.cut_at = time.monotonic()
                cut_off(during, cut.refused, cut.ways(self._stage))
                await trio.sleep(self._cut_s)
            seen.healed_at = time.monotonic()
            await self._stage.settled(SETTLE_WITHIN_S)
            seen.settled_s = time.monotonic() - seen.healed_at
            await trio.sleep(max(AFTER_S - seen.settled_s, 0.0))
            await self._end(crowds, sides)
            nursery.cancel_scope.cancel()
        return seen

    async def _open(self) -> tuple[list[SessionOf], list[SessionOf]]:
        """Sessions of ten, a third of them on the node that is to be cut off."""
        sides: tuple[list[SessionOf], list[SessionOf]] = ([], [])
        settings = {**AT_ONCE, "pace": "auto", "reveal_ms": int(REVEAL_S * 1000), "early_close": False}
        for number in range(self._players // 10):
            told = await self._apis[number % NODES].create_session(self._quiz.id, settings)
            side = 0 if told["ws_url"] == self._stage.ws_urls[VICTIM] else 1
            session = SessionOf(
                self._waves + side,
                len(self.sessions),
                told["session_id"],
                told["code"],
                told["ws_url"],
                told["host_token"],
                10,
            )
            self.sessions.append(session)
            sides[side].append(session)
        write_sessions(self._directory, self.sessions)
        return sides

    def _plan(self, opened: Sequence[SessionOf]) -> CrowdPlan:
        seats = [
            Seats(session.number, session.code, self._stage.ws_urls, 1 + 10 * place, 10)
            for place, session in enumerate(opened)
        ]
        return CrowdPlan(
            seed=opened[0].wave,
            habits=HABITS,
            join_from_s=time.monotonic() + 0.5,
            join_per_s=500.0,
            sources=[f"127.0.{1 + opened[0].wave}.1"],
            answers=self._quiz.answers,
            seats=seats,
        )

    async def _start(self, session: SessionOf) -> None:
        await trio.sleep(random.uniform(0.0, 1.0))
        await self._apis[1].host(session.code, session.host_token, "start", "start")

    async def _end(self, crowds: Sequence[Generator], sides: Sequence[Side]) -> None:
        with trio.move_on_after(SETTLE_WITHIN_S):
            while not all(side.over for side in sides):  # noqa: ASYNC110 - pulses of other processes
                await trio.sleep(PULSE_S)
        for side, crowd in enumerate(crowds):
            await crowd.write(ledgers_file(self._directory, self._waves + side))
        self._waves += len(crowds)

    async def _look(self, api: Api, seen: Seen, place: int) -> None:
        """Each on its own: one that takes long says nothing of the others."""
        async with (
            httpx.AsyncClient(trust_env=False, timeout=LOOK_TIMEOUT_S, base_url=api.url) as http,
            trio.open_nursery() as nursery,
        ):

            async def ask(path: str, take: Callable[[httpx.Response | None, float], None]) -> None:
                while True:
                    at = time.monotonic()
                    try:
                        take(await http.get(path), at)
                    except httpx.TransportError:
                        take(None, at)
                    await trio.sleep(LOOK_EVERY_S)

            def take_metrics(response: httpx.Response | None, at: float) -> None:
                if response is not None:
                    seen.metrics[place].append((at, _metrics(response.text)))

            def take_readiness(response: httpx.Response | None, at: float) -> None:
                told = "no answer" if response is None else _readiness(response.json())
                seen.ready[place].append((at, told))

            def take_cluster(response: httpx.Response | None, at: float) -> None:
                told = {} if response is None else response.json()
                seen.redis[place].append(
                    (at, "no answer" if not told else "up" if told["redis_up"] else "away")
                )
                seen.sight[place].append((at, "no answer" if not told else str(len(told["nodes"]))))

            nursery.start_soon(ask, "/metrics", take_metrics)
            nursery.start_soon(ask, "/readyz", take_readiness)
            nursery.start_soon(ask, "/api/cluster", take_cluster)

    async def _ask_owners(self, its: Sequence[SessionOf], owned: list[tuple[float, int]]) -> None:
        from engine.aio import open_asyncio
        from engine.storage.postgres import Database

        ids = [session.id for session in its]
        async with open_asyncio(), Database.open(self._stage.database) as database:
            while True:
                rows = await database.fetch(
                    "SELECT count(*) FROM sessions WHERE id = ANY ($1::uuid[]) AND owner LIKE $2 || '-%'",
                    ids,
                    f"node-{VICTIM + 1}",
                )
                owned.append((time.monotonic(), next(iter(rows[0]))))
                await trio.sleep(LOOK_EVERY_S)


def _readiness(told: Mapping[str, Any]) -> str:
    if told["ready"]:
        return "degraded" if told["degraded"] else "ready"
    return "not ready"


def _metrics(text: str) -> dict[str, float]:
    lines = (line.split() for line in text.splitlines() if line.startswith("fanfare_") and "{" not in line)
    return {name: float(value) for name, value in lines}


# -- telling ---------------------------------------------------------------------------------------


def table(found: Sequence[Seen]) -> str:
    heads = (
        "cut off from",
        "what it acknowledges",
        "its sessions",
        "their players",
        "players of the others, ack p50 / p99 ms",
        "`/readyz` and the cluster",
        "when it heals",
    )
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for seen in found:
        cells = (
            str(seen.cut),
            _acknowledges(seen),
            _sessions(seen),
            _players(seen),
            _beside(seen),
            _visible(seen),
            _healing(seen),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _acknowledges(seen: Seen) -> str:
    """By what its counters have gained from one look to the next."""
    spans: list[tuple[str, float]] = []
    for (at, before), (_, after) in pairwise(seen.meanwhile(seen.metrics[VICTIM])):
        how = "nothing"
        for name, where in ((SPOOLED, "from its spool"), (COMMITTED, "from PostgreSQL")):
            if after[name] > before[name]:
                how = where
                break
        if not spans or spans[-1][0] != how:
            spans.append((how, at))
    return "; ".join(_from(what, at) for what, at in _lasting(spans, seen.healed_at - seen.cut_at)) or "?"


def _lasting(spans: Sequence[tuple[str, float]], end_s: float) -> Iterator[tuple[str, float]]:
    """Without those that a single look may have imagined."""
    ends = [at for _, at in spans[1:]] + [end_s]
    last = ""
    for (what, at), end in zip(spans, ends, strict=True):
        if end - at > 2 * LOOK_EVERY_S + PULSE_S and what != last:
            last = what
            yield what, at


def _from(what: str, at_s: float) -> str:
    return what if at_s < 2 * LOOK_EVERY_S else f"{what} from {at_s:.1f} s on"


def _sessions(seen: Seen) -> str:
    during = [(at - seen.cut_at, count) for at, count in seen.owned if at >= seen.cut_at]
    gone = [at for at, count in during if count < seen.sessions]
    if not gone:
        return "kept"
    all_gone = [at for at, count in during if not count]
    if not all_gone:
        return f"{seen.sessions - min(count for _, count in during)} of {seen.sessions} taken over"
    back = [at for at, count in during if count and at > all_gone[0]]
    said = f"taken over {gone[0]:.1f} to {all_gone[0]:.1f} s after the cut"
    return f"{said}, and handed back from {back[0]:.1f} s on" if back else said


def _players(seen: Seen) -> str:
    side, end = seen.its, seen.healed_at + AFTER_S
    pauses = side.pauses(seen.cut_at, end)
    said = [f"no ack from {a:.1f} to {b:.1f} s" for a, b in pauses if b - a < end - seen.cut_at - 1]
    said = said or ["no pause"]
    said += [f"ack {side.latencies(seen.cut_at, seen.healed_at)} ms"]
    names = {"reconnects": "came back", "handed": "sent on"}
    for name, meaning in names.items():
        if count := side.counted(name, seen.cut_at, end)[name]:
            said.append(f"{count} {meaning}")
    refused = side.counted("refused", seen.cut_at, end)
    said += [f"{count:,} `{code}`" for code, count in refused.most_common()]
    return "; ".join(said)


def _beside(seen: Seen) -> str:
    side = seen.others
    before, during = (seen.cut_at - WARM_S + 2, seen.cut_at), (seen.cut_at, seen.healed_at)
    said = f"{side.latencies(*before)} before, {side.latencies(*during)} meanwhile"
    refused = side.counted("refused", seen.cut_at, seen.healed_at)
    back = side.counted("reconnects", seen.cut_at, seen.healed_at)["reconnects"]
    said += "".join(f"; {count} `{code}`" for code, count in refused.most_common())
    return said + (f"; {back} came back" if back else "")


def _visible(seen: Seen) -> str:
    said = [f"it is {_changes(seen.meanwhile(seen.ready[VICTIM]))}"]
    redis = _changes(seen.meanwhile(seen.redis[VICTIM]))
    if redis != "up":
        said.append(f"Redis for it {redis}")
    for place in range(NODES):
        if place != VICTIM:
            ready = _changes(seen.meanwhile(seen.ready[place]))
            sight = _changes(seen.meanwhile(seen.sight[place]))
            said.append(f"node {place + 1} is {ready}, nodes in its sight {sight}")
    return "; ".join(said)


def _changes(told: Sequence[tuple[float, str]]) -> str:
    spans: list[tuple[str, float]] = []
    for at, what in told:
        if not spans or spans[-1][0] != what:
            spans.append((what, at))
    return ", ".join(_from(what, at) for what, at in spans)


def _healing(seen: Seen) -> str:
    said = [f"all ready and known after {seen.settled_s:.1f} s"]
    told = [(at - seen.healed_at, metrics[SPOOL]) for at, metrics in seen.metrics[VICTIM]]
    if most := max((facts for _, facts in told), default=0.0):
        empty = next((at for at, facts in told if at > 0 and not facts), math.inf)
        said.append(f"{most:.0f} facts were in its spool, empty after {empty:.1f} s")
    if merged := seen.gained(MERGED):
        said.append(f"{merged:.0f} of them for the new owners to merge")
    if fenced := seen.gained(FENCED):
        said.append(f"{fenced:.0f} sessions fenced at their next commit")
    return "; ".join(said)


# -- all of it -------------------------------------------------------------------------------------


async def measure(cuts: Sequence[Cut], players: int, cut_s: float, keep: Path | None) -> bool:
    """Returns whether the proof holds."""
    directory = keep or Path(tempfile.mkdtemp(prefix="fanfare-partitions-"))
    try:
        async with AsyncExitStack() as stack:
            stage = await stack.enter_async_context(staged(directory, nodes=NODES))
            apis = [await stack.enter_async_context(stage.api(node)) for node in range(len(stage.urls))]
            play = Play(stage, apis, directory, players, cut_s)
            await stage.settled(SETTLE_WITHIN_S)
            await play.prepare()
            found = []
            for cut in cuts:
                click.echo(f"{cut} …", err=True)
                found.append(await play.see(cut))
                click.echo(table(found[-1:]).splitlines()[-1], err=True)
            verdict = await prove_all(
                apis[1:2],
                lambda ids: answers_of(stage.database, ids),
                lambda: merged_in(stage.database),
                directory,
            )
            agrees, said = await audited(stage.database)
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    print(f"{machine()}\n{NODES} nodes, {players} players, cut off for {cut_s:g} s\n\n{table(found)}\n")
    outcome = "proven" if verdict.holds else f"not proven: {verdict.broken} {verdict.examples}"
    print(
        f"{verdict.acks:,} acknowledged answers, {verdict.rows:,} rows, of {verdict.unsettled:,} answers "
        f"nobody heard what became: {outcome}\n{said.splitlines()[-1] if agrees else said}"
    )
    return verdict.holds and agrees


@click.command()
@click.option("--cut", "names", multiple=True, type=click.Choice(CUTS), help="[default: each of them]")
@click.option("--how", type=click.Choice(["refused", "dropped"]), help="[default: first one, then the other]")
@click.option("--players", type=click.IntRange(30, 5_000), default=300, show_default=True)
@click.option("--seconds", "cut_s", type=click.FloatRange(1, 600), default=15.0, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False, exists=True))
def main(names: tuple[str, ...], how: str | None, players: int, cut_s: float, keep: Path | None) -> None:
    """Cut a node of a cluster off, and tell what was observed."""
    cuts = [
        Cut(name, refused)
        for name in names or CUTS
        for refused in (True, False)
        if how is None or refused == (how == "refused")
    ]
    raise SystemExit(0 if trio.run(measure, cuts, players, cut_s, keep) else 1)


if __name__ == "__main__":
    main()
