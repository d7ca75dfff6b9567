"""Scenarios: what a load run does, as a TOML file whose every field is checked."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

_SUFFIX = ".toml"


AT_CLOSE = "at_close"
LIVE = "live"

AUTO = "auto"
SELF = "self"

LOGNORMAL = "lognormal"
EVEN = "even"


class ScenarioError(Exception):
    """A scenario that cannot be run. The message says which field of which file, and what is allowed."""


def _number(least: float, most: float) -> Callable[[object], float]:
    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ValueError(f"a number from {least:,} to {most:,}")
        return float(value)

    return read


def _whole(least: int, most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most:,}")
        return value

    return read


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text")
    return value


def _one_of(*allowed: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if value not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return str(value)

    return read


def _sizes(value: object) -> tuple[int, int]:
    problem = ValueError("two whole numbers from 1 to 150,000, the smaller first")
    if not isinstance(value, list) or len(value) != 2:
        raise problem
    try:
        least, most = (_whole(1, 150_000)(each) for each in value)
    except ValueError:
        raise problem from None
    if least > most:
        raise problem
    return least, most


def _moments(value: object) -> tuple[float, ...]:
    problem = ValueError("a list of up to 100 numbers of seconds")
    if not isinstance(value, list) or len(value) > 100:
        raise problem
    try:
        return tuple(sorted(_number(0, 86_400)(each) for each in value))
    except ValueError:
        raise problem from None


_share = _number(0, 1)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a run does.

    Args:
        description: one sentence for people.
        players: how many; with waves, at one time.
        duration_s: how long they play, from the first question that opens. The last question is finished.
        session_players: the least and the most players of one session; one session has all if it must.
        join_per_s: how many come in a second.
        start_spread_s: the sessions start at random moments within this time, so that their questions do not
            all open at once.
        question_s: how long a question is open; nobody closes it early.
        reveal_s: from its end to the next.
        board: AT_CLOSE: the leaderboard moves when a question is closed. LIVE: while people answer.
        answer_spread: LOGNORMAL: around `think_s`, as people are. EVEN: at any moment of the time there is,
            which makes a steady rate when the sessions are out of step.
        think_s: the median time to answer, for LOGNORMAL. People differ, and so do answers.
        skill: share of right answers.
        silent_share: questions that a player does not answer.
        duplicate_share: answers that are sent twice.
        drop_share: answers during which the connection is lost.
        cut_all_at_s: moments of play at which every connection is lost at once.
        stall_share: players who stop reading at the first question they see, on a small buffer.
        stall_s: for how long.
        waves: sessions come and go: so many groups of them play at one time, which begin one after the other;
            when the sessions of a group are over, new ones with new players take their place. 0: every
            session plays from the beginning to the end.
        session_questions: of a session of a wave, or at the players' own pace.
        pace: AUTO: the clock of the session leads. SELF: users of an app, with identities, go through the
            quiz each at their own speed, as soon as they are in.
        pause_s: SELF: the median time between an answer and the next question.
        away_share: SELF: answers after which the player disconnects, to come back at another node.
        away_s: SELF: the median time until then.
        attempts: SELF: how many each player has.
        again_share: SELF: of the players who are through, those who begin another attempt, if they have one.
        memory_growth_max: as a share of 1; the run fails when the nodes have more resident memory in the last
            third of the play than that beyond what they have in the third before. 0: it does not matter.
        probes: players beside the others on an independent WebSocket library.
        patience_s: how long a player goes on trying to come back.
    """

    description: str
    players: int
    duration_s: float
    session_players: tuple[int, int]
    join_per_s: float
    start_spread_s: float
    question_s: float
    reveal_s: float
    board: str
    answer_spread: str
    think_s: float
    skill: float
    silent_share: float
    duplicate_share: float
    drop_share: float
    cut_all_at_s: tuple[float, ...]
    stall_share: float
    stall_s: float
    waves: int
    session_questions: int
    pace: str
    pause_s: float
    away_share: float
    away_s: float
    attempts: int
    again_share: float
    memory_growth_max: float
    probes: int
    patience_s: float

    @property
    def own_pace(self) -> bool:
        return self.pace == SELF

    @property
    def round_s(self) -> float:
        """From the beginning of a question to that of the next."""
        if self.own_pace:
            return self.think_s + self.pause_s + self.away_share * self.away_s
        return self.question_s + self.reveal_s

    @property
    def rounds_s(self) -> float:
        """How long a session plays; at the own pace, how long it takes the median player."""
        return self.questions * self.round_s

    @property
    def median_answer_s(self) -> float:
        """After which half of the answers are given."""
        return self.question_s / 2 if self.answer_spread == EVEN else self.think_s

    @property
    def questions(self) -> int:
        """How many a session plays: as many as begin within the duration, and no more than a quiz may
        have."""
        if self.waves or self.own_pace:
            return self.session_questions
        return min(max(round(self.duration_s / self.round_s), 1), QUESTIONS_MAX)

    def changed(self, players: int | None, duration_s: float | None) -> Scenario:
        """With what was asked for on the command line. Raises ScenarioError."""
        changed = self
        if players is not None:
            changed = replace(changed, players=_read("players", players, "the command line"))
        if duration_s is not None:
            changed = replace(changed, duration_s=_read("duration_s", duration_s, "the command line"))
        if bool(changed.waves or changed.own_pace) != bool(changed.session_questions):
            raise ScenarioError("waves and session_questions go together, and so do pace self and these")
        if changed.own_pace and (
            changed.waves or changed.probes or changed.silent_share or changed.stall_share
        ):
            raise ScenarioError("pace self has no waves, probes, silent_share or stall_share")
        if (changed.attempts > 1 or changed.again_share) and not changed.own_pace:
            raise ScenarioError("attempts and again_share belong to pace self")
        if changed.waves and (changed.probes or changed.cut_all_at_s):
            raise ScenarioError("a scenario with waves has no probes and no cut_all_at_s")
        rounds_s = QUESTIONS_MAX * changed.round_s
        if not changed.waves and changed.duration_s > rounds_s:
            raise ScenarioError(
                f"a quiz has at most {QUESTIONS_MAX} questions, which end after {rounds_s:g} s: "
                "a shorter duration or longer questions, please"
            )
        return changed


