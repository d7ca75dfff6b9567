"""A mistake outside of the actors costs one command or one session; nobody else notices.

What may start a task is listed here, each with the boundary around its work; `engine/boundary.py` says why.
"""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Watch
from engine.actors.merging import LOOK_EVERY_S as MERGE_EVERY_S
from engine.actors.merging import Merging
from engine.actors.options import ActorOptions
from engine.actors.upkeep import SWEEP_EVERY_S
from engine.boundary import TRACEBACK_EVERY_S, Boundary
from engine.ports import SessionRecord, SpooledFacts
from engine.shards import rebalancer
from server.cluster import let_go_in_doubt
from tests.actors.world import Client, World, settle, world
from tests.shards.nodes import cluster_of
from tests.test_architecture import modules

WITHIN = "engine.boundary: the task's own code names it"
LINK = "engine.shards.link.listener: it costs the link"
CONNECTION = "it costs the connection"
ACTOR = "engine.actors.supervisor: it costs the session a restart"
JOURNAL = "none: a mistake here would make acknowledgements untrue, and ends the node"
PARTS = "none of its own: all that it calls has one"

TASKS = {
    ("engine/actors/registry.py", "Registry.open", "self._run"): WITHIN,
    ("engine/actors/delivery/fanout.py", "Stall.over_or", "until_room"): ACTOR,
    ("engine/aio.py", "open_asyncio", "loop.pump"): "none: without asyncio's loop there is no database",
    ("engine/shards/link/transport.py", "BatchedTransport.carry", "until_over"): LINK,
    ("engine/shards/link/server.py", "LinkServer._request", "self._answer"): WITHIN,
    ("engine/shards/link/pool.py", "LinkPool._carry", "expire"): LINK,
    ("engine/shards/link/pool.py", "LinkPool._link_to", "self._keep"): WITHIN,
    ("engine/shards/link/pool.py", "LinkPool._link_to", "self._watch"): WITHIN,
    ("engine/shards/link/listener.py", "LinkListener._serve", "watch"): LINK,
    ("engine/shards/link/listener.py", "LinkListener.serve", "trio.serve_listeners of self.attend"): WITHIN,
    ("engine/shards/rebalancer.py", "Rebalancer._hand_some_on", "self._hand_on_and_forget"): WITHIN,
    ("engine/shards/rebalancer.py", "Rebalancer.drained", "self._send_away"): WITHIN,
    ("engine/shards/rebalancer.py", "Rebalancer.take_over", "self._take"): WITHIN,
    ("engine/shards/rebalancer.py", "Rebalancer.take_over", "self._wake_own"): WITHIN,
    ("engine/shards/lookups.py", "CommandQueues.add", "self._resolve"): WITHIN,
    ("engine/shards/lookups.py", "Lookups.find", "self._run"): WITHIN,
    ("engine/shards/redis.py", "RedisBus.run", "self._receive"): WITHIN,
    ("engine/shards/redis.py", "RedisBus.run", "self._send"): WITHIN,
    ("engine/shards/router.py", "Router._relayed", "self._run_relay"): WITHIN,
    ("engine/storage/journal/writer.py", "WriteBehind.run", "self._heartbeat.beat"): JOURNAL,
    ("engine/storage/journal/writer.py", "WriteBehind.run", "self._path.drain"): JOURNAL,
    ("engine/storage/journal/writer.py", "WriteBehind.run", "self._write"): JOURNAL,
    ("server/node.py", "_sessions", "_forever of upkeep.keep_time"): WITHIN,
    ("server/node.py", "_sessions", "_forever of upkeep.sweep"): WITHIN,
    ("server/node.py", "_sessions", "_in_a_nursery"): PARTS,
    ("server/node.py", "_edges", "_kept of collector.run"): WITHIN,
    ("server/node.py", "_edges", "_kept of loop_watch.run"): WITHIN,
    ("server/node.py", "_edges", "_kept of app.health.run"): WITHIN,
    ("server/node.py", "_edges", "_kept of app.live.run"): WITHIN,
    ("server/http/live.py", "LiveFeed.ask", "self._ask"): WITHIN,
    ("server/node.py", "_assemble", "cluster.appear"): "Heartbeat: engine.boundary around each heartbeat",
    ("server/node.py", "_sessions", "cluster.links.run"): PARTS,
    ("server/node.py", "_sessions", "cluster.route"): PARTS,
    ("server/node.py", "_assemble", "cluster.serve_links"): PARTS,
    ("server/storage.py", "open_storage", "journal.run"): JOURNAL,
    ("server/node.py", "_assemble", "merging.run"): "Merging: engine.boundary around each look",
    (
        "server/storage.py",
        "open_storage",
        "partitions.run",
    ): "its own: each round is logged, and tried again later",
    ("server/node.py", "_tracing", "tracing.run"): "its own: whatever fails costs the spans of a batch",
    ("server/storage.py", "open_storage", "scores.run"): PARTS,
    ("server/storage.py", "open_storage", "capacity.run"): "CapacityWatch: engine.boundary around each look",
    ("server/scores.py", "Scores.run", "self._scoring.run"): "Scoring: engine.boundary around each look",
    ("server/scores.py", "Scores.run", "self._fill"): WITHIN,
    ("server/node.py", "_cluster", "redis.bus.run"): PARTS,
    ("server/node.py", "_edges", "ring.run"): WITHIN,
    ("server/node.py", "_edges", "serving.serve"): CONNECTION,
    ("server/node.py", "_edges", "transport.serve"): CONNECTION,
    ("server/node.py", "_edges", "timers.run"): WITHIN,
    ("server/runtime/background.py", "background_task", "run"): PARTS,
    ("server/cluster.py", "Clustering.route", "let_go_in_doubt"): WITHIN,
    (
        "server/cluster.py",
        "Clustering.route",
        "self._rebalancer.run",
    ): "Rebalancer: engine.boundary around each look",
    ("server/http/serving.py", "_application.finish", "_discard"): CONNECTION,
    ("server/http/serving.py", "serve", "cut_off"): "none: it runs at the end",
    ("server/http/serving.py", "serve", "trio.serve_listeners of serve_connection"): CONNECTION,
    ("server/realtime/trio_websocket.py", "TrioWebSocketTransport.serve", "listen"): CONNECTION,
    ("server/realtime/trio_websocket.py", "TrioWebSocketTransport.serve", "self._hold"): CONNECTION,
    ("server/realtime/trio_connection.py", "Connection.run", "self._expect_join"): CONNECTION,
    ("server/realtime/trio_connection.py", "Connection.run", "self._look_for_life"): CONNECTION,
    ("server/realtime/trio_connection.py", "Connection.run", "self._receive"): CONNECTION,
}
"""By where it is started: what starts a task, and the boundary around that task's work. A new task belongs
here too: think of whoever can have it run, and what a mistake in it may cost."""

