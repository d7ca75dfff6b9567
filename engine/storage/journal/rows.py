"""Facts as rows, and back: a fact that is read equals the one that was written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from decimal import Decimal

import orjson

from engine.domain import facts as f
from engine.storage.postgres import Row

PlayerRow = tuple[int, str, int, int, str | None]
AnswerRow = tuple[int, int, int, str, int, bool, int, int]
ChangeRow = tuple[int, str, int | None, int | None, int | None, bool | None, int]


class FactRows:
    """The rows of some facts of one session, by table.

    Raises:
        ValueError: a fact holds what Postgres cannot (not-a-number, a name with a NUL).
    """

    __slots__ = ("answers", "changes", "finished_at", "merged", "players")

    def __init__(self, facts: Sequence[f.Fact]) -> None:
        self.players: list[PlayerRow] = []
        self.answers: list[AnswerRow] = []
        self.changes: list[ChangeRow] = []
        self.merged: list[AnswerRow] = []
        self.finished_at: int | None = None
        for fact in facts:
            if isinstance(fact, f.AnswerAccepted):
                self.answers.append(_answer(fact))
            elif isinstance(fact, f.AnswerMerged):
                self.merged.append(_answer(fact))
            elif isinstance(fact, f.PlayerJoined):
                self.players.append(_player(fact))
            else:
                self.changes.append(_change(fact))
                if isinstance(fact, f.Finished):
                    self.finished_at = fact.at


def _player(fact: f.PlayerJoined) -> PlayerRow:
    user_id = None if fact.user_id is None else _storable(fact.user_id)
    return fact.player, _storable(fact.name), fact.at, fact.seq, user_id


def _answer(fact: f.AnswerAccepted | f.AnswerMerged) -> AnswerRow:
    return (
        fact.question,
        fact.player,
        fact.seq,
        choice_to_json(fact.choice),
        fact.elapsed_ms,
        fact.correct,
        fact.points,
        fact.at,
    )


def _storable(text: str) -> str:
    text.encode()
    if "\0" in text:
        raise ValueError("a text with a NUL cannot be stored")
    return text


def _change(
    fact: f.PlayerKicked
    | f.PlayerReadmitted
    | f.ExtraTimeGiven
    | f.QuestionOpened
    | f.QuestionClosed
    | f.QuestionSkipped
    | f.QuestionShown
    | f.AttemptBegun
    | f.PlayerDone
    | f.DeadlineMoved
    | f.Paused
    | f.Resumed
    | f.ClockExtended
    | f.LockChanged
    | f.HostReplaced
    | f.Finished,
) -> ChangeRow:
    question: int | None = None
    player: int | None = None
    by_ms: int | None = None
    locked: bool | None = None
    match fact:
        case f.QuestionOpened(question=question, ready_ms=ready_ms):
            kind, by_ms = "opened", ready_ms or None
        case f.QuestionClosed(question=question):
            kind = "closed"
        case f.QuestionSkipped(question=question):
            kind = "skipped"
        case f.QuestionShown(player=player, question=question):
            kind = "shown"
        case f.AttemptBegun(player=player, attempt=question, plays_as=by_ms):
            kind = "attempt"
        case f.PlayerDone(player=player):
            kind = "done"
        case f.DeadlineMoved(closes_at=by_ms):
            kind = "deadline"
        case f.Paused():
            kind = "paused"
        case f.Resumed():
            kind = "resumed"
        case f.ClockExtended(by_ms=by_ms):
            kind = "extended"
        case f.LockChanged(locked=locked):
            kind = "lock"
        case f.HostReplaced():
            kind = "host_replaced"
        case f.PlayerKicked(player=player):
            kind = "kicked"
        case f.PlayerReadmitted(player=player):
            kind = "readmitted"
        case f.ExtraTimeGiven(player=player, percent=by_ms):
            kind = "extra_time"
        case f.Finished():
            kind = "finished"
    return fact.seq, kind, question, player, by_ms, locked, fact.at


READ_FACTS = """
SELECT seq, 'joined' AS kind, (extract(epoch FROM joined_at) * 1000)::bigint AS at,
       player, NULL::smallint AS question, name AS text,
       NULL::integer AS elapsed_ms, erased_at IS NOT NULL AS flag, NULL::bigint AS number, user_id
FROM players WHERE session_id = $1 AND seq > $2
UNION ALL
SELECT seq, 'answered', (extract(epoch FROM at) * 1000)::bigint,
       player, question, choice::text, elapsed_ms, correct, points, NULL
