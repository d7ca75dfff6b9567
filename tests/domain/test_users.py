"""One user of the app has one seat in a session, in whatever order things happen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.domain.audit import Evidence, audit
from engine.domain.errors import Refusal
from engine.domain.facts import PlayerJoined
from engine.domain.session import Session
from tests.domain.making import CREATED_AT, quiz_of, singles
from tests.settings import at_once

USERS = st.sampled_from([None, "1", "2", "3"])
NAMES = st.sampled_from(["Ada", "ADA", "Ada 2", "Ben", "#1", "M" * 40])
STEPS = st.lists(st.tuples(st.sampled_from(["join", "merge", "kick", "erase"]), USERS, NAMES), max_size=30)


@given(STEPS)
def test_a_user_has_one_seat_and_the_facts_give_the_same_session(
    steps: list[tuple[str, str | None, str]],
) -> None:
    quiz, settings = quiz_of(*singles(2)), at_once(names="chosen")
    session = Session(quiz, settings, CREATED_AT)
    erased: set[int] = set()
    for step, user_id, name in steps:
        match step:
            case "join" if user_id is None:
                session.join(name, CREATED_AT)
            case "join" if session.seat_of_user(user_id) is None:
                joined = session.join(None, CREATED_AT, user_id=user_id, signed_name=name)
                assert not isinstance(joined, Refusal)
            case "merge":
                session.merge_player(PlayerJoined(1, CREATED_AT, 1, name[:32], user_id=user_id))
            case "kick":
                session.kick(len(name), CREATED_AT)
            case "erase" if session.erase(len(name) - 2, CREATED_AT) is None:
                erased.add(len(name) - 2)
    facts = [
        PlayerJoined(fact.seq, fact.at, fact.player, f"#{fact.player}", erased=True)
        if isinstance(fact, PlayerJoined) and fact.player in erased
        else fact
        for fact in session.take_facts()
    ]
    assert Session.recover(quiz, settings, CREATED_AT, facts) == session
    users = [each.user_id for each in session.players.values() if each.user_id is not None]
    assert sorted(users) == sorted(set(users))
    assert {user: session.seat_of_user(user) for user in users} == {
        each.user_id: each.id for each in session.players.values() if each.user_id is not None
    }
    found = audit(Evidence(quiz, CREATED_AT, None, facts, (), {}, []))
    assert "user" not in {each.kind for each in found}


def test_a_thousand_users_of_one_name_get_a_thousand_names() -> None:
    session = Session(quiz_of(*singles(1)), at_once(), CREATED_AT)
    for number in range(1_000):
        joined = session.join(None, CREATED_AT, user_id=str(number), signed_name="Maria")
        assert isinstance(joined, PlayerJoined)
    names = {each.name for each in session.players.values()}
    assert names == {"Maria", *(f"Maria {number}" for number in range(2, 1_001))}
