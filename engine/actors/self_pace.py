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
    if own is None:
        return command.question
    way = own.way(command.player)
    if not way.merged:
        return way.question_at(command.question)
    order = order_of(live, command.player)
    question = order[command.question - 1] if 1 <= command.question <= len(order) else 0
    return question if question in way.questions else 0


def _place_of(live: LiveSession, player: int, question: int) -> int:
    """The number of a question as the player sees it; 0 if it is not on the way yet. It is the same whichever
    node asked: also where answers were merged to later questions than the next one."""
    own = live.session.self_pace
    assert own is not None, "only a self-paced session has it"
    way = own.way(player)
    if way.merged and question in way.questions:
        return order_of(live, player).index(question) + 1
    return way.place_of(question)


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
            body |= _question(live, player, outcome.question)
        else:
            body |= _ending(live, player)
        if missed and session.settings.reveal == "each":
            body["missed"] = _result(live, player, missed)
        return Frame(body)

    live.confirmations.on_commit(seq, command.reply, frame, short=True)
    return None


def order_of(live: LiveSession, player: int) -> list[int]:
    """The questions in the order in which the player gets them."""
    session = live.session
    if session.settings.shuffle_questions:
        return order_of_questions(seed_of(live.record.id, player), session.of)
    return list(range(1, session.of + 1))


def result_of(live: LiveSession, outcome: AnswerAccepted | Repeated, player: int) -> Message | None:
    """What the `ack` says of the outcome; None where players are not told after each answer."""
    session = live.session
    if session.self_pace is None or session.settings.reveal != "each":
        return None
    return _result(live, player, outcome.question)


def picture(live: LiveSession, state: dict[str, object], role: Role, player: int | None) -> None:
    """Put what is so for this player, or for all players together, into the `state` of a self-paced
    session."""
    session = live.session
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
        state["question"] = _question(live, player, way.asked)
    state["number"] = len(way.questions)
    state["you"] = {
        "player": player,
        "name": session.name_of(player),
        **_score(session, player),
        "answered": _answered(live, player),
        "result": _last_result(live, player),
        "done": way.stage is Stage.DONE,
        "review": _review(live, player),
    }


def progress_of(session: Session) -> dict[str, object]:
    """How far the players are: how many were shown each question, and how many have answered it."""
    own = session.self_pace
    assert own is not None, "only a self-paced session has it"
    return {"shown": list(own.shown), "answers": session.answered_each()}


def _question(live: LiveSession, player: int, question: int) -> dict[str, object]:
    session, now = live.session, live.clock.now_ms()
    own = session.self_pace
    assert own is not None, "only a self-paced session has it"
    body: dict[str, object] = {"number": _place_of(live, player, question), "of": session.of}
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


def _result(live: LiveSession, player: int, question: int) -> dict[str, object]:
    """As `result`, for one question of a player who may know it."""
    session = live.session
    correct, points = session.mark_of(player, question)
    return {
        "number": _place_of(live, player, question),
        "correct": correct,
        "points": points,
        "answer": session.quiz.questions[question - 1].correct,
        **_score(session, player),
    }


def _answered(live: LiveSession, player: int) -> dict[str, object] | None:
    """The player's answer to the question that was shown last."""
    session = live.session
    own = session.self_pace
    assert own is not None, "only a self-paced session has it"
    way = own.way(player)
    given = session.answer_of(player, way.asked)
    if given is None:
        return None
    choice, elapsed_ms = given
    return {"question": _place_of(live, player, way.asked), "choice": choice, "elapsed_ms": elapsed_ms}


def _last_result(live: LiveSession, player: int) -> dict[str, object] | None:
    session = live.session
    own = session.self_pace
    assert own is not None, "only a self-paced session has it"
    way = own.way(player)
    if session.settings.reveal != "each" or way.stage is Stage.ASKED or not way.asked:
        return None
    return _result(live, player, way.asked)


def _ending(live: LiveSession, player: int) -> dict[str, object]:
    session = live.session
    board = session.leaderboard
    return {
        "done": _is_done(session, player),
        "phase": session.phase,
        **_score(session, player),
        "players": len(board),
        "review": _review(live, player),
    }


def _review(live: LiveSession, player: int) -> list[dict[str, object]] | None:
    """Every question of the player's way with what the player answered, and what was right; None until the
    player is through, or the session over, and for a player who may not know."""
    session = live.session
    own = session.self_pace
    assert own is not None, "only a self-paced session has it"
    over = session.phase is Phase.FINISHED or _is_done(session, player)
    if not over or not _may_know_answers(session, player):
        return None
    review = []
    placed = [(_place_of(live, player, question), question) for question in own.way(player).questions]
    for place, question in sorted(placed):
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