STARTERS = {"start_soon", "spawn_system_task", "background_task"}
"""And `start`, where it is awaited."""


class Finder(ast.NodeVisitor):
    """Finds what a module starts, and what its functions say."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.within: list[str] = []
        self.found: set[tuple[str, str, str]] = set()
        self.bodies: dict[str, ast.AST] = {}

    def enter(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self.bodies[node.name] = node
        self.within.append(node.name)
        self.generic_visit(node)
        self.within.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = enter  # noqa: N815 - NodeVisitor's names

    def visit_Await(self, node: ast.Await) -> None:
        if isinstance(node.value, ast.Call) and called(node.value) == "start":
            self.note(node.value)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if called(node) in STARTERS:
            self.note(node)
        elif node.args and isinstance(node.args[0], ast.Attribute) and node.args[0].attr in STARTERS:
            self.note(ast.Call(node.func, node.args[1:], []))  # by a context: run(start_soon, task)
        self.generic_visit(node)

    def note(self, call: ast.Call) -> None:
        if call.args:
            self.found.add((self.path, ".".join(self.within), task(call.args[0])))


def called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)


def task(started: ast.expr) -> str:
    """What is started, without what is handed to it."""
    if isinstance(started, ast.Call):
        called, first = ast.unparse(started.func), started.args[0]
        if called == "partial" and ast.unparse(first) == "trio.serve_listeners":
            return f"trio.serve_listeners of {ast.unparse(started.args[1])}"
        return ast.unparse(first) if called == "partial" else f"{called} of {ast.unparse(first)}"
    return ast.unparse(started)


@cache
def finders() -> Sequence[Finder]:
    """The command line and the load generator are processes of their own."""
    found = []
    for path, source in modules():
        if path.startswith(("engine/", "server/")) and not path.startswith("server/cli/"):
            found.append(Finder(path))
            found[-1].visit(ast.parse(source))
    return found


def test_every_task_has_a_boundary() -> None:
    found = {each for finder in finders() for each in finder.found}
    assert found - TASKS.keys() == set(), "say which boundary it has"
    assert TASKS.keys() - found == set(), "no longer there"


def test_what_is_said_to_be_within_the_boundary_names_it() -> None:
    bodies = {name: body for finder in finders() for name, body in finder.bodies.items()}
    own = {(finder.path, name): body for finder in finders() for name, body in finder.bodies.items()}
    for (path, _, started), boundary in TASKS.items():
        if boundary is WITHIN:
            name = started.removeprefix("trio.serve_listeners of ").partition(" of ")[0].split(".")[-1]
            assert "boundary" in ast.unparse(own.get((path, name), bodies[name])), (path, started)


# -- the boundary itself -----------------------------------------------------------------------------


async def test_a_mistake_is_logged_with_its_session_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    boundary = Boundary()
    with boundary.within("looking", "the session"):
        raise ValueError("oops")
    assert boundary.mistakes_total == 1
    assert "looking" in caplog.text
    assert "the session" in caplog.text
    assert "Traceback" in caplog.text


async def test_no_log_is_filled_with_tracebacks(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("engine.boundary.time.monotonic", lambda: now[0])
    boundary = Boundary()
    for _ in range(10):
        boundary.caught(ValueError("oops"), "looking")
    boundary.caught(KeyError("another"), "looking")
    now[0] = TRACEBACK_EVERY_S
    boundary.caught(ValueError("oops"), "looking")
    assert boundary.mistakes_total == 12
    assert [record.exc_info is not None for record in caplog.records] == [True, *[False] * 9, True, True]


async def test_what_is_no_mistake_goes_through() -> None:
    with trio.move_on_after(0) as scope, Boundary().within("sleeping"):
        await trio.sleep(1)
    assert scope.cancelled_caught
    with pytest.raises(KeyboardInterrupt), Boundary().within("anything"):
        raise KeyboardInterrupt


# -- a store with a mistake in one thing that it does ---------------------------------------------------


class Oops(ValueError):
    pass


def mistaken(monkeypatch: pytest.MonkeyPatch, port: Any, name: str, *sessions: str) -> list[object]:
    """Let a method raise; with `sessions`, when it is asked for one of these alone. Returns its calls."""
    good: Callable[..., Awaitable[object]] = getattr(port, name)
    calls: list[object] = []

    async def oops(*args: Any) -> object:
        await trio.lowlevel.checkpoint()
        if sessions and args[0] not in sessions:
            return await good(*args)
        calls.append(args)
        raise Oops(name)

    monkeypatch.setattr(port, name, oops)
    return calls


def joined(client: Client) -> bool:
    return client.kinds[:1] == ["joined"]


async def asleep(w: World, mock_clock: MockClock) -> SessionRecord:
    """A session that is in nobody's memory."""
    record = (await w.session()).record
    mock_clock.jump(2)
    await settle()
    assert not w.registry.holds(record.id)
    return record


