"""Play time: the server's time without pauses and outages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RECEIPT_GRACE_MS: Final = 5
"""An answer that is dated up to so long after the time limit counts as one of the last moment. It is dated
when the node reads it, and until then it may have lain in the kernel while the loop was with others."""


@dataclass(slots=True)
class PlayClock:
    """How long the running countdown has run. Moments are milliseconds since the epoch.

    `began_at` is when the countdown would have begun if it had never stopped. While the clock is stopped,
    `stopped_at` is the moment of the stop. A moment before the beginning counts as the beginning.

    `opens_at` is the beginning of a countdown that players get ready for, and 0 for any other. It moves with
    the countdown until that moment, and never after: a countdown that has begun stays begun when time is
    given back.
    """

    began_at: int
    stopped_at: int | None = None
    opens_at: int = 0

    def restart(self, at: int, ready_ms: int = 0) -> None:
        """Begin a new countdown, after so long."""
        self.began_at = at + ready_ms
        self.opens_at = self.began_at if ready_ms else 0

    def stop(self, at: int) -> None:
        self.stopped_at = at

    def go_on(self, at: int) -> None:
        """Run again after `stop`."""
        assert self.stopped_at is not None, "only a stopped clock goes on"
        # Another node may have it go on, and be behind the one that stopped it.
        self._put_off(at - self.stopped_at, self.stopped_at)
        self.stopped_at = None

    def extend(self, by_ms: int, at: int) -> None:
        """Take `by_ms` out of the time that has run; it may then begin in the future. Negative when a clock
        goes on that is behind the last one. `at` is now, by the clock that goes on."""
        self._put_off(by_ms, at - by_ms)

    def _put_off(self, by_ms: int, since: int) -> None:
        """Args: since: when it had come to a stand, by the clock until then."""
        self.began_at += by_ms
        if since < self.opens_at:
            self.opens_at += by_ms

    def opens_in_ms(self, now: int) -> int:
        """How long the get-ready time still lasts; 0 once the countdown has begun."""
        return max(0, self.opens_at - (now if self.stopped_at is None else self.stopped_at))

    def elapsed_ms(self, now: int) -> int:
        if self.stopped_at is not None:
            now = self.stopped_at
        return max(0, now - self.began_at)

    def received(self, at: int, held_ms: int) -> int:
        """When an answer was received that was read `at` and had waited for up to `held_ms` before: so much
        earlier, but not before the countdown began, for nobody answers a question before it is asked."""
        return max(at - held_ms, min(at, self.began_at))

    def answered_ms(self, at: int, limit_ms: int, percent: int = 100) -> int | None:
        """The time that counts for an answer that was dated `at`; None when it came too late. `percent`: the
        player's own limit, of that of the question; time runs slower by as much."""
        elapsed_ms, own_ms = self.elapsed_ms(at), limit_ms * percent // 100
        return min(elapsed_ms, own_ms) * 100 // percent if elapsed_ms <= own_ms + RECEIPT_GRACE_MS else None

    def moment(self, elapsed_ms: int) -> int:
        """When that much play time has run, if nothing stops the clock."""
        return self.began_at + elapsed_ms
