"""What the nodes of a chaos cluster reach each other by: a proxy for each pair of them and direction."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import trio

from loadtest.chaos.proxy import Proxy, break_off

_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI")
_ENDS = struct.Struct("!HH16s16s")
_ANY_COOKIE = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
_INODE_AT = 16 + 4 + 48 + 16
_SOCK_DIAG = 20


class Neighbours:
    """In front of the link port of each node is another port. The process that connects there tells which
    node it is, so that the way from each other node is a proxy of its own. Made by `neighbours`.

    Args:
        ports: the ports at which nodes reach each other.
        link_ports: the ports at which nodes listen.
        pid_of: the process of the node with this index; None while it does not run.
    """

    def __init__(
        self, ports: Sequence[int], link_ports: Sequence[int], pid_of: Callable[[int], int | None]
    ) -> None:
        self.ports = ports
        self._pid_of = pid_of
        places = range(len(ports))
        self._ways = {
            (source, target): Proxy(partial(_same, link_ports[target]), ports[target])
            for source in places
            for target in places
            if source != target
        }

    def of(self, node: int) -> list[Proxy]:
        """Between this node and each other one, in either direction."""
        return [way for pair, way in self._ways.items() if node in pair]

    async def carry(self, target: int, client: trio.SocketStream) -> None:
        """One connection to that node."""
        source = self._who(client.socket.getpeername()[1], self.ports[target])
        way = None if source is None else self._ways.get((source, target))
        if way is None:
            break_off(client)
        else:
            await way.carry(client)

    def _who(self, port: int, to_port: int) -> int | None:
        """The node that has connected from this port; None if it has gone already."""
        name = f"socket:[{_inode(port, to_port)}]"
        for place in range(len(self.ports)):
            if (pid := self._pid_of(place)) is not None and name in _open_files(pid):
                return place
        return None


def _same(port: int) -> int:
    return port


def _inode(port: int, to_port: int) -> int | None:
    """The inode of the socket that is connected from one port of this machine to the other. The kernel is
    asked for that socket alone: a table of all sockets takes seconds under load."""
    loopback = socket.inet_aton("127.0.0.1").ljust(16, b"\0")
    asked = _REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)
    asked += _ENDS.pack(port, to_port, loopback, loopback) + _ANY_COOKIE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as kernel:
        kernel.send(_HEADER.pack(_HEADER.size + len(asked), _SOCK_DIAG, 1, 1, 0) + asked)
        told = kernel.recv(4096)
    if _HEADER.unpack_from(told)[1] != _SOCK_DIAG:
        return None
    return int(struct.unpack_from("=I", told, _INODE_AT)[0])


def _open_files(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(str(entry.readlink()))
    return found


@asynccontextmanager
async def neighbours(
    link_ports: Sequence[int], pid_of: Callable[[int], int | None]
) -> AsyncGenerator[Neighbours]:
    """Carry links while the block runs."""
    listeners = [(await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in link_ports]
    made = Neighbours([each.socket.getsockname()[1] for each in listeners], link_ports, pid_of)
    async with trio.open_nursery() as nursery:
        for place, listener in enumerate(listeners):
            nursery.start_soon(trio.serve_listeners, partial(made.carry, place), [listener])
        yield made
        nursery.cancel_scope.cancel()
