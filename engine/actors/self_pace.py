"""What players who go at their own pace ask for, and what they are told.

How to think about it: every command has one frame for an answer, to the player alone, on whichever connection
it came. `question` answers `next`, and is sent once the fact is committed that started its clock; `ack` has
the `result` with it, where the session reveals after each answer; `done_all` says that the player is through.
Nobody else is told of any of it but by the leaderboard, which shows no more than each player may know, and by
`progress`, which the host and spectators get.

Players see questions numbered by their own way. Facts, and all that the host sees, have the quiz's numbers.
"""

from __future__ import annotations

from engine.actors.commands import Answer, Next, Role
from engine.actors.delivery.frame import Frame, Message
from engine.actors.live_session import LiveSession
from engine.domain.errors import Refusal
from engine.domain.facts import AnswerAccepted
from engine.domain.phases import Phase
from engine.domain.self_pace import Stage
from engine.domain.self_paced_session import Asked, Repeated
from engine.domain.session import Session
from engine.domain.shuffling import order_of_questions, seed_of


def question_asked(live: LiveSession, command: Answer) -> int:
    """The question that an answer is to, as the quiz numbers it; 0 if the player was not shown it."""
    own = live.session.self_pace
    return command.question if own is None else own.way(command.player).question_at(command.question)


def show_next(live: LiveSession, command: Next) -> Refusal | None:
    """Show the next question, or the one that the player has not answered yet, once that is committed."""
    session = live.session
    outcome = session.show_next(command.player, order_of(live, command.player), live.clock.now_ms())
    if isinstance(outcome, Refusal):
        if outcome.code != "session_finished" or not (session.self_pace and session.phase is Phase.FINISHED):
            return outcome
        seq, missed = session.seq, 0
    else:
        seq, missed = outcome.seq, outcome.missed
    player = command.player

    def frame() -> Frame:
        body: dict[str, object] = {"t": "done_all", "id": command.id, "of": session.of}
        if isinstance(outcome, Asked):
            body = {"t": "question", "id": command.id}
            body |= _question(session, player, outcome.question, live.clock.now_ms())
        else:
            body |= _ending(session, player)
        if missed and session.settings.reveal == "each":
            body["missed"] = _result(session, player, missed)
        return Frame(body)

    live.confirmations.on_commit(seq, command.reply, frame, short=True)
    return None


def order_of(live: LiveSession, player: int) -> list[int]:
    """The questions in the order in which the player gets them."""
    session = live.session
    if session.settings.shuffle_questions:
        return order_of_questions(seed_of(live.record.id, player), session.of)
    return list(range(1, session.of + 1))


def result_of(session: Session, outcome: AnswerAccepted | Repeated, player: int) -> Message | None:
    """What the `ack` says of the outcome; None where players are not told after each answer."""
    if session.self_pace is None or session.settings.reveal != "each":
        return None
    return _result(session, player, outcome.question)


def picture(session: Session, state: dict[str, object], role: Role, player: int | None, now: int) -> None:
    """Put what is so for this player, or for all players together, into the `state` of a self-paced
    session."""
    own = session.self_pace
    assert own is not None, "only a self-paced session has it"
    state["opens_at"], state["closes_at"] = own.opens_at, own.closes_at
    state["reveals"] = session.settings.reveal
    if player is None:
        state |= progress_of(session)
        if role == "host":
            state["asked"] = [
                {"text": question.text, "correct": question.correct} for question in session.quiz.questions
            ]
        return
    way = own.way(player)
    if way.stage is Stage.ASKED and session.phase is Phase.OPEN:
        state["question"] = _question(session, player, way.asked, now)
    state["number"] = len(way.questions)
    state["you"] = {
        "player": player,
        "name": session.name_of(player),
        **_score(session, player),
        "answered": _answered(session, player),
        "result": _last_result(session, player),
        "done": way.stage is Stage.DONE,
        "review": _review(session, player),
    }


