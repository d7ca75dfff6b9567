"""What a player of the swarm does on the wire, against a server that is led by hand."""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import websocket
from loadtest.chaos.waves import no_end
from loadtest.runs.histogram import Histogram
from loadtest.swarm.connection import Link, Target, whole_texts
from loadtest.swarm.crowd import Crowd, CrowdPlan, Seats
from loadtest.swarm.player import Habits
from tests.loadtest import scripted
from tests.loadtest.peers import Listener, Message, Peer, VirtualLoop

HABITS = Habits(
    even=False,
    think_s=2.0,
    skill=1.0,
    silent_share=0.0,
    duplicate_share=0.0,
    drop_share=0.0,
    stall_share=0.0,
    stall_s=0.0,
    patience_s=60.0,
)

Answerer = Callable[[Peer, Message], None]


def welcome(peer: Peer, message: Message, **more: Any) -> None:
    state = more.pop("state", scripted.picture())
    peer.say(scripted.joined(player=1, token="t", name=message.get("name", "P1"), state=state, **more))


class Play:
    """Players, and the server they talk to. `on` answers their messages; at first it lets them in."""

    def __init__(
        self,
        players: int = 1,
        sources: Sequence[str] = ("127.0.1.1",),
        others: Sequence[str] = (),
        **habits: Any,
    ) -> None:
        self.loop = VirtualLoop()
        self.on: Answerer = self.let_in
        self.listener = Listener(self.loop, lambda peer, message: self.on(peer, message))
        plan = CrowdPlan(
            1,
            replace(HABITS, **habits),
            self.loop.time_s,
            10.0,
            list(sources),
            [("1", "0")] * 3,
            [Seats(0, "123456", [self.listener.url, *others], 1, players)],
        )
        self.crowd = Crowd(CrowdPlan.from_dict(plan.to_dict()), self.loop)
        self.crowd.begin()

    def let_in(self, peer: Peer, message: Message) -> None:
        if message["t"] == "join":
            welcome(peer, message)
        elif message["t"] == "answer":
            peer.say(scripted.ack(message))

    @property
    def peer(self) -> Peer:
        return self.listener.peers[-1]

    @property
    def ledger(self) -> Any:
        return self.crowd.players[0].ledger

    def run(self, seconds: float = 1.0) -> None:
        self.loop.run_for(seconds)

    def say(self, *messages: Message) -> None:
        self.peer.say(*messages)
        self.run(0.1)


@pytest.fixture
def play() -> Iterator[Callable[..., Play]]:
    made: list[Play] = []

    def make(**more: Any) -> Play:
        made.append(Play(**more))
        return made[-1]

    yield make
    for each in made:
        for player in each.crowd.players:
            player.cut()
        each.listener.end()
        each.loop.close()


Make = Callable[..., Play]


def test_a_session_from_the_join_to_the_podium(play: Make) -> None:
    one = play(live=True)
    one.run()
    assert one.peer.heard == [{"t": "join", "code": "123456", "name": "P1"}]
    one.say(scripted.question(1, 1))
    one.run(20)
    assert one.peer.heard[1] == {"t": "answer", "id": "1", "question": 1, "choice": 1}
    board = scripted.leaderboard(1, (1, "P1", 900))
    one.say(
        board,
        scripted.reveal(2, 1),
        scripted.result(1, 900, 900, correct=True),
        scripted.finished(3, 900, 1),
    )
    ledger = one.ledger
    assert ledger.ended == "finished"
    assert ledger.faults == ledger.gaps == ledger.early == []
    assert list(ledger.acks) == [1]
    assert ledger.final == (1, 900)
    assert ledger.top == board["top"]
    assert one.crowd.over
    taken = one.crowd.take()
    assert (taken["joined"], taken["acks"], taken["open"], taken["reconnects"]) == (1, 1, 0, 0)
    assert taken["board"]["counts"], "the leaderboard with its points was measured"


