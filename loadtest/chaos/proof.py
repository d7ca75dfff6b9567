"""The ledgers of all waves against what the database and the node say when all is over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import trio

from loadtest.chaos.waves import SessionOf, finish, ledgers_file, read_sessions
from loadtest.client.api import Api, ApiRefused
from loadtest.runs.attempts import attempt_of
from loadtest.runs.fleet import read_ledgers
from loadtest.runs.ledger import StoredResult
from loadtest.runs.proof import (
    EXAMPLES_MAX,
    AskAnswers,
    AskMerged,
    Proof,
    StoredSession,
    Verdict,
)
from loadtest.runs.scores import AskScores, prove_scores

FINAL_WITHIN_S = 90.0
"""For sessions that all players have left, and that play on by the clock."""

REQUESTS_MAX = 8


async def prove_all(
    apis: Sequence[Api],
    ask_answers: AskAnswers,
    ask_merged: AskMerged,
    directory: Path,
    ask_scores: AskScores | None = None,
) -> Verdict:
    """The verdict over everything that a run has written into the directory. The first node is asked for
    results, and each shows its leaderboards over sessions.

    Raises ApiRefused, ApiUnreachable, and OSError or ValueError when the ledgers cannot be read.
    """
    whole = Verdict()
    by_wave: dict[int, list[SessionOf]] = defaultdict(list)
    opened = read_sessions(directory)
    for session in opened:
        by_wave[session.wave].append(session)
    deadline = trio.current_time() + FINAL_WITHIN_S
    for wave, sessions in sorted(by_wave.items()):
        path = ledgers_file(directory, wave)
        if not path.exists():  # it was opened when the run ended and nobody came, or the run was cut short
            # Nobody's ledger, but scores of users, which are compared once all is over.
            await _read_results(apis[0], sessions, deadline, whole, ends=True)
            continue
        stored = await _stored(apis[0], ask_answers, sessions, deadline, whole)
        merged = await ask_merged()
        for session in sessions:
            stored[session.number].merged = session.id in merged
        proof = Proof(stored, may_give_up=True)
        await read_ledgers(path, proof.take)
        add(whole, proof.verdict())
        for number, found in stored.items():
            for sentence in sums_that_differ(found):
                whole.add("score of stored answers", f"session {number}: {sentence}")
    of_users = [session for session in opened if session.by_users]
    if of_users and ask_scores is not None:
        ids = [session.id for session in of_users]
        await prove_scores(whole, ask_scores, ids, apis, of_users[0].quiz_id)
    return whole


async def _stored(
    api: Api, ask_answers: AskAnswers, sessions: Sequence[SessionOf], deadline: float, whole: Verdict
) -> dict[int, StoredSession]:
    results = await _read_results(api, sessions, deadline, whole)
    found = {number: StoredSession(each, None) for number, each in results.items()}
    # After the results: whatever is committed since then would show as a contradiction.
    answers = await ask_answers([session.id for session in sessions])
    for session in sessions:
        found[session.number].answers = answers.get(session.id, [])
    return found


async def _read_results(
    api: Api, sessions: Sequence[SessionOf], deadline: float, whole: Verdict, *, ends: bool = False
) -> dict[int, list[StoredResult]]:
    """By the number of the session. Args: ends: end the sessions, whatever their pace."""
    found: dict[int, list[StoredResult]] = {}
    limit = trio.CapacityLimiter(REQUESTS_MAX)

    async def read(session: SessionOf) -> None:
        async with limit:
            results = await _results(api, session, deadline, ends or session.own_pace)
        if results is None:
            whole.add("session without end", f"session {session.number}, code {session.code}")
        found[session.number] = results or []

    async with trio.open_nursery() as reading:
        for session in sessions:
            reading.start_soon(read, session)
    return found


async def _results(api: Api, session: SessionOf, deadline: float, ends: bool) -> list[StoredResult] | None:
    """In order; None when the session has not ended by the deadline. Args: ends: whether to end it."""
    while True:
        try:
            told = await api.results(session.id, session.host_token)
            if told["final"]:
                return [StoredResult(**each) for each in told["players"]]
            if ends:
                await finish(api, session)
        except ApiRefused as exc:
            # `session_finished`: its owner knows that it is over, and PostgreSQL does not yet.
            if not exc.not_now and exc.code != "session_finished":
                raise
        if trio.current_time() > deadline:
            return None
        await trio.sleep(0.5)


def add(whole: Verdict, part: Verdict) -> None:
    """Count the part in."""
    whole.players += part.players
    whole.acks += part.acks
    whole.rows += part.rows
    whole.boards += part.boards
    whole.unsettled += part.unsettled
    whole.gave_up += part.gave_up
    for kind, count in part.broken.items():
        whole.broken[kind] = whole.broken.get(kind, 0) + count
        kept = whole.examples.setdefault(kind, [])
        kept += part.examples[kind][: EXAMPLES_MAX - len(kept)]


def sums_that_differ(session: StoredSession) -> list[str]:
    """Players whose results are not what the stored answers of their best attempt add up to."""
    sums: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0, 0]))
    for answer in session.answers or ():
        of = sums[answer.player][attempt_of(answer.question)]
        for place, value in enumerate((answer.points, answer.correct, 1, answer.elapsed_ms)):
            of[place] += value
    found = []
    for result in session.results:
        told = [result.score, result.correct, result.answered, result.elapsed_ms]
        by_attempt = sums[result.player]
        best = min(by_attempt.values(), key=lambda sums: (-sums[0], sums[3]), default=[0, 0, 0, 0])
        if told != best:
            found.append(f"player {result.player}: results {told}, answers {best}")
    return found
