"""Whole conversations with a node, as `docs/conversations.md` shows them.

`python -m tests.e2e.conversations` writes them there.

A host, two players and a spectator go through one session, and a player through another one at her own pace,
over the realtime port of a node with PostgreSQL.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
import trio

from loadtest.client.connection import Wire, WireClosed, open_wire
from tests.e2e.node import running_node

PAGE: Final = Path(__file__).parents[2] / "docs" / "conversations.md"
PATIENCE_S: Final = 20.0

QUIZ: Final = {
    "title": "Two capitals",
    "questions": [
        {
            "type": "single",
            "text": "What is the capital of Portugal?",
            "choices": ["Porto", "Lisbon", "Coimbra"],
            "correct": "Lisbon",
            "time_limit_s": 20,
        },
        {"type": "text", "text": "And that of Norway?", "accept": ["Oslo"], "time_limit_s": 20},
    ],
}
SETTINGS: Final = {"get_ready_ms": 200, "reading_ms": 200, "approval": False}
ALONE: Final = {"pace": "self"}

ANY_TIME: Final = frozenset({"leaderboard", "progress", "roster", "waiting_list", "health"})
"""Come at the pace of the tick: how many there are, and between which others, differs from run to run."""

SHORTENED: Final = 24
"""Longer texts without blanks (tokens) are shown by their beginning."""

Line = tuple[str, dict[str, Any]]
"""`>` for what the client says, `<` for what it hears, `-` for what happens to it; and the message."""


@dataclass
class Client:
    """One connection after another, and all that went over them."""

    url: str
    lines: list[Line] = field(default_factory=list)
    token: str = ""
    _wire: Wire | None = None
    _heard: list[dict[str, Any]] = field(default_factory=list)
    _news: trio.Event = field(default_factory=trio.Event)

    async def listen(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Connect, and write down what comes until the connection ends."""
        async with open_wire(self.url) as wire:
            self._wire = wire
            task_status.started()
            try:
                while True:
                    message = await wire.receive()
                    self.token = message.get("token") or self.token
                    self.lines.append(("<", message))
                    self._heard.append(message)
                    self._news.set()
                    self._news = trio.Event()
            except WireClosed as closed:
                if closed.code is not None:
                    self.lines.append(("-", {"closed": closed.code, "reason": closed.reason}))
                self._news.set()

    async def say(self, t: str, **members: object) -> None:
        assert self._wire is not None
        message = {"t": t, **members}
        self.lines.append((">", message))
        await self._wire.send(message)

    async def hear(self, t: str, **members: object) -> dict[str, Any]:
        """The next message of this type and with these members, from what was not looked at yet."""
        with trio.fail_after(PATIENCE_S):
            while True:
                for place, message in enumerate(self._heard):
                    if message["t"] == t and all(
                        message.get(name) == value for name, value in members.items()
                    ):
                        del self._heard[: place + 1]
                        return message
                await self._news.wait()

    async def lose(self) -> None:
        """The network goes away."""
        assert self._wire is not None
        self.lines.append(("-", {"lost": True}))
        await self._wire.cut()


@asynccontextmanager
async def recorded() -> AsyncIterator[Mapping[str, list[Line]]]:
    """Play the sessions. Gives what each of the five has said and heard."""
    with tempfile.TemporaryDirectory(prefix="fanfare-") as directory:
        async with running_node(Path(directory) / "data") as (_, api), trio.open_nursery() as nursery:
            quiz, _ = await api.add_quiz(QUIZ)
            made = await api.create_session(quiz["id"], SETTINGS)
            names = ("host", "ada", "ben", "screen")
            clients = {name: Client(made["ws_url"]) for name in names}
            for each in clients.values():
                await nursery.start(each.listen)
            with trio.fail_after(6 * PATIENCE_S):
                await _play(nursery, made["code"], made["host_token"], **clients)
            alone = await api.create_session(quiz["id"], ALONE)
            clients["dora"] = Client(alone["ws_url"])
            await nursery.start(clients["dora"].listen)
            with trio.fail_after(2 * PATIENCE_S):
                await _play_alone(nursery, alone["code"], clients["dora"])
            yield {name: client.lines for name, client in clients.items()}
            nursery.cancel_scope.cancel()


