"""Moments that are sent between nodes, whose clocks differ: they are sent as ages.

The time that an answer spends in transit counts in its favour. That is a millisecond or two, where clocks may
differ by many.
"""

from __future__ import annotations

from dataclasses import replace

from engine.actors.commands import Answer, Command, Join
from engine.actors.delivery.subscriber import Subscriber


def departing(command: Command, reply: Subscriber, now: int) -> Command:
    """The command as it is sent over a link, with another reply: `at` in milliseconds relative to now."""
    if isinstance(command, Answer | Join):
        return _dated(command, reply, min(command.at - now, 0))
    return replace(command, reply=reply)


def arrived(command: Command, now: int) -> Command:
    """The command of another node, with `at` by the clock of this node."""
    if isinstance(command, Answer | Join):
        return _dated(command, command.reply, now + min(command.at, 0))
    return command


def _dated(command: Answer | Join, reply: Subscriber, at: int) -> Command:
    if isinstance(command, Join):
        return replace(command, reply=reply, at=at)
    # Answers are many, and `replace` takes more than twice as long.
    return Answer(
        reply,
        command.player,
        command.id,
        command.question,
        command.choice,
        at,
        command.code,
        command.held_ms,
        command.trace,
        command.user,
        command.request_id,
        command.attempt,
    )
