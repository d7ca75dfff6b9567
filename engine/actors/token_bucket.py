"""A token bucket: a rate limit with bursts."""

from __future__ import annotations


class TokenBucket:
    """Allows `burst` events at once and `rate_per_s` a second in the long run. Starts full.

    Times are milliseconds of one clock that does not run backwards.
    """

    __slots__ = ("_at_ms", "_burst", "_level", "_rate_per_ms")

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_ms = rate_per_s / 1000
        self._burst = burst
        self._level = float(burst)
        self._at_ms = 0

    def take(self, now_ms: int, count: int = 1) -> bool:
        """Take `count` tokens. False if there are fewer; then none is taken."""
        level = self._level + (now_ms - self._at_ms) * self._rate_per_ms
        if level > self._burst:
            level = self._burst
        self._at_ms = now_ms
        if level < count:
            self._level = level
            return False
        self._level = level - count
        return True

    def empty(self, now_ms: int) -> bool:
        """Whether `take` would return False."""
        return self._level + (now_ms - self._at_ms) * self._rate_per_ms < 1

    def charge(self, now_ms: int, wait_max_ms: float) -> float | None:
        """Take one token, possibly a future one. Returns the milliseconds until it is there, 0 for now. None
        if that is longer than `wait_max_ms`; then nothing is taken."""
        level = min(self._level + (now_ms - self._at_ms) * self._rate_per_ms, self._burst) - 1
        wait_ms = max(-level, 0) / self._rate_per_ms
        if wait_ms > wait_max_ms:
            return None
        self._level, self._at_ms = level, now_ms
        return wait_ms

    def give_back(self) -> None:
        """Give back a token that was taken and not used."""
        self._level = min(self._level + 1, self._burst)
