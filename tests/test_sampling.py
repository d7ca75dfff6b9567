"""Which trace a request belongs to, and whether it is sampled."""

from __future__ import annotations

import logging
import random

import pytest

from engine.trace import Trace, new_span_id, new_trace_id, trace_of
from server.runtime.sampling import Sampler, sampler_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("traceparent", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),  # the other flags mean nothing here
        (f"00-{TRACE}-{SPAN}-02", False),
        (f"cc-{TRACE}-{SPAN}-01", True),  # of a later version, which begins as this one
        (f"cc-{TRACE}-{SPAN}-01-and-more", True),
    ],
)
def test_a_traceparent_is_read(traceparent: str, sampled: bool) -> None:
    assert trace_of(traceparent) == Trace(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        None,
        1,
        ["00"],
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",  # version 00 has no more than this
        f"00-{TRACE}-{SPAN}-01 ",
        f"00-{TRACE}-{SPAN}-01\n",
        f"ff-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.and",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 600}",
    ],
)
def test_what_is_none_counts_as_not_sent(traceparent: object) -> None:
    assert trace_of(traceparent) is None
    assert Sampler().begin(traceparent) is None


def test_what_is_passed_on_is_read_again() -> None:
    trace = Trace(new_trace_id(), sampled=False)
    assert trace.traceparent is None
    below = trace.below(new_span_id())
    assert trace_of(below.traceparent) == below


def named(sampler: str, argument: str = "") -> Sampler:
    return sampler_of({"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument})


@pytest.mark.parametrize(
    ("sampler", "without", "sampled_parent", "other_parent"),
    [
        ("", False, True, False),
        ("always_on", True, True, True),
        ("always_off", False, False, False),
        ("parentbased_always_on", True, True, False),
        ("parentbased_always_off", False, True, False),
        ("traceidratio", True, True, True),
        ("parentbased_traceidratio", True, True, False),
    ],
)
def test_the_samplers_of_the_specification(
    sampler: str, without: bool, sampled_parent: bool, other_parent: bool
) -> None:
    begin = named(sampler).begin
    trace = begin(None, "no traceparent")
    assert (trace is not None) is without
    assert trace is None or (trace.sampled and trace.parent_id is None)
    for flags, sampled in (("01", sampled_parent), ("00", other_parent)):
        assert begin(None, f"00-{TRACE}-{SPAN}-{flags}") == Trace(TRACE, SPAN, sampled)


def test_a_ratio_takes_its_share_and_decides_by_the_trace_id_alone() -> None:
    random.seed(1)
    tenth, half = named("traceidratio", "0.1"), named("traceidratio", "0.5")
    taken = [trace for _ in range(5_000) if (trace := tenth.begin()) is not None]
    assert 400 <= len(taken) <= 600
    for trace in taken[:100]:
        assert half.begin(trace.below(SPAN).traceparent) == trace.below(SPAN), (
            "who takes more takes these too"
        )
    for low, sampled in ((0, True), ((1 << 63) - 1, True), (1 << 63, False), ((1 << 64) - 1, False)):
        trace = half.begin(f"00-{'f' * 16}{low:016x}-{SPAN}-00")
        assert trace is not None
        assert trace.sampled is sampled
    assert named("traceidratio", "0").begin() is None


@pytest.mark.parametrize(
    ("sampler", "argument", "is_"),
    [
        ("jaeger_remote", "", Sampler(0.0, True)),
        ("traceidratio", "much", Sampler(1.0, False)),
        ("parentbased_traceidratio", "1.5", Sampler(1.0, True)),
        ("traceidratio", "nan", Sampler(1.0, False)),
    ],
)
def test_a_setting_that_is_none_is_ignored_with_a_word(
    caplog: pytest.LogCaptureFixture, sampler: str, argument: str, is_: Sampler
) -> None:
    with caplog.at_level(logging.WARNING):
        assert named(sampler, argument) == is_
    assert "OTEL_TRACES_SAMPLER" in caplog.text
