"""Incoming links, accepted from nodes that have proved that they belong to the cluster."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from engine.boundary import Boundary
from engine.shards.link.auth import HANDSHAKE_S, NONCE_BYTES, Refused, ServerProof, link_key
from engine.shards.link.codec import MESSAGE_BYTES_MAX
from engine.shards.link.keepalive import SILENCE_S
from engine.shards.link.log_once import LogOnce
from engine.shards.link.server import LinkServer
from engine.shards.link.transport import CLOSE_S, RECEIVE_BYTES, BatchedTransport
from engine.shards.ports import LinkService

log = logging.getLogger(__name__)

HANDSHAKES_MAX = 64
"""The most connections without a proof yet. Further ones are cut off without a word."""

REFUSED = 1008
"""The close code for a connection without a valid proof."""


@dataclass(frozen=True, slots=True)
class LinkListenerStatistics:
    """A snapshot of all links that other nodes have dialled. `listening` counts the sessions that other nodes
    subscribe to over them, once for each node; `refused` counts connections without a valid proof."""

    open: int
    meeting: int
    waiting: int
    waiting_bytes: int
    listening: int
    sent_total: int
    messages_total: int
    received_total: int
    refused_total: int


class _Served:
    def __init__(
        self, service: LinkService, nursery: trio.Nursery, silence_s: float, boundary: Boundary
    ) -> None:
        self.transport = BatchedTransport(silence_s)
        self.end = LinkServer(self.transport, service, nursery, boundary)


class LinkListener:
    """Accepts links of other nodes, and hands their commands and requests to the service of this node.

    Args:
        own_run: of this node. A node that wants another run is refused.
        secret: of the cluster, the same on all nodes.
        silence_s, gone, boundary: as of `LinkPool`.
    """

    def __init__(
        self,
        own_run: str,
        secret: bytes,
        service: LinkService,
        *,
        silence_s: float = SILENCE_S,
        gone: Callable[[str], bool] = lambda _: False,
        boundary: Boundary | None = None,
    ) -> None:
        self._boundary = boundary or Boundary()
        self._own_run = own_run
        self._silence_s = silence_s
        self._gone = gone
        self._key = link_key(secret)
        self._service = service
        self._complaints = LogOnce(log)
        self._served: set[_Served] = set()
        self._meeting = 0
        self._sent = self._messages = self._received = self._refused = 0

    async def serve(
        self,
        sockets: Sequence[socket.socket],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; then all links are cut. Args: sockets: bound, and not listening yet."""
        listeners = []
        for each in sockets:
            taken = trio.socket.from_stdlib_socket(each)
            taken.listen(HANDSHAKES_MAX)
            listeners.append(trio.SocketListener(taken))
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio.serve_listeners, self.attend, listeners))
            task_status.started()

    async def attend(self, stream: trio.abc.Stream) -> None:
        """Serve one connection, from the first byte to the last. No behaviour of the other node makes it
        raise."""
        if self._meeting >= HANDSHAKES_MAX:
            await trio.aclose_forcefully(stream)
            return
        try:
            async with trio.open_nursery() as library:
                try:
                    met = await self._meet(library, stream)
                    if met is not None:
                        await self._serve(library, *met)
                except ConnectionClosed:
                    log.debug("a link was closed before it began")
                except Exception as error:  # noqa: BLE001 - the boundary logs it
                    self._boundary.caught(error, "serving a link")
                library.cancel_scope.cancel()
        except* Exception as group:  # noqa: BLE001 - the boundary: the network costs one link
            log.debug("a link broke: %r", group.exceptions)
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    def statistics(self) -> LinkListenerStatistics:
        return LinkListenerStatistics(
            open=len(self._served),
            meeting=self._meeting,
            waiting=sum(each.transport.waiting for each in self._served),
            waiting_bytes=sum(each.transport.waiting_bytes for each in self._served),
            listening=sum(each.end.listening for each in self._served),
            sent_total=self._sent + sum(each.transport.sent_total for each in self._served),
            messages_total=self._messages + sum(each.transport.messages_total for each in self._served),
            received_total=self._received + sum(each.transport.received_total for each in self._served),
            refused_total=self._refused,
        )

    async def _meet(
        self, library: trio.Nursery, stream: trio.abc.Stream
    ) -> tuple[WebSocketConnection, str] | None:
        """The connection with a valid proof, and the run it comes from; None without one."""
        self._meeting += 1
        try:
            with trio.move_on_after(HANDSHAKE_S):
                request = await wrap_server_stream(
                    library, stream, max_message_size=MESSAGE_BYTES_MAX, receive_buffer_size=RECEIVE_BYTES
                )
                websocket = await request.accept()
                proof = ServerProof(self._key, self._own_run, secrets.token_bytes(NONCE_BYTES))
                await websocket.send_message(proof.hello())
                try:
                    run, ours = proof.admit(await websocket.get_message())
                except Refused as refused:
                    self._refused += 1
                    self._complaints.add("a link from %s is refused: %s", _address(stream), refused)
                    with trio.move_on_after(CLOSE_S):
                        await websocket.aclose(REFUSED, str(refused))
                    return None
                await websocket.send_message(ours)
                log.debug("a link from the run %s", run)
                return websocket, run
        finally:
            self._meeting -= 1
        return None

    async def _serve(self, library: trio.Nursery, websocket: WebSocketConnection, run: str) -> None:
        served = _Served(self._service, library, self._silence_s, self._boundary)
        self._served.add(served)
        silent = trio.CancelScope()

        async def watch() -> None:
            await served.transport.watch(lambda: self._gone(run))
            log.warning("no sign of life of the run %s: the link from it ends", run)
            silent.cancel()

        library.start_soon(watch)
        try:
            with silent:
                await served.transport.carry(websocket, served.end.hear)
        finally:
            with trio.CancelScope(shield=True):
                await served.end.lost()
            self._served.discard(served)
            self._sent += served.transport.sent_total
            self._messages += served.transport.messages_total
            self._received += served.transport.received_total


def _address(stream: trio.abc.Stream) -> str:
    """The address of the other node, for the log."""
    if isinstance(stream, trio.SocketStream):
        try:
            return str(stream.socket.getpeername()[0])
        except OSError:
            pass
    return "an unknown address"
