"""What players who go at their own pace ask for, and what they are told.

How to think about it: every command has one frame for an answer, to the player alone, on whichever connection
it came. `question` answers `next`, and is sent once the fact is committed that started its clock; `ack` has
the `result` with it, where the session reveals after each answer; `done_all` says that the player is through.
Nobody else is told of any of it but by the leaderboard, which shows no more than each player may know, and by
`progress`, which the host and spectators get.

Players see questions numbered by their own way. Facts, and all that the host sees, have the quiz's numbers.

Where a session has several attempts, `next` and `answer` name theirs, and mean the first if they do not. So
sent again, on whichever device, neither begins an attempt nor answers in another one.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.actors.commands import Answer, Next, Role
from engine.actors.delivery.frame import Frame, Message
from engine.actors.live_session import LiveSession
from engine.domain.errors import Refusal
from engine.domain.facts import AnswerAccepted
from engine.domain.phases import Phase
from engine.domain.self_pace import Stage, Way
from engine.domain.self_paced_session import Asked, Repeated
from engine.domain.session import Session
from engine.domain.shuffling import order_of_questions, seed_of


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a player. `number` is what its facts have as their player."""

    live: LiveSession
    player: int
    attempt: int
    number: int

    @classmethod
    def of(cls, live: LiveSession, command: Answer | Next) -> Attempt | None:
        """The attempt that a command means; None if it has not begun."""
        attempt = command.attempt or 1
        number = live.session.number_of(command.player, attempt)
        return None if number is None else cls(live, command.player, attempt, number)

    @classmethod
    def last(cls, live: LiveSession, player: int) -> Attempt:
        """The last attempt that the player has begun."""
        own = live.session.self_pace
        assert own is not None, "only a self-paced session has it"
        attempt = own.last_attempt(player)
        number = own.number_of(player, attempt)
        assert number is not None, "it has begun"
        return cls(live, player, attempt, number)

    @property
    def way(self) -> Way:
        own = self.live.session.self_pace
        assert own is not None, "only a self-paced session has it"
        return own.way(self.number)

    @property
    def order(self) -> list[int]:
        """The questions in the order in which the player gets them."""
        return order_of(self.live, self.player, self.attempt)

    def place_of(self, question: int) -> int:
        """The number of a question as the player sees it; 0 if it is not on the way yet. It is the same
        whichever node asked: also where answers were merged to later questions than the next one."""
        way = self.way
        if way.merged and question in way.questions:
            return self.order.index(question) + 1
        return way.place_of(question)

    @property
    def is_over(self) -> bool:
        return self.live.session.phase is Phase.FINISHED or self.way.stage is Stage.DONE

    @property
    def may_know_points(self) -> bool:
        """Whether the player may know what this attempt has brought."""
        session = self.live.session
        if session.phase is Phase.FINISHED or session.settings.reveal == "each":
            return True
        return session.settings.reveal == "end" and self.way.stage is Stage.DONE

    @property
    def may_know_answers(self) -> bool:
        """Whether the player may know what was right in questions that are left behind. Who may have another
        attempt gains by knowing."""
        session, reveal = self.live.session, self.live.session.settings.reveal
        if reveal == "never":
            return False
        if reveal == "each" or session.phase is Phase.FINISHED:
            return True
        return reveal == "end" and _has_no_more_attempts(session, self.player)

    def marked(self, body: dict[str, object]) -> dict[str, object]:
        """With which attempt it is, where there may be more than one."""
        return body | {"attempt": self.attempt} if self.live.session.settings.attempts > 1 else body


def question_asked(live: LiveSession, command: Answer) -> int:
    """The question that an answer is to, as the quiz numbers it; 0 if the player was not shown it."""
    if live.session.self_pace is None:
        return command.question
    of = Attempt.of(live, command)
    if of is None:
        return 0
    way = of.way
    if not way.merged:
        return way.question_at(command.question)
    order = of.order
    question = order[command.question - 1] if 1 <= command.question <= len(order) else 0
    return question if question in way.questions else 0


def show_next(live: LiveSession, command: Next) -> Refusal | None:
    """Show the next question, or the one that the player has not answered yet, once that is committed."""
    session, player, attempt = live.session, command.player, command.attempt or 1
    outcome = session.show_next(player, order_of(live, player, attempt), live.clock.now_ms(), attempt)
    of = Attempt.of(live, command)
    if isinstance(outcome, Refusal):
        finished = session.self_pace is not None and session.phase is Phase.FINISHED
        if outcome.code != "session_finished" or not finished or of is None:
            return outcome
        seq, missed = session.seq, 0
    else:
        seq, missed = outcome.seq, outcome.missed
    assert of is not None, "what is shown is shown in an attempt"

    def frame() -> Frame:
        body: dict[str, object] = {"t": "done_all", "id": command.id, "of": session.of}
        if isinstance(outcome, Asked):
            body = {"t": "question", "id": command.id}
            body |= _question(of, outcome.question)
        else:
            body |= _ending(of)
        if missed and session.settings.reveal == "each":
            body["missed"] = _result(of, missed)
        return Frame(body)

    live.confirmations.on_commit(seq, command.reply, frame, short=True)
    return None


def order_of(live: LiveSession, player: int, attempt: int) -> list[int]:
    """The questions in the order in which the player gets them in this attempt."""
    session = live.session
    if session.settings.shuffle_questions:
        return order_of_questions(seed_of(live.record.id, player, attempt), session.of)
    return list(range(1, session.of + 1))


