"""The client of a link, without a network: it keeps which reply waits for which entry.

It sends its entries by a transport, and receives the entries of the server in order.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Command, Detach
from engine.actors.delivery.fanout import CHUNK, Slicer
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import Subscriber
from engine.boundary import Boundary
from engine.shards.link import codec
from engine.shards.link.entries import (
    ASK_S,
    ASKS_MAX,
    REPLIES_MAX,
    REPLY_S,
    EntryTransport,
    Malformed,
    parts_of,
)
from engine.shards.ports import LinkLost

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Due:
    """A reply that still waits. `by` is on trio's clock, and does not matter for a reply that keeps
    listening."""

    reply: Subscriber
    session_id: str
    by: float


class _Question:
    """A request without an answer yet."""

    def __init__(self) -> None:
        self.answer: Mapping[str, object] | None = None
        self.settled = trio.Event()


class LinkClient:
    """Port `Links` for one other node. A mistake in a reply costs that reply.

    Args:
        transport: carries the entries to the server.
        boundary: of the node.
    """

    def __init__(self, transport: EntryTransport, boundary: Boundary | None = None) -> None:
        self._boundary = boundary or Boundary()
        self._transport = transport
        self._number = 0
        self._once: dict[int, _Due] = {}
        self._listening: dict[int, _Due] = {}
        self._numbers: dict[Subscriber, set[int]] = {}
        self._questions: dict[int, _Question] = {}
        self._over = False
        self.refused_total = 0

    @property
    def replies(self) -> int:
        return len(self._once) + len(self._listening)

    @property
    def asks(self) -> int:
        return len(self._questions)

    def send(self, session_id: str, command: Command) -> None:
        """As `Links.send`. A command that cannot be encoded, because a client sent nonsense, closes its reply
        with `CloseReason.FAILED`."""
        if isinstance(command, Detach):
            self.drop(command.reply)
            return
        reply = command.reply
        number = self._next()
        try:
            entry = codec.command_entry(number, session_id, command)
        except ValueError as error:
            log.warning("a command cannot go over a link: %s", error)
            reply.close(CloseReason.FAILED)
            return
        if self._over or self.replies >= REPLIES_MAX or not self._transport.offer(entry):
            self.refused_total += 1
            reply.close(CloseReason.RESTARTING)
            return
        due = _Due(reply, session_id, trio.current_time() + REPLY_S)
        (self._listening if codec.keeps_listening(command) else self._once)[number] = due
        self._numbers.setdefault(reply, set()).add(number)

    def drop(self, reply: Subscriber) -> None:
        """As `Links.drop`. If the link has no room to tell the server, it ends, so that the server
        stops too."""
        for number in self._numbers.pop(reply, ()):
            self._once.pop(number, None)
            due = self._listening.pop(number, None)
            if due is not None:
                entry = codec.command_entry(number, due.session_id, Detach(reply))
                if not self._transport.offer(entry) and not self._over:
                    self._transport.overflow()

    async def ask(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """As `Links.ask`. Raises ValueError for a request that cannot be encoded."""
        number = self._next()
        entry = codec.request_entry(number, request)
        if self._over or len(self._questions) >= ASKS_MAX or not self._transport.offer(entry):
            raise LinkLost("the link has no room")
        question = self._questions[number] = _Question()
        try:
            with trio.move_on_after(ASK_S):
                await question.settled.wait()
        finally:
            self._questions.pop(number, None)
        if question.answer is None:
            raise LinkLost("the link was lost" if self._over else "there was no answer")
        return question.answer

    def hear(self, entry: object) -> None:
        """Take an entry from the server. Raises Malformed."""
        kind, number, rest = parts_of(entry)
        try:
            if kind == codec.FRAME:
                self._frame(number, codec.frame_from_json(rest[0]))
            elif kind == codec.END:
                self._end(number, codec.close_reason_from_json(rest[0]))
            elif kind == codec.ANSWER:
                self._settle(number, codec.answer_from_json(rest[0]))
            elif kind == codec.NO_ANSWER:
                self._settle(number, None)
        except (ValueError, IndexError) as error:
            raise Malformed(str(error)) from None

    async def expire(self) -> None:
        """Close the replies that have waited for too long. Yields to other tasks in between."""
        now = trio.current_time()
        late = []
        for number, due in self._once.items():
            if due.by > now:
                break  # the rest were sent later
            late.append(number)
        slicer = Slicer()
        for place, number in enumerate(late):
            self._end(number, CloseReason.RESTARTING)
            if place % CHUNK == 0:
                await slicer.breathe()

    async def lost(self, close_reason: CloseReason = CloseReason.RESTARTING) -> None:
        """The link is over: close every reply, and refuse new commands. Replies that keep listening are
        closed with `close_reason`. Yields to other tasks in between; a reply that is dropped meanwhile is not
        called.
        """
        self._over = True
        for question in self._questions.values():
            question.settled.set()
        slicer = Slicer()
        for dues, each in ((self._once, CloseReason.RESTARTING), (self._listening, close_reason)):
            while dues:
                for _ in range(min(CHUNK, len(dues))):
                    number, due = dues.popitem()
                    self._close(number, due, each)
                await slicer.breathe()

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _frame(self, number: int, frame: Frame) -> None:
        due = self._listening.get(number)
        if due is None:
            due = self._once.pop(number, None)
            if due is None:
                return  # dropped, or too late
            self._forget(number, due)
        try:
            due.reply.push(frame)
        except Exception as error:  # noqa: BLE001 - the boundary logs it
            self._boundary.caught(error, "replying with what came over a link", due.session_id)

    def _end(self, number: int, close_reason: CloseReason) -> None:
        due = self._once.pop(number, None) or self._listening.pop(number, None)
        if due is not None:
            self._close(number, due, close_reason)

    def _close(self, number: int, due: _Due, close_reason: CloseReason) -> None:
        self._forget(number, due)
        try:
            due.reply.close(close_reason)
        except Exception as error:  # noqa: BLE001 - the boundary logs it
            self._boundary.caught(error, "replying with what came over a link", due.session_id)

    def _forget(self, number: int, due: _Due) -> None:
        numbers = self._numbers[due.reply]
        numbers.discard(number)
        if not numbers:
            del self._numbers[due.reply]

    def _settle(self, number: int, answer: Mapping[str, object] | None) -> None:
        question = self._questions.get(number)
        if question is not None:
            question.answer = answer
            question.settled.set()
