"""Players who answer at a rate, in a process of their own, so that a core may be the server's alone.

A rate waits for nobody: each answer has a moment at which it is due, and its player's wait counts from
there, so a server that falls behind does not slow down the players.
"""

from __future__ import annotations

import gc
import os
import select
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from bench.child import child
from bench.memory_node import Address
from bench.players import Players
from bench.receivers import allow_files

PATIENCE_S = 60.0
ACK, ACCEPTED, REFUSED = b'"t":"ack"', b'"status":"accepted"', b'"t":"error"'


@dataclass(slots=True)
class Answered:
    """What players noticed while they answered.

    Args:
        waits_s: from when an answer was due to its ack.
        late_s: how late the generator sent the latest answer.
        took_s: from the first answer to the last reply.
        frames: what players read meanwhile beside the replies, such as how many have answered.
        frame_bytes: of their payloads.
    """

    waits_s: array[float] = field(default_factory=lambda: array("d"))
    refused: int = 0
    late_s: float = 0.0
    took_s: float = 0.0
    frames: int = 0
    frame_bytes: int = 0


class PacedPlayers:
    """As seen from outside. Each call blocks until it is done. The clocks of the processes are one."""

    def __init__(self, control: Connection) -> None:
        self._control = control

    def joined(self) -> None:
        """Wait until all are in."""
        self._result()

    def open_question(self) -> None:
        """Close the last question, open the next, and wait until everybody knows."""
        self._control.send(("open_question",))
        self._result()

    def answer(self, count: int, over_s: float) -> Answered:
        """The first `count` players answer, evenly over that many seconds."""
        self._control.send(("answer", count, over_s))
        answered = self._result()
        assert isinstance(answered, Answered)
        return answered

    def hear(self, mark: bytes) -> None:
        """Begin to wait for a frame with the mark to everybody; `joined` ends it."""
        self._control.send(("hear", mark))

    def _result(self) -> Any:
        try:
            result = self._control.recv()
        except EOFError:
            raise RuntimeError("the players have ended by themselves") from None
        return result


@contextmanager
def paced_players(sessions: Sequence[Address], count: int, cpu: int | None) -> Iterator[PacedPlayers]:
    """They begin to come at once.

    Args:
        count: of players in each session.
        cpu: the only one that they may use; None: any.
    """
    with child(_run, sessions, count, cpu) as (control, _):
        yield PacedPlayers(control)


def _run(sessions: Sequence[Address], count: int, cpu: int | None, control: Connection) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    allow_files()
    poll = select.epoll()  # before the sockets: `select` takes none but low file numbers
    players = Players(sessions, count, poll)
    gc.collect()
    gc.disable()  # nothing here refers to itself
    control.send(None)
    while True:
        try:
            what, *arguments = control.recv()
        except EOFError:
            players.close()
            return
        if what == "answer":
            control.send(_answer(players, poll, *arguments))
        elif what == "open_question":
            control.send(players.open_question())
        else:
            control.send(players.clients.all_hear(*arguments))


def _answer(players: Players, poll: select.epoll, count: int, over_s: float) -> Answered:
    clients, frame, found = players.clients, players.answer_frame(), Answered()
    clients.forget()
    clock, step_s = time.perf_counter, over_s / count
    started = clock()
    sent = replied = 0
    while replied < count:
        now = clock()
        while sent < count and started + sent * step_s <= now:
            clients.say(sent, frame)
            found.late_s = max(found.late_s, now - started - sent * step_s)
            sent += 1
        timeout_s = max(started + sent * step_s - clock(), 0) if sent < count else 1.0
        select.select((poll,), (), (), timeout_s)  # in microseconds; epoll waits in milliseconds
        ready = clients.listen(0)
        now = clock()
        if now - started > over_s + PATIENCE_S:
            raise TimeoutError(f"{count - replied} answers have no reply")
        for number in ready:
            for payload in clients.take(number):
                if ACK in payload:
                    assert ACCEPTED in payload, payload
                    found.waits_s.append(now - started - number * step_s)
                    replied += 1
                elif REFUSED in payload:
                    found.refused += 1
                    replied += 1
                else:
                    found.frames += 1
                    found.frame_bytes += len(payload)
    found.took_s = clock() - started
    return found
