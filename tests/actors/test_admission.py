"""Who may come in to a session: the door by itself, and with the session behind it."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.admission import (
    AGAIN_MS,
    GONE_MS,
    REFUSED_MAX,
    WAITING_MAX,
    WAITING_PER_ADDRESS_MAX,
    AdmissionControl,
)
from engine.actors.commands import Join, Rejoin
from engine.actors.options import ActorOptions
from engine.domain.errors import Refusal
from engine.domain.facts import LockChanged
from engine.domain.session import Applied, Session, Settings
from tests.actors.world import QUIZ, Client, World, settle, world


def code(refusal: Refusal | None) -> str | None:
    return None if refusal is None else refusal.code


def admission(joins_per_s: float = 1e6, most: int = 1_000_000, per_s: float = 1e6) -> AdmissionControl:
    return AdmissionControl("session-1", joins_per_s, most, per_s)


# -- seats -------------------------------------------------------------------------------------------


def test_a_school_behind_one_address_is_in_within_a_minute() -> None:
    school = admission(joins_per_s=5_000, most=2_000, per_s=25)
    seated, now = 0, 0
    while seated < 1_500:
        if school.refuse("192.0.2.7", now) is None:
            school.seat("192.0.2.7", now)
            seated += 1
        else:
            now += 10
    assert 30_000 <= now <= 45_000


def test_bots_of_one_address_take_no_more_than_its_share_and_cost_others_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crowded = admission(most=2_000, per_s=25)
    seated = 0
    for now in range(0, 600_000, 10):
        if crowded.refuse("192.0.2.7", now) is None:
            crowded.seat("192.0.2.7", now)
            seated += 1
        if now == 10_000:
            assert seated == 500 + 250
    assert seated == 2_000
    assert code(crowded.refuse("192.0.2.7", 600_000)) == "address_full"
    assert crowded.refuse("192.0.2.8", 600_000) is None
    assert crowded.refuse(None, 600_000) is None
    assert len(caplog.records) == 1
    assert "proxy_hops" in caplog.text


def test_all_joins_of_a_session_have_a_rate_too() -> None:
    rushed = admission(joins_per_s=2)
    for address in ("a", "b"):
        assert rushed.refuse(address, 0) is None
        rushed.seat(address, 0)
    assert code(rushed.refuse("c", 0)) == "busy"
    assert rushed.refuse("c", 500) is None


# -- those who wait ----------------------------------------------------------------------------------


def test_a_bounded_number_waits_and_one_address_leaves_room_for_others() -> None:
    crowded = admission()
    bots = [crowded.wait(f"bot-{n}", n, str(n), "bots", 0) for n in range(WAITING_MAX)]
    assert bots.count(None) == WAITING_PER_ADDRESS_MAX <= WAITING_MAX // 10
    others = [crowded.wait(f"other-{n}", n, str(n), f"{n}", 0) for n in range(WAITING_MAX)]
    assert others.count(None) == WAITING_MAX - WAITING_PER_ADDRESS_MAX
    listed, count = crowded.waiting(0)
    assert (len(listed), count) == (100, WAITING_MAX)
    assert crowded.wait("bot-0", 0, "0", "bots", 1_000) is None, "who waits already may ask again"


def filled(addresses: int) -> AdmissionControl:
    crowded = admission()
    for n in range(WAITING_MAX):
        assert crowded.wait(f"bot-{n}", n, str(n), f"bots-{n % addresses}", 0) is None
    return crowded


@pytest.mark.parametrize("number", [None, 1])
def test_to_refuse_frees_the_places_at_once(number: int | None) -> None:
    crowded = filled(10)
    assert code(crowded.wait("ada", "Ada", "Ada", "school", 0)) == "busy"
    crowded.decide(number, 0, admitted=False)
    assert crowded.waiting(0)[1] == (0 if number is None else WAITING_MAX - 1)
    assert crowded.wait("ada", "Ada", "Ada", "school", 0) is None
    assert crowded.decision("bot-0", 0) is False
    assert crowded.decision("bot-0", "another name") is None
    assert code(crowded.decide(1, 0, admitted=True)) == "player_not_found"
    crowded.forget("bot-0")
    assert crowded.decision("bot-0", 0) is None, "has heard of it"


def test_the_refused_are_remembered_for_as_long_as_they_may_ask_and_no_more_than_so_many() -> None:
    crowded = admission()
    for n in range(REFUSED_MAX + 1):
        assert crowded.wait(f"bot-{n}", n, str(n), "bots", 0) is None
        crowded.decide(None, 0, admitted=False)
    remembered = [crowded.decision(f"bot-{n}", n) for n in range(REFUSED_MAX + 1)]
    assert remembered == [None] + [False] * REFUSED_MAX
    crowded.waiting(GONE_MS)
    assert crowded.decision(f"bot-{REFUSED_MAX}", REFUSED_MAX) is None


def test_an_admitted_player_is_not_refused_with_all_others() -> None:
    calm = admission()
    for n in range(3):
        calm.wait(f"ticket-{n}", n, str(n), "school", 0)
    calm.decide(2, 0, admitted=True)
    calm.decide(None, 0, admitted=False)
    assert [calm.decision(f"ticket-{n}", n) for n in range(3)] == [False, True, False]


def test_addresses_take_turns_in_the_list_so_that_none_hides_the_others() -> None:
    crowded = admission()
    for n in range(WAITING_PER_ADDRESS_MAX):
        crowded.wait(f"bot-{n}", n, f"bot {n}", "bots", 0)
    for n in range(3):
        crowded.wait(f"pupil-{n}", n, f"pupil {n}", "school", 0)
    listed, count = crowded.waiting(0)
    assert count == WAITING_PER_ADDRESS_MAX + 3
    names = [each["name"] for each in listed]
    assert names[:7] == ["bot 0", "pupil 0", "bot 1", "pupil 1", "bot 2", "pupil 2", "bot 3"]


def test_a_waiting_player_that_stops_asking_is_dropped() -> None:
    quiet = admission()
    quiet.wait("a", "Ada", "Ada", "x", 0)
    quiet.wait("b", "Ben", "Ben", "x", 0)
    quiet.wait("b", "Ben", "Ben", "x", GONE_MS - 1)
    assert quiet.waiting(GONE_MS) == ([{"id": 2, "name": "Ben"}], 1)


# -- the session behind it ---------------------------------------------------------------------------


def test_a_session_lets_in_whom_the_host_has_admitted() -> None:
    session = Session(QUIZ, Settings(approval=True), 0)
    assert session.join(" Ada ", 1) == Applied("Ada")
    assert session.take_facts() == []
    session.join("Ada", 1, admitted=True)
    assert isinstance(session.join("ada", 1), Refusal), "the name is taken"
    assert len(session.players) == 1


def test_a_lock_is_taken_away_again_to_what_was_before() -> None:
    session = Session(QUIZ, Settings(), 0)
    session.ask_first(True, 1)
    session.ask_first(True, 2)
    session.lock(True, 3)
    assert (session.locked, session.approval) == (True, True)
    session.lock(False, 4)
    assert (session.locked, session.approval) == (False, True)
    session.ask_first(False, 5)
    assert (session.locked, session.approval) == (False, False)
    facts = session.take_facts()
    assert facts == [
        LockChanged(1, 1, None),
        LockChanged(2, 3, True),
        LockChanged(3, 4, None),
        LockChanged(4, 5, False),
    ]
    assert Session.recover(QUIZ, Settings(), 0, facts) == session


async def ask(w: World, actor: SessionActor, name: str, ticket: str) -> Client:
    client = Client()
    actor.send(Join(client, name, w.clock.now_ms(), address="192.0.2.7", ticket=ticket))
    await settle()
    return client


async def test_the_host_hears_who_waits_and_those_hear_what_it_decides(mock_clock: MockClock) -> None:
    async with world(ActorOptions(tick_ms=250)) as w:
        actor = await w.session(approval=True)
        host = await w.host(actor)
        ada = await ask(w, actor, "Ada", "ticket-a")
        assert ada.last("waiting") == {
            "t": "waiting",
            "code": actor.code,
            "ticket": "ticket-a",
            "again_ms": AGAIN_MS,
        }
        await ask(w, actor, "Ben", "ticket-b")
        mock_clock.jump(1)
        await settle()
        assert host.last("waiting_list")["players"] == [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Ben"}]
        heard = len(host.got("waiting_list"))
        await ask(w, actor, "Ada", "ticket-a")
        mock_clock.jump(1)
        await settle()
        assert len(host.got("waiting_list")) == heard, "nothing is new"
        assert (await w.do(actor, "admit", player=1)).kinds == ["done"]
        assert (await ask(w, actor, "Ada", "ticket-a")).last("joined")["player"] == 1
        assert (await w.do(actor, "refuse", player=2)).kinds == ["done"]
        assert (await ask(w, actor, "Ben", "ticket-b")).errors == ["not_admitted"]
        mock_clock.jump(1)
        await settle()
        assert host.last("waiting_list") == {"t": "waiting_list", "players": [], "count": 0}
        assert actor.session.active == 1


async def test_a_waiting_player_is_listed_again_after_a_crash(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        await w.do(actor, "approval", on=True)
        await ask(w, actor, "Ada", "ticket-a")
        actor.send(Rejoin(Client(), "player", ["no number"]))  # type: ignore[arg-type]  # a crash
        await settle()
        mock_clock.jump(1)
        await settle()
        revived = await w.node.get(actor.session_id)
        assert revived is not actor
        assert revived.session.approval, "that was acknowledged"
        assert (await ask(w, revived, "Ada", "ticket-a")).kinds == ["waiting"]
        await w.do(revived, "admit")
        assert (await ask(w, revived, "Ada", "ticket-a")).kinds == ["joined"]