def test_what_players_that_are_left_are_doing_is_told(play: Make) -> None:
    one = play(players=3)
    one.on = lambda peer, message: welcome(peer, message) if message.get("name") == "P1" else None
    one.run()
    assert one.crowd.left() == {
        "code 123456, lobby: waits for `joined`": 2,
        "code 123456, lobby: in, waits for what comes next": 1,
    }
    one.listener.peers[0].say(scripted.question(1, 1))
    one.run(20)
    one.crowd.players[1].cut()
    assert one.crowd.left() == {
        "code 123456, question 1: in, waits for the ack of 1": 1,
        "code 123456, lobby: away": 1,
        "code 123456, lobby: waits for `joined`": 1,
    }
    assert no_end(one.crowd.left()).startswith(
        "3 players have come to no end (1 with code 123456, question 1: "
    )
    assert no_end({f"thing {n}": 1 for n in range(9)}).endswith("; 1 with thing 4; …)")
    one.listener.peers[0].say(scripted.ack({"id": "1", "question": 1}), scripted.finished(2, 900, 1))
    one.run(0.1)
    assert sum(one.crowd.left().values()) == 2


def test_a_leaderboard_that_shows_points_before_the_result_is_noted(play: Make) -> None:
    one = play()
    one.run()
    one.say(scripted.question(1, 1), scripted.leaderboard(1, (1, "P1", 0)), scripted.progress(1, 1, 1))
    one.run(20)
    assert one.ledger.early == []
    one.say(scripted.leaderboard(1, (1, "P1", 900)))
    assert one.ledger.early == [(0, 900)]
    one.say(
        scripted.reveal(2, 1),
        scripted.result(1, 900, 900, correct=True),
        scripted.leaderboard(2, (1, "P1", 900)),
    )
    assert one.ledger.early == [(0, 900)]
    assert one.ledger.gaps == []
    one.say(scripted.progress(4, 2, 0))
    assert one.ledger.gaps == [(1, 3, 5)], "it tells up to where broadcasts were sent"


def test_an_answer_without_an_ack_is_sent_again_after_a_cut(play: Make) -> None:
    one = play()
    one.run()
    one.on = lambda peer, message: None
    one.say(scripted.question(1, 1))
    one.run(18)
    assert one.ledger.unsettled == {1}
    first = one.peer
    one.on = lambda peer, message: (
        welcome(peer, message, state=None, epoch=1, offset=1)
        if message["t"] == "join"
        else peer.say(scripted.ack(message))
    )
    first.cut()
    one.run(5)
    assert one.peer is not first
    assert one.peer.heard == [
        {"t": "join", "code": "123456", "token": "t", "epoch": 1, "offset": 1},
        first.heard[1],
    ]
    assert one.ledger.acks.keys() == {1}
    assert one.ledger.unsettled == set()
    taken = one.crowd.take()
    assert taken["reconnects"] == 1
    assert taken["ack"]["max_s"] > 1, "it counts from the moment it was meant for"


@pytest.mark.parametrize(
    ("code", "reason", "comes_back"),
    [
        (4006, "slow_consumer", True),
        (4009, "moved", True),
        (4010, "shutdown", True),
        (4002, "kicked", False),
        (4001, "replaced", False),
    ],
)
def test_endings_as_the_protocol_has_them(play: Make, code: int, reason: str, comes_back: bool) -> None:
    one = play()
    one.run()
    one.peer.close(code, reason)
    one.run(4)
    assert len(one.listener.peers) == (2 if comes_back else 1)
    assert one.ledger.ended == (None if comes_back else reason)
    assert one.crowd.take()["ends"] == {reason: 1}


def test_answers_that_are_spread_evenly_come_at_any_moment(play: Make) -> None:
    one = play(even=True)
    one.run()
    came_s: list[float] = []

    def note(peer: Peer, message: Message) -> None:
        came_s.append(one.loop.time_s - asked_s)
        peer.say(scripted.ack(message))

    one.on = note
    for number in (1, 2, 3):
        asked_s = one.loop.time_s
        one.say(scripted.question(number, number))
        one.run(20)
    assert len(came_s) == 3
    assert all(0 <= each <= 18.1 for each in came_s)
    assert max(came_s) - min(came_s) > 1


def test_the_time_between_leaderboards_is_counted_once_for_all_who_get_one(play: Make) -> None:
    one = play()
    one.run()
    board = scripted.leaderboard(0)
    one.say(board, board, board | {"tick_ms": 1000, "players": 2})
    tick = one.crowd.take()["tick"]
    assert sum(count for _, count in tick["counts"]) == 2
    assert tick["max_s"] == 1


