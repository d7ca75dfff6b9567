"""docs/embedding.md: its backend and its client run as they stand there, against a node."""

from __future__ import annotations

import itertools
import re
import threading
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import trio

from engine.actors.clock import SessionClock
from engine.storage.catalog import PostgresCatalog
from engine.storage.journal.writer import WriteBehind
from engine.storage.postgres import Database
from engine.storage.sessions import PostgresSessionStore
from server.realtime.conversation import ConversationDeps
from server.realtime.reactor.transport import ReactorTransport
from server.scores import Scores
from server.security.identities import open_identities
from tests.http.edge import LOOPBACK, Edge, edge
from tests.identities import NOW_S
from tests.realtime.rig import ListeningPort

PAGE = Path(__file__).parent.parent.joinpath("docs/embedding.md").read_text("utf-8")


def block(language: str, begins: str = "") -> str:
    """The block of code on the page that begins with this text."""
    [found] = re.findall(rf"```{language}\n({re.escape(begins)}.*?)```", PAGE, re.DOTALL)
    return str(found)


def module_of(begins: str) -> dict[str, Any]:
    """What a module of the page has."""
    module: dict[str, Any] = {"__name__": "app"}
    exec(compile(block("python", begins), "docs/embedding.md", "exec"), module)
    return module


@pytest.fixture
def backend() -> Iterator[tuple[str, dict[str, Any]]]:
    """Its address, and what its module has."""
    module = module_of('"""The backend')
    module["time"] = SimpleNamespace(time=lambda: NOW_S)
    module["App"].log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), module["App"])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", module
    server.shutdown()
    thread.join()
    server.server_close()


async def test_two_users_of_the_app_play_on_whatever_device(
    backend: tuple[str, dict[str, Any]], nursery: trio.Nursery
) -> None:
    url, module = backend
    settings = {**tomllib.loads(block("toml")), "identity_jwks": f"{url}/.well-known/jwks.json"}
    async with edge(**settings) as e:
        identities, ring = open_identities(e.config, e.clock)
        assert ring is not None
        await nursery.start(ring.run)
        e.but(identities=identities)
        session = await e.session()
        async with httpx.AsyncClient() as app:
            assert (await app.get(f"{url}/identity")).status_code == 401
            for cookie, player, name in (
                ("cookie-of-ada", 1, "Ada"),
                ("cookie-of-ben", 2, "Ben"),
                ("cookie-of-ada", 1, "Ada"),
            ):
                token = (await app.get(f"{url}/identity", headers={"Cookie": cookie})).json()["identity"]
                joined = await e.post(f"{session.url}/players", {}, token=token)
                assert (joined.status, joined.json["player_id"], joined.json["name"]) == (201, player, name)
            around = (await e.get(f"{session.url}/leaderboard?around=me", token=token)).json["around"]
            assert [line["id"] for line in around] == [1, 2], "no other token is needed"
        assert len(ring) == 1
        module["KEY_ID"] = "no longer here"
        assert len((await session.actor()).session.players) == 2
    nursery.cancel_scope.cancel()


