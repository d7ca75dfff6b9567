"""A WebSocket between two nodes that carries entries in batches."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import orjson
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.fanout import CHUNK, Slicer
from engine.latency import Latency, Signs
from engine.shards.link.codec import MESSAGE_BYTES_MAX
from engine.shards.link.entries import Malformed
from engine.shards.link.keepalive import LOOKS, SILENCE_S, Silence

log = logging.getLogger(__name__)

WAITING_MAX = 50_000
WAITING_BYTES_MAX = 16 << 20
"""The most entries, and bytes of entries, that wait to be sent. Beyond that there is no room."""

ROOM_BYTES = 1 << 20
"""While more than this waits, a sender that can wait does so."""

BATCH_MAX = 256
BATCH_BYTES_MAX = 256 << 10
"""Bounds of one message. A single entry may be larger, up to `codec.ENTRY_BYTES_MAX`."""

SEND_S = 10.0
"""A message that takes longer to send ends the link."""

RECEIVE_BYTES = 65_536
"""The most bytes read from the socket at once."""

CLOSE_S = 1.0
"""How long the close frame of the other node is waited for."""

MALFORMED = 1002
"""The close code after a message that is not a batch of entries."""

assert BATCH_BYTES_MAX + BATCH_MAX < MESSAGE_BYTES_MAX


class BatchedTransport:
    """EntryTransport over a WebSocket. It queues entries from the beginning, and carries them once the link
    is connected.

    All entries that are offered within one turn of the loop go as one message, up to the bounds of a batch.

    Args:
        silence_s: how long the other node may give no sign of life. The transport pings it.
        pings: counts how long the answers to them take.
    """

    def __init__(self, silence_s: float = SILENCE_S, pings: Latency | None = None) -> None:
        self._look_every_s = silence_s / LOOKS
        self._silence = Silence()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._wakeup = trio.Event()
        self._room = trio.Event()
        self._closing: tuple[int, str] | None = None
        self._over = False
        self.sent_total = 0
        self.received_total = 0
        self.messages_total = 0
        self.signs = Signs(pings)
        """How long the other node takes to answer a ping."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    def offer(self, entry: bytes) -> bool:
        """EntryTransport."""
        size = self._waiting_bytes + len(entry)
        if self._closing is not None or size > WAITING_BYTES_MAX or len(self._waiting) >= WAITING_MAX:
            return False
        self._waiting.append(entry)
        self._waiting_bytes = size
        self._wakeup.set()
        return True

    def overflow(self) -> None:
        """EntryTransport."""
        self.close(CloseReason.SLOW_CONSUMER.code, CloseReason.SLOW_CONSUMER.reason)

    @property
    def has_room(self) -> bool:
        """EntryTransport."""
        return self._over or self._waiting_bytes <= ROOM_BYTES

    async def wait_for_room(self) -> None:
        """EntryTransport."""
        while not self.has_room:
            await self._room.wait()

    def close(self, code: int, reason: str) -> None:
        """Close the connection after the message that is being sent, and drop the entries that wait. Never
        blocks. Only the first call counts."""
        if self._closing is None:
            self._closing = (code, reason)
            self._waiting.clear()
            self._waiting_bytes = 0
            self._wakeup.set()
            self._announce_room()

    async def carry(self, websocket: WebSocketConnection, hear: Callable[[object], None]) -> None:
        """Send and receive until the connection is over, for whatever reason. Args: hear: called with every
        entry, in order."""
        try:
            async with trio.open_nursery() as nursery:

                async def until_over(task: Callable[[WebSocketConnection], Awaitable[None]]) -> None:
                    with suppress(ConnectionClosed):
                        await task(websocket)
                    nursery.cancel_scope.cancel()

                async def read(websocket: WebSocketConnection) -> None:
                    try:
                        await self._read(websocket, hear)
                    except Malformed as error:
                        log.warning("a link is ended: %s", error)
                        self.close(MALFORMED, "malformed")
                    except ConnectionClosed:
                        if self._closing is None:
                            raise
                    await trio.sleep_forever()  # the writer sends the close frame

                nursery.start_soon(until_over, self._write)
                nursery.start_soon(until_over, read)
                nursery.start_soon(until_over, self._ask_for_life)
        finally:
            self._over = True
            self._announce_room()

    async def watch(self, gone: Callable[[], bool]) -> None:
        """Return when the other node has been silent for too long, whether it is connected yet or not. Args:
        gone: whether its heartbeat is gone, which shortens the wait."""
        while True:
            await trio.sleep(self._look_every_s)
            if self._silence.look(gone()):
                return

    def _announce_room(self) -> None:
        self._room.set()
        self._room = trio.Event()

    async def _write(self, websocket: WebSocketConnection) -> None:
        while True:
            if self._waiting:
                with trio.move_on_after(SEND_S) as scope:
                    await websocket.send_message(self._batch())
                if scope.cancelled_caught:
                    return  # in the middle of a message, so that no close frame can follow
            elif self._closing is not None:
                code, reason = self._closing
                with trio.move_on_after(CLOSE_S):
                    await websocket.aclose(code, reason)
                return
            else:
                self._wakeup = trio.Event()
                await self._wakeup.wait()

    def _batch(self) -> bytes:
        waiting = self._waiting
        taken = [waiting.popleft()]
        size = len(taken[0])
        while waiting and len(taken) < BATCH_MAX and size + len(waiting[0]) <= BATCH_BYTES_MAX:
            entry = waiting.popleft()
            size += len(entry)
            taken.append(entry)
        self._waiting_bytes -= size
        if self.has_room:
            self._announce_room()
        self.sent_total += len(taken)
        self.messages_total += 1
        return b"[%b]" % b",".join(taken)

    async def _ask_for_life(self, websocket: WebSocketConnection) -> None:
        try:
            while True:
                self._silence.hear()
                await trio.sleep(self._look_every_s)
                asked_s = trio.current_time()
                await websocket.ping()
                self.signs.answered(asked_s, trio.current_time())
        except ConnectionClosed:
            if self._closing is None:
                raise
            await trio.sleep_forever()  # as in `carry`

    async def _read(self, websocket: WebSocketConnection, hear: Callable[[object], None]) -> None:
        while True:
            message = await websocket.get_message()
            self._silence.hear()
            try:
                batch = orjson.loads(message)
            except orjson.JSONDecodeError as error:
                raise Malformed(str(error)) from None
            if type(batch) is not list:
                raise Malformed("a batch is one JSON array")
            slicer = Slicer()
            for start in range(0, len(batch), CHUNK):
                for entry in batch[start : start + CHUNK]:
                    if self._closing is not None:
                        return
                    hear(entry)
                await slicer.breathe()
            self.received_total += len(batch)
