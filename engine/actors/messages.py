"""The messages a session sends, as docs/protocol.md describes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator
from itertools import chain, islice, repeat, tee

from engine.actors.delivery.frame import Frame, Message
from engine.domain.extra_time import NONE, factor_of
from engine.domain.leaderboard import Entry
from engine.domain.self_pace import Stage
from engine.domain.session import Phase, Session

TOP = 10
"""Entries of a leaderboard message."""

AROUND = 2
"""Players ahead, and players behind, in a result."""

PODIUM = (1, 2, 3)
"""The places on it."""


def error(code: str, message: str, *, id: str | None = None, path: str | None = None) -> Frame:  # noqa: A002 - the protocol's word
    body: dict[str, object] = {"t": "error"}
    if id is not None:
        body["id"] = id
    body["code"] = code
    body["message"] = message
    if path is not None:
        body["path"] = path
    return Frame(body)


def busy(id: str | None = None) -> Frame:  # noqa: A002 - the protocol's word
    return error("busy", "A queue is full; nothing has changed. Try again in a moment.", id=id)


def ack(
    id: str | None,  # noqa: A002 - the protocol's word
    question: int,
    status: str,
    elapsed_ms: int,
    result: Message | None = None,
) -> Frame:
    """`result`: of this question, for a player who is told at once."""
    body = {"t": "ack", "id": id, "question": question, "status": status, "elapsed_ms": elapsed_ms}
    return Frame(body if result is None else {**body, "result": result})


def done(id: str | None, do: str, phase: Phase) -> Frame:  # noqa: A002 - the protocol's word
    return Frame({"t": "done", "id": id, "do": do, "phase": phase})


def host_token(token: str) -> Frame:
    """Of whoever has taken a session over. Never sent to a client as it is."""
    return Frame({"t": "host_token", "token": token})


Line = dict[str, object]
"""Of a standing, or of a list of players."""

_SKIPPED: dict[str, object] = {"skipped": True}
"""The mark of a question that counts for nobody."""


def standings(session: Session, entries: Iterable[Entry]) -> list[Line]:
    return list(_lines(session, entries))


def _lines(session: Session, entries: Iterable[Entry]) -> Iterator[Line]:
    return (
        {"rank": entry.rank, "id": entry.player, "name": session.name_of(entry.player), "score": entry.score}
        for entry in entries
    )


def neighbourhoods(lines: Iterator[Line], reach: int) -> Iterator[list[Line]]:
    """For each line in turn those within reach of it, itself among them. The lines are shared, not copied."""
    window = deque(islice(lines, reach))
    ahead = 0  # of the one whose turn it is, in the window
    for line in chain(lines, repeat(None, reach)):
        if line is not None:
            window.append(line)
        if ahead < len(window):
            yield list(window)
        if ahead < reach:
            ahead += 1
        elif window:
            window.popleft()


def leaderboard(session: Session, offset: int, tick_ms: int) -> dict[str, object]:
    return {
        "t": "leaderboard",
        "offset": offset,
        "top": standings(session, session.leaderboard.top(TOP)),
        "players": session.active,
        "answered": session.answered,
        "tick_ms": tick_ms,
    }


def extra_time(percent: int) -> Frame:
    """To one player: from now on the player's time limit is so many percent of that of a question."""
    return Frame({"t": "extra_time", "factor": factor_of(percent)})


def with_extra_time(session: Session, player: int) -> Line:
    """The member that tells a player's extra time, to the player and to the host; empty without any."""
    percent = session.extra_time_of(player)
    return {} if percent == NONE else {"extra_time": factor_of(percent)}


def _countdown(session: Session, now: int) -> dict[str, object]:
    """How far the question is: its own clock, and not that of a player with extra time."""
    body: dict[str, object] = {
        "remaining_ms": session.remaining_ms(now),
        "opens_in_ms": session.opens_in_ms(now),
    }
    return body | {"over_ms": over_ms} if (over_ms := session.over_ms(now)) else body


