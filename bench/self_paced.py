"""What a self-paced session keeps in memory of its players, and what it costs to have them play and to bring
it back: the session itself, without connections or a database.

Each size has a process of its own, whose resident memory is read. Every player is a user of an app with a
name, and goes through the quiz in an own order.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

import psutil

from bench.child import child
from bench.figures import Figure
from bench.leaderboard import quiz
from engine.domain.facts import Fact
from engine.domain.leaderboard import Leaderboard
from engine.domain.self_paced_session import Asked
from engine.domain.session import Session
from engine.domain.settings import Settings
from engine.domain.shuffling import order_of_questions, seed_of

SIZES = (20_000, 200_000)
QUESTIONS = 10
RECOVERED = 100_000
"""Players of the session that is brought back from its facts: all of these are in memory meanwhile."""

SETTINGS = Settings(pace="self", player_limit=200_000, shuffle_questions=True)
EVERY_MS = 7_000
"""A player answers so often."""


def resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def grown(since: int) -> int:
    return max(resident() - since, 0)


def joined(size: int, kept: list[Fact] | None) -> Session:
    session = Session(quiz(QUESTIONS), SETTINGS, 0)
    for player in range(1, size + 1):
        session.join(f"Player {player}", 0, user_id=f"user-{player:09}")
        facts = session.take_facts()
        if kept is not None:
            kept += facts
    return session


def play(session: Session, player: int, at: int, kept: list[Fact] | None) -> None:
    """From the first question to the last."""
    order = order_of_questions(seed_of("a session", player, 1), QUESTIONS)
    while isinstance(asked := session.show_next(player, order, at), Asked):
        at += 1_000 + (player * 7919 + asked.question * 104_729) % (EVERY_MS - 1_000)
        session.answer(player, asked.question, (player + asked.question) % 4, at)
        facts = session.take_facts()
        if kept is not None:
            kept += facts


def measure(size: int, control: Connection) -> None:
    """Bytes and microseconds a player, and bytes a player of a leaderboard alone."""
    before = resident()
    board = Leaderboard()
    for player in range(1, size + 1):
        board.add(player)
        board.update(player, (player * 7919) % 10_000, (player * 104_729) % 100_000)
    of_board = grown(before)
    del board
    before = resident()
    session = joined(size, None)
    came = grown(before)
    started = time.process_time()
    for player in range(1, size + 1):
        play(session, player, player * 10, None)
    took_s = time.process_time() - started
    played = grown(before)
    assert session.answered == size
    control.send((of_board, came, played, took_s * 1e6))
    control.recv()


def measure_recovery(size: int, control: Connection) -> None:
    """Bytes of the facts of a player, and microseconds a player."""
    before = resident()
    facts: list[Fact] = []
    session = joined(size, facts)
    for player in range(1, size + 1):
        play(session, player, player * 10, facts)
    del session
    of_facts = grown(before)
    started = time.process_time()
    again = Session.recover(quiz(QUESTIONS), SETTINGS, 0, facts)
    took_s = time.process_time() - started
    assert again.seq == len(facts)
    control.send((of_facts, took_s * 1e6))
    control.recv()


def run(sizes: Sequence[int] = SIZES, recovered: int = RECOVERED) -> list[Figure]:
    figures = []
    for size in sizes:
        with child(measure, size) as (control, _):
            of_board, came, played, took_us = control.recv()
            control.send(None)
        at = f"{size:,} players"
        figures += [
            Figure("leaderboard alone", at, of_board / size, "bytes a player"),
            Figure("joined", at, came / size, "bytes a player"),
            Figure(f"{QUESTIONS} answers", at, played / size, "bytes a player"),
            Figure("shown and answered", at, took_us / size / QUESTIONS, "µs CPU a question"),
        ]
    with child(measure_recovery, recovered) as (control, _):
        of_facts, took_us = control.recv()
        control.send(None)
    at = f"{recovered:,} players"
    return [
        *figures,
        Figure("all facts", at, of_facts / recovered, "bytes a player"),
        Figure("brought back", at, took_us / recovered, "µs CPU a player"),
    ]