QUESTIONS_MAX = 200

_KINDS: Mapping[str, Callable[[object], Any]] = {
    "description": _text,
    "players": _whole(1, 1_000_000),
    "duration_s": _number(1, 86_400),
    "session_players": _sizes,
    "join_per_s": _number(1, 1_000_000),
    "start_spread_s": _number(0, 3_600),
    "question_s": _number(1, 600),
    "reveal_s": _number(0.1, 600),
    "board": _one_of(AT_CLOSE, LIVE),
    "answer_spread": _one_of(LOGNORMAL, EVEN),
    "think_s": _number(0.01, 600),
    "skill": _share,
    "silent_share": _share,
    "duplicate_share": _share,
    "drop_share": _share,
    "cut_all_at_s": _moments,
    "stall_share": _share,
    "stall_s": _number(0, 3_600),
    "waves": _whole(0, 100),
    "session_questions": _whole(0, QUESTIONS_MAX),
    "pace": _one_of(AUTO, SELF),
    "pause_s": _number(0, 600),
    "away_share": _share,
    "away_s": _number(0, 600),
    "attempts": _whole(1, 100),
    "again_share": _number(0, 0.9),
    "memory_growth_max": _share,
    "probes": _whole(0, 100),
    "patience_s": _number(1, 3_600),
}

_DEFAULTS: Mapping[str, object] = {
    "session_players": (20, 50),
    "join_per_s": 1_000.0,
    "start_spread_s": 0.0,
    "question_s": 20.0,
    "reveal_s": 3.0,
    "board": AT_CLOSE,
    "answer_spread": LOGNORMAL,
    "think_s": 6.0,
    "skill": 0.6,
    "silent_share": 0.03,
    "duplicate_share": 0.01,
    "drop_share": 0.0,
    "cut_all_at_s": (),
    "stall_share": 0.0,
    "stall_s": 0.0,
    "waves": 0,
    "session_questions": 0,
    "pace": AUTO,
    "pause_s": 0.0,
    "away_share": 0.0,
    "away_s": 0.0,
    "attempts": 1,
    "again_share": 0.0,
    "memory_growth_max": 0.0,
    "probes": 4,
    "patience_s": 60.0,
}


def names() -> list[str]:
    """The scenarios that come with the program."""
    here = resources.files("loadtest") / "scenarios"
    return sorted(
        entry.name.removesuffix(_SUFFIX) for entry in here.iterdir() if entry.name.endswith(_SUFFIX)
    )


def load(name: str) -> Scenario:
    """A scenario by its name, or by the path of a file that ends in `.toml`. Raises ScenarioError."""
    if name.endswith(_SUFFIX):
        try:
            return parse(Path(name).read_text(encoding="utf-8"), name)
        except (OSError, UnicodeDecodeError) as exc:
            raise ScenarioError(f"{name} cannot be read: {exc}") from exc
    if name not in names():
        raise ScenarioError(
            f"there is no scenario {name!r}; there are {', '.join(names())}, and your own files"
        )
    source = resources.files("loadtest") / "scenarios" / f"{name}{_SUFFIX}"
    return parse(source.read_text(encoding="utf-8"), f"{name}{_SUFFIX}")


def parse(text: str, source: str) -> Scenario:
    """Args: source: what errors call the text. Raises ScenarioError."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ScenarioError(f"{source} is not TOML: {exc}") from exc
    for key in data:
        if key not in _KINDS:
            raise ScenarioError(f"{source}: no field is called {key!r}; there are {', '.join(_KINDS)}")
    values = {key: _read(key, value, source) for key, value in data.items()}
    if values.get("answer_spread") == EVEN and "think_s" in values:
        raise ScenarioError(f"{source}: think_s has no meaning when answer_spread is {EVEN!r}")
    for each in fields(Scenario):
        if each.name not in values:
            if each.name not in _DEFAULTS:
                raise ScenarioError(f"{source}: {each.name} is missing")
            values[each.name] = _DEFAULTS[each.name]
    return Scenario(**values).changed(None, None)


def _read(key: str, value: object, source: str) -> Any:
    try:
        return _KINDS[key](value)
    except ValueError as exc:
        raise ScenarioError(f"{source}: {key} is {value!r}, and must be {exc}") from None