def test_gaps_are_noted_and_repeats_are_not(play: Make) -> None:
    one = play()
    one.run()
    one.say(scripted.question(1, 1), scripted.question(1, 1), scripted.reveal(3, 1))
    assert one.ledger.gaps == [(1, 2, 3)]
    one.say(scripted.leaderboard(5))
    assert one.ledger.gaps == [(1, 2, 3), (1, 4, 6)]


def test_one_who_is_told_busy_asks_again(play: Make) -> None:
    one = play()
    one.run()
    replies = iter([scripted.error("busy", {"id": "1"}), scripted.ack({"id": "1", "question": 1})])
    one.on = lambda peer, message: peer.say(next(replies))
    one.say(scripted.question(1, 1))
    one.run(20)
    assert one.ledger.acks.keys() == {1}
    assert one.crowd.take()["refused"] == {"busy": 1}


def test_a_refused_answer_is_in_the_ledger(play: Make) -> None:
    one = play()
    one.run()
    one.on = lambda peer, message: peer.say(scripted.error("late", message))
    one.say(scripted.question(1, 1))
    one.run(20)
    assert one.ledger.refused == {1: "late"}
    assert one.ledger.unsettled == set()


def test_a_name_that_its_own_lost_join_took(play: Make) -> None:
    one = play()
    one.on = lambda peer, message: peer.cut()
    one.run(3.5)
    one.on = lambda peer, message: (
        peer.say(scripted.error("name_taken")) if message["name"] == "P1" else welcome(peer, message)
    )
    one.run(5)
    assert one.ledger.name.startswith("P1 ")
    assert one.ledger.player == 1


@pytest.mark.parametrize("status", [b"503 Service Unavailable", b"408 Request Timeout", b"429 Too Many"])
def test_a_full_server_is_tried_again_and_a_refusal_is_not(play: Make, status: bytes) -> None:
    one = play()
    one.listener.refuse_with = b"HTTP/1.1 " + status + b"\r\n\r\n"
    one.run()
    one.listener.refuse_with = None
    one.run(10)
    assert one.ledger.player == 1
    other = play()
    other.listener.refuse_with = b"HTTP/1.1 403 Forbidden\r\n\r\n"
    other.run(10)
    assert other.ledger.ended == "http_403"


def test_patience_ends(play: Make) -> None:
    one = play(patience_s=20.0)
    one.listener.refuse_with = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"
    one.run(60)
    assert one.ledger.ended == "unreachable"
    assert one.crowd.over


@pytest.fixture
def listeners() -> Iterator[Callable[[Play], Listener]]:
    """Makes another node, which at first lets in whoever comes."""
    made: list[Listener] = []

    def make(one: Play) -> Listener:
        made.append(Listener(one.loop, one.let_in))
        return made[-1]

    yield make
    for each in made:
        each.end()


Another = Callable[[Play], Listener]


def moved(to: Listener, after_ms: int = 500) -> Message:
    return {"t": "moved", "url": to.url, "after_ms": after_ms}


def test_a_join_at_the_wrong_node_is_sent_on(play: Make, listeners: Another) -> None:
    one = play()
    owner = listeners(one)
    one.on = lambda peer, message: (peer.say(moved(owner, 0)), peer.close(4009, "moved"))
    one.run()
    assert owner.peers[0].heard == [{"t": "join", "code": "123456", "name": "P1"}]
    assert one.peer.closed_by_client
    taken = one.crowd.take()
    assert (taken["joined"], taken["moved"], taken["handed"], taken["ends"]) == (1, 1, 0, {})
    assert one.ledger.place == owner.url.removeprefix("ws://").removesuffix("/ws")


