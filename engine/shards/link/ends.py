"""The two ends of a link, without a network: what asks, and what is asked.

An end is given an outlet for its entries and is told what came in, in order. The near end keeps who waits for
what; the far end hands commands to the node's service, with a stand-in for each reply.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import trio

from engine.actors.close_reasons import Ending
from engine.actors.commands import Command, Detach
from engine.actors.delivery.fanout import CHUNK, Slicer
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import Subscriber
from engine.boundary import Boundary
from engine.shards.link import codec
from engine.shards.ports import LinkLost, LinkService

log = logging.getLogger(__name__)

REPLIES_MAX = 50_000
"""That one link waits for, or listens to. One more is refused."""

REPLY_S = 30.0
"""How long a command may stay without its one frame. A session that crashes may owe it forever."""

ASKS_MAX = 1_000
"""Requests from node to node under way on one link."""

ASK_S = 15.0


class Malformed(Exception):
    """What came over a link is no entry of one."""


class Outlet(Protocol):
    """Takes the entries of one end to the other, in order."""

    def offer(self, entry: bytes) -> bool:
        """False if there is no room for it, or the link is over. Never blocks."""

    def overflow(self) -> None:
        """The other side does not take what it listens to: end the link, from its own task."""

    @property
    def has_room(self) -> bool:
        """Whether so little waits that more of what can wait may be offered. True when the link is over."""

    async def wait_for_room(self) -> None:
        """Until that is so."""


def parts_of(entry: object) -> tuple[str, int, list[object]]:
    """Kind, number, and the rest. Raises Malformed."""
    if type(entry) is list and len(entry) > 1 and type(entry[0]) is str and type(entry[1]) is int:
        return entry[0], entry[1], entry[2:]
    raise Malformed(f"not an entry: {entry!r:.60}")


@dataclass(slots=True)
class _Due:
    """A reply that has not heard all yet. `by` is on trio's clock; the keeping ones have no such time."""

    reply: Subscriber
    session_id: str
    by: float


class _Question:
    """A request under way."""

    def __init__(self) -> None:
        self.answer: Mapping[str, object] | None = None
        self.settled = trio.Event()


