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
    """The ledger of one bot."""

    name: str
    player: int | None = None
    acks: dict[int, Ack] = field(default_factory=dict)
    told: dict[int, Told] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    unsettled: set[int] = field(default_factory=set)
    """Questions answered without having heard what became of it."""
    skipped: set[int] = field(default_factory=set)
    """Questions that count for nobody, and are not in the ledger any more."""
    final: tuple[int, int] | None = None
    """Score and rank at the end."""
    top: list[Message] | None = None
    """Entries of the last leaderboard."""
    faults: list[str] = field(default_factory=list)
    """What the server said and should not have."""
    latencies_s: list[float] = field(default_factory=list)

    def sent(self, question: int) -> None:
        self.unsettled.add(question)

    def acked(self, ack: Message, latency_s: float) -> None:
        question = ack["question"]
        if question in self.skipped:
            return
        told = Ack(ack["status"], ack["elapsed_ms"])
        before = self.acks.setdefault(question, told)
        if before != told:
            self.faults.append(f"question {question}: two acks for one answer, {before} and {told}")
        if told.status != "accepted":
            self.faults.append(f"question {question}: `{told.status}` for an answer that never changed")
        self.unsettled.discard(question)
        self.refused.pop(question, None)
        self.latencies_s.append(latency_s)

    def refuse(self, question: int, code: str) -> None:
        self.unsettled.discard(question)
        if question in self.acks:
            self.faults.append(f"question {question}: `{code}` after it was acknowledged")
        self.refused[question] = code

    def restored(self) -> None:
        """The session was brought into memory anew. What was told of answers that were never acknowledged
        may be lost with the memory it came from; what was acknowledged stands."""
        for number in self.told.keys() - self.acks.keys():
            del self.told[number]

    def result(self, result: Message) -> None:
        number = result["number"]
        if result.get("skipped"):
            self._skip(number)
            return
        told = Told(result["correct"], result["points"], result["score"])
        before = self.told.setdefault(number, told)
        if (before.correct, before.points) != (told.correct, told.points):
            self.faults.append(f"question {number}: two results, {before} and {told}")
        if number in self.acks and told.correct is None:
            self.faults.append(f"question {number}: acknowledged, but the result knows no answer")

    def _skip(self, number: int) -> None:
        self.skipped.add(number)
        self.acks.pop(number, None)
        self.told.pop(number, None)
        self.refused.pop(number, None)
        self.unsettled.discard(number)

    @property
    def points(self) -> int:
        """Sum of the points of all results that were heard."""
        return sum(told.points for told in self.told.values())

    @property
    def score(self) -> int:
        """The score as last told; what was not heard of in a result is in it too."""
        if self.final is not None:
            return self.final[0]
        return self.told[max(self.told)].score if self.told else 0

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

    def check(what: str, agrees: bool, told: object, stored: object) -> None:
        if not agrees:
            found.append(Mismatch(ledger.name, what, told, stored))

    acked, points, score = len(ledger.acks), ledger.points, ledger.score
    heard_all = ledger.final is not None and not ledger.unheard and not ledger.unsettled
    correct = sum(told.correct is True for told in ledger.told.values())
    check("answers", acked <= row.answered <= acked + len(ledger.unsettled), acked, row.answered)
    if ledger.final is None:
        check("score, not heard to the end", score <= row.score, score, row.score)
    else:
        check("score", score == row.score, score, row.score)
        check("rank", ledger.final[1] == row.rank, ledger.final[1], row.rank)
    if heard_all:
        check("sum of points", points == row.score, points, row.score)
        check("right answers", correct == row.correct, correct, row.correct)
    else:
        check("sum of points, not all heard", points <= row.score, points, row.score)
        check("right answers, not all heard", correct <= row.correct, correct, row.correct)
    if row.answered == acked:
        elapsed = sum(ack.elapsed_ms for ack in ledger.acks.values())
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
