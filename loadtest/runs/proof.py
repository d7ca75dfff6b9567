"""Holding the players' ledgers against what is stored.

What is proven: every acknowledged answer is stored exactly once, with the time and the points that the player
was told; nothing is stored that the player did not send; every player's score, rank and last leaderboard are
the stored ones, of several attempts those of the best; no leaderboard showed points before the question was
closed, unless it is live; no broadcast is missing; nobody left before the end. Where players may give up, or
come back too late, they are held to what they were told until then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from loadtest.runs.attempts import attempt_of, named
from loadtest.runs.ledger import StoredResult
from loadtest.swarm.compact_ledger import CompactLedger, Top, decoded

TOP = 10
"""Entries of a leaderboard."""

EXAMPLES_MAX = 5
"""Sentences that are kept of each kind of contradiction."""


MISSED_IT = frozenset({"unreachable", "session_finished"})
"""How a player ends who gave up, or who came back when all was over."""


class StoredAnswer(NamedTuple):
    """The answer of a player to a question that stands. `question` is numbered as `loadtest.runs.attempts`
    has it. `merged`: an earlier owner had it in its spool."""

    player: int
    question: int
    elapsed_ms: int
    correct: bool
    points: int
    merged: bool = False

    def other_than(self, elapsed_ms: int) -> bool:
        """Whether it may stand in place of an answer that was acknowledged with this time, after a merge: it
        was received first. Its time may be the longer one, where the later owner has asked the question once
        more."""
        return self.elapsed_ms != elapsed_ms and (self.merged or self.elapsed_ms < elapsed_ms)


AskAnswers = Callable[[Sequence[str]], Awaitable[Mapping[str, list[StoredAnswer]]]]
"""Reads the stored answers of sessions, by their ids, from the database itself."""

AskMerged = Callable[[], Awaitable[Collection[str]]]
"""Reads from there which sessions have facts from the spool of an earlier owner, by their ids."""


@dataclass(slots=True)
class StoredSession:
    """What is stored of one session.

    Args:
        results: in the order of their rank.
        answers: the rows; None when the database cannot be asked, and the results must do.
        merged: whether some of them came from the spool of an earlier owner, after a later one had played on
            without them. What was said meanwhile did not know of them; what is stored does.
    """

    results: Sequence[StoredResult]
    answers: Sequence[StoredAnswer] | None
    merged: bool = False


@dataclass(slots=True)
class Verdict:
    """What was looked at, and what contradicts. `broken` counts contradictions by their kind."""

    players: int = 0
    acks: int = 0
    rows: int = 0
    """Stored answers that were read one by one; 0 without a database to ask."""
    boards: int = 0
    """Last leaderboards that were compared."""
    scores: int = 0
    """Scores of users that were compared with the facts."""
    lines: int = 0
    """Lines of leaderboards over sessions that were compared."""
    filled: int = 0
    """Leaderboards over sessions that the nodes have filled in Redis since they started."""
    unsettled: int = 0
    """Answers of which nobody heard what became: they may be stored or not."""
    gave_up: int = 0
    """Players who were allowed to miss the end, and did."""
    broken: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return not self.broken and self.players > 0

    def add(self, kind: str, sentence: str) -> None:
        self.broken[kind] = self.broken.get(kind, 0) + 1
        kept = self.examples.setdefault(kind, [])
        if len(kept) < EXAMPLES_MAX:
            kept.append(sentence)


class Proof:
    """Takes the ledgers of one player after another, and gives the verdict at the end.

    Args:
        stored: by the number of the session within the run.
        may_give_up: whether a player may miss the end: because the server was away for longer than it had
            patience, or the session was over when it came back.
    """

    def __init__(self, stored: Mapping[int, StoredSession], *, may_give_up: bool = False) -> None:
        self._verdict = Verdict()
        self._may_give_up = may_give_up
        self._sessions = {number: _Session(each) for number, each in stored.items()}

    def take(self, ledger: CompactLedger) -> None:
        verdict = self._verdict
        verdict.players += 1
        session = self._sessions.get(ledger.session)
        gave_up = self._may_give_up and ledger.ended in MISSED_IT and ledger.final is None
        verdict.gave_up += gave_up
        for kind, sentence in _contradictions(ledger, session, gave_up):
            verdict.add(kind, f"session {ledger.session}, {ledger.name}: {sentence}")
        verdict.acks += len(ledger.acks)
        verdict.unsettled += len(ledger.unsettled)
        verdict.boards += ledger.top is not None
        if session is not None and ledger.player is not None:
            if ledger.player in session.taken:
                verdict.add(
                    "two ledgers", f"session {ledger.session}: player {ledger.player} has two ledgers"
                )
            session.taken.add(ledger.player)

    def verdict(self) -> Verdict:
        """Call once, after the last ledger."""
        verdict = self._verdict
        for number, session in self._sessions.items():
            verdict.rows += session.rows
            for sentence in session.twice:
                verdict.add("stored twice", f"session {number}: {sentence}")
            # Who joined and never heard of it has no ledger, and cannot have answered.
            for player, result in session.results.items():
                if player not in session.taken and (result.answered or session.answers.get(player)):
                    verdict.add("stored, never sent", f"session {number}: player {player} is nobody's")
        return verdict


class _Session:
    """What is stored of one session, by player."""

    def __init__(self, stored: StoredSession) -> None:
        self.results = {result.player: result for result in stored.results}
        self.top = top_of(stored.results)
        self.taken: set[int] = set()
        self.merged = stored.merged
        self.by_row = stored.answers is not None
        self.answers: dict[int, dict[int, StoredAnswer]] = {}
        self.twice: list[str] = []
        self.rows = len(stored.answers or ())
        for answer in stored.answers or ():
            given = self.answers.setdefault(answer.player, {})
            if answer.question in given:
                self.twice.append(f"player {answer.player}, {named(answer.question)}")
            given[answer.question] = answer


def top_of(results: Sequence[StoredResult]) -> Top:
    """The leaderboard that the results make."""
    return [
        {"rank": each.rank, "id": each.player, "name": each.name, "score": each.score}
        for each in results[:TOP]
    ]


def _contradictions(
    ledger: CompactLedger, session: _Session | None, gave_up: bool
) -> Iterator[tuple[str, str]]:
    for fault in ledger.faults:
        yield "contradicting messages", fault
    if session is None or not session.merged:
        for question in ledger.unmerged:
            yield (
                "contradicting messages",
                f"{named(question)}: acknowledged, but the result knows no answer",
            )
        for told, shown in ledger.early:
            yield "learned early", f"the leaderboard showed {shown} points before the result, after {told}"
    for epoch, expected, got in ledger.gaps:
        yield "gap", f"epoch {epoch}: offset {got} instead of {expected}"
    if ledger.player is None:
        if not gave_up:
            yield "never in", f"left as {ledger.ended}"
        return
    result = session.results.get(ledger.player) if session is not None else None
    if session is None or result is None:
        yield "player not stored", f"player {ledger.player} is not in the results"
        return
    if not gave_up:
        yield from _end(ledger, result, session)
    yield from _sums(ledger, result, session.merged)
    if session.by_row:
        yield from _rows(ledger, session.answers.get(ledger.player, {}), gave_up, session.merged)


def _end(ledger: CompactLedger, result: StoredResult, session: _Session) -> Iterator[tuple[str, str]]:
    if ledger.final is None:
        yield "left early", f"left as {ledger.ended}, before the end was heard"
        return
    if session.merged and ledger.final[1] <= result.score:
        return
    if ledger.final[0] is None:
        if ledger.final[1] != result.score:
            yield "score or rank", f"told {ledger.final[1]} points when through, stored {result.score}"
        return
    if ledger.final != (result.rank, result.score):
        yield "score or rank", f"told {ledger.final}, stored {(result.rank, result.score)}"
    if ledger.top != session.top:
        yield "last leaderboard", f"told {ledger.top}, stored {session.top}"


def _sums(ledger: CompactLedger, result: StoredResult, merged: bool) -> Iterator[tuple[str, str]]:
    """The result is that of an attempt, and no attempt was better as far as the player has heard."""
    points: dict[int, int] = {}
    for number in ledger.results.keys() & ledger.acks.keys():
        attempt = attempt_of(number)
        points[attempt] = points.get(attempt, 0) + decoded(ledger.results[number])[1]
    if max(points.values(), default=0) > result.score and not merged:
        yield "best attempt", f"told {points} points by attempt, stored {result.score}"
    attempts = {attempt_of(each) for of in (ledger.acks, ledger.unsettled, ledger.refused) for each in of}
    differing = [list(_sums_of(ledger, each, result, merged)) for each in sorted(attempts or {1})]
    if all(differing):
        yield from differing[0]


def _sums_of(
    ledger: CompactLedger, attempt: int, result: StoredResult, merged: bool
) -> Iterator[tuple[str, str]]:
    acks, unsettled, refused = (
        [each for each in of if attempt_of(each) == attempt]
        for of in (ledger.acks, ledger.unsettled, ledger.refused)
    )
    acked, told_ms = len(acks), sum(ledger.acks[each] for each in acks)
    # Where a spool was merged, of two answers to a question the earlier one counts, whatever became of it.
    most = acked + len(unsettled) + (len(refused) if merged else 0)
    if not acked <= result.answered <= most:
        yield "number of answers", f"{acked} acknowledged, {result.answered} in the results"
    if result.answered == acked and told_ms != result.elapsed_ms and not merged:
        yield "answering time", f"told {told_ms} ms, stored {result.elapsed_ms} ms"


def _rows(
    ledger: CompactLedger, rows: Mapping[int, StoredAnswer], gave_up: bool, merged: bool
) -> Iterator[tuple[str, str]]:
    for question, elapsed_ms in ledger.acks.items():
        row = rows.get(question)
        if row is None:
            yield "acknowledged, not stored", named(question)
        elif row.elapsed_ms != elapsed_ms and not (merged and row.other_than(elapsed_ms)):
            yield "answering time", f"{named(question)}: told {elapsed_ms}, stored {row.elapsed_ms} ms"
    for question in rows.keys() - ledger.acks.keys() - ledger.unsettled:
        why = ledger.refused.get(question)
        if merged and why is not None:
            continue  # the one owner had it in its spool, and another told that it came too late
        yield "stored, never acknowledged", f"{named(question)}: {why or 'never sent'}"
    for question, code in ledger.results.items():
        if gave_up and question not in ledger.acks:
            continue  # what it was told may be lost with the memory it came from: it never came back to hear
        row = rows.get(question)
        told_ms = ledger.acks.get(question)
        other = row is not None and told_ms is not None and row.other_than(told_ms)
        if merged and (decoded(code) == (None, 0) or other):
            continue
        stored = (None, 0) if row is None else (row.correct, row.points)
        if decoded(code) != stored:
            yield "points of an answer", f"{named(question)}: told {decoded(code)}, stored {stored}"


def prove(ledgers: Iterable[CompactLedger], stored: Mapping[int, StoredSession]) -> Verdict:
    proof = Proof(stored)
    for each in ledgers:
        proof.take(each)
    return proof.verdict()
