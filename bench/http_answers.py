"""What an answer costs that comes over HTTP, by the realtime port and by the API's own.

Connections that stay open each send one answer after the other, the next as soon as the last has its ack: a
closed loop, with enough connections to keep the server busy. Every answer is the first of its player to the
question. A node with PostgreSQL is asked on both of its ports; beside it, the realtime port over sessions in
memory, and a loop that answers every read with one response and knows nothing. All take turns. Anything but
a 200 with `accepted` ends the benchmark.
"""

from __future__ import annotations

import re
import select
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import orjson
import psutil
import trio

from bench import wire
from bench.answer_wire import SLOW_TICK_MS, new_session, quiz
from bench.figures import Costs, Figure, process_cpu_s
from bench.memory_node import REACTOR, Address, answer_everything, beside, serve_from_memory
from bench.players import Clients
from server.cli.cluster.node_process import CROWDED
from tests.e2e.node import running_node

PLAYERS = 2_000
CONNECTIONS = 200
ROUNDS = 6
PATIENCE_S = 30.0
TOKEN = re.compile(rb'"token":"([^"]+)"')
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

LOOP = "loop that answers every request"
MEMORY = "realtime port, in memory"
REALTIME = "realtime port, node with PostgreSQL"
API = "HTTP port, node with PostgreSQL"
POSTGRES = "PostgreSQL beside the realtime port"

ACK = orjson.dumps({"t": "ack", "id": "a", "question": 1, "status": "accepted", "elapsed_ms": 1234})
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(ACK),
    ACK,
)


class Hall:
    """The players of one session, who have tokens and no connection, and its host. Without a code there is no
    session, and any token will do."""

    def __init__(self, address: Address, count: int) -> None:
        self._number = 0
        self._code = address.code
        self._host: Clients | None = None
        self._tokens = ["none"] * count
        if address.code:
            self._tokens = _join(address.port, address.code, count)
            greeting = {"t": "join", "code": address.code, "token": address.host_token}
            self._host = Clients(wire.open_websockets(address.port, 1, [wire.client_frame(greeting)]))
            self._host.all_hear(b'"t":"joined"')

    def ask(self) -> list[bytes]:
        """Open the next question. Returns the requests of all players."""
        self._number += 1
        if self._host is not None:
            for do in ("close", "next") if self._number > 1 else ("start",):
                self._host.say(0, wire.client_frame({"t": "host", "id": "h", "do": do}))
                self._host.all_hear(b'"t":"done"')
        body = orjson.dumps({"id": "a", "question": self._number, "choice": self._number % 4})
        target = f"/api/sessions/{self._code}/answers"
        return [
            wire.http_request(b"POST", target, {"Authorization": f"Bearer {token}"}, body)
            for token in self._tokens
        ]

    def close(self) -> None:
        if self._host is not None:
            self._host.close()


def _join(port: int, code: str, count: int) -> list[str]:
    """Their tokens."""
    names = [{"t": "join", "code": code, "name": f"Player {number}"} for number in range(count)]
    sockets = wire.open_websockets(port, count, [wire.client_frame(each) for each in names])
    tokens = []
    for each in sockets:
        heard = b""
        while (found := TOKEN.search(heard)) is None:
            part = each.recv(65_536)
            if not part:
                raise ConnectionError(f"a player was not let in: {heard!r}")
            heard += part
        tokens.append(found[1].decode())
        each.close()
    return tokens


@dataclass(frozen=True, slots=True)
class Responses:
    """To requests, in their order. A wait is from when the request was due to be sent; without a rate, from
    when it was sent."""

    waits_s: list[float]
    bodies: list[bytes]


class Posters:
    """Connections that stay open."""

    def __init__(self, port: int, count: int) -> None:
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        for each in wire.connect(port, count):
            each.setblocking(False)
            self._sockets[each.fileno()] = each
            self._poll.register(each.fileno(), select.EPOLLIN)

    def post(self, requests: Sequence[bytes], per_s: float | None = None) -> Responses:
        """All of them: on each connection the next as soon as the last was answered, or one after the other
        at a rate that does not wait for anybody, as long as there is a connection that is free."""
        started = time.perf_counter()
        due_s = [started if per_s is None else started + n / per_s for n in range(len(requests))]
        found = Responses([0.0] * len(requests), [b""] * len(requests))
        idle, heard = list(self._sockets), dict[int, bytes]()
        posted = dict[int, int]()
        sent = answered = 0
        while answered < len(requests):
            now = time.perf_counter()
            if now - started > PATIENCE_S:
                raise TimeoutError(f"{len(requests) - answered} requests have no answer")
            while sent < len(requests) and idle and due_s[sent] <= now:
                fd = idle.pop()
                self._sockets[fd].send(requests[sent])
                heard[fd], posted[fd] = b"", sent
                if per_s is None:
                    due_s[sent] = now
                sent += 1
            due = sent < len(requests) and idle
            for fd, _ in self._poll.poll(due_s[sent] - now if due else 1.0):
                heard[fd] += self._sockets[fd].recv(65_536)
                body = _accepted(heard[fd])
                if body is not None:
                    number = posted[fd]
                    found.waits_s[number] = time.perf_counter() - due_s[number]
                    found.bodies[number] = body
                    idle.append(fd)
                    answered += 1
        return found

    def close(self) -> None:
        self._poll.close()
        for each in self._sockets.values():
            each.close()


