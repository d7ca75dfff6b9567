"""The subscribers of one session: who sits where, and how all of them are reached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from engine.actors.commands import Role
from engine.actors.endings import Ending
from engine.actors.fanout import Slicer, fan_out, fan_out_each
from engine.actors.frame import Frame
from engine.actors.subscriber import Subscriber


@dataclass(frozen=True, slots=True)
class Place:
    """What a subscriber is here: the host, one of the players, or a spectator."""

    role: Role
    player: int | None = None

    @property
    def key(self) -> int | str | None:
        """What only one subscriber at a time can hold; None for spectators."""
        return "host" if self.role == "host" else self.player


@dataclass(slots=True)
class Sent:
    """How much the sessions of a node have sent to their subscribers: frames that went to all of one session,
    and frames as the subscribers count them."""

    broadcasts: int = 0
    frames: int = 0


@dataclass(slots=True)
class Audience:
    """Subscribers by their place. Sending gives way to other tasks now and then (see `fanout`); who comes or
    goes meanwhile is not part of it."""

    sent: Sent
    _places: dict[Subscriber, Place] = field(default_factory=dict)
    _holders: dict[int | str, Subscriber] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, player: object) -> bool:
        """Whether this player is connected."""
        return player in self._holders

    def seat(self, subscriber: Subscriber, place: Place) -> None:
        """Let a subscriber in. Whoever held the same place before is told that it was replaced."""
        if place.key is not None:
            older = self._holders.get(place.key)
            if older is not None and older is not subscriber:
                self.leave(older)
                older.close(Ending.REPLACED)
            self._holders[place.key] = subscriber
        self._places[subscriber] = place

    def leave(self, subscriber: Subscriber) -> None:
        """Let a subscriber go. Nothing happens to one who is not here."""
        place = self._places.pop(subscriber, None)
        if place is not None and place.key is not None and self._holders.get(place.key) is subscriber:
            del self._holders[place.key]

    def show_out(self, player: int, ending: Ending) -> None:
        """Close a player's connection, if there is one."""
        subscriber = self._holders.get(player)
        if subscriber is not None:
            self.leave(subscriber)
            subscriber.close(ending)

    def dismiss(self, ending: Ending) -> None:
        """Close every connection."""
        leaving = list(self._places)
        self._places.clear()
        self._holders.clear()
        for subscriber in leaving:
            subscriber.close(ending)

    async def send(self, frame: Frame, host_frame: Frame | None = None) -> None:
        """Push a frame to everyone; where the host gets one of its own, that one to the host."""
        subscribers = list(self._places)
        host = self._holders.get("host")
        if host_frame is not None and host is not None:
            subscribers.remove(host)
            host.push(host_frame)
        self.sent.broadcasts += 1
        self.sent.frames += len(self._places)
        await fan_out(subscribers, frame, Slicer())

    async def send_each(
        self, frames: Iterable[tuple[int, Frame | None]], others: Frame | None = None
    ) -> None:
        """Push to each player the frame that is theirs, made as they are reached. `others` goes to all who
        are no players, before that."""
        if others is not None:
            rest = [subscriber for subscriber, place in self._places.items() if place.player is None]
            self.sent.frames += len(rest)
            await fan_out(rest, others, Slicer())
        await fan_out_each(self._paired(frames), Slicer())

    def _paired(
        self, frames: Iterable[tuple[int, Frame | None]]
    ) -> Iterator[tuple[Subscriber, Frame] | None]:
        for player, frame in frames:
            subscriber = self._holders.get(player)
            if frame is None or subscriber is None:
                yield None
            else:
                self.sent.frames += 1
                yield subscriber, frame
