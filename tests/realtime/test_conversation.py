"""What may be said on a connection, by whom, and what becomes of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.actors import commands, messages
from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame
from engine.trace import Trace
from server.realtime.conversation import Conversation, ConversationDeps
from server.security.limits import Attempts
from server.security.tokens import Tokens
from tests.keys import session_id
from tests.traced import TRACEPARENT, Traced

CODE = "123456"
SESSION = session_id(1)


class SetClock:
    def __init__(self) -> None:
        self.at_ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.at_ms


class FakeSessions:
    """Keeps what is delivered; `answers` are pushed to the reply of the next commands at once."""

    def __init__(self) -> None:
        self.delivered: list[tuple[str, commands.Command]] = []
        self.answers: list[Frame] = []

    def deliver(self, key: str, command: commands.Command) -> None:
        self.delivered.append((key, command))
        if self.answers:
            command.reply.push(self.answers.pop(0))

    @property
    def last(self) -> commands.Command:
        return self.delivered[-1][1]

    @property
    def detached(self) -> int:
        return sum(isinstance(command, commands.Detach) for _, command in self.delivered)


class FakeConnection:
    """As a transport's: after the end nothing is taken, and the first ending counts."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.close_reason: CloseReason | None = None

    def push(self, frame: Frame) -> None:
        if self.close_reason is None:
            self.sent.append(dict(frame.message))

    def close(self, close_reason: CloseReason) -> None:
        self.close_reason = self.close_reason or close_reason

    @property
    def kinds(self) -> list[str]:
        return [message["t"] for message in self.sent]

    @property
    def errors(self) -> list[str]:
        return [message["code"] for message in self.sent if message["t"] == "error"]


class Scene:
    """One conversation, and what it shares with others of its node."""

    def __init__(self, **limits: Any) -> None:
        self.clock = SetClock()
        self.sessions = FakeSessions()
        self.tokens = Tokens(b"a secret for these tests", 3600, self.clock)
        self.deps = ConversationDeps(
            sessions=self.sessions,
            tokens=self.tokens,
            clock=self.clock,
            attempts=Attempts(
                limits.get("attempts_per_min", 30), wait_max_ms=limits.get("wait_max_ms", 8_000)
            ),
            messages_per_s=limits.get("messages_per_s", 20),
            messages_burst=limits.get("messages_burst", 60),
            call_later=self.wait,
        )
        self.call_soon: list[tuple[float, Callable[[], None]]] = []
        self.connection = FakeConnection()
        self.talk = self.converse()

    def wait(self, wait_s: float, do: Callable[[], None]) -> bool:
        self.call_soon.append((wait_s, do))
        return True

    def converse(self, address: str = "192.0.2.7") -> Conversation:
        self.connection = FakeConnection()
        self.talk = Conversation(self.deps, self.connection, address)
        return self.talk

    def say(self, **message: Any) -> None:
        self.talk.receive(json.dumps(message))

    def join(self, name: object = "Ada") -> None:
        self.say(t="join", code=CODE, name=name)

    def rejoin(self, token: str, **more: Any) -> None:
        self.say(t="join", code=CODE, token=token, **more)

    def seat(self, role: str = "player", player: int | None = 7) -> None:
        """Join, and be told so."""
        self.rejoin(self.tokens.issue(SESSION, "host", None))
        self.talk.push(joined(role, player))

    def answer(self, choice: object = 2) -> None:
        self.say(t="answer", id="a-1", question=1, choice=choice)


def joined(role: str = "player", player: int | None = 7) -> Frame:
    return messages.joined(
        player=player,
        name="Ada",
        token="t",
        session_id=SESSION,
        code=CODE,
        role=role,
        state=None,
        epoch=1,
        offset=0,
    )


# -- joining -----------------------------------------------------------------------------------------


def test_a_new_player_s_join_goes_to_the_code_with_the_time_of_receipt() -> None:
    scene = Scene()
    scene.join("Ada")
    ((key, command),) = scene.sessions.delivered
    assert isinstance(command, commands.Join)
    assert command == commands.Join(
        scene.talk,
        "Ada",
        scene.clock.at_ms,
        attach=True,
        may_move=True,
        address="192.0.2.7",
        ticket=command.ticket,
    )
    assert key == CODE
    assert not scene.talk.idle


