"""How a subscriber, or a node with its clients, subscribes to a session and is brought up to date."""

from __future__ import annotations

from collections.abc import Iterable

from engine.actors import messages, relay_messages, self_pace
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Rejoin, Role, SubscribeNode, Watch
from engine.actors.delivery.audience import Place
from engine.actors.delivery.frame import Frame, Message
from engine.actors.delivery.subscriber import Subscriber
from engine.actors.live_session import LiveSession
from engine.actors.states import FATES, Fate
from engine.domain.shuffling import seed_of

RESULTS_AT_ONCE_MAX = 500
"""The most players whose results are sent again to a node that subscribes again: a few milliseconds."""


def picture(live: LiveSession, role: Role, player: int | None = None) -> dict[str, object]:
    """The whole state of the session, as this role may see it."""
    board, now = live.broadcasts.board_frame.message, live.clock.now_ms()
    session = live.session
    if session.self_pace is None:
        return messages.state(session, board, now, player=player, for_host=role == "host")
    state = messages.state(session, board, now, player=None, for_host=False)
    self_pace.picture(live, state, role, player)
    return state


def joined(live: LiveSession, place: Place, state: Message | None) -> Frame:
    """The first frame of a subscriber with this seat, with a token to come back with. If `state` is None, the
    frames that the subscriber has missed follow."""
    session, record = live.session, live.record
    shuffled = place.player is not None and session.settings.shuffle_choices
    return messages.joined(
        player=place.player,
        name=None if place.player is None else session.name_of(place.player),
        token=live.tokens.issue(record.id, place.role, place.player, session.host_generation),
        session_id=record.id,
        code=record.code,
        role=place.role,
        state=state,
        epoch=live.stream.epoch,
        offset=live.stream.offset,
        shuffle=seed_of(record.id, place.player or 0) if shuffled else None,
        extra_time=None if place.player is None else messages.with_extra_time(session, place.player),
    )


def attach(live: LiveSession, command: Rejoin | Watch, place: Place) -> None:
    """Seat a subscriber and bring it up to date: once the end is told, if that is to be told just now. At
    another node: once that node has heard all that was told. It tells all who are there by then."""
    away = command.relay is not None and live.broadcasts.in_progress
    if away or FATES[live.lifecycle.state][type(command)] is Fate.AFTER_THE_END:
        live.confirmations.latecomers.append((command, place))
        return
    reply = command.reply
    if command.relay is not None:
        live.audience.seat_away(command.relay, place.key)
        frames = _up_to_date(live, place, command.epoch, command.offset)
        reply.push(relay_messages.admitted(place.role, place.player, frames))
        return
    live.audience.seat(reply, place)
    push_each(reply, _up_to_date(live, place, command.epoch, command.offset))


def _up_to_date(live: LiveSession, place: Place, epoch: int | None, offset: int | None) -> list[Frame]:
    """The frames that a subscriber at this epoch and offset has missed, or else the whole state."""
    missed = None
    # What a player at the own pace was told alone is in no stream: the whole state has it.
    alone = live.session.self_pace is not None and place.player is not None
    if epoch == live.stream.epoch and offset is not None and not alone:
        missed = live.stream.since(offset, host=place.role == "host")
    if missed is None:
        return [joined(live, place, picture(live, place.role, place.player))]
    frames = [joined(live, place, state=None)]
    # The end of the session comes last, as for connected clients: a client may leave after it.
    end = missed.pop() if missed and missed[-1].kind == "finished" else None
    frames += [_replayed(live, frame, place) for frame in missed]
    if place.player is not None and offset is not None and live.stream.results_missed_since(offset):
        frames.append(messages.result(live.session, place.player))
    frames.append(live.broadcasts.board_frame)
    if live.session.withholds:
        frames.append(messages.progress(live.session, live.stream.offset))
    if end is not None:
        frames.append(_replayed(live, end, place))
    return frames


def _replayed(live: LiveSession, frame: Frame, place: Place) -> Frame:
    """A missed broadcast, with the countdown as of now, and `finished` as of that seat."""
    offset = frame.message["offset"]
    assert isinstance(offset, int)
    session, now = live.session, live.clock.now_ms()
    if frame.kind == "finished":
        return messages.finished(session, offset, place.player)
    if frame.message.get("number") != session.number or not session.question_open:
        return frame
    if frame.kind == "question":
        return messages.question(session, offset, now, for_host=place.role == "host")
    return messages.recounted(frame, session, now) if frame.kind == "state" else frame


def subscribe_node(live: LiveSession, command: SubscribeNode) -> None:
    """Subscribe a node. A node that has clients already gets the broadcasts that they missed. If these are no
    longer all kept, or are too many to send at once, the clients have to come back one by one."""
    session, stream, audience, reply = live.session, live.stream, live.audience, command.reply
    missed = None
    if command.epoch == stream.epoch and command.offset is not None:
        missed = stream.pairs_since(command.offset)
    results_missed = stream.results_missed_since(command.offset or 0)
    results = missed is not None and (results_missed or any(frame.kind == "finished" for frame, _ in missed))
    if missed is None or (results and session.active > RESULTS_AT_ONCE_MAX):
        audience.subscribe_node(command.node, reply, ())
        reply.push(relay_messages.relayed(live.record.id, live.record.code, stream.epoch, stream.offset))
        return
    seats = command.seats or ()
    audience.subscribe_node(command.node, reply, seats)
    if "host" in seats and "host" in audience.connected:
        live.attendance.note_all()
    for key in seats:
        player = session.players.get(key) if isinstance(key, int) else None
        if key != "host" and (player is None or player.kicked):
            audience.disconnect(key, CloseReason.KICKED)
    reply.push(relay_messages.relayed(live.record.id, live.record.code, stream.epoch, command.offset or 0))
    revealed = [frame for frame, _ in missed if frame.kind == "reveal"]
    if not revealed and results_missed:
        push_each(reply, relay_messages.standing(session))
    end: Frame | None = None
    for frame, host_frame in missed:
        for_all = _replayed(live, frame, Place("spectator"))
        if frame.kind == "finished":
            end = for_all
            continue
        for_host = None if host_frame is None else _replayed(live, host_frame, Place("host"))
        reply.push(relay_messages.cast(for_all, for_host))
        if revealed and frame is revealed[-1]:
            push_each(reply, relay_messages.standing(session))
    # No leaderboard has an offset, so nothing tells whether the node has heard the last one.
    reply.push(relay_messages.cast(live.broadcasts.board_frame, None))
    if end is not None:
        push_each(reply, relay_messages.standing(session, end))


def push_each(reply: Subscriber, frames: Iterable[Frame]) -> None:
    for frame in frames:
        reply.push(frame)
