"""Holding the scores of users, and leaderboards over sessions, against what the facts say.

What is proven: each user of the run has one row in `user_scores`, which is that of the stored answers, and
one line with the same in each leaderboard of the day, the week and all time, per quiz and over all; and every
node shows the first lines of these as they are stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from loadtest.client.api import Api, ApiUnreachable
from loadtest.runs.proof import Verdict

TOP = 100
SHOWN_WITHIN_S = 30.0
"""A node takes up the changes of others at the next look."""

PERIODS = ("day", "all")
"""Of the leaderboards that nodes have to show."""

_FILLED = "fanfare_leaderboard_sets_filled_total "
_KIND = "leaderboard over sessions"

Line = tuple[str, int, int]
"""User, score, milliseconds."""


@dataclass(frozen=True, slots=True)
class StoredScores:
    """What SQL over the facts has found, once nothing about scores was left to do.

    Args:
        scores, lines: how many were compared.
        wrong: what is not as the facts have it: its kind and a sentence.
        day: the last one that the users have played on.
        top: by quiz (or `all`) and period, the first lines of the leaderboard as it is stored.
    """

    scores: int
    lines: int
    wrong: Sequence[tuple[str, str]]
    day: str
    top: dict[tuple[str, str], list[Line]]


AskScores = Callable[[Sequence[str], str], Awaitable[StoredScores]]
"""Reads them from the database itself, by the ids of the sessions and the id of their quiz."""


async def prove_scores(
    verdict: Verdict, ask: AskScores, session_ids: Sequence[str], apis: Sequence[Api], quiz_id: str
) -> None:
    """Add to the verdict what there is to say of them. A node that was killed shows nothing; one has to."""
    stored = await ask(session_ids, quiz_id)
    verdict.scores, verdict.lines = stored.scores, stored.lines
    for kind, sentence in stored.wrong:
        verdict.add(kind, sentence)
    showing = 0
    for number, api in enumerate(apis, 1):
        try:
            for quiz, period in stored.top:
                await _compare(verdict, stored, api, number, quiz, period)
            verdict.filled += _filled(await api.metrics())
        except ApiUnreachable:
            continue
        showing += 1
    if not showing:
        verdict.add(_KIND, "no node shows any")


async def _compare(
    verdict: Verdict, stored: StoredScores, api: Api, number: int, quiz_id: str, period: str
) -> None:
    top = stored.top[quiz_id, period]
    shown: list[Line] = []
    with trio.move_on_after(SHOWN_WITHIN_S):
        while (shown := await _shown(api, quiz_id, period, stored.day)) != top:  # noqa: ASYNC110  # another process
            await trio.sleep(0.5)
    verdict.lines += len(top)
    if shown != top:
        differ = (at for at, (one, other) in enumerate(zip(shown, top, strict=False)) if one != other)
        verdict.add(
            _KIND,
            f"node {number}, {quiz_id}, {period}: {len(shown)} lines for {len(top)}, not the same from "
            f"line {next(differ, min(len(shown), len(top))) + 1} on",
        )


def _filled(metrics: str) -> int:
    values = [line.split()[1] for line in metrics.splitlines() if line.startswith(_FILLED)]
    return sum(int(float(value)) for value in values)


async def _shown(api: Api, quiz_id: str, period: str, day: str) -> list[Line]:
    board = await api.leaderboard(quiz_id, period, TOP, day)
    return [(line["user_id"], line["score"], line["elapsed_ms"]) for line in board["top"]]