def test_moved_in_the_midst_goes_on_where_it_stood_and_answers_there(play: Make, listeners: Another) -> None:
    one = play()
    owner = listeners(one)
    one.run()
    first = one.peer
    one.on = lambda peer, message: None
    one.say(scripted.question(1, 1))
    one.run(18)
    one.say(moved(owner))
    assert one.crowd.take()["open"] == 0
    assert not first.gone, "the server ends the connection, and it has not yet"
    first.close(4009, "moved")
    one.on = lambda peer, message: (
        welcome(peer, message, state=None, epoch=1, offset=1)
        if message["t"] == "join"
        else peer.say(scripted.ack(message))
    )
    one.run(2)
    assert first.closed_by_client
    assert owner.peers[0].heard == [
        {"t": "join", "code": "123456", "token": "t", "epoch": 1, "offset": 1},
        first.heard[1],
    ]
    assert one.ledger.acks.keys() == {1}
    assert one.ledger.gaps == one.ledger.faults == []
    taken = one.crowd.take()
    assert (taken["handed"], taken["reconnects"], taken["ends"], taken["open"]) == (1, 0, {}, 1)


def test_a_server_that_does_not_close_after_moved_is_left_in_time(play: Make, listeners: Another) -> None:
    one = play()
    owner = listeners(one)
    one.run()
    one.say(moved(owner), moved(owner))
    one.run(2)
    assert one.peer.closed_by_client
    assert len(owner.peers) == 1


def test_a_node_that_cannot_be_reached_is_left_for_one_known_before(play: Make) -> None:
    one = play()
    one.run()
    one.on = lambda peer, message: welcome(peer, message, epoch=2)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        one.say({"t": "moved", "url": f"ws://127.0.0.1:{nobody.getsockname()[1]}/ws", "after_ms": 0})
        one.run(5)
    assert len(one.listener.peers) == 2
    taken = one.crowd.take()
    assert (taken["reconnects"], taken["ends"]) == (1, {"Connection refused": 1})
    assert one.ledger.faults == []


def test_players_begin_anywhere_and_leave_a_node_that_does_not_take_them(play: Make) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        one = play(players=40, others=[f"ws://127.0.0.1:{nobody.getsockname()[1]}/ws"])
        one.run(10)
    taken = one.crowd.take()
    assert taken["joined"] == 40
    assert 5 < taken["ends"]["Connection refused"] < 35, "about half of them began at the other"


def test_moved_in_a_circle_slows_down(play: Make) -> None:
    one = play(patience_s=20.0)
    one.on = lambda peer, message: peer.say(moved(one.listener, 0))
    one.run(60)
    assert one.ledger.ended == "unreachable"
    assert 9 <= len(one.listener.peers) < 20


def test_what_a_node_takes_with_it_is_told_of_its_own_players_only(play: Make, listeners: Another) -> None:
    one = play(players=2)
    other = listeners(one)
    one.run()
    stays, goes = one.crowd.players
    one.listener.peers[0].say(moved(other, 0))
    one.run(1)
    one.on = lambda peer, message: None
    goes_peer = one.listener.peers[1]
    goes_peer.say(scripted.question(1, 1))
    one.run(18)
    assert one.crowd.mark(0, one.listener.url) == 1
    one.crowd.struck(0, one.loop.time_s)
    goes_peer.cut()
    one.on = lambda peer, message: (
        welcome(peer, message, state=None, epoch=1, offset=1)
        if message["t"] == "join"
        else peer.say(scripted.ack(message))
    )
    one.run(5)
    other.peers[0].say(scripted.question(1, 1))
    one.run(19)
    told = one.crowd.faults()["0"]
    back, away, ack = (Histogram.from_dict(told[name]) for name in ("back", "away", "ack"))
    assert (told["affected"], back.count, away.count, ack.count) == (1, 1, 1, 1)
    assert 0.5 <= back.max_s <= 3.1
    assert away.max_s > back.max_s, "it waited for an ack when the connection was lost"
    assert ack.max_s >= away.max_s
    assert told["first_ack_at"] is not None
    assert Histogram.from_dict(one.crowd.take()["beside"]).count == 1
    assert stays.ledger.acks.keys() == goes.ledger.acks.keys() == {1}


