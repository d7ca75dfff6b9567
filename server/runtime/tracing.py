"""Traces of slow, refused and failed answers, sent to an OpenTelemetry collector by OTLP over HTTP.

How to think about it: no span is made while an answer is handled. Its timeline is written down afterwards,
and only if it was slow, refused as `busy`, or failed (`engine.actors.slow_answers`). The spans are built from
that timeline and sent in batches by a task of the node's own loop, as JSON. Without an endpoint nothing of
this exists. A collector that is away costs the spans that it does not take, which are counted.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import Any
from urllib.parse import unquote

import orjson
import trio

from engine.actors.slow_answers import SlowAnswer, parts_of
from server.security.fetch import Fetcher, FetchError

log = logging.getLogger(__name__)

WAITING_MAX = 1_000
"""The most answers that wait to be sent."""

BATCH_MAX = 64
GATHER_S = 1.0
"""How long a batch gathers answers."""

FAREWELL_S = 2.0
"""How long the last batch may take when the node ends."""

ANSWER_BYTES_MAX = 65_536
"""Of what a collector answers, which is not read."""

_INTERNAL, _SERVER = 1, 2
_ERROR = 2
_MADE = frozenset({"accepted", "duplicate"})


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


def new_trace_id() -> str:
    """32 hexadecimal digits."""
    return secrets.token_hex(16)


class Tracing:
    """Sends the spans of answers. Args: fetcher: sends the requests."""

    def __init__(self, collector: Collector, fetcher: Fetcher) -> None:
        self._collector = collector
        self._fetcher = fetcher
        self._waiting: deque[SlowAnswer] = deque()
        self._arrival = trio.Event()
        self._healthy = True
        self.sent_total = 0
        self.dropped_total = 0
        """Answers whose spans the collector did not take, or that found no room to wait in."""

    def note(self, answer: SlowAnswer) -> None:
        """Send the spans of this answer soon. Never blocks."""
        if len(self._waiting) >= WAITING_MAX:
            self.dropped_total += 1
        else:
            self._waiting.append(answer)
            self._arrival.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send until cancelled; then what waits, for `FAREWELL_S` at most."""
        task_status.started()
        try:
            while True:
                await self._arrival.wait()
                await trio.sleep(GATHER_S)
                await self._send_batch()
        finally:
            with trio.move_on_after(FAREWELL_S, shield=True):
                while self._waiting:
                    await self._send_batch()

    async def _send_batch(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
        if not self._waiting:
            self._arrival = trio.Event()
        if not batch:
            return
        problem = ""
        try:
            with trio.fail_after(self._collector.timeout_s):
                status, _ = await self._fetcher.read(
                    "POST",
                    self._collector.url,
                    {"Content-Type": "application/json", **self._collector.headers},
                    content=orjson.dumps(request_of(batch, self._collector.resource)),
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


def request_of(answers: list[SlowAnswer], resource: Mapping[str, str]) -> dict[str, Any]:
    """An ExportTraceServiceRequest in OTLP's JSON."""
    spans = [span for answer in answers for span in spans_of(answer)]
    scope = {"scope": {"name": "fanfare"}, "spans": spans}
    return {"resourceSpans": [{"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scope]}]}


def spans_of(answer: SlowAnswer) -> list[dict[str, Any]]:
    """The span of an answer, and one for each part of its way that it went."""
    trace_id = answer.trace_id or new_trace_id()
    root = secrets.token_hex(8)
    whole = _span(trace_id, root, "answer", _SERVER, answer.at, 0, answer.total_ms)
    whole["attributes"] = _attributes(
        {
            "fanfare.session.id": answer.session_id,
            "fanfare.player.number": answer.player,
            "fanfare.question.number": answer.question,
            "fanfare.answer.outcome": answer.outcome,
            "fanfare.spooled": answer.spooled,
        }
    )
    if answer.outcome not in _MADE:
        whole["status"] = {"code": _ERROR, "message": answer.outcome}
    spans = [whole]
    for name, begun_ms, ended_ms in parts_of(asdict(answer)):
        span = _span(trace_id, secrets.token_hex(8), name, _INTERNAL, answer.at, begun_ms, ended_ms)
        span["parentSpanId"] = root
        spans.append(span)
    return spans


def _span(
    trace_id: str, span_id: str, name: str, kind: int, at: int, begun_ms: int, ended_ms: int
) -> dict[str, Any]:
    return {
        "traceId": trace_id,
        "spanId": span_id,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": str((at + begun_ms) * 1_000_000),
        "endTimeUnixNano": str((at + max(begun_ms, ended_ms)) * 1_000_000),
    }


def _attributes(values: Mapping[str, object]) -> list[dict[str, object]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: object) -> dict[str, object]:
    if isinstance(value, bool):
        return {"boolValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": str(value)}


def _pairs(text: str) -> dict[str, str]:
    """`key=value,key=value`, percent-encoded."""
    pairs = (each.partition("=") for each in text.split(",") if "=" in each)
    return {key.strip(): unquote(value.strip()) for key, _, value in pairs}
