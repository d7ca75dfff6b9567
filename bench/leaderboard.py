"""What the standing costs as a session grows: each call of the leaderboard, and a whole answer."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from bench.figures import Costs, Figure
from engine.domain.leaderboard import Leaderboard
from engine.domain.quiz import Quiz
from engine.domain.session import Session
from tests.settings import at_once

SIZES = (1_000, 10_000, 100_000)
ROUNDS = 15
CALLS = 1_000
LIMIT_MS = 20_000
ANSWERED_BY_ALL = 2
"""Questions that everyone answers beforehand, so that the scores are spread."""


def filled(size: int, rng: Random) -> Leaderboard:
    """As in the middle of a game: scores and times all over the place."""
    board = Leaderboard()
    for player in range(1, size + 1):
        board.add(player)
        board.update(player, rng.randrange(10_000), rng.randrange(100_000))
    return board


def measure_board(costs: Costs, board: Leaderboard, size: int, calls: int, rng: Random) -> None:
    players = [rng.randrange(1, size + 1) for _ in range(calls)]
    changes = [(player, rng.randrange(10_000), rng.randrange(100_000)) for player in players]
    with costs.cpu_us("update", size, calls):
        for player, score, elapsed_ms in changes:
            board.update(player, score, elapsed_ms)
    with costs.cpu_us("rank", size, calls):
        for player in players:
            board.rank(player)
    with costs.cpu_us("top(10)", size, calls):
        for _ in players:
            board.top(10)
    with costs.cpu_us("around(2)", size, calls):
        for player in players:
            board.around(player, 2)


def quiz(questions: int) -> Quiz:
    question = {"type": "single", "text": "Which?", "choices": ["a", "b", "c", "d"], "correct": "a"}
    return Quiz.parse({"title": "Bench", "questions": [question] * questions})


def played(size: int, questions: int, rng: Random) -> Session:
    session = Session(quiz(questions), at_once(player_limit=size, early_close=False), 0)
    for player in range(1, size + 1):
        session.join(f"Player {player}", 0)
    for number in range(1, ANSWERED_BY_ALL + 1):
        at = number * LIMIT_MS
        advance(session, at)
        for player in range(1, size + 1):
            session.answer(player, number, rng.randrange(4), at + rng.randrange(LIMIT_MS))
        session.close(at + LIMIT_MS)
        session.take_facts()
    return session


def advance(session: Session, at: int) -> None:
    if session.number:
        session.next(at)
    else:
        session.start(at)


def measure_session(costs: Costs, session: Session, size: int, calls: int, rng: Random) -> None:
    at = (session.number + 1) * LIMIT_MS
    with costs.cpu_us("open a question", size):
        advance(session, at)
    number = session.number
    answers = [
        (player, rng.randrange(4), at + rng.randrange(LIMIT_MS))
        for player in rng.sample(range(1, size + 1), calls)
    ]
    with costs.cpu_us("Session.answer", size, calls):
        for player, choice, answered_at in answers:
            session.answer(player, number, choice, answered_at)
    session.close(at + LIMIT_MS)
    session.take_facts()


def run(sizes: Sequence[int] = SIZES, rounds: int = ROUNDS) -> list[Figure]:
    rng = Random(1)
    calls = min(CALLS, *sizes)
    costs = Costs()
    boards = {size: filled(size, rng) for size in sizes}
    for _ in range(rounds):
        for size, board in boards.items():
            measure_board(costs, board, size, calls, rng)
    sessions = {size: played(size, ANSWERED_BY_ALL + rounds, rng) for size in sizes}
    for _ in range(rounds):
        for size, session in sessions.items():
            measure_session(costs, session, size, calls, rng)
    smallest = sizes[0]
    return [
        Figure(
            what,
            f"{size:,} players",
            costs.median(what, size),
            "µs CPU",
            costs.ratio(what, size, what, smallest),
            f"{smallest:,} players",
        )
        for what in ("update", "rank", "top(10)", "around(2)", "Session.answer", "open a question")
        for size in sizes
    ]
