"""Quizzes and sessions to test with."""

from __future__ import annotations

from typing import Any

from engine.domain.facts import PlayerJoined
from engine.domain.quiz import Question, Quiz
from engine.domain.session import Phase, Session
from tests.settings import at_once

CREATED_AT = 1_000_000
"""When every session here was created; it starts right then."""

ONE_OF_EACH: list[dict[str, Any]] = [
    {"type": "single", "text": "One?", "choices": ["a", "b", "c"], "correct": "b"},
    {"type": "multiple", "text": "Several?", "choices": ["a", "b", "c"], "correct": ["c", "a"]},
    {"type": "true_false", "text": "True?", "correct": True},
    {"type": "text", "text": "Typed?", "accept": ["São Paulo", "Sampa"]},
    {"type": "numeric", "text": "How many?", "correct": 0.2, "tolerance": 0.1},
]


def quiz_data(*questions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"title": "Test", "questions": [dict(q) for q in questions or ONE_OF_EACH], **more}


def quiz_of(*questions: dict[str, Any], **more: Any) -> Quiz:
    return Quiz.parse(quiz_data(*questions, **more))


def question_of(**fields: Any) -> Question:
    return quiz_of({"text": "?", **fields}).questions[0]


def singles(n: int, **fields: Any) -> list[dict[str, Any]]:
    """Questions of which choice 1 is right, 30 s and 1000 points each."""
    one = {"type": "single", "text": "?", "choices": ["a", "b"], "correct": "b", "time_limit_s": 30}
    return [{**one, **fields} for _ in range(n)]


def session_of(players: int = 0, quiz: Quiz | None = None, **settings: Any) -> Session:
    session = Session(quiz or quiz_of(*singles(3)), at_once(**settings), CREATED_AT)
    for n in range(1, players + 1):
        joined = session.join(f"player {n}", CREATED_AT)
        assert isinstance(joined, PlayerJoined)
    return session


def started(players: int = 0, quiz: Quiz | None = None, **settings: Any) -> Session:
    session = session_of(players, quiz, **settings)
    assert session.start(CREATED_AT) is None
    return session


def in_phase(name: str) -> Session:
    """A session with two players in a phase; `paused question` and the like say where it was paused."""
    session = session_of(2, pace="self" if name == "open" else "host")
    phase = name.removeprefix("paused ")
    if name == "open":
        assert session.phase is Phase.OPEN
        return session
    if phase != "lobby":
        session.start(CREATED_AT)
    if phase in ("reveal", "last reveal"):
        session.close(CREATED_AT)
    if phase == "last reveal":
        for _ in range(2):
            session.next(CREATED_AT)
            session.close(CREATED_AT)
    if phase == "finished":
        session.finish(CREATED_AT)
    if name.startswith("paused "):
        session.pause(CREATED_AT)
    assert session.phase == Phase(name.split()[0] if name != "last reveal" else "reveal")
    return session