def test_a_name_is_for_the_session_to_judge() -> None:
    scene = Scene()
    scene.join({"not": "a name"})
    command = scene.sessions.last
    assert isinstance(command, commands.Join)
    assert command.name == {"not": "a name"}


def test_a_token_goes_to_the_session_it_names() -> None:
    scene = Scene()
    scene.rejoin(scene.tokens.issue(SESSION, "player", 7), epoch=3, offset=14)
    assert scene.sessions.delivered == [
        (SESSION, commands.Rejoin(scene.talk, "player", 7, CODE, epoch=3, offset=14, may_move=True))
    ]


def test_a_spectator_asks_the_code() -> None:
    scene = Scene()
    scene.say(t="join", code=CODE, role="spectator", epoch=1, offset=2)
    assert scene.sessions.delivered == [(CODE, commands.Watch(scene.talk, 1, 2, may_move=True))]


def test_a_refused_join_may_be_tried_again() -> None:
    scene = Scene()
    scene.join("Ada")
    scene.talk.push(messages.error("name_taken", "Somebody has this name."))
    assert scene.talk.idle
    assert scene.connection.errors == ["name_taken"]
    scene.join("Ada the second")
    assert len(scene.sessions.delivered) == 2


def test_an_answer_that_comes_before_deliver_returns_counts() -> None:
    scene = Scene()
    scene.sessions.answers = [messages.busy()]
    scene.join()
    assert scene.talk.idle
    scene.sessions.answers = [joined()]
    scene.join()
    scene.answer()
    assert isinstance(scene.sessions.last, commands.Answer)


@pytest.mark.parametrize("seated", [False, True])
def test_a_second_join_is_refused(seated: bool) -> None:
    scene = Scene()
    scene.join()
    if seated:
        scene.talk.push(joined())
    scene.join()
    assert scene.connection.errors == ["already_joined"]
    assert len(scene.sessions.delivered) == 1


# -- speaking ----------------------------------------------------------------------------------------


def test_an_answer_is_stamped_and_goes_to_the_session() -> None:
    scene = Scene()
    scene.seat()
    scene.clock.at_ms += 1234
    scene.answer([0, 2])
    assert scene.sessions.delivered[-1] == (
        SESSION,
        commands.Answer(scene.talk, 7, "a-1", 1, [0, 2], scene.clock.at_ms),
    )


@pytest.mark.parametrize(
    ("do", "more", "player", "on"),
    [("start", {}, None, None), ("kick", {"player": 3}, 3, None), ("lock", {"on": False}, None, False)],
)
def test_a_host_s_command_goes_to_the_session(
    do: str, more: dict[str, object], player: int | None, on: bool | None
) -> None:
    scene = Scene()
    scene.seat("host", None)
    scene.say(t="host", id="h-1", do=do, **more)
    assert scene.sessions.delivered[-1] == (
        SESSION,
        commands.Host(scene.talk, "h-1", do, player, on, generation=0),
    )


def test_a_host_s_command_says_what_the_host_saw() -> None:
    scene = Scene()
    scene.seat("host", None)
    scene.say(t="host", id="h-1", do="next", expect={"number": 2, "phase": "reveal"})
    expected = commands.Host(scene.talk, "h-1", "next", seen_number=2, seen_phase="reveal", generation=0)
    assert scene.sessions.delivered[-1] == (SESSION, expected)


def test_messages_before_a_join_are_refused() -> None:
    scene = Scene()
    scene.answer()
    scene.say(t="host", id="h-1", do="start")
    assert scene.connection.errors == ["not_joined", "not_joined"]
    assert [message["id"] for message in scene.connection.sent] == ["a-1", "h-1"]
    assert scene.sessions.delivered == []


def test_nor_may_who_is_about_to() -> None:
    scene = Scene()
    scene.join()
    scene.answer()
    assert scene.connection.errors == ["not_joined"]


@pytest.mark.parametrize("role", ["spectator", "host"])
def test_only_players_answer(role: str) -> None:
    scene = Scene()
    scene.seat(role, None)
    scene.answer()
    assert scene.connection.errors == ["not_player"]
    assert scene.connection.sent[-1]["id"] == "a-1"


