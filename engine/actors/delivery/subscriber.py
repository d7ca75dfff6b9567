"""A client as the actor sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import trio

from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame


class Subscriber(Protocol):
    """One connected client. The actor calls these in the middle of its work, for thousands in a row."""

    def push(self, frame: Frame) -> None:
        """Take a frame. Never blocks and never raises for the client's sake. After the end: nothing."""

    def close(self, close_reason: CloseReason) -> None:
        """End the connection, after what was pushed. Never blocks; the first ending counts."""


def push_all(subscriber: Subscriber, frames: Sequence[Frame]) -> None:
    """Push these frames one after another; at one time to a subscriber that has a `push_all` of its own,
    which means the same and costs less."""
    at_once: Callable[[Sequence[Frame]], None] | None = getattr(subscriber, "push_all", None)
    if at_once is not None:
        at_once(frames)
        return
    for frame in frames:
        subscriber.push(frame)


@runtime_checkable
class Paced(Protocol):
    """A subscriber that may be asked how much of what was pushed still waits here. To be asked by a task that
    has more to push than should wait at one time."""

    @property
    def has_room(self) -> bool:
        """Whether more may be pushed just now. True after the end."""

    async def wait_for_room(self) -> None:
        """Until that is so."""


class ConnectionEnded(Exception):
    """The actor closed the subscriber before it answered."""

    def __init__(self, close_reason: CloseReason) -> None:
        super().__init__(close_reason.sentence)
        self.close_reason = close_reason


class Waiter:
    """A subscriber for one reply: takes the first frame and ignores the rest. For request and response."""

    __slots__ = ("_close_reason", "_frame", "_settled")

    def __init__(self) -> None:
        self._frame: Frame | None = None
        self._close_reason: CloseReason | None = None
        self._settled = trio.Event()

    def push(self, frame: Frame) -> None:
        if not self._settled.is_set():
            self._frame = frame
            self._settled.set()

    def close(self, close_reason: CloseReason) -> None:
        if not self._settled.is_set():
            self._close_reason = close_reason
            self._settled.set()

    async def wait(self) -> Frame:
        """The first frame. Raises ConnectionEnded if the actor closed instead of answering."""
        await self._settled.wait()
        if self._frame is None:
            assert self._close_reason is not None
            raise ConnectionEnded(self._close_reason)
        return self._frame
