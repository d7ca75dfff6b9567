"""What an answer costs at any rate: one alone, a few, a crowd.

    python -m bench.rates
    python -m bench.rates --rate 500 --rate 1000 --sessions 1 --no-rooms
    python -m bench.rates --checkout ../before
    python -m bench.rates --watched --rounds 3 --no-rooms --sessions 1 --players 5000

Players of one session, and of fifty, answer at rates from 100 a second to all within half a second, on a
real node with a PostgreSQL of its own. Beside it in the same run, and in turns with it, as many players
answer a bare loop that acknowledges whatever comes, and quiz rooms on other libraries, which store nothing
(`bench.rooms`). The server and its PostgreSQL have one processor, the players the other.

How to think about a figure: an answer's cost is the processor time of the server's process from the first
answer until a moment after the last ack, divided by the answers. Everything is in it: the ack's send, and
what the node does at rest meanwhile. What players are told meanwhile beside their acks, such as how many
have answered, is no part of an answer: the players who read these frames count them, and they are taken off
at the price that the bare loop pays for as many bytes. At the end the answers are counted in the tables.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import click
import httpx
import psutil
import trio
from rich.console import Console
from rich.table import Table

from bench import rooms, wire
from bench.answer_wire import quiz
from bench.checkout import ROOT, CheckoutNode, postgres
from bench.fan_out import board
from bench.figures import Figure, machine, percentile, process_cpu_s
from bench.memory_node import Address
from bench.paced_players import Answered, PacedPlayers, paced_players
from bench.watched import NOT_AT_ALL, WATCHES, Watch, environment, scraped
from loadtest.runs.plot import Axes, Line, svg_file
from loadtest.runs.sampling import parse_metrics
from server.cli.cluster.node_process import CROWDED
from server.cli.operate.sql import psql_command
from server.wire.protocol import encode

AT_ONCE = 0
"""As a rate: everybody within ONCE_S."""

ONCE_S = 0.5
RATES_PER_S = (100, 500, 1_000, 2_000, 5_000, AT_ONCE)
PLAYERS = 15_000
SESSIONS = (1, 50)
SECONDS = 5.0
TICKS_PER_S = 1.0
FRAME_ROUNDS = 5
SETTLE_S = 0.4
WATCHED_SETTLE_S = 2.5
"""Spans are sent a second after the answers whose cost they are."""
NODE = "node"
FRAME_MARK = b'"t":"leaderboard"'
COUNTED = {
    "commits": "fanfare_journal_batches_total",
    "turns": "fanfare_loop_turns_total",
    "waits": "fanfare_loop_waits_total",
}
"""What a node counts of its work, as far as it tells it."""

WIDTH = 132


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Args:
        seconds: for which a rate goes on, as far as there are players: each answers a question once.
        ticks_per_s: how often rooms tell everybody how many have answered. A node tells players once a second
            at most, less often while it is busy, and its host more often.
        settings: of the node's sessions.
        options: for `fanfare serve`.
        checkouts: by name, of the project, each of which serves a node.
        watches: how each of these nodes is watched meanwhile; not at all, if it is left out.
        pin: whether the servers have a processor, and the players another.
        settle_s: after the last ack, so that nothing of one turn is in another.
        rest_s: for which servers are watched at rest.
    """

    rates: Sequence[int] = RATES_PER_S
    sessions: Sequence[int] = SESSIONS
    players: int = PLAYERS
    seconds: float = SECONDS
    rounds: int = 1
    rooms: Sequence[str] = (rooms.PICOWS, rooms.WS)
    ticks_per_s: float = TICKS_PER_S
    settings: Mapping[str, object] = field(default_factory=dict)
    options: Sequence[str] = ()
    checkouts: Mapping[str, Path] = field(default_factory=lambda: {NODE: ROOT})
    watches: Mapping[str, Watch] = field(default_factory=dict)
    pin: bool = True
    settle_s: float = SETTLE_S
    rest_s: float = 3.0

    def answers(self, rate: int) -> tuple[int, float]:
        """How many answers, and within how many seconds."""
        if rate == AT_ONCE:
            return self.players, ONCE_S
        count = max(min(int(rate * self.seconds), self.players), 1)
        return count, count / rate

    @property
    def turns(self) -> int:
        """Questions of a session, one that counts for nothing among them."""
        return self.rounds * len(self.rates) + 1


