from __future__ import annotations

import random

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.runs.fleet import generators_for, shared_out, sources_of
from loadtest.runs.load_sessions import session_sizes
from loadtest.runs.sampling import NodeMetrics, bound_of, combined, parse_metrics
from loadtest.swarm.crowd import Seats


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 6))
def test_every_player_sits_once(sizes: list[int], count: int) -> None:
    seats, first = [], 1
    for number, size in enumerate(sizes):
        seats.append(Seats(number, f"{number}", ("ws://x/ws",), first, size))
        first += size
    shares = shared_out(seats, count)
    assert len(shares) == count
    taken = [
        (each.session, number)
        for share in shares
        for each in share
        for number in range(each.first, each.first + each.count)
    ]
    assert taken == [(each.session, n) for each in seats for n in range(each.first, each.first + each.count)]
    assert max(sum(each.count for each in share) for share in shares) <= -(-sum(sizes) // count)


@given(st.integers(1, 500), st.integers(1, 50), st.integers(0, 50))
def test_sessions_have_the_size_that_was_asked_for(players: int, least: int, more: int) -> None:
    sizes = session_sizes(players, (least, least + more), random.Random(1))
    assert sum(sizes) == players
    assert all(1 <= size <= least + more for size in sizes)
    assert all(size >= least for size in sizes[:-1])


def test_generators_and_their_addresses() -> None:
    assert generators_for(1) == generators_for(18_000) == 1
    assert generators_for(150_000) == 9
    assert sources_of(0, 500) == ["127.0.1.1"]
    assert len(sources_of(0, 18_000)) == 8
    assert set(sources_of(0, 18_000)).isdisjoint(sources_of(1, 18_000))


def test_what_a_node_says_of_itself() -> None:
    text = (
        "# HELP fanfare_journal_queued_facts x\nfanfare_journal_queued_facts 7.0\n"
        'fanfare_journal_latency_seconds_bucket{le="0.001"} 1.0\n'
        'fanfare_journal_latency_seconds_bucket{le="0.01"} 9.0\n'
        'fanfare_journal_latency_seconds_bucket{le="+Inf"} 10.0\n'
        'fanfare_refused_total{code="late"} 3.0\n'
    )
    values, buckets = parse_metrics(text)
    assert values == {"fanfare_journal_queued_facts": 7.0}
    assert buckets == {0.001: 1.0, 0.01: 8.0, float("inf"): 1.0}
    assert bound_of(buckets, 50) == bound_of(buckets, 100) == 0.01
    assert bound_of({}, 50) is None
    assert bound_of({0.001: 1.0}, 99) == pytest.approx(0.001)


async def test_a_node_that_tells_more_is_asked_for_no_less() -> None:
    told = "fanfare_connections 5.0\nfanfare_loop_hold_seconds 0.25\nfanfare_loop_busy_ratio 0.5\n"
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text=told))
    async with httpx.AsyncClient(transport=transport) as client:
        node = NodeMetrics("http://node", client)
        await node.look()
    assert node.told == {"node_connections": 5.0, "loop_hold_ms": 250.0, "loop_busy_share": 0.5}


def test_several_nodes_say_one_thing() -> None:
    told = [
        {"queued_facts": 1.0, "loop_lag_ms": 5.0, "loop_busy_share": 0.5},
        {},
        {"queued_facts": 2.0, "loop_lag_ms": 3.0, "loop_busy_share": 0.8},
    ]
    assert combined(told) == {"queued_facts": 3.0, "loop_lag_ms": 5.0, "loop_busy_share": 0.8}
