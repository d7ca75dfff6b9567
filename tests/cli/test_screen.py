"""What a terminal shows of a session: the scene, its picture, its plain lines, and the host's keys."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
import trio
from rich.console import Console

from loadtest.client.player import Gone, HostClient
from server.cli.play.host_console import HostConsole
from server.cli.play.session_view import SessionView
from server.cli.play.terminal_view import TerminalView, picture, right_answer, spaced
from tests.loadtest.scripted import (
    Message,
    Peer,
    ScriptedServer,
    error,
    finished,
    joined,
    leaderboard,
    progress,
    question,
    reveal,
)
from tests.loadtest.scripted import (
    picture as state_of,
)

BOARD = ((1, "Ada", 900), (2, "Björn", 800), (3, "Chloé", 700))


def entries(*top: tuple[int, int, int]) -> list[Message]:
    """(rank, id, score)"""
    return [{"rank": rank, "id": number, "name": f"P{number}", "score": score} for rank, number, score in top]


def drawn(view: SessionView, now: float = 0.0) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    console.print(picture(view, now, "Enter: next"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def told(*messages: Message) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    screen = TerminalView(SessionView("123456"), console)
    for message in messages:
        screen.hear(message)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_scene_follows_a_question_to_its_reveal() -> None:
    view = SessionView("123456")
    view.hear(joined(), 0.0)
    assert (view.phase, view.title, view.remaining_s(0.0)) == ("lobby", "Capitals", None)
    view.hear(question(1), 10.0)
    assert view.remaining_s(15.0) == 15.0
    assert view.remaining_s(99.0) == 0.0
    view.hear(leaderboard(1, *BOARD, players=3, answered=2), 16.0)
    assert (view.players, view.answered) == (3, 2)
    view.hear(progress(1, 1, 3, players=4), 17.0)
    assert (view.players, view.answered) == (4, 3)
    view.hear(reveal(2), 30.0)
    assert (view.phase, view.remaining_s(30.0)) == ("reveal", None)


def test_a_pause_stops_the_countdown_and_a_resume_goes_on() -> None:
    view = SessionView("123456")
    view.hear(question(1), 0.0)
    state: dict[str, Any] = {"t": "state", "offset": 2, "phase": "paused", "locked": True, "number": 1}
    view.hear(state | {"remaining_ms": 15_000}, 5.0)
    assert view.remaining_s(5.0) is None
    assert view.locked
    view.hear(state | {"phase": "question", "remaining_ms": 15_000}, 60.0)
    assert view.remaining_s(61.0) == 14.0


def test_ranks_are_told_as_they_moved_since_the_question_opened() -> None:
    view = SessionView("123456")
    view.hear(leaderboard(0) | {"top": entries((1, 1, 0), (1, 2, 0))}, 0)
    view.hear(question(1), 0)
    view.hear(leaderboard(1) | {"top": entries((1, 2, 900), (2, 1, 800))}, 0)
    assert [line.moved for line in view.top] == [0, 0]
    view.hear(question(3, 2), 0)
    view.hear(leaderboard(3) | {"top": entries((1, 3, 1900), (2, 1, 1800), (3, 2, 1700))}, 0)
    assert [line.moved for line in view.top] == [None, 0, -2]


def test_the_picture_shows_question_countdown_and_board() -> None:
    view = SessionView("123456")
    view.hear(joined(), 0.0)
    assert "Join with the code 123 456" in drawn(view)
    view.hear(question(1), 0.0)
    view.hear(leaderboard(1, *BOARD, players=3, answered=1), 0.0)
    shown = drawn(view, 5.0)
    for words in ("1 of 3", "What is the capital of Portugal?", "15 s left, 1 answer of 3", "Björn", "Enter"):
        assert words in shown
    view.hear(reveal(2), 0.0)
    assert "Right: Lisbon" in drawn(view)
    view.hear(finished(3) | {"podium": entries((1, 1, 900))}, 0.0)
    assert "Podium" in drawn(view)


async def test_plain_lines_tell_the_story_once() -> None:
    lines = told(
        joined(),
        question(1),
        leaderboard(1, *BOARD),
        reveal(2),
        leaderboard(2, *BOARD),
        leaderboard(2, *BOARD),
        {"t": "state", "offset": 3, "phase": "reveal", "locked": True, "number": 1, "remaining_ms": None},
        finished(4) | {"podium": entries((1, 1, 900))},
    )
    assert lines == [
        "Capitals: session 123456, 1 player, phase lobby",
        "Question 1 of 3: What is the capital of Portugal? (20 s)",
        "  Right: Lisbon",
        "  Porto  0; Lisbon  1; Coimbra  0",
        "    1. Ada                            900",
        "    2. Björn                          800",
        "    3. Chloé                          700",
        "  now: reveal, locked",
        "Podium",
        "    1. P1                             900",
    ]


async def test_a_late_viewer_is_told_the_open_question() -> None:
    lines = told(joined(state=state_of("question", number=1, question=question(0))))
    assert lines[-1].startswith("Question 1 of 3")


async def test_nothing_from_the_network_reaches_the_terminal_as_a_command() -> None:
    evil = question(1) | {"text": "\x1b[2Jgone\x07", "choices": ["\x9b31m", "b"]}
    view = SessionView("123456")
    view.hear(evil, 0.0)
    view.hear(leaderboard(1, (1, "\x1b]0;title\x07[bold]Ada", 5)), 0.0)
    for text in (drawn(view), "\n".join(told(evil))):
        assert not {"\x1b", "\x07", "\x9b"} & set(text)
    assert "[bold]Ada" in drawn(view)


@pytest.mark.parametrize(
    ("kind", "correct", "words"),
    [
        ("single", 1, "Lisbon"),
        ("multiple", [0, 2], "Porto, Coimbra"),
        ("true_false", False, "false"),
        ("text", ["Oslo", "Kristiania"], "Oslo or Kristiania"),
        ("numeric", 1989, "1989"),
        ("numeric", 2.5, "2.5"),
        ("numeric", 12_345_678, "12345678"),
    ],
)
def test_the_right_answer_in_words(kind: str, correct: object, words: str) -> None:
    assert right_answer(question(1, type=kind), reveal(2, correct=correct)) == f"Right: {words}"


def test_a_code_is_spaced_as_it_is_read_aloud() -> None:
    assert spaced("123456") == "123 456"


# -- the host's keys ---------------------------------------------------------------------------------


async def test_keys_become_the_hosts_commands(autojump_clock: object) -> None:
    """Enter goes on from wherever the session stands; finishing takes two presses."""
    heard: list[Message] = []
    phases = iter(["question", "reveal", "question", "paused", "question", "question", "reveal"])

    async def scene_of(peer: Peer) -> None:
        await peer.hear()
        await peer.say(joined(token="host", player=None, name=None))
        offset = 0
        while (command := await peer.hear())["t"] == "host":
            heard.append(command)
            offset += 1
            if command["do"] == "finish":
                await peer.say(finished(offset))
                break
            phase, locked = next(phases), command["do"] == "lock"
            state: Message = {"t": "state", "offset": offset, "phase": phase, "locked": locked}
            await peer.say(state | {"number": 1, "remaining_ms": None})
            await peer.say({"t": "done", "id": command["id"], "do": command["do"], "phase": phase})
        await peer.silence()

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [scene_of])
        view = SessionView("123456")

        def hear(message: Message) -> None:
            view.hear(message, trio.current_time())

        client = HostClient(
            "ws://x/ws", "123456", rng=random.Random(1), token="host", listener=hear, connect=server.connect
        )
        nursery.start_soon(client.run)
        await client.arrived.wait()
        console = HostConsole(client, view)
        for key in "\n\n\npplsxs":
            await console.press(key)
        assert "Press s again" in console.footer, "another key came between"
        for key in "sxf":
            await console.press(key)
        assert "Press f again" in console.footer
        with pytest.raises(Gone):
            await console.press("f")

    assert [command["do"] for command in heard] == [
        "start",
        "close",
        "next",
        "pause",
        "resume",
        "lock",
        "skip",
        "finish",
    ]
    assert heard[6]["expect"] == {"number": 1, "phase": "question"}
    assert heard[5]["on"] is True
    assert [command.get("expect") for command in heard[:4]] == [
        {"number": 0, "phase": "lobby"},
        {"number": 1, "phase": "question"},
        {"number": 1, "phase": "reveal"},
        None,
    ]


async def test_a_refused_command_is_told_below_the_picture(autojump_clock: object) -> None:
    async def scene_of(peer: Peer) -> None:
        await peer.hear()
        await peer.say(joined(token="host", player=None, name=None))
        await peer.say(error("illegal_move", await peer.hear()), finished(1))
        await peer.silence()

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [scene_of])
        client = HostClient("ws://x/ws", "123456", rng=random.Random(1), token="host", connect=server.connect)
        nursery.start_soon(client.run)
        await client.arrived.wait()
        console = HostConsole(client, SessionView("123456"))
        await console.press("\n")
        assert "start: This is illegal_move." in console.footer


async def test_the_host_lets_players_in_from_the_terminal(autojump_clock: object) -> None:
    heard: list[Message] = []

    async def scene_of(peer: Peer) -> None:
        await peer.hear()
        await peer.say(joined(token="host", player=None, name=None))
        waiting = [{"id": number, "name": f"Player {number}"} for number in range(1, 11)]
        await peer.say({"t": "waiting_list", "players": waiting, "count": 10})
        for approval in (True, False, False, False):
            heard.append(command := await peer.hear())
            state: Message = {"t": "state", "offset": len(heard), "phase": "lobby", "locked": False}
            await peer.say(state | {"approval": approval, "number": 0, "remaining_ms": None})
            await peer.say({"t": "done", "id": command["id"], "do": command["do"], "phase": "lobby"})
        await peer.silence()

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [scene_of])
        view = SessionView("123456")
        client = HostClient(
            "ws://x/ws",
            "123456",
            rng=random.Random(1),
            token="host",
            listener=lambda message: view.hear(message, trio.current_time()),
            connect=server.connect,
        )
        nursery.start_soon(client.run)
        await client.arrived.wait()
        console = HostConsole(client, view)
        await trio.testing.wait_all_tasks_blocked()
        assert "Waiting to join: Player 1, " in console.footer
        assert "Player 8 and 2 more" in console.footer
        for key in "ddar":
            await console.press(key)
        view.waiting = {"players": [], "count": 0}
        await console.press("a")
        nursery.cancel_scope.cancel()
    assert [(command["do"], command.get("on")) for command in heard] == [
        ("approval", True),
        ("approval", False),
        ("admit", None),
        ("refuse", None),
    ]