def progress(session: Session, offset: int) -> Frame:
    """How many have answered the question that is open; with the pace `self` how many are through, and how
    many were shown and have answered each question."""
    body = {
        "t": "progress",
        "offset": offset,
        "number": session.number,
        "answered": session.answered,
        "players": session.active,
    }
    if session.self_pace is None:
        return Frame(body)
    return Frame({**body, "shown": list(session.self_pace.shown), "answers": session.answered_each()})


def question(session: Session, offset: int, now: int, *, for_host: bool) -> Frame:
    assert session.question is not None
    body: dict[str, object] = {"t": "question", "offset": offset}
    body |= _question(session, now, for_host=for_host)
    body["now"] = now
    return Frame(body)


def _question(session: Session, now: int, *, for_host: bool) -> dict[str, object]:
    assert session.question is not None
    body: dict[str, object] = {"number": session.number, "of": session.of}
    body |= session.question.public()
    if session.withholds_choices(now) and not for_host:
        body["choices"] = None
    body |= _countdown(session, now)
    if for_host:
        body["correct"] = session.question.correct
    return body


def reveal(session: Session, offset: int) -> Frame:
    return Frame({"t": "reveal", "offset": offset} | _reveal(session))


def _reveal(session: Session) -> dict[str, object]:
    assert session.question is not None
    body: dict[str, object] = {
        "number": session.number,
        "correct": session.question.correct,
        "counts": session.counts(),
    }
    return body | _SKIPPED if session.skipped(session.number) else body


def result(session: Session, player: int) -> Frame:
    """Of the last question that was closed."""
    board = session.leaderboard
    score, around = board.score(player), standings(session, board.around(player, AROUND))
    return _result(session, closed_number(session), player, score, board.rank(player), around)


def closed_number(session: Session) -> int:
    """The number of the last question that was closed."""
    return session.number - session.question_open


def _result(session: Session, number: int, player: int, score: int, rank: int, around: list[Line]) -> Frame:
    correct, points = session.result_of(player)
    streak, skipped = session.streak(player), session.skipped(number)
    return result_frame(number, correct, points, score, rank, streak, around, skipped=skipped)


def result_frame(
    number: int,
    correct: bool | None,
    points: int,
    score: int,
    rank: int,
    streak: int,
    around: list[Line],
    *,
    skipped: bool,
) -> Frame:
    body: dict[str, object] = {
        "t": "result",
        "number": number,
        "correct": correct,
        "points": points,
        "score": score,
        "rank": rank,
        "streak": streak,
        "around": around,
    }
    return Frame(body | _SKIPPED if skipped else body)


def results(session: Session, wanted: Container[int]) -> Iterator[tuple[int, Frame | None]]:
    """Every player in the order of the standing, with their `result` if it is wanted.

    The same as `result` for each, but in one pass over the standing as it is at the call: a line of it
    is made once, and shared by all whom it is next to. To be taken little by little, before another question
    is closed, or answers are merged.
    """
    number = closed_number(session)
    entries, others = tee(session.leaderboard.ranked())
    around_each = neighbourhoods(_lines(session, others), AROUND)
    return (
        (player, _result(session, number, player, score, rank, around) if player in wanted else None)
        for (rank, player, score, _), around in zip(entries, around_each, strict=True)
    )


def state_changed(session: Session, offset: int, now: int, extended_ms: int | None = None) -> Frame:
    """`extended_ms`: how much of the countdown was given back, because the node had stood still."""
    message: dict[str, object] = {
        "t": "state",
        "offset": offset,
        "phase": session.phase,
        "locked": session.locked,
        "approval": session.approval,
        "number": session.number,
        **_countdown(session, now),
        "now": now,
    }
    if session.self_pace is not None:
        message["closes_at"] = session.self_pace.closes_at
    if extended_ms is not None:
        message["extended_ms"] = extended_ms
    return Frame(message)


