"""What each command does to a session: one function a command.

A handler refuses a command and changes nothing, or changes the session and confirms that once it is
committed. `HANDLERS` has the function for each type of command. A host's command is handled once all that was
due before it is seen to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from engine.actors import messages, relay_messages, self_pace
from engine.actors.admission import AGAIN_MS, BUSY, NOT_ADMITTED
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import (
    PAGE_MAX,
    Answer,
    Command,
    Detach,
    Erase,
    Flushed,
    Host,
    Join,
    Left,
    ListPlayers,
    Look,
    Merge,
    Next,
    Rejoin,
    SubscribeNode,
    TakeOver,
    Watch,
)
from engine.actors.delivery.audience import Place
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import Subscriber
from engine.actors.live_session import LiveSession
from engine.actors.states import State
from engine.actors.subscriptions import attach, joined, picture, subscribe_node
from engine.actors.users import give_signed_time, of_user
from engine.domain.errors import Refusal
from engine.domain.extra_time import NONE
from engine.domain.facts import (
    AnswerAccepted,
    AttemptBegun,
    DeadlineMoved,
    ExtraTimeGiven,
    PlayerDone,
    PlayerJoined,
    QuestionShown,
)
from engine.domain.phases import refuse
from engine.domain.session import Applied, Repeated
from engine.ports import JOINS_SHARE

FOREIGN_TOKEN = Refusal("token_invalid", "This token belongs to another session.")

NO_SUCH_PAGE = Refusal("bad_field", f"A page has 1 to {PAGE_MAX:,} players, after a number from 0.")
NO_SUCH_PLAYER = Refusal("player_not_found", "This session has no such player.")

KICKED = Refusal("kicked", "The host removed you from this session.")

REPLACED = Refusal("token_replaced", "Somebody else leads this session now, with a newer token.")

OVER = Refusal("session_finished", "The session is over.")

STALE = Refusal("illegal_move", "The session has gone on since the host saw it.")

RUNNING = Refusal("session_running", "The session is not over: finish it first.")


def refused(
    live: LiveSession,
    reply: Subscriber,
    refusal: Refusal,
    id: str | None = None,  # noqa: A002 - the protocol's word
) -> None:
    """Tell a refusal, and count it."""
    counts = live.counters.refused
    counts[refusal.code] = counts.get(refusal.code, 0) + 1
    path = refusal.path or {"bad_choice": "choice", "missing_field": "name"}.get(refusal.code)
    reply.push(messages.error(refusal.code, refusal.message, id=id, path=path))


# -- players -----------------------------------------------------------------------------------------


def answer(live: LiveSession, command: Answer) -> None:
    command = of_user(live, command)
    if command.code is not None and command.code != live.record.code:
        refused(live, command.reply, FOREIGN_TOKEN, command.id)
        return
    if not live.journal.has_room():
        _refuse_answer(live, command, BUSY)
        return
    at, held_ms = live.gaps.dated(command.at, command.held_ms or 0)
    question = self_pace.question_asked(live, command)
    attempt = command.attempt or 1
    outcome = live.session.answer(command.player, question, command.choice, at, held_ms, attempt)
    match outcome:
        case AnswerAccepted():
            live.counters.answers_accepted += 1
            live.attendance.spoke(command.player)
            status, seq = "accepted", outcome.seq
        case Repeated():
            live.counters.answers_repeated += 1
            status, seq = "accepted" if outcome.same else "duplicate", outcome.seq
        case Refusal():
            # Sent again to the new owner, it may have overtaken the first one, which is still waited for.
            perhaps = outcome.code == "late" and live.clock.now_ms() < live.deadlines.suspended_until
            perhaps = perhaps or _may_follow(live, command.player, attempt)
            _refuse_answer(live, command, BUSY if perhaps else outcome)
            return
    elapsed_ms, counters, own = outcome.elapsed_ms, live.counters, outcome

    def frame() -> Frame:
        counters.acks += 1
        result = self_pace.result_of(live, own, command)
        return messages.ack(command.id, command.question, status, elapsed_ms, result)

    live.confirmations.on_commit(seq, command.reply, frame, short=True, answer=command, batch=live.batch)


def _refuse_answer(live: LiveSession, command: Answer, refusal: Refusal) -> None:
    if refusal is BUSY:
        live.counters.slow_answers.refused(live.record.id, command, refusal.code, live.batch)
    else:
        live.counters.slow_answers.turned_down(live.record.id, command, refusal.code, live.batch)
    refused(live, command.reply, refusal, command.id)


def show_next(live: LiveSession, command: Next) -> None:
    command = of_user(live, command)
    refusal: Refusal | None = None
    if command.code is not None and command.code != live.record.code:
        refusal = FOREIGN_TOKEN
    elif not live.journal.has_room():
        refusal = BUSY
    else:
        refusal = self_pace.show_next(live, command)
    if refusal is not None:
        perhaps = _may_follow(live, command.player, command.attempt or 1)
        refused(live, command.reply, BUSY if perhaps else refusal, command.id)


def join(live: LiveSession, command: Join) -> None:
    user = command.identity
    if user is not None and (seat := live.session.seat_of_user(user.user_id)) is not None:
        _come_back(live, command, seat)
        return
    if user is not None and live.session.was_erased(user.user_id):
        refused(live, command.reply, NO_SUCH_PLAYER)
        return
    has_been_here = user is not None and command.epoch is not None
    if not live.journal.has_room(JOINS_SHARE) or (has_been_here and live.joins_may_follow):
        refused(live, command.reply, BUSY)
        return
    admission, now = live.admission, live.clock.now_ms()
    admitted = admission.decision(command.ticket, command.name)
    refusal = _refuse_former(live, command)
    refusal = refusal or (NOT_ADMITTED if admitted is False else admission.refuse(command.address, now))
    outcome = refusal or live.session.join(
        command.name,
        command.at,
        admitted=admitted is True,
        user_id=None if user is None else user.user_id,
        signed_name=None if user is None else user.name,
    )
    if isinstance(outcome, Applied):
        ticket = command.ticket or ""
        refusal = admission.wait(ticket, command.name, outcome.name, command.address, now)
        if refusal is None:
            command.reply.push(messages.waiting(live.record.code, ticket, AGAIN_MS))
            return
        outcome = refusal
    if isinstance(outcome, Refusal):
        if outcome.code != "busy":
            admission.forget(command.ticket)
        refused(live, command.reply, outcome)
        return
    admission.forget(command.ticket)
    admission.seat(command.address, now)
    live.attendance.spoke(outcome.player)
    live.counters.players_joined += 1
    if user is not None:
        give_signed_time(live, user, outcome.player)
        live.joins_under_way[outcome.player] = live.session.seq
    place = Place("player", outcome.player, command.may_move)

    def welcome() -> Frame | None:
        live.counters.join_latency.add(max(live.clock.now_ms() - command.at, 0) / 1000)
        live.joins_under_way.pop(outcome.player, None)
        live.attendance.note(outcome.player, joined=True)
        if not command.attach:
            return joined(live, place, state=None)
        away = command.relay is not None and live.broadcasts.in_progress
        if away or live.lifecycle.state is State.ENDING:
            # The session has ended meanwhile, and its end is not committed: it could still be otherwise. Or
            # the player's node has not heard all that was told.
            attach(live, Rejoin(command.reply, "player", outcome.player, relay=command.relay), place)
            return None
        frame = joined(live, place, picture(live, "player", outcome.player))
        if command.relay is None:
            live.audience.seat(command.reply, place)
            return frame
        live.audience.seat_away(command.relay, place.key)
        return relay_messages.admitted(place.role, place.player, [frame])

    live.confirmations.on_commit(live.session.seq, command.reply, welcome, batch=live.batch, join=command)


def _come_back(live: LiveSession, command: Join, player: int) -> None:
    """A user who has a seat here is that player, whatever device it is. Until the join is committed that gave
    the seat, nobody is told of it."""
    refusal = _not_in(live, player)
    if refusal is not None:
        refused(live, command.reply, refusal)
        return
    live.counters.rejoins += 1
    live.attendance.spoke(player)
    if command.identity is not None and live.journal.has_room():
        give_signed_time(live, command.identity, player)
    place = Place("player", player, command.may_move)
    again = Rejoin(command.reply, "player", player, None, command.epoch, command.offset, relay=command.relay)

    def welcome() -> Frame | None:
        if not command.attach:
            return joined(live, place, state=None)
        attach(live, again, place)
        return None

    if player in live.joins_under_way:
        live.confirmations.on_commit(live.joins_under_way[player], command.reply, welcome)
    elif (frame := welcome()) is not None:
        command.reply.push(frame)


def _refuse_former(live: LiveSession, command: Join) -> Refusal | None:
    """A player who was removed from here and still shows the token does not come in as another one."""
    if command.former_session != live.record.id:
        return None
    former = live.session.players.get(command.former_player or 0)
    return KICKED if former is not None and former.kicked else None


def _not_in(live: LiveSession, player: int) -> Refusal | None:
    """Why no client may come as this player; None if one may."""
    who = live.session.players.get(player)
    if who is None or who.erased:
        return BUSY if _may_follow(live, player) else NO_SUCH_PLAYER
    return KICKED if who.kicked else None


def _may_follow(live: LiveSession, player: int, attempt: int = 1) -> bool:
    """Whether this player or attempt, if the session does not know it, may still be merged."""
    return live.session.number_of(player, attempt) is None and live.joins_may_follow


# -- whoever comes, looks and goes -------------------------------------------------------------------


def rejoin(live: LiveSession, command: Rejoin) -> None:
    command = of_user(live, command)
    refusal = None
    if command.code is not None and command.code != live.record.code:
        refusal = FOREIGN_TOKEN
    elif command.role == "player":
        refusal = _not_in(live, command.player or 0)
    elif command.role == "host" and _replaced(live, command.generation):
        refusal = REPLACED
    if refusal:
        refused(live, command.reply, refusal)
        return
    live.counters.rejoins += 1
    player = command.player if command.role == "player" else None
    place = Place(command.role, player, command.may_move)
    if command.user is not None and player in live.joins_under_way:

        def welcome() -> None:
            attach(live, command, place)

        live.confirmations.on_commit(live.joins_under_way[player], command.reply, welcome)
        return
    attach(live, command, place)


def watch(live: LiveSession, command: Watch) -> None:
    """A spectator who watched before the end was told has a token to come back with."""
    if live.lifecycle.state is State.OVER and not live.session.settings.results_public:
        refused(live, command.reply, OVER)
        return
    attach(live, command, Place("spectator", None, command.may_move))


def look(live: LiveSession, command: Look) -> None:
    command = of_user(live, command)
    session, player = live.session, command.player
    if player is not None and (refusal := _not_in(live, player)) is not None:
        refused(live, command.reply, refusal)
    elif command.top is None:

        def frame() -> Frame:
            state = picture(live, command.role, player)
            return messages.look(session, state, live.stream.epoch, live.stream.offset)

        if live.confirmations.end_seq is None:
            command.reply.push(frame())
        else:
            live.confirmations.on_commit(live.confirmations.end_seq, command.reply, frame)
    else:
        command.reply.push(messages.board(session, min(command.top, PAGE_MAX), player))


def list_players(live: LiveSession, command: ListPlayers) -> None:
    if _replaced(live, command.generation):
        refused(live, command.reply, REPLACED)
        return
    if command.after < 0 or not 1 <= command.limit <= PAGE_MAX:  # the edge refuses these; a peer may not
        refused(live, command.reply, NO_SUCH_PAGE)
        return
    audience = live.audience
    page = messages.players(
        live.session,
        command.after,
        command.limit,
        audience.connected,
        audience.connected_players,
        live.admission.waiting(live.clock.now_ms())[0],
        removed=bool(command.removed),
    )
    command.reply.push(page)


def detach(live: LiveSession, command: Detach) -> None:
    live.audience.leave(command.reply)
    live.confirmations.forget(command.reply)


# -- subscribed nodes --------------------------------------------------------------------------------


def flushed(live: LiveSession, command: Flushed) -> None:
    live.barrier.passed(command.node, command.number)
    command.reply.push(messages.done(None, "flushed", live.session.phase))


def left(live: LiveSession, command: Left) -> None:
    live.audience.leave_away(command.node, command.key)
    command.reply.push(messages.done(None, "left", live.session.phase))


# -- the host ----------------------------------------------------------------------------------------


def host(live: LiveSession, command: Host) -> None:
    if not live.journal.has_room():
        refused(live, command.reply, BUSY, command.id)
        return
    now = live.clock.now_ms()
    live.attendance.host_spoke(now)
    refusal = REPLACED if _replaced(live, command.generation) else _lead(live, command, now)
    if refusal is not None:
        refused(live, command.reply, refusal, command.id)
        return
    phase = live.session.phase

    def done() -> Frame:
        return messages.done(command.id, command.do, phase)

    live.confirmations.on_commit(live.session.seq, command.reply, done)


def _lead(live: LiveSession, command: Host, now: int) -> Refusal | None:
    session = live.session
    if command.seen_phase is not None and command.seen_phase != session.phase:
        return STALE
    if command.seen_number is not None and command.seen_number != session.number:
        return STALE
    match command.do:
        case "start":
            return session.start(now)
        case "next":
            return session.next(now)
        case "close":
            return session.close(now)
        case "skip":
            return session.skip(now, piecemeal=True)
        case "pause":
            return session.pause(now)
        case "resume":
            return session.resume(now)
        case "finish":
            return session.finish(now)
        case "lock":
            return session.lock(command.on is not False, now)
        case "approval":
            return session.ask_first(command.on is not False, now)
        case "admit" | "refuse":
            refusal = refuse("approval", session.phase)
            return refusal or live.admission.decide(command.player, now, admitted=command.do == "admit")
        case "extend":
            return session.extend(command.closes_at or 0, now)
        case "kick":
            return session.kick(command.player or 0, now)
        case "readmit":
            return session.readmit(command.player or 0, now)
        case "extra_time":
            percent = NONE if command.percent is None else command.percent
            return session.give_extra_time(command.player or 0, percent, now)
        case _:
            return Refusal("bad_field", f"Unknown host command {command.do!r}.")


def _replaced(live: LiveSession, generation: int | None) -> bool:
    """Whether a host's token of this generation is void. None: it was no token of a host, or a node of an
    earlier release has passed the command on, which knows but one."""
    return generation is not None and generation != live.session.host_generation


def take_over(live: LiveSession, command: TakeOver) -> None:
    session = live.session
    refusal = BUSY if not live.journal.has_room() else session.replace_host(live.clock.now_ms())
    if refusal is not None:
        refused(live, command.reply, refusal)
        return
    token = live.tokens.issue(live.record.id, "host", None, session.host_generation)
    live.confirmations.on_commit(session.seq, command.reply, lambda: messages.host_token(token))


# -- what becomes of stored facts --------------------------------------------------------------------


def merge(live: LiveSession, command: Merge) -> None:
    session, now = live.session, live.clock.now_ms()
    for fact in command.facts:
        if isinstance(fact, PlayerJoined):
            known = session.numbers
            session.merge_player(fact)
            if session.numbers > known:
                live.attendance.note(session.numbers, joined=True)
                live.attendance.expect(session.numbers)
        elif isinstance(fact, AttemptBegun):
            session.merge_attempt(fact)
        elif isinstance(fact, QuestionShown):
            session.merge_shown(fact)
        elif isinstance(fact, PlayerDone):
            session.merge_done(fact)
        elif isinstance(fact, ExtraTimeGiven):
            session.merge_extra_time(fact)
        elif isinstance(fact, DeadlineMoved):
            session.merge_deadline(fact, now)
        else:
            session.merge_answer(fact)
    session.settle_merged(now)
    live.confirmations.on_commit(
        session.seq, command.reply, lambda: messages.done(None, "merge", session.phase)
    )


def erase(live: LiveSession, command: Erase) -> None:
    session, player = live.session, command.player
    over = live.lifecycle.state is State.OVER
    if player is None and not over:
        refused(live, command.reply, RUNNING)
        return
    if player is None:
        live.linger_s = 0
    elif session.erase(player, live.clock.now_ms()) is not None:
        refused(live, command.reply, NO_SUCH_PLAYER)
        return
    else:
        live.audience.disconnect(player, CloseReason.KICKED)
        for reply in live.confirmations.forget_player(player):
            refused(live, reply, NO_SUCH_PLAYER)
        live.attendance.note(player, joined=True)
        live.broadcasts.board.dirty = not over
        live.broadcasts.renew_board()
    command.reply.push(messages.done(None, "erase", session.phase))


HANDLERS: Final[Mapping[type[Command], Callable[[LiveSession, Any], None]]] = {
    Answer: answer,
    Next: show_next,
    Join: join,
    Rejoin: rejoin,
    Watch: watch,
    Look: look,
    ListPlayers: list_players,
    SubscribeNode: subscribe_node,
    Flushed: flushed,
    Left: left,
    Detach: detach,
    Host: host,
    TakeOver: take_over,
    Merge: merge,
    Erase: erase,
}
