from __future__ import annotations

import time
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from loadtest.runs.page import page
from loadtest.runs.plot import Axes, Line, plot, powers, round_steps
from loadtest.runs.proof import Verdict
from loadtest.runs.report import report
from loadtest.runs.run import Outcome, Places
from loadtest.runs.scenario import load
from loadtest.runs.spread import Spreads
from loadtest.runs.timeline import COUNTED, DURATIONS, Timeline
from loadtest.swarm.compact_ledger import CompactLedger
from loadtest.swarm.player import Measures
from server.cli.load.screen import summarize


def pulse(at: float, **more: Any) -> dict[str, Any]:
    measures = Measures()
    measures.ack.add(0.02)
    measures.tick.add(0.25)
    histograms = {name: getattr(measures, name).to_dict() for name in DURATIONS}
    counted = dict.fromkeys(COUNTED, 10)
    return {**counted, **histograms, "at": at, "open": 5, "late_s": 0.001, "over": False, "ends": {"<b>": 1},
            "refused": {}, **more}  # fmt: skip


def outcome(verdict: Verdict) -> Outcome:
    timeline = Timeline(100.0)
    timeline.take(0, pulse(100.5))
    timeline.take(1, pulse(100.6))
    timeline.take(0, pulse(101.5, acks=30, over=True, open=0))
    timeline.at(101.5).usage.update({"nodes_cpu": 0.5, "nodes_mib": 60.0, "commit_p99_ms": 5.0})
    return Outcome(timeline, verdict, 2, 0, {0.005: 9.0}, 3.0, 4.0, 30.0, [])


def long_outcome() -> Outcome:
    """A minute of play at 50 acks a second, in which the nodes grow by 6 MiB."""
    timeline = Timeline(100.0)
    for number in range(60):
        timeline.take(0, pulse(100.5 + number, acks=50 * number))
        usage = {"nodes_cpu": 0.5, "nodes_mib": 60 + number / 10, "loop_hold_ms": float(number)}
        timeline.at(100.5 + number).usage.update(usage)
    return Outcome(timeline, Verdict(players=5), 2, 0, {}, 3.0, 4.0, 50.0, [])


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def made(verdict: Verdict) -> dict[str, Any]:
    return report("steady", load("steady"), outcome(verdict), nodes=1, generators=2)


def test_the_report_adds_up_what_the_generators_said() -> None:
    found = made(Verdict(players=5))
    assert found["proven"]
    assert found["totals"]["acks"] == 40
    assert [row["acks"] for row in found["series"]] == [20, 20]
    assert [row["open"] for row in found["series"]] == [10, 5]
    assert found["ends"] == {"<b>": 2}
    assert found["commit_ms"] == {"p50": 5.0, "p99": 5.0}
    assert found["latency_ms"]["ack"]["p50"] == pytest.approx(20, rel=0.03)


def test_the_steady_part_is_from_the_second_question_of_the_last_session_to_the_end_of_the_first() -> None:
    found = report("answers", load("answers"), long_outcome(), nodes=1, generators=1)
    steady = found["steady"]
    assert (steady["from_s"], steady["seconds"]) == (7, 43)
    assert steady["acks_per_s"] == 50
    assert steady["duration_ms"]["ack"]["p99.9"] == pytest.approx(20, rel=0.03)
    assert steady["duration_ms"]["tick"]["p100"] == 250
    assert steady["ack_p99_by_second_ms"]["most"] == pytest.approx(20, rel=0.03)
    assert steady["nodes_cpu"] == 0.5
    assert found["memory_mib"] == {"nodes": {"start": 60.9, "end": 64.7, "per_min": 6.0}}
    text = page(found)
    assert "<td>answers acknowledged a second</td><td>50</td>" in text
    assert "<td>nodes</td><td>61</td><td>65</td><td>+6.00</td>" in text
    assert "<td>longest hold of a node&#x27;s loop</td><td>59.0 ms</td>" in text
    assert "held by one task" in text


def test_a_run_without_a_steady_part_says_so() -> None:
    found = made(Verdict(players=5))
    assert found["steady"] is None
    assert found["memory_mib"] == {}
    assert "There was no such part." in page(found)


