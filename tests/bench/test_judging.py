"""What attacks and losses are judged by: when a player plays again, and what is not stored."""

from __future__ import annotations

from typing import cast

import pytest

from bench.attacks import missing_in
from bench.recovery import AT_OWNER, AT_RELAYS, GAP_S, Play, Player, Seen
from loadtest.runs.proof import StoredAnswer


def player(heard_at: list[float], acked_at: list[float]) -> Player:
    made = Player(cast(Play, None), AT_OWNER, 1, 0)
    made.heard_at, made.acked_at = heard_at, acked_at
    return made


def every(begin: float, end: float) -> list[float]:
    return [begin + n * 0.5 for n in range(int((end - begin) * 2) + 1)]


def test_a_player_plays_again_when_both_acks_and_broadcasts_have_come_back() -> None:
    fault_at, now = 10.0, 30.0
    undisturbed = every(5.0, now)
    assert player(undisturbed, undisturbed).plays_again_s(fault_at, now) == 0
    away = [*every(5.0, fault_at), *every(14.0, now)]
    assert player(undisturbed, away).plays_again_s(fault_at, now) == 4
    assert player([*every(5.0, fault_at), *every(17.0, now)], away).plays_again_s(fault_at, now) == 7
    twice = [*every(5.0, 12.0), *every(15.0, 16.0), *every(16.0 + GAP_S + 0.5, now)]
    assert player(undisturbed, twice).plays_again_s(fault_at, now) == pytest.approx(8)


def test_who_hears_nothing_until_the_end_does_not_play_again() -> None:
    assert player(every(5.0, 30.0), every(5.0, 11.0)).plays_again_s(10.0, 30.0) is None
    assert player([], []).plays_again_s(10.0, 30.0) is None


def test_everybody_is_the_last_kind_of_players_and_who_never_came_is_told() -> None:
    seen = Seen("hung", True, {AT_OWNER: [4.0, 5.0], AT_RELAYS: [6.0, None]}, acked=1_000)
    cells = [cell.strip() for cell in seen.row().strip("|").split("|")]
    assert cells[3] == "33.0 / 60.0, 1 not within 60"
    assert cells[4] == "4.5 / 5.0"
    assert cells[6] == "-"
    assert cells[7:] == ["1,000", "0", "0"]


def test_an_ack_is_kept_only_by_a_row_with_its_time() -> None:
    rows = [StoredAnswer(1, 1, 500, True, 900), StoredAnswer(1, 2, 501, True, 900)]
    assert missing_in({(1, 1): 500}, rows) == 0
    assert missing_in({(1, 1): 500, (1, 2): 500, (2, 1): 500}, rows) == 2
