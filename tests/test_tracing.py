"""Spans of slow and failed answers, as a collector gets them; and a collector that is away."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from trio.testing import MockClock

from engine.actors.clock import SessionClock
from engine.actors.slow_answers import SlowAnswer
from engine.ports import Commit
from engine.shards.link.hops import Hop
from engine.trace import Trace, new_trace_id
from server.runtime.sampling import Sampler
from server.runtime.spans import LINKS_MAX, AnswerSpans
from server.runtime.tracing import (
    ANSWER_BYTES_MAX,
    WAITING_MAX,
    Collector,
    Tracing,
    collector_of,
)
from server.security.fetch import Fetcher

TRACE = "ab" * 16
AT = 1_700_000_000_000
SLOW = SlowAnswer(AT, "s", 3, 1, "accepted", 2, 3, 3, 5, 700, 701, trace_id=TRACE)
COLLECTOR = Collector("http://collector/v1/traces", {"x-key": "k"}, 1.0, {"service.name": "fanfare"})


def tracing_to(receive: Callable[[httpx.Request], Any]) -> Tracing:
    """Args: receive: the collector."""
    fetcher = Fetcher(1.0, ANSWER_BYTES_MAX, httpx.MockTransport(receive))
    return Tracing(COLLECTOR, fetcher, Sampler(), SessionClock(AT).ms_at)


class Receiver:
    """A collector: takes what a request of OTLP may be, and no more."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["content-type"] == "application/json"
        for resource in read(request.content).resource_spans:
            assert {each.key for each in resource.resource.attributes} == set(COLLECTOR.resource)
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return httpx.Response(200, content=b"{}")

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


def read(content: bytes) -> ExportTraceServiceRequest:
    """As a collector does: by the schema, with ids in hexadecimal digits, which protobuf itself would have in
    base64. Unknown members are refused."""
    data = json.loads(content)

    def restate(value: Any) -> None:
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            if name in ("traceId", "spanId", "parentSpanId"):
                assert len(each) == (32 if name == "traceId" else 16)
                value[name] = b64encode(bytes.fromhex(each)).decode()
            elif isinstance(each, dict | list):
                restate(each)

    restate(data)
    return ParseDict(data, ExportTraceServiceRequest())


async def sent(*noted: Callable[[Tracing], None]) -> Receiver:
    """What a collector has got in the end."""
    receiver = Receiver()
    tracing = tracing_to(receiver)
    async with trio.open_nursery() as nursery:
        await nursery.start(tracing.run)
        for note in noted:
            note(tracing)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert tracing.dropped_total == 0
    return receiver


def attributes(span: Span) -> dict[str, object]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


async def test_a_collector_reads_all_that_is_sent(autojump_clock: MockClock) -> None:
    trace = Trace(TRACE, "cd" * 8)
    commit = Commit(trio.current_time() + 0.005, trio.current_time() + 0.7, 40)
    hop = Hop(trace, "ef" * 8, "answer", "node-2", "s", AT, 12, "busy")

    def join(tracing: Tracing) -> None:
        begun = tracing.begin_join(f"00-{TRACE}-{'cd' * 8}-01", AT)
        assert begun is not None
        tracing.note_join(begun, AT + 3, "joined", "s", 4)

    got = await sent(
        lambda tracing: tracing.note(SLOW, trace, commit), lambda tracing: tracing.note_hop(hop), join
    )
    (answer,) = got.named("answer")
    assert (answer.trace_id.hex(), answer.parent_span_id.hex()) == (TRACE, "cd" * 8)
    assert (answer.start_time_unix_nano, answer.end_time_unix_nano) == (AT * 10**6, (AT + 701) * 10**6)
    assert attributes(answer) == {
        "fanfare.session.id": "s",
        "fanfare.player.number": 3,
        "fanfare.question.number": 1,
        "fanfare.answer.outcome": "accepted",
        "fanfare.spooled": False,
    }
    (link,) = got.named("link answer")
    assert (link.span_id.hex(), link.parent_span_id.hex(), link.kind) == (
        "ef" * 8,
        "cd" * 8,
        link.SPAN_KIND_CLIENT,
    )
    assert (link.status.code, link.status.message) == (link.status.STATUS_CODE_ERROR, "busy")
    (join_span,) = got.named("join")
    assert attributes(join_span)["fanfare.join.outcome"] == "joined"
    assert len(got.spans) == 9


