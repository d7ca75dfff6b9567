"""Subscribers that a relay gives to the owner of its session, one for each thing that it asks."""

from __future__ import annotations

from typing import Protocol

from engine.actors import messages
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Command, Detach, Retry
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import Subscriber


class AskingRelay(Protocol):
    """What these subscribers need of a relay."""

    def deliver(self, command: Command) -> None: ...
    def receive(self, frame: Frame, admission: tuple[Subscriber, bool] | None) -> None: ...
    def turn_away(self, client: Subscriber, key: int | str | None) -> None: ...
    def lose(self, close_reason: CloseReason) -> None: ...


class Inbox:
    """Subscriber: receives the frames of the owner. There is one for each subscription of this node."""

    __slots__ = ("relay",)

    def __init__(self, relay: AskingRelay) -> None:
        self.relay: AskingRelay | None = relay

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        if self.relay is not None:
            self.relay.receive(frame, None)

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""
        if self.relay is not None:
            self.relay.lose(close_reason)


class Admission:
    """Subscriber: waits for the answer to the join of one client, which comes back to the seat `key`."""

    __slots__ = ("_client", "_key", "_may_move", "_relay")

    def __init__(self, relay: AskingRelay, client: Subscriber, may_move: bool, key: int | str | None) -> None:
        self._relay = relay
        self._client = client
        self._may_move = may_move
        self._key = key

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        if frame.kind == "admitted":
            self._relay.receive(frame, (self._client, self._may_move))
        else:
            self._relay.turn_away(self._client, self._key)
            self._client.push(frame)

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""
        self._relay.turn_away(self._client, self._key)
        self._client.close(close_reason)


class Answered:
    """Subscriber: waits for the reply to a command of a client. If the link is lost before that, the client
    is told to send a command again that may be repeated. After any other command the client is closed
    and has to come back, and its seat is free."""

    __slots__ = ("_client", "_command", "_relay")

    def __init__(self, relay: AskingRelay, command: Command) -> None:
        self._relay = relay
        self._client = command.reply
        self._command = command

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        self._client.push(frame)

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""
        if close_reason is CloseReason.RESTARTING and isinstance(self._command, Retry):
            self._client.push(messages.busy(self._command.id))
            return
        self._relay.deliver(Detach(self._client))
        self._client.close(close_reason)


class Nobody:
    """Subscriber: the reply of a command without an answer."""

    def push(self, frame: Frame) -> None:
        """Subscriber."""

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""


NOBODY = Nobody()
