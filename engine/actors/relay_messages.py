"""What a session sends to the nodes that relay it: each broadcast once a node, whatever their players.

None of these reach a client as they are. `engine/shards/relay.py` makes of them what its clients get.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from engine.actors import messages
from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame
from engine.domain.session import Session

ROWS_PER_CHUNK = 250
"""Of a standing, in one message: to make them, and to read them, takes a millisecond or less."""

Row = tuple[int, int, str, int, bool | None, int, int]
"""Rank, player, name, score; and of the last closed question whether the answer was right, what it earned,
and the streak after it."""


def relayed(session_id: str, code: str, epoch: int, offset: int) -> Frame:
    """The node takes part from here on. What it had missed follows, if it has clients already and that is all
    there: then epoch and offset are those that it gave."""
    return Frame({"t": "relayed", "session": session_id, "code": code, "epoch": epoch, "offset": offset})


def admitted(role: str, player: int | None, frames: Sequence[Frame]) -> Frame:
    """The answer to the join of a client of that node: it has this place, and gets these frames first."""
    return Frame(
        {"t": "admitted", "role": role, "player": player, "frames": [frame.message for frame in frames]}
    )


def cast(frame: Frame, host_frame: Frame | None = None, *, players: bool = True) -> Frame:
    """A broadcast, and what the host gets instead. `players`: whether it is for them too."""
    host = None if host_frame is None else host_frame.message
    return Frame({"t": "cast", "frame": frame.message, "host": host, "players": players})


def for_host(frame: Frame) -> Frame:
    """What is for the host alone, who sits at that node."""
    return Frame({"t": "for_host", "frame": frame.message})


def flush(number: int) -> Frame:
    """A deadline has come: the node answers with `Flushed` when all it had received is on its way."""
    return Frame({"t": "flush", "number": number})


def disconnect(key: int | str, close_reason: CloseReason) -> Frame:
    """End the connection of this player, or of the host."""
    return Frame({"t": "disconnect", "key": key, "close_reason": close_reason.name})


def moved_on(node: object) -> Frame:
    """The session goes on at another node, with the same stream. Nothing follows."""
    return Frame({"t": "moved_on", "node": node})


def standing(session: Session, finished: Frame | None = None) -> Iterator[Frame]:
    """The whole standing, in chunks, from which a node makes the `result` of each of its players, or at the
    end their `finished`. To be taken little by little."""
    number = messages.closed_number(session)
    about = {"t": "standing", "number": number, "skipped": session.skipped(number)}
    rows = _rows(session)
    while chunk := list(islice(rows, ROWS_PER_CHUNK)):
        yield Frame({**about, "rows": chunk, "last": False, "finished": None})
    told = None if finished is None else finished.message
    yield Frame({**about, "rows": [], "last": True, "finished": told})


def _rows(session: Session) -> Iterator[Row]:
    for rank, player, score, _ in session.leaderboard.ranked():
        correct, points = session.result_of(player)
        yield rank, player, session.name_of(player), score, correct, points, session.streak(player)
