"""Nobody learns what is right from what a node says while a question is open.

The probe that was seen in the wild: four throwaway players answer each their own choice, and whoever of them
has more points by now has told the fifth. Here four worlds differ in nothing but in which choice is right. In
each the four answer, and all that can be had of the node is written down, with the moment at which it came.
Until the close the four transcripts must be equal; after it they differ.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors.commands import Answer, Command, Host, Join, Rejoin, Watch
from tests.actors.world import Client, settle
from tests.http.edge import Edge, Played, Reply, edge
from tests.http.events import Stream, stream
from tests.http.test_elsewhere import elsewhere

PUPPETS = 4

OF_EVERYBODY = (
    "frames of a player who has answered",
    "frames of a player who has not",
    "frames of a spectator",
    "frames of the host",
    "events of a spectator",
    "events of a player",
    "events of the host",
    "acks over the WebSocket",
    "acks over HTTP",
    "acks of answers sent again",
    "acks of other answers sent after",
    "joined as a new player",
    "joined again",
    "joined as the host",
    "joined to watch",
    "resumed after the last question",
    "resumed as a spectator",
    "resumed as the host",
    "who joined over HTTP",
    "the session",
    "leaderboard, first",
    "leaderboard, all",
    "leaderboard around each",
    "players, for the host",
    "players, for an author",
    "results, for the host",
    "results.json, for an author",
    "results.csv, for the host",
    "sessions, for an author",
    "done of the host's commands",
    "who was removed",
    "readyz",
    "metrics",
    "logs",
)
"""Every way out of a node, as far as a session shows there."""

TELLING = frozenset(OF_EVERYBODY) - {
    "acks over the WebSocket",
    "acks over HTTP",
    "acks of answers sent again",
    "acks of other answers sent after",
    "who joined over HTTP",
    "sessions, for an author",
    "done of the host's commands",
    "readyz",
    "metrics",
    "logs",
}
"""Those by which a session with the board `live` gives the answer away: so the probe looks where it must."""


def quiz(right: int) -> dict[str, Any]:
    choices = [f"choice {n}" for n in range(PUPPETS)]
    first = {"type": "single", "text": "The first?", "choices": choices, "correct": choices[0]}
    return {
        "title": "Which one?",
        "scoring": {"streak": True},
        "questions": [first, {**first, "text": "The second?", "correct": choices[right]}],
    }


def plain(value: object) -> object:
    """Without tokens, and without the key that the host, and nobody else, is shown."""
    if isinstance(value, Mapping):
        kept = {name: plain(each) for name, each in value.items() if name != "token"}
        if kept.get("text") == "The second?":
            kept.pop("correct", None)
        return kept
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


class Probe:
    """Plays one session and writes down all that comes of it: by door, with the moment."""

    def __init__(self, e: Edge, clock: MockClock) -> None:
        self.e = e
        self.clock = clock
        self.told: dict[str, list[object]] = {door: [] for door in OF_EVERYBODY}
        self._listening: list[tuple[str, Client]] = []
        self._read: dict[Client, int] = {}

    def note(self, door: str, what: object) -> None:
        self.told[door].append((trio.current_time(), plain(what)))

    def http(self, door: str, reply: Reply) -> None:
        body = reply.json if reply.headers["Content-Type"] == "application/json" else reply.body
        self.note(door, (reply.status, body))

    async def sent(self, door: str, command: Callable[[Client], Command]) -> Client:
        """A command, and from then on all that its sender is told."""
        client = Client()
        self._listening.append((door, client))
        self.e.services.directory.deliver(self.session.id, command(client))
        await self.passes(0)
        return client

    async def passes(self, seconds: float) -> None:
        """Little by little, so that whatever is told has its moment."""
        for step in range(round(seconds * 16) + 1):
            if step:
                self.clock.jump(1 / 16)
            await settle()
            for door, client in self._listening:
                for frame in client.frames[self._read.get(client, 0) :]:
                    self.note(door, frame.message)
                self._read[client] = len(client.frames)

    def forget(self) -> None:
        for told in self.told.values():
            told.clear()

    async def follow(self, door: str, events: Stream) -> None:
        while (event := await events.next()) is not None:
            self.note(door, (event.id, event.message))

    # -- the session -----------------------------------------------------------------------------

    async def up_to_the_second_question(self, right: int, board: str) -> None:
        self.session = await self.e.session(quiz(right), board=board, early_close=False)
        self.puppets = [await self.session.join(f"Puppet {n}") for n in range(1, PUPPETS + 1)]
        self.probe = await self.session.join("Probe")
        self.bystander = await self.session.join("Bystander")
        await self.sent("frames of a player who has answered", lambda c: Rejoin(c, "player", 4))
        await self.sent("frames of a player who has not", lambda c: Rejoin(c, "player", 5))
        await self.sent("who was removed", lambda c: Rejoin(c, "player", 6))
        await self.sent("frames of a spectator", Watch)
        await self.sent("frames of the host", lambda c: Rejoin(c, "host"))
        await self.session.do("start")
        for player, choice in ((self.puppets[0], 0), (self.puppets[1], 0), (self.puppets[2], 1)):
            await self.passes(0.7)
            await self.session.answer(player, choice)
        await self.session.do("close")
        await self.passes(1)
        await self.session.do("next")
        await self.passes(1)

    async def the_four_answer(self) -> None:
        for number, puppet in enumerate(self.puppets, 1):
            await self.passes(0.6)
            if number % 2:
                self.http("acks over HTTP", await self.session.answer(puppet, number - 1, question=2))
            else:
                await self.sent("acks over the WebSocket", self.answering(number, number - 1))
        await self.passes(1.3)

    def answering(self, player: int, choice: int) -> Callable[[Client], Command]:
        at = self.e.clock.now_ms()
        return lambda client: Answer(client, player, "a", 2, choice, at)

    async def all_is_asked(self) -> None:
        e, session, url = self.e, self.session, self.session.url
        host, author = session.host_token, e.author_key
        for number in range(1, PUPPETS + 1):
            await self.sent("acks of answers sent again", self.answering(number, number - 1))
            await self.sent("acks of other answers sent after", self.answering(number, number % PUPPETS))
            again = await session.answer(self.puppets[number - 1], number % PUPPETS, question=2)
            self.http("acks of other answers sent after", again)
            token = self.puppets[number - 1]["token"]
            around = await e.get(f"{url}/leaderboard?top=1&around=me", token=token)
            self.http("leaderboard around each", around)
            await self.sent("joined again", lambda c, n=number: Rejoin(c, "player", n))  # type: ignore[misc]
        offset = (await e.get(url)).json["offset"]
        epoch = (await e.get(url)).json["epoch"]
        now = e.clock.now_ms()
        await self.sent(
            "resumed after the last question",
            lambda c: Rejoin(c, "player", 1, epoch=epoch, offset=offset - 1),
        )
        await self.sent("resumed as a spectator", lambda c: Watch(c, epoch=epoch, offset=offset))
        await self.sent("resumed as the host", lambda c: Rejoin(c, "host", epoch=epoch, offset=1))
        await self.sent("joined as a new player", lambda c: Join(c, "Late", now))
        self.note("who joined over HTTP", await session.join("Later"))
        await self.sent("joined to watch", Watch)
        await self.sent("joined as the host", lambda c: Rejoin(c, "host"))
        self.http("the session", await e.get(url))
        self.http("leaderboard, first", await e.get(f"{url}/leaderboard?top=1"))
        self.http("leaderboard, all", await e.get(f"{url}/leaderboard?top=1000"))
        self.http("players, for the host", await e.get(f"{url}/players", token=host))
        self.http("players, for an author", await e.get(f"{url}/players?after=1", token=author))
        self.http("results, for the host", await e.get(f"{url}/results", token=host))
        self.http("results.json, for an author", await e.get(f"{url}/results.json", token=author))
        self.http("results.csv, for the host", await e.get(f"{url}/results.csv", token=host))
        self.http("sessions, for an author", await e.get("/api/sessions", token=author))
        self.http("readyz", await e.get("/readyz"))
        for do, more in (("pause", {}), ("resume", {}), ("lock", {"on": True}), ("kick", {"player": 6})):
            self.http("done of the host's commands", await session.do(do, **more))
            await self.sent("done of the host's commands", lambda c: Host(c, "h", "start"))
        await self.passes(3)
        metrics = (await e.get("/metrics")).body.decode().splitlines()
        of_play = [line for line in metrics if line.startswith("fanfare_") and "_loop_" not in line]
        self.note("metrics", [line for line in of_play if "_garbage_" not in line])


@asynccontextmanager
async def alone() -> AsyncIterator[Edge]:
    async with edge() as e:
        yield e


@asynccontextmanager
async def by_way_of_another_node() -> AsyncIterator[Edge]:
    async with elsewhere() as (e, _):
        yield e


Somewhere = Callable[[], Any]


async def transcript(
    somewhere: Somewhere, clock: MockClock, caplog: pytest.LogCaptureFixture, right: int, board: str
) -> tuple[dict[str, list[object]], dict[str, list[object]]]:
    """What is told while the second question is open, and at its close."""
    began = trio.current_time()
    async with somewhere() as e, trio.open_nursery() as nursery:
        probe = Probe(e, clock)
        await probe.up_to_the_second_question(right, board)
        session: Played = probe.session

        async def listen(who: str, token: str | None) -> None:
            events = await nursery.start(_stream, e, f"{session.url}/events", token)
            nursery.start_soon(probe.follow, f"events of {who}", events)

        await listen("a spectator", None)
        await listen("a player", probe.puppets[1]["token"])
        await probe.passes(0.5)
        probe.forget()
        caplog.clear()
        await probe.the_four_answer()
        await listen("the host", session.host_token)  # in place of the host's WebSocket
        await probe.all_is_asked()
        probe.note("logs", [f"{each.name} {each.getMessage()}" for each in caplog.records])
        before = {
            door: [(round(at - began, 3), what) for at, what in told]  # type: ignore[misc,has-type]
            for door, told in probe.told.items()
        }
        probe.forget()
        await session.do("close")
        await probe.passes(1)
        after = {door: list(told) for door, told in probe.told.items()}
        nursery.cancel_scope.cancel()
    return before, after


async def _stream(e: Edge, url: str, token: str | None, task_status: trio.TaskStatus[Stream]) -> None:
    async with stream(e, url, token=token) as events:
        task_status.started(events)
        await trio.sleep_forever()


@pytest.mark.parametrize("somewhere", [alone, by_way_of_another_node])
async def test_until_the_close_nothing_tells_which_answer_is_right(
    somewhere: Somewhere, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "engine")
    caplog.set_level(logging.DEBUG, "server")
    worlds = [await transcript(somewhere, mock_clock, caplog, right, "at_close") for right in range(PUPPETS)]
    first, at_close = worlds[0]
    assert all(told for told in first.values()), [door for door, told in first.items() if not told]
    for before, after in worlds[1:]:
        for door in OF_EVERYBODY:
            assert before[door] == first[door], door
        assert after["frames of a spectator"] != at_close["frames of a spectator"]


async def test_a_live_board_gives_the_answer_away(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    (one, _), (other, _) = [await transcript(alone, mock_clock, caplog, right, "live") for right in (0, 3)]
    assert {door for door in OF_EVERYBODY if one[door] != other[door]} == TELLING
