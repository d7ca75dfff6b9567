"""Server-Sent Events, whichever port they leave by: how messages become events, and what else a stream says.

The format is that of the HTML standard, "Server-sent events".
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from engine.actors.close_reasons import CloseReason, Reconnect
from engine.actors.delivery.frame import PASSING, Message

EVENT_STREAM = "text/event-stream"
KEEP_ALIVE_S = 5.0
KEEP_ALIVE = b'event: alive\ndata: {"t":"alive"}\n\n'
"""An event and no comment: a page cannot see those, and so could not tell a quiet stream from a dead one."""

UNCONFIRMED_MAX_S = 30.0
"""How long a client may leave sent bytes unacknowledged. A vanished client is noticed by that."""

POSITION = re.compile(r"(\d{1,15}):(\d{1,15})", re.ASCII)

RETRY_MS: Mapping[Reconnect, tuple[int, int]] = {
    Reconnect.RESUME: (0, 250),
    Reconnect.LATER: (500, 3_000),
    Reconnect.MOVE: (0, 250),
    Reconnect.NO: (3_600_000, 3_600_000),
}
"""How long a browser waits before it comes back by itself: chosen at random between the two. It cannot be
told not to."""


@dataclass(frozen=True, slots=True)
class EventDialect:
    """Encodes a message as an event. Equal for all streams of an epoch, so that they share the bytes.

    The id is the position of the client in the stream: a browser sends it back by itself as Last-Event-ID.
    Only events that move the position have one: not messages without an offset of their own, and not a
    `joined` that is followed by missed messages.
    """

    epoch: int

    def __call__(self, message: Message) -> bytes:
        kind = message["t"]
        lines = f"event: {kind}\n".encode()
        behind = kind == "joined" and message["state"] is None
        if "offset" in message and kind not in PASSING and not behind:
            lines += f"id: {self.epoch}:{message['offset']}\n".encode()
        # JSON has no raw line breaks, so one data line holds it.
        return lines + b"data: " + orjson.dumps(message) + b"\n\n"


def position(last_event_id: str) -> tuple[int | None, int | None]:
    """Epoch and offset of a Last-Event-ID. An unknown text counts as none: the stream then begins with the
    whole state."""
    match = POSITION.fullmatch(last_event_id.strip())
    return (int(match[1]), int(match[2])) if match else (None, None)


def retry(policy: Reconnect) -> bytes:
    least, most = RETRY_MS[policy]
    return b"retry: %d\n\n" % random.randint(least, most)


def last_words(close_reason: CloseReason) -> bytes:
    """How long to stay away, and why."""
    body = {
        "t": "close",
        "code": close_reason.code,
        "reason": close_reason.reason,
        "reconnect": close_reason.reconnect,
    }
    return retry(close_reason.reconnect) + b"event: close\ndata: " + orjson.dumps(body) + b"\n\n"