async def _play(
    nursery: trio.Nursery, code: str, host_token: str, host: Client, ada: Client, ben: Client, screen: Client
) -> None:
    await host.say("join", code=code, token=host_token)
    await host.hear("joined")
    await screen.say("join", code=code, role="spectator")
    await screen.hear("joined")
    await ada.say("join", code=code, name="Ada")
    await ada.hear("joined")
    await host.say("host", id="h1", do="approval", on=True)
    await host.hear("done", id="h1")
    await ben.say("join", code=code, name="Ben", ticket="a-ticket-of-ben")
    await ben.hear("waiting")
    waiting = await host.hear("waiting_list", count=1)
    await host.say("host", id="h2", do="admit", player=waiting["players"][0]["id"])
    await host.hear("done", id="h2")
    await ben.say("join", code=code, name="Ben", ticket="a-ticket-of-ben")
    await ben.hear("joined")

    await host.say("host", id="h3", do="start", expect={"number": 0, "phase": "lobby"})
    await host.hear("done", id="h3")
    opened = await ada.hear("question", number=1)
    await ada.say("answer", id="a1", question=1, choice=1)
    await ada.hear("error", code="not_open_yet")
    while opened["choices"] is None:
        opened = await ada.hear("question", number=1)
    await ada.say("answer", id="a1", question=1, choice=1)
    await ada.hear("ack", id="a1")
    await host.say("host", id="h4", do="pause")
    await host.hear("done", id="h4")
    await ada.hear("state", phase="paused")
    await host.say("host", id="h5", do="resume")
    await host.hear("done", id="h5")
    last = await ben.hear("state", phase="question")
    await ben.lose()
    await host.say("host", id="h6", do="close", expect={"number": 1, "phase": "question"})
    await host.hear("done", id="h6")
    await ada.hear("result")
    joined = next(message for direction, message in ben.lines if message.get("t") == "joined")
    await nursery.start(ben.listen)
    await ben.say("join", code=code, token=ben.token, epoch=joined["epoch"], offset=last["offset"])
    await ben.hear("result")

    await host.say("host", id="h7", do="next", expect={"number": 1, "phase": "reveal"})
    await host.hear("done", id="h7")
    await screen.hear("question", number=2)
    await screen.say("ping", at=1)
    await screen.hear("pong")
    for each in (ada, ben):
        opened = await each.hear("question", number=2)
    await trio.sleep((opened["opens_in_ms"] + 50) / 1000)  # as a client does: it takes no answers before
    await ada.say("answer", id="a2", question=2, choice="Bergen")
    await ada.hear("ack", id="a2")
    await ada.say("answer", id="a3", question=2, choice="Oslo")
    await ada.hear("ack", id="a3", status="duplicate")
    await ben.say("answer", id="b1", question=2, choice="oslo!")
    await ben.hear("ack", id="b1")
    await host.hear("reveal", number=2)
    await host.say("host", id="h8", do="finish")
    await host.hear("done", id="h8")
    for each in (host, ada, ben, screen):
        await each.hear("finished")
    await ada.say("leave")


async def _play_alone(nursery: trio.Nursery, code: str, dora: Client) -> None:
    await dora.say("join", code=code, name="Dora")
    await dora.hear("joined")
    await dora.say("next", id="n1")
    await dora.hear("question", number=1)
    await dora.say("answer", id="a1", question=1, choice=1)
    await dora.hear("ack", id="a1")
    await dora.say("next", id="n2")
    await dora.hear("question", number=2)
    await dora.lose()
    await nursery.start(dora.listen)
    await dora.say("join", code=code, token=dora.token)
    await dora.hear("joined")
    await dora.say("next", id="n3")
    await dora.hear("question", number=2)
    await dora.say("answer", id="a2", question=2, choice="Oslo")
    await dora.hear("ack", id="a2")
    await dora.say("next", id="n4")
    await dora.hear("done_all")
    await dora.say("leave")


def shape(lines: list[Line]) -> Counter[tuple[str, str, frozenset[str]]]:
    """What has to be the same in every run: which messages there are how often, and what members each has.
    The order of an `ack` or `done` and the broadcasts around it differs, as the page says."""
    told = [(direction, message) for direction, message in lines if message.get("t") not in ANY_TIME]
    return Counter((direction, str(message.get("t")), frozenset(message)) for direction, message in told)


def _shown(value: object) -> object:
    if isinstance(value, dict):
        return {name: _shown(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_shown(each) for each in value]
    if isinstance(value, str) and len(value) > SHORTENED and " " not in value:
        return value[:8] + "…"
    return value


def written(lines: list[Line]) -> str:
    """As text, one message a line."""
    return "\n".join(f"{direction} {orjson.dumps(_shown(message)).decode()}" for direction, message in lines)


def read(page: str) -> dict[str, list[Line]]:
    """The conversations of the page, by the name behind each heading."""
    found = {}
    for part in page.split("\n## ")[1:]:
        name = part.partition("(`")[2].partition("`)")[0]
        block = part.partition("```text\n")[2].partition("\n```")[0]
        found[name] = [(line[0], orjson.loads(line[2:])) for line in block.splitlines()]
    return found


async def _write() -> None:
    async with recorded() as conversations:
        page = PAGE.read_text(encoding="utf-8")
        for name, lines in conversations.items():
            head, middle, rest = page.partition(f"(`{name}`)")
            before, _, after = rest.partition("```text\n")
            page = f"{head}{middle}{before}```text\n{written(lines)}\n```{after.partition('```')[2]}"
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    trio.run(_write)
