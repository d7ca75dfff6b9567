"""What the web pages cost: bytes and time of a first load, and how smoothly the host's page runs with
thousands of players.

Each page is loaded into a fresh browser profile, in turns with a bare answer of the node in JSON, which is
what any page costs here. For the host's page a crowd in another process joins at a rate, and answers at a
rate, while a leaderboard goes out four times a second; frames and long tasks are the browser's own count.
The baseline is the same page while nothing happens. Chromium draws without a graphics card here, on the
cores that the node and the crowd run on.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import trio
from playwright.sync_api import Page, expect

from bench import wire
from bench.child import child
from bench.figures import Costs, Figure
from bench.players import Clients
from server.cli.cluster.node_process import CROWDED
from tests.e2e.node import Node, running_node
from tests.web.chromium import Chromium, Visit
from tests.web.install_chromium import executable, missing
from tests.web.leading import opened, press
from tests.web.speed import Pace, bytes_over_the_wire, interactive_ms, pace

PLAYERS = 5_000
JOINS_PER_S = 500
ANSWERS_PER_S = 200
SPELL_S = 10.0
ROUNDS = 5
WITHIN_S = 600.0

BARE = "an answer in JSON"
WIRE, READY = "first load: bytes over the wire", "first load: interactive"
IDLE, JOINING, PLAYING = "nothing happens", "players join", "players answer"


class _Crowd:
    """Runs in a process of its own."""

    def __init__(self, port: int, code: str) -> None:
        self._port = port
        self._code = code
        self._joined = 0
        self._clients: list[Clients] = []
        self._answered = 0

    def join(self, count: int, per_s: float) -> None:
        started = time.perf_counter()
        batch = max(int(per_s / 10), 1)
        for first in range(0, count, batch):
            time.sleep(max(started + first / per_s - time.perf_counter(), 0))
            names = [f"Player {self._joined + n}" for n in range(min(batch, count - first))]
            joins = [wire.client_frame({"t": "join", "code": self._code, "name": name}) for name in names]
            self._clients.append(Clients(wire.open_websockets(self._port, len(names), joins)))
            self._joined += len(names)

    def answer(self, question: int, count: int, per_s: float) -> None:
        """From where the last call has stopped."""
        started = time.perf_counter()
        seats = [(clients, number) for clients in self._clients for number in range(len(clients))]
        for n in range(count):
            time.sleep(max(started + n / per_s - time.perf_counter(), 0))
            clients, number = seats[self._answered % len(seats)]
            answer = {"t": "answer", "id": "a", "question": question, "choice": n % 4}
            clients.say(number, wire.client_frame(answer))
            self._answered += 1
            clients.listen(0)


def _serve(port: int, code: str, orders: Connection) -> None:
    crowd = _Crowd(port, code)
    while (order := orders.recv()) is not None:
        name, *parts = order
        getattr(crowd, name)(*parts)
        orders.send("done")


@contextmanager
def crowd(port: int, code: str) -> Iterator[Callable[..., None]]:
    """Orders to players in another process, each of which is waited for."""
    with child(_serve, port, code) as (control, _):

        def order(*parts: object) -> None:
            control.send(parts)
            assert control.recv() == "done"

        try:
            yield order
        finally:
            control.send(None)


class Pages:
    """What was seen of the pages of a node."""

    def __init__(self, node: Node, code: str, host_token: str, players: int, rounds: int) -> None:
        self._url = node.url
        self._port = node.ports[1]
        self._author = f"/author#key={node.author_key}"
        self._code = code
        self._host = f"/host?code={code}#{host_token}"
        self._players = players
        self._rounds = rounds
        self.costs = Costs()
        self.spells: dict[str, Pace] = {}

    @property
    def paths(self) -> Mapping[str, str]:
        return {
            BARE: "/healthz",
            "play": f"/?code={self._code}",
            "host": self._host,
            "screen": f"/screen?code={self._code}",
            "author": self._author,
        }

    def look(self, visit: Visit) -> None:
        visit.allow("/favicon.ico")  # of the bare answer, which names no icon
        for _ in range(self._rounds):
            for name, path in self.paths.items():
                self._load(visit, name, path)
        with crowd(self._port, self._code) as order:
            self._watch(visit.page(size="desktop"), order)

    def _load(self, visit: Visit, name: str, path: str) -> None:
        page = visit.page(size="phone" if name == "play" else "desktop")
        with bytes_over_the_wire(page) as fetched:
            page.goto(self._url + path, wait_until="networkidle")
        self.costs.add(f"{WIRE}, {name}", 0, fetched.total())
        self.costs.add(f"{READY}, {name}", 0, interactive_ms(page))
        page.context.close()

    def _watch(self, page: Page, order: Callable[..., None]) -> None:
        page.goto(self._url + self._host)
        expect(page.locator("#start")).to_be_visible()
        wait = partial(page.wait_for_timeout, SPELL_S * 1000 / 2)
        self.spells[IDLE] = pace(page, wait)
        self.spells[JOINING] = pace(page, lambda: order("join", self._players, JOINS_PER_S))
        expect(page.locator("#connected")).to_contain_text(f"{self._players:,} of {self._players:,}")
        press(page, "#start")
        expect(page.locator("#close")).to_be_visible()
        count = min(int(ANSWERS_PER_S * SPELL_S), self._players - 1)
        self.spells[PLAYING] = pace(page, lambda: order("answer", 1, count, ANSWERS_PER_S))
        expect(page.locator("#answered")).to_contain_text(f"{count:,} of {self._players:,}")


async def measure(players: int, rounds: int) -> Pages:
    browser = executable()
    if browser is None:
        raise RuntimeError(missing())
    chromium = Chromium(browser)
    with tempfile.TemporaryDirectory(prefix="fanfare-") as path:
        try:
            async with (
                running_node(
                    Path(path) / "data", "--no-samples", "--connections-per-address-max", "20000", *CROWDED
                ) as (node, _),
                opened(node.url, "single", author_key=node.author_key, limit_s=600, board="live") as session,
            ):
                pages = Pages(node, session.code, session.token, players, rounds)
                await chromium.run(pages.look, within_s=WITHIN_S)
        finally:
            chromium.close()
    return pages


def run(players: int = PLAYERS, rounds: int = ROUNDS) -> list[Figure]:
    pages = trio.run(measure, players, rounds)
    figures = []
    for what, unit in ((WIRE, "bytes"), (READY, "ms")):
        for name in pages.paths:
            key = f"{what}, {name}"
            ratio = None if name == BARE else pages.costs.ratio(key, 0, f"{what}, {BARE}", 0)
            figures.append(
                Figure(key, "", pages.costs.median(key, 0), unit, ratio, "" if ratio is None else BARE)
            )
    idle = pages.spells[IDLE].frames_per_s
    for name, spell in pages.spells.items():
        at = f"{players:,} players"
        ratio = None if name == IDLE else spell.frames_per_s / idle
        figures += [
            Figure(
                f"host, {name}: frames", at, spell.frames_per_s, "/s", ratio, "" if ratio is None else IDLE
            ),
            Figure(f"host, {name}: long tasks", at, len(spell.long_tasks_ms), ""),
            Figure(f"host, {name}: the longest", at, max(spell.long_tasks_ms, default=0.0), "ms"),
        ]
    return figures