async def test_an_address_that_gives_no_keys(backend: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    from server.security.key_ring import BYTES_MAX, KeysUnavailable, loader

    url, module = backend
    file = tmp_path / "keys.json"
    file.write_bytes(b"x" * (BYTES_MAX + 5))
    assert len(await loader(str(file))()) == BYTES_MAX
    module["key_set"] = lambda: "x" * (BYTES_MAX + 1)
    for source, why in (
        (f"{url}/nothing", "status 401"),
        (f"{url}/.well-known/jwks.json", "more than"),
        ("http://127.0.0.1:9/", "connection|attempts"),
        (str(tmp_path / "none.json"), "No such file"),
    ):
        with pytest.raises(KeysUnavailable, match=why):
            await loader(source)()


# -- three days ----------------------------------------------------------------------------------------

QUIZ: dict[str, Any] = {
    "title": "Colours",
    "questions": [
        {
            "type": "single",
            "text": text,
            "choices": ["red", "green", "blue"],
            "correct": right,
            "points": points,
        }
        for text, right, points in (("Blood?", "red", 1000), ("Grass?", "green", 500), ("Sky?", "blue", 2000))
    ],
}
RIGHT = {question["text"]: question["correct"] for question in QUIZ["questions"]}
ALONE = {
    "pace": "self",
    "open_ms": 4 * 86_400_000,
    "untimed": True,
    "reveal": "end",
    "shuffle_questions": True,
    "shuffle_choices": True,
}

BOARD = """
WITH plays AS (
    SELECT p.user_id, sum(coalesce(a.points, 0)) AS score, sum(coalesce(a.elapsed_ms, 0)) AS elapsed_ms
    FROM session_changes c JOIN players p ON p.session_id = c.session_id AND p.player = c.player
    JOIN sessions s ON s.id = p.session_id
    LEFT JOIN answers a ON a.session_id = p.session_id AND a.player = p.player
    WHERE c.kind = 'done' AND ($1::date IS NULL OR (c.at AT TIME ZONE 'UTC')::date = $1)
          AND $2 IN ('all', s.quiz_id)
    GROUP BY p.session_id, p.player, p.user_id
)
SELECT user_id, sum(score)::int AS score, sum(elapsed_ms)::int AS elapsed_ms FROM plays
GROUP BY user_id ORDER BY score DESC, elapsed_ms
"""
"""The sum of all plays that were through on a day, or ever, of a quiz or of all, from the facts alone."""


class Days:
    """The wall clock of a node: noon, some days ago at first."""

    def __init__(self, ago: int) -> None:
        self.now = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(ago)
        self.clock = SessionClock(self._wall_ms)

    def _wall_ms(self) -> int:
        return int(self.now.timestamp() * 1000)

    def pass_one(self) -> None:
        self.now += timedelta(1)
        self.clock.catch_up()


def answers(until: int, wrong: str = "") -> Callable[[dict[str, Any]], int | None]:
    """Chooses what is right, but for the question `wrong`, up to the question at the place `until`."""

    def choose(step: dict[str, Any]) -> int | None:
        if step["number"] > until:
            return None
        place = step["choices"].index(RIGHT[step["text"]])
        return (place + 1) % 3 if step["text"] == wrong else place

    return choose


async def test_two_users_come_back_on_three_days_on_two_devices(
    backend: tuple[str, dict[str, Any]], database: Database, nursery: trio.Nursery
) -> None:
    url, module = backend
    client = module_of('"""The client')
    days = Days(ago=2)
    module["time"] = SimpleNamespace(time=lambda: days.now.timestamp())
    settings = {**tomllib.loads(block("toml")), "identity_jwks": f"{url}/.well-known/jwks.json"}
    catalog = PostgresCatalog(database, days.clock.now_ms)
    journal = WriteBehind(database, owner="node", now_ms=days.clock.now_ms)
    await nursery.start(journal.run)
    async with edge(
        lambda catalog: PostgresSessionStore(database, catalog),
        clock=days.clock,
        catalog=catalog,
        journal=journal,
        **settings,
    ) as e:
        identities, ring = open_identities(e.config, e.clock)
        assert ring is not None
        await nursery.start(ring.run)
        scores = Scores(database, rule="sum", zone="UTC")
        e.but(identities=identities, scores=scores)
        limits = e.config.messages_per_s, e.config.messages_burst
        deps = ConversationDeps(
            e.router, e.tokens, e.clock, e.services.attempts, *limits, identities=identities
        )
        port = ListeningPort(ReactorTransport(deps, e.config))
        await nursery.start(port.serve)
        transport = httpx.ASGITransport(e.app, client=LOOPBACK)  # type: ignore[arg-type]
        async with (
            httpx.AsyncClient() as app,
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:5001") as http,
        ):

            async def token(user: str) -> str:
                found = await app.get(f"{url}/identity", headers={"Cookie": f"cookie-of-{user}"})
                return str(found.json()["identity"])

            async def phone(user: str, code: str, choose: Any) -> Any:
                ws_url = f"ws://127.0.0.1:{port.port}/ws"
                return await client["by_websocket"](ws_url, code, await token(user), choose)

            async def laptop(user: str, code: str, choose: Any) -> Any:
                return await client["by_requests"](http, code, await token(user), choose)

            # Ada goes through each day's quiz on the day. Ben goes on with the first one on the second day,
            # leaves that day's out, and has time for the last one.
            first = await e.session(QUIZ, **ALONE)
            assert await phone("ada", first.code, answers(1)) is None
            assert (await laptop("ada", first.code, answers(3)))["score"] == 3500
            assert await laptop("ben", first.code, answers(2)) is None
            await the_boards_are_those_of_the_facts(e, token, database, days)
            days.pass_one()
            second = await e.session(QUIZ, **ALONE)
            assert (await phone("ben", first.code, answers(3, wrong="Grass?")))["done"]
            assert await laptop("ada", second.code, answers(2)) is None
            end = await phone("ada", second.code, answers(3, wrong="Sky?"))
            assert end["players"] == 1
            await the_boards_are_those_of_the_facts(e, token, database, days)
            days.pass_one()
            third = await e.session(QUIZ, **ALONE)
            for user, one, other in (("ada", phone, laptop), ("ben", laptop, phone)):
                assert await one(user, third.code, answers(2, wrong="Blood?")) is None
                assert await other(user, third.code, answers(3)) == await one(user, third.code, answers(0))
            await the_boards_are_those_of_the_facts(e, token, database, days)

            own = {}
            for user in ("ada", "ben"):
                own[user] = (await e.get("/api/users/me/scores", token=await token(user))).json
            plays = await database.fetch(
                "SELECT user_id, a.session_id::text, sum(points)::int AS score, count(*)::int AS answered, "
                "count(*) FILTER (WHERE correct)::int AS correct FROM answers a "
                "JOIN players p ON p.session_id = a.session_id AND p.player = a.player GROUP BY 1, 2"
            )
            for user, user_id in (("ada", "user-1001"), ("ben", "user-1002")):
                theirs = {row["session_id"]: row for row in plays if row["user_id"] == user_id}
                assert {
                    each["session_id"]: (each["score"], each["answered"], each["correct"])
                    for each in own[user]["scores"]
                } == {key: (row["score"], row["answered"], row["correct"]) for key, row in theirs.items()}
                for name in ("score", "answered", "correct"):
                    assert own[user]["totals"][name] == sum(row[name] for row in theirs.values())
            ada, ben = own["ada"]["totals"], own["ben"]["totals"]
            assert (ada["plays"], ada["days"], ada["days_best"]) == (3, 3, 3)
            assert (ben["plays"], ben["days"], ben["days_best"]) == (2, 2, 2)
            assert len(own["ada"]["scores"]) == 3
        await port.stop()
    nursery.cancel_scope.cancel()


async def the_boards_are_those_of_the_facts(e: Edge, token: Any, database: Database, days: Days) -> None:
    """Today's leaderboard and that of all time, over all quizzes and of each."""
    await e.services.scores.look()
    me = await token("ada")
    quizzes = [row["quiz_id"] for row in await database.fetch("SELECT DISTINCT quiz_id FROM sessions")]
    periods = (("day", days.now.date()), ("all", None))
    for quiz, (period, day) in itertools.product(("all", *quizzes), periods):
        facts = await database.fetch(BOARD, day, quiz)
        query = f"/api/leaderboards/{quiz}?period={period}&date={days.now.date()}&around=me"
        shown = (await e.get(query, token=me)).json
        lines = [(line["name"], line["score"], line["elapsed_ms"]) for line in shown["top"]]
        names = {"user-1001": "Ada", "user-1002": "Ben"}
        assert lines == [(names[row["user_id"]], row["score"], row["elapsed_ms"]) for row in facts]
        assert lines or quiz != "all"
        if quiz == "all" or "Ada" in [name for name, *_ in lines]:
            assert [line["name"] for line in shown["around"] if line["me"]] == ["Ada"]
