"""What a well-behaved neighbour notices while somebody attacks its node, and what the attacker gets.

    python -m bench.attacks
    python -m bench.attacks --attack guesses --attack seats
    python -m bench.attacks --checkout ../before

For each attack a node is started anew, with the settings that it has by itself, beside one PostgreSQL. The
neighbour plays for a while, and then goes on playing during the attack. On a machine with several cores the
node has one of them for itself; PostgreSQL, neighbour and attacker share another, the attacker with what the
others leave of it. So what is measured is what the node does with its time. A table in Markdown is printed.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import trio

from bench.attackers import ALONE, ATTACKS, Target, attacked
from bench.checkout import ROOT, CheckoutNode, postgres
from bench.figures import machine, percentile
from bench.neighbour import KINDS, SETTINGS, CompactLedger, Heard, Place, neighbour, quiz
from loadtest.client.api import ApiUnreachable
from server.cli.operate.sql import answers_of, psql_command
from tests.settings import AT_ONCE

WARM_S = 3.0
HUGE_PLAYERS = 50_000
SEATS_MAX = 10_000
BOUND_MS = 50.0
"""What the neighbour's p99 is to stay under."""


@dataclass(frozen=True, slots=True)
class Found:
    """One attack."""

    name: str
    heard: Heard
    got: dict[str, int]
    alive: bool
    answers: bool
    """Whether its API still does, to somebody new."""
    memory_mb: float
    cpu_share: float
    tracebacks: int
    acked: int
    missing: int

    @property
    def holds(self) -> bool:
        return self.alive and self.answers and not self.missing

    def waits(self, kind: str) -> str:
        values = self.heard.waits_ms.get(kind, [])
        if not values:
            return "none"
        return f"{percentile(values, 0.5):,.1f} / {percentile(values, 0.99):,.1f}"

    def row(self) -> str:
        lost = ", ".join(f"{kind} {n}" for kind, n in (self.heard.lost + self.heard.refused).items())
        got = ", ".join(f"{what} {n:,}" for what, n in self.got.items())
        state = "**dead**" if not self.alive else "yes" if self.answers else "**yes, its API is mute**"
        stored = f"{self.acked:,}" if not self.missing else f"{self.acked:,}, **{self.missing:,} not stored**"
        cells = [self.name, *(self.waits(kind) for kind in KINDS), lost or "-", got or "-", state]
        cells += [f"{self.memory_mb:+,.0f} MiB", f"{self.cpu_share:.0%}", f"{self.tracebacks}", stored]
        return f"| {' | '.join(cells)} |"


HEAD = (
    *("attack", *(f"{kind}: p50 / p99, ms" for kind in KINDS)),
    *(
        "neighbour lost or refused",
        "attacker got",
        "node lives",
        "memory",
        "CPU",
        "tracebacks",
        "acks stored",
    ),
)


async def _huge_session(node: CheckoutNode, dsn: str) -> tuple[str, str]:
    """The id of a session of many players that was over long ago, and the token of one of them."""
    async with node.api() as api:
        asked = quiz()
        asked["questions"] = asked["questions"][:1]
        await api.add_quiz(asked, "huge")
        made = await api.create_session("huge", AT_ONCE)
        joined = await api.join(made["code"], "First")
        await api.host(made["code"], made["host_token"], "s", "start")
        await api.answer(made["code"], joined["token"], "a", 1, 0)
        await api.host(made["code"], made["host_token"], "f", "finish")
    session = str(uuid.UUID(made["session_id"]))
    await _sql(
        dsn,
        f"""
        INSERT INTO players (session_id, player, name, joined_at, seq)
        SELECT session_id, n, 'Player ' || n, joined_at, 1000 + n
        FROM players, generate_series(2, {HUGE_PLAYERS}) AS n WHERE session_id = '{session}' AND player = 1;
        INSERT INTO answers (session_id, question, player, seq, choice, elapsed_ms, correct, points, at)
        SELECT session_id, question, n, 100000 + n, choice, n % 1000, true, 1000 - n % 1000, at
        FROM answers, generate_series(2, {HUGE_PLAYERS}) AS n WHERE session_id = '{session}' AND player = 1;
        UPDATE sessions SET finished_at = finished_at - interval '1 hour',
            created_at = created_at - interval '2 hours' WHERE id = '{session}';
        ANALYZE;
        """,
    )
    return session, joined["token"]


async def _sql(dsn: str, statements: str) -> None:
    await trio.run_process(psql_command(dsn), stdin=statements.encode())


