"""The plan of faults is a pure function of its seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.chaos.plan import CLUSTER_KINDS, EVERY_KIND, LONG_FACTOR, TRAITS, Kind, make_plan
from loadtest.chaos.waves import Load


def test_a_seed_is_the_same_plan_for_ever() -> None:
    first, second, third = make_plan(7, 200, 10.0)[:3]
    assert [first.kind, second.kind, third.kind] == [Kind.NODE_KILL, Kind.POSTGRES_PAUSE, Kind.BACKEND_KILL]
    assert (first.lasts_s, second.lasts_s, third.lasts_s) == (0.131, 1.92, 0.3)
    assert make_plan(7, 200, 10.0) == make_plan(7, 200, 10.0)
    assert make_plan(7, 200, 10.0) != make_plan(8, 200, 10.0)


@given(seed=st.integers(), faults=st.integers(0, 300), minutes=st.floats(0.1, 60))
def test_every_kind_comes_before_any_comes_again(seed: int, faults: int, minutes: float) -> None:
    plan = make_plan(seed, faults, minutes)
    assert [fault.number for fault in plan] == list(range(1, faults + 1))
    counts = Counter(fault.kind for fault in plan)
    assert max(counts.values(), default=0) - min((counts[kind] for kind in EVERY_KIND), default=0) <= 1
    for fault in plan:
        least, most = TRAITS[fault.kind].lasts_s
        assert least <= fault.lasts_s + 0.001
        assert fault.lasts_s <= most * LONG_FACTOR + 0.001
        assert fault.after_s > 0
        assert 0 <= fault.share <= 1


def test_more_time_is_longer_pauses_and_the_same_faults() -> None:
    short, long = make_plan(3, 50, 3.0), make_plan(3, 50, 30.0)
    assert [(f.kind, f.lasts_s, f.share) for f in short] == [(f.kind, f.lasts_s, f.share) for f in long]
    assert sum(f.after_s for f in long) > 5 * sum(f.after_s for f in short)


def test_in_a_cluster_the_faults_find_every_node_and_the_plan_for_one_stays_as_it_is() -> None:
    assert {fault.node for fault in make_plan(7, 50, 3.0, CLUSTER_KINDS, nodes=3)} == {0, 1, 2}
    assert {fault.kind for fault in make_plan(7, 50, 3.0, CLUSTER_KINDS, nodes=3)} == set(Kind)
    alone, among_others = make_plan(7, 50, 3.0), make_plan(7, 50, 3.0, nodes=3)
    assert [replace(fault, node=0) for fault in among_others] == list(alone)


def test_waves_of_users_are_even_among_all_and_some_are_at_the_own_pace() -> None:
    load = Load(own_share=0.25, user_share=0.5)
    waves = range(1, 41)
    own = [wave for wave in waves if load.own_pace(wave)]
    assert own == list(range(1, 41, 4)), "from the first on"
    assert all(load.by_users(wave) for wave in own)
    assert sum(load.by_users(wave) for wave in waves) == len(own) + 15
    assert not any(Load().own_pace(wave) or Load().by_users(wave) for wave in waves)


def test_only_the_kinds_that_are_asked_for() -> None:
    plan = make_plan(1, 9, 1.0, [Kind.NODE_KILL, Kind.LINK_CUT])
    assert {fault.kind for fault in plan} == {Kind.NODE_KILL, Kind.LINK_CUT}
    with pytest.raises(ValueError, match="at least one kind"):
        make_plan(1, 9, 1.0, [])
