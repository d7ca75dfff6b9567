"""Spans of slow and failed answers, as a collector gets them; and a collector that is away."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from engine.actors.slow_answers import SlowAnswer
from server.runtime.tracing import (
    ANSWER_BYTES_MAX,
    WAITING_MAX,
    Collector,
    Tracing,
    collector_of,
    spans_of,
)
from server.security.fetch import Fetcher

TRACE = "ab" * 16
AT = 1_700_000_000_000
SLOW = SlowAnswer(AT, "s", 3, 1, "accepted", 2, 3, 3, 5, 700, 701, trace_id=TRACE)
COLLECTOR = Collector("http://collector/v1/traces", {"x-key": "k"}, 1.0, {"service.name": "fanfare"})


def tracing_to(receive: Callable[[httpx.Request], Any]) -> Tracing:
    """Args: receive: the collector."""
    return Tracing(COLLECTOR, Fetcher(1.0, ANSWER_BYTES_MAX, httpx.MockTransport(receive)))


def test_the_spans_of_an_answer_follow_its_timeline() -> None:
    spans = spans_of(SLOW)
    assert {span["traceId"] for span in spans} == {TRACE}
    assert {span.get("parentSpanId") for span in spans[1:]} == {spans[0]["spanId"]}
    took = {
        span["name"]: tuple(
            int(span[end]) // 1_000_000 - AT for end in ("startTimeUnixNano", "endTimeUnixNano")
        )
        for span in spans
    }
    assert took == {
        "answer": (0, 701),
        "mailbox": (0, 2),
        "judge": (2, 3),
        "queue": (3, 5),
        "commit": (5, 700),
        "ack": (700, 701),
    }
    assert "status" not in spans[0]
    (refused,) = spans_of(SlowAnswer(AT, "s", 3, 1, "busy", acked_ms=0))
    assert refused["status"] == {"code": 2, "message": "busy"}


async def test_a_collector_gets_what_gathered_and_its_absence_costs_a_count(
    autojump_clock: MockClock,
) -> None:
    got: list[Any] = []
    away = False

    def receive(request: httpx.Request) -> httpx.Response:
        if away:
            raise httpx.ConnectError("refused")
        assert request.headers["x-key"] == "k"
        got.append(json.loads(request.content))
        return httpx.Response(200)

    tracing = tracing_to(receive)
    async with trio.open_nursery() as nursery:
        await nursery.start(tracing.run)
        for _ in range(3):
            tracing.note(SLOW)
        await trio.sleep(2)
        assert (len(got), tracing.sent_total, tracing.dropped_total) == (1, 3, 0)
        (resource,) = got[0]["resourceSpans"]
        assert len(resource["scopeSpans"][0]["spans"]) == 18
        away = True
        for _ in range(WAITING_MAX + 5):
            tracing.note(SLOW)
        await trio.sleep(60)
        assert (tracing.sent_total, tracing.dropped_total) == (3, WAITING_MAX + 5)
        away = False
        tracing.note(SLOW)
        nursery.cancel_scope.cancel()
    assert tracing.sent_total == 4, "what waits is sent at the end"


async def test_a_collector_that_hangs_does_not_keep_a_node_from_ending(autojump_clock: MockClock) -> None:
    async def hang(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    tracing = tracing_to(hang)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(tracing.run)
        tracing.note(SLOW)
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began <= 2.1


async def test_a_collector_that_is_slow_or_talks_without_end_costs_these_spans_alone(
    autojump_clock: MockClock,
) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            await trio.sleep(0.5)
            yield b"x"

    bodies: list[bytes | AsyncIterator[bytes]] = [b"{}", b"x" * (ANSWER_BYTES_MAX + 1), trickle()]
    tracing = tracing_to(lambda _: httpx.Response(200, content=bodies.pop()))
    async with trio.open_nursery() as nursery:
        await nursery.start(tracing.run)
        for _ in range(3):
            tracing.note(SLOW)
            await trio.sleep(5)
        assert (tracing.sent_total, tracing.dropped_total) == (1, 2)
        nursery.cancel_scope.cancel()


def test_the_environment_names_the_collector() -> None:
    def found(**environ: str) -> Collector | None:
        return collector_of(environ, node="n", run="n-1", version="1")

    assert found() is None
    assert found(OTEL_EXPORTER_OTLP_ENDPOINT="http://c:4318", OTEL_SDK_DISABLED="true") is None
    collector = found(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://c:4318/",
        OTEL_EXPORTER_OTLP_HEADERS="a=b%20c",
        OTEL_SERVICE_NAME="quiz",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
    )
    assert collector is not None
    assert (collector.url, dict(collector.headers)) == ("http://c:4318/v1/traces", {"a": "b c"})
    assert collector.resource["service.name"] == "quiz"
    assert collector.resource["deployment.environment.name"] == "test"


@pytest.mark.parametrize("timeout", ["soon", "0", "-1", "nan", "inf"])
def test_a_timeout_that_is_none_is_refused(timeout: str) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_TIMEOUT": timeout}
    with pytest.raises(ValueError, match=r"milliseconds|convert"):
        collector_of(environ, node="n", run="n-1", version="1")
