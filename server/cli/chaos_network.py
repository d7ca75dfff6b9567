"""What the nodes of a chaos cluster reach each other by: a proxy for each pair of them and direction."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import psutil  # type: ignore[import-untyped]  # ships no types
import trio

from loadtest.chaos.proxy import Proxy, break_off


class Neighbours:
    """In front of each node's link port is one port. Who connects there is told by its process, so that the
    way from each other node is a proxy of its own. Made by `neighbours`.

    Args:
        pid_of: the process of the node at this place; None while it does not run.
    """

    def __init__(
        self, ports: Sequence[int], link_ports: Sequence[int], pid_of: Callable[[int], int | None]
    ) -> None:
        self.ports = ports
        """Where the nodes are reached."""
        self._pid_of = pid_of
        places = range(len(ports))
        self._ways = {
            (source, target): Proxy(lambda port=link_ports[target]: port, ports[target])  # type: ignore[misc]
            for source in places
            for target in places
            if source != target
        }

    def of(self, node: int) -> list[Proxy]:
        """Between this node and each other one, in either direction."""
        return [way for pair, way in self._ways.items() if node in pair]

    async def carry(self, target: int, client: trio.SocketStream) -> None:
        """One connection to that node."""
        source = self._who(client.socket.getpeername()[1])
        way = None if source is None else self._ways.get((source, target))
        if way is None:
            break_off(client)
        else:
            await way.carry(client)

    def _who(self, port: int) -> int | None:
        """The node that has connected from this port; None if it has gone already."""
        for place in range(len(self.ports)):
            pid = self._pid_of(place)
            with suppress(psutil.Error):
                if pid is not None and any(
                    each.laddr.port == port for each in psutil.Process(pid).net_connections("tcp4")
                ):
                    return place
        return None


@asynccontextmanager
async def neighbours(
    link_ports: Sequence[int], pid_of: Callable[[int], int | None]
) -> AsyncGenerator[Neighbours]:
    """Carry links while the block runs."""
    listeners = [(await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in link_ports]
    made = Neighbours([each.socket.getsockname()[1] for each in listeners], link_ports, pid_of)
    async with trio.open_nursery() as nursery:
        for place, listener in enumerate(listeners):

            async def carry(stream: trio.SocketStream, place: int = place) -> None:
                await made.carry(place, stream)

            nursery.start_soon(trio.serve_listeners, carry, [listener])
        yield made
        nursery.cancel_scope.cancel()
