"""Which requests are traced whatever becomes of them: `OTEL_TRACES_SAMPLER`, as OpenTelemetry defines it.

How to think about it: the sampler decides when a request comes. An answer that turns out to be slow, is
refused as `busy` or fails is traced all the same. Without the variable nothing else is, but for requests
whose client says so in `traceparent`: that is `parentbased_always_off`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass

from engine.trace import Trace, trace_of

log = logging.getLogger(__name__)

_IDS = 1 << 64
"""The ratio is one of these: it is held against the lower half of a trace id, which is random in any case."""

_RATIOS: Mapping[str, float | None] = {"always_on": 1.0, "always_off": 0.0, "traceidratio": None}
"""Without `parentbased_`. None: the argument says."""

DEFAULT = "parentbased_always_off"


@dataclass(frozen=True, slots=True)
class Sampler:
    """Decides for a request.

    Args:
        ratio: the share of traces, from 0 to 1, that are sampled.
        parent_based: whether a client's `traceparent` decides instead, if there is one.
    """

    ratio: float = 0.0
    parent_based: bool = True

    def begin(self, *traceparents: object) -> Trace | None:
        """The trace of a request that brings these, the first good one of which counts. None if it brings
        none and is not sampled."""
        for each in traceparents:
            if each is not None and (parent := trace_of(each)) is not None:
                return parent if self.parent_based else self._own(parent)
        # As `_own`, with the upper half made only where it is needed.
        if not self.ratio or (low := random.getrandbits(64)) >= self.ratio * _IDS:
            return None
        return Trace(f"{random.getrandbits(64):016x}{low or 1:016x}")

    def _own(self, parent: Trace) -> Trace:
        sampled = int(parent.trace_id[16:], 16) < self.ratio * _IDS
        return Trace(parent.trace_id, parent.parent_id, sampled)


def sampler_of(environ: Mapping[str, str]) -> Sampler:
    """The sampler that the environment names. A value that is none is ignored, with a line in the log, as the
    specification wants it."""
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or DEFAULT
    kind = name.removeprefix("parentbased_")
    if kind not in _RATIOS:
        log.warning("OTEL_TRACES_SAMPLER=%r is not known here: it is %s", name, DEFAULT)
        return Sampler()
    ratio = _RATIOS[kind]
    if ratio is None:
        ratio = _ratio(environ.get("OTEL_TRACES_SAMPLER_ARG", ""))
    return Sampler(ratio, parent_based=name != kind)


def _ratio(text: str) -> float:
    try:
        ratio = float(text or 1.0)
    except ValueError:
        ratio = -1.0
    if 0.0 <= ratio <= 1.0:
        return ratio
    log.warning("OTEL_TRACES_SAMPLER_ARG=%r is no number from 0 to 1: it is 1", text)
    return 1.0