def progress_of(session: Session) -> dict[str, object]:
    """How far the players are: how many were shown each question, and how many have answered it."""
    own = session.self_pace
    assert own is not None, "only a self-paced session has it"
    return {"shown": list(own.shown), "answers": session.answered_each()}


def _question(session: Session, player: int, question: int, now: int) -> dict[str, object]:
    own = session.self_pace
    assert own is not None, "only a self-paced session has it"
    body: dict[str, object] = {"number": own.way(player).place_of(question), "of": session.of}
    body |= session.quiz.questions[question - 1].public()
    body["remaining_ms"] = own.remaining_ms(player, now)
    if over_ms := own.over_ms(player, now):
        body["over_ms"] = over_ms
    body["opens_in_ms"] = 0
    body["now"] = now
    return body


def _may_know_score(session: Session, player: int) -> bool:
    """Whether the leaderboard shows the player's own points."""
    if session.phase is Phase.FINISHED or session.settings.reveal == "each":
        return True
    return session.settings.reveal == "end" and _is_done(session, player)


def _may_know_answers(session: Session, player: int) -> bool:
    """Whether the player may know what was right in questions that are left behind."""
    reveal = session.settings.reveal
    if reveal == "never":
        return False
    if reveal == "deadline":
        return session.phase is Phase.FINISHED
    return reveal == "each" or session.phase is Phase.FINISHED or _is_done(session, player)


def _is_done(session: Session, player: int) -> bool:
    return session.self_pace is not None and session.self_pace.way(player).stage is Stage.DONE


def _score(session: Session, player: int) -> dict[str, object]:
    if player not in session.leaderboard or not _may_know_score(session, player):
        return {"score": None, "rank": None, "streak": None}
    board = session.leaderboard
    return {
        "score": board.score(player),
        "rank": board.rank(player),
        "streak": session.streak(player),
    }


def _result(session: Session, player: int, question: int) -> dict[str, object]:
    """As `result`, for one question of a player who may know it."""
    own = session.self_pace
    assert own is not None, "only a self-paced session has it"
    correct, points = session.mark_of(player, question)
    return {
        "number": own.way(player).place_of(question),
        "correct": correct,
        "points": points,
        "answer": session.quiz.questions[question - 1].correct,
        **_score(session, player),
    }


def _answered(session: Session, player: int) -> dict[str, object] | None:
    """The player's answer to the question that was shown last."""
    own = session.self_pace
    assert own is not None, "only a self-paced session has it"
    way = own.way(player)
    given = session.answer_of(player, way.asked)
    if given is None:
        return None
    choice, elapsed_ms = given
    return {"question": way.place_of(way.asked), "choice": choice, "elapsed_ms": elapsed_ms}


def _last_result(session: Session, player: int) -> dict[str, object] | None:
    own = session.self_pace
    assert own is not None, "only a self-paced session has it"
    way = own.way(player)
    if session.settings.reveal != "each" or way.stage is Stage.ASKED or not way.asked:
        return None
    return _result(session, player, way.asked)


def _ending(session: Session, player: int) -> dict[str, object]:
    board = session.leaderboard
    return {
        "done": _is_done(session, player),
        "phase": session.phase,
        **_score(session, player),
        "players": len(board),
        "review": _review(session, player),
    }


def _review(session: Session, player: int) -> list[dict[str, object]] | None:
    """Every question of the player's way with what the player answered, and what was right; None until the
    player is through, or the session over, and for a player who may not know."""
    own = session.self_pace
    assert own is not None, "only a self-paced session has it"
    over = session.phase is Phase.FINISHED or _is_done(session, player)
    if not over or not _may_know_answers(session, player):
        return None
    review = []
    for place, question in enumerate(own.way(player).questions, start=1):
        asked = session.quiz.questions[question - 1]
        given = session.answer_of(player, question)
        correct, points = session.mark_of(player, question)
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
