"""Answers that took long, were refused as `busy`, or failed, each with its timeline.

How to think about it: an ordinary answer leaves nothing here. Its times are read anyway: at its receipt, once
for the batch that the actor takes, and once for the group commit. Only when the ack comes, or cannot come, is
the receipt held against `SLOW_MS`, and only an answer over it is written down. What this costs an ordinary
answer is two comparisons. An answer whose trace is sampled is told on in any case, and is not kept here.
"""

from __future__ import annotations

import heapq
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.actors.clock import SessionClock
from engine.actors.commands import Answer, Join
from engine.actors.token_bucket import TokenBucket
from engine.ports import Commit
from engine.trace import Trace, new_span_id

log = logging.getLogger(__name__)

SLOW_MS = 250
"""An answer whose ack takes at least so long is slow."""

KEPT_MAX = 100
"""The most slow answers that are kept, and the most refused or failed ones."""

KEPT_MS = 3_600_000
"""How long an answer is kept after its receipt."""

_LOG_AGAIN_MS = 1_000
"""The pause between two lines of the log: when the database hangs, all answers are slow at once."""

_LOOK_AGAIN_MS = 60_000
"""The pause between two looks for answers that have been kept long enough."""


class BatchTimes:
    """When the actor took a batch of commands, decided them, and handed their facts to the journal. The first
    is of the session's clock, in ms; the others are of trio's clock, and None if they are the same moment."""

    __slots__ = ("decided_s", "queued_s", "taken_ms")

    def __init__(self, taken_ms: int) -> None:
        self.taken_ms = taken_ms
        self.decided_s: float | None = None
        self.queued_s: float | None = None


@dataclass(frozen=True, slots=True)
class SlowAnswer:
    """An answer and its timeline. Names of players are left out, and so are their choices.

    Attributes:
        at: when the node received it, in ms since the epoch.
        player: the player's number in the session.
        question: as the player numbers it.
        outcome: "accepted" or "duplicate"; the code of the refusal; or the reason for which the connection
            was closed before the ack.
        taken_ms: from the receipt until the actor took it from its mailbox. All times are from the receipt;
            None if the answer did not come so far.
        decided_ms: until the batch in which it came was decided.
        queued_ms: until the journal had the fact.
        commit_started_ms, commit_ended_ms: until the group commit that has the fact began and was through.
        acked_ms: until the ack, or the refusal, was handed to the connection.
        spooled: whether the ack came from the spool.
        trace_id: 32 hexadecimal digits, if the answer is traced.
        span_id: of its span; what others are told of it is below that.
        what: "answer", or "seat" for the join of a new player, whose `question` is 0.
    """

    at: int
    session_id: str
    player: int
    question: int
    outcome: str
    taken_ms: int | None = None
    decided_ms: int | None = None
    queued_ms: int | None = None
    commit_started_ms: int | None = None
    commit_ended_ms: int | None = None
    acked_ms: int | None = None
    spooled: bool = False
    trace_id: str | None = None
    span_id: str | None = None
    what: str = "answer"

    @property
    def total_ms(self) -> int:
        """How long the player has waited, as far as the node knows."""
        known = (self.acked_ms, self.commit_ended_ms, self.commit_started_ms, self.queued_ms, self.taken_ms)
        return next((each for each in known if each is not None), 0)


PARTS = (
    ("mailbox", None, "taken_ms"),
    ("judge", "taken_ms", "decided_ms"),
    ("queue", "queued_ms", "commit_started_ms"),
    ("commit", "commit_started_ms", "commit_ended_ms"),
    ("ack", "commit_ended_ms", "acked_ms"),
)
"""The parts of an answer's time: from one moment of its timeline, or from its receipt, to another."""