def sent(w: World, record: SessionRecord) -> Client:
    client = Client()
    w.router.deliver(record.code, Watch(client))
    return client


IDLE = ActorOptions(idle_s=1.0)


@pytest.mark.parametrize("name", ["find", "claim"])
async def test_a_session_that_cannot_be_read_costs_who_asks_for_it(
    name: str, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(IDLE) as w:
        bad, good = await asleep(w, mock_clock), await asleep(w, mock_clock)
        mistaken(monkeypatch, w.store, name, bad.id, bad.code)
        refused, seated = sent(w, bad), sent(w, good)
        for _ in range(20):
            mock_clock.jump(5)
            await settle()
        assert refused.errors in (["busy"], ["session_unavailable"])
        assert joined(seated)
        assert w.boundary.mistakes_total + w.registry.statistics().crashes > 0


async def test_a_mistake_in_letting_a_session_go_costs_nobody_anything(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(IDLE, gone=lambda run: False) as w:
        calls = mistaken(monkeypatch, w.store, "grant")
        record = await asleep(w, mock_clock)
        assert (len(calls), w.boundary.mistakes_total) == (1, 1)
        back = sent(w, record)
        await settle()
        assert joined(back)


async def test_a_sweep_that_failed_comes_again(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(ActorOptions(idle_s=1.0, max_age_s=3600.0)) as w:
        record = await asleep(w, mock_clock)
        w.nursery.start_soon(w.node.upkeep.sweep)
        await settle()
        with monkeypatch.context() as patched:
            calls = mistaken(patched, w.store, "unfinished")
            for _ in range(7):
                mock_clock.jump(SWEEP_EVERY_S)
                await settle()
            assert w.boundary.mistakes_total == len(calls) > 5
        mock_clock.jump(SWEEP_EVERY_S)
        await settle()
        assert (await w.store.find(record.id)).finished_at is not None


class Spooled:
    """Port `SpooledFactsStore` with facts that cannot be read."""

    async def waiting(self, owner: str) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        return ["one", "two"]

    async def spooled(self, session_id: str) -> Sequence[SpooledFacts]:
        await trio.lowlevel.checkpoint()
        raise Oops(session_id)

    async def set_merged(self, ids: Sequence[int]) -> None:
        raise NotImplementedError


async def test_what_cannot_be_merged_does_not_stop_the_merging(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world() as w:
        spooled = Spooled()
        await w.nursery.start(Merging(w.registry, w.store, spooled, "node", w.boundary).run)
        assert w.boundary.mistakes_total == 2, "the second was tried too"
        mistaken(monkeypatch, spooled, "waiting")
        mock_clock.jump(MERGE_EVERY_S)
        await settle()
        assert w.boundary.mistakes_total == 3
        mock_clock.jump(MERGE_EVERY_S)
        await settle()
        assert w.boundary.mistakes_total == 4


# -- in a cluster ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["orphans", "owned_by", "find", "claim"])
async def test_a_mistake_in_a_take_over_ends_no_node_and_is_made_good(
    name: str, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        orphan, own = await cluster.session(a, belongs_to=b), await cluster.record(b)
        claimed = await cluster.store.claim(own.id, b.run)
        assert claimed.record.id == own.id
        playing = await cluster.session(b)
        with monkeypatch.context() as patched:
            mistaken(patched, cluster.store, name)
            await cluster.kill(a)
            cluster.miss(a.run)
            cluster.store.leases.pop(a.run)
            await b.nursery.start(b.rebalancer.run)
            await settle()
            assert joined(await b.watch(playing))
        for _ in range(20):
            mock_clock.jump(rebalancer.LOOK_EVERY_S)
            await settle()
        if name == "claim":
            assert b.registry.statistics().crashes > 0
        else:
            assert b.boundary.mistakes_total > 0
        assert b.here(orphan)
        assert b.here(own)


@pytest.mark.parametrize("name", ["find", "grant"])
async def test_a_mistake_in_a_hand_over_costs_that_session_a_moment(
    name: str, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record, playing = await cluster.session(a, belongs_to=b), await cluster.session(a)
        ada, ben = await a.join(record, "Ada"), await a.join(playing, "Ben")
        with monkeypatch.context() as patched:
            calls = mistaken(patched, cluster.store, name)
            await a.nursery.start(a.rebalancer.run)
            await settle()
            mock_clock.jump(rebalancer.SETTLE_S)
            await settle()
            assert calls
            assert ada.close_reason is CloseReason.RESTARTING
        assert ben.close_reason is None
        for _ in range(5):
            mock_clock.jump(rebalancer.LOOK_EVERY_S)
            await settle()
        assert joined(await a.rejoin(record, "player", 1))
        assert joined(await b.rejoin(record, "player", 1))


async def test_a_command_over_a_link_for_a_session_that_cannot_be_read_is_answered(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        bad, good = await cluster.record(b), await cluster.record(b)
        await a.watch(good)
        with monkeypatch.context() as patched:
            await a.router.find(bad.id)
            mistaken(patched, cluster.store, "find", bad.id, bad.code)
            assert (await a.join(bad, "Ada")).errors == ["busy"]
        assert b.boundary.mistakes_total == 1
        assert joined(await a.join(good, "Ben"))


async def test_a_node_in_doubt_goes_on_doubting_after_a_mistake(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    held, tries = [False], []

    def let_go() -> None:
        tries.append(trio.current_time())
        raise Oops

    nursery.start_soon(let_go_in_doubt, lambda: held[0], 3.0, let_go, Boundary())
    await trio.sleep(5)
    held[0] = True
    await trio.sleep(5)
    held[0] = False
    await trio.sleep(5)
    assert len(tries) == 2
