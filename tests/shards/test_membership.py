"""Who is a member, and who is certainly none."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from engine.shards.membership import Changes, Membership
from engine.shards.ports import Beat, Load, Member
from engine.shards.ring import Ring
from tests.shards.making import member_of

TTL_S = 3.0
A, B, C = (member_of(name) for name in "abc")


def beat(*members: Member, store: str = "redis 1", strange: str = "") -> Beat:
    return Beat([(member, Load()) for member in members], store, frozenset(strange.split()))


def hear(state: Membership, at_s: float, *members: Member, store: str = "redis 1") -> Changes:
    """Answered at once, and the ring placed."""
    changes = state.heard(at_s, at_s, beat(*members, store=store))
    if state.ring.nodes != state.weights:
        state.placed(Ring.of(state.weights))
    return changes


def in_view(*members: Member) -> Membership:
    """These have been members for so long that Redis is believed, at 3 s."""
    state = Membership(TTL_S)
    for at_s in range(4):
        hear(state, at_s, *members)
    return state


def test_changes_have_members_that_join_change_and_leave() -> None:
    state = Membership(TTL_S)
    assert hear(state, 0, A) == Changes(joined=(A,))
    assert not hear(state, 1, A)
    draining = member_of("b", draining=True)
    assert hear(state, 2, A, B) == Changes(joined=(B,))
    assert hear(state, 3, A, draining) == Changes(changed=(draining,))
    assert hear(state, 4, A) == Changes(left=(draining,))
    assert list(state.live.values()) == [A]
    assert set(state.loads) == {A.run}


def test_the_pages_of_a_node_are_known_longer_than_it_lives() -> None:
    state = in_view(A, B)
    hear(state, 4, A)
    assert set(state.pages) == {A.http_url, B.http_url}
    for number in range(1_000):
        hear(state, 5 + number, A, replace(B, run=f"b/{number}", http_url=f"http://b:{number}"))
    assert A.http_url in state.pages
    assert len(state.pages) == 256


def test_loads_are_no_change() -> None:
    state = in_view(A)
    assert not state.heard(4, 4, Beat([(A, Load(sessions=7))], "redis 1"))
    assert state.loads[A.run].sessions == 7


def test_a_heartbeat_is_overdue_when_half_of_its_ttl_is_over() -> None:
    state = Membership(TTL_S)

    def ask(at_s: float, **left_s: float) -> None:
        state.heard(
            at_s, at_s, replace(beat(A, B), left_s={f"{name}/1": left for name, left in left_s.items()})
        )

    ask(0, a=3.0, b=1.9)  # asked just before the next one is due
    assert not state.overdue(B.run)
    ask(1, a=3.0, b=1.4)
    assert (state.overdue(A.run), state.overdue(B.run)) == (False, True)
    state.failed()
    assert not state.overdue(B.run), "nothing is known while Redis is away"
    ask(2, a=3.0, b=2.5)
    assert not state.overdue(B.run)
    hear(state, 2.5, A)
    assert state.live[B.run] == B
    assert state.overdue(B.run), "it has expired, and Redis is not believed yet about that"


def test_a_member_that_vanishes_is_gone() -> None:
    state = in_view(A, B)
    assert not state.gone(B.run, 3)
    hear(state, 4, A)
    assert state.gone(B.run, 4)
    assert not state.gone(A.run, 4)
    assert state.gone("never heard of", 4)


def test_nobody_is_gone_before_redis_was_in_view_for_a_ttl() -> None:
    state = Membership(TTL_S)
    assert not state.gone(B.run, 0)
    hear(state, 0, A)
    hear(state, 2.9, A)
    assert not state.gone(B.run, 2.9)
    assert not state.gone(B.run, 3.1)
    hear(state, 3.1, A)
    assert state.gone(B.run, 3.1)


def test_a_redis_that_started_empty_declares_nobody_dead() -> None:
    state = in_view(A, B, C)
    before = state.ring
    assert not hear(state, 4, A, store="redis 2")
    assert not hear(state, 5, A, B, store="redis 2")
    assert not state.gone(C.run, 5)
    assert set(state.live) == {A.run, B.run, C.run}
    assert state.ring is before
    hear(state, 6, A, B, store="redis 2")
    assert hear(state, 7, A, B, store="redis 2") == Changes(left=(C,))
    assert state.gone(C.run, 7)
    assert list(state.ring.nodes) == ["a", "b"]


def test_everybody_has_a_ttl_to_come_back_after_redis_was_away() -> None:
    state = in_view(A, B)
    state.failed()
    assert not hear(state, 6.1, A)
    hear(state, 8, A)
    assert not state.gone(B.run, 8)
    assert B.run in state.live
    hear(state, 9.1, A)
    assert state.gone(B.run, 9.1)
    assert B.run not in state.live


def test_a_break_shorter_than_the_ttl_is_none() -> None:
    state = in_view(A, B)
    state.failed()
    hear(state, 6, A)
    assert state.gone(B.run, 6)


def test_while_redis_is_away_nobody_is_gone() -> None:
    state = in_view(A, B)
    hear(state, 4, A)
    assert state.gone(B.run, 4)
    state.failed()
    assert not state.gone(B.run, 4.5)
    assert not state.reached


def test_an_old_answer_proves_nothing() -> None:
    state = in_view(A, B)
    hear(state, 4, A)
    assert state.gone(B.run, 7)
    assert not state.gone(B.run, 7.1)


def test_an_answer_counts_from_when_it_was_asked_for() -> None:
    state = Membership(TTL_S)
    state.heard(0.5, 0, beat(A, B))
    state.heard(2.5, 1.5, beat(A, B))
    state.heard(3.9, 3.4, beat(A))
    assert not state.gone(B.run, 3.9)
    state.heard(4.1, 3.6, beat(A))
    assert state.gone(B.run, 4.1)


def test_a_node_that_has_announced_its_end_is_dropped_at_once() -> None:
    state = Membership(TTL_S)
    hear(state, 0, A, B)
    assert state.left(B.run) == Changes(left=(B,))
    assert not state.gone(B.run, 0)
    assert not hear(state, 1, A, B)
    assert B.run not in state.live
    assert not hear(state, 2, A)
    assert not state.left("never heard of")


def test_a_run_that_is_not_understood_is_no_member_and_not_gone() -> None:
    state = in_view(A)
    assert not state.heard(4, 4, beat(A, strange="b/1"))
    assert not state.gone("b/1", 4)
    assert state.member_named("b") is None


def test_a_later_run_takes_the_place_of_an_earlier_one() -> None:
    later = member_of("b", 2, weight=3)
    state = in_view(A, B)
    before = state.ring
    hear(state, 4, A, later, B)
    assert state.member_named("b") == later
    assert set(state.live) == {A.run, B.run, later.run}
    assert dict(state.ring.nodes) == {"a": 1, "b": 3}
    assert state.ring is not before


def test_the_ring_is_of_those_that_take_sessions() -> None:
    state = Membership(TTL_S)
    hear(state, 0, A, member_of("b", draining=True), member_of("c", role="api"), member_of("d", weight=2))
    assert dict(state.ring.nodes) == {"a": 1, "d": 2}
    hear(state, 1, member_of("a", draining=True))
    assert dict(state.ring.nodes) == {"d": 2}
    state.left("d/1")
    state.placed(Ring.of(state.weights))
    assert state.ring.owner_of("s") is None


def test_a_ring_of_other_nodes_is_passed_over() -> None:
    state = Membership(TTL_S)
    state.heard(0, 0, beat(A, B))
    state.placed(Ring.of({"a": 1}))
    assert not state.ring.nodes
    state.placed(Ring.of({"a": 1, "b": 1}))
    assert list(state.ring.nodes) == ["a", "b"]


steps = st.lists(
    st.tuples(
        st.floats(0, 4),
        st.floats(0, 2),
        st.frozensets(st.sampled_from("abc")),
        st.sampled_from(["redis 1", "redis 1", "redis 2", None]),
    ),
    max_size=12,
)


@given(steps)
def test_a_dropped_member_was_missing_from_a_redis_in_view_for_a_ttl(
    history: list[tuple[float, float, frozenset[str], str | None]],
) -> None:
    """Written down once more, from the history alone."""
    state = Membership(TTL_S)
    now_s, answers = 0.0, []
    for pause_s, took_s, names, store in history:
        asked_s = now_s + pause_s
        now_s = asked_s + took_s
        if store is None:
            state.failed()
            assert not any(state.gone(f"{name}/1", now_s) for name in "abc")
            continue
        changes = state.heard(now_s, asked_s, beat(*(member_of(name) for name in names), store=store))
        answers.append((asked_s, now_s, store))
        since = len(answers) - 1
        while (
            since > 0
            and answers[since - 1][2] == store
            and answers[since][1] - answers[since - 1][0] <= TTL_S
        ):
            since -= 1
        believed = asked_s - answers[since][1] >= TTL_S
        for name in "abc":
            assert state.gone(f"{name}/1", now_s) == (believed and name not in names and took_s <= TTL_S)
        assert believed or not changes.left
        assert names <= {member.name for member in state.live.values()}