@pytest.mark.parametrize("role", ["spectator", "player"])
def test_only_the_host_leads(role: str) -> None:
    scene = Scene()
    scene.seat(role, 7 if role == "player" else None)
    scene.say(t="host", id="h-1", do="start")
    assert scene.connection.errors == ["not_host"]
    assert scene.connection.sent[-1]["id"] == "h-1"


def test_a_ping_is_answered_with_the_clock_joined_or_not() -> None:
    scene = Scene()
    scene.say(t="ping", at=17.5)
    assert scene.connection.sent == [{"t": "pong", "at": 17.5, "now": scene.clock.at_ms}]


def test_what_is_not_understood_is_answered_with_its_id_and_harms_nothing() -> None:
    scene = Scene()
    scene.seat()
    scene.say(t="answer", id="a-1", question=1, chioce=2)
    assert scene.connection.sent[-1] == {
        "t": "error",
        "id": "a-1",
        "code": "unknown_field",
        "message": "chioce is not a member of this message; known: "
        "id, question, choice, attempt, traceparent.",
        "path": "chioce",
    }
    scene.answer()
    assert isinstance(scene.sessions.last, commands.Answer)


def test_what_the_session_pushes_reaches_the_client() -> None:
    scene = Scene()
    scene.seat()
    scene.talk.push(messages.busy())
    assert scene.connection.kinds == ["joined", "error"]


# -- limits ------------------------------------------------------------------------------------------


def test_too_many_messages_get_one_error_and_the_end() -> None:
    scene = Scene(messages_per_s=20, messages_burst=60)
    scene.seat()
    for n in range(10_000):
        scene.say(t="ping", at=n)
    assert scene.connection.kinds == ["joined"] + ["pong"] * 59 + ["error"]
    assert scene.connection.errors == ["rate_limited"]
    assert scene.connection.close_reason is CloseReason.RATE_LIMITED


def test_messages_within_the_rate_go_on_for_ever() -> None:
    scene = Scene(messages_per_s=20, messages_burst=60)
    for n in range(1_000):
        scene.say(t="ping", at=n)
        scene.clock.at_ms += 50
    assert scene.connection.kinds == ["pong"] * 1_000


def test_frames_that_are_not_understood_count_too() -> None:
    scene = Scene(messages_burst=10)
    for _ in range(20):
        scene.talk.receive("{")
    assert scene.connection.errors == ["bad_json"] * 10 + ["rate_limited"]


def test_a_binary_frame_ends_the_connection() -> None:
    scene = Scene()
    scene.talk.receive_binary()
    scene.talk.receive_binary()
    assert scene.connection.errors == ["bad_message"]
    assert scene.connection.close_reason is CloseReason.BAD_FRAME


def test_guessing_tokens_is_ended_for_the_whole_address() -> None:
    scene = Scene(attempts_per_min=30)
    for n in range(31):
        scene.converse("192.0.2.7")
        scene.rejoin("forged")
        assert scene.connection.errors[0] == "token_invalid"
        assert (scene.connection.close_reason is CloseReason.TOO_MANY_ATTEMPTS) is (n == 30)
    assert scene.connection.errors[1:] == ["too_many_attempts"]


def test_guessing_codes_at_once_and_in_a_row_is_slowed_down_for_the_whole_address() -> None:
    scene = Scene(attempts_per_min=30)
    guessers = [scene.converse("192.0.2.7") for _ in range(600)]
    for n, guesser in enumerate(guessers):
        guesser.receive(json.dumps({"t": "join", "code": f"{n:06}", "name": "Eve"}))
    assert len(scene.sessions.delivered) == 30
    assert len(scene.call_soon) == 4
    assert scene.connection.errors == ["too_many_attempts"]
    assert scene.connection.close_reason is CloseReason.TOO_MANY_ATTEMPTS
    for guesser in guessers:
        guesser.disconnected()

    for _, waited in scene.call_soon:
        waited()
    assert len(scene.sessions.delivered) == 30, "they have gone meanwhile"

    scene.converse("192.0.2.8")
    scene.join()
    assert scene.connection.errors == []


