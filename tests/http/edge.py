"""A node's HTTP edge over storage in memory, and a client that holds every answer against openapi.json."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import orjson
import trio
from openapi_schema_validator import OAS31Validator

from engine.actors.actor import SessionActor
from engine.actors.clock import SessionClock
from engine.latency import Latency, Signs
from engine.ports import StorageUnavailable
from engine.storage.journal.retained import RetainedStatistics
from engine.storage.journal.writer import WriteBehindStatistics
from engine.storage.postgres import Database, Row
from engine.storage.spool.journal import SpoolingStatistics
from server.config.config import Config
from server.http.app import Api, create_app, openapi_json
from server.http.routes import ROUTES
from server.http.services import Services
from server.realtime.transport import Tally, TransportStatistics
from server.runtime.gc_policy import Collector
from server.runtime.loop_watch import LoopWatch
from server.scores import Scores
from server.security.identities import open_identities
from server.security.limits import Attempts
from server.security.tokens import Tokens
from tests.fakes import MemoryCatalog, MemoryJournal, MemorySessionStore
from tests.lone_node import LoneNode, options_of
from tests.settings import AT_ONCE

START_MS = 1_700_000_000_000
LOOPBACK = ("127.0.0.1", 50_000)
PLAY_URL = "http://127.0.0.1:5002"
OUTSIDE = ("203.0.113.9", 50_000)
AUTHOR_KEY = "made-by-the-node"
AUTHORING = re.compile(
    r"/api/(quizzes|cluster|ops$|ops/events$|sessions(\?.*)?$|sessions/[^/]+/(players\?|results|players$))"
)

QUIZ: dict[str, Any] = {
    "title": "Capitals",
    "questions": [
        {
            "type": "single",
            "text": f"Capital number {n}?",
            "choices": ["right", "wrong", "other"],
            "correct": "right",
        }
        for n in (1, 2)
    ],
}


MakeStore = Callable[[MemoryCatalog], Any]
"""A store of sessions over a catalog."""


class NoDatabase:
    """Stands in for a PostgreSQL that is away."""

    async def fetchrow(self, sql: str, *args: object) -> Row | None:
        raise StorageUnavailable

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        raise StorageUnavailable


class Journal(MemoryJournal):
    """With the snapshot that the real one gives."""

    latency: Latency
    acknowledging = False
    spooling: SpoolingStatistics | None = None

    problem: str | None = None
    database_signs = Signs()

    def database_problem(self) -> str | None:
        return self.problem

    def why_full(self) -> str | None:
        return None if self.has_room() else "the journal is full"

    def acknowledges_without_postgres(self) -> bool:
        return self.acknowledging

    def statistics(self) -> WriteBehindStatistics:
        return WriteBehindStatistics(
            queued=self.queued,
            committed_total=0,
            batches_total=self.commits_total,
            fenced_total=0,
            retries_total=3,
            last_commit_s=0.004,
            latency=self.latency.statistics(),
            healthy=True,
            spooling=self.spooling,
            retained=RetainedStatistics(),
        )


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"]["code"])

    @property
    def path(self) -> object:
        return self.json["error"].get("path")

    @property
    def message(self) -> str:
        return str(self.json["error"]["message"])


class Edge:
    """Requests go straight to the app; `peer` is the address they seem to come from."""

    def __init__(
        self,
        nursery: trio.Nursery,
        config: Config,
        store: MakeStore,
        *,
        clock: SessionClock | None = None,
        catalog: Any = None,
        journal: Any = None,
    ) -> None:
        self.config = config
        self.clock = clock or SessionClock(START_MS)
        self.catalog = catalog or MemoryCatalog(START_MS)
        self.store = store(self.catalog)
        if journal is None:
            journal = Journal(self.store)
            journal.latency = Latency()
        self.journal = journal
        self.author_key = config.author_key or AUTHOR_KEY
        self.tokens = Tokens(b"0123456789abcdef", config.token_ttl_s, self.clock)
        self.numbers = itertools.count(1)
        self.tally = Tally()
        node = LoneNode(
            nursery,
            store=self.store,
            catalog=self.catalog,
            journal=self.journal,
            tokens=self.tokens,
            clock=self.clock,
            options=options_of(config),
            numbers=self.numbers,
        )
        self.registry, self.router, self.actor = node.registry, node.router, node.get
        self.services = Services(
            config=config,
            clock=self.clock,
            registry=self.registry,
            directory=self.router,
            store=self.store,
            catalog=self.catalog,
            journal=self.journal,
            tokens=self.tokens,
            author_key=self.author_key,
            identities=open_identities(config, self.clock)[0],
            attempts=Attempts(config.attempts_per_min),
            loop_watch=LoopWatch(),
            collector=Collector(lambda: 0.0, lambda: False),
            ws_url=config.public_ws_url or "ws://127.0.0.1:5002/ws",
            play_url=PLAY_URL,
            transports=self._transports,
            version="1.2.3",
            scores=Scores(cast(Database, NoDatabase()), rule="best", zone="UTC"),
        )
        self.app: Api = create_app(self.services)

    def _transports(self) -> list[TransportStatistics]:
        return [self.tally.snapshot()]

    def but(self, **changes: Any) -> None:
        """Put the app together anew with other services."""
        self.services = replace(self.services, **changes)
        self.app = create_app(self.services)

    # -- requests --------------------------------------------------------------------------------

    async def call(
        self,
        method: str,
        path: str,
        json: object = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        peer: tuple[str, int] = LOOPBACK,
    ) -> Reply:
        """One request. The answer must be one that openapi.json describes. Whoever asks from this machine for
        what is for authors has the key that the node has made."""
        sent = dict(headers or {})
        if token is None and peer is LOOPBACK and self.config.author_key is None and AUTHORING.match(path):
            token = self.author_key
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if json is not None:
            data = orjson.dumps(json)
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        response = await self.app.test_client().open(
            path, method=method, headers=sent, data=data, scope_base={"client": peer}
        )
        reply = Reply(response.status_code, response.headers, await response.get_data())
        check_described(method, path.partition("?")[0], reply)
        return reply

    async def get(self, path: str, **more: Any) -> Reply:
        return await self.call("GET", path, **more)

    async def post(self, path: str, json: object = None, **more: Any) -> Reply:
        return await self.call("POST", path, json, **more)

    # -- shortcuts -------------------------------------------------------------------------------

    async def session(self, quiz: Mapping[str, Any] = QUIZ, **settings: Any) -> Played:
        made = (await self.post("/api/quizzes", quiz)).json
        opened = await self.post("/api/sessions", {"quiz_id": made["id"], **AT_ONCE, **settings})
        assert opened.status == 201, opened.body
        return Played(self, opened.json)

    async def started(self, *names: str, quiz: Mapping[str, Any] = QUIZ, **settings: Any) -> tuple[Any, ...]:
        """A session whose first question is open, and its players in that order."""
        session = await self.session(quiz, **settings)
        players = [await session.join(name) for name in names]
        await session.do("start")
        return session, *players


class Played:
    """One session, seen by its host."""

    def __init__(self, edge: Edge, opened: Mapping[str, Any]) -> None:
        self.edge = edge
        self.id = str(opened["session_id"])
        self.code = str(opened["code"])
        self.host_token = str(opened["host_token"])
        self.url = f"/api/sessions/{self.code}"

    async def join(self, name: str) -> Mapping[str, Any]:
        reply = await self.edge.post(f"{self.url}/players", {"name": name})
        assert reply.status == 201, reply.body
        return dict(reply.json)

    async def do(self, do: str, **more: Any) -> Reply:
        return await self.edge.post(f"{self.url}/host", {"do": do, **more}, token=self.host_token)

    async def answer(
        self,
        player: Mapping[str, Any],
        choice: object,
        question: int = 1,
        id: str = "a",  # noqa: A002
    ) -> Reply:
        body = {"id": id, "question": question, "choice": choice}
        return await self.edge.post(f"{self.url}/answers", body, token=player["token"])

    async def actor(self) -> SessionActor:
        return await self.edge.actor(self.id)

    async def leave_memory(self) -> None:
        """Let the idle actor go. Needs the mock clock."""
        await trio.sleep(2_000)


@asynccontextmanager
async def edge(
    store: MakeStore = MemorySessionStore,
    *,
    clock: SessionClock | None = None,
    catalog: Any = None,
    journal: Any = None,
    **config: Any,
) -> AsyncIterator[Edge]:
    """Args: clock, catalog, journal: in place of those in memory; whoever gives a journal runs it."""
    async with trio.open_nursery() as nursery:
        yield Edge(nursery, Config(**config), store, clock=clock, catalog=catalog, journal=journal)
        nursery.cancel_scope.cancel()


# -- openapi.json ------------------------------------------------------------------------------------


@cache
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = orjson.loads(openapi_json(PLAY_URL))
    return loaded


def template_of(path: str) -> str | None:
    """The described path for an address, literal segments before templates."""
    for template in sorted(document()["paths"], key=lambda template: template.count("{")):
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            return str(template)
    return None


CODES = {(route.method, route.path): route.codes for route in ROUTES}


def check_described(method: str, path: str, reply: Reply) -> None:
    template = template_of(path)
    operation = document()["paths"].get(template, {}).get(method.lower())
    if operation is None:
        if method not in ("OPTIONS", "HEAD"):
            assert reply.status in (403, 404, 405), f"{method} {path} is not described"
        return
    response = operation["responses"].get(str(reply.status))
    assert response is not None, f"{method} {path}: {reply.status} is not described: {reply.body!r}"
    if reply.status == 304:
        return
    if "$ref" in response:
        response = document()["components"]["responses"][response["$ref"].rpartition("/")[2]]
    content_type = reply.headers["Content-Type"].partition(";")[0]
    assert content_type in response["content"], f"{method} {path}: {content_type} is not described"
    if reply.status >= 400 and reply.json.keys() == {"error"}:
        assert template is not None
        assert reply.error in CODES[method, template], f"{method} {path}: {reply.error} is not described"
    if content_type == "application/json":
        schema = response["content"][content_type]["schema"]
        validator(schema).validate(reply.json)


def validator(schema: Mapping[str, Any]) -> OAS31Validator:
    return OAS31Validator({**schema, "components": document()["components"]})
