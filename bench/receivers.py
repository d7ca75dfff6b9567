"""Those who receive a broadcast: a process of its own that opens connections and throws away what comes.

It counts bytes, and says when all that were expected had come.
"""

from __future__ import annotations

import resource
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import trio

from bench import wire
from bench.child import child


def allow_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Receivers:
    """As seen from the sender. The clocks of the processes are one."""

    def __init__(self, control: Connection) -> None:
        self._control = control

    def expect(self, count: int) -> None:
        """Bytes, beside those that are expected already."""
        self._control.send(count)

    async def arrived(self) -> float:
        """When the last of the expected bytes was read; the first time, when everybody was connected."""
        return await trio.to_thread.run_sync(self.wait)

    def wait(self) -> float:
        """`arrived` for those who have no loop."""
        moment: float = self._control.recv()
        return moment


@contextmanager
def receivers(port: int, count: int, streams: int = 0) -> Iterator[Receivers]:
    """That many spectators of session 000000: on WebSockets, and after these on event streams. They begin to
    come at once. What opens a stream is not counted."""
    with child(receive, port, count, streams) as (control, _):
        yield Receivers(control)


def receive(port: int, count: int, streams: int, control: Connection) -> None:
    """What the process does, until the control connection ends."""
    allow_files()
    greeting = wire.client_frame({"t": "join", "code": "000000", "role": "spectator"})
    sockets = wire.open_websockets(port, count, [greeting] * count)
    sockets += wire.open_streams(port, streams, "000000")
    throw_away(sockets, control)


def throw_away(sockets: Sequence[socket.socket], control: Connection) -> None:
    """Read what comes and count it, until the control connection ends."""
    poll = select.epoll()
    poll.register(control.fileno(), select.EPOLLIN)
    by_fd = {each.fileno(): each for each in sockets}
    for each in sockets:
        each.setblocking(False)
        poll.register(each.fileno(), select.EPOLLIN)
    buffer = bytearray(65_536)
    came = wanted = 0
    control.send(time.perf_counter())
    while True:
        for fd, _ in poll.poll():
            if fd in by_fd:
                came += by_fd[fd].recv_into(buffer)
                continue
            try:
                wanted += control.recv()
            except EOFError:
                return
        if wanted and came >= wanted:
            control.send(time.perf_counter())
            came, wanted = came - wanted, 0


@contextmanager
def accepted_on(port: int) -> Iterator[list[socket.socket]]:
    """The connections that this process has accepted on a port, in the order of their files, whoever holds
    them: the same sockets, lent for the block and never closed here. Who writes to them must know that nobody
    else is in the middle of a message.
    """
    lent: list[socket.socket] = []
    try:
        for fd in sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir()):
            try:
                here = socket.socket(fileno=fd)
            except OSError:
                continue  # no socket, or the directory itself
            if here.family == socket.AF_INET and here.getsockname()[1] == port and _connected(here):
                here.setblocking(False)
                lent.append(here)
            else:
                here.detach()
        yield lent
    finally:
        for each in lent:
            each.detach()


def _connected(here: socket.socket) -> bool:
    try:
        here.getpeername()
    except OSError:
        return False
    return True
