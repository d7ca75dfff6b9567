"""A session that runs on another node, for the clients that are connected to this one.

The owner sends each broadcast once, and this node relays it to all of its own clients. Commands of clients go
to the owner, and the answers come back. So the owner pays for a broadcast by the node, not by the player, and
a session may have more players than one node can serve. A relay also keeps clients playing while they are
moved, one after another, to the node that their session was handed to.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import trio

from engine.actors import messages, relay_messages
from engine.actors.clock import Clock
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Command, Detach, Flushed, Join, Left, Rejoin, SubscribeNode, Watch
from engine.actors.delivery.audience import Audience, Place, Sent
from engine.actors.delivery.frame import PASSING, Frame
from engine.actors.delivery.stream import StreamState
from engine.actors.delivery.subscriber import Subscriber
from engine.actors.reads import Reads
from engine.shards.clock_offset import departing
from engine.shards.ports import Links, Member
from engine.shards.relay_replies import NOBODY, Admission, Answered, Inbox

log = logging.getLogger(__name__)

INBOX_MAX = 20_000
"""The most frames of the owner that wait here. Beyond that this node does not keep up: its clients are
closed, and come back."""

KNOCKING_MAX = 10_000
"""Clients that wait for a relay to subscribe again, at most."""

EMPTY_S = 10.0
"""How long a relay without clients stays."""

TRY_AGAIN_S = (0.2, 1.6)
"""The pause before each try to subscribe again after the link was lost: doubling from the first to the
second."""

HOLD_S = 8.0
"""The default of how long a relay tries. By then another node runs the session, and has announced it.
Meanwhile the clients stay connected; in the end they are closed, and look for the session themselves."""


_OF_A_USER = "user"
"""Stands for the seat of a client that joins as a user of the app: the owner knows which seat that is."""


def _is_of_user(command: Join | Rejoin) -> bool:
    return (command.identity if isinstance(command, Join) else command.user) is not None


class Relay:
    """Stand-in for one session. `deliver` may be called at any time; `run` must be running.

    The frames of the owner are handled in the order in which they arrive, so a client that is admitted misses
    no broadcast and gets none twice.

    Args:
        node: the run of this node, as the owner knows it.
        code: of the session.
        reads: what this node has read of what its clients have sent.
        find_owner: finds the node of a session whose owner cannot be reached. Returns None while no owner is
            known, or when this relay is not needed any more.
        hold_s: how long the relay tries to reach an owner.
        shared: every node takes players of this session.
        seated: clients that are here from the start.
        stream: the position of these clients in the stream.
    """

    def __init__(
        self,
        session_id: str,
        code: str,
        owner: Member,
        *,
        node: str,
        links: Links,
        clock: Clock,
        reads: Reads,
        sent: Sent,
        find_owner: Callable[[Relay], Awaitable[Member | None]],
        hold_s: float = HOLD_S,
        shared: bool = False,
        stream: StreamState | None = None,
        seated: Iterable[tuple[Subscriber, Place]] = (),
    ) -> None:
        self.session_id = session_id
        self.code = code
        self.owner = owner
        self.shared = shared
        self.over = False
        """The relay takes no more commands or frames."""
        self._node = node
        self._links = links
        self._clock = clock
        self._reads = reads
        self._find_owner = find_owner
        self._hold_s = hold_s
        self._audience = Audience(sent)
        self._epoch = None if stream is None else stream.epoch
        self._offset = 0 if stream is None else stream.offset
        for subscriber, place in seated:
            self._audience.seat(subscriber, place)
        self._inbox: deque[tuple[Frame, tuple[Subscriber, bool] | None]] = deque()
        self._wakeup = trio.Event()
        self._lost: CloseReason | None = None
        self._lost_since: float | None = None
        """Since when this node is not subscribed."""
        self._tries = 0
        self._told = trio.Event()
        """Set when another owner is known, or the relay has ended."""
        self._subscription: Inbox | None = None
        self._entering: dict[Subscriber, int | str | None] = {}
        """Clients that wait for admission, until they leave, and the seat that each comes back to."""
        self._awaited: Counter[int | str | None] = Counter()
        """How many of them come back to each seat."""
        self._vacated_meanwhile: set[int | str] = set()
        self._rows: list[relay_messages.Row] = []
        self._knocking: list[Join | Rejoin | Watch] = []
        """Clients that have come while this node was not subscribed."""
        self._subscribe()

    @property
    def subscribers(self) -> int:
        return len(self._audience)

    # -- for others ------------------------------------------------------------------------------

    def deliver(self, command: Command) -> None:
        """Hand over a command. Never blocks."""
        match command:
            case Detach():
                self._has_entered(command.reply)
                self._knocking = [each for each in self._knocking if each.reply is not command.reply]
                self._vacate(self._audience.leave(command.reply))
                self._vacate_late()
                self._wakeup.set()
            case Join(attach=True) | Rejoin() | Watch():
                self._let_in(command)
            case _:
                self._pass_on(command, Answered(self, command))

    def _let_in(self, command: Join | Rejoin | Watch) -> None:
        if self.over or len(self._knocking) >= KNOCKING_MAX:
            command.reply.push(messages.busy())
        elif self._subscription is None:
            # Let in before the node has subscribed again, a client would get missed broadcasts twice.
            self._knocking.append(command)
        else:
            key: int | str | None = None
            if isinstance(command, Join | Rejoin) and _is_of_user(command):
                key = _OF_A_USER
            elif isinstance(command, Rejoin):
                key = Place(command.role, command.player).key
            admission = Admission(self, command.reply, command.may_move, key)
            self._has_entered(command.reply)
            self._entering[command.reply] = key
            self._awaited[key] += 1
            self._pass_on(replace(command, may_move=False, relay=self._node), admission)

    def _has_entered(self, client: Subscriber) -> bool:
        """Stop waiting for the admission of this client. False if it was not awaited."""
        if client not in self._entering:
            return False
        key = self._entering.pop(client)
        self._awaited[key] -= 1
        if not self._awaited[key]:
            del self._awaited[key]
        return True

    def _vacate(self, key: int | str | None) -> None:
        """Tell the owner that a seat here is free. Not while a client is about to take it, because its join
        may have reached the owner first. Nor while this node is not subscribed, because the next subscription
        lists the seats. While a user is about to take some seat, it may be this one: then it is seen later.
        """
        if key == _OF_A_USER:
            return
        if key is not None and _OF_A_USER in self._awaited:
            self._vacated_meanwhile.add(key)
            return
        taken = key in self._audience or key in self._awaited
        if key is not None and not taken and self._subscription is not None:
            self._pass_on(Left(NOBODY, self._node, key), NOBODY)

    def _vacate_late(self) -> None:
        """Tell the owner of the seats that became free while users were about to take some."""
        if self._vacated_meanwhile and _OF_A_USER not in self._awaited:
            vacated, self._vacated_meanwhile = self._vacated_meanwhile, set()
            for key in vacated:
                self._vacate(key)

    def _pass_on(self, command: Command, reply: Subscriber) -> None:
        self._links.send(self.owner, self.session_id, departing(command, reply, self._clock.now_ms()))

    def follow(self, owner: Member) -> None:
        """Subscribe at the node that runs the session now. If the stream is the same, clients stay."""
        self.owner = owner
        self._subscribe()
        self._told.set()

    async def move_all(self, url: str, over_s: float) -> None:
        """Send the clients that can be moved to the address of the owner, one after another, spread over
        `over_s` seconds."""
        leaving = [(who, place) for who, place in self._audience.seated() if place.may_move]
        began = trio.current_time()
        for number, (subscriber, _) in enumerate(leaving, start=1):
            self._vacate(self._audience.leave(subscriber))
            subscriber.push(messages.moved(url))
            subscriber.close(CloseReason.MOVED)
            self._wakeup.set()
            await trio.sleep_until(began + over_s * number / len(leaving))

    def end(self, close_reason: CloseReason) -> None:
        """Close every client. After this the relay takes no more commands or frames."""
        if not self.over:
            self.over = True
            self._let_go()
            waiting = [admission[0] for _, admission in self._inbox if admission is not None]
            self._inbox.clear()
            waiting += [command.reply for command in self._knocking]
            self._knocking.clear()
            for subscriber in waiting:
                subscriber.close(close_reason)
            self._audience.dismiss(close_reason)
            self._wakeup.set()
            self._told.set()

    # -- from the owner --------------------------------------------------------------------------

    def receive(self, frame: Frame, admission: tuple[Subscriber, bool] | None) -> None:
        """Queue a frame of the owner. Args: admission: the client that it admits, and whether that may be
        moved."""
        if self.over:
            if admission is not None:
                admission[0].close(CloseReason.RESTARTING)
        elif len(self._inbox) >= INBOX_MAX:
            log.warning("session %s: this node does not keep up with its owner", self.session_id)
            self.end(CloseReason.SLOW_CONSUMER)
        else:
            _restate(frame, self._clock.now_ms())
            self._inbox.append((frame, admission))
            self._wakeup.set()

    def turn_away(self, client: Subscriber, key: int | str | None) -> None:
        """The owner has not admitted the client. Args: key: the seat that the client wanted to come
        back to."""
        self._has_entered(client)
        self._vacate(key)
        self._vacate_late()
        self._wakeup.set()

    def lose(self, close_reason: CloseReason) -> None:
        """The owner has ended the subscription, or cannot be reached."""
        self._subscription = None
        self._lost = close_reason
        self._wakeup.set()

    def _subscribe(self) -> None:
        self._let_go()
        self._lost = None
        inbox = self._subscription = Inbox(self)
        seats = None if self._epoch is None else self._audience.held()
        self._pass_on(SubscribeNode(inbox, self._node, self._epoch, self._offset, seats), inbox)
        knocking, self._knocking = self._knocking, []
        for command in knocking:
            self._let_in(command)

    def _let_go(self) -> None:
        inbox, self._subscription = self._subscription, None
        if inbox is not None:
            inbox.relay = None
            self._links.drop(inbox)

    # -- the task --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until the relay ends, or has had no clients for a while."""
        try:
            while not self.over:
                with trio.move_on_after(math.inf if self._needed else EMPTY_S) as waiting:
                    await self._wakeup.wait()
                if waiting.cancelled_caught and not self._needed and not self._inbox:
                    self.end(CloseReason.RESTARTING)
                    return
                self._wakeup = trio.Event()
                while self._inbox and not self.over:
                    await self._handle(*self._inbox.popleft())
                if self._lost is not None and not self.over:
                    await self._try_again(self._lost)
        finally:
            self.end(CloseReason.RESTARTING)

    @property
    def _needed(self) -> bool:
        return len(self._audience) > 0 or len(self._entering) > 0 or len(self._knocking) > 0

    async def _try_again(self, close_reason: CloseReason) -> None:
        """Subscribe again. A lost link may come back at once; if not, another node soon runs the session. Any
        other close reason ends the relay."""
        self._lost = None
        now = trio.current_time()
        if self._lost_since is None:
            self._lost_since = now
        left_s = self._lost_since + self._hold_s - now
        if close_reason is not CloseReason.RESTARTING or left_s <= 0 or self._epoch is None:
            self.end(close_reason)
            return
        self._told = trio.Event()
        least_s, most_s = TRY_AGAIN_S
        with trio.move_on_after(min(least_s * 2**self._tries, most_s, left_s)):
            await self._told.wait()
            return
        owner: Member | None = self.owner
        if self._tries:
            with trio.move_on_after(left_s):
                owner = await self._find_owner(self)
        self._tries += 1
        if self.over or self._subscription is not None:
            return
        if owner is None:
            self._lost = close_reason
            self._wakeup.set()
        else:
            self.follow(owner)

    async def _handle(self, frame: Frame, admission: tuple[Subscriber, bool] | None) -> None:
        message: Any = frame.message
        match frame.kind:
            case "cast":
                await self._pass_to_all(message)
            case "admitted":
                assert admission is not None
                self._admit(message, *admission)
            case "standing":
                await self._tell_each(message)
            case "for_host":
                self._audience.tell_host(Frame(message["frame"]))
            case "for_player":
                self._audience.tell_player(message["player"], Frame(message["frame"]))
            case "disconnect":
                self._audience.disconnect(message["key"], CloseReason[message["close_reason"]])
            case "flush":
                self._flush(message["number"])
            case "moved_on":
                self._move_on(Member.parse(message["node"]))
            case "relayed":
                self._begin(message)
            case _:  # an error: there is no such session there any more
                self.end(CloseReason.RESTARTING)

    def _flush(self, number: int) -> None:
        """Tell the owner once the answers that were received before are on the link, in front of this."""

        def flushed() -> None:
            if self._subscription is subscription and subscription is not None:
                self._pass_on(Flushed(NOBODY, self._node, number), NOBODY)

        subscription = self._subscription
        if not self._reads.tell_when_read(flushed):
            flushed()

    def _move_on(self, owner: Member) -> None:
        if owner.run == self._node:
            # This node runs the session now, and clients come back to its actor. If they stayed, this run
            # would have two relays after the next move.
            self.end(CloseReason.TAKEN_OVER)
        else:
            self.follow(owner)

    def _begin(self, message: Any) -> None:
        stays = self._epoch is not None and (message["epoch"], message["offset"]) == (
            self._epoch,
            self._offset,
        )
        if len(self._audience) and not stays:
            # The broadcasts they missed are no longer all kept.
            self._audience.dismiss(CloseReason.TAKEN_OVER)
        self._epoch, self._offset = message["epoch"], message["offset"]
        self._rows = []  # of a standing that was cut off
        self._tries = 0
        self._lost_since = None

    async def _pass_to_all(self, message: Any) -> None:
        frame = Frame(message["frame"])
        host_frame = None if message["host"] is None else Frame(message["host"])
        if frame.kind not in PASSING:
            self._offset = message["frame"]["offset"]
        # A node of an earlier release does not send `players`.
        await self._audience.send(frame, host_frame, players=message.get("players", True))

    def _admit(self, message: Any, client: Subscriber, may_move: bool) -> None:
        place = Place(message["role"], message["player"], may_move)
        if not self._has_entered(client):
            self._vacate(place.key)  # it has left
            self._vacate_late()
            return
        self._audience.seat(client, place)
        self._vacate_late()
        for told in message["frames"]:
            client.push(Frame(told))

    async def _tell_each(self, message: Any) -> None:
        self._rows += map(tuple, message["rows"])
        if not message["last"]:
            return
        rows, self._rows = self._rows, []
        finished = message["finished"]
        if finished is None:
            skipped = message.get("skipped", False)  # an older node has no such questions
            await self._audience.send_each(_results(rows, message["number"], skipped, self._audience))
            return
        self._offset = finished["offset"]
        await self._audience.send_each(_endings(rows, finished, self._audience), others=Frame(finished))


