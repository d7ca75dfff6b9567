"""What players go through when the node that they are connected to is killed or leaves."""

from __future__ import annotations

from typing import Any

from loadtest.runs.histogram import Histogram


class FaultLog:
    """What one player goes through: over with the first ack after it is back, once no answer waits for one.
    Moments are seconds of the loop's clock."""

    __slots__ = ("ack_s", "acked_at", "away_s", "back_at", "fault", "lost_since", "over")

    def __init__(self, fault: int) -> None:
        self.fault = fault
        self.over = False
        self.lost_since: float | None = None
        """While it is away: since when, or since when it had waited for an ack by then."""
        self.back_at: float | None = None
        self.acked_at: float | None = None
        """The first ack after the loss."""
        self.away_s = 0.0
        """The longest time from a loss, or the first request unanswered by then, until it was back."""
        self.ack_s = 0.0
        """The longest time from the intended moment of an answer to its ack."""

    def lost(self, since: float) -> None:
        if not self.over and self.lost_since is None:
            self.lost_since = since

    def joined(self, now: float) -> None:
        if self.lost_since is not None:
            self.away_s = max(self.away_s, now - self.lost_since)
            self.lost_since = None
            self.back_at = now

    def acked(self, now: float, intended: float, *, waits: bool) -> None:
        """Args: waits: whether other answers still wait for an ack."""
        if self.over:
            return
        self.ack_s = max(self.ack_s, now - intended)
        if self.back_at is not None:
            if self.acked_at is None:
                self.acked_at = now
            self.over = self.lost_since is None and not waits

    @property
    def affected(self) -> bool:
        """Whether the connection was lost at all: the session may have been over before."""
        return self.back_at is not None or self.lost_since is not None


class Fault:
    """What a fault did to the players of one process that were connected to the node. `struck_at` is when the
    node was killed or told to leave."""

    def __init__(self) -> None:
        self.struck_at: float | None = None
        self.fault_logs: list[FaultLog] = []

    def to_dict(self) -> dict[str, Any]:
        """Of those affected: how many, how many are back, after how long, and the longest times of each."""
        back, away, ack = Histogram(), Histogram(), Histogram()
        affected = 0
        first_ack_at: float | None = None
        for fault_log in self.fault_logs:
            if not fault_log.affected:
                continue
            affected += 1
            if fault_log.back_at is not None and fault_log.lost_since is None:
                away.add(fault_log.away_s)
                back.add(fault_log.back_at - (self.struck_at or fault_log.back_at))
            if fault_log.acked_at is not None:
                ack.add(fault_log.ack_s)
                first_ack_at = min(first_ack_at or fault_log.acked_at, fault_log.acked_at)
        return {
            "affected": affected,
            "back": back.to_dict(),
            "away": away.to_dict(),
            "ack": ack.to_dict(),
            "first_ack_at": first_ack_at,
        }
