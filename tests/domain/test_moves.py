"""Every command in every phase: where it leads, or how it is refused. A refusal changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.domain.errors import DomainError, Refusal
from engine.domain.facts import (
    AnswerAccepted,
    Fact,
    Finished,
    Paused,
    PlayerJoined,
    QuestionClosed,
    QuestionOpened,
    Resumed,
)
from engine.domain.phases import COMMANDS, Phase
from engine.domain.session import Session
from tests.domain.making import CREATED_AT, in_phase

AT = CREATED_AT + 1_000

COMMAND: dict[str, Callable[[Session], Any]] = {
    "start": lambda s: s.start(AT),
    "next": lambda s: s.next(AT),
    "close": lambda s: s.close(AT),
    "skip": lambda s: s.skip(AT),
    "pause": lambda s: s.pause(AT),
    "resume": lambda s: s.resume(AT),
    "finish": lambda s: s.finish(AT),
    "lock": lambda s: s.lock(True, AT),
    "approval": lambda s: s.ask_first(True, AT),
    "kick": lambda s: s.kick(1, AT),
    "readmit": lambda s: (s.kick(2, AT), s.readmit(2, AT))[1],
    "extra_time": lambda s: s.give_extra_time(1, 200, AT),
    "extend": lambda s: s.extend(AT + 60_000, AT),
    "show": lambda s: s.show_next(1, [1, 2, 3], AT),
    "join": lambda s: s.join("somebody new", AT),
    "answer": lambda s: s.answer(1, 1, 1, AT),
}

# Rows: phases. An upper-case word is the phase after the command, a lower-case one the code of the refusal.
TABLE = """
phase           start    next     close   skip    pause   resume   finish   lock     approval extra_time readmit  kick     extend  show    join     answer
lobby           QUESTION illegal  illegal illegal PAUSED  illegal  FINISHED LOBBY    LOBBY    LOBBY      LOBBY    LOBBY    illegal illegal LOBBY    wrong_q
question        illegal  illegal  REVEAL  REVEAL  PAUSED  illegal  FINISHED QUESTION QUESTION QUESTION   QUESTION QUESTION illegal illegal QUESTION QUESTION
reveal          illegal  QUESTION illegal REVEAL  PAUSED  illegal  FINISHED REVEAL   REVEAL   REVEAL     REVEAL   REVEAL   illegal illegal REVEAL   closed
last-reveal     illegal  FINISHED illegal REVEAL  PAUSED  illegal  FINISHED REVEAL   REVEAL   REVEAL     REVEAL   REVEAL   illegal illegal REVEAL   closed
paused-lobby    illegal  illegal  illegal illegal illegal LOBBY    FINISHED PAUSED   PAUSED   PAUSED     PAUSED   PAUSED   illegal illegal PAUSED   wrong_q
paused-question illegal  illegal  illegal REVEAL  illegal QUESTION FINISHED PAUSED   PAUSED   PAUSED     PAUSED   PAUSED   illegal illegal PAUSED   paused
paused-reveal   illegal  illegal  illegal illegal illegal REVEAL   FINISHED PAUSED   PAUSED   PAUSED     PAUSED   PAUSED   illegal illegal PAUSED   closed
finished        over     over     over    over    over    over     over     over     over     over       over     over     over    over    over     over
open            illegal  illegal  illegal illegal illegal illegal  FINISHED OPEN     OPEN     OPEN       OPEN     OPEN     OPEN    OPEN    OPEN     wrong_q
"""  # noqa: E501  # a table
CODES = {
    "illegal": "illegal_move",
    "over": "session_finished",
    "wrong_q": "wrong_question",
    "closed": "question_closed",
    "paused": "paused",
}


def cells() -> list[tuple[str, str, str]]:
    header, *rows = [line.split() for line in TABLE.strip().splitlines()]
    return [
        (row[0].replace("-", " "), name, cell)
        for row in rows
        for name, cell in zip(header[1:], row[1:], strict=True)
    ]


@pytest.mark.parametrize(("phase", "command", "expected"), cells())
def test_every_command_in_every_phase(phase: str, command: str, expected: str) -> None:
    session = in_phase(phase)
    facts = session.take_facts()
    outcome = COMMAND[command](session)
    news = session.take_facts()
    before = Session.recover(session.quiz, session.settings, CREATED_AT, facts)
    if expected in CODES:
        assert isinstance(outcome, Refusal)
        assert outcome.code == CODES[expected]
        assert outcome.message
        assert news == []
        assert session == before
    else:
        assert not isinstance(outcome, Refusal)
        assert session.phase == Phase[expected]
        assert news
        before.replay(news)
        assert session == before


def test_the_table_above_has_every_phase_and_every_command() -> None:
    covered = cells()
    assert {phase.split()[0] for phase, _, _ in covered} == {*Phase, "last"}
    assert {command for _, command, _ in covered} == set(COMMAND) >= set(COMMANDS)


def kinds(facts: list[Fact]) -> list[type]:
    return [type(fact) for fact in facts]


@pytest.mark.parametrize(
    ("phase", "facts"),
    [
        ("lobby", [Finished]),
        ("question", [QuestionClosed, Finished]),
        ("reveal", [Finished]),
        ("paused lobby", [Resumed, Finished]),
        ("paused question", [Resumed, QuestionClosed, Finished]),
        ("paused reveal", [Resumed, Finished]),
    ],
)
def test_finish_closes_what_is_open(phase: str, facts: list[type]) -> None:
    session = in_phase(phase)
    session.take_facts()
    assert session.finish(AT) is None
    assert kinds(session.take_facts()) == facts


@pytest.mark.parametrize(
    ("phase", "fact"),
    [
        ("lobby", QuestionClosed(4, AT, 1)),
        ("question", Finished(5, AT)),
        ("reveal", Resumed(6, AT)),
        ("finished", Paused(7, AT)),
        ("paused question", QuestionOpened(6, AT, 2)),
    ],
)
def test_a_fact_that_cannot_have_happened_is_not_replayed(phase: str, fact: Fact) -> None:
    session = in_phase(phase)
    twin = Session.recover(session.quiz, session.settings, CREATED_AT, session.take_facts())
    with pytest.raises(DomainError) as caught:
        twin.replay([fact])
    assert caught.value.code == "bad_fact"
    assert twin == session


@pytest.mark.parametrize("seq", [1, 3, 5])
def test_facts_are_replayed_without_gaps_and_once(seq: int) -> None:
    session = in_phase("question")
    with pytest.raises(DomainError, match="cannot follow"):
        session.replay([AnswerAccepted(seq, AT, 1, 1, 1, 1_000, True, 983)])
    assert session.answered == 0
    assert session.replay([]) is None


def test_replayed_facts_are_not_given_out_again() -> None:
    session = in_phase("lobby")
    twin = Session.recover(session.quiz, session.settings, CREATED_AT, session.take_facts())
    assert twin.take_facts() == []
    joined = twin.join("new", AT)
    assert isinstance(joined, PlayerJoined)
    assert twin.take_facts() == [joined]
    assert twin.take_facts() == []
