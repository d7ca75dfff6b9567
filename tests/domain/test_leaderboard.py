from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.leaderboard import Entry, Leaderboard


def board(*lines: tuple[int, int, int]) -> Leaderboard:
    """From (player, score, elapsed_ms)."""
    made = Leaderboard()
    for player, score, elapsed_ms in lines:
        made.add(player)
        made.update(player, score, elapsed_ms)
    return made


def test_ties_share_a_rank_and_the_next_rank_counts_them() -> None:
    made = board((1, 500, 0), (2, 900, 9), (3, 500, 0), (4, 100, 0))
    assert [(e.rank, e.player) for e in made.ranked()] == [(1, 2), (2, 1), (2, 3), (4, 4)]
    assert [made.rank(player) for player in (1, 2, 3, 4)] == [2, 1, 2, 4]


def test_within_a_rank_the_smaller_answering_time_then_the_earlier_player_comes_first() -> None:
    made = board((1, 500, 30), (2, 500, 20), (3, 500, 10), (4, 500, 20))
    assert [e.player for e in made.ranked()] == [3, 2, 4, 1]
    assert {e.rank for e in made.ranked()} == {1}


def test_around_shows_oneself_between_others_with_their_true_ranks() -> None:
    made = board(*((player, 100 if player in (3, 4) else player, 0) for player in range(1, 8)))
    order = [e.player for e in made.ranked()]
    assert order == [3, 4, 7, 6, 5, 2, 1]
    assert made.around(4, 1) == [Entry(1, 3, 100, 0), Entry(1, 4, 100, 0), Entry(3, 7, 7, 0)]
    assert [e.player for e in made.around(3, 2)] == [3, 4, 7]
    assert [e.player for e in made.around(1, 2)] == [5, 2, 1]
    assert [e.player for e in made.around(6, 0)] == [6]


def test_a_tie_that_begins_before_the_window_keeps_its_rank() -> None:
    made = board(*((player, 50, player) for player in range(1, 7)))
    assert [e.rank for e in made.around(5, 1)] == [1, 1, 1]


def test_an_unknown_player_raises_key_error() -> None:
    made = board((1, 5, 5))
    made.remove(1)
    assert 1 not in made
    assert len(made) == 0
    for ask in (made.rank, made.remove, lambda p: made.update(p, 1, 1), lambda p: made.around(p, 1)):
        with pytest.raises(KeyError):
            ask(1)
    made.add(1)
    assert made.top(5) == [Entry(1, 1, 0, 0)]


def test_nobody_is_in_twice() -> None:
    made = board((1, 5, 5))
    with pytest.raises(ValueError, match="already in"):
        made.add(1)
    assert made.top(5) == [Entry(1, 1, 5, 5)]


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "update", "update", "update"]),
        st.integers(1, 12),
        st.integers(0, 4),
        st.integers(0, 3),
    ),
    max_size=60,
)


def test_a_snapshot_stays_as_it_is() -> None:
    made = board((1, 500, 30), (2, 900, 20))
    still = made.snapshot()
    assert still == made
    before = list(still.ranked())
    made.update(1, 1_000, 30)
    assert list(still.ranked()) == before
    still.remove(2)
    assert made.score(2) == 900


@given(CHANGES, st.integers(0, 4), st.booleans())
@settings(max_examples=200)
def test_it_is_a_sorted_list(changes: list[tuple[str, int, int, int]], n: int, still: bool) -> None:
    made = Leaderboard().snapshot() if still else Leaderboard()
    model: dict[int, tuple[int, int]] = {}
    for what, player, score, elapsed_ms in changes:
        if what == "add" and player not in model:
            made.add(player)
            model[player] = (0, 0)
        elif what == "remove" and player in model:
            made.remove(player)
            del model[player]
        elif what == "update" and player in model:
            made.update(player, score, elapsed_ms)
            model[player] = (score, elapsed_ms)
    order = sorted(model, key=lambda p: (-model[p][0], model[p][1], p))
    expected = [Entry(1 + sum(s > model[p][0] for s, _ in model.values()), p, *model[p]) for p in order]
    assert list(made.ranked()) == expected
    assert len(made) == len(model)
    assert made.top(n) == expected[:n]
    for place, entry in enumerate(expected):
        assert made.rank(entry.player) == entry.rank
        assert made.score(entry.player) == entry.score
        assert made.around(entry.player, n) == expected[max(0, place - n) : place + n + 1]