async def measure(
    node: CheckoutNode, dsn: str, name: str, huge: tuple[str, str], seconds: float, beside: int | None
) -> Found:
    """One attack on a node that runs.

    Args:
        beside: the only processor for neighbour and attacker; None: any.
    """
    async with node.api() as api:
        await api.add_quiz(quiz(), "neighbour")
        made = await api.create_session("neighbour", SETTINGS)
        victim = await api.create_session("neighbour", {"player_limit": SEATS_MAX})
        await api.host(made["code"], made["host_token"], "s", "start")
    place = Place(node.ports[0], node.realtime_port, made["code"])
    target = Target(node.ports[0], node.realtime_port, victim["code"], *huge)
    with neighbour(place, beside) as played:
        await trio.sleep(WARM_S)
        played.heard()
        said, memory_mb, cpu_s = node.log.stat().st_size, node.memory_mb, node.cpu_s()
        began = trio.current_time()
        got = await trio.to_thread.run_sync(attacked, name, target, seconds, beside)
        heard = played.heard()
        took_s = trio.current_time() - began
        alive, more_mb, used_s = node.alive, node.memory_mb - memory_mb, node.cpu_s() - cpu_s
        answers = alive and await _answers(node)
        ledger = played.ledger()
    stored = await answers_of(dsn, [made["session_id"]])
    missing = missing_in(ledger, stored.get(made["session_id"], []))
    said_since = node.log.read_bytes()[said:].decode(errors="replace")
    return Found(
        name,
        heard,
        got,
        alive,
        answers,
        more_mb if alive else 0.0,
        used_s / took_s if alive else 0.0,
        said_since.count("Traceback (most recent call last)"),
        len(ledger),
        missing,
    )


def missing_in(ledger: CompactLedger, rows: Sequence[Any]) -> int:
    """Acknowledged answers that are not stored with the time that the player was told."""
    stored = {(row.player, row.question): row.elapsed_ms for row in rows}
    return sum(stored.get(key) != elapsed_ms for key, elapsed_ms in ledger.items())


async def _answers(node: CheckoutNode) -> bool:
    async with node.api() as api:
        with trio.move_on_after(5):
            try:
                await api.readiness()
            except ApiUnreachable:
                return False
            return True
    return False


async def measure_all(
    names: Sequence[str], checkout: Path, options: Sequence[str], seconds: float, pin: bool
) -> list[Found]:
    first, beside = (0, 1) if pin and (os.cpu_count() or 1) > 1 else (None, None)
    found = []
    async with postgres(beside) as (directory, dsn):
        node = CheckoutNode(checkout, directory / "node", ["--database-url", dsn, *options], first)
        try:
            await node.start()
            huge = await _huge_session(node, dsn)
            for name in names:
                await node.stop()
                await node.start()
                click.echo(f"{name} …", err=True)
                each = await measure(node, dsn, name, huge, seconds, beside)
                click.echo(each.row(), err=True)
                found.append(each)
        finally:
            with trio.CancelScope(shield=True):
                await node.stop()
    return found


@click.command()
@click.option("--attack", "names", multiple=True, type=click.Choice(list(ATTACKS)), help="[default: all]")
@click.option("--seconds", type=float, default=10.0, show_default=True, help="Of each attack.")
@click.option(
    "--checkout",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    default=ROOT,
    help="Run the node of another checkout of the project.  [default: this one]",
)
@click.option("--node-option", "options", multiple=True, metavar="OPTION", help="For `fanfare serve`.")
@click.option("--pin/--no-pin", default=True, help="The node has a processor for itself.  [default: pin]")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the samples here as well.")
def main(
    names: tuple[str, ...],
    seconds: float,
    checkout: Path,
    options: tuple[str, ...],
    pin: bool,
    json_file: Path | None,
) -> None:
    """Attack a node that a well-behaved neighbour plays on."""
    found = trio.run(measure_all, names or list(ATTACKS), checkout, options, seconds, pin)
    print(f"{machine()}\nAttacks from {ALONE} and 127.0.2.x, {seconds:g} s each\n")
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for each in found:
        print(each.row())
    if json_file is not None:
        told = {each.name: {"waits_ms": each.heard.waits_ms, "got": each.got} for each in found}
        json_file.write_text(json.dumps(told), encoding="utf-8")
    raise SystemExit(0 if all(each.holds for each in found) else 1)


if __name__ == "__main__":
    main()
