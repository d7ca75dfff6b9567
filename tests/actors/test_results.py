"""Results of everyone in one pass are those that each would have got."""

from __future__ import annotations

from itertools import islice

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from engine.actors import messages
from engine.actors.commands import Detach, Join
from engine.actors.delivery import fanout
from engine.actors.delivery.frame import Frame, Message
from engine.domain.session import Session
from tests.actors.world import QUIZ, Client, settle, world
from tests.settings import at_once

SECOND = 1000
ANSWERS = st.lists(st.tuples(st.sampled_from([0, 0, 1, None]), st.integers(0, 19 * SECOND)), max_size=30)


def played(rounds: list[list[tuple[int | None, int]]], kicked: list[int]) -> Session:
    """Everyone who is in the longest round has joined; some answered, and the last question is closed."""
    session = Session(QUIZ, at_once(early_close=False), 0)
    for player in range(1, max(map(len, rounds), default=0) + 1):
        session.join(f"P{player}", 0)
    at = 0
    for number, answers in enumerate(rounds, 1):
        at += 100 * SECOND
        session.start(at) if number == 1 else session.next(at)
        for player, (choice, after_ms) in enumerate(answers, 1):
            if choice is not None:
                session.answer(player, number, choice, at + after_ms)
        session.close(at + 20 * SECOND)
    for player in kicked:
        session.kick(player, at + 21 * SECOND)
    return session


def told(frame: Frame | None) -> Message:
    assert frame is not None
    return frame.message


@given(st.lists(ANSWERS, min_size=1, max_size=3), st.lists(st.integers(1, 40), max_size=5))
def test_in_one_pass_and_for_each_they_are_equal(
    rounds: list[list[tuple[int | None, int]]], kicked: list[int]
) -> None:
    session = played(rounds, kicked)
    players = [entry.player for entry in session.leaderboard.ranked()]
    results = list(messages.results(session, players))
    assert [player for player, _ in results] == players
    assert [told(frame) for _, frame in results] == [
        messages.result(session, player).message for player in players
    ]
    finished = list(messages.finished_for_all(session, 7, players))
    assert [player for player, _ in finished] == players
    assert [told(frame) for _, frame in finished] == [
        messages.finished(session, 7, player).message for player in players
    ]


@given(ANSWERS, st.sets(st.integers(1, 30)))
def test_nothing_is_made_for_those_who_are_not_here(
    answers: list[tuple[int | None, int]], here: set[int]
) -> None:
    session = played([answers], [])
    for made in (messages.results(session, here), messages.finished_for_all(session, 1, here)):
        assert all((frame is not None) == (player in here) for player, frame in made)


@given(ANSWERS, st.integers(0, 30), st.data())
def test_what_happens_meanwhile_does_not_show(
    answers: list[tuple[int | None, int]], taken: int, data: st.DataObject
) -> None:
    session = played([answers], [])
    players = [entry.player for entry in session.leaderboard.ranked()]
    expected = [messages.result(session, player).message for player in players]
    results = messages.results(session, players)
    got = list(islice(results, taken))
    session.join("late", 200 * SECOND)
    session.next(200 * SECOND)
    for player in range(1, session.active + 1):
        session.answer(player, 2, data.draw(st.integers(0, 1)), 201 * SECOND)
    if players:
        session.kick(data.draw(st.sampled_from(players)), 202 * SECOND)
    got += results
    if not taken:
        return  # the standing is read with the first of them
    for (player, frame), before in zip(got, expected, strict=True):
        assert told(frame) | {"streak": None} == dict(before) | {"streak": None}, player


async def test_everyone_gets_theirs_whoever_comes_and_goes_meanwhile(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "SLICE_S", 0)  # give way as often as can be
    async with world() as w:
        actor = await w.session(early_close=False)
        players = [await w.join(actor, f"P{number}") for number in range(1, 101)]
        await w.do(actor, "start")
        for number, player in enumerate(players, 1):
            w.answer(actor, player, number, choice=number % 2)
        await settle()
        late = [Client() for _ in range(20)]

        async def come_and_go() -> None:
            for number, each in enumerate(late):
                actor.send(Join(each, f"late {number}", w.clock.now_ms()))
                actor.send(Detach(players[number]))
                w.answer(actor, players[50 + number], 51 + number, choice=2)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.do, actor, "close")
            nursery.start_soon(come_and_go)
        assert w.registry.statistics().crashes == 0
        assert all(each.kinds[0] == "joined" for each in late)
        for number, player in enumerate(players[20:], 21):
            (result,) = player.got("result")
            assert result["rank"] == (1 if number % 2 == 0 else 51)
            assert [line["id"] for line in result["around"]].count(number) == 1
            assert player.kinds.index("reveal") < player.kinds.index("result")