def test_a_code_that_has_to_wait_has_its_turn() -> None:
    scene = Scene(attempts_per_min=1, wait_max_ms=60_000)
    scene.sessions.answers = [messages.error("session_not_found", "No session has this code.")]
    scene.say(t="join", code="000001", name="Eve")
    scene.converse()
    scene.join()
    assert not scene.talk.idle
    assert len(scene.sessions.delivered) == 1
    ((wait_s, waited),) = scene.call_soon
    assert wait_s == 60
    waited()
    assert len(scene.sessions.delivered) == 2


def test_wrong_codes_do_not_slow_down_those_who_come_to_a_session_that_is_known_here() -> None:
    scene = Scene(attempts_per_min=1)
    scene.seat()
    for n in range(3):
        scene.converse()
        scene.say(t="join", code=f"{n:06}", name="Eve")
    scene.call_soon.clear()
    for n in range(100):
        scene.converse()
        scene.join(f"Player {n}")
    assert scene.call_soon == []
    assert len(scene.sessions.delivered) == 102


def test_a_player_that_waits_for_the_host_joins_again_on_the_same_connection() -> None:
    scene = Scene()
    scene.sessions.answers = [messages.waiting(CODE, "a-ticket", 2_000)]
    scene.join()
    assert scene.connection.kinds == ["waiting"]
    assert not scene.talk.idle
    assert len(str(scene.sessions.delivered[0][1].ticket)) >= 16
    scene.say(t="join", code=CODE, name="Ada", ticket="a-ticket")
    assert scene.sessions.delivered[-1][1].ticket == "a-ticket"
    assert scene.connection.errors == []


def test_a_new_player_says_who_it_was_before() -> None:
    scene = Scene()
    for role, player, former in (
        ("player", 7, (SESSION, 7)),
        ("host", None, (None, None)),
        ("spectator", None, (None, None)),
    ):
        scene.say(t="join", code=CODE, name="Ada", former=scene.tokens.issue(SESSION, role, player))
        join = scene.sessions.last
        assert (join.former_session, join.former_player) == former
        scene.converse()
    scene.say(t="join", code=CODE, name="Ada", former="forged")
    assert scene.sessions.last.former_session is None, "nobody is kept out for it"
    assert scene.connection.errors == []


def test_a_good_token_works_from_a_blocked_address() -> None:
    scene = Scene(attempts_per_min=1)
    for _ in range(2):
        scene.converse()
        scene.rejoin("forged")
    assert scene.connection.close_reason is CloseReason.TOO_MANY_ATTEMPTS
    scene.converse()
    scene.rejoin(scene.tokens.issue(SESSION, "player", 7))
    assert isinstance(scene.sessions.last, commands.Rejoin)


def test_a_good_token_with_a_foreign_code_counts_as_guessing() -> None:
    scene = Scene(attempts_per_min=1)
    for _ in range(2):
        scene.converse()
        scene.sessions.answers = [messages.error("token_invalid", "This token belongs to another session.")]
        scene.rejoin(scene.tokens.issue(SESSION, "player", 7))
    assert scene.connection.close_reason is CloseReason.TOO_MANY_ATTEMPTS


def test_an_old_token_is_told_apart_from_a_forged_one() -> None:
    scene = Scene()
    token = scene.tokens.issue(SESSION, "player", 7)
    scene.clock.at_ms += 3_601_000
    scene.rejoin(token)
    assert scene.connection.sent[-1]["code"] == "token_expired"
    assert scene.connection.sent[-1]["path"] == "token"


def test_ordinary_refusals_do_not_count_as_guessing() -> None:
    scene = Scene(attempts_per_min=1)
    for code in ("name_taken", "name_too_long", "session_full", "session_finished", "busy"):
        scene.sessions.answers = [messages.error(code, "No.")]
        scene.join()
    assert scene.connection.close_reason is None


# -- the end -----------------------------------------------------------------------------------------


def test_leaving_closes_the_connection_and_gives_the_seat_back() -> None:
    scene = Scene()
    scene.seat()
    scene.say(t="leave")
    assert scene.connection.close_reason is CloseReason.LEFT
    scene.talk.disconnected()
    scene.talk.disconnected()
    assert scene.sessions.delivered[-1] == (SESSION, commands.Detach(scene.talk))
    assert scene.sessions.detached == 1


def test_a_disconnect_before_a_join_gives_back_no_seat() -> None:
    scene = Scene()
    scene.talk.disconnected()
    assert scene.sessions.delivered == []