@pytest.mark.parametrize(("later_mib", "growth", "holds"), [(101.0, "+1.0%", True), (103.0, "+3.0%", False)])
def test_memory_that_must_not_grow_is_compared_by_thirds(later_mib: float, growth: str, holds: bool) -> None:
    timeline = Timeline(100.0)
    for number in range(90):
        timeline.take(0, pulse(100.5 + number))
        mib = (50.0, 100.0, later_mib)[number // 30]
        timeline.at(100.5 + number).usage.update({"nodes_mib": mib})
    found = report(
        "soak",
        load("soak"),
        Outcome(timeline, Verdict(players=5), 2, 0, {}, 0.0, 1.0, 90.0, []),
        nodes=1,
        generators=1,
    )
    assert (found["flat"]["before"], found["flat"]["after"]) == (100.0, later_mib)
    assert found["flat"]["holds"] is holds
    sentence = f"times 30 s: {growth}. It is {'' if holds else 'not '}flat."
    assert sentence in page(found)
    console = Console(record=True, width=200)
    summarize(found, console)
    assert sentence in console.export_text()


def test_memory_that_nobody_has_sampled_is_not_called_flat() -> None:
    found = report("soak", load("soak"), outcome(Verdict(players=5)), nodes=1, generators=1)
    assert found["flat"]["holds"] is False
    assert "not known for long enough" in page(found)
    assert (
        report("steady", load("steady"), outcome(Verdict(players=5)), nodes=1, generators=1)["flat"] is None
    )


def test_the_page_needs_nothing_else() -> None:
    tags = Tags()
    text = page(made(Verdict(players=5, acks=1234)))
    tags.feed(text)
    assert tags.addresses == []
    assert tags.seen & {"script", "link", "img", "iframe"} == set()
    assert "Proven: 1,234 acknowledged" in text
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert text.count("<svg") >= 6


def test_what_is_not_proven_is_said_in_red() -> None:
    verdict = Verdict(players=5)
    verdict.add("gap", "session 1")
    assert 'class="verdict no">Not proven: gap 1' in page(made(verdict))


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e9)), max_size=30).map(sorted),
    st.booleans(),
)
def test_every_plot_is_well_formed_and_within_its_frame(
    points: list[tuple[float, float]], log_y: bool
) -> None:
    drawn = plot([Line("a & b", points)], Axes(y_name="<ms>", log_y=log_y))
    if not points:
        assert "Nothing was measured" in drawn
        return
    root = ElementTree.fromstring(f"<x>{drawn}</x>")
    path = root.find("./svg/path")
    assert path is not None
    places = [
        float(each) for each in path.attrib["d"].replace("M", " ").replace("L", " ").replace("h", " ").split()
    ]
    assert all(-0.1 <= each <= 640.1 for each in places)


@given(st.floats(1e-3, 1e9))
def test_ticks_reach_to_the_most(most: float) -> None:
    assert round_steps(most)[-1] >= most * 0.999
    assert 2 <= len(round_steps(most)) <= 8
    assert powers(0.1, max(most, 0.1))[-1] >= most * 0.999


def test_a_second_that_is_not_over_is_not_shown() -> None:
    timeline = Timeline(time.monotonic())
    assert timeline.latest is None


def test_what_happened_to_a_cluster_is_told() -> None:
    found = outcome(Verdict(players=5))
    assert report("steady", load("steady"), found, nodes=1, generators=1)["cluster"] is None
    places = Places()
    for place in ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:2"):
        places.take(CompactLedger(0, "P", place=place), {0: "127.0.0.1:2"})
    spreads = Spreads()
    spreads.take({"session": 0, "answered_at": 9.0, "spreads": [[1, 5.0, 5.25, 3], [0, 10.0, 10.5, 3]]})
    fault = {
        "kind": "kill",
        "node": "load-2",
        "at_s": 12.5,
        "restart_s": None,
        "affected": 1234,
        "back": 1230,
        "away_ms": {"p50": 900.0, "p99": 2500.0, "p100": 2600.0},
        "ack_ms": {"p50": None, "p99": None, "p100": None},
        "first_ack_ms": 850.0,
        "back_99_ms": None,
        "beside_ack_ms": {"p50": 5.0, "p99": 9.0, "p100": 11.0},
    }
    found = replace(found, places=places, spreads=spreads, faults=[fault])
    told = report("giant", load("giant"), found, nodes=3, generators=1)
    assert told["cluster"] == {
        "moved": 20,
        "handed": 20,
        "at_owner": 2,
        "players_by_node": {"127.0.0.1:2": 2, "127.0.0.1:1": 1},
    }
    assert told["spread"]["questions"] == [{"question": 1, "players": 3, "ms": 250.0}]
    text = page(told)
    assert "<td>the end: last answer to the last</td><td>1,500.0 ms</td>" in text
    assert "<td>load-2</td><td>12.5 s</td><td>-</td><td>1,234</td><td>1,230</td>" in text
    console = Console(record=True, width=200)
    summarize(told, console)
    said = console.export_text()
    assert "20 joins were sent on to another node, and 20 players in the midst of a session; 2 ended" in said
    assert "1,234 players affected, 1,230 back, 99 % never; the first ack after 850 ms" in said
    assert "away 900/2,500/2,600 ms, answer to ack -/-/- ms" in said
