"""Ten minutes at every door of a cluster of two nodes, and a neighbour who must not notice.

    python -m tests.fuzz
    python -m tests.fuzz --minutes 1 --seed 7 --door rows

One node carries WebSockets by the reactor, the other by trio-websocket. It ends with exit code 1 when a node
has ended, has logged a traceback or has answered with a status of 500 or a close code of 1011, when the
neighbour waits for over 50 ms at p99, or when an answer that it heard an ack of is not stored.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import click
import trio

from bench.attacks import missing_in
from bench.checkout import AUTHOR_KEY, ROOT, CheckoutNode, postgres
from bench.figures import machine, percentile
from bench.neighbour import SETTINGS, Place, neighbour, quiz
from engine.shards.embedded_redis import EmbeddedRedis
from server.cli.operate.sql import answers_of, psql_command
from tests.fuzz import doors as plain_doors
from tests.fuzz.doors import Nodes, Seen
from tests.fuzz.grammar import IDENTITY_SECRET, Grammar
from tests.fuzz.hub_doors import HUB_DOORS

DOORS = {**plain_doors.DOORS, **HUB_DOORS}
TRANSPORTS = ("reactor", "trio-websocket")
CLUSTER = "fanfare"
PER_S = 20.0
"""Attempts at each door."""

QUESTION_S = 4.0
BOUND_MS = 50.0
EXAMPLES_MAX = 5
SETTLE_S = 2.0


@dataclass
class Found:
    """All that came of it. `faults` are sentences."""

    doors: dict[str, Seen] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    waits: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    """By kind of neighbour: how many acks, and p50 and p99 in milliseconds."""
    acked: int = 0


async def fuzz(
    minutes: float,
    seed: int,
    doors: Sequence[str] = tuple(DOORS),
    checkout: Path = ROOT,
    per_s: float = PER_S,
) -> Found:
    """Nodes of their own, a neighbour, and attempts at each of the doors."""
    found = Found()
    async with postgres() as (directory, dsn):
        redis = EmbeddedRedis(directory / "redis")
        await trio.to_thread.run_sync(redis.start)
        secret = secrets.token_hex(16)
        nodes = [
            CheckoutNode(
                checkout,
                directory / f"node-{place + 1}",
                [
                    *(
                        "--database-url",
                        dsn,
                        "--redis-url",
                        redis.url,
                        "--identity",
                        "optional",
                        "--identity-secret",
                        IDENTITY_SECRET,
                        "--secret",
                        secret,
                        "--cluster",
                        CLUSTER,
                    ),
                    *("--node", f"node-{place + 1}", "--transport", transport, "--session-idle-s", "1"),
                ],
            )
            for place, transport in enumerate(TRANSPORTS)
        ]
        for node in nodes:
            node.options = [*node.options, "--link-port", str(node.ports[2])]
        try:
            for node in nodes:
                await node.start()
            await _fuzz_nodes(found, nodes, dsn, redis.url, secret, minutes, seed, doors, per_s)
        finally:
            with trio.CancelScope(shield=True):
                for node in nodes:
                    if await node.stop() != 0:
                        found.faults.append(f"{node.data_dir.name} has not ended well")
                await trio.to_thread.run_sync(redis.stop)
        for node in nodes:
            found.faults += _tracebacks(node)
    for name, seen in found.doors.items():
        found.faults += [f"{name}: {each}" for each in seen.faults[:EXAMPLES_MAX]]
    return found


async def _fuzz_nodes(
    found: Found,
    nodes: Sequence[CheckoutNode],
    dsn: str,
    redis_url: str,
    secret: str,
    minutes: float,
    seed: int,
    doors: Sequence[str],
    per_s: float,
) -> None:
    async with nodes[0].api() as api:
        await api.add_quiz(quiz(QUESTION_S), "neighbour")
        await api.add_quiz(quiz(), "fuzz")
        made = await api.create_session("neighbour", SETTINGS)
        while made["ws_url"] != nodes[0].ws_url:
            made = await api.create_session("neighbour", SETTINGS)
        keys, tokens = [], []
        for place in range(6):
            victim = await api.create_session("fuzz", {"pace": "host" if place % 2 else "auto"})
            keys += [victim["code"], victim["session_id"]]
            tokens += [victim["host_token"], (await api.join(victim["code"], "Victim"))["token"]]
        await api.host(made["code"], made["host_token"], "s", "start")
    where = Nodes(
        [node.ports for node in nodes],
        [await _run_of(dsn, node.data_dir.name) for node in nodes],
        secret,
        dsn,
        urlsplit(redis_url).path,
        CLUSTER,
        keys[1],
    )
    with neighbour(Place(nodes[0].ports[0], nodes[0].realtime_port, made["code"])) as played:
        await trio.sleep(SETTLE_S)
        played.heard()
        with trio.move_on_after(minutes * 60):
            async with trio.open_nursery() as nursery:
                for number, name in enumerate(doors):
                    found.doors[name] = Seen()
                    grammar = Grammar(seed * 1_000 + number, keys, tokens, AUTHOR_KEY)
                    nursery.start_soon(_knock, name, grammar, where, found.doors[name], per_s)
                while all(node.alive for node in nodes):  # noqa: ASYNC110 - other processes
                    await trio.sleep(0.5)
                nursery.cancel_scope.cancel()
        found.faults += [f"{node.data_dir.name} has ended" for node in nodes if not node.alive]
        heard = played.heard()
        for kind, waits_ms in heard.waits_ms.items():
            found.waits[kind] = (len(waits_ms), percentile(waits_ms, 0.5), percentile(waits_ms, 0.99))
        found.faults += [f"the neighbour lost its connection: {kind} {n}" for kind, n in heard.lost.items()]
        ledger = played.ledger()
        found.acked = len(ledger)
    rows = await answers_of(dsn, [made["session_id"]])
    if missing := missing_in(ledger, rows.get(made["session_id"], [])):
        found.faults.append(
            f"{missing} of {len(ledger)} acknowledged answers of the neighbour are not stored"
        )


async def _knock(name: str, grammar: Grammar, nodes: Nodes, seen: Seen, per_s: float) -> None:
    due = trio.current_time()
    while True:
        await trio.sleep_until(due)
        due = max(due + 1 / per_s, trio.current_time() - 1.0)
        try:
            await DOORS[name](grammar, nodes, seen)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as exc:
            seen.said[type(exc).__name__] += 1


async def _run_of(dsn: str, name: str) -> str:
    """The run that the node is now."""
    query = f"SELECT node FROM nodes WHERE node LIKE '{name}-%' ORDER BY alive_at DESC LIMIT 1;"
    done = await trio.run_process(psql_command(dsn), stdin=query.encode(), capture_stdout=True)
    return done.stdout.decode().strip()


def _tracebacks(node: CheckoutNode) -> list[str]:
    parts = node.log.read_text(errors="replace").split("Traceback (most recent call last)")
    said = [
        f"{before.strip().splitlines()[-1][-200:]} … {after[:1_500]}"
        for before, after in itertools.pairwise(parts)
    ]
    found = [f"{node.data_dir.name} has logged a traceback: {each}" for each in said[:EXAMPLES_MAX]]
    return found + ([f"{len(said)} tracebacks in all"] if len(said) > EXAMPLES_MAX else [])


@click.command()
@click.option("--minutes", type=float, default=10.0, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--door", "doors", multiple=True, type=click.Choice(list(DOORS)), help="[default: all]")
@click.option("--per-s", type=float, default=PER_S, show_default=True, help="Attempts a second at each door.")
@click.option(
    "--checkout",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    default=ROOT,
    help="Run the nodes of another checkout of the project.  [default: this one]",
)
@click.option(
    "--bound-ms", default=BOUND_MS, show_default=True, help="How long the neighbour may wait at p99."
)
def main(
    minutes: float, seed: int, doors: tuple[str, ...], per_s: float, checkout: Path, bound_ms: float
) -> None:
    """Knock at every door of two nodes."""
    found = trio.run(fuzz, minutes, seed, doors or tuple(DOORS), checkout, per_s)
    print(f"{machine()}\nseed {seed}, {minutes:g} minutes\n\n| door | what was said |\n|---|---|")
    for name, seen in found.doors.items():
        print(f"| {name} | {', '.join(f'{what} {n:,}' for what, n in seen.said.most_common(12))} |")
    print("\n| neighbour | acks | p50, ms | p99, ms |\n|---|---|---|---|")
    slow = []
    for kind, (count, p50, p99) in found.waits.items():
        print(f"| {kind} | {count:,} | {p50:.1f} | {p99:.1f} |")
        slow += [f"{kind}: p99 {p99:.0f} ms"] if p99 > bound_ms else []
    print(f"\n{found.acked:,} answers of the neighbour acknowledged")
    for sentence in [*found.faults, *slow]:
        print(f"FAULT {sentence}")
    raise SystemExit(1 if found.faults or slow else 0)


if __name__ == "__main__":
    main()
