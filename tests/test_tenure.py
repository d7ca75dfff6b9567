"""When a node may trust that its sessions are its own."""

from __future__ import annotations

import pytest

from engine.tenure import Lease, OnlyNode


class Life:
    """A node that beats and looks twice a second, from second 0 on."""

    def __init__(self) -> None:
        self.only = OnlyNode(settle_s=2.0, frozen_max_s=2.0)
        self.now_s = 0.0
        self.signs: dict[str, int] = {}
        self.database = True
        self.proofs = True

    def live(self, seconds: float, *others: str) -> None:
        """Others give signs of life meanwhile."""
        for _ in range(int(seconds * 2)):
            self.now_s += 0.5
            for other in others:
                self.signs[other] = int(self.now_s * 1000)
            self.only.beat(self.now_s)
            if self.database:
                self.only.looked(self.now_s, self.signs)
                if self.proofs and self.only.to_prove(self.now_s):
                    self.only.proved(self.now_s, self.now_s)

    @property
    def certain(self) -> bool:
        return self.only.certain(self.now_s)


def test_it_takes_a_while_of_quiet_to_be_certain() -> None:
    life = Life()
    life.signs = {"gone for long": 17}
    life.live(2)
    assert not life.certain
    life.live(1)
    assert life.certain


def test_quiet_alone_is_not_enough_every_session_must_be_its_own() -> None:
    life = Life()
    life.proofs = False
    life.live(10)
    assert life.only.to_prove(life.now_s)
    assert not life.certain
    life.only.proved(life.now_s, life.now_s)
    assert life.certain


def test_a_proof_from_before_the_last_look_proves_nothing() -> None:
    life = Life()
    life.proofs = False
    life.live(10)
    life.only.proved(life.now_s - 1, life.now_s)
    assert not life.certain


def test_it_stays_certain_while_the_database_is_away() -> None:
    life = Life()
    life.live(5)
    life.database = False
    life.live(3600)
    assert life.certain


def test_another_node_ends_it_at_once_and_for_as_long_as_it_lives() -> None:
    life = Life()
    life.live(5)
    life.live(0.5, "other")
    assert not life.certain
    life.live(60, "other")
    assert not life.certain
    life.live(1.5)
    assert not life.certain
    life.live(0.5)
    assert life.certain


def test_the_database_goes_away_while_another_node_is_there() -> None:
    life = Life()
    life.live(5)
    life.live(1, "other")
    life.database = False
    life.live(60)
    assert not life.certain


def test_who_was_stopped_is_not_certain_not_even_before_its_next_beat() -> None:
    life = Life()
    life.live(5)
    life.now_s += 2.5
    assert not life.certain
    life.database = False
    life.live(60)
    assert not life.certain
    life.database = True
    life.live(2)
    assert not life.certain
    life.live(1)
    assert life.certain


def test_who_was_stopped_while_another_came_and_went_must_prove_every_session() -> None:
    life = Life()
    life.live(5)
    life.proofs = False
    life.now_s += 600
    life.signs["came and went"] = 99
    life.live(60)
    assert not life.certain
    assert life.only.to_prove(life.now_s)


def test_a_lease_holds_from_when_it_was_asked_for_until_a_margin_before_its_end() -> None:
    lease = Lease(ttl_s=10, margin_s=2)
    assert not lease.certain(0)
    lease.renewed(100)
    assert lease.certain(100)
    assert lease.certain(107.9)
    assert not lease.certain(108)
    lease.renewed(105)
    lease.renewed(103)
    assert lease.certain(112.9)
    assert not lease.certain(113)


def test_a_lost_lease_is_lost_at_once() -> None:
    lease = Lease(ttl_s=10, margin_s=2)
    lease.renewed(100)
    lease.lost()
    assert not lease.certain(100)
    lease.renewed(101)
    assert lease.certain(101)


@pytest.mark.parametrize("margin_s", [0, -1, 10, 11])
def test_a_margin_must_lie_within_the_lease(margin_s: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        Lease(ttl_s=10, margin_s=margin_s)