def test_a_seat_that_is_offered_after_the_end_is_given_back() -> None:
    scene = Scene()
    scene.join()
    scene.talk.disconnected()
    assert scene.sessions.detached == 0
    scene.talk.push(joined())
    assert scene.sessions.delivered[-1] == (SESSION, commands.Detach(scene.talk))
    scene.talk.disconnected()
    assert scene.sessions.detached == 1


def test_when_the_session_ends_it_there_is_nothing_to_give_back() -> None:
    scene = Scene()
    scene.seat()
    scene.talk.close(CloseReason.KICKED)
    assert scene.connection.close_reason is CloseReason.KICKED
    scene.talk.disconnected()
    assert scene.sessions.detached == 0


def test_after_the_end_nothing_is_heard() -> None:
    scene = Scene()
    scene.seat()
    scene.talk.close(CloseReason.REPLACED)
    before = len(scene.sessions.delivered)
    scene.answer()
    scene.join()
    scene.say(t="leave")
    assert len(scene.sessions.delivered) == before
    assert scene.connection.close_reason is CloseReason.REPLACED


steps = st.lists(
    st.sampled_from(
        ["join", "token", "joined", "refused", "answer", "leave", "binary", "kick", "push", "gone", "garbage"]
    ),
    max_size=12,
)


@given(steps)
def test_whatever_happens_a_seat_is_given_back_once_unless_it_was_taken_away(order: list[str]) -> None:
    scene = Scene()
    asked = seated = False
    given_back = 0
    for step in itertools.chain(order, ["gone"]):
        match step:
            case "join" | "token":
                before = len(scene.sessions.delivered)
                if step == "join":
                    scene.join()
                else:
                    scene.rejoin(scene.tokens.issue(SESSION, "player", 7))
                asked |= len(scene.sessions.delivered) > before
            case "joined" if asked:
                asked, seated = False, True
                scene.talk.push(joined())
            case "refused" if asked:
                asked = False
                scene.talk.push(messages.busy())
            case "kick":
                asked = seated = False
                scene.talk.close(CloseReason.KICKED)
            case "push":
                scene.talk.push(messages.busy()) if seated else None
            case "answer":
                scene.answer()
            case "leave":
                scene.say(t="leave")
            case "binary":
                scene.talk.receive_binary()
            case "garbage":
                scene.talk.receive(b"\xff")
            case "gone":
                scene.talk.disconnected()
        if scene.sessions.detached > given_back:
            assert seated
            seated = False
            given_back += 1
    assert not seated


def test_an_answer_brings_its_trace_and_a_bad_one_is_none() -> None:
    scene = Scene()
    scene.deps = replace(scene.deps, tracing=Traced())
    scene.converse()
    scene.seat()
    for traceparent in (TRACEPARENT, TRACEPARENT.upper(), 7, None):
        scene.say(t="answer", id="a", question=1, choice=0, traceparent=traceparent)
    traces = [each.trace for _, each in scene.sessions.delivered if isinstance(each, commands.Answer)]
    assert traces == [Trace("ab" * 16, "cd" * 8), None, None, None]
    assert scene.connection.errors == []


def test_a_join_is_traced_from_its_receipt_to_the_reply_of_its_session() -> None:
    scene = Scene()
    tracing = Traced()
    scene.deps = replace(scene.deps, tracing=tracing)
    scene.converse()
    scene.say(t="join", code=CODE, name="Ada", traceparent=TRACEPARENT)
    scene.clock.at_ms += 40
    scene.talk.push(joined())
    scene.converse()
    scene.say(t="join", code=CODE, token="none", traceparent=TRACEPARENT)
    scene.say(t="join", code=CODE, role="spectator", traceparent=TRACEPARENT)
    scene.talk.disconnected()
    join, bad, left = tracing.spans
    assert (join.trace_id, join.parent_id, join.ended_ms - join.begun_ms) == ("ab" * 16, "cd" * 8, 40)
    assert (join.error, join.attributes["fanfare.player.number"]) == (None, 7)
    assert (bad.error, left.error) == ("token_invalid", "left")
    sent = scene.sessions.delivered[0][1]
    assert isinstance(sent, commands.Join)
    assert sent.trace == Trace("ab" * 16, join.span_id)