def result_of(live: LiveSession, outcome: AnswerAccepted | Repeated, command: Answer) -> Message | None:
    """What the `ack` says of the outcome; None where players are not told after each answer."""
    session = live.session
    if session.self_pace is None or session.settings.reveal != "each":
        return None
    of = Attempt.of(live, command)
    assert of is not None, "it was answered"
    return _result(of, outcome.question)


def picture(live: LiveSession, state: dict[str, object], role: Role, player: int | None) -> None:
    """Put what is so for this player, in the last attempt, or for all players together, into the `state` of a
    self-paced session."""
    session = live.session
    own = session.self_pace
    assert own is not None, "only a self-paced session has it"
    state["opens_at"], state["closes_at"] = own.opens_at, own.closes_at
    state["reveals"] = session.settings.reveal
    if session.settings.attempts > 1:
        state["attempts"] = session.settings.attempts
    if player is None:
        state |= progress_of(session)
        if role == "host":
            state["asked"] = [
                {"text": question.text, "correct": question.correct} for question in session.quiz.questions
            ]
        return
    of = Attempt.last(live, player)
    way = of.way
    if way.stage is Stage.ASKED and session.phase is Phase.OPEN:
        state["question"] = _question(of, way.asked)
    state["number"] = len(way.questions)
    state["you"] = of.marked(
        {
            "player": player,
            "name": session.name_of(player),
            **_score(of),
            "answered": _answered(of),
            "result": _last_result(of),
            "done": way.stage is Stage.DONE,
            "review": _review(of),
        }
    )


def progress_of(session: Session) -> dict[str, object]:
    """How far the players are: how many were shown each question, and how many have answered it."""
    own = session.self_pace
    assert own is not None, "only a self-paced session has it"
    return {"shown": list(own.shown), "answers": session.answered_each()}


def _question(of: Attempt, question: int) -> dict[str, object]:
    session, now = of.live.session, of.live.clock.now_ms()
    own = session.self_pace
    assert own is not None, "only a self-paced session has it"
    body: dict[str, object] = {"number": of.place_of(question), "of": session.of}
    body |= session.quiz.questions[question - 1].public()
    body["remaining_ms"] = own.remaining_ms(of.number, now)
    if over_ms := own.over_ms(of.number, now):
        body["over_ms"] = over_ms
    body["opens_in_ms"] = 0
    body["now"] = now
    return of.marked(body)


def _may_know_score(session: Session, player: int) -> bool:
    """Whether the leaderboard shows the player's own points."""
    if session.phase is Phase.FINISHED or session.settings.reveal == "each":
        return True
    own = session.self_pace
    return session.settings.reveal == "end" and own is not None and own.is_through(player)


def _has_no_more_attempts(session: Session, player: int) -> bool:
    last = session.number_of(player, session.settings.attempts)
    own = session.self_pace
    return last is not None and own is not None and own.way(last).stage is Stage.DONE


def _score(of: Attempt) -> dict[str, object]:
    """What the best attempt has brought, and with several what this one has."""
    session, player = of.live.session, of.player
    score: dict[str, object] = {"score": None, "rank": None, "streak": None}
    if player in session.leaderboard:
        if _may_know_score(session, player):
            board = session.leaderboard
            score |= {"score": board.score(player), "rank": board.rank(player)}
        if of.may_know_points:
            score["streak"] = session.streak(of.number)
    if session.settings.attempts > 1:
        score["attempt_score"] = session.score_of_attempt(of.number) if of.may_know_points else None
    return score


def _result(of: Attempt, question: int) -> dict[str, object]:
    """As `result`, for one question of a player who may know it."""
    session = of.live.session
    correct, points = session.mark_of(of.number, question)
    return {
        "number": of.place_of(question),
        "correct": correct,
        "points": points,
        "answer": session.quiz.questions[question - 1].correct,
        **_score(of),
    }


def _answered(of: Attempt) -> dict[str, object] | None:
    """The player's answer to the question that was shown last."""
    asked = of.way.asked
    given = of.live.session.answer_of(of.number, asked)
    if given is None:
        return None
    choice, elapsed_ms = given
    return {"question": of.place_of(asked), "choice": choice, "elapsed_ms": elapsed_ms}


def _last_result(of: Attempt) -> dict[str, object] | None:
    way = of.way
    if of.live.session.settings.reveal != "each" or way.stage is Stage.ASKED or not way.asked:
        return None
    return _result(of, way.asked)


def _ending(of: Attempt) -> dict[str, object]:
    session = of.live.session
    body = of.marked(
        {
            "done": of.way.stage is Stage.DONE,
            "phase": session.phase,
            **_score(of),
            "players": len(session.leaderboard),
            "review": _review(of),
        }
    )
    return body | {"attempts": session.settings.attempts} if session.settings.attempts > 1 else body


def _review(of: Attempt) -> list[dict[str, object]] | None:
    """Every question of the player's way with what the player answered, and what was right; None until the
    player is through, or the session over, and for a player who may not know."""
    session = of.live.session
    if not of.is_over or not of.may_know_answers:
        return None
    review = []
    for place, question in sorted((of.place_of(question), question) for question in of.way.questions):
        asked = session.quiz.questions[question - 1]
        given = session.answer_of(of.number, question)
        correct, points = session.mark_of(of.number, question)
        review.append(
            {
                "number": place,
                **asked.public(),
                "choice": None if given is None else given[0],
                "correct": correct,
                "points": points,
                "answer": asked.correct,
            }
        )
    return review