def test_when_the_first_and_the_last_heard_of_a_question_and_of_the_end(play: Make) -> None:
    one = play(players=2, silent_share=1.0)
    one.run()
    began_s = one.loop.time_s
    for peer in one.listener.peers:
        peer.say(scripted.question(1, 1))
        one.run(3)
    for peer in one.listener.peers:
        peer.say(scripted.finished(2))
        one.run(1)
    (told,) = one.crowd.spreads()
    assert (told["session"], told["answered_at"]) == (0, None)
    question, end = told["spreads"]
    assert (question[0], question[3], end[0], end[3]) == (1, 2, 0, 2)
    assert question[1] == pytest.approx(began_s, abs=0.1)
    assert question[2] - question[1] == pytest.approx(3, abs=0.1)
    assert end[2] - end[1] == pytest.approx(1, abs=0.1)


def test_a_slow_one_stops_reading_for_a_while(play: Make) -> None:
    one = play(stall_share=1.0, stall_s=30.0, silent_share=1.0)
    one.run()
    one.say(scripted.question(1, 1))
    one.say(scripted.leaderboard(1, (1, "P1", 5)))
    one.run(20)
    assert one.ledger.top is None
    one.run(20)
    assert one.ledger.top is not None


def test_players_come_from_all_addresses_in_turn(play: Make) -> None:
    one = play(players=4, sources=["127.0.1.1", "127.0.1.2"])
    one.run()
    assert sorted(peer.address for peer in one.listener.peers) == 2 * ["127.0.1.1"] + 2 * ["127.0.1.2"]


def test_all_are_cut_at_once_and_come_back(play: Make) -> None:
    one = play()
    one.run()
    one.crowd.cut_all()
    assert one.crowd.take()["open"] == 0
    one.run(4)
    assert one.crowd.take()["open"] == 1
    assert one.crowd.take()["ends"] == {"cut": 1}


def test_a_connection_that_is_over_leaves_nothing_for_the_garbage_collector(play: Make) -> None:
    one = play()
    one.run()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            one.peer.raw(websocket.encode_frame(websocket.PING, b"hi")[:1])
            one.run(0.1)
            one.crowd.cut_all()
            one.run(4)
        assert one.crowd.take()["reconnects"] == 3
        assert sum(isinstance(each, Link) for each in gc.get_objects()) == 1
    finally:
        gc.enable()


def test_frames_in_pieces_and_control_frames(play: Make) -> None:
    one = play()
    one.run()
    frame = websocket.encode_text_frame(b'{"t":"leaderboard","offset":0,"top":[],"tick_ms":250}')
    for byte in websocket.encode_frame(websocket.PING, b"hi") + frame:
        one.peer.raw(bytes([byte]))
        one.run(0.01)
    assert one.peer.pongs == [b"hi"]
    assert one.ledger.top == []
    assert one.crowd.take()["ends"] == {}


def test_what_is_no_message_is_a_fault(play: Make) -> None:
    one = play()
    one.run()
    one.peer.raw(websocket.encode_text_frame(b"[1]") + websocket.encode_text_frame(b"{"))
    one.run(0.1)
    assert len(one.ledger.faults) == 2


def test_a_wrong_handshake_is_no_connection(play: Make) -> None:
    one = play()
    one.listener.refuse_with = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n"
    one.run()
    assert one.crowd.take()["ends"] == {"a wrong Sec-WebSocket-Accept": 1}


@given(st.lists(st.binary(max_size=200), max_size=5), st.binary(max_size=20), st.integers(0, 1000))
def test_whole_texts_are_what_the_parser_would_give(payloads: list[bytes], rest: bytes, cut: int) -> None:
    texts = [payload.hex().encode() for payload in payloads]
    data = b"".join(map(websocket.encode_text_frame, texts))[:cut] + rest
    found, end = whole_texts(data)
    if not all(payload.isascii() for payload in found):
        return  # of what the cut has made of the rest, the parser would ask whether it is UTF-8
    parser = websocket.Parser(masked=False, message_bytes_max=10_000)
    parser.feed(data[:end])
    assert [parser.next_event() for _ in found] == [(websocket.TEXT, payload) for payload in found]
    assert parser.clean


@pytest.mark.parametrize("url", ["wss://127.0.0.1/ws", "http://127.0.0.1/", "ws:///ws"])
def test_only_plain_websockets_are_targets(url: str) -> None:
    with pytest.raises(ValueError, match="no ws://"):
        Target.of(url)
