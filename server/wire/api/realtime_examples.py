"""Examples for the document that describes the WebSocket and the event stream. A test holds each against the
schema of its type, and those of clients against `parse`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.actors.close_reasons import CloseReason
from engine.domain.phases import Phase
from server.wire.api import host_commands, sessions
from server.wire.api import realtime as types
from server.wire.api.common import Body
from server.wire.api.playing import Expect, OwnResult, Reviewed, WaitingPlayer

_AT = 1_764_332_460_000
_CODE = "417205"
_SESSION = "019accd4-1f00-7000-8000-000000000001"
_TOKEN = "eyJzIjoiMDE5YWNjZDQi.aSmKsA.signature"
_CHOICES = ["Porto", "Lisbon", "Madrid", "Faro"]
_ASKED = "What is the capital of Portugal?"
_LINES = [sessions.Line(1, 1, "Ada", 967), sessions.Line(2, 2, "Ben", 0)]
_RESULT = OwnResult(1, True, 967, 1, 967, 1, 1)

_QUESTION = types.Question(
    offset=18,
    number=1,
    of=2,
    type="single",
    text=_ASKED,
    choices=_CHOICES,
    limit_ms=20_000,
    opens_in_ms=3_000,
    remaining_ms=20_000,
    points=1_000,
    now=_AT,
)
_LOBBY = types.State(
    phase=Phase.LOBBY,
    locked=False,
    approval=False,
    title="Capitals",
    language="en",
    number=0,
    of=2,
    players=1,
    answered=0,
    now=_AT,
    question=None,
    reveal=None,
    leaderboard=sessions.Standing([], 1, 0),
    podium=None,
    you=types.You(player=1, name="Ada", score=0, rank=1, streak=0, answered=None, result=None),
)
_ADA = types.Joined(
    player=1,
    token=_TOKEN,
    name="Ada",
    session=_SESSION,
    code=_CODE,
    role="player",
    state=_LOBBY,
    epoch=3,
    offset=17,
)

_EXAMPLES: Sequence[Body] = (
    # What clients say.
    types.JoinAsPlayer(code=_CODE, name="Ada"),
    types.JoinAsUser(code=_CODE, identity="eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1LTcifQ.signature"),
    types.JoinAgain(code=_CODE, token=_TOKEN, epoch=3, offset=17),
    types.JoinToWatch(code=_CODE, role="spectator"),
    types.Answer("a1", 1, 1),
    types.Next("n1"),
    host_commands.HostMoves(id="h1", do="next", expect=Expect(1, Phase.REVEAL)),
    host_commands.HostHolds(id="h2", do="pause"),
    host_commands.HostSwitches(id="h3", do="lock", on=True),
    host_commands.HostDecides(id="h4", do="admit", player=3),
    host_commands.HostRemoves(id="h5", do="kick", player=2),
    host_commands.HostGivesTime(id="h6", do="extra_time", player=1, factor=1.5),
    host_commands.HostExtends(id="h7", do="extend", closes_at=_AT + 86_400_000),
    types.Ping(1_234.5),
    types.Leave(),
    # What they hear.
    _ADA,
    types.Joined(
        player=None,
        token=_TOKEN,
        name=None,
        session=_SESSION,
        code=_CODE,
        role="spectator",
        state=None,
        epoch=3,
        offset=18,
    ),
    types.Waiting(_CODE, "f1Vd0yQJ6wS3", 2_000),
    types.Moved("wss://quiz.example/n/node-2/ws", 120),
    types.Error(id="a2", code="late", message="The answer came after the time limit."),
    _QUESTION,
    types.Progress(18, 1, 1, 2),
    types.Ack("a1", 1, "accepted", 1_480),
    types.Ack("a1", 1, "accepted", 1_480, _RESULT),
    types.Revealed(offset=19, number=1, correct=1, counts=[1, 1, 0, 0]),
    types.Result(number=1, correct=True, points=967, score=967, rank=1, streak=1, around=_LINES),
    types.Leaderboard(_LINES, 2, 2, 19, 1_000),
    types.StateChange(
        offset=20,
        phase=Phase.PAUSED,
        locked=False,
        approval=False,
        number=2,
        remaining_ms=12_500,
        opens_in_ms=0,
        now=_AT + 30_000,
    ),
    types.Finished(offset=21, podium=_LINES, you=types.OwnPlace(1, 967)),
    types.Roster(
        joined=[types.RosterLine(1, "Ada")],
        on=[1],
        off=[],
        kicked=[],
        players=1,
        connected=1,
    ),
    types.WaitingList([WaitingPlayer(3, "Cleo")], 1),
    types.Health(2, 2, 0, 0, 12, saved=True, saved_in="postgresql"),
    types.ExtraTime(1.5),
    types.Done("h1", "next", Phase.QUESTION),
    types.DoneAll(
        id="n3",
        of=1,
        done=True,
        phase=Phase.QUESTION,
        score=967,
        rank=1,
        streak=1,
        players=2,
        review=[Reviewed(1, "single", _ASKED, _CHOICES, 20_000, 1_000, 1, True, 1)],
    ),
    types.Pong(1_234.5, _AT),
    # What an event stream alone says.
    types.Alive(),
    types.Close(
        CloseReason.SHUTDOWN.code, CloseReason.SHUTDOWN.reason, reconnect=CloseReason.SHUTDOWN.reconnect
    ),
)


def _by_type() -> Mapping[type[Body], Sequence[Body]]:
    found: dict[type[Body], list[Body]] = {}
    for example in _EXAMPLES:
        found.setdefault(type(example), []).append(example)
    return found


EXAMPLES = _by_type()
"""By the type of the message; at least one of each."""
