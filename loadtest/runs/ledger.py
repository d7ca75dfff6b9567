"""The bots' own ledgers, and how they are compared with what the server has stored.

A bot writes down what it was told: every ack, every result, its final score and rank. After the session
the ledgers must agree with the results, player by player. What a bot could not hear, because it was cut
off when it was said, is told apart from what contradicts.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from loadtest.client.connection import Message
from loadtest.runs.attempts import attempt_of, named, numbered


@dataclass(frozen=True, slots=True)
class Ack:
    status: str
    elapsed_ms: int


@dataclass(frozen=True, slots=True)
class Told:
    """One `result`."""

    correct: bool | None
    points: int
    score: int


@dataclass(slots=True)
class Ledger:
    """The ledger of one bot. Questions are numbered as `loadtest.runs.attempts` has it."""

    name: str
    player: int | None = None
    acks: dict[int, Ack] = field(default_factory=dict)
    told: dict[int, Told] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    unsettled: set[int] = field(default_factory=set)
    """Questions answered without having heard what became of it."""
    skipped: set[int] = field(default_factory=set)
    """Questions that count for nobody, and are not in the ledger any more."""
    final: tuple[int, int | None] | None = None
    """Score and rank at the end. The rank is None where others play on."""
    top: list[Message] | None = None
    """Entries of the last leaderboard."""
    faults: list[str] = field(default_factory=list)
    """What the server said and should not have."""
    latencies_s: list[float] = field(default_factory=list)

    def sent(self, question: int) -> None:
        self.unsettled.add(question)

    def acked(self, ack: Message, latency_s: float, attempt: int = 1) -> None:
        question = numbered(ack["question"], attempt)
        if question in self.skipped:
            return
        told = Ack(ack["status"], ack["elapsed_ms"])
        before = self.acks.setdefault(question, told)
        if before != told:
            self.faults.append(f"{named(question)}: two acks for one answer, {before} and {told}")
        if told.status != "accepted":
            self.faults.append(f"{named(question)}: `{told.status}` for an answer that never changed")
        self.unsettled.discard(question)
        self.refused.pop(question, None)
        self.latencies_s.append(latency_s)
        if ack.get("result") is not None:
            self.result(ack["result"], attempt)

    def through(self, done: Message) -> None:
        """A `done_all`: an attempt at the own pace is over, and may be the last one."""
        score = done["score"]
        for each in done["review"] or ():
            self.result(each | {"score": score}, done.get("attempt", 1))
        self.final = None if score is None else (score, None)

    def refuse(self, question: int, code: str) -> None:
        self.unsettled.discard(question)
        if question in self.acks:
            self.faults.append(f"{named(question)}: `{code}` after it was acknowledged")
        self.refused[question] = code

    def restored(self) -> None:
        """The session was brought into memory anew. What was told of answers that were never acknowledged
        may be lost with the memory it came from; what was acknowledged stands."""
        for number in self.told.keys() - self.acks.keys():
            del self.told[number]

    def result(self, result: Message, attempt: int = 1) -> None:
        number = numbered(result["number"], attempt)
        if result.get("skipped"):
            self._skip(number)
            return
        told = Told(result["correct"], result["points"], result["score"])
        before = self.told.setdefault(number, told)
        if (before.correct, before.points) != (told.correct, told.points):
            self.faults.append(f"{named(number)}: two results, {before} and {told}")
        if number in self.acks and told.correct is None:
            self.faults.append(f"{named(number)}: acknowledged, but the result knows no answer")

    def _skip(self, number: int) -> None:
        self.skipped.add(number)
        self.acks.pop(number, None)
        self.told.pop(number, None)
        self.refused.pop(number, None)
        self.unsettled.discard(number)

    @property
    def score(self) -> int:
        """The score as last told; what was not heard of in a result is in it too."""
        if self.final is not None:
            return self.final[0]
        return self.told[max(self.told)].score if self.told else 0

    @property
    def attempts(self) -> list[int]:
        """In which something was heard or sent; the first one in any case."""
        return sorted({1, *(attempt_of(number) for number in (*self.told, *self.acks, *self.unsettled))})

    @property
    def unheard(self) -> int:
        """Results that were missed: those of acknowledged answers."""
        return len(self.acks.keys() - self.told.keys())


@dataclass(frozen=True, slots=True)
class StoredResult:
    """One line of the results."""

    rank: int
    player: int
    name: str
    score: int
    correct: int
    answered: int
    elapsed_ms: int


@dataclass(frozen=True, slots=True)
class Mismatch:
    """What a bot was told and what is stored do not agree."""

    name: str
    what: str
    told: object
    stored: object

    def __str__(self) -> str:
        return f"{self.name}: {self.what}: told {self.told}, stored {self.stored}"


@dataclass(frozen=True, slots=True)
class Tally:
    """The ledgers of all bots, added up. Latencies are None when nothing was acknowledged."""

    players: int
    answered: int
    score: int
    refused: int
    unsettled: int
    unheard: int
    ack_p50_ms: float | None
    ack_p99_ms: float | None


def read_results(text: str) -> list[StoredResult]:
    """From `results.csv`. Raises ValueError when it is not that."""
    columns = StoredResult.__slots__
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if tuple(reader.fieldnames or ()) != columns:
        raise ValueError(f"expected the columns {', '.join(columns)}, got {reader.fieldnames}")
    return [
        StoredResult(
            rank=int(row["rank"]),
            player=int(row["player"]),
            name=row["name"],
            score=int(row["score"]),
            correct=int(row["correct"]),
            answered=int(row["answered"]),
            elapsed_ms=int(row["elapsed_ms"]),
        )
        for row in reader
    ]


def compare(ledgers: Iterable[Ledger], stored: Sequence[StoredResult]) -> list[Mismatch]:
    """Every disagreement, by bot. Players that are no bots of ours are passed over."""
    by_player = {row.player: row for row in stored}
    found: list[Mismatch] = []
    for ledger in ledgers:
        found += _compare_one(ledger, by_player)
    return found


def _compare_one(ledger: Ledger, by_player: Mapping[int, StoredResult]) -> list[Mismatch]:
    found = [Mismatch(ledger.name, fault, "-", "-") for fault in ledger.faults]
    if ledger.player is None:
        return found
    row = by_player.get(ledger.player)
    if row is None:
        return [*found, Mismatch(ledger.name, "player in the results", f"number {ledger.player}", "nobody")]

    score = ledger.score
    if ledger.final is None:
        if score > row.score:
            found.append(Mismatch(ledger.name, "score, not heard to the end", score, row.score))
    else:
        rank = ledger.final[1]
        if score != row.score:
            found.append(Mismatch(ledger.name, "score", score, row.score))
        if rank is not None and rank != row.rank:
            found.append(Mismatch(ledger.name, "rank", rank, row.rank))
    by_attempt = [_compare_attempt(ledger, attempt, row) for attempt in ledger.attempts]
    return found + min(by_attempt, key=len)


def _compare_attempt(ledger: Ledger, attempt: int, row: StoredResult) -> list[Mismatch]:
    """The results are those of one attempt, the best: what is not so if it is this one."""
    found: list[Mismatch] = []

    def check(what: str, agrees: bool, told: object, stored: object) -> None:
        if not agrees:
            found.append(Mismatch(ledger.name, what, told, stored))

    acks = {number: ack for number, ack in ledger.acks.items() if attempt_of(number) == attempt}
    results = {number: told for number, told in ledger.told.items() if attempt_of(number) == attempt}
    unsettled = [number for number in ledger.unsettled if attempt_of(number) == attempt]
    acked, points = len(acks), sum(told.points for told in results.values())
    heard_all = ledger.final is not None and not acks.keys() - results.keys() and not unsettled
    correct = sum(told.correct is True for told in results.values())
    check("answers", acked <= row.answered <= acked + len(unsettled), acked, row.answered)
    if heard_all:
        check("sum of points", points == row.score, points, row.score)
        check("right answers", correct == row.correct, correct, row.correct)
    else:
        check("sum of points, not all heard", points <= row.score, points, row.score)
        check("right answers, not all heard", correct <= row.correct, correct, row.correct)
    if row.answered == acked:
        elapsed = sum(ack.elapsed_ms for ack in acks.values())
        check("answering time", elapsed == row.elapsed_ms, elapsed, row.elapsed_ms)
    return found


def tally(ledgers: Sequence[Ledger]) -> Tally:
    latencies = sorted(latency for ledger in ledgers for latency in ledger.latencies_s)
    return Tally(
        players=sum(ledger.player is not None for ledger in ledgers),
        answered=sum(len(ledger.acks) for ledger in ledgers),
        score=sum(ledger.score for ledger in ledgers),
        refused=sum(len(ledger.refused) for ledger in ledgers),
        unsettled=sum(len(ledger.unsettled) for ledger in ledgers),
        unheard=sum(ledger.unheard for ledger in ledgers),
        ack_p50_ms=percentile_ms(latencies, 0.50),
        ack_p99_ms=percentile_ms(latencies, 0.99),
    )


def percentile_ms(ordered_s: Sequence[float], share: float) -> float | None:
    """The value that `share` of them do not exceed, in milliseconds; None of nothing."""
    if not ordered_s:
        return None
    return ordered_s[max(math.ceil(share * len(ordered_s)) - 1, 0)] * 1000