def _restate(frame: Frame, now: int) -> None:
    """Replace the time of the owner by the time of receipt: clients know the clock of this node, and clocks
    differ by more than a message spends on the way."""
    message: Any = frame.message
    told = (message["frame"], message["host"]) if frame.kind == "cast" else message.get("frames", ())
    for each in told:
        for dated in (each, (each or {}).get("state")):
            if dated is not None and "now" in dated:
                dated["now"] = now


def _results(
    rows: list[relay_messages.Row], number: int, skipped: bool, wanted: Audience
) -> Iterator[tuple[int, Frame | None]]:
    lines = (
        {"rank": rank, "id": player, "name": name, "score": score} for rank, player, name, score, *_ in rows
    )
    around_each = messages.neighbourhoods(lines, messages.AROUND)
    for (rank, player, _, score, correct, points, streak), around in zip(rows, around_each, strict=True):
        frame = None
        if player in wanted:
            frame = messages.result_frame(
                number, correct, points, score, rank, streak, around, skipped=skipped
            )
        yield player, frame


def _endings(
    rows: list[relay_messages.Row], finished: Any, wanted: Audience
) -> Iterator[tuple[int, Frame | None]]:
    for rank, player, _, score, *_ in rows:
        frame = None
        if player in wanted:
            you: messages.Line = {"rank": rank, "score": score}
            frame = messages.finished_frame(finished["offset"], finished["podium"], you)
        yield player, frame
