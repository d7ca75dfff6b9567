"""Which trace a request belongs to, as W3C Trace Context has it.

A request brings `traceparent`, or the node's sampler starts a trace for it. The trace goes along with the
command that follows from the request, to other nodes too. What does not fit the format counts as not sent:
nothing is refused for it.
"""

from __future__ import annotations

import random
import re
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Annotated

from msgspec import Meta

_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)

_CHARS_MAX = 512
"""Of a `traceparent` of a later version, which may be longer than today's 55 characters."""

_SAMPLED = 1

TraceId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
SpanId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of one request.

    Attributes:
        trace_id: 32 hexadecimal digits.
        parent_id: the span that the request comes from, 16 hexadecimal digits; None if the trace begins here.
        sampled: whether spans are sent in any case. Else they are sent if the request turns out to be slow,
            is refused or fails.
    """

    trace_id: TraceId
    parent_id: SpanId | None = None
    sampled: bool = True

    def below(self, span_id: str) -> Trace:
        """The same trace for what follows from that span."""
        return replace(self, parent_id=span_id)

    @property
    def traceparent(self) -> str | None:
        """As a header says it; None while the trace has no span."""
        return None if self.parent_id is None else f"00-{self.trace_id}-{self.parent_id}-{self.sampled:02x}"


current: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""The trace of the request that the present task works for, if it works for one."""


def trace_of(traceparent: object) -> Trace | None:
    """The trace that a client names; None for whatever is no `traceparent`."""
    if type(traceparent) is not str or len(traceparent) > _CHARS_MAX:
        return None
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or (found[1] == "00" and found[5]):
        return None
    return Trace(found[2], found[3], bool(int(found[4], 16) & _SAMPLED))


def new_trace_id() -> str:
    """32 hexadecimal digits."""
    return f"{random.getrandbits(128) or 1:032x}"


def new_span_id() -> str:
    """16 hexadecimal digits."""
    return f"{random.getrandbits(64) or 1:016x}"
