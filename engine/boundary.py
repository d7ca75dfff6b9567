"""The crash boundary of all tasks but the actors of sessions (theirs is `engine.actors.supervisor`).

How to think about it: a trio nursery cancels all its tasks for the exception of one, so a mistake in a task
that a client, another node, a row or the clock can start would end the node. Such a task does its work
`within` the boundary: a mistake there costs the one command or session that it was about, is logged with the
session, and is counted; the task, or its next round, goes on. The task has to clean up after a mistake: a
client that waits for it gets an answer all the same.

Tasks whose mistakes would make acknowledgements untrue are outside of the boundary: the writer of the
journal, its signs of life and its spool. There a mistake ends the node, which loses nothing that was
acknowledged.
"""

from __future__ import annotations

import logging
import time
from types import TracebackType

log = logging.getLogger(__name__)

TRACEBACK_EVERY_S = 10.0
"""The pause between two tracebacks of one kind of work. A client that can repeat a mistake must not fill the
log."""


class Mistake(Exception):
    """A bug, which was logged and counted where it occurred. The request was not handled, or perhaps not;
    sending it again is safe."""


class Boundary:
    """The boundary of one node."""

    def __init__(self) -> None:
        self.mistakes_total = 0
        self._told_s: dict[str, float] = {}
        """The time of the last traceback, by the work and the type of the mistake."""

    def within(self, work: str, session_id: str | None = None) -> _Within:
        """A context that no Exception leaves. Args: work: its name, for the log."""
        return _Within(self, work, session_id)

    def caught(self, error: Exception, work: str, session_id: str | None = None) -> None:
        """Log and count a mistake that the caller has caught."""
        self.mistakes_total += 1
        whose = "" if session_id is None else f", session {session_id:.60}"
        extra = None if session_id is None else {"session": session_id[:60]}
        kind = f"{work}: {type(error).__name__}"
        now_s = time.monotonic()
        if now_s - self._told_s.get(kind, -TRACEBACK_EVERY_S) >= TRACEBACK_EVERY_S:
            self._told_s[kind] = now_s
            log.error("a mistake in %s%s", work, whose, exc_info=error, extra=extra)
        else:
            log.error("a mistake in %s%s: %r", work, whose, error, extra=extra)


class _Within:
    __slots__ = ("_boundary", "_session_id", "_work")

    def __init__(self, boundary: Boundary, work: str, session_id: str | None) -> None:
        self._boundary = boundary
        self._work = work
        self._session_id = session_id

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, Exception):
            self._boundary.caught(error, self._work, self._session_id)
            return True
        return False
