"""The messages of a session to the nodes that relay it: each broadcast once for each node, however many
players it has.

None of these reach a client as they are. `engine/shards/relay.py` turns them into the frames of its clients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

from engine.actors import messages
from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame
from engine.domain.leaderboard import Entry
from engine.domain.session import Session

ROWS_PER_CHUNK = 250
"""Rows of a standing in one message: making or reading them takes a millisecond or less."""

Row = tuple[int, int, str, int, bool | None, int, int]
"""Rank, player, name, score; and for the last closed question whether the answer was right, its points, and
the streak after it."""


def relayed(session_id: str, code: str, epoch: int, offset: int) -> Frame:
    """The node is subscribed from here on. If it has clients already, and all the broadcasts that they missed
    are kept, these follow, and epoch and offset are the ones that the node gave."""
    return Frame({"t": "relayed", "session": session_id, "code": code, "epoch": epoch, "offset": offset})


def admitted(role: str, player: int | None, frames: Sequence[Frame]) -> Frame:
    """The answer to the join of a client of that node: the client has this seat, and gets these frames
    first."""
    return Frame(
        {"t": "admitted", "role": role, "player": player, "frames": [frame.message for frame in frames]}
    )


def cast(frame: Frame, host_frame: Frame | None = None, *, players: bool = True) -> Frame:
    """A broadcast, and the frame that the host gets instead. `players`: whether players get it too."""
    host = None if host_frame is None else host_frame.message
    return Frame({"t": "cast", "frame": frame.message, "host": host, "players": players})


def for_host(frame: Frame) -> Frame:
    """A frame for the host alone, who is a client of that node."""
    return Frame({"t": "for_host", "frame": frame.message})


def for_player(player: int, frame: Frame) -> Frame:
    """A frame for one player, who is a client of that node. A node of an earlier release does not know this,
    and has its clients come back; then they are told by `joined`."""
    return Frame({"t": "for_player", "player": player, "frame": frame.message})


def flush(number: int) -> Frame:
    """A deadline has passed: the node answers with `Flushed` once it has passed on all the answers it had
    received."""
    return Frame({"t": "flush", "number": number})


def disconnect(key: int | str, close_reason: CloseReason) -> Frame:
    """End the connection of this player, or of the host."""
    return Frame({"t": "disconnect", "key": key, "close_reason": close_reason.name})


def moved_on(node: object) -> Frame:
    """The session goes on at another node, with the same stream. Nothing follows."""
    return Frame({"t": "moved_on", "node": node})


def standing(session: Session, finished: Frame | None = None) -> Iterator[Frame]:
    """The whole standing as it is at the call, in chunks, from which a node makes the `result` of each of its
    players, or after the end their `finished`. To be iterated little by little, as `messages.results`."""
    number = messages.closed_number(session)
    about = {"t": "standing", "number": number, "skipped": session.skipped(number)}
    told = None if finished is None else finished.message
    end = Frame({**about, "rows": [], "last": True, "finished": told})
    return chain(_chunks(about, _rows(session, session.leaderboard.ranked())), (end,))


def _chunks(about: Mapping[str, object], rows: Iterator[Row]) -> Iterator[Frame]:
    while chunk := list(islice(rows, ROWS_PER_CHUNK)):
        yield Frame({**about, "rows": chunk, "last": False, "finished": None})


def _rows(session: Session, ranked: Iterable[Entry]) -> Iterator[Row]:
    for rank, player, score, _ in ranked:
        correct, points = session.result_of(player)
        yield rank, player, session.name_of(player), score, correct, points, session.streak(player)