@dataclass(slots=True)
class Turn:
    """One question, answered. Costs are microseconds of processor time an answer, counts an answer's share.

    Args:
        net_us: without the other frames.
        frames: other than the ack, that players got meanwhile.
        late_ms: by how much the players sent the latest answer too late.
    """

    server: str
    sessions: int
    rate: int
    answers: int
    refused: int
    cpu_us: float
    net_us: float
    postgres_us: float | None
    frames: float
    p50_ms: float
    p99_ms: float
    late_ms: float
    took_s: float
    commits: float | None = None
    turns: float | None = None
    waits: float | None = None

    @property
    def net(self) -> float | None:
        """`net_us`; None when most of the cost was that of other frames, beside which answers do not show."""
        return self.net_us if self.net_us > self.cpu_us / 2 else None


@dataclass(slots=True)
class Found:
    """What a run has found.

    Args:
        rest: milliseconds of processor time a second of servers with all players connected and nothing to do.
        frame_us: what the bare loop pays for such a frame, by the number of sessions.
        missing: how to get the rooms that were not there.
        stored: answers that were acknowledged by nodes, each found in its table.
    """

    turns: list[Turn] = field(default_factory=list)
    rest: dict[str, float] = field(default_factory=dict)
    frame_us: dict[int, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    stored: int = 0


@dataclass(slots=True)
class Contender:
    """A server with its players.

    Args:
        database: process ids of its PostgreSQL.
        metrics: asks it what it counts.
        dsn: of its tables.
    """

    name: str
    pid: int
    players: PacedPlayers
    database: Callable[[], Iterable[int]] | None = None
    metrics: str = ""
    dsn: str = ""
    acked: list[int] = field(default_factory=list)
    """By question."""

    def cpu_s(self) -> tuple[float, float]:
        """Of the server, and of its PostgreSQL."""
        of_database = self.database() if self.database is not None else ()
        return process_cpu_s(self.pid), sum(process_cpu_s(pid) for pid in of_database)

    async def counts(self) -> dict[str, float]:
        if not self.metrics:
            return {}
        async with httpx.AsyncClient(trust_env=False) as client:
            values, _ = parse_metrics((await client.get(self.metrics)).text)
        return {name: values[metric] for name, metric in COUNTED.items() if metric in values}


# -- servers ---------------------------------------------------------------------------------------


@asynccontextmanager
async def served_by_node(
    plan: Plan, name: str, checkout: Path, count: int, cpu: int | None, beside: int | None
) -> AsyncIterator[Contender]:
    room_for = plan.players + count + 100
    options = (
        *CROWDED,
        *("--connections-max", str(room_for), "--connections-per-address-max", str(room_for)),
        *("--ping-interval-s", "3600", "--ping-timeout-s", "600"),
        *("--log-level", "warning"),
        *plan.options,
    )
    watch = plan.watches.get(name, NOT_AT_ALL)
    async with postgres(cpu) as (directory, dsn):
        stack = ExitStack()
        environ = stack.enter_context(environment(watch))
        arguments = ["--database-url", dsn, *options]
        node = CheckoutNode(checkout, directory / "node", arguments, cpu, environ=environ)
        try:
            await node.start()
            assert node.process is not None
            pin(node.process.pid, cpu)
            addresses = []
            async with node.api() as api:
                await api.add_quiz(quiz(plan.turns), "bench")
                for _ in range(count):
                    settings = {
                        "get_ready_ms": 0,
                        "early_close": False,
                        "player_limit": plan.players,
                        **plan.settings,
                    }
                    made = await api.create_session("bench", settings)
                    addresses.append(Address(node.realtime_port, made["code"], made["host_token"]))
            server = psutil.Process(int((directory / "postgres" / "postmaster.pid").read_text().split()[0]))
            with scraped(watch, node.url), paced_players(addresses, plan.players // count, beside) as players:
                players.joined()
                yield Contender(
                    name,
                    node.process.pid,
                    players,
                    lambda: [each.pid for each in (server, *server.children())],
                    f"{node.url}/metrics",
                    dsn,
                )
        finally:
            with stack, trio.CancelScope(shield=True):
                await node.stop()


@asynccontextmanager
async def served_by_room(
    plan: Plan, name: str, count: int, cpu: int | None, beside: int | None
) -> AsyncIterator[tuple[Contender, rooms.Served]]:
    with rooms.room(name, plan.ticks_per_s) as served:
        pin(served.pid, cpu)
        if name == rooms.LOOP:
            addresses, each = [Address(served.port)], plan.players
        else:
            addresses = [Address(served.port, f"{n:06}", "host") for n in range(count)]
            each = plan.players // count
        with paced_players(addresses, each, beside) as players:
            players.joined()
            yield Contender(name, served.pid, players), served


def pin(pid: int, cpu: int | None) -> None:
    """All threads of a process. Those that it starts later, and its children, inherit it."""
    if cpu is not None:
        for thread in psutil.Process(pid).threads():
            os.sched_setaffinity(thread.id, {cpu})


# -- the measurements ------------------------------------------------------------------------------


async def take_turn(contender: Contender, plan: Plan, sessions: int, rate: int) -> tuple[Turn, Answered]:
    count, over_s = plan.answers(rate)
    contender.players.open_question()
    await trio.sleep(SETTLE_S)
    counted, (server_s, database_s) = await contender.counts(), contender.cpu_s()
    answered = contender.players.answer(count, over_s)
    await trio.sleep(plan.settle_s)
    (server_after_s, database_after_s) = contender.cpu_s()
    more = await contender.counts()
    waits_ms = [1000 * wait_s for wait_s in answered.waits_s] or [0.0]
    contender.acked.append(len(answered.waits_s))
    cpu_us = (server_after_s - server_s) * 1e6 / count
    turn = Turn(
        contender.name,
        sessions,
        rate,
        count,
        answered.refused,
        cpu_us,
        cpu_us,
        (database_after_s - database_s) * 1e6 / count if contender.database is not None else None,
        answered.frames / count,
        percentile(waits_ms, 0.5),
        percentile(waits_ms, 0.99),
        1000 * answered.late_s,
        answered.took_s,
        **{name: (more[name] - counted[name]) / count for name in counted},
    )
    return turn, answered


async def measure_sessions(plan: Plan, sessions: int, names: Sequence[str], found: Found) -> None:
    """All servers, with that many sessions."""
    cpu, beside = (0, 1) if plan.pin and (os.cpu_count() or 1) > 1 else (None, None)
    async with AsyncExitStack() as stack:
        contenders: list[Contender] = []
        for name, checkout in plan.checkouts.items():
            node = served_by_node(plan, name, checkout, sessions, cpu, beside)
            contenders.append(await stack.enter_async_context(node))
        loop, served = await stack.enter_async_context(
            served_by_room(plan, rooms.LOOP, sessions, cpu, beside)
        )
        contenders.append(loop)
        for name in names:
            room = served_by_room(plan, name, sessions, cpu, beside)
            contenders.append((await stack.enter_async_context(room))[0])
        turns: list[Turn] = []
        frames = frame_bytes = 0
        for contender in contenders:
            await take_turn(contender, plan, sessions, AT_ONCE)  # a first time, which counts for nothing
            found.rest[f"{contender.name}, {sessions}"] = rest_ms(contender, plan.rest_s)
        for number in range(plan.rounds):
            for rate in plan.rates:
                for contender in contenders if number % 2 == 0 else contenders[::-1]:
                    turn, answered = await take_turn(contender, plan, sessions, rate)
                    turns.append(turn)
                    frames, frame_bytes = frames + answered.frames, frame_bytes + answered.frame_bytes
                    click.echo(f"  {told(turn)}", err=True)
        frame_us = bare_frame_us(loop, served, frame_bytes // frames if frames else 0)
        for turn in turns:
            turn.net_us = turn.cpu_us - turn.frames * frame_us
        found.frame_us[sessions] = frame_us
        found.turns += turns
        for contender in contenders:
            found.stored += await stored_as_acked(contender)


def rest_ms(contender: Contender, seconds: float) -> float:
    before_s, started = sum(contender.cpu_s()), time.perf_counter()
    time.sleep(seconds)
    return (sum(contender.cpu_s()) - before_s) * 1000 / (time.perf_counter() - started)


def bare_frame_us(loop: Contender, served: rooms.Served, payload_bytes: int) -> float:
    """What the bare loop pays to send a frame of that size to a player; of none, a leaderboard."""
    assert served.control is not None
    payload = board(1).encoded(encode) if not payload_bytes else FRAME_MARK.ljust(payload_bytes, b" ")
    costs_us = []
    for _ in range(FRAME_ROUNDS):
        loop.players.hear(FRAME_MARK)
        served.control.send(wire.server_frame(payload))
        costs_us.append(served.control.recv() * 1e6)
        loop.players.joined()
    return median(costs_us)


async def stored_as_acked(contender: Contender) -> int:
    """How many answers are in its tables; raises AssertionError unless these are the acknowledged ones of
    each question."""
    if not contender.dsn:
        return 0
    query = b"SELECT question, count(*) FROM answers GROUP BY question ORDER BY question;\n"
    done = await trio.run_process(psql_command(contender.dsn), stdin=query, capture_stdout=True)
    rows = [line.split("|") for line in done.stdout.decode().split()]
    stored = {int(question): int(count) for question, count in rows}
    acked = {question: count for question, count in enumerate(contender.acked, 1) if count}
    assert stored == acked, f"{contender.name}: acknowledged {acked}, stored {stored}"
    return sum(stored.values())


def measure(plan: Plan) -> Found:
    found = Found(missing={name: how for name in plan.rooms if (how := rooms.missing(name))})
    names = [name for name in plan.rooms if name not in found.missing]
    for sessions in plan.sessions:
        click.echo(f"{at_sessions(sessions)} …", err=True)
        trio.run(measure_sessions, plan, sessions, names, found)
    return found


# -- showing ---------------------------------------------------------------------------------------


def at_rate(rate: int) -> str:
    return f"{rate:,}/s" if rate else f"all in {ONCE_S:g} s"


def at_sessions(sessions: int) -> str:
    return "one session" if sessions == 1 else f"{sessions} sessions"


def told(turn: Turn) -> str:
    return (
        f"{at_rate(turn.rate):12} {turn.server:16} {turn.cpu_us:7.1f} us, net {turn.net_us:.1f}, "
        f"p50 {turn.p50_ms:.1f}, p99 {turn.p99_ms:.1f} ms, {turn.refused} refused"
    )


def merged(turns: Sequence[Turn]) -> list[Turn]:
    """One for each server, number of sessions and rate: the medians of its rounds."""
    groups: dict[tuple[int, int, str], list[Turn]] = {}
    for turn in turns:
        groups.setdefault((turn.sessions, turn.rate, turn.server), []).append(turn)
    return [_median(group) for group in groups.values()]


def _median(group: Sequence[Turn]) -> Turn:
    rows = [asdict(turn) for turn in group]
    values = {
        name: median(row[name] for row in rows) if isinstance(first, int | float) else first
        for name, first in rows[0].items()
    }
    values["refused"] = sum(row["refused"] for row in rows)
    return Turn(**values)


def table(found: Found, sessions: int) -> Table:
    shown = Table(title=at_sessions(sessions), title_justify="left", box=None, pad_edge=False)
    for heading in ("answers", "server"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("CPU µs", "net µs", "PostgreSQL µs", "commits", "turns", "frames", "p50 ms", "p99 ms"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("refused", justify="right")
    before = None
    turns = [turn for turn in merged(found.turns) if turn.sessions == sessions]
    for turn in sorted(turns, key=lambda turn: turn.rate or 1_000_000):
        if before is not None and turn.rate != before.rate:
            shown.add_section()
        shown.add_row(
            "" if before is not None and turn.rate == before.rate else at_rate(turn.rate),
            turn.server,
            *(_number(each) for each in (turn.cpu_us, turn.net, turn.postgres_us)),
            *(_number(each) for each in (turn.commits, turn.turns, turn.frames)),
            *(_number(each) for each in (turn.p50_ms, turn.p99_ms)),
            f"{turn.refused:,}",
        )
        before = turn
    for name in found.missing:
        shown.add_row("", name, "not installed")
    return shown


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def show(found: Found, plan: Plan) -> None:
    console = Console(width=WIDTH)
    console.print(machine(), highlight=False)
    for sessions in plan.sessions:
        console.print(table(found, sessions), highlight=False)
        console.print(
            f"One of the other frames costs the bare loop {found.frame_us[sessions]:.1f} µs a player. "
            "At rest, with all players connected, ms CPU a second: "
            + ", ".join(
                f"{name.rpartition(', ')[0]} {value:.1f}"
                for name, value in found.rest.items()
                if name.endswith(f", {sessions}")
            ),
            highlight=False,
        )
    console.print(f"{found.stored:,} answers acknowledged by nodes, each stored once.", highlight=False)
    for name, how in found.missing.items():
        console.print(f"{name} is not installed: {how}", highlight=False)


def plots(found: Found, sessions: int) -> tuple[str, str]:
    """Cost and latency by rate, as SVG files."""
    turns = [turn for turn in merged(found.turns) if turn.sessions == sessions]
    rates = sorted({turn.rate for turn in turns}, key=lambda rate: rate or 1_000_000)
    x = {rate: float(place) for place, rate in enumerate(rates)}
    ticks = [(place, at_rate(rate)) for rate, place in x.items()]
    names = list(dict.fromkeys(turn.server for turn in turns))

    def drawn(y_name: str, value: Callable[[Turn], float | None]) -> str:
        lines = []
        for name in names:
            found = [(x[turn.rate], value(turn)) for turn in turns if turn.server == name]
            lines.append(Line(name, sorted((place, y) for place, y in found if y is not None)))
        return svg_file(lines, Axes("answers", y_name, log_y=True, least_y=1, x_ticks=ticks))

    return (
        drawn("µs CPU an answer, net of other frames", lambda turn: turn.net),
        drawn("ms to the ack, p99", lambda turn: turn.p99_ms),
    )


def run(plan: Plan | None = None) -> list[Figure]:
    """As the other benchmarks have it."""
    found = measure(plan or Plan())
    figures = []
    for turn in merged(found.turns):
        at = f"{at_rate(turn.rate)}, {at_sessions(turn.sessions)}"
        figures.append(Figure(turn.server, at, turn.net_us, "µs CPU"))
        if turn.postgres_us is not None:
            figures.append(Figure(f"{turn.server}: PostgreSQL", at, turn.postgres_us, "µs CPU"))
        for part, value in (("p50", turn.p50_ms), ("p99", turn.p99_ms)):
            figures.append(Figure(f"{turn.server}: ack {part}", at, value, "ms"))
    return figures


def _rate(_context: object, _parameter: object, values: tuple[str, ...]) -> tuple[int, ...]:
    try:
        return tuple(AT_ONCE if value == "once" else int(value) for value in values)
    except ValueError:
        raise click.BadParameter("answers a second, or `once`") from None


@click.command()
@click.option(
    "--rate", "rates", multiple=True, callback=_rate, help="A second, or `once`.  [default: all six]"
)
@click.option("--sessions", multiple=True, type=click.IntRange(1), help="[default: 1 and 50]")
@click.option("--players", type=click.IntRange(1, 19_000), default=PLAYERS, show_default=True)
@click.option("--seconds", type=float, default=SECONDS, show_default=True, help="For which a rate goes on.")
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rooms/--no-rooms", "with_rooms", default=True, help="Quiz rooms on other libraries beside.")
@click.option(
    "--ticks-per-s", type=float, default=TICKS_PER_S, show_default=True, help="Of rooms, while people answer."
)
@click.option("--board", type=click.Choice(["at_close", "live"]), help="Of the node's sessions.")
@click.option("--node-option", "options", multiple=True, metavar="OPTION", help="For `fanfare serve`.")
@click.option(
    "--checkout",
    "checkouts",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    help="The node of another checkout of the project as well.",
)
@click.option(
    "--watched",
    is_flag=True,
    help="Four nodes instead: not watched, with metrics read every second, and traced to 1 and to 100 %.",
)
@click.option("--pin/--no-pin", default=True, help="A processor for the servers, another for the players.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here as well.")
@click.option(
    "--svg", "svg_stem", type=click.Path(path_type=Path), help="Write plots: this-SESSIONS-cost.svg …"
)
def main(
    rates: tuple[int, ...],
    sessions: tuple[int, ...],
    players: int,
    seconds: float,
    rounds: int,
    with_rooms: bool,
    ticks_per_s: float,
    board: str | None,
    options: tuple[str, ...],
    checkouts: tuple[Path, ...],
    watched: bool,
    pin: bool,
    json_file: Path | None,
    svg_stem: Path | None,
) -> None:
    """What an answer costs at any rate, beside a bare loop and others' libraries."""
    plan = Plan(
        rates or RATES_PER_S,
        sessions or SESSIONS,
        players,
        seconds,
        rounds,
        (rooms.PICOWS, rooms.WS) if with_rooms else (),
        ticks_per_s,
        {"board": board} if board else {},
        options,
        dict.fromkeys(WATCHES, ROOT)
        if watched
        else {NODE: ROOT} | {f"node of {each.name}": each for each in checkouts},
        WATCHES if watched else {},
        pin,
        WATCHED_SETTLE_S if watched else SETTLE_S,
    )
    started = time.monotonic()
    found = measure(plan)
    show(found, plan)
    click.echo(f"{time.monotonic() - started:.0f} s", err=True)
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": machine(), **asdict(found)}, indent=1), encoding="utf-8")
    for count in plan.sessions if svg_stem is not None else ():
        for what, text in zip(("cost", "ack"), plots(found, count), strict=True):
            svg_stem.with_name(f"{svg_stem.name}-{count}-{what}.svg").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
