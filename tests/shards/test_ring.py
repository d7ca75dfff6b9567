"""The ring: the same on every node, even, and steady."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from hashlib import sha256
from math import ceil, floor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.shards.ports import WEIGHT_MAX
from engine.shards.ring import SHARDS, Ring, shard_of

GOLDEN = json.loads((Path(__file__).parent / "golden_ring.json").read_text(encoding="utf-8"))

names = st.text("abcdefgh0123456789-é", min_size=1, max_size=12)


def some_nodes(most: int, weight: int = WEIGHT_MAX) -> st.SearchStrategy[dict[str, int]]:
    return st.dictionaries(names, st.integers(1, weight), min_size=1, max_size=most)


def placed(ring: Ring) -> list[str | None]:
    return [ring.node_of(shard) for shard in range(SHARDS)]


def moved(before: Ring, after: Ring) -> list[int]:
    return [shard for shard in range(SHARDS) if before.node_of(shard) != after.node_of(shard)]


def digest(ring: Ring) -> str:
    return sha256("\n".join(str(name) for name in placed(ring)).encode()).hexdigest()


def test_the_ring_is_that_of_all_releases() -> None:
    """Nodes of two releases may work side by side: a difference here would have them disagree."""
    for session_id, shard in GOLDEN["shards"].items():
        assert shard_of(session_id) == shard
    for case in GOLDEN["rings"]:
        ring = Ring.of(case["nodes"])
        assert ring.generation == case["generation"]
        assert {name: len(ring.shards_of(name)) for name in ring.nodes} == case["counts"]
        assert [ring.node_of(shard) for shard in range(16)] == case["first"]
        assert digest(ring) == case["sha256"]


def test_a_ring_without_nodes_places_nothing() -> None:
    ring = Ring.of({})
    assert ring.node_of(0) is None
    assert ring.owner_of("s") is None
    assert not ring.nodes
    assert ring.shards_of("a") == ()


@pytest.mark.parametrize("weight", [0, WEIGHT_MAX + 1, -1])
def test_a_weight_has_bounds(weight: int) -> None:
    with pytest.raises(ValueError, match="weight of a"):
        Ring.of({"a": weight})


@settings(max_examples=30)
@given(some_nodes(12), st.randoms(use_true_random=False))
def test_the_order_of_the_members_does_not_matter(weights: dict[str, int], random: object) -> None:
    shuffled = list(weights.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a Random
    ring, other = Ring.of(weights), Ring.of(dict(shuffled))
    assert placed(ring) == placed(other)
    assert ring.generation == other.generation
    assert list(ring.nodes) == list(other.nodes)


@settings(max_examples=30)
@given(some_nodes(12))
def test_every_shard_is_on_one_node_and_within_its_bound(weights: dict[str, int]) -> None:
    check_bounds(weights)


@pytest.mark.parametrize("nodes", [16, 32, 64])
@pytest.mark.parametrize("weight_max", [1, WEIGHT_MAX])
def test_many_nodes_keep_within_their_bounds(nodes: int, weight_max: int) -> None:
    check_bounds({f"node-{i}": 1 + i % weight_max for i in range(nodes)})


def check_bounds(weights: Mapping[str, int]) -> None:
    """With equal weights nobody has more than 1.1 times the mean, for up to 409 nodes. A light node among
    many heavy ones, whose share is below 10 shards, may have its share rounded up instead."""
    ring = Ring.of(weights)
    total = sum(weights.values())
    for name, weight in weights.items():
        share = Fraction(SHARDS * weight, total)
        assert len(ring.shards_of(name)) <= max(floor(share * Fraction(11, 10)), ceil(share))
        assert all(ring.node_of(shard) == name for shard in ring.shards_of(name))
    assert sum(len(ring.shards_of(name)) for name in weights) == SHARDS


@settings(max_examples=30)
@given(some_nodes(31, weight=1), names)
def test_a_newcomer_takes_its_share_and_moves_hardly_anything_else(
    weights: dict[str, int], newcomer: str
) -> None:
    """A node that leaves is the same backwards."""
    weights.pop(newcomer, None)
    before, after = Ring.of(weights), Ring.of({**weights, newcomer: 1})
    count = len(weights) + 1
    gained = set(after.shards_of(newcomer))
    others = [shard for shard in moved(before, after) if shard not in gained]
    if weights:
        assert len(gained) <= 1.1 * SHARDS / count
        assert len(others) <= 0.01 * SHARDS


@pytest.mark.parametrize("count", [2, 3, 4, 8, 16, 32])
def test_about_one_nth_moves(count: int) -> None:
    for seed in range(5):
        weights = {f"set{seed}-{i}": 1 for i in range(count)}
        without = {name: weight for name, weight in weights.items() if name != f"set{seed}-0"}
        share = len(moved(Ring.of(without), Ring.of(weights))) / SHARDS
        assert 0.85 / count <= share <= 1.1 / count + 0.005


def test_few_nodes_move_nothing_but_what_the_newcomer_gets() -> None:
    """Their shares are so large that the bound pushes nothing on."""
    for count in range(2, 7):
        weights = {f"node-{i}": 1 for i in range(count)}
        before, after = Ring.of(weights), Ring.of({**weights, "new": 1})
        assert set(moved(before, after)) == set(after.shards_of("new"))


def test_a_node_of_twice_the_weight_gets_about_twice_as_much() -> None:
    ring = Ring.of({"a": 1, "b": 2, "c": 1})
    assert 0.9 * SHARDS / 2 < len(ring.shards_of("b")) < 1.1 * SHARDS / 2


@settings(max_examples=20)
@given(some_nodes(8), some_nodes(8))
def test_equal_nodes_have_equal_generations_and_others_do_not(a: dict[str, int], b: dict[str, int]) -> None:
    assert (Ring.of(a).generation == Ring.of(b).generation) == (a == b)


def test_the_steps_come_to_the_same_ring() -> None:
    weights = {f"node-{i}": 1 for i in range(5)}
    *steps, ring = Ring.steps(weights)
    assert all(step is None for step in steps)
    assert ring is not None
    assert placed(ring) == placed(Ring.of(weights))


def test_sessions_are_spread_over_all_shards() -> None:
    counts = [0] * SHARDS
    for i in range(20 * SHARDS):
        counts[shard_of(f"0198c2f0-{i:012x}")] += 1
    assert min(counts) > 0
    assert max(counts) < 60
