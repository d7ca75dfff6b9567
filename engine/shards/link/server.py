"""The server of a link, without a network: it hands commands to the service of the node.

Each command gets a stand-in for its reply, which sends the frames of the session back over the link.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio

from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Command, Detach
from engine.actors.delivery.fanout import CHUNK, Slicer
from engine.actors.delivery.frame import Frame
from engine.boundary import Boundary
from engine.shards.link import codec
from engine.shards.link.entries import ASK_S, ASKS_MAX, REPLIES_MAX, EntryTransport, Malformed, parts_of
from engine.shards.ports import LinkService

log = logging.getLogger(__name__)


class _StandIn:
    """Subscriber, Paced: the reply of a command on the node that runs the session.

    It is over after its first frame, unless it `keeps` listening.
    """

    __slots__ = ("_end", "_number", "_over", "keeps", "session_id")

    def __init__(self, end: LinkServer, number: int, session_id: str) -> None:
        self._end = end
        self._number = number
        self._over = False
        self.keeps = False
        self.session_id = session_id

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        if not self._over:
            self._over = not self.keeps
            self._end.frame(self._number, frame)

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""
        if not self._over:
            self._over = True
            self._end.close(self._number, close_reason)

    def silence(self) -> None:
        self._over = True

    @property
    def has_room(self) -> bool:
        """Paced."""
        return self._over or self._end.transport.has_room

    async def wait_for_room(self) -> None:
        """Paced."""
        await self._end.transport.wait_for_room()


class LinkServer:
    """Receives commands and requests of another node, and sends back frames and answers.

    Args:
        transport: carries the entries to the client.
        service: of this node. An exception of it costs one command.
        nursery: runs the requests of the other node, and is cancelled with the link.
        boundary: of the node.
    """

    def __init__(
        self,
        transport: EntryTransport,
        service: LinkService,
        nursery: trio.Nursery,
        boundary: Boundary | None = None,
    ) -> None:
        self._boundary = boundary or Boundary()
        self.transport = transport
        self._service = service
        self._nursery = nursery
        self._listening: dict[int, _StandIn] = {}
        self._asks = 0
        self._over = False

    @property
    def listening(self) -> int:
        return len(self._listening)

    def hear(self, entry: object) -> None:
        """Take an entry from the client. Raises Malformed."""
        kind, number, rest = parts_of(entry)
        if kind == codec.COMMAND:
            if len(rest) < 2 or type(rest[0]) is not str:
                raise Malformed(f"not a command: {rest!r:.60}")
            self._command(number, rest[0], rest[1])
        elif kind == codec.REQUEST:
            if not rest or type(rest[0]) is not dict:
                raise Malformed(f"not a request: {rest!r:.60}")
            self._request(number, rest[0])

    def frame(self, number: int, frame: Frame) -> None:
        """Called by a stand-in. A frame that cannot be encoded ends its stand-in, not the link."""
        if self._over:
            return
        try:
            entry = codec.frame_entry(number, frame)
        except ValueError as error:
            log.error("a frame cannot go over a link: %s", error)  # noqa: TRY400 - the sentence says all
            stand_in = self._listening.get(number)
            if stand_in is None:
                self.close(number, CloseReason.FAILED)
            else:
                stand_in.close(CloseReason.FAILED)
            return
        self._say(entry)

    def close(self, number: int, close_reason: CloseReason) -> None:
        """End the reply with this number. Called by its stand-in, or instead of it."""
        self._listening.pop(number, None)
        self._say(codec.end_entry(number, close_reason))

    async def lost(self) -> None:
        """The link is over: detach every stand-in from its session, and drop later pushes. Yields to other
        tasks in between."""
        self._over = True
        slicer = Slicer()
        while self._listening:
            for _ in range(min(CHUNK, len(self._listening))):
                self._detach(self._listening.popitem()[1])
            await slicer.breathe()

    def _command(self, number: int, session_id: str, data: object) -> None:
        stand_in = _StandIn(self, number, session_id)
        try:
            command = codec.command_from_json(data, stand_in)
        except ValueError as error:
            log.warning("a command that came over a link is refused: %s", error)
            stand_in.close(CloseReason.FAILED)
            return
        if isinstance(command, Detach):
            known = self._listening.pop(number, None)
            if known is not None:
                self._detach(known)
            return
        if codec.keeps_listening(command):
            if len(self._listening) >= REPLIES_MAX:
                stand_in.close(CloseReason.RESTARTING)
                return
            stand_in.keeps = True
            self._listening[number] = stand_in
        self._deliver(session_id, command)

    def _detach(self, stand_in: _StandIn) -> None:
        stand_in.silence()
        self._deliver(stand_in.session_id, Detach(stand_in))

    def _deliver(self, session_id: str, command: Command) -> None:
        try:
            self._service.deliver(session_id, command)
        except Exception as error:  # noqa: BLE001 - the boundary logs it
            self._boundary.caught(error, "delivering what came over a link", session_id)
            command.reply.close(CloseReason.FAILED)

    def _request(self, number: int, request: Mapping[str, object]) -> None:
        if self._asks >= ASKS_MAX:
            self._say(codec.no_answer_entry(number))
            return
        self._asks += 1
        self._nursery.start_soon(self._answer, number, request)

    async def _answer(self, number: int, request: Mapping[str, object]) -> None:
        entry = codec.no_answer_entry(number)
        try:
            with trio.move_on_after(ASK_S):
                entry = codec.answer_entry(number, await self._service.answer(request))
        except Exception as error:  # noqa: BLE001 - the boundary logs it
            self._boundary.caught(error, "answering another node")
        finally:
            self._asks -= 1
        self._say(entry)

    def _say(self, entry: bytes) -> None:
        """Send an entry that the client waits for. If the link has no room for it, the link ends."""
        if not self._over and not self.transport.offer(entry):
            self.transport.overflow()
