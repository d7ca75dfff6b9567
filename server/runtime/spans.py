"""Spans, and how OTLP writes them in JSON.

The spans of an answer are built from its timeline when they are sent; nothing of them is made before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from engine.actors.slow_answers import PARTS, SlowAnswer, parts_of
from engine.ports import Commit
from engine.shards.link.hops import Hop
from engine.trace import Trace, new_span_id, new_trace_id

INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = 1, 2, 3, 4, 5
ERROR = 2

LINKS_MAX = 128
"""Of one span; OpenTelemetry's default. Further ones are counted."""

_NONE: Mapping[str, object] = {}
_MADE = frozenset({"accepted", "duplicate", "joined"})
_MOMENTS = tuple({moment: None for part in PARTS for moment in part[1:] if moment is not None})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_CAME_IN = frozenset({"joined", "waiting", "moved"})

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """One span.

    Attributes:
        begun_ms, ended_ms: since the epoch.
        error: what went wrong, in a word; None if nothing did.
        links: trace and span ids of what it belongs to as well.
        links_left_out: how many more there are.
    """

    trace_id: str
    name: str
    kind: int
    begun_ms: float
    ended_ms: float
    parent_id: str | None = None
    span_id: str = field(default_factory=new_span_id)
    attributes: Mapping[str, object] = field(default_factory=lambda: _NONE)
    error: str | None = None
    links: Sequence[tuple[str, str]] = ()
    links_left_out: int = 0

    def json(self) -> Json:
        """As OTLP has it."""
        made = _span(
            self.trace_id, self.span_id, self.parent_id, self.name, self.kind, self.begun_ms, self.ended_ms
        )
        if self.attributes:
            made["attributes"] = attributes(self.attributes)
        if self.error is not None:
            made["status"] = {"code": ERROR, "message": self.error}
        if self.links:
            made["links"] = [{"traceId": trace_id, "spanId": span_id} for trace_id, span_id in self.links]
        if self.links_left_out:
            made["droppedLinksCount"] = self.links_left_out
        return made


@dataclass(frozen=True, slots=True)
class AnswerSpans:
    """An answer, or the seat of a new player, whose spans are yet to be built.

    Attributes:
        parent_id: the span that the answer comes from, if a client or another node has said.
        commit: the trace and span id of the group commit that has its fact.
    """

    answer: SlowAnswer
    trace_id: str
    parent_id: str | None = None
    span_id: str = field(default_factory=new_span_id)
    commit: tuple[str, str] | None = None

    def json(self) -> list[Json]:
        """The span of the answer, and one for each part of its way that it went."""
        answer, trace_id, root = self.answer, self.trace_id, self.span_id
        at = answer.at
        whole = _span(trace_id, root, self.parent_id, answer.what, SERVER, at, at + answer.total_ms)
        whole["attributes"] = [
            _text("fanfare.session.id", answer.session_id),
            {"key": "fanfare.spooled", "value": {"boolValue": answer.spooled}},
        ]
        if answer.what == "answer":
            whole["attributes"] += [
                _number("fanfare.player.number", answer.player),
                _number("fanfare.question.number", answer.question),
                _text("fanfare.answer.outcome", answer.outcome),
            ]
        if answer.outcome not in _MADE:
            whole["status"] = {"code": ERROR, "message": answer.outcome}
        spans = [whole]
        for name, begun_ms, ended_ms in parts_of({name: getattr(answer, name) for name in _MOMENTS}):
            part = _span(trace_id, new_span_id(), root, name, INTERNAL, at + begun_ms, at + ended_ms)
            if name == "commit" and self.commit is not None:
                part["links"] = [{"traceId": self.commit[0], "spanId": self.commit[1]}]
            spans.append(part)
        return spans


