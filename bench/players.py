"""Many players from one process, as cheap as can be: raw sockets and one epoll."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence

from bench import wire
from bench.memory_node import Address
from loadtest.swarm.connection import whole_texts

PATIENCE_S = 30.0
PING = b"\x89"
LETTERS = str.maketrans("0123456789", "bcdghjlmnq")
"""For names: among thousands of numbers are some that the filter of names reads as words."""


class Clients:
    """Connections that hear what they are sent, but look for marks in it only.

    Args:
        poll: an epoll that nobody else uses; by default a new one.
    """

    def __init__(self, sockets: Sequence[socket.socket], poll: select.epoll | None = None) -> None:
        self._sockets = sockets
        self._unheard = [b""] * len(sockets)
        self._poll = poll or select.epoll()
        self._by_fd = {}
        for number, each in enumerate(sockets):
            each.setblocking(False)
            self._by_fd[each.fileno()] = number
            self._poll.register(each.fileno(), select.EPOLLIN)

    def __len__(self) -> int:
        return len(self._sockets)

    def say(self, number: int, frame: bytes) -> None:
        self._sockets[number].send(frame)

    def listen(self, timeout_s: float) -> list[int]:
        """Who was sent something; empty after the time."""
        numbers = [self._by_fd[fd] for fd, _ in self._poll.poll(timeout_s)]
        for number in numbers:
            data = self._sockets[number].recv(65_536)
            if not data:
                raise ConnectionError("the server closed a connection")
            self._unheard[number] += data
        return numbers

    def take(self, number: int) -> list[bytes]:
        """The payloads of all whole text frames since the last mark, which are forgotten, as pings are."""
        payloads, end = whole_texts(self._unheard[number])
        rest = self._unheard[number][end:]
        while rest[:1] == PING and len(rest) >= 2 and len(rest) >= 2 + rest[1]:
            more, end = whole_texts(rest[2 + rest[1] :])
            payloads, rest = payloads + more, rest[2 + rest[1] + end :]
        self._unheard[number] = rest
        return payloads

    def forget(self) -> None:
        """Read and drop all that has been sent so far."""
        while self.listen(0):
            pass
        self._unheard = [b""] * len(self._sockets)

    def heard(self, number: int, mark: bytes) -> bool:
        """Whether a client has heard the mark since the last one. An error in its place is raised."""
        before, found, rest = self._unheard[number].partition(mark)
        if found:
            self._unheard[number] = rest
        elif b'"t":"error"' in before:
            raise AssertionError(before)
        return bool(found)

    def all_hear(self, mark: bytes) -> None:
        missing = {number for number in range(len(self._sockets)) if not self.heard(number, mark)}
        while missing:
            ready = self.listen(PATIENCE_S)
            if not ready:
                raise TimeoutError(f"{len(missing)} clients have not heard {mark!r}")
            missing -= {number for number in ready if number in missing and self.heard(number, mark)}

    def close(self) -> None:
        self._poll.close()
        for each in self._sockets:
            each.close()


class Players:
    """All players of some sessions, whose hosts do the same at the same time. Without a code it is a server
    that answers every frame.

    Args:
        count: of players in each session.
        poll: as `Clients` has it.
    """

    def __init__(self, sessions: Sequence[Address], count: int, poll: select.epoll | None = None) -> None:
        self.count = count * len(sessions)
        self._number = 0
        self._hosts: Clients | None = None
        if not sessions[0].code:
            self.clients = Clients(wire.connect(sessions[0].port, count), poll)
            return
        joined = [_join(session, count) for session in sessions]
        # Players who answer one after the other are of different sessions.
        self.clients = Clients([each for row in zip(*joined, strict=True) for each in row], poll)
        self.clients.all_hear(b'"t":"joined"')
        self._hosts = Clients([_lead(session) for session in sessions])
        self._hosts.all_hear(b'"t":"joined"')

    def open_question(self) -> None:
        """Close the last one, open the next, and wait until everyone knows."""
        self._number += 1
        if self._hosts is None:
            return
        if self._number > 1:
            self._order("close")
            self.clients.all_hear(b'"t":"result"')
            self.clients.all_hear(b'"t":"leaderboard"')
        self._order("next" if self._number > 1 else "start")
        self.clients.all_hear(b'"t":"question"')

    def _order(self, do: str) -> None:
        assert self._hosts is not None
        for number in range(len(self._hosts)):
            self._hosts.say(number, wire.client_frame({"t": "host", "id": "h", "do": do}))
        self._hosts.all_hear(b'"t":"done"')

    def answer_frame(self) -> bytes:
        """The answer to the open question, the same of all players."""
        message = {"t": "answer", "id": "a", "question": self._number, "choice": self._number % 4}
        return wire.client_frame(message)

    def answer(self, count: int, per_s: float | None = None) -> tuple[list[float], float]:
        """The first `count` answer the open question: at once, or one after the other at a rate that does not
        wait for anybody. Returns how many seconds each waited for the ack, from when the answer was due to be
        sent, and how many it took from the first answer to the last ack."""
        frame = self.answer_frame()
        started = time.perf_counter()
        due = [started if per_s is None else started + n / per_s for n in range(count)]
        waits_s: list[float] = []
        sent = 0
        while len(waits_s) < count:
            now = time.perf_counter()
            if now - started > PATIENCE_S:
                raise TimeoutError(f"{count - len(waits_s)} answers have no ack")
            while sent < count and due[sent] <= now:
                self.clients.say(sent, frame)
                sent += 1
            timeout_s = due[sent] - now if sent < count else 1.0
            ready = self.clients.listen(timeout_s)
            now = time.perf_counter()
            waits_s += [now - due[number] for number in ready if self.clients.heard(number, b'"t":"ack"')]
        return waits_s, time.perf_counter() - started

    def close(self) -> None:
        self.clients.close()
        if self._hosts is not None:
            self._hosts.close()


def _join(session: Address, count: int) -> list[socket.socket]:
    names = [{"t": "join", "code": session.code, "name": f"P{n}".translate(LETTERS)} for n in range(count)]
    return wire.open_websockets(session.port, count, [wire.client_frame(each) for each in names])


def _lead(session: Address) -> socket.socket:
    greeting = {"t": "join", "code": session.code, "token": session.host_token}
    (host,) = wire.open_websockets(session.port, 1, [wire.client_frame(greeting)])
    return host
