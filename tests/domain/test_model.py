"""Any sequence of commands, against a model that is too simple to be wrong.

The model counts play time in a variable that it moves by hand, keeps every answer in one dictionary, and
computes scores and ranks from scratch whenever it is asked.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.domain.clock import RECEIPT_GRACE_MS
from engine.domain.errors import Refusal
from engine.domain.facts import AnswerAccepted, PlayerJoined
from engine.domain.session import Repeated, Session, Settings
from tests.domain.making import CREATED_AT, quiz_of

QUESTIONS: list[dict[str, Any]] = [
    {"type": "single", "text": "1", "choices": ["a", "b"], "correct": "b", "time_limit_s": 2},
    {"type": "multiple", "text": "2", "choices": ["a", "b", "c"], "correct": ["a", "b"], "time_limit_s": 1},
    {"type": "numeric", "text": "3", "correct": 1, "time_limit_s": 3, "points": 777},
    {"type": "text", "text": "4", "accept": ["yes"], "time_limit_s": 2, "points": 0},
    {"type": "true_false", "text": "5", "correct": False, "time_limit_s": 1.5, "points": 2000},
]
LIMITS_MS = [2_000, 1_000, 3_000, 2_000, 1_500]
POINTS = [1000, 1000, 777, 0, 2000]
CHOICES: list[list[tuple[Any, Any, list[int] | None]]] = [
    # Per question: the JSON value, what is kept of it, and the cells that it counts in; None for a bad one.
    [(0, 0, [0]), (1, 1, [1]), (2, None, None), (True, None, None)],
    [([1, 0], (0, 1), [0, 1]), ([2], (2,), [2]), ([], None, None), ([1, 1], None, None)],
    [(1, 1, [0]), (1.5, 1.5, [1]), ("1", None, None), (float("nan"), None, None)],
    [(" YES ", "YES", [0]), ("no", "no", [1]), ("", None, None), (7, None, None)],
    [(False, False, [1]), (True, True, [0]), (0, None, None), (None, None, None)],
]
RIGHT: list[Any] = [1, (0, 1), 1, "YES", False]


class SessionMachine(RuleBasedStateMachine):
    @initialize(
        pace=st.sampled_from(["host", "auto"]),
        early_close=st.booleans(),
        scoring_rule=st.sampled_from(["speed", "flat"]),
        streak=st.booleans(),
        lobby_ms=st.sampled_from([None, 0, 4_000]),
        players=st.integers(0, 4),
        board=st.sampled_from(["at_close", "live"]),
        ready_ms=st.sampled_from([0, 0, 700]),
        late_join=st.sampled_from(["current", "next", "refused"]),
        extra_time_max=st.sampled_from([4, 4, 2]),
    )
    def create(
        self,
        pace: Any,
        early_close: bool,
        scoring_rule: str,
        streak: bool,
        lobby_ms: Any,
        players: int,
        board: Any,
        ready_ms: int,
        late_join: Any = "current",
        extra_time_max: int = 4,
    ) -> None:
        self.quiz = quiz_of(*QUESTIONS, scoring={"rule": scoring_rule, "streak": streak})
        if pace == "host":
            lobby_ms = None
        self.settings = Settings(
            pace=pace,
            player_limit=4,
            reveal_ms=1_000,
            lobby_ms=lobby_ms,
            early_close=early_close,
            board=board,
            get_ready_ms=ready_ms,
            late_join=late_join,
            extra_time_max=extra_time_max,
        )
        self.session = Session(self.quiz, self.settings, CREATED_AT)
        self.twin = Session(self.quiz, self.settings, CREATED_AT)
        self.facts: list[Any] = []
        self.now = CREATED_AT
        # The model.
        self.phase = "lobby"
        self.paused_in = ""
        self.played_ms = 0
        self.ready_left_ms = 0
        self.number = 0
        self.locked = False
        self.names: list[str] = []
        self.kicked: set[int] = set()
        self.answers: dict[tuple[int, int], tuple[Any, int, list[int]]] = {}
        self.closed: dict[int, tuple[list[int], int]] = {}
        self.skipped: set[int] = set()
        self.percents: dict[int, int] = {}
        self.watching: set[int] = set()
        for name in "vwxy"[:players]:
            self.join(name)

    # What the model knows

    def active(self) -> list[int]:
        return [player for player in range(1, len(self.names) + 1) if player not in self.kicked]

    def is_right(self, player: int, question: int) -> bool:
        answer = self.answers.get((player, question))
        return answer is not None and answer[0] == RIGHT[question - 1]

    def streak_at(self, player: int, question: int) -> int:
        streak = 0
        while question and (question in self.skipped or self.is_right(player, question)):
            streak, question = streak + (question not in self.skipped), question - 1
        return streak

    def points_of(self, player: int, question: int) -> int:
        if not self.is_right(player, question):
            return 0
        points = Fraction(POINTS[question - 1])
        elapsed_ms = self.answers[player, question][1]
        if self.quiz.scoring.rule == "speed" and elapsed_ms >= 500:
            points *= 1 - Fraction(elapsed_ms, LIMITS_MS[question - 1]) / 2
        bonus = 0
        if self.quiz.scoring.streak and points:
            bonus = min(500, 100 * (self.streak_at(player, question) - 1))
        return floor(points + Fraction(1, 2)) + bonus

    def standing(self, player: int, hidden: int = 0) -> tuple[int, int]:
        """Without the question `hidden`."""
        gone = {hidden, *self.skipped}
        mine = [question for who, question in self.answers if who == player and question not in gone]
        elapsed_ms = sum(self.answers[player, question][1] for question in mine)
        return sum(self.points_of(player, question) for question in mine), elapsed_ms

    def tally(self, question: int) -> tuple[list[int], int]:
        """Counts, and how many have answered, of those who are still in."""
        cells = [self.answers[p, question][2] for p in self.active() if (p, question) in self.answers]
        size = [2, 3, 2, 2, 2][question - 1]
        return [sum(cell in each for each in cells) for cell in range(size)], len(cells)

    def open_number(self) -> int:
        """The question that is open or paused in the middle; 0 when none is."""
        return self.number if self.number and self.number not in self.closed else 0

    def own_limit_ms(self, player: int) -> int:
        return LIMITS_MS[self.number - 1] * self.percents.get(player, 100) // 100

    # What the model does

    def model_open(self) -> None:
        self.watching = set()
        self.phase, self.number, self.played_ms = "question", self.number + 1, 0
        self.ready_left_ms = self.settings.get_ready_ms

    def model_close(self) -> None:
        self.closed[self.number] = self.tally(self.number)
        self.phase, self.played_ms, self.ready_left_ms = "reveal", 0, 0

    def model_advance(self) -> None:
        if self.number < len(QUESTIONS):
            self.model_open()
        else:
            self.phase = "finished"

    def model_close_if_all_answered(self) -> None:
        if self.phase == "question" and self.settings.early_close:
            active = [player for player in self.active() if player not in self.watching]
            if active and all((player, self.number) in self.answers for player in active):
                self.model_close()

    def model_countdown_ms(self) -> int | None:
        if self.phase == "question":
            unanswered = [each for each in self.active() if (each, self.number) not in self.answers]
            held = [self.own_limit_ms(each) for each in unanswered if each not in self.watching]
            return max([*held, LIMITS_MS[self.number - 1]])
        if self.settings.pace == "auto":
            return {"lobby": self.settings.lobby_ms, "reveal": 1_000}.get(self.phase)
        return None

    def model_due_ms(self) -> int | None:
        """Until the countdown ends, the time to get ready before it included."""
        limit_ms = self.model_countdown_ms()
        return None if limit_ms is None else max(0, self.ready_left_ms + limit_ms - self.played_ms)

    def model_pass(self, ms: int) -> None:
        while (due_ms := self.model_due_ms()) is not None and due_ms <= ms:
            ms -= due_ms
            if self.phase == "question":
                self.model_close()
            else:
                self.model_advance()
        if self.phase in ("lobby", "question", "reveal"):
            ready_ms = min(ms, self.ready_left_ms)
            self.ready_left_ms -= ready_ms
            self.played_ms += ms - ready_ms

    def settle(self, outcome: object, expected: str | None) -> None:
        """The code of a refusal, or none; and all that changed is in the facts: they make its equal."""
        got = outcome.code if isinstance(outcome, Refusal) else None
        assert got == expected
        news = self.session.take_facts()
        if expected is not None:
            assert not news
        assert [fact.seq for fact in news] == list(
            range(len(self.facts) + 1, len(self.facts) + len(news) + 1)
        )
        self.facts += news
        self.twin.replay(news)
        assert self.twin == self.session

    # Commands

    @rule(name=st.sampled_from(["a", "A", "á", "b", "c", "d", "e", "", "\u202e"]))
    def join(self, name: str) -> None:
        expected = None
        folded = {"A": "a", "á": "a"}.get(name, name)
        if self.phase == "finished":
            expected = "session_finished"
        elif self.locked:
            expected = "session_locked"
        elif self.number and self.settings.late_join == "refused":
            expected = "session_started"
        elif len(self.active()) >= 4:
            expected = "session_full"
        elif folded in ("", "\u202e"):
            expected = "name_invalid"
        elif folded in self.names:
            expected = "name_taken"
        outcome = self.session.join(name, self.now)
        self.settle(outcome, expected)
        if expected is None:
            self.names.append(folded)
            assert isinstance(outcome, PlayerJoined)
            assert outcome.player == len(self.names)
            if self.open_number() and self.settings.late_join == "next":
                self.watching.add(outcome.player)

    @rule(player=st.integers(1, 5), back=st.sampled_from([0, 0, 0, 0, 1, -1]), pick=st.integers(0, 3))
    def answer(self, player: int, back: int, pick: int) -> None:
        question = self.number - back
        raw, choice, cells = CHOICES[question - 1 if 1 <= question <= len(QUESTIONS) else 0][pick]
        expected, repeated = self.refusal_of_answer(player, question, choice)
        outcome = self.session.answer(player, question, raw, self.now)
        if repeated:
            stands, elapsed_ms, _ = self.answers[player, question]
            assert isinstance(outcome, Repeated)
            assert (outcome.question, outcome.elapsed_ms, outcome.same) == (
                question,
                elapsed_ms,
                choice == stands,
            )
            covering = self.facts[outcome.seq - 1]
            assert covering.question == question
            seen = len(self.facts)
            self.settle(None, None)
            assert len(self.facts) == seen
            return
        self.settle(outcome, expected)
        if expected is None:
            assert isinstance(outcome, AnswerAccepted)
            assert cells is not None
            percent = self.percents.get(player, 100)
            counted_ms = min(self.played_ms, self.own_limit_ms(player)) * 100 // percent
            self.answers[player, question] = (choice, counted_ms, cells)
            assert outcome.elapsed_ms == counted_ms
            assert outcome.correct == self.is_right(player, question)
            assert outcome.points == self.points_of(player, question)
            self.model_close_if_all_answered()

    @rule(picks=st.lists(st.sampled_from([0, 0, 0, 1, None]), min_size=4, max_size=4))
    def answer_all(self, picks: list[int | None]) -> None:
        """Everyone answers the current question, mostly right: rows of right answers need that."""
        for player, pick in enumerate(picks, 1):
            if pick is not None and self.number:
                right = CHOICES[self.number - 1][pick][1] == RIGHT[self.number - 1]
                self.answer(player, 0, pick if right or pick else 1)

    def refusal_of_answer(self, player: int, question: int, choice: Any) -> tuple[str | None, bool]:
        if player > len(self.names):
            return "player_not_found", False
        if player in self.kicked:
            return "kicked", False
        if not 1 <= question <= self.number:
            return ("session_finished" if self.phase == "finished" else "wrong_question"), False
        if choice is None:
            return "bad_choice", False
        if (player, question) in self.answers:
            return None, True
        if self.phase == "finished":
            return "session_finished", False
        if question in self.closed:
            return "question_closed", False
        if self.phase == "paused":
            return "paused", False
        if player in self.watching:
            return "joined_late", False
        if self.played_ms > self.own_limit_ms(player) + RECEIPT_GRACE_MS:
            return "late", False
        return ("not_open_yet" if self.ready_left_ms else None), False

    def host(self, command: str, *phases: str) -> bool:
        if self.phase == "finished":
            expected: str | None = "session_finished"
        else:
            expected = None if self.phase in phases else "illegal_move"
        self.settle(getattr(self.session, command)(self.now), expected)
        return expected is None

    @rule()
    def go_on(self) -> None:
        """What a host mostly does."""
        self.move(
            {"lobby": "start", "question": "close", "reveal": "next", "paused": "resume"}.get(
                self.phase, "next"
            )
        )

    @rule(command=st.sampled_from(["start", "next", "close", "pause", "resume"]))
    def move(self, command: str) -> None:
        phases = {"start": ["lobby"], "next": ["reveal"], "close": ["question"], "resume": ["paused"]}
        if not self.host(command, *phases.get(command, ["lobby", "question", "reveal"])):
            return
        if command == "start":
            self.model_open()
        elif command == "next":
            self.model_advance()
        elif command == "close":
            self.model_close()
        elif command == "pause":
            self.paused_in, self.phase = self.phase, "paused"
        else:
            self.phase = self.paused_in
            self.model_close_if_all_answered()

    @rule()
    def skip(self) -> None:
        asked = bool(self.open_number()) or self.phase == "reveal"
        facts = len(self.facts)
        if not self.host("skip", *([self.phase] if asked else [])):
            return
        assert (len(self.facts) == facts) == (self.number in self.skipped)
        self.skipped.add(self.number)
        if self.open_number():
            self.model_close()

    @precondition(lambda self: len(self.facts) > 12)
    @rule()
    def finish(self) -> None:
        if self.host("finish", "lobby", "question", "reveal", "paused"):
            if self.open_number():
                self.model_close()
            self.phase = "finished"

    @rule(on=st.booleans())
    def lock(self, on: bool) -> None:
        over = self.phase == "finished"
        self.settle(self.session.lock(on, self.now), "session_finished" if over else None)
        if not over:
            self.locked = on

    @precondition(lambda self: len(self.names) > 2)
    @rule(player=st.integers(1, 7))
    def kick(self, player: int) -> None:
        expected = None
        if self.phase == "finished":
            expected = "session_finished"
        elif player > len(self.names):
            expected = "player_not_found"
        self.settle(self.session.kick(player, self.now), expected)
        if expected is None and player not in self.kicked:
            self.kicked.add(player)
            self.model_close_if_all_answered()

    @precondition(lambda self: bool(self.kicked))
    @rule(player=st.integers(1, 7))
    def readmit(self, player: int) -> None:
        expected = None
        if self.phase == "finished":
            expected = "session_finished"
        elif player > len(self.names):
            expected = "player_not_found"
        elif player in self.kicked and len(self.active()) >= 4:
            expected = "session_full"
        self.settle(self.session.readmit(player, self.now), expected)
        if expected is None:
            self.kicked.discard(player)

    @rule(player=st.integers(1, 5), percent=st.sampled_from([100, 150, 200, 400, 0]))
    def give_extra_time(self, player: int, percent: int) -> None:
        expected = None
        if self.phase == "finished":
            expected = "session_finished"
        elif player > len(self.names):
            expected = "player_not_found"
        self.settle(self.session.give_extra_time(player, percent, self.now), expected)
        if expected is None:
            self.percents[player] = min(percent or 400, 100 * self.settings.extra_time_max)
            assert self.session.extra_time_of(player) == self.percents[player]

    @rule(ms=st.sampled_from([1, 300, 499, 500, 700, 1_000, 1_300]))
    def wait(self, ms: int) -> None:
        self.now += ms
        self.session.elapse(self.now)
        self.model_pass(ms)
        self.settle(None, None)

    @rule(ms=st.sampled_from([1, 400, 5_000]))
    def crash(self, ms: int) -> None:
        """The node dies, is away for a while, and another session comes up from the facts."""
        self.session = Session.recover(self.quiz, self.settings, CREATED_AT, self.facts)
        self.now += ms
        running = self.model_countdown_ms() is not None
        self.session.extend_clock(ms, self.now)
        if not running and self.phase in ("lobby", "reveal"):
            self.played_ms += ms
        self.settle(None, None)

    # What always holds

    @invariant()
    def looks_like_the_model(self) -> None:
        session = self.session
        assert (session.phase, session.number, session.locked) == (self.phase, self.number, self.locked)
        assert session.question_open == bool(self.open_number())
        due_ms = self.model_due_ms()
        assert session.deadline == (None if due_ms is None else self.now + due_ms)
        open_number = self.open_number()
        assert session.opens_in_ms(self.now) == (self.ready_left_ms if open_number else None)
        left_ms = LIMITS_MS[open_number - 1] - self.played_ms if open_number else None
        assert session.remaining_ms(self.now) == (None if left_ms is None else max(0, left_ms))
        held = any(percent != 100 for percent in self.percents.values())
        assert session.over_ms(self.now) == (max(0, -left_ms) if held and left_ms is not None else 0)

    @invariant()
    def ranks_are_right(self) -> None:
        hidden = self.open_number() if self.settings.board == "at_close" else 0
        standing = {player: self.standing(player, hidden) for player in self.active()}
        order = sorted(standing, key=lambda player: (-standing[player][0], standing[player][1], player))
        expected = [
            (
                1 + sum(score > standing[player][0] for score, _ in standing.values()),
                player,
                *standing[player],
            )
            for player in order
        ]
        assert [tuple(entry) for entry in self.session.leaderboard.ranked()] == expected
        assert self.session.active == len(expected)
        for player in range(1, len(self.names) + 1):
            who = self.session.players[player]
            assert (who.score, who.elapsed_ms) == self.standing(player)
            assert who.kicked == (player in self.kicked)

    @invariant()
    def closed_questions_and_first_answers_stand(self) -> None:
        for question in range(1, self.number + 1):
            for player in range(1, len(self.names) + 1):
                expected = self.answers.get((player, question))
                kept = self.session.answer_of(player, question)
                assert kept == (None if expected is None else expected[:2])
        if self.number:
            counts, answered = self.closed.get(self.number) or self.tally(self.number)
            assert (self.session.counts(), self.session.answered) == (counts, answered)

    @invariant()
    def results_are_right(self) -> None:
        last = self.number - bool(self.open_number())
        for player in range(1, len(self.names) + 1):
            answered = (player, last) in self.answers and last not in self.skipped
            expected = (self.is_right(player, last), self.points_of(player, last)) if answered else (None, 0)
            assert self.session.result_of(player) == expected
            live = self.settings.board == "live"
            shown = self.number if live and (player, self.number) in self.answers else last
            assert self.session.streak(player) == self.streak_at(player, shown)

    def teardown(self) -> None:
        """Recovery from any number of facts, and on from there, comes to the same end."""
        if not hasattr(self, "facts"):
            return
        for cut in range(0, len(self.facts) + 1, max(1, len(self.facts) // 4)):
            session = Session.recover(self.quiz, self.settings, CREATED_AT, self.facts[:cut])
            assert session.seq == cut
            session.replay(self.facts[cut:])
            assert session == self.session


TestSession = SessionMachine.TestCase
TestSession.settings = settings(max_examples=100, stateful_step_count=40)


def walk(machine: SessionMachine, random: Random) -> None:
    """One step, mostly such as a session of people would take."""
    step = random.choice(["join", "all", "all", "one", "one", "one", "on", "wait", "wait", "odd"])
    if step == "join":
        machine.join(random.choice("abcdef"))
    elif step == "all":
        machine.answer_all([random.choice([0, 0, 0, 1, None]) for _ in range(4)])
    elif step == "one":
        machine.answer(random.randint(1, 5), random.choice([0, 0, 0, 0, 1, -1]), random.randint(0, 3))
    elif step == "on":
        machine.go_on()
    elif step == "wait":
        machine.wait(random.choice([1, 300, 499, 500, 700, 1_000]))
    else:
        odd = random.choice(["kick", "lock", "move", "move", "crash", "skip", "readmit", "extra", "extra"])
        if odd == "kick":
            machine.kick(random.randint(1, 7))
        elif odd == "lock":
            machine.lock(random.choice([True, False, False]))
        elif odd == "skip":
            machine.skip()
        elif odd == "extra":
            machine.give_extra_time(random.randint(1, 4), random.choice([100, 150, 200, 400, 0]))
        elif odd == "readmit":
            machine.readmit(random.randint(1, 5))
        elif odd == "move":
            machine.move(random.choice(["start", "next", "close", "pause", "resume"]))
        else:
            machine.crash(random.choice([1, 400]))


@pytest.mark.parametrize("seed", range(60))
def test_long_walks(seed: int) -> None:
    """Whole sessions from a seed: chosen step by step at random, few get past the second question."""
    random = Random(seed)
    machine = SessionMachine()
    pace, lobby_ms = random.choice([("host", None), ("auto", 4_000), ("auto", None)])
    rule_name = random.choice(["speed", "flat"])
    board = "live" if seed % 4 == 3 else "at_close"
    ready_ms, players = 700 if seed % 5 == 0 else 0, random.randint(0, 4)
    late_join, most = random.choice(["current", "next", "refused"]), random.choice([4, 2])
    early_close, streak = seed % 3 > 0, seed % 2 > 0
    machine.create(pace, early_close, rule_name, streak, lobby_ms, players, board, ready_ms, late_join, most)
    for _ in range(100):
        walk(machine, random)
        machine.looks_like_the_model()
        machine.ranks_are_right()
        machine.closed_questions_and_first_answers_stand()
        machine.results_are_right()
        if machine.phase == "finished":
            break
    machine.teardown()
