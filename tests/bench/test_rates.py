"""The rates are measured, small: what was answered is counted, and what it costs is for people to judge."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
import pytest
from rich.console import Console

from bench import rates, rooms, wire
from bench.players import Clients
from bench.rates import AT_ONCE, NODE, Plan

SMALL = Plan(
    rates=(100, AT_ONCE),
    sessions=(3,),
    players=30,
    seconds=0.3,
    settings={"board": "live"},  # whose leaderboard is sent while people answer
    settle_s=0.05,
    rest_s=0.05,
    pin=False,
)


def test_every_answer_at_every_rate_is_acknowledged_and_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "missing", lambda name: f"install {name}")
    found = rates.measure(SMALL)
    assert found.stored == 3 * 30, "the first question, which counts for nothing, is stored as well"
    assert {(turn.server, turn.sessions, turn.rate) for turn in found.turns} == {
        (server, 3, rate) for server in (NODE, rooms.LOOP) for rate in (100, AT_ONCE)
    }
    for turn in found.turns:
        assert (turn.answers, turn.refused) == (30, 0)
        assert turn.net_us == pytest.approx(turn.cpu_us - turn.frames * found.frame_us[3])
        if turn.server == NODE:
            assert turn.frames > 0
            assert turn.commits is not None
            assert 0 < turn.commits * turn.answers <= turn.answers + 1
        else:
            assert turn.frames == 0, "the bare loop sends nothing but acks"
    console = Console(width=rates.WIDTH, record=True)
    console.print(rates.table(found, 3))
    shown = console.export_text()
    assert "all in 0.5 s" in shown
    assert shown.count("not installed") == 2
    for text in rates.plots(found, 3):
        assert len(ElementTree.fromstring(text).findall(".//*[@class='line c1']")) == 2


def test_rounds_are_shown_as_medians_and_refusals_are_added_up() -> None:
    turn = rates.Turn(NODE, 1, 100, 500, 1, 30.0, 30.0, None, 0.0, 1.0, 2.0, 0.0, 5.0)
    other = replace(turn, refused=2, cpu_us=50.0, net_us=40.0)
    [merged] = rates.merged([turn, other])
    assert merged.net == 35.0
    assert replace(turn, net_us=14.0).net is None, "where other frames cost more, it says nothing of answers"
    assert (merged.refused, merged.cpu_us, merged.net_us, merged.postgres_us) == (3, 40.0, 35.0, None)


class Heard:
    """The connections of a room, and what each was sent."""

    def __init__(self) -> None:
        self.room = rooms.Room(
            lambda connection, payload: self.sent.append((connection, orjson.loads(payload)))
        )
        self.sent: list[tuple[Any, dict[str, Any]]] = []

    def to(self, connection: str) -> list[dict[str, Any]]:
        found = [message for to, message in self.sent if to == connection]
        self.sent = [each for each in self.sent if each[0] != connection]
        return found


def test_a_room_acknowledges_an_answer_once_while_the_question_is_open() -> None:
    heard = Heard()
    host = heard.room.join("host", {"code": "1", "token": "x"})
    ann = heard.room.join("ann", {"code": "1", "name": "Ann"})
    answer = {"t": "answer", "id": "a", "question": 1, "choice": rooms.CORRECT}
    ann.take(answer)
    host.take({"t": "host", "id": "h", "do": "start"})
    ann.take(answer)
    ann.take(answer)
    host.take({"t": "host", "id": "h", "do": "close"})
    told = heard.to("ann")
    assert [each["t"] for each in told] == [
        "joined", "error", "question", "ack", "error", "result", "leaderboard"
    ]  # fmt: skip
    assert told[-1]["top"][0]["score"] == told[-2]["score"] > 0
    assert [each["t"] for each in heard.to("host")] == ["joined", "done", "done"]


def test_ws_is_looked_for_where_node_path_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NODE_PATH", str(tmp_path))
    assert rooms.missing(rooms.WS).startswith("npm install"), "an empty directory has no ws"


def test_a_ping_among_the_frames_does_not_hide_what_follows_it() -> None:
    ours, theirs = socket.socketpair()
    clients = Clients([ours])
    ping = b"\x89\x04abcd"
    data = wire.server_frame(b"one") + ping + ping + wire.server_frame(b"two")
    heard = []
    for part in (data[:6], data[6:12], data[12:]):
        theirs.send(part)
        clients.listen(1.0)
        heard.append(clients.take(0))
    assert heard == [[b"one"], [], [b"two"]]
    clients.close()
    theirs.close()