def recounted(frame: Frame, session: Session, now: int) -> Frame:
    """A `state` that was broadcast earlier, with the countdown as it stands now."""
    kept = {name: value for name, value in frame.message.items() if name != "over_ms"}
    return Frame({**kept, **_countdown(session, now), "now": now})


def _podium(session: Session) -> list[Line]:
    return on_podium(standings(session, session.leaderboard.top(TOP)))


def on_podium(first: Iterable[Line]) -> list[Line]:
    """Those of the first `TOP` lines that have one of the first three places, shared ones too."""
    return [line for line in first if line["rank"] in PODIUM]


def finished(session: Session, offset: int, player: int | None) -> Frame:
    you: Line | None = None
    if player is not None:
        you = {"rank": session.leaderboard.rank(player), "score": session.leaderboard.score(player)}
    return finished_frame(offset, _podium(session), you)


def finished_frame(offset: object, podium: object, you: Line | None) -> Frame:
    return Frame({"t": "finished", "offset": offset, "podium": podium, "you": you})


def finished_for_all(
    session: Session, offset: int, wanted: Container[int]
) -> Iterator[tuple[int, Frame | None]]:
    """Every player in the order of the standing, with their `finished` if it is wanted. As `results`."""
    podium = _podium(session)
    return (
        (player, finished_frame(offset, podium, {"rank": rank, "score": score}) if player in wanted else None)
        for rank, player, score, _ in session.leaderboard.ranked()
    )


def state(
    session: Session, board: Message, now: int, *, player: int | None, for_host: bool
) -> dict[str, object]:
    """The whole picture, for one who comes in: `state` of `joined`."""
    closed = session.number > 0 and not session.question_open
    return {
        "phase": session.phase,
        "locked": session.locked,
        "approval": session.approval,
        "title": session.quiz.title,
        "language": session.quiz.language,
        "number": session.number,
        "of": session.of,
        "players": session.active,
        "answered": session.answered,
        "now": now,
        "question": _question(session, now, for_host=for_host) if session.question else None,
        "reveal": _reveal(session) if closed else None,
        "leaderboard": {"top": board["top"], "players": session.active, "answered": session.answered},
        "podium": _podium(session) if session.phase is Phase.FINISHED else None,
        "you": None if player is None else _you(session, player, closed=closed),
    }


def shown_number(state: Message) -> int:
    """The last question that is closed by a `state`; 0 when none is."""
    number = state["number"]
    assert isinstance(number, int)
    return number - (state["question"] is not None and state["reveal"] is None)


def _without_type(frame: Frame) -> dict[str, object]:
    return {name: value for name, value in frame.message.items() if name != "t"}


def _you(session: Session, player: int, *, closed: bool) -> dict[str, object]:
    given = session.answer_of(player, session.number)
    answered = None
    if given is not None:
        choice, elapsed_ms = given
        answered = {"question": session.number, "choice": choice, "elapsed_ms": elapsed_ms}
    you: dict[str, object] = {
        "player": player,
        "name": session.name_of(player),
        "score": session.leaderboard.score(player),
        "rank": session.leaderboard.rank(player),
        "streak": session.streak(player),
        "answered": answered,
        "result": _without_type(result(session, player)) if closed else None,
    }
    return you | {"watches": session.number} if session.watches(player) else you


def look(session: Session, state: Message, epoch: int, offset: int) -> Frame:
    """`state` as for one who comes in."""
    return Frame({"t": "look", "phase": session.phase, "state": state, "epoch": epoch, "offset": offset})


def board(session: Session, count: int, player: int | None) -> Frame:
    """The first `count`, and those around a player who is in."""
    around = None if player is None else standings(session, session.leaderboard.around(player, AROUND))
    return Frame(
        {
            "t": "board",
            "phase": session.phase,
            "top": standings(session, session.leaderboard.top(count)),
            "around": around,
            "players": session.active,
            "answered": session.answered,
        }
    )