async def test_a_commit_has_one_span_with_links_to_the_traced_answers_in_it(
    autojump_clock: MockClock,
) -> None:
    commit, other = Commit(0.0, 0.7, 500), Commit(0.7, 0.8, 1, spooled=True)

    got = await sent(
        *[
            lambda tracing, n=n: tracing.note(replace(SLOW, player=n, trace_id=new_trace_id()), None, commit)
            for n in range(LINKS_MAX + 2)
        ],
        lambda tracing: tracing.note(SLOW, None, other),
    )
    of_spool, of_postgres = sorted(got.named("group commit"), key=lambda span: len(span.links))
    answers = {(span.trace_id, span.span_id) for span in got.named("answer")}
    assert {(link.trace_id, link.span_id) for link in of_postgres.links} <= answers
    assert (len(of_postgres.links), of_postgres.dropped_links_count) == (LINKS_MAX, 2)
    assert attributes(of_postgres) == {
        "fanfare.commit.facts": 500,
        "fanfare.spooled": False,
        "db.system.name": "postgresql",
    }
    assert attributes(of_spool) == {"fanfare.commit.facts": 1, "fanfare.spooled": True}
    assert len(of_spool.links) == 1
    parts = [span for span in got.named("commit") if span.trace_id.hex() == TRACE]
    assert [link.span_id for link in parts[0].links] == [of_spool.span_id], "and back"


async def test_sampled_answers_leave_room_for_those_that_are_slow(autojump_clock: MockClock) -> None:
    tracing = tracing_to(Receiver())
    quick, trace = replace(SLOW, commit_ended_ms=6, acked_ms=7), Trace(TRACE)
    for _ in range(WAITING_MAX):
        tracing.note(quick, trace)
    assert tracing.dropped_total == WAITING_MAX // 2
    for _ in range(WAITING_MAX // 2):
        tracing.note(SLOW, trace)
    assert tracing.dropped_total == WAITING_MAX // 2


def test_the_spans_of_an_answer_follow_its_timeline() -> None:
    spans = AnswerSpans(SLOW, TRACE).json()
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
    (refused,) = AnswerSpans(SlowAnswer(AT, "s", 3, 1, "busy", acked_ms=0), TRACE).json()
    assert refused["status"] == {"code": 2, "message": "busy"}


async def test_what_others_are_told_of_an_answer_is_below_its_span(autojump_clock: MockClock) -> None:
    slow = replace(SLOW, span_id="ef" * 8)
    got = await sent(
        lambda tracing: tracing.note(slow), lambda tracing: tracing.note_broadcast(slow, AT + 50, AT + 60)
    )
    (answer,), (told,) = got.named("answer"), got.named("broadcast")
    assert (told.trace_id, told.parent_span_id) == (answer.trace_id, answer.span_id)
    assert told.end_time_unix_nano - told.start_time_unix_nano == 10 * 10**6


async def test_the_seat_of_a_join_has_the_same_parts(autojump_clock: MockClock) -> None:
    trace = Trace(TRACE, "cd" * 8)
    seat = replace(SLOW, what="seat", outcome="joined", question=0)
    got = await sent(lambda tracing: tracing.note(seat, trace))
    (whole,) = got.named("seat")
    assert (whole.parent_span_id.hex(), whole.status.code) == ("cd" * 8, whole.status.STATUS_CODE_UNSET)
    assert attributes(whole) == {"fanfare.session.id": "s", "fanfare.spooled": False}
    assert {span.name for span in got.spans} == {"seat", "mailbox", "judge", "queue", "commit", "ack"}


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
