"""What a node logs: lines for people, or one JSON object a line for machines.

Neither has tokens or names of players. In JSON a record has the members `at` (RFC 3339, UTC), `level`,
`logger`, `node` and `message`, whatever of `FIELDS` the logger gave as `extra`, what its message names
("session %s", "player %d"), and `traceback` after a mistake. A client can cause some events as often as it
likes, so each event is limited: what is left out is counted, and the count is in the next line of the event
(`left_out`).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import orjson

from engine.trace import current
from server.runtime.request_ids import current_id

TEXT_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
LOGGERS = ("fanfare", "server", "engine")
FIELDS = ("session", "player", "question", "outcome", "total_ms", "request_id", "trace_id", "left_out")

_FILLED = re.compile(r"(?:\b(session|player|question) )?%[-#0-9.]*[a-z]")
"""What is filled into a message, and the word before it if that is a field."""

BURST = 50
"""Lines of one event in `WINDOW_S` seconds; the rest is counted and left out."""

WINDOW_S = 10.0

EVENTS_MAX = 1_000
"""Events that are counted at the same time. An event is a logger with the text of its message before anything
is filled in, so there are as many as there are places in the code; the bound is for those of libraries."""


class EventLimit(logging.Filter):
    """Lets `BURST` lines of each event through in `WINDOW_S` seconds."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._events: dict[tuple[str, str], tuple[float, int]] = {}
        """When the window of each event began, and how many of its lines have come since."""

    def filter(self, record: logging.LogRecord) -> bool:
        now, event = self._now_s(), (record.name, str(record.msg))
        began, count = self._events.get(event, (now, 0))
        if now - began >= WINDOW_S:
            if count > BURST:
                record.left_out = count - BURST
            began, count = now, 0
        if event not in self._events and len(self._events) >= EVENTS_MAX:
            self._events.clear()
        self._events[event] = began, count + 1
        return count < BURST


class OfRequest(logging.Filter):
    """Adds the request that the present task works for, and its trace, where the record names none."""

    def filter(self, record: logging.LogRecord) -> bool:
        if (request_id := current_id.get()) is not None and getattr(record, "request_id", None) is None:
            record.request_id = request_id
        if (trace := current.get()) is not None and getattr(record, "trace_id", None) is None:
            record.trace_id = trace.trace_id
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object for a record, on one line."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "node": self._node,
            "message": record.getMessage(),
            **dict(named(record)),
        }
        for name in FIELDS:
            if (value := getattr(record, name, None)) is not None:
                line[name] = value
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def named(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    """The fields that a message names in its text, each with what is filled in."""
    if isinstance(record.args, tuple):
        for found, value in zip(_FILLED.finditer(str(record.msg)), record.args, strict=False):
            if found[1] is not None:
                yield found[1], value


class TextFormatter(logging.Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__(TEXT_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if (request_id := getattr(record, "request_id", None)) is not None:
            text += f" (request {request_id})"
        left_out = getattr(record, "left_out", 0)
        return f"{text} ({left_out} more of these were left out)" if left_out else text


def log_to_stderr(level: str, style: str, node: str) -> None:
    """Log the node's own loggers from `level` on, libraries when they warn. `style` is "text" or "json"."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(node) if style == "json" else TextFormatter())
    handler.addFilter(EventLimit())
    handler.addFilter(OfRequest())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in LOGGERS:
        logging.getLogger(name).setLevel(level.upper())