FROM answers WHERE session_id = $1 AND seq > $2
UNION ALL
SELECT seq, 'merged', (extract(epoch FROM at) * 1000)::bigint,
       player, question, choice::text, elapsed_ms, correct, points, NULL
FROM merged_answers WHERE session_id = $1 AND seq > $2
UNION ALL
SELECT seq, kind, (extract(epoch FROM at) * 1000)::bigint,
       player, question, NULL, NULL, locked, by_ms, NULL
FROM session_changes WHERE session_id = $1 AND seq > $2
ORDER BY seq
"""
"""The facts of the session $1 after the seq $2, in order, for `fact_of`."""


def fact_of(row: Row) -> f.Fact:
    """The fact in one row of `READ_FACTS`."""
    seq, kind, at, player, question, text, elapsed_ms, flag, number, user_id = row
    if kind in _ANSWERS:
        return _ANSWERS[kind](seq, at, player, question, choice_from_json(text), elapsed_ms, flag, number)
    if kind == "joined":
        return f.PlayerJoined(seq, at, player, text, flag, user_id)
    return _CHANGES[kind](row)


_ANSWERS: dict[str, type[f.AnswerAccepted] | type[f.AnswerMerged]] = {
    "answered": f.AnswerAccepted,
    "merged": f.AnswerMerged,
}

_CHANGES: dict[str, Callable[[Row], f.Fact]] = {
    "opened": lambda row: f.QuestionOpened(row["seq"], row["at"], row["question"], row["number"] or 0),
    "closed": lambda row: f.QuestionClosed(row["seq"], row["at"], row["question"]),
    "skipped": lambda row: f.QuestionSkipped(row["seq"], row["at"], row["question"]),
    "shown": lambda row: f.QuestionShown(row["seq"], row["at"], row["player"], row["question"]),
    "attempt": lambda row: f.AttemptBegun(
        row["seq"], row["at"], row["player"], row["question"], row["number"]
    ),
    "done": lambda row: f.PlayerDone(row["seq"], row["at"], row["player"]),
    "deadline": lambda row: f.DeadlineMoved(row["seq"], row["at"], row["number"]),
    "paused": lambda row: f.Paused(row["seq"], row["at"]),
    "resumed": lambda row: f.Resumed(row["seq"], row["at"]),
    "extended": lambda row: f.ClockExtended(row["seq"], row["at"], row["number"]),
    "lock": lambda row: f.LockChanged(row["seq"], row["at"], row["flag"]),
    "kicked": lambda row: f.PlayerKicked(row["seq"], row["at"], row["player"]),
    "readmitted": lambda row: f.PlayerReadmitted(row["seq"], row["at"], row["player"]),
    "extra_time": lambda row: f.ExtraTimeGiven(row["seq"], row["at"], row["player"], row["number"]),
    "host_replaced": lambda row: f.HostReplaced(row["seq"], row["at"]),
    "finished": lambda row: f.Finished(row["seq"], row["at"]),
}


def choice_to_json(choice: f.Choice) -> str:
    """Keeps 1, 1.0 and true apart. Raises ValueError for what is not a finite number."""
    if isinstance(choice, bool):
        return "true" if choice else "false"
    if isinstance(choice, int):
        return str(choice)
    if isinstance(choice, str):
        return _text_to_json(choice)
    if isinstance(choice, float):
        return _float_to_json(choice)
    return f"[{','.join(map(str, choice))}]"


def choice_from_json(text: str) -> f.Choice:
    if text.isdigit():
        return int(text)
    value = json.loads(text)
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        escaped: str = value["escaped"]
        return escaped.encode("ascii").decode("unicode_escape")
    choice: f.Choice = value
    return choice


def _text_to_json(text: str) -> str:
    # jsonb takes neither a NUL nor half of a surrogate pair.
    if "\0" not in text:
        try:
            return orjson.dumps(text).decode()
        except orjson.JSONEncodeError:
            pass
    return orjson.dumps({"escaped": text.encode("unicode_escape").decode("ascii")}).decode()


def _float_to_json(number: float) -> str:
    if not math.isfinite(number):
        raise ValueError(f"{number} cannot be stored")
    # jsonb keeps the digits after the point, but turns 1e16 into an integer.
    text = repr(number)
    if "e" in text:
        text = f"{Decimal(text):f}"
    return text if "." in text else f"{text}.0"
