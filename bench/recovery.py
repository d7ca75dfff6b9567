"""How long it takes until everybody plays again after the owner of a session is lost in one way or another.

    python -m bench.recovery
    python -m bench.recovery --fault hung --runs 1
    python -m bench.recovery --checkout ../before

A cluster of three nodes as processes, with a proxy before all that one of them can be cut off from, its
players too. In half of the runs all players are at the owner. In the others a third is; another third sits at
relays on the other nodes, and the last third hears event streams there and answers over HTTP. Everybody
answers four times a second, and keeps ledger.

A player plays again when both acks and broadcasts come again as they did before, without a gap of over a
second and a half. Who hears nothing from the lost node itself leaves it after `--patience` seconds, as a
client must; who is at another node has no reason to, and waits for as long as that node lets it. A table in
Markdown is printed. It ends with exit code 1 if an acknowledged answer is not stored.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import click
import orjson
import trio

from bench import wire
from bench.checkout import ROOT
from bench.figures import machine
from bench.neighbour import SETTINGS, CompactLedger, Socket, quiz
from engine.websocket import FramingError
from fanfare_client.reconnect import Policy, after_close
from loadtest.chaos.proxy import Proxy, proxy_to
from loadtest.client.api import Api, ApiRefused, ApiUnreachable
from server.cli.chaos.stage import Stage, staged
from server.cli.operate.sql import answers_of
from server.cli.terminal import leaves

NODES = 3
EACH = 12
"""Players of each kind."""

RELAY_ABOVE = 100
ANSWER_EVERY_S = 0.25
WARM_S = 4.0
GAP_S = 1.5
"""Longer than the time between two questions."""

WATCH_S = 9.0
"""At least, after the fault: longer than a lease and the longest freeze."""

WITHIN_S = 60.0
REQUEST_S = 5.0
AGAIN_S = (0.3, 0.8)
AT_OWNER, AT_RELAYS, ON_STREAMS = "at the owner", "at relays", "on event streams"
ROLES = (AT_OWNER, AT_RELAYS, ON_STREAMS)
FAULTS = ("killed", "hung", "frozen for 2 s", "frozen for 6 s", "cut off")


class _Ended(Exception):
    """The connection is over, or no use any more."""


class Player:
    """One player. Comes back for as long as it takes.

    Args:
        node: where it begins.
    """

    def __init__(self, play: Play, role: str, number: int, node: int) -> None:
        self.role = role
        self.heard_at: list[float] = []
        self.acked_at: list[float] = []
        self.ledger: dict[int, int] = {}
        self.player = 0
        self._play = play
        self._number = number
        self._node = node
        self._token: str | None = None
        self._open: tuple[int, float] = (0, 0.0)

    async def run(self) -> None:
        live = self._stream if self.role == ON_STREAMS else self._websocket
        while True:
            try:
                await live()
            except* (OSError, trio.BrokenResourceError, trio.TooSlowError, FramingError, _Ended):
                pass
            except* (ApiRefused, ApiUnreachable):
                pass
            await trio.sleep(self._play.rng.uniform(*AGAIN_S))

    def plays_again_s(self, since: float, now: float) -> float | None:
        """After that moment; 0 for who was not disturbed, None for who does not yet."""
        last = 0.0
        for moments in (self.heard_at, self.acked_at):
            seen = [since, *(at for at in moments if at > since), now]
            for before, after in pairwise(seen):
                if after - before > GAP_S:
                    if after == now:
                        return None
                    last = max(last, after - since)
        return last

    def _heard(self, message: dict[str, Any]) -> None:
        now = trio.current_time()
        kind = message["t"]
        if kind == "joined":
            message = (message.get("state") or {}).get("question") or {}
        elif kind in ("question", "reveal", "leaderboard", "progress"):
            self.heard_at.append(now)
        # A `state` too: it tells that the countdown got the time back for which nobody ran the session.
        if kind in ("question", "joined", "state") and message.get("remaining_ms") is not None:
            self._open = (message["number"], now + message["remaining_ms"] / 1000)
        elif kind == "reveal":
            self._open = (0, 0.0)

    def _acked(self, message: dict[str, Any]) -> None:
        self.acked_at.append(trio.current_time())
        if message["status"] == "accepted":
            self.ledger.setdefault(message["question"], message["elapsed_ms"])

    def _answer(self) -> dict[str, object] | None:
        """To the open question, if there is one."""
        number, until = self._open
        if not number or trio.current_time() > until:
            return None
        return {"id": "a", "question": number, "choice": self._number % 4}

    def _patience_s(self) -> float:
        return self._play.patience_s if self._node == self._play.victim else WITHIN_S

    # -- on a WebSocket --------------------------------------------------------------------------

    async def _websocket(self) -> None:
        play = self._play
        greeting: dict[str, object] = {"t": "join", "code": play.code}
        greeting |= {"token": self._token} if self._token else {"name": f"Player {self._number}"}
        socket: Socket | None = None
        try:
            with trio.fail_after(self._patience_s()):
                socket = await Socket.open(play.port_of(self._node))
                await socket.say(greeting)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, socket)
                await self._listen(socket)
        finally:
            if socket is None or after_close(socket.closed) is not Policy.RESUME:
                self._node = (self._node + 1) % NODES
            if socket is not None:
                await socket.aclose()

    async def _listen(self, socket: Socket) -> None:
        while True:
            with trio.fail_after(self._patience_s()):
                message = await socket.hear()
            match message["t"]:
                case "joined":
                    self._token, self.player = message["token"], message["player"]
                    self._heard(message)
                case "moved":
                    # One before, since the end takes the next one.
                    self._node = (self._play.place_of(message["url"]) - 1) % NODES
                    await trio.sleep(message["after_ms"] / 1000)
                    raise _Ended
                case "ack":
                    self._acked(message)
                case "error":
                    if message.get("id") is None:
                        raise _Ended
                case _:
                    self._heard(message)

    async def _send(self, socket: Socket) -> None:
        while True:
            await trio.sleep(ANSWER_EVERY_S)
            answer = self._answer()
            if answer is not None and self._token is not None:
                await socket.say({"t": "answer", **answer})

    # -- on an event stream ----------------------------------------------------------------------

    async def _stream(self) -> None:
        play = self._play
        if self._token is None:
            told = await play.stage_api(self._node).join(play.code, f"Player {self._number}")
            self._token, self.player = told["token"], told["player_id"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._post_all)
            await self._events()

    async def _events(self) -> None:
        target = f"/api/sessions/{self._play.code}/events?token={self._token}"
        stream = await trio.open_tcp_stream("127.0.0.1", self._play.port_of(self._node))
        try:
            await stream.send_all(wire.http_request(b"GET", target, {"Accept": "text/event-stream"}))
            heard = b""
            while part := await stream.receive_some(65_536):
                *events, heard = (heard + part).split(b"\n\n")
                for event in events:
                    for line in event.split(b"\n"):
                        if line.startswith(b"data:"):
                            self._heard(_event(event, line))
            raise _Ended
        finally:
            await trio.aclose_forcefully(stream)

    async def _post_all(self) -> None:
        """On connections of their own. One that has no reply in time is given up."""
        while True:
            with suppress(OSError, trio.BrokenResourceError, trio.TooSlowError, _Ended):
                stream = await trio.open_tcp_stream("127.0.0.1", self._play.port_of(self._node))
                try:
                    while True:
                        await trio.sleep(ANSWER_EVERY_S)
                        answer = self._answer()
                        if answer is not None:
                            with trio.fail_after(REQUEST_S):
                                await self._post(stream, answer)
                finally:
                    await trio.aclose_forcefully(stream)
            await trio.sleep(AGAIN_S[0])

    async def _post(self, stream: trio.SocketStream, answer: dict[str, object]) -> None:
        target = f"/api/sessions/{self._play.code}/answers"
        headers = {"Authorization": f"Bearer {self._token}"}
        await stream.send_all(wire.http_request(b"POST", target, headers, orjson.dumps(answer)))
        heard = b""
        while not (heard.endswith(b"}") and b"\r\n\r\n" in heard):
            part = await stream.receive_some(65_536)
            if not part:
                raise _Ended
            heard += part
        told = orjson.loads(heard.partition(b"\r\n\r\n")[2])
        if "error" not in told:
            self._acked(told)


def _event(event: bytes, line: bytes) -> dict[str, Any]:
    """What an event says, with its type as the WebSocket has it."""
    told: dict[str, Any] = orjson.loads(line[5:])
    name = next((each[6:].strip().decode() for each in event.split(b"\n") if each.startswith(b"event:")), "")
    return {"t": name, **told}


class Play:
    """One run: a session, its players, and the node that has it."""

    def __init__(
        self,
        stage: Stage,
        doors: Sequence[Proxy],
        apis: Sequence[Api],
        code: str,
        victim: int,
        patience_s: float,
    ) -> None:
        self.code = code
        self.victim = victim
        self.patience_s = patience_s
        self.rng = random.Random(code)
        self._stage = stage
        self._doors = doors
        self._apis = apis

    def port_of(self, node: int) -> int:
        """Where its players find it."""
        return self._doors[node].port

    def place_of(self, url: str) -> int:
        return [urlsplit(each).port for each in self._stage.ws_urls].index(urlsplit(url).port)

    def stage_api(self, node: int) -> Api:
        return self._apis[node]


@dataclass
class Seen:
    """What a fault has cost, in all its runs.

    Args:
        roles: by kind of players, how long the last of them took in each run; None: longer than was waited.
    """

    fault: str
    spread: bool
    roles: dict[str, list[float | None]] = field(default_factory=dict)
    acked: int = 0
    missing: int = 0
    changed: int = 0

    def row(self) -> str:
        cells = [self.fault, "a third each" if self.spread else "all at the owner"]
        runs = list(zip(*self.roles.values(), strict=True))
        everybody = [None if None in run else max(run) for run in runs]
        cells += [f"{len(runs)}", _told(everybody), *(_told(self.roles.get(role, [])) for role in ROLES)]
        cells += [f"{self.acked:,}", f"{self.missing:,}", f"{self.changed:,}"]
        return f"| {' | '.join(cells)} |"


def _told(values: Sequence[float | None]) -> str:
    """Median and most."""
    if not values:
        return "-"
    known = [WITHIN_S if each is None else each for each in values]
    late = sum(each is None for each in values)
    return f"{median(known):.1f} / {max(known):.1f}" + (f", {late} not within {WITHIN_S:.0f}" if late else "")


HEAD = (
    *("the owner is", "players", "runs", "everybody plays again after: median / most, s"),
    *(f"{role}, s" for role in ROLES),
    *("acks", "not stored", "stored with another time"),
)


@asynccontextmanager
async def _fault(name: str, stage: Stage, doors: Sequence[Proxy], node: int) -> AsyncIterator[None]:
    """Begins at once; what must last does so until the block is left, and then all is as before."""
    with ExitStack() as during:
        if name == "killed":
            await stage.kill_node(node)
        elif name == "cut off":
            ways = [stage.to_postgres(node), stage.to_redis(node), *stage.to_others(node), doors[node]]
            for way in ways:
                during.enter_context(way.silent())
        else:
            stage.pause_node(node, True)
            during.callback(stage.pause_node, node, False)
        async with trio.open_nursery() as nursery:
            if name.startswith("frozen"):
                nursery.start_soon(_wake, stage, node, float(name.split()[2]))
            yield
            nursery.cancel_scope.cancel()
    if name == "killed":
        await stage.start_node(node)


async def _wake(stage: Stage, node: int, after_s: float) -> None:
    await trio.sleep(after_s)
    stage.pause_node(node, False)


async def one_run(
    stage: Stage, doors: Sequence[Proxy], apis: Sequence[Api], seen: Seen, patience_s: float
) -> None:
    limit = RELAY_ABOVE * (2 if seen.spread else 1)
    made = await apis[0].create_session("recovery", {**SETTINGS, "player_limit": limit})
    victim = [urlsplit(each).port for each in stage.ws_urls].index(urlsplit(made["ws_url"]).port)
    play = Play(stage, doors, apis, made["code"], victim, patience_s)
    others = [node for node in range(NODES) if node != victim]
    roles = [role for role in ROLES for _ in range(EACH)] if seen.spread else [AT_OWNER] * 3 * EACH
    players = [
        Player(play, role, number, victim if role == AT_OWNER else others[number % 2])
        for number, role in enumerate(roles)
    ]
    async with trio.open_nursery() as nursery:
        for player in players:
            nursery.start_soon(player.run)
        await trio.sleep(1.0)
        await apis[others[0]].host(made["code"], made["host_token"], "s", "start")
        await trio.sleep(WARM_S)
        began = trio.current_time()
        silent = [p.role for p in players if not (p.acked_at and p.heard_at)]
        assert not silent, f"{len(silent)} players do not play before the fault: {silent[:3]}"
        async with _fault(seen.fault, stage, doors, victim):
            await trio.sleep(WATCH_S)
            with trio.move_on_after(WITHIN_S - WATCH_S):
                while any(p.plays_again_s(began, trio.current_time()) is None for p in players):  # noqa: ASYNC110
                    await trio.sleep(0.1)
            now = trio.current_time()
            for role in dict.fromkeys(roles):
                each = [p.plays_again_s(began, now) for p in players if p.role == role]
                last = None if None in each else max(e for e in each if e is not None)
                seen.roles.setdefault(role, []).append(last)
        await stage.settled(WITHIN_S)
        await trio.sleep(1.0)
        await apis[others[0]].host(made["code"], made["host_token"], "f", "finish")
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    ledger: CompactLedger = {(p.player, n): ms for p in players for n, ms in p.ledger.items()}
    rows = (await _final(stage, apis[others[0]], made))[made["session_id"]]
    stored = {(row.player, row.question): row.elapsed_ms for row in rows}
    seen.acked += len(ledger)
    seen.missing += sum(key not in stored for key in ledger)
    seen.changed += sum(stored.get(key, ms) != ms for key, ms in ledger.items())


async def _final(stage: Stage, api: Api, made: dict[str, Any]) -> dict[str, Any]:
    with trio.fail_after(WITHIN_S):
        while not (await api.results(made["session_id"], made["host_token"]))["final"]:  # noqa: ASYNC110
            await trio.sleep(0.2)
    return dict(await answers_of(stage.database, [made["session_id"]]))


async def measure(
    faults: Sequence[str],
    spreads: Sequence[bool],
    runs: int,
    checkout: Path,
    patience_s: float,
    tell: Callable[[Seen], None],
) -> list[Seen]:
    directory = Path(tempfile.mkdtemp(prefix="fanfare-recovery-"))
    program = ["env", f"PYTHONPATH={checkout}", sys.executable, "-m", "server.cli.main"]
    found = []
    try:
        async with AsyncExitStack() as stack:
            options = ["--relay-above", str(RELAY_ABOVE)]
            stage = await stack.enter_async_context(staged(directory, options, program, NODES))
            ports = [urlsplit(each).port or 0 for each in stage.ws_urls]
            doors = [await stack.enter_async_context(proxy_to(_always(port))) for port in ports]
            apis = [await stack.enter_async_context(stage.api(node)) for node in range(NODES)]
            await stage.settled(WITHIN_S)
            await apis[0].add_quiz(quiz(), "recovery")
            for fault in faults:
                for spread in spreads:
                    seen = Seen(fault, spread)
                    for _ in range(runs):
                        await one_run(stage, doors, apis, seen, patience_s)
                    tell(seen)
                    found.append(seen)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return found


def _always(port: int) -> Callable[[], int]:
    return lambda: port


@click.command()
@click.option("--fault", "faults", multiple=True, type=click.Choice(FAULTS), help="[default: all]")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Of each fault.")
@click.option("--spread/--at-owner", "spread", default=None, help="[default: both]")
@click.option(
    "--patience", "patience_s", type=float, default=3.0, show_default=True, help="Of players at the owner."
)
@click.option(
    "--checkout",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    default=ROOT,
    help="Run the nodes of another checkout of the project.  [default: this one]",
)
def main(faults: tuple[str, ...], runs: int, spread: bool | None, patience_s: float, checkout: Path) -> None:
    """Take the owner of a session away, and see when everybody plays again."""
    spreads = [False, True] if spread is None else [spread]

    def tell(seen: Seen) -> None:
        click.echo(seen.row(), err=True)

    try:
        found = trio.run(measure, faults or FAULTS, spreads, runs, checkout, patience_s, tell)
    except BaseExceptionGroup as group:
        for each in leaves(group):  # groups within groups hide what has happened
            traceback.print_exception(each)
        raise SystemExit(2) from None
    print(f"{machine()}\nPlayers leave a silent owner after {patience_s:g} s\n")
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for seen in found:
        print(seen.row())
    raise SystemExit(1 if any(seen.missing for seen in found) else 0)


if __name__ == "__main__":
    main()
