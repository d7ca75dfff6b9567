"""The statements that commit one kind of facts, read as the one that commits all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.storage.journal.statement import (
    COMMIT,
    COMMIT_ANSWER,
    COMMIT_ANSWERS,
    COMMIT_ANSWERS_OF_ONE,
    COMMIT_PLAYER,
    COMMIT_PLAYERS,
    COMMIT_PLAYERS_OF_ONE,
)

_ARGUMENTS = 37
_FIRST_OF_PLAYERS, _FIRST_OF_ANSWERS = 2, 8
FIRST_OF_CHANGES = 17
"""Places among the arguments of `COMMIT`, from 0."""


def as_commit(sql: str, args: Sequence[Any]) -> Sequence[Any] | None:
    """The arguments of `COMMIT` that write the same; None for a statement that commits nothing."""
    if sql == COMMIT:
        return args
    if sql in (COMMIT_PLAYERS, COMMIT_ANSWERS):
        ids, epochs, *table, owner = args
    elif sql in (COMMIT_PLAYERS_OF_ONE, COMMIT_ANSWERS_OF_ONE):
        session_id, epoch, *columns, owner = args
        ids, epochs, table = [session_id], [epoch], [[1] * len(columns[0]), *columns]
    elif sql in (COMMIT_PLAYER, COMMIT_ANSWER):
        session_id, epoch, *row, owner = args
        ids, epochs, table = [session_id], [epoch], [[1], *([value] for value in row)]
    else:
        return None
    commit: list[Any] = [()] * _ARGUMENTS
    commit[0], commit[1], commit[-1] = ids, epochs, owner
    players = sql in (COMMIT_PLAYERS, COMMIT_PLAYERS_OF_ONE, COMMIT_PLAYER)
    first = _FIRST_OF_PLAYERS if players else _FIRST_OF_ANSWERS
    commit[first : first + len(table)] = table
    return commit
