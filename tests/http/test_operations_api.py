"""Health, readiness, metrics, the page, and what holds for every answer."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from engine.latency import Exemplar
from engine.storage.spool.journal import SpoolingStatistics
from server.runtime.logs import OfRequest
from server.runtime.loop_watch import Hold
from server.runtime.sampling import Sampler
from server.runtime.tracing import Collector, Tracing
from server.security.fetch import Fetcher
from server.wire.errors import STATUS
from tests.http.edge import OUTSIDE, START_MS, Edge, edge


async def samples(e: Edge) -> dict[str, float]:
    text = (await e.get("/metrics", peer=OUTSIDE)).body.decode()
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_health() -> None:
    async with edge() as e:
        health = (await e.get("/healthz", peer=OUTSIDE)).json
        assert health["status"] == "alive"
        assert health["ws_url"].startswith("ws://")


async def test_metrics_tell_how_many_traces_the_collector_took() -> None:
    async with edge() as e:
        assert "fanfare_traces_sent_total" not in await samples(e)
        collector = Collector("http://collector/v1/traces", {}, 1.0, {})
        tracing = Tracing(collector, Fetcher(1.0, 1_000), Sampler(), e.clock.ms_at)
        tracing.sent_total, tracing.dropped_total = 3, 2
        e.but(tracing=tracing)
        found = await samples(e)
        assert (found["fanfare_traces_sent_total"], found["fanfare_traces_dropped_total"]) == (3, 2)


async def test_ready_while_the_database_answers_and_the_journal_has_room() -> None:
    async with edge() as e:
        assert (await e.get("/readyz")).json == {"ready": True, "reasons": [], "degraded": []}
        e.journal.problem = "the database cannot be reached"
        e.journal.facts_max = 0
        reply = await e.get("/readyz")
        assert reply.status == 503
        assert reply.json["ready"] is False
        assert reply.json["reasons"] == ["the database cannot be reached", "the journal is full"]
        e.journal.problem = None
        e.journal.facts_max = 10
        assert (await e.get("/readyz")).status == 200


SPOOLING = SpoolingStatistics(
    active=True,
    failing=False,
    certain=True,
    facts=17,
    bytes=1700,
    oldest_age_s=2.5,
    spooled_total=20,
    drained_total=3,
    put_aside_total=1,
    failures_total=2,
)


async def test_a_node_that_acknowledges_from_its_spool_is_ready_and_degraded() -> None:
    async with edge() as e:
        e.journal.problem = "the database has not answered for 3 s"
        e.journal.acknowledging = True
        e.journal.spooling = SPOOLING
        reply = await e.get("/readyz")
        assert (reply.status, reply.json["ready"], reply.json["reasons"]) == (200, True, [])
        assert reply.json["degraded"] == [
            "the database has not answered for 3 s",
            "facts go by way of the spool, which holds 17",
        ]
        # Past its bound, or no longer certain of its sessions, it is not.
        e.journal.acknowledging = False
        e.journal.facts_max = 0
        reply = await e.get("/readyz")
        assert (reply.status, len(reply.json["reasons"])) == (503, 2)


async def test_metrics_tell_what_is_in_the_spool() -> None:
    async with edge() as e:
        assert "fanfare_spool_active" not in await samples(e)
        e.journal.spooling = SPOOLING
        seen = await samples(e)
        assert {name: value for name, value in seen.items() if name.startswith("fanfare_spool")} == {
            "fanfare_spool_active": 1,
            "fanfare_spool_failing": 0,
            "fanfare_spool_certain": 1,
            "fanfare_spool_facts": 17,
            "fanfare_spool_max_bytes": 2**30,
            "fanfare_spool_bytes": 1700,
            "fanfare_spool_oldest_seconds": 2.5,
            "fanfare_spool_in_facts_total": 20,
            "fanfare_spool_drained_facts_total": 3,
            "fanfare_spool_put_aside_facts_total": 1,
            "fanfare_spool_failures_total": 2,
        }


async def test_metrics_tell_what_happens() -> None:
    async with edge() as e:
        session, ada, _ = await e.started("Ada", "Ben")
        await session.answer(ada, 0)
        await session.answer(ada, 0)
        await session.answer(ada, 7, question=2)
        for duration_s in (0.003, 0.004, 0.3):
            e.journal.latency.add(duration_s)
        e.tally.connections = 7
        e.tally.messages_in = 11
        e.tally.closed["left"] = 3
        seen = await samples(e)
        expected = {
            "fanfare_sessions_active": 1,
            "fanfare_sessions_quarantined": 0,
            "fanfare_players": 2,
            "fanfare_answers_accepted_total": 1,
            "fanfare_answers_repeated_total": 1,
            "fanfare_acks_total": 2,
            "fanfare_pacing_seconds": 0,
            "fanfare_refused_total[wrong_question]": 1,
            "fanfare_connections": 7,
            "fanfare_messages_in_total": 11,
            "fanfare_connections_closed_total[left]": 3,
            "fanfare_event_streams": 0,
            "fanfare_journal_queued_facts": 0,
            "fanfare_journal_retries_total": 3,
            "fanfare_journal_healthy": 1,
            "fanfare_journal_latency_seconds_bucket[0.0025]": 0,
            "fanfare_journal_latency_seconds_bucket[0.005]": 2,
            "fanfare_journal_latency_seconds_bucket[+Inf]": 3,
            "fanfare_journal_latency_seconds_count": 3,
            "fanfare_info[1.2.3]": 1,
        }
        assert {name: seen[name] for name in expected} == expected
        assert seen["fanfare_journal_batches_total"] > 0
        assert seen["process_resident_memory_bytes"] > 1_000_000
        assert seen["process_cpu_seconds_total"] > 0
        if "process_open_fds" in seen:  # not all systems tell
            assert seen["process_open_fds"] == pytest.approx(psutil.Process().num_fds(), abs=3)


async def test_metrics_tell_how_long_joins_broadcasts_and_requests_took() -> None:
    async with edge() as e:
        session, ada = await e.started("Ada")
        await e.get("/nothing/here")
        await e.get("/nothing/there")
        await e.get(session.url, token=ada["token"])
        seen = await samples(e)
        expected = {
            "fanfare_join_seconds_count": 1,
            "fanfare_rejoins_total": 0,
            "fanfare_answers_late_total": 0,
            "fanfare_slow_consumers_total": 0,
            "fanfare_sessions_stalled": 0,
            "fanfare_http_request_seconds_count[unmatched][4xx]": 2,
            "fanfare_http_request_seconds_count[/api/sessions/{key}][2xx]": 1,
        }
        assert {name: seen.get(name) for name in expected} == expected
        assert seen["fanfare_broadcast_seconds_count"] >= 1
        e.tally.closed["slow_consumer"] = 2
        assert (await samples(e))["fanfare_slow_consumers_total"] == 2
        # Nothing that a client has sent is a label.
        counted = (name for name in seen if name.startswith("fanfare_http_request_seconds_count"))
        routes = {name.split("[")[1].rstrip("]") for name in counted}
        rules = {rule.rule.replace("<", "{").replace(">", "}") for rule in e.app.url_map.iter_rules()}
        assert routes <= rules | {"unmatched"}


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "text/plain;version=1.0.0;q=0.4,*/*;q=0.1",
            "application/openmetrics-text",
        ),
        ("text/plain;version=0.0.4,application/openmetrics-text;q=0.5", "text/plain"),
        ("application/openmetrics-text;q=0, */*", "text/plain"),
    ],
)
async def test_metrics_come_as_whoever_scrapes_would_rather_have_them(accept: str, media_type: str) -> None:
    async with edge() as e:
        reply = await e.get("/metrics", headers={"Accept": accept})
        assert reply.headers["Content-Type"].startswith(media_type + ";")


async def test_open_metrics_have_exemplars_with_traces() -> None:
    async with edge() as e:
        latency = e.registry.counters.ack_latency
        latency.add(0.7)
        latency.note(Exemplar(0.7, "374bc31caa6585296fb203a5e6ab9256", START_MS))
        accepts = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
        reply = await e.get("/metrics", headers=accepts)
        assert reply.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        assert reply.body.endswith(b"# EOF\n")
        families = {family.name: family for family in openmetrics(reply.body.decode())}
        (bucket,) = (
            sample
            for sample in families["fanfare_answer_ack_seconds"].samples
            if sample.labels.get("le") == "1.0"
        )
        assert bucket.exemplar is not None
        assert bucket.exemplar.labels == {"trace_id": "374bc31caa6585296fb203a5e6ab9256"}
        assert (bucket.exemplar.value, float(bucket.exemplar.timestamp)) == (0.7, START_MS / 1000)
        assert families["fanfare_acks"].samples[0].name == "fanfare_acks_total"
        plain = await e.get("/metrics")
        assert plain.headers["Content-Type"].startswith("text/plain")
        assert b"trace_id" not in plain.body


async def test_two_apps_in_one_process_share_no_metrics() -> None:
    async with edge() as one, edge() as other:
        await one.session()
        assert (await samples(one))["fanfare_sessions_active"] == 1
        assert (await samples(other))["fanfare_sessions_active"] == 0


async def test_metrics_tell_who_held_the_loop() -> None:
    async with edge() as e:
        watch = e.services.loop_watch
        hold = Hold(0.041, 0.043, "a session")
        statistics = replace(
            watch.statistics(),
            turns_total=17,
            hold_s=0.2,
            hold=hold,
            hold_ever=hold,
            holds_total=3,
            busy_ratio=0.5,
        )
        e.but(loop_watch=SimpleNamespace(statistics=lambda: statistics))
        seen = await samples(e)
        expected = {
            "fanfare_loop_turns_total": 17,
            "fanfare_loop_busy_ratio": 0.5,
            "fanfare_loop_hold_seconds": 0.2,
            "fanfare_loop_hold_cpu_seconds": 0.041,
            "fanfare_loop_holder_seconds[minute][a session]": 0.041,
            "fanfare_loop_holder_seconds[start][a session]": 0.041,
            "fanfare_loop_holds_total": 3,
        }
        assert {name: seen[name] for name in expected} == expected


@pytest.mark.parametrize("path", ["/nothing", "/api", "/api/sessions/000002/nothing", "/static/x", "/%ff"])
async def test_addresses_that_are_not_there(path: str) -> None:
    async with edge() as e:
        missing = await e.get(path)
        assert missing.status == 404
        assert missing.json["error"]["code"] in ("not_found", "session_not_found")


async def test_methods_that_are_not_taken() -> None:
    async with edge() as e:
        refused = await e.call("DELETE", "/api/quizzes")
        assert (refused.status, refused.error) == (405, "method_not_allowed")
        assert refused.headers["Allow"] == "GET, POST"
        refused = await e.call("GET", "/api/sessions/000002/answers")
        assert (refused.status, refused.headers["Allow"]) == (405, "POST")


async def test_heads_have_no_body_and_open_no_stream() -> None:
    async with edge() as e:
        session = await e.session()
        for path in (session.url, f"{session.url}/events", "/healthz"):
            assert (await e.call("HEAD", path)).status == 200
        assert (await session.actor()).subscribers == 0


async def test_a_crash_is_logged_and_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with edge() as e:

        async def crash(*_: object, **__: object) -> Any:
            raise RuntimeError("the secret of the house")

        monkeypatch.setattr(e.catalog, "page", crash)
        caplog.handler.addFilter(OfRequest())
        with caplog.at_level(logging.ERROR, logger="engine.boundary"):
            failed = await e.get("/api/quizzes?", headers={"X-Request-Id": "r-1"})
        assert [vars(each)["request_id"] for each in caplog.records] == ["r-1"]
        assert (failed.status, failed.error) == (500, "internal")
        assert b"secret" not in failed.body
        assert "the secret of the house" in caplog.text
        assert "a mistake in GET /api/quizzes" in caplog.text
        assert re.search(r"^fanfare_mistakes_total 1(\.0)?$", (await e.get("/metrics")).body.decode(), re.M)
        await e.get("/api/quizzes?")
        assert caplog.text.count("Traceback") == 1, "a stranger who can repeat it must not fill the log"


async def test_every_answer_forbids_sniffing_caching_and_referrers() -> None:
    async with edge() as e:
        for path in ("/api/quizzes", "/nothing", "/metrics"):
            headers = (await e.get(path)).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == "no-store"
            assert headers["Referrer-Policy"] == "no-referrer"


def test_statuses_are_those_of_the_protocol() -> None:
    documented: dict[str, int] = {}
    for row in re.findall(r"^\| (`.*?) \| ([\d, ]+) \|", Path("docs/protocol.md").read_text(), re.MULTILINE):
        codes = re.findall(r"`(\w+)`", row[0])
        statuses = [int(status) for status in row[1].split(",")]
        documented |= zip(codes, statuses * (len(codes) // len(statuses)), strict=True)
    # Not a code of its own, but the first of those of a quiz that cannot be built.
    assert documented.pop("invalid_quiz") == 400
    assert documented == dict(STATUS)