def waiting(code: str, ticket: str | None, again_ms: int) -> Frame:
    """To a player whom the host has yet to let in."""
    return Frame({"t": "waiting", "code": code, "ticket": ticket, "again_ms": again_ms})


def health(
    players: int,
    connected: int,
    *,
    lagging: int,
    waiting: int,
    p99_ms: int | None,
    saved: bool,
    spools: bool,
) -> Frame:
    """To the host: how the session is."""
    return Frame(
        {
            "t": "health",
            "players": players,
            "connected": connected,
            "lagging": lagging,
            "waiting": waiting,
            "p99_ms": p99_ms,
            "saved": saved,
            "saved_in": "spool" if spools else "postgresql",
        }
    )


def waiting_list(listed: list[Line], count: int) -> Frame:
    """To the host: the first of those who wait, and how many they are."""
    return Frame({"t": "waiting_list", "players": listed, "count": count})


def players(
    session: Session,
    after: int,
    limit: int,
    connected: Container[object],
    count: int,
    waiting: list[Line],
    *,
    removed: bool = False,
) -> Frame:
    """Those who are in, or were `removed`, with numbers above `after`, as many as `limit` at most. Args:
    connected: whose connection is there; count: how many they are; waiting: whom the host has yet to let
    in."""
    board = session.leaderboard
    lines: list[Line] = []
    following = None
    for player in range(after + 1, session.numbers + 1):
        who = session.players.get(player)
        if who is None or who.kicked is not removed or (removed and who.erased):
            continue
        if len(lines) == limit:
            following = lines[-1]["id"]
            break
        if removed:
            lines.append({"id": player, "name": who.name})
            continue
        lines.append(
            {
                "id": player,
                "name": who.name,
                "score": board.score(player),
                "rank": board.rank(player),
                "connected": player in connected,
                **with_extra_time(session, player),
                **place_on_way(session, player),
            }
        )
    return Frame(
        {
            "t": "players",
            "players": lines,
            "next": following,
            "total": session.active,
            "connected": count,
            "waiting": waiting,
        }
    )


def place_on_way(session: Session, player: int) -> Line:
    """Where a player is who goes at the own pace, for the host: the question that was shown last, as the quiz
    numbers it, its place on the way of the player, whether it waits for an answer, since when the player was
    shown it, and whether the player is through. Nothing in a session of another pace."""
    if session.self_pace is None:
        return {}
    attempt = session.self_pace.last_attempt(player)
    way = session.self_pace.way(session.number_of(player, attempt) or player)
    attempts: Line = {"attempt": attempt} if session.settings.attempts > 1 else {}
    return attempts | {
        "question": way.asked or None,
        "at": len(way.questions),
        "waits": way.stage is Stage.ASKED,
        "since": way.shown_at or None,
        "done": way.stage is Stage.DONE,
    }


def moved(url: str, after_ms: int = 0) -> Frame:
    return Frame({"t": "moved", "url": url, "after_ms": after_ms})


def joined(
    *,
    player: int | None,
    name: str | None,
    token: str,
    session_id: str,
    code: str,
    role: str,
    state: Message | None,
    epoch: int,
    offset: int,
    shuffle: int | None = None,
    extra_time: Line | None = None,
) -> Frame:
    """Args: shuffle: the seed of the order in which the player sees choices, where they are shuffled;
    extra_time: what `with_extra_time` tells."""
    body: dict[str, object] = {
        "t": "joined",
        "player": player,
        "token": token,
        "name": name,
        "session": session_id,
        "code": code,
        "role": role,
        "state": state,
        "epoch": epoch,
        "offset": offset,
    }
    if shuffle is not None:
        body["shuffle"] = shuffle
    return Frame(body | extra_time if extra_time else body)
