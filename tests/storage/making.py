"""Quizzes, sessions and facts to store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from uuid import uuid4

import trio
from hypothesis import strategies as st

from engine.domain import facts as f
from engine.domain.quiz import Quiz
from engine.domain.session import Settings
from engine.ports import Commit, PlayerResult, SessionRecord, SessionStore

AT = 1_790_000_000_123
"""A moment with odd milliseconds."""

_codes = count(100_000)


def quiz_of(title: str = "Capitals", questions: int = 1) -> Quiz:
    question = {"type": "true_false", "text": "Is Paris one?", "correct": True}
    return Quiz.parse({"title": title, "questions": [question] * questions})


EVERY_KIND = Quiz.parse(
    {
        "title": "Ünïcødé “quotes” \U0001f600",
        "description": "two\nlines",
        "language": "pt-BR",
        "scoring": {"rule": "flat", "streak": True},
        "questions": [
            {"type": "single", "text": "1?", "choices": ["a", "b"], "correct": "b", "time_limit_s": 1.5},
            {"type": "multiple", "text": "2?", "choices": ["a", "b", "c"], "correct": ["a", "c"]},
            {"type": "true_false", "text": "3?", "correct": False},
            {"type": "text", "text": "4?", "accept": ["São Paulo", "\\ \" '"]},
            {"type": "numeric", "text": "5?", "correct": 1e300, "tolerance": 1e-300},
            {"type": "numeric", "text": "6?", "correct": -3, "tolerance": 0.1},
            {"type": "numeric", "text": "7?", "correct": 2.0},
        ],
    }
)


def record_of(quiz_id: str, code: str | None = None, created_at: int = AT, version: int = 1) -> SessionRecord:
    settings = Settings(pace="auto", player_limit=7, lobby_ms=1234)
    return SessionRecord(str(uuid4()), code or str(next(_codes)), quiz_id, version, settings, created_at)


def joined(
    seq: int, player: int | None = None, name: str | None = None, user_id: str | None = None
) -> f.PlayerJoined:
    player = player or seq
    return f.PlayerJoined(seq, AT + seq, player, name or f"player {player}", user_id=user_id)


def answered(
    seq: int, player: int, question: int = 1, choice: f.Choice = 0, points: int = 0, elapsed_ms: int = 1000
) -> f.AnswerAccepted:
    return f.AnswerAccepted(seq, AT + seq, player, question, choice, elapsed_ms, points > 0, points)


def merged(
    seq: int, player: int, question: int = 1, points: int = 0, *, at: int, elapsed_ms: int = 1000
) -> f.AnswerMerged:
    return f.AnswerMerged(seq, at, player, question, 0, elapsed_ms, points > 0, points)


ONE_OF_EACH: Sequence[f.Fact] = (  # that the first release knew
    joined(1, 1, "Ann"),
    joined(2, 2, "Zoë \U0001f600"),
    f.LockChanged(3, AT + 3, True),
    f.QuestionOpened(4, AT + 4, 1),
    answered(5, 1, 1, choice=1, points=967),
    f.Paused(6, AT + 6),
    f.ClockExtended(7, AT + 7, 3_000_000_000),
    f.Resumed(8, AT + 8),
    answered(9, 2, 1, choice=(0, 2), points=500),
    f.QuestionClosed(10, AT + 10, 1),
    f.PlayerKicked(11, AT + 11, 2),
    f.LockChanged(12, AT + 12, False),
    f.Finished(13, AT + 13),
)

_ats = st.integers(0, 4_000_000_000_000)
_players = st.integers(1, 100_000)
_questions = st.integers(1, 200)
_names = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=32
)

choices: st.SearchStrategy[f.Choice] = st.one_of(
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(), max_size=50),
    st.lists(st.integers(0, 7), unique=True, max_size=8).map(tuple),
)


_here = {"seq": st.just(0), "at": _ats}
_answers = st.builds(
    f.AnswerAccepted,
    player=_players,
    question=_questions,
    choice=choices,
    elapsed_ms=st.integers(0, 600_000),
    correct=st.booleans(),
    points=st.integers(0, 10_500),
    **_here,
)
_merged = st.builds(
    f.AnswerMerged,
    player=_players,
    question=_questions,
    choice=choices,
    elapsed_ms=st.integers(0, 600_000),
    correct=st.booleans(),
    points=st.integers(0, 10_500),
    **_here,
)
_facts = st.one_of(
    st.builds(f.PlayerJoined, player=_players, name=_names, user_id=st.none() | _names, **_here),
    st.builds(f.PlayerKicked, player=_players, **_here),
    st.builds(f.PlayerReadmitted, player=_players, **_here),
    st.builds(f.ExtraTimeGiven, player=_players, percent=st.sampled_from((0, 100, 150, 400)), **_here),
    _answers,
    _answers,
    _merged,
    st.builds(f.QuestionOpened, question=_questions, ready_ms=st.integers(0, 70_000), **_here),
    st.builds(f.QuestionClosed, question=_questions, **_here),
    st.builds(f.QuestionSkipped, question=_questions, **_here),
    st.builds(f.QuestionShown, player=_players, question=_questions, **_here),
    st.builds(f.AttemptBegun, player=_players, attempt=st.integers(2, 100), plays_as=_players, **_here),
    st.builds(f.PlayerDone, player=_players, **_here),
    st.builds(f.DeadlineMoved, closes_at=_ats, **_here),
    st.builds(f.Paused, **_here),
    st.builds(f.Resumed, **_here),
    st.builds(f.ClockExtended, by_ms=st.integers(1, 10**12), **_here),
    st.builds(f.LockChanged, locked=st.sampled_from((True, False, None)), **_here),
    st.builds(f.HostReplaced, **_here),
    st.builds(f.Finished, **_here),
)


def _key(fact: f.Fact) -> object:
    """A player joins once and answers a question once."""
    if isinstance(fact, f.PlayerJoined):
        return "joined", fact.player
    if isinstance(fact, f.AnswerAccepted):
        return "answered", fact.player, fact.question
    return id(fact)


def _numbered(facts: list[f.Fact]) -> list[f.Fact]:
    distinct = {_key(fact): fact for fact in facts}.values()
    return [replace(fact, seq=seq) for seq, fact in enumerate(distinct, start=1)]


fact_lists: st.SearchStrategy[list[f.Fact]] = st.lists(_facts, min_size=1, max_size=40).map(_numbered)
"""Facts that may stand in one session as far as the tables are concerned; not all could have happened."""


async def results_of(store: SessionStore, session_id: str, up_to: int | None = None) -> list[PlayerResult]:
    results: list[PlayerResult] = []
    await store.results(session_id, results.extend, up_to)
    return results


class Listener:
    """Remembers what it was told, and wakes who waits for it."""

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.fences = 0
        self._changed = trio.Event()

    @property
    def seq(self) -> int:
        return self.seqs[-1] if self.seqs else 0

    def committed(self, seq: int, commit: Commit | None = None) -> None:
        self.seqs.append(seq)
        self._changed.set()

    def fenced(self) -> None:
        self.fences += 1
        self._changed.set()

    async def until(self, seq: int) -> None:
        """Until this much is reported as committed."""
        while self.seq < seq:
            self._changed = trio.Event()
            await self._changed.wait()

    async def until_fenced(self) -> None:
        while not self.fences:
            self._changed = trio.Event()
            await self._changed.wait()
