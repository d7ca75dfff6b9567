"""Tracing whose spans stay here."""

from __future__ import annotations

from server.runtime.sampling import Sampler
from server.runtime.spans import Span
from server.runtime.tracing import Collector, Tracing
from server.security.fetch import Fetcher

TRACE_ID, SPAN_ID = "ab" * 16, "cd" * 8
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
"""Of a client that wants to be traced."""


class Traced(Tracing):
    """Keeps the spans that would be sent."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        collector = Collector("http://collector", {}, 1.0, {})
        super().__init__(collector, Fetcher(1.0, 1), sampler or Sampler(), int)
        self.spans: list[Span] = []

    def note_span(self, span: Span) -> None:
        self.spans.append(span)
