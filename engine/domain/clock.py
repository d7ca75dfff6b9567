"""Play time: the server's time without pauses and outages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class PlayClock:
    """How long the running countdown has run. Moments are milliseconds since the epoch.

    `began_at` is when the countdown would have begun had it never stood still. While the clock is stopped,
    `stopped_at` says since when. A moment before the beginning counts as the beginning.
    """

    began_at: int
    stopped_at: int | None = None

    def restart(self, at: int) -> None:
        """Begin a new countdown."""
        self.began_at = at

    def stop(self, at: int) -> None:
        self.stopped_at = at

    def go_on(self, at: int) -> None:
        """Run again after `stop`."""
        assert self.stopped_at is not None, "only a stopped clock goes on"
        self.began_at += max(0, at - self.stopped_at)
        self.stopped_at = None

    def extend(self, by_ms: int) -> None:
        """Take `by_ms` out of the time that has run; it may then begin in the future."""
        self.began_at += by_ms

    def elapsed_ms(self, now: int) -> int:
        if self.stopped_at is not None:
            now = self.stopped_at
        return max(0, now - self.began_at)

    def moment(self, elapsed_ms: int) -> int:
        """When that much play time has run, if nothing stops the clock."""
        return self.began_at + elapsed_ms
