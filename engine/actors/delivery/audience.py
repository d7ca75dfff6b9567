"""The subscribers of one session: who sits where, and how all of them are reached."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import trio

from engine.actors import relay_messages
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Role
from engine.actors.delivery.fanout import Stall, Steps, fan_out, fan_out_each, fan_out_groups, in_slices
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import Paced, Subscriber
from engine.latency import Latency

STALL_S = 1.0
EACH_S = 5.0
"""How long a session waits for one node, at one time and in all, while it tells the nodes what is different
for each player. A node that needs longer is left out: its clients come back. Meanwhile all others wait for
what the session tells, but not for their acks."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a subscriber is here: the host, one of the players, or a spectator. `may_move`: it can be sent to
    another node."""

    role: Role
    player: int | None = None
    may_move: bool = False

    @property
    def key(self) -> int | str | None:
        """What only one subscriber at a time can hold; None for spectators."""
        return "host" if self.role == "host" else self.player


@dataclass(frozen=True, slots=True)
class _Either:
    """What is in one of two."""

    one: Container[object]
    other: Container[object]

    def __contains__(self, key: object) -> bool:
        return key in self.one or key in self.other


@dataclass(slots=True)
class Sent:
    """How much the sessions of a node have sent to their subscribers: frames that went to all of one session,
    and frames as the subscribers count them. `latency` has the time from the moment when
    a frame is queued until it was handed over to all subscribers of its session."""

    broadcasts: int = 0
    frames: int = 0
    latency: Latency = field(default_factory=Latency)


@dataclass(slots=True)
class Audience:
    """Subscribers by their place. A fan-out takes a while (see `fanout`): subscribers that come meanwhile are
    not part of it, and those that go, or take another place, get no more of it.

    Some places may be at other nodes. Those nodes are reached with one frame each, by way of their relay, and
    of who sits there only the number of the player is known here.
    """

    sent: Sent
    _places: dict[Subscriber, Place] = field(default_factory=dict)
    _watching: dict[Subscriber, None] = field(default_factory=dict)
    """Those of them who are no players, in the order in which they came."""
    _holders: dict[int | str, Subscriber] = field(default_factory=dict)
    _relays: dict[str, Subscriber] = field(default_factory=dict)
    _away: dict[int | str, str] = field(default_factory=dict)
    """Who sits at which other node."""
    on_change: Callable[[int | str], None] | None = None
    """Told of each place that was taken or left, here or at another node."""

    def __len__(self) -> int:
        return len(self._places) + len(self._relays)

    def __contains__(self, player: object) -> bool:
        """Whether this player is connected, here."""
        return player in self._holders

    @property
    def connected(self) -> Container[int | str]:
        """The places that are taken, wherever."""
        return _Either(self._holders, self._away)

    @property
    def connected_players(self) -> int:
        return len(self._holders) + len(self._away) - ("host" in self.connected)

    @property
    def watched(self) -> bool:
        """Whether anybody but players may be here, or at another node."""
        return bool(self._watching or self._relays)

    @property
    def relayed(self) -> bool:
        """Whether other nodes are subscribed."""
        return bool(self._relays)

    def seated(self) -> list[tuple[Subscriber, Place]]:
        """Who sits here."""
        return list(self._places.items())

    def connections(self) -> list[Subscriber]:
        """The subscribers of this node."""
        return list(self._places)

    def held(self) -> list[int | str]:
        """The places that are taken here: players by their number, and "host"."""
        return list(self._holders)

    def seat(self, subscriber: Subscriber, place: Place) -> None:
        """Let a subscriber in. Whoever held the same place before is told that it was replaced."""
        if place.key is not None:
            self._replace(place.key, subscriber)
            self._holders[place.key] = subscriber
            self._away.pop(place.key, None)
        self._places[subscriber] = place
        if place.player is None:
            self._watching[subscriber] = None
        self._changed(place.key)

    def seat_away(self, node: str, key: int | str | None) -> None:
        """Note that a place is taken at another node, which is subscribed already."""
        if key is not None:
            self._replace(key, None, node)
            self._away[key] = node
            self._changed(key)

    def leave_away(self, node: str, key: int | str) -> None:
        """Note that nobody sits at this place of that node any more."""
        if self._away.get(key) == node:
            del self._away[key]
            self._changed(key)

    def _changed(self, key: int | str | None) -> None:
        if self.on_change is not None and key is not None:
            self.on_change(key)

    def _replace(self, key: int | str, newer: Subscriber | None, node: str | None = None) -> None:
        older = self._holders.get(key)
        if older is not None and older is not newer:
            self.leave(older)
            older.close(CloseReason.REPLACED)
        self._tell_away(key, CloseReason.REPLACED, but=node)

    def _tell_away(self, key: int | str, close_reason: CloseReason, *, but: str | None = None) -> None:
        at = self._away.get(key)
        if at is not None and at != but and (relay := self._relays.get(at)) is not None:
            relay.push(relay_messages.disconnect(key, close_reason))

    def leave(self, subscriber: Subscriber) -> int | str | None:
        """Let a subscriber go, or a node. Nothing happens to one who is not here. Returns which place is free
        now."""
        place = self._places.pop(subscriber, None)
        self._watching.pop(subscriber, None)
        if place is not None and place.key is not None and self._holders.get(place.key) is subscriber:
            del self._holders[place.key]
            self._changed(place.key)
            return place.key
        if place is None and self._relays:
            for node in [node for node, relay in self._relays.items() if relay is subscriber]:
                del self._relays[node]
                self._forget_away(node)
        return None

    def _forget_away(self, node: str, but: Container[int | str] = ()) -> None:
        for key in [key for key, at in self._away.items() if at == node and key not in but]:
            self.leave_away(node, key)

    def subscribe_node(self, node: str, relay: Subscriber, keys: Iterable[int | str]) -> None:
        """Subscribe a node for the clients with these places, and for all that will be seated there. A client
        that has taken a seat elsewhere meanwhile has left that node, or is told to."""
        self._relays[node] = relay
        keys = set(keys)
        self._forget_away(node, keys)
        for key in keys:
            if key in self._holders or self._away.get(key, node) != node:
                relay.push(relay_messages.disconnect(key, CloseReason.REPLACED))
            elif key not in self._away:
                self._away[key] = node
                self._changed(key)

    def disconnect(self, key: int | str, close_reason: CloseReason) -> None:
        """Close the connection of a player, or of the host, if there is one."""
        subscriber = self._holders.get(key)
        if subscriber is not None:
            self.leave(subscriber)
            subscriber.close(close_reason)
        self._tell_away(key, close_reason)
        if self._away.pop(key, None) is not None:
            self._changed(key)

    def dismiss(self, close_reason: CloseReason) -> None:
        """Close every connection."""
        leaving = [*self._places, *self._relays.values()]
        self.clear()
        for subscriber in leaving:
            subscriber.close(close_reason)

    def clear(self) -> list[Subscriber]:
        """Forget everyone, and whoever heeds; the relays of other nodes are given back."""
        self.on_change = None
        relays = list(self._relays.values())
        for places in (self._places, self._watching, self._holders, self._relays, self._away):
            places.clear()
        return relays

    def sending(self, frame: Frame, host_frame: Frame | None = None, *, players: bool = True) -> Steps:
        """The fan-out of a frame to everyone, or to all but the players: other nodes first, then the host;
        where the host gets a frame of its own, of that one to the host."""
        if players:
            seats = self._places.copy()
        else:
            seats = {subscriber: self._places[subscriber] for subscriber in self._watching}
        self.sent.broadcasts += 1
        self.sent.frames += len(seats)
        host = self._holders.get("host")
        hosts = {} if host is None else {host: seats.pop(host)}
        here = chain(fan_out(hosts, self._places, host_frame or frame), fan_out(seats, self._places, frame))
        if not self._relays:
            return here
        cast = relay_messages.cast(frame, host_frame, players=players)
        return chain(self._casting(cast, self._relays.copy()), here)

    async def send(self, frame: Frame, host_frame: Frame | None = None, *, players: bool = True) -> None:
        """As `sending`, to the end."""
        await in_slices(self.sending(frame, host_frame, players=players))

    def tell_host(self, frame: Frame) -> None:
        """Push a frame to the host, wherever it sits, if it is connected."""
        host = self._holders.get("host")
        if host is not None:
            self.sent.frames += 1
            host.push(frame)
        elif (relay := self._relays.get(self._away.get("host", ""))) is not None:
            relay.push(relay_messages.for_host(frame))

    def tell_player(self, player: int, frame: Frame) -> None:
        """Push a frame to a player, at whichever node, who is connected."""
        subscriber = self._holders.get(player)
        if subscriber is not None:
            self.sent.frames += 1
            subscriber.push(frame)
        elif (relay := self._relays.get(self._away.get(player, ""))) is not None:
            relay.push(relay_messages.for_player(player, frame))

    def _cast(self, frame: Frame) -> None:
        for relay in list(self._relays.values()):
            relay.push(frame)

    def start_flush(self, number: int) -> set[str]:
        """Ask the subscribed nodes to say when all answers are on their way. Returns who was asked."""
        self._cast(relay_messages.flush(number))
        return set(self._relays)

    def has_node(self, node: str) -> bool:
        return node in self._relays

    def casting(self, frame: Frame) -> Steps:
        """The fan-out of a frame to the subscribed nodes alone, for everyone there."""
        return self._casting(relay_messages.cast(frame, None, players=True), self._relays.copy())

    def casting_each(self, frames: Iterable[Frame]) -> Steps:
        """The fan-out of frames that are made one by one to the subscribed nodes, no faster than they
        take them. A node that does not keep up is unsubscribed."""
        return self._casting_each(frames, self._relays.copy())

    def _casting_each(self, frames: Iterable[Frame], relays: Mapping[str, Subscriber]) -> Steps:
        waited_s: dict[Subscriber, float] = {}
        for frame in frames:
            yield from self._waiting_for_room(relays, waited_s)
            yield from self._casting(frame, relays)

    def _casting(self, frame: Frame, relays: Mapping[str, Subscriber]) -> Steps:
        for node, relay in relays.items():
            if self._relays.get(node) is relay:
                relay.push(frame)
        yield None

    def _waiting_for_room(self, relays: Mapping[str, Subscriber], waited_s: dict[Subscriber, float]) -> Steps:
        """Args: waited_s: for each node so far."""
        behind = [
            relay
            for node, relay in relays.items()
            if isinstance(relay, Paced) and not relay.has_room and self._relays.get(node) is relay
        ]
        began = trio.current_time() if behind else 0.0
        for relay in behind:
            before_s = waited_s.get(relay, 0.0)
            stall = Stall(relay, began + min(STALL_S, EACH_S - before_s))
            if relay.has_room:  # since the one before it was waited for
                continue
            while not stall.is_over:
                yield stall
            waited_s[relay] = before_s + trio.current_time() - began
            if not relay.has_room:
                self.leave(relay)
                relay.close(CloseReason.SLOW_CONSUMER)

    def sending_each(self, frames: Iterable[tuple[int, Frame | None]], others: Frame | None = None) -> Steps:
        """The fan-out to each player of the frame that is theirs, made as the player is reached. `others`
        goes to all who are no players, before that."""
        seats, holders = self._places.copy(), self._holders.copy()
        to_each = fan_out_each(self._paired(frames, seats, holders))
        if others is None:
            return to_each
        rest = {subscriber: seats[subscriber] for subscriber in self._watching}
        self.sent.frames += len(rest)
        return chain(fan_out(rest, self._places, others), to_each)

    def sending_around(
        self, before: Frame, frames: Iterable[tuple[int, Frame | None]], after: Frame
    ) -> Steps:
        """The fan-out to everyone here of `before` and `after`, and between the two to each player of the
        frame that is theirs, made as the player is reached. A subscriber gets all of it at one time."""
        seats, holders = self._places.copy(), self._holders.copy()
        self.sent.broadcasts += 2
        self.sent.frames += 2 * len(seats)
        return fan_out_groups(self._grouped(before, frames, after, seats, holders))

    def _grouped(
        self,
        before: Frame,
        frames: Iterable[tuple[int, Frame | None]],
        after: Frame,
        seats: dict[Subscriber, Place],
        holders: Mapping[int | str, Subscriber],
    ) -> Iterator[tuple[Subscriber, Sequence[Frame]] | None]:
        """Whoever leads or watches first, then the players in the order of their frames, then all others."""
        to_all = (before, after)
        for subscriber in [each for each in seats if seats[each].player is None]:
            here = self._places.get(subscriber) is seats.pop(subscriber)
            yield (subscriber, to_all) if here else None
        for player, frame in frames:
            one = holders.get(player)
            if one is None or self._places.get(one) is not seats.pop(one):
                yield None
            elif frame is None:
                yield one, to_all
            else:
                self.sent.frames += 1
                yield one, (before, frame, after)
        for subscriber, seat in seats.items():
            yield (subscriber, to_all) if self._places.get(subscriber) is seat else None

    async def send_each(
        self, frames: Iterable[tuple[int, Frame | None]], others: Frame | None = None
    ) -> None:
        """As `sending_each`, to the end."""
        await in_slices(self.sending_each(frames, others))

    def _paired(
        self,
        frames: Iterable[tuple[int, Frame | None]],
        seats: Mapping[Subscriber, Place],
        holders: Mapping[int | str, Subscriber],
    ) -> Iterator[tuple[Subscriber, Frame] | None]:
        for player, frame in frames:
            subscriber = holders.get(player)
            if frame is None or subscriber is None or self._places.get(subscriber) is not seats[subscriber]:
                yield None
            else:
                self.sent.frames += 1
                yield subscriber, frame
