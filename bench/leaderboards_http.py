"""How long an app waits for a leaderboard over sessions, by HTTP, while users play.

A cluster of two nodes with PostgreSQL and Redis, a leaderboard of many users, and waves of self-paced
sessions whose players come into it. Beside them, somebody asks at a steady rate, as a user: for the first ten
with the own place, and for a page of 100 from anywhere. A question counts from the moment when it was due.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import trio

from bench.figures import Figure, percentile
from engine.aio import open_asyncio
from engine.storage.postgres import Database
from loadtest.chaos.timeline import AckTimeline
from loadtest.chaos.waves import IDENTITY_SECRET, Load, Waves
from loadtest.swarm.crowd import Signing
from server.cli.chaos.stage import Stage, staged

USERS_BEFORE = 100_000
PLAYERS = 300
SECONDS = 40.0
RATE_PER_S = 25.0
TOP = "top=10&around=me"
DEEP = "top=100&skip={skip}"

_BOARD = (
    "INSERT INTO leaderboards (rule, quiz_id, period, starts_on) VALUES ('best', '', 'all', '1970-01-01')"
)
_ENTRIES = """
INSERT INTO leaderboard_entries (board, user_id, score, elapsed_ms, reached_at)
SELECT (SELECT id FROM leaderboards WHERE quiz_id = '' AND period = 'all'), 'before-' || n,
       n::bigint * 48271 % 20000, n::bigint * 7919 % 400000, now() - n * interval '1 s'
FROM generate_series(1, $1::int) AS n
"""
_NAMES = """
INSERT INTO user_scores
    (session_id, user_id, quiz_id, name, score, correct, answered, elapsed_ms, finished_at)
SELECT gen_random_uuid(), user_id, 'before', user_id, score, 20, 20, elapsed_ms, reached_at
FROM leaderboard_entries
"""


@dataclass
class Asker:
    """One connection, which asks again and again."""

    stage: Stage
    users: int
    times_ms: dict[str, list[float]] = field(default_factory=dict)

    async def run(self, what: str, rate_per_s: float) -> None:
        rng, signing = Random(what), Signing(IDENTITY_SECRET, "before-")
        tokens = [signing.identify(str(rng.randint(1, self.users))) for _ in range(50)]
        due, times_ms = trio.current_time(), self.times_ms.setdefault(what, [])
        host, port = self.stage.url.removeprefix("http://").split(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            while True:
                await trio.sleep_until(due)
                query = what.format(skip=rng.randrange(9_000))
                await stream.send_all(
                    f"GET /api/leaderboards/all?period=all&{query} HTTP/1.1\r\nHost: {host}:{port}\r\n"
                    f"Authorization: Bearer {rng.choice(tokens)}\r\n\r\n".encode()
                )
                await _response(stream)
                times_ms.append(1e3 * (trio.current_time() - due))
                due += 1 / rate_per_s


async def _response(stream: trio.abc.ReceiveStream) -> None:
    """Read one, which has to be good."""
    data = bytearray()
    while b"\r\n\r\n" not in data:
        data += await stream.receive_some()
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), data
    [length] = [
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    ]
    while len(body) < length:
        body += await stream.receive_some()


async def fill(dsn: str, users: int) -> None:
    async with open_asyncio(), Database.open(dsn, statement_timeout_s=300.0) as database:
        for sql, *arguments in ((_BOARD,), (_ENTRIES, users), (_NAMES,), ("TRUNCATE score_changes",)):
            await database.execute(str(sql), *arguments)
        await database.execute("VACUUM ANALYZE leaderboard_entries")
        await database.execute("VACUUM ANALYZE user_scores")


def figures(times_ms: dict[str, list[float]], at: str) -> list[Figure]:
    named = {TOP: "first ten and own place", DEEP: "page of 100"}
    return [
        Figure(f"{named[what]}, p{percent}", at, percentile(each, percent / 100), "ms")
        for what, each in times_ms.items()
        for percent in (50, 99)
    ]


async def ask_for(stage: Stage, users: int, seconds: float) -> dict[str, list[float]]:
    asker = Asker(stage, users)
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for what in (TOP, DEEP):
                nursery.start_soon(asker.run, what, RATE_PER_S / 2)
    return asker.times_ms


async def measure(directory: Path, users: int, players: int, seconds: float) -> list[Figure]:
    found: list[Figure] = []
    async with staged(directory, nodes=2) as stage:
        await fill(stage.database, users)
        await ask_for(stage, users, 5.0)  # the sorted set is filled meanwhile
        found += figures(await ask_for(stage, users, seconds / 2), f"{users:,} users, nobody plays")
        timeline = AckTimeline()
        load = Load(players=players, slots=3, questions=10, own_share=1.0)
        apis = [stage.api(node) for node in range(2)]
        async with apis[0], apis[1]:
            waves = Waves(apis, stage.ws_urls, load, 1, timeline, directory)
            await waves.add_quiz()
            began = trio.current_time()
            async with trio.open_nursery() as playing:
                playing.start_soon(waves.run, lambda: trio.current_time() < began + seconds + 10)
                await trio.sleep(10.0)
                acks_before = timeline.acks
                times_ms = await ask_for(stage, users, seconds)
                rate = (timeline.acks - acks_before) / seconds
        found += figures(times_ms, f"{users:,} users, {players} play, {rate:.0f} answers/s")
    return found


def run(users: int = USERS_BEFORE, players: int = PLAYERS, seconds: float = SECONDS) -> Sequence[Figure]:
    with tempfile.TemporaryDirectory(prefix="fanfare-") as directory:
        return trio.run(partial(measure, Path(directory), users, players, seconds))
