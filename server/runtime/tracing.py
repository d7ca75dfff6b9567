"""Traces, sent to an OpenTelemetry collector by OTLP over HTTP.

How to think about it: no span is made while an answer is handled. Its timeline is written down afterwards,
and only if it was sampled, slow, refused, or failed (`engine.actors.slow_answers`). The spans are
built from that timeline and sent in batches by a task of the node's own loop, as JSON. Without an endpoint
nothing of this exists. A collector that is away costs the spans that it does not take, which are counted.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from urllib.parse import unquote

import orjson
import trio

from engine.actors.slow_answers import SLOW_MS, SlowAnswer
from engine.ports import Commit
from engine.shards.link.hops import Hop
from engine.shards.ports import BusMessage
from engine.trace import Trace, new_span_id, new_trace_id, trace_of
from server.runtime.sampling import Sampler
from server.runtime.spans import (
    CONSUMER,
    INTERNAL,
    AnswerSpans,
    CommitSpan,
    Json,
    Span,
    TracedJoin,
    TracedRequest,
    attributes,
    span_of,
)
from server.security.fetch import Fetcher, FetchError

log = logging.getLogger(__name__)

WAITING_MAX = 4_000
"""The most answers and other spans that wait to be sent. Sampled ones have half of that: there is always room
for those that are slow, are refused or fail."""

BATCH_MAX = 256
"""Answers and other spans in one request."""

SLICE = 64
"""As many are built without a pause: 2 ms at most."""

GATHER_S = 1.0
"""How long a batch gathers answers."""

FAREWELL_S = 2.0
"""How long the last batch may take when the node ends."""

ANSWER_BYTES_MAX = 65_536
"""Of what a collector answers, which is not read."""


@dataclass(frozen=True, slots=True)
class Collector:
    """Where spans go, as the `OTEL_*` variables say."""

    url: str
    headers: Mapping[str, str]
    timeout_s: float
    resource: Mapping[str, str]


def collector_of(environ: Mapping[str, str], *, node: str, run: str, version: str) -> Collector | None:
    """The collector that the environment names; None without one, or if it says that traces are off. Raises
    ValueError for a timeout that is no number above 0."""
    endpoint = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
    if not endpoint and (base := environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")):
        endpoint = f"{base.rstrip('/')}/v1/traces"
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or not endpoint or environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return None
    resource = {
        "service.name": "fanfare",
        "service.version": version,
        "service.instance.id": run,
        "host.name": node,
        **_pairs(environ.get("OTEL_RESOURCE_ATTRIBUTES", "")),
    }
    if name := environ.get("OTEL_SERVICE_NAME"):
        resource["service.name"] = name
    timeout_s = float(environ.get("OTEL_EXPORTER_OTLP_TIMEOUT") or 10_000) / 1000
    if not 0 < timeout_s < inf:
        raise ValueError("it has to be a number of milliseconds above 0")
    return Collector(
        endpoint,
        _pairs(
            environ.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
        ),
        timeout_s,
        resource,
    )


class Tracing:
    """Sends spans.

    Args:
        fetcher: sends the requests.
        sampler: decides which requests are traced.
        ms_at: dates a moment of trio's clock, in ms since the epoch.
    """

    def __init__(
        self, collector: Collector, fetcher: Fetcher, sampler: Sampler, ms_at: Callable[[float], int]
    ) -> None:
        self._collector = collector
        self._fetcher = fetcher
        self._ms_at = ms_at
        self.begin = sampler.begin
        """The trace of a request, by the `traceparent` that it brings."""
        self._waiting: deque[AnswerSpans | Span] = deque()
        self._commits: dict[Commit, CommitSpan] = {}
        """Commits with answers among `_waiting`, or among those that were sent just now."""
        self._arrival = trio.Event()
        self._healthy = True
        self.sent_total = 0
        self.dropped_total = 0
        """Answers and other spans that the collector did not take, or that found no room to wait in."""

    def note(self, answer: SlowAnswer, trace: Trace | None = None, commit: Commit | None = None) -> None:
        """Send the spans of this answer soon, and that of the commit that has its fact. Never blocks."""
        tail = answer.total_ms >= SLOW_MS or answer.acked_ms is None or trace is None or not trace.sampled
        if self._full(tail):
            return
        trace_id = answer.trace_id or new_trace_id()
        parent_id = None if trace is None else trace.parent_id
        span_id = answer.span_id or new_span_id()
        if commit is None:
            self._waiting.append(AnswerSpans(answer, trace_id, parent_id, span_id))
            return
        made = self._commits.get(commit)
        if made is None:
            begun_ms, ended_ms = self._ms_at(commit.started_s), self._ms_at(commit.ended_s)
            made = self._commits[commit] = CommitSpan(trio.current_time(), begun_ms, ended_ms, commit)
            if ended_ms - begun_ms >= SLOW_MS:
                log.warning(
                    "a commit of %d facts took %d ms",
                    commit.facts,
                    ended_ms - begun_ms,
                    extra={"total_ms": ended_ms - begun_ms, "trace_id": made.trace_id},
                )
        spans = AnswerSpans(answer, trace_id, parent_id, span_id, (made.trace_id, made.span_id))
        made.link(spans)
        self._waiting.append(spans)

    def note_broadcast(self, answer: SlowAnswer, queued_at: int, ended_at: int) -> None:
        """Send the span of the frame that tells others of this answer soon. Its moments are in ms since the
        epoch. Never blocks."""
        if answer.trace_id is not None:
            made = Span(answer.trace_id, "broadcast", INTERNAL, queued_at, ended_at, answer.span_id)
            self.note_span(made)

    def begin_join(self, traceparent: object, now: int) -> TracedJoin | None:
        """As `begin`, for a join at that moment, in ms since the epoch."""
        trace = self.begin(traceparent)
        if trace is None:
            return None
        if not trace.sampled:
            return TracedJoin(trace, trace.parent_id, "", now)
        span_id = new_span_id()
        return TracedJoin(trace.below(span_id), trace.parent_id, span_id, now)

    def note_join(
        self, join: TracedJoin, now: int, outcome: str, session_id: str | None, player: int | None
    ) -> None:
        """Send the span of this join soon, if it is sampled. Args: as of `TracedJoin.span`."""
        if join.trace.sampled:
            self.note_span(join.span(now, outcome, session_id, player))

    def begin_request(
        self, traceparent: str | None, method: str, scheme: str, now: int
    ) -> TracedRequest | None:
        """As `begin`, for an HTTP request at that moment, in ms since the epoch."""
        trace = self.begin(traceparent)
        if trace is None:
            return None
        if not trace.sampled:
            return TracedRequest(trace, trace.parent_id, "", method, scheme, now)
        span_id = new_span_id()
        return TracedRequest(trace.below(span_id), trace.parent_id, span_id, method, scheme, now)

    def note_request(self, request: TracedRequest, route: str | None, status: int | None, now: int) -> None:
        """Send the span of this request soon, if it is sampled. Args: as of `TracedRequest.span`."""
        if request.trace.sampled:
            self.note_span(request.span(route, status, now))

    def note_hop(self, hop: Hop) -> None:
        """Send the span of this hop soon. Never blocks."""
        self.note_span(span_of(hop))

    def note_heard(self, message: BusMessage) -> None:
        """Send a span for this message of the bus soon, if it follows from a sampled request."""
        trace = trace_of(message.get("traceparent"))
        if trace is not None and trace.sampled:
            now = self._ms_at(trio.current_time())
            name = f"bus {message.get('kind')!s:.40}"
            self.note_span(Span(trace.trace_id, name, CONSUMER, now, now, trace.parent_id))

    def note_span(self, span: Span) -> None:
        """Send this span soon. Never blocks."""
        if not self._full(tail=span.error is not None):
            self._waiting.append(span)

    def _full(self, tail: bool) -> bool:
        """Whether there is no room; then what would have waited is counted."""
        if len(self._waiting) >= (WAITING_MAX if tail else WAITING_MAX // 2):
            self.dropped_total += 1
            return True
        self._arrival.set()
        return False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send until cancelled; then what waits, for `FAREWELL_S` at most."""
        task_status.started()
        try:
            while True:
                await self._arrival.wait()
                await trio.sleep(GATHER_S)
                await self._send_batch(GATHER_S)
                while len(self._waiting) >= BATCH_MAX // 2:
                    await self._send_batch(GATHER_S)
        finally:
            with trio.move_on_after(FAREWELL_S, shield=True):
                while self._waiting or self._commits:
                    await self._send_batch(0.0)

    async def _send_batch(self, gather_s: float) -> None:
        """Send what waits, up to a batch, and the commits whose first answer was noted so long ago: by then
        the others are there too, or never will be."""
        batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
        before_s = trio.current_time() - gather_s
        due = [commit for commit, made in self._commits.items() if made.noted_s <= before_s]
        commits = [self._commits.pop(commit).span() for commit in due[:BATCH_MAX]]
        if not self._waiting and not self._commits:
            self._arrival = trio.Event()
        if not batch and not commits:
            return
        problem = ""
        try:
            with trio.fail_after(self._collector.timeout_s):
                status, _ = await self._fetcher.read(
                    "POST",
                    self._collector.url,
                    {"Content-Type": "application/json", **self._collector.headers},
                    content=await self._encoded([*batch, *commits]),
                )
            if status >= 300:
                problem = f"it answers {status}"
        except (FetchError, trio.TooSlowError) as error:
            problem = str(error) or f"it takes longer than {self._collector.timeout_s:g} s"
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs these spans and nothing else
            problem = repr(error)
        if problem:
            self.dropped_total += len(batch)
        else:
            self.sent_total += len(batch)
        if bool(problem) == self._healthy:
            self._healthy = not problem
            if problem:
                log.warning("the collector does not take traces: %s", problem)
            else:
                log.warning("the collector takes traces again")

    async def _encoded(self, noted: Sequence[AnswerSpans | Span]) -> bytes:
        """An ExportTraceServiceRequest in OTLP's JSON."""
        spans: list[Json] = []
        for number, each in enumerate(noted, 1):
            if isinstance(each, Span):
                spans.append(each.json())
            else:
                spans += each.json()
            if number % SLICE == 0:
                await trio.lowlevel.checkpoint()
        scope = {"scope": {"name": "fanfare"}, "spans": spans}
        resource = {"attributes": attributes(self._collector.resource)}
        return orjson.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]})


def _pairs(text: str) -> dict[str, str]:
    """`key=value,key=value`, percent-encoded."""
    pairs = (each.partition("=") for each in text.split(",") if "=" in each)
    return {key.strip(): unquote(value.strip()) for key, _, value in pairs}
