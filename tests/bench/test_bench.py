"""The benchmarks run, small, and are shown. What they measure is for people to judge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from math import isnan

import pytest
from rich.console import Console

from bench import (
    answer,
    fan_out,
    forwarded,
    handover,
    http_answers,
    hub_cuts,
    hub_fan_out,
    leaderboard,
    leaderboards,
    links,
    listing,
    peers,
    self_paced,
)
from bench.__main__ import BENCHMARKS, EXTRA, table
from bench.figures import Costs, Figure
from bench.memory_node import answer_everything, beside


@pytest.mark.parametrize("name", [*BENCHMARKS, *EXTRA])
def test_a_benchmark_that_is_named_can_be_loaded(name: str) -> None:
    assert import_module(f"bench.{name}").run


def test_the_benchmarks_run_and_are_shown() -> None:
    results = {
        "leaderboard": leaderboard.run(sizes=(5, 20), rounds=2),
        "answer": answer.run(players=20, rounds=2),
        "fan_out": fan_out.run(sizes=(3,), rounds=1),
        "hub_fan_out": hub_fan_out.run(sizes=(3,), rounds=1),
        "leaderboards": leaderboards.run(members=300, calls=100),
        "self_paced": self_paced.run(sizes=(200,), recovered=100),
        "listing": listing.run(quizzes=200, calls=3),
        "links": links.run(answers=20, singles=2, frames=2, nodes=(1, 2), rounds=1),
    }
    console = Console(width=120, record=True)
    console.print(table(results))
    shown = console.export_text()
    for name, figures in results.items():
        assert name in shown
        assert all(figure.value >= 0 for figure in figures)
        assert all(figure.what in shown for figure in figures)


def test_peers_that_are_not_there_are_left_out_and_it_is_said_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = peers.Peer(peers.serve_picows, ("socket", "no_such_package"))
    monkeypatch.setattr(peers, "PEERS", {peers.REACTOR: peers.PEERS[peers.REACTOR], "absent": absent})
    figures = peers.run(sizes=(3,), rounds=2)
    assert {figure.what for figure in figures} == {peers.BARE, peers.REACTOR}
    assert all(figure.value > 0 for figure in figures)
    assert "absent is left out; for it: pip install no_such_package" in capsys.readouterr().err


@contextmanager
def posters_to(reply: bytes) -> Iterator[tuple[http_answers.Posters, list[bytes]]]:
    """And the requests of seven players."""
    with beside(partial(answer_everything, reply=reply)) as (address, _):
        posters = http_answers.Posters(address.port, 3)
        yield posters, http_answers.Hall(address, 7).ask()
        posters.close()


def test_requests_are_all_answered_and_a_refusal_ends_the_benchmark() -> None:
    with posters_to(http_answers.RESPONSE) as (posters, requests):
        posters.post(requests)
    refusal = http_answers.RESPONSE.replace(b"200 OK", b"409 Conflict")
    with posters_to(refusal) as (posters, requests), pytest.raises(AssertionError, match="409 Conflict"):
        posters.post(requests)


def test_at_a_rate_a_wait_counts_from_when_the_request_was_due() -> None:
    with posters_to(http_answers.RESPONSE) as (posters, requests):
        found = posters.post(requests, per_s=1e6)
    assert found.bodies == [http_answers.ACK] * 7
    assert found.waits_s[-1] > found.waits_s[0], "there are three connections, and all were due at once"


def test_a_cluster_passes_on_and_hands_over_small() -> None:
    """In which each answer is held against what both nodes, or the rows, say of it."""
    figures = [*forwarded.run(share=0.02, rounds=1), *handover.run(sizes=(6,), moves=1)]
    assert all(figure.value >= 0 for figure in figures)
    assert {figure.at for figure in figures} >= {"all at once", "6 players"}


def test_a_client_that_asks_for_stateful_reconnect_resumes_without_it_and_misses_nothing() -> None:
    figures = {each.what: each.value for each in hub_cuts.run(("stateful",), (0,), questions=4)}
    counted = [figures[what] for what in hub_cuts.COUNTED.values() if what != "calls made again"]
    assert counted == [9, 0, 0, 4, 4, 4], "each question and reveal and the end; each cut once"
    assert figures["WebSocket"] > 0


def test_the_silence_of_a_move_ends_with_the_first_ack_of_the_next_owner() -> None:
    acks_at = [10.001, 10.004, 10.054, 10.06, 10.9]
    move = handover.Move(10.0, acks_at, 10.055, 11.0, [], [])
    assert move.silence() == (pytest.approx(0.05), pytest.approx(0.054)), "what comes later is no part of it"


def test_figures_are_medians_and_ratios_are_taken_within_the_rounds() -> None:
    costs = Costs()
    for base, mine in ((1.0, 2.0), (10.0, 30.0), (2.0, 8.0)):
        costs.add("base", 1, base)
        costs.add("mine", 1, mine)
    assert costs.median("mine", 1) == 8
    assert costs.ratio("mine", 1, "base", 1) == 3


def test_what_has_no_ratio_shows_none() -> None:
    console = Console(width=120, record=True)
    console.print(table({"name": [Figure("what", "where", 12_345.6, "ms")]}))
    assert console.export_text().splitlines()[-1].split() == ["name", "what", "where", "12,346", "ms"]


def test_a_round_that_was_too_short_for_the_clock_is_no_part_of_a_ratio() -> None:
    costs = Costs()
    for mine, theirs in ((2.0, 1.0), (3.0, 0.0), (8.0, 2.0)):
        costs.add("mine", 1, mine)
        costs.add("theirs", 1, theirs)
    assert costs.ratio("mine", 1, "theirs", 1) == 3.0
    costs.add("short", 1, 0.0)
    costs.add("one", 1, 1.0)
    assert isnan(costs.ratio("one", 1, "short", 1))