@dataclass(slots=True)
class CommitSpan:
    """A group commit in which traced answers are. `noted_s`: when the first of them was noted."""

    noted_s: float
    begun_ms: float
    ended_ms: float
    commit: Commit
    trace_id: str = field(default_factory=new_trace_id)
    span_id: str = field(default_factory=new_span_id)
    links: list[tuple[str, str]] = field(default_factory=list)
    left_out: int = 0

    def link(self, answer: AnswerSpans) -> None:
        if len(self.links) < LINKS_MAX:
            self.links.append((answer.trace_id, answer.span_id))
        else:
            self.left_out += 1

    def span(self) -> Span:
        commit = self.commit
        return Span(
            self.trace_id,
            "group commit",
            INTERNAL if commit.spooled else CLIENT,
            self.begun_ms,
            self.ended_ms,
            span_id=self.span_id,
            attributes={
                "fanfare.commit.facts": commit.facts,
                "fanfare.spooled": commit.spooled,
                **(_NONE if commit.spooled else {"db.system.name": "postgresql"}),
            },
            links=self.links,
            links_left_out=self.left_out,
        )


@dataclass(frozen=True, slots=True)
class TracedJoin:
    """A join under way. `trace` is that of what follows from it; `parent_id` the span that it comes from."""

    trace: Trace
    parent_id: str | None
    span_id: str
    at: int

    def span(self, now: int, outcome: str, session_id: str | None, player: int | None) -> Span:
        """How it came out. Args: now: in ms since the epoch. outcome: the type of the reply, or a code."""
        return Span(
            self.trace.trace_id,
            "join",
            SERVER,
            self.at,
            now,
            self.parent_id,
            self.span_id,
            {
                "fanfare.session.id": session_id,
                "fanfare.player.number": player or None,
                "fanfare.join.outcome": outcome,
            },
            None if outcome in _CAME_IN else outcome,
        )


@dataclass(frozen=True, slots=True)
class TracedRequest:
    """An HTTP request under way. `trace` is that of what follows from it; `parent_id` the span that it comes
    from."""

    trace: Trace
    parent_id: str | None
    span_id: str
    method: str
    scheme: str
    at: int

    def span(self, route: str | None, status: int | None, now: int) -> Span:
        """As the semantic conventions of OpenTelemetry have it. There is no path in it and no address: they
        may name users. Args: route: the path with its parameters in braces. status: None if the client has
        left before the response. now: in ms since the epoch."""
        method = self.method if self.method in _METHODS else "_OTHER"
        name = "HTTP" if method == "_OTHER" else method
        error = None
        if status is None:
            error = "cancelled"
        elif status >= 500:
            error = str(status)
        return Span(
            self.trace.trace_id,
            name if route is None else f"{name} {route}",
            SERVER,
            self.at,
            now,
            self.parent_id,
            self.span_id,
            {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
                "url.scheme": self.scheme,
                "error.type": error,
            },
            error,
        )


def span_of(hop: Hop) -> Span:
    """The span of a command that went to another node."""
    return Span(
        hop.trace.trace_id,
        f"link {hop.what}",
        CLIENT,
        hop.at,
        hop.at + (hop.took_ms or 0),
        hop.trace.parent_id,
        hop.span_id,
        {"fanfare.session.id": hop.session_id, "server.address": hop.node},
        hop.error,
    )


def attributes(values: Mapping[str, object]) -> list[Json]:
    """Key and value of each, in OTLP's JSON. What is None is left out."""
    return [{"key": key, "value": _value(value)} for key, value in values.items() if value is not None]


def _span(
    trace_id: str, span_id: str, parent_id: str | None, name: str, kind: int, begun_ms: float, ended_ms: float
) -> Json:
    made: Json = {
        "traceId": trace_id,
        "spanId": span_id,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": str(int(begun_ms * 1_000_000)),
        "endTimeUnixNano": str(int(max(begun_ms, ended_ms) * 1_000_000)),
    }
    if parent_id is not None:
        made["parentSpanId"] = parent_id
    return made


def _text(key: str, value: str) -> Json:
    return {"key": key, "value": {"stringValue": value}}


def _number(key: str, value: int) -> Json:
    return {"key": key, "value": {"intValue": str(value)}}


def _value(value: object) -> Json:
    if isinstance(value, bool):
        return {"boolValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": str(value)}
