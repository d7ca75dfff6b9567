"""The reactor as a transport of the realtime port."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import Sequence
from dataclasses import replace

import trio

from server.config.config import Config
from server.file_limit import room
from server.realtime import transport
from server.realtime.conversation import ConversationDeps
from server.realtime.reactor import listener
from server.realtime.reactor.listener import Listener
from server.realtime.reactor.loop import Loop
from server.realtime.reactor.port import Port
from server.realtime.transport import Tally, TlsUnsupported, TransportStatistics
from server.security.authentication import Guard
from server.security.limits import ArrivalRate, ConnectionCount, MessageRate


class ReactorTransport:
    """Transport. Without TLS: that is for a load balancer in front, or for trio-websocket.

    Args:
        gate: what the conversations share.
        config: the limits and times.
        rng: spreads the pings, so that the clients of one start do not answer in step.
    """

    def __init__(self, deps: ConversationDeps, config: Config, rng: random.Random | None = None) -> None:
        self._deps = deps
        self._config = config
        self._rng = rng or random.Random()
        self._tally = Tally()
        self._loop: Loop | None = None

    def statistics(self) -> TransportStatistics:
        looks = 0 if self._loop is None else self._loop.looks_total
        return replace(self._tally.snapshot(), looks_total=looks)

    async def serve(
        self,
        sockets: Sequence[socket.socket],
        *,
        ssl_context: ssl.SSLContext | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Transport. Raises TlsUnsupported."""
        if ssl_context is not None:
            raise TlsUnsupported("the reactor has no TLS in process: use the transport trio-websocket for it")
        deps, config = self._deps, self._config
        loop = self._loop = Loop(deps.boundary, deps.pacing)
        guard = Guard(config, deps.tokens, deps.attempts, deps.clock, deps.pages)
        count = ConnectionCount(config.connections_per_address_max)
        streams = ConnectionCount(config.event_streams_per_address_max, "event_streams_per_address_max")
        at_once = config.connections_per_address_max + listener.REFUSED_AT_ONCE_MAX
        arrivals = ArrivalRate(config.connections_per_address_per_s, at_once)
        rate = MessageRate(config.messages_per_s, config.messages_burst)
        connections_max = room(config.connections_max).realtime
        port = Port(
            deps,
            config,
            self._tally,
            self._rng,
            loop,
            guard,
            count,
            streams,
            arrivals,
            rate,
            connections_max,
        )
        try:
            listeners = [Listener(port, each) for each in sockets]
            task_status.started()
            try:
                await loop.run()
            finally:
                deps.pacing.end()
                for each in listeners:
                    each.stop()
                with trio.CancelScope(shield=True):
                    await self._end(loop, port)
        finally:
            loop.close()

    async def _end(self, loop: Loop, port: Port) -> None:
        """Tell every client, give them time, and cut off those that have not taken it."""
        for channel in list(port.hub_channels.values()):
            channel.stop()
        with trio.move_on_after(transport.SHUTDOWN_S):
            await loop.each(lambda handler: handler.stop())
            await loop.run(lambda: self._tally.connections == 0)
        await loop.each(lambda handler: handler.cut())