def parts_of(timeline: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Of a `SlowAnswer`'s members: the name, the begin and the end of each part that the answer went through,
    in ms since the receipt."""
    for name, since, until in PARTS:
        begun_ms = 0 if since is None else timeline[since]
        if begun_ms is not None and (ended_ms := timeline[until]) is not None:
            yield name, begun_ms, ended_ms


TURNED_DOWN_PER_S = 20
"""Answers refused by the rules and not sampled of which a trace is made: a hundred spans."""


class SlowAnswers:
    """The slowest answers of the last hour, and the last ones that were refused as `busy` or failed, on this
    node. Both are bounded, whatever players send.

    Args:
        clock: dates the answers.
    """

    def __init__(self, clock: SessionClock) -> None:
        self._clock = clock
        self._slow: list[tuple[int, int, SlowAnswer]] = []
        """A heap: the quickest first, and of equally quick ones the oldest."""
        self._failed: deque[SlowAnswer] = deque(maxlen=KEPT_MAX)
        self.new_trace_id: Callable[[], str] | None = None
        """Makes the trace ids of answers without one; None while nothing is traced."""
        self.tell: Callable[[SlowAnswer, Trace | None, Commit | None], None] | None = None
        """Is told of each answer that is written down or refused, and of each sampled one, with the trace it
        came with, and the commit that has its fact. Must return at once."""
        self.tell_broadcast: Callable[[SlowAnswer, int, int], None] | None = None
        """Is told when the frame that tells others of such an answer was queued, and when it had gone to all,
        in ms since the epoch. Must return at once."""
        self._turned_down = TokenBucket(TURNED_DOWN_PER_S, TURNED_DOWN_PER_S)
        self._look_again_at = 0
        self._log_again_at = 0
        self.slow_total = 0
        self.failed_total = 0

    def slowest(self) -> list[SlowAnswer]:
        """The slow answers of the last hour, the slowest first; at most `KEPT_MAX`."""
        self._let_go(self._clock.now_ms())
        return [each for _, _, each in sorted(self._slow, key=lambda kept: (-kept[0], -kept[1]))]

    def failed(self) -> list[SlowAnswer]:
        """The answers of the last hour that were refused as `busy` or got no reply, the last one first; at
        most `KEPT_MAX`."""
        since = self._clock.now_ms() - KEPT_MS
        return [each for each in reversed(self._failed) if each.at >= since]

    def acked(
        self, session_id: str, command: Answer, outcome: str, batch: BatchTimes | None, commit: Commit | None
    ) -> SlowAnswer:
        """The ack of a slow or sampled answer goes out now. `commit` is None if nothing had to be committed
        for it."""
        now = self._clock.now_ms()
        slow = self._timeline(session_id, command, outcome, batch, commit, now)
        if self.tell is not None:
            self.tell(slow, command.trace, commit)
        if slow.total_ms < SLOW_MS:
            return slow
        self.slow_total += 1
        self._log("answer acknowledged late", slow, command, now)
        self._let_go(now)
        entry = slow.total_ms, self.slow_total, slow
        if len(self._slow) < KEPT_MAX:
            heapq.heappush(self._slow, entry)
        else:
            heapq.heappushpop(self._slow, entry)
        return slow

    def welcomed(self, session_id: str, join: Join, batch: BatchTimes | None, commit: Commit | None) -> None:
        """The reply to a slow or sampled join of a new player goes out now. It is told on and not kept."""
        if self.tell is not None:
            now = self._clock.now_ms()
            self.tell(self._timeline(session_id, join, "joined", batch, commit, now), join.trace, commit)

    def refused(self, session_id: str, command: Answer, code: str, batch: BatchTimes | None = None) -> None:
        """An answer is refused now as `busy`, or its connection closed before the ack. `batch` is None if the
        actor did not take it."""
        self.failed_total += 1
        now = self._clock.now_ms()
        failed = self._timeline(session_id, command, code, batch, None, now)
        self._log("answer refused or failed", failed, command, now)
        if self.tell is not None:
            self.tell(failed, command.trace, None)
        self._failed.append(failed)

    def turned_down(self, session_id: str, command: Answer, code: str, batch: BatchTimes | None) -> None:
        """An answer is refused now by the rules, which is no failure. It is told on and not kept. Clients can
        have as many refused as they like, so those that are not sampled are told up to a rate."""
        if self.tell is None:
            return
        now = self._clock.now_ms()
        sampled = command.trace is not None and command.trace.sampled
        if sampled or self._turned_down.take(now):
            self.tell(self._timeline(session_id, command, code, batch, None, now), command.trace, None)

    def _timeline(
        self,
        session_id: str,
        command: Answer | Join,
        outcome: str,
        batch: BatchTimes | None,
        commit: Commit | None,
        now: int,
    ) -> SlowAnswer:
        at = command.received_at if isinstance(command, Answer) else command.at
        taken = decided = queued = None
        if batch is not None:
            taken = max(0, batch.taken_ms - at)
            decided = taken if batch.decided_s is None else max(taken, self._since(at, batch.decided_s))
        if commit is not None and batch is not None:
            queued = decided if batch.queued_s is None else max(taken or 0, self._since(at, batch.queued_s))
        if command.trace is not None:
            trace_id: str | None = command.trace.trace_id
        else:
            trace_id = None if self.new_trace_id is None else self.new_trace_id()
        answer = command if isinstance(command, Answer) else None
        return SlowAnswer(
            at=at,
            session_id=session_id,
            player=0 if answer is None else answer.player,
            question=0 if answer is None else answer.question,
            outcome=outcome,
            taken_ms=taken,
            decided_ms=decided,
            queued_ms=queued,
            commit_started_ms=None if commit is None else self._since(at, commit.started_s),
            commit_ended_ms=None if commit is None else self._since(at, commit.ended_s),
            acked_ms=max(0, now - at),
            spooled=commit is not None and commit.spooled,
            trace_id=trace_id,
            span_id=None if trace_id is None else new_span_id(),
            what="seat" if answer is None else "answer",
        )

    def _log(self, event: str, answer: SlowAnswer, command: Answer, now: int) -> None:
        if now < self._log_again_at:
            return
        self._log_again_at = now + _LOG_AGAIN_MS
        log.warning(
            "%s: session %s, player %d, question %d, %s after %d ms",
            event,
            answer.session_id,
            answer.player,
            answer.question,
            answer.outcome,
            answer.total_ms,
            extra={
                "session": answer.session_id,
                "player": answer.player,
                "question": answer.question,
                "outcome": answer.outcome,
                "total_ms": answer.total_ms,
                "trace_id": answer.trace_id,
                "request_id": command.request_id,
            },
        )

    def _since(self, at: int, moment_s: float) -> int:
        return max(0, self._clock.ms_at(moment_s) - at)

    def _let_go(self, now: int) -> None:
        if now < self._look_again_at:
            return
        self._look_again_at = now + _LOOK_AGAIN_MS
        since = now - KEPT_MS
        if any(kept[2].at < since for kept in self._slow):
            self._slow = [kept for kept in self._slow if kept[2].at >= since]
            heapq.heapify(self._slow)
