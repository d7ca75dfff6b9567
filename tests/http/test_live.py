"""The live view: what a node and those beside it say of themselves, once and as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
import trio
from msgspec import to_builtins
from trio.testing import MockClock

from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Answer
from engine.actors.slow_answers import SLOW_MS, BatchTimes
from server.http.examples import LIVE
from server.http.live import ASK_S, STREAM_S, STREAMS_MAX
from server.runtime.history import SAMPLE_S, SAMPLES_MAX
from server.wire.api.live import LiveNode
from tests.actors.world import Client, settle
from tests.http.edge import AUTHOR_KEY as KEY
from tests.http.edge import OUTSIDE, Edge, edge
from tests.http.events import Stream, stream
from tests.http.test_cluster_api import FakeCluster, member

URL = "/api/ops/events"


@asynccontextmanager
async def watched(cluster: FakeCluster | None = None, **config: object) -> AsyncIterator[Edge]:
    """An edge that reads itself every few seconds."""
    async with edge(node="node-1", **config) as e, trio.open_nursery() as nursery:
        e.but(cluster=cluster)
        nursery.start_soon(e.app.live.run)
        await settle()
        yield e
        nursery.cancel_scope.cancel()


def other(name: str, **more: object) -> Mapping[str, object]:
    """What another node says of itself."""
    said = to_builtins(LIVE.nodes[0])
    assert isinstance(said, dict)
    return {**said, "name": name, **more}


async def view(reader: Stream) -> Mapping[str, LiveNode]:
    """The next view of a stream: what each node says."""
    message = (await reader.until("live")).message
    return {node["name"]: node for node in message["nodes"]}


async def test_it_has_sessions_and_what_is_degraded() -> None:
    async with watched() as e:
        played = await e.session()
        await played.join("Ada")
        e.journal.problem, e.journal.acknowledging = "the database cannot be reached", True
        shown = (await e.get("/api/ops", token=KEY)).json
        (own,) = shown["nodes"]
        assert (shown["node"], own["name"], shown["silent"]) == ("node-1", "node-1", [])
        assert (own["reasons"], own["degraded"]) == ([], ["the database cannot be reached"])
        assert [(each["session_id"], each["players"], each["phase"]) for each in own["sessions"]] == [
            (played.id, 1, "lobby")
        ]
        assert (own["slowest"], own["failed"]) == ([], [])
        states = {each["name"]: each["state"] for each in own["components"]}
        assert states["postgresql"] == "degraded"


async def test_slow_and_failed_answers_have_their_timelines() -> None:
    async with watched() as e:
        answers = e.services.registry.slow_answers
        at = e.services.clock.now_ms()
        answers.acked(
            "s", Answer(Client(), 3, "a", 1, 0, at - SLOW_MS), "accepted", BatchTimes(at - SLOW_MS), None
        )
        answers.refused("s", Answer(Client(), 4, "a", 1, 0, at), "busy")
        (own,) = (await e.get("/api/ops", token=KEY)).json["nodes"]
        ((slow,), (failed,)) = own["slowest"], own["failed"]
        assert (slow["player"], slow["taken_ms"], slow["trace_id"]) == (3, 0, None)
        assert (failed["player"], failed["outcome"], failed["taken_ms"]) == (4, "busy", None)


async def test_a_node_that_drains_is_not_said_to_be_in_trouble() -> None:
    cluster = FakeCluster(member("node-1"))
    async with watched(cluster) as e:
        cluster.leaving = True
        (own,) = (await e.get("/api/ops", token=KEY)).json["nodes"]
        assert own["reasons"] == []


async def test_it_is_for_admins_alone() -> None:
    async with watched() as e:
        for path in ("/api/ops", URL):
            assert (await e.call("GET", path, peer=OUTSIDE)).error == "token_missing"
            assert (await e.call("GET", path, token="wrong-key")).error == "token_invalid"
            session_token = (await e.session()).host_token
            assert (await e.call("GET", path, token=session_token)).status == 401
        assert (await e.get("/api/ops", token=KEY, peer=OUTSIDE)).status == 200


async def test_a_stream_begins_with_the_last_minutes_and_goes_on_with_what_is_new(
    autojump_clock: MockClock,
) -> None:
    async with watched() as e:
        await trio.sleep(SAMPLE_S * (SAMPLES_MAX + 3) + 1)
        async with stream(e, URL, token=KEY) as reader:
            first = (await view(reader))["node-1"]
            assert len(first["samples"]) == SAMPLES_MAX
            for number in (1, 2):
                await e.session()
                own = (await view(reader))["node-1"]
                (sample,) = own["samples"]
                assert (sample["sessions"], own["events"]) == (number, [])
            # A client that reads nothing for a while is owed no more than what it has missed.
            await trio.sleep(10 * SAMPLE_S)
            missed = [len((await view(reader))["node-1"]["samples"]) for _ in range(3)]
            assert sum(missed) in (10, 11, 12, 13)
            assert max(missed) >= 8


async def test_what_happens_is_told_as_an_event(autojump_clock: MockClock) -> None:
    async with watched() as e, stream(e, URL, token=KEY) as reader:
        assert [event["kind"] for event in (await view(reader))["node-1"]["events"]] == ["started"]
        e.journal.problem = "the database cannot be reached"
        (event,) = (await view(reader))["node-1"]["events"]
        assert (event["kind"], event["about"], event["state"]) == ("component", "postgresql", "down")
        e.journal.problem = None
        (event,) = (await view(reader))["node-1"]["events"]
        assert (event["about"], event["state"]) == ("postgresql", "ok")


async def test_one_node_tells_of_all_and_a_silent_one_holds_nothing_up(autojump_clock: MockClock) -> None:
    cluster = FakeCluster(member("node-1"), member("node-2"), member("node-3"))
    cluster.others["node-2"] = other("node-2", of_a_newer_release=True)
    async with watched(cluster) as e:
        began = trio.current_time()
        shown = (await e.get("/api/ops", token=KEY)).json
        assert trio.current_time() - began <= ASK_S
        assert [node["name"] for node in shown["cluster"]["nodes"]] == ["node-1", "node-2", "node-3"]
        assert [node["name"] for node in shown["nodes"]] == ["node-1", "node-2"]
        assert (shown["nodes"][1]["acks"], shown["silent"]) == (LIVE.nodes[0].acks, ["node-3"])
        async with stream(e, URL, token=KEY) as reader:
            assert (await view(reader)).keys() == {"node-1", "node-2"}
            cluster.others["node-3"] = other("node-3")
            cluster.others["node-2"] = {"error": "of a release that does not tell"}
            assert (await view(reader)).keys() == {"node-1", "node-3"}
            cluster.members.pop()
            last = (await reader.until("live")).message
            assert ([node["name"] for node in last["nodes"]], last["silent"]) == (["node-1"], ["node-2"])


async def test_nobody_is_asked_while_nobody_watches(autojump_clock: MockClock) -> None:
    cluster = FakeCluster(member("node-1"), member("node-2"))
    asked: list[str] = []

    async def ask_live(name: str) -> Mapping[str, object]:
        asked.append(name)
        return other(name)

    cluster.ask_live = ask_live  # type: ignore[method-assign]  # counts
    async with watched(cluster) as e:
        await trio.sleep(10 * SAMPLE_S)
        assert asked == []
        async with stream(e, URL, token=KEY) as one, stream(e, URL, token=KEY) as two:
            for reader in (one, two) * 3:
                await view(reader)
        seen = len(asked)
        assert seen <= 4, "once a view, however many watch"
        await trio.sleep(10 * SAMPLE_S)
        assert len(asked) == seen


async def test_streams_are_bounded_and_give_their_place_back(autojump_clock: MockClock) -> None:
    async with watched(event_streams_per_address_max=1_000) as e, trio.open_nursery() as nursery:

        async def hold() -> None:
            async with stream(e, URL, token=KEY):
                await trio.sleep_forever()

        for _ in range(STREAMS_MAX):
            nursery.start_soon(hold)
        await settle()
        assert (await e.get(URL, token=KEY)).error == "too_many_connections"
        nursery.cancel_scope.cancel()
    async with watched(event_streams_per_address_max=4) as e:
        async with stream(e, URL, token=KEY) as reader:
            await view(reader)
            assert (await e.get(URL, token=KEY)).error == "too_many_connections"
        await settle()
        async with stream(e, URL, token=KEY) as reader:
            assert await view(reader)


@pytest.mark.parametrize("ends", ["shutdown", "restarting"])
async def test_a_stream_ends_with_a_word_at_the_end_of_its_node_and_after_an_hour(
    ends: str, autojump_clock: MockClock
) -> None:
    async with watched() as e, stream(e, URL, token=KEY) as reader:
        await view(reader)
        if ends == "shutdown":
            e.app.streams.close_all(CloseReason.SHUTDOWN)
        else:
            await trio.sleep(STREAM_S)
        last = (await reader.rest())[-1]
        assert (last.kind, last.message["reason"], last.message["reconnect"]) == ("close", ends, "later")