class NearEnd:
    """The side that asks: `Links` for one other node. A mistake in a reply costs that reply."""

    def __init__(self, outlet: Outlet, boundary: Boundary | None = None) -> None:
        self._boundary = boundary or Boundary()
        self._outlet = outlet
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
        """As `Links.send`. The reply of one that cannot be said on a link, which takes a client that sends
        nonsense, is closed with `Ending.FAILED`."""
        if isinstance(command, Detach):
            self.drop(command.reply)
            return
        reply = command.reply
        number = self._next()
        try:
            entry = codec.command_entry(number, session_id, command)
        except ValueError as error:
            log.warning("a command cannot go over a link: %s", error)
            reply.close(Ending.FAILED)
            return
        if self._over or self.replies >= REPLIES_MAX or not self._outlet.offer(entry):
            self.refused_total += 1
            reply.close(Ending.RESTARTING)
            return
        due = _Due(reply, session_id, trio.current_time() + REPLY_S)
        (self._listening if codec.keeps_listening(command) else self._once)[number] = due
        self._numbers.setdefault(reply, set()).add(number)

    def drop(self, reply: Subscriber) -> None:
        """As `Links.drop`. Without room to say so the link ends, so that the other side does not go on."""
        for number in self._numbers.pop(reply, ()):
            self._once.pop(number, None)
            due = self._listening.pop(number, None)
            if due is not None:
                entry = codec.command_entry(number, due.session_id, Detach(reply))
                if not self._outlet.offer(entry) and not self._over:
                    self._outlet.overflow()

    async def ask(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """As `Links.ask`. Raises ValueError for a request that cannot be said on a link."""
        number = self._next()
        entry = codec.request_entry(number, request)
        if self._over or len(self._questions) >= ASKS_MAX or not self._outlet.offer(entry):
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
        """An entry from the far end. Raises Malformed."""
        kind, number, rest = parts_of(entry)
        try:
            if kind == codec.FRAME:
                self._frame(number, codec.frame_from_json(rest[0]))
            elif kind == codec.END:
                self._end(number, codec.ending_from_json(rest[0]))
            elif kind == codec.ANSWER:
                self._settle(number, codec.answer_from_json(rest[0]))
            elif kind == codec.NO_ANSWER:
                self._settle(number, None)
        except (ValueError, IndexError) as error:
            raise Malformed(str(error)) from None

    async def expire(self) -> None:
        """Close the replies that have waited for too long. Gives way to others in between."""
        now = trio.current_time()
        late = []
        for number, due in self._once.items():
            if due.by > now:
                break  # later ones were asked for later
            late.append(number)
        slicer = Slicer()
        for place, number in enumerate(late):
            self._end(number, Ending.RESTARTING)
            if place % CHUNK == 0:
                await slicer.breathe()

    async def lost(self, ending: Ending = Ending.RESTARTING) -> None:
        """The link is over: close every reply, those that listen with `ending`, and refuse what comes now.
        Gives way to others in between; whoever is dropped meanwhile hears nothing."""
        self._over = True
        for question in self._questions.values():
            question.settled.set()
        slicer = Slicer()
        for dues, each in ((self._once, Ending.RESTARTING), (self._listening, ending)):
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

    def _end(self, number: int, ending: Ending) -> None:
        due = self._once.pop(number, None) or self._listening.pop(number, None)
        if due is not None:
            self._close(number, due, ending)

    def _close(self, number: int, due: _Due, ending: Ending) -> None:
        self._forget(number, due)
        try:
            due.reply.close(ending)
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


class _StandIn:
    """The reply of a command, on the side that runs the session. Subscriber, Paced.

    It is over after its first frame, unless it `keeps` listening.
    """

    __slots__ = ("_end", "_number", "_over", "keeps", "session_id")

    def __init__(self, end: FarEnd, number: int, session_id: str) -> None:
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

    def close(self, ending: Ending) -> None:
        """Subscriber."""
        if not self._over:
            self._over = True
            self._end.close(self._number, ending)

    def silence(self) -> None:
        self._over = True

    @property
    def has_room(self) -> bool:
        """Paced."""
        return self._over or self._end.outlet.has_room

    async def wait_for_room(self) -> None:
        """Paced."""
        await self._end.outlet.wait_for_room()


class FarEnd:
    """The side that is asked.

    Args:
        service: of this node. What it raises costs one command.
        nursery: for the requests from node to node; cancelled with the link.
        boundary: of the node.
    """

    def __init__(
        self,
        outlet: Outlet,
        service: LinkService,
        nursery: trio.Nursery,
        boundary: Boundary | None = None,
    ) -> None:
        self._boundary = boundary or Boundary()
        self.outlet = outlet
        self._service = service
        self._nursery = nursery
        self._listening: dict[int, _StandIn] = {}
        self._asks = 0
        self._over = False

    @property
    def listening(self) -> int:
        return len(self._listening)

    def hear(self, entry: object) -> None:
        """An entry from the near end. Raises Malformed."""
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
        """From a stand-in. A frame that cannot be said ends the one that listens, not the link."""
        if self._over:
            return
        try:
            entry = codec.frame_entry(number, frame)
        except ValueError as error:
            log.error("a frame cannot go over a link: %s", error)  # noqa: TRY400 - the sentence says all
            stand_in = self._listening.get(number)
            if stand_in is None:
                self.close(number, Ending.FAILED)
            else:
                stand_in.close(Ending.FAILED)
            return
        self._say(entry)

    def close(self, number: int, ending: Ending) -> None:
        """From a stand-in, or instead of one."""
        self._listening.pop(number, None)
        self._say(codec.end_entry(number, ending))

    async def lost(self) -> None:
        """The link is over: every session hears that nobody listens over it any more. Pushes go nowhere.
        Gives way to others in between."""
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
            stand_in.close(Ending.FAILED)
            return
        if isinstance(command, Detach):
            known = self._listening.pop(number, None)
            if known is not None:
                self._detach(known)
            return
        if codec.keeps_listening(command):
            if len(self._listening) >= REPLIES_MAX:
                stand_in.close(Ending.RESTARTING)
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
            command.reply.close(Ending.FAILED)

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
        """What the near end waits for is not left out: without room for it the link ends."""
        if not self._over and not self.outlet.offer(entry):
            self.outlet.overflow()
