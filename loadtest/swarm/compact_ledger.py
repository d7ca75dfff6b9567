"""What one player was told, in compact form, and the same as a line of a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fanfare_client.seat import Gap
from loadtest.runs.attempts import named

Top = list[dict[str, Any]]
"""The entries of a leaderboard."""

_VERDICTS: tuple[bool | None, ...] = (None, False, True)


@dataclass(slots=True, eq=False)
class CompactLedger:
    """The ledger of one player. Questions count from 1, and are numbered as `loadtest.runs.attempts` has it.

    A `Top` may be shared with other players; it must not be changed.
    """

    session: int
    """Number of the session within the run."""
    name: str
    player: int | None = None
    acks: dict[int, int] = field(default_factory=dict)
    """Question to elapsed milliseconds, of acknowledged answers."""
    results: dict[int, int] = field(default_factory=dict)
    """Question to points and verdict in one number: see `coded`."""
    unsettled: set[int] = field(default_factory=set)
    """Questions answered without having heard what became of it."""
    refused: dict[int, str] = field(default_factory=dict)
    score: int = 0
    """As last told."""
    final: tuple[int | None, int] | None = None
    """Rank and score at the end. The rank is None where others played on."""
    top: Top | None = None
    """Of the last leaderboard."""
    gaps: list[Gap] = field(default_factory=list)
    """Epoch, the offset that was missing, the one that came."""
    faults: list[str] = field(default_factory=list)
    """What the server said and should not have."""
    anew: bool = False
    """Whether the session was brought into memory anew since this player came."""
    unmerged: set[int] = field(default_factory=set)
    """Questions whose result did not know of an acknowledged answer, after the session had come up anew. In a
    cluster the answer may be in the spool of an earlier owner, who could reach nobody; nowhere else."""
    early: list[tuple[int, int]] = field(default_factory=list)
    """The score that the player was last told, and another one that a leaderboard showed before the next
    result: with the board `at_close`, what is right while others still answer. After a merge it may be that
    of a question which is closed."""
    ended: str | None = None
    """Why it left; None while it plays."""
    place: str | None = None
    """Host and port of the node where it was in last."""

    def acked(self, question: int, status: str, elapsed_ms: int) -> bool:
        """Whether this is the first ack of the answer."""
        before = self.acks.get(question)
        if status != "accepted":
            self.faults.append(f"{named(question)}: `{status}` for an answer that never changed")
        if before is not None and before != elapsed_ms:
            self.faults.append(f"{named(question)}: acks with {before} and with {elapsed_ms} ms")
        self.acks[question] = elapsed_ms
        self.unsettled.discard(question)
        if self.refused.pop(question, None) is not None:
            self.faults.append(f"{named(question)}: acknowledged after it was refused")
        return before is None

    def refuse(self, question: int, code: str) -> None:
        self.unsettled.discard(question)
        if question in self.acks:
            self.faults.append(f"{named(question)}: `{code}` after it was acknowledged")
        else:
            self.refused[question] = code

    def told(self, question: int, correct: bool | None, points: int, score: int) -> None:
        """A `result`."""
        self.score = score
        if correct is None and question in self.acks and self.anew:
            self.unmerged.add(question)
            return
        now = coded(correct, points)
        before = self.results.setdefault(question, now)
        if before != now:
            self.faults.append(f"{named(question)}: two results, {decoded(before)} and {decoded(now)}")
        if correct is None and question in self.acks:
            self.faults.append(f"{named(question)}: acknowledged, but the result knows no answer")

    def restored(self) -> None:
        """The session was brought into memory anew. What was told of answers that were never acknowledged may
        be lost with the memory it came from; what was acknowledged stands."""
        self.anew = True
        for question in self.results.keys() - self.acks.keys():
            del self.results[question]


def coded(correct: bool | None, points: int) -> int:
    """A verdict and its points in one number."""
    return points * 3 + _VERDICTS.index(correct)


def decoded(code: int) -> tuple[bool | None, int]:
    return _VERDICTS[code % 3], code // 3


def lines(ledgers: Iterable[CompactLedger]) -> Iterator[dict[str, Any]]:
    """One object a player, and one before the first player who has it for each distinct leaderboard."""
    written: dict[int, int] = {}
    for each in ledgers:
        top = None
        if each.top is not None:
            top = written.get(id(each.top))
            if top is None:
                top = written[id(each.top)] = len(written)
                yield {"top": top, "entries": each.top}
        yield {
            "session": each.session,
            "name": each.name,
            "player": each.player,
            "acks": list(each.acks.items()),
            "results": list(each.results.items()),
            "unsettled": sorted(each.unsettled),
            "refused": list(each.refused.items()),
            "score": each.score,
            "final": each.final,
            "last_top": top,
            "gaps": [list(gap) for gap in each.gaps],
            "faults": each.faults,
            "unmerged": sorted(each.unmerged),
            "early": each.early,
            "ended": each.ended,
            "place": each.place,
        }


def read(objects: Iterable[Mapping[str, Any]]) -> Iterator[CompactLedger]:
    """The ledgers that `lines` wrote, one at a time."""
    tops: dict[int, Top] = {}
    for each in objects:
        if "entries" in each:
            tops[each["top"]] = each["entries"]
            continue
        yield CompactLedger(
            session=each["session"],
            name=each["name"],
            player=each["player"],
            acks=dict(each["acks"]),
            results=dict(each["results"]),
            unsettled=set(each["unsettled"]),
            refused=dict(each["refused"]),
            score=each["score"],
            final=None if each["final"] is None else (each["final"][0], each["final"][1]),
            top=None if each["last_top"] is None else tops[each["last_top"]],
            gaps=[Gap(*gap) for gap in each["gaps"]],
            faults=list(each["faults"]),
            unmerged=set(each["unmerged"]),
            early=[(told, shown) for told, shown in each["early"]],
            ended=each["ended"],
            place=each["place"],
        )