def _accepted(heard: bytes) -> bytes | None:
    """The body, if this is a whole response. Any but the expected one is raised."""
    head, found, body = heard.partition(b"\r\n\r\n")
    if not found:
        if not heard:
            raise ConnectionError("the server closed a connection")
        return None
    length = LENGTH.search(head)
    assert length is not None, heard
    if len(body) < int(length[1]):
        return None
    assert head.startswith(b"HTTP/1.1 200"), heard
    assert b'"status":"accepted"' in body, heard
    return body


@dataclass
class Served:
    """A server's port and who answers there."""

    hall: Hall
    port: int
    pid: int
    database: Callable[[], Iterable[psutil.Process]] = tuple

    def database_cpu_s(self) -> float:
        return sum(process_cpu_s(process.pid) for process in self.database())


def turn(costs: Costs, what: str, served: Served, connections: int) -> None:
    """One question, answered by everyone."""
    requests = served.hall.ask()
    posters = Posters(served.port, connections)
    posters.post(requests[:connections])  # accepting the connections counts for nothing
    requests = requests[connections:]
    database_s, server_s = served.database_cpu_s(), process_cpu_s(served.pid)
    started = time.perf_counter()
    posters.post(requests)
    took_s = time.perf_counter() - started
    size = connections
    costs.add(what, size, (process_cpu_s(served.pid) - server_s) * 1e6 / len(requests))
    costs.add(f"{what}/s", size, len(requests) / took_s)
    if what == REALTIME:
        costs.add(POSTGRES, size, (served.database_cpu_s() - database_s) * 1e6 / len(requests))
    posters.close()


async def measure(players: int, connections: int, rounds: int) -> Costs:
    costs = Costs()
    questions = 2 * (rounds + 1)  # both ports of the node ask in one session
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fanfare-")))
        loop, loop_pid = stack.enter_context(beside(partial(answer_everything, reply=RESPONSE)))
        memory, memory_pid = stack.enter_context(
            beside(partial(serve_from_memory, REACTOR, quiz(questions), SLOW_TICK_MS))
        )
        options = ("--no-samples", "--transport", REACTOR, "--tick-ms", str(SLOW_TICK_MS), *CROWDED)
        async with running_node(place, *options) as (node, api):
            address = await new_session(node, api, questions)
            assert node.process is not None
            pid = node.process.pid
            hall = Hall(address, players)
            servers = {
                LOOP: Served(Hall(loop, players), loop.port, loop_pid),
                MEMORY: Served(Hall(memory, players), memory.port, memory_pid),
                REALTIME: Served(hall, address.port, pid, lambda: node.database_processes),
                API: Served(hall, node.ports[0], pid),
            }
            for served in servers.values():
                stack.callback(served.hall.close)
            for what, served in servers.items():
                turn(Costs(), what, served, connections)  # a first time, which counts for nothing
            for _ in range(rounds):
                for what, served in servers.items():
                    turn(costs, what, served, connections)
    return costs


def run(players: int = PLAYERS, connections: int = CONNECTIONS, rounds: int = ROUNDS) -> list[Figure]:
    costs = trio.run(measure, players, connections, rounds)
    at = f"{connections:,} connections"
    figures = []
    for what in (LOOP, MEMORY, REALTIME, API, POSTGRES):
        ratio = costs.ratio(what, connections, LOOP, connections)
        figures.append(Figure(what, at, costs.median(what, connections), "µs CPU", ratio, "the loop"))
    for what in (MEMORY, REALTIME, API):
        ratio = costs.ratio(API, connections, what, connections)
        rate = 1e6 / costs.median(what, connections)
        figures.append(Figure(what, at, rate, "POSTs/CPU s", ratio, "HTTP port"))
    for what in (LOOP, MEMORY, REALTIME, API):
        ratio = costs.ratio(f"{what}/s", connections, f"{API}/s", connections)
        figures.append(
            Figure(what, at, costs.median(f"{what}/s", connections), "POSTs/s", ratio, "HTTP port")
        )
    return figures
