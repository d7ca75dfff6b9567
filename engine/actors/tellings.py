"""How long answers wait until others are told of them, and the spans of that.

How to think about it: a count, a leaderboard or a reveal tells of all answers up to a fact. So answers leave
one moment here, that of the oldest which nobody was told of yet, and each such frame is measured once. Only
of an answer that is traced is kept which one it was, until a frame that tells of it has gone to all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from engine.actors.clock import SessionClock
from engine.actors.slow_answers import SlowAnswer, SlowAnswers
from engine.latency import Latency

KEPT_MAX = 64
"""The last frames, and the last traced answers that no frame has told of."""


class _Telling(NamedTuple):
    """A frame that tells of the answers up to the fact `seq`; its moments in ms since the epoch."""

    seq: int
    queued_at: int
    ended_at: int


class Tellings:
    """Of one session.

    Args:
        latency: counts, for each frame, how long the oldest answer has waited that it tells of.
    """

    __slots__ = ("_clock", "_last", "_latency", "_oldest_at", "_slow_answers", "_traced")

    def __init__(self, clock: SessionClock, latency: Latency, slow_answers: SlowAnswers) -> None:
        self._clock = clock
        self._latency = latency
        self._slow_answers = slow_answers
        self._oldest_at: int | None = None
        self._last: deque[_Telling] = deque(maxlen=KEPT_MAX)
        self._traced: deque[tuple[int, SlowAnswer]] = deque(maxlen=KEPT_MAX)

    def answered(self, at: int) -> None:
        """An answer that was received then has become a fact."""
        if self._oldest_at is None:
            self._oldest_at = at

    def begin(self, seq: int, took: Callable[[int], None] | None = None) -> Callable[[int], None]:
        """A frame that tells of all answers up to this fact is queued. Returns what to call once it has gone
        to all; that calls `took` with the same."""
        oldest_at, self._oldest_at = self._oldest_at, None
        queued_at = self._clock.now_ms()

        def done(held_ms: int) -> None:
            now = self._clock.now_ms()
            if oldest_at is not None:
                self._latency.add(max(now - oldest_at, 0) / 1000)
            self._last.append(_Telling(seq, queued_at, now))
            if self._traced:
                traced = list(self._traced)
                self._traced.clear()
                for each in traced:
                    self.follow(*each)
            if took is not None:
                took(held_ms)

        return done

    def follow(self, seq: int, answer: SlowAnswer) -> None:
        """Have the span made of the frame that tells of this traced answer, which is the fact `seq`."""
        for telling in self._last:
            if telling.seq >= seq:
                # One that had ended before told of the first of several alike.
                if telling.ended_at >= answer.at and self._slow_answers.tell_broadcast is not None:
                    self._slow_answers.tell_broadcast(answer, telling.queued_at, telling.ended_at)
                return
        self._traced.append((seq, answer))
