"""What an attacker does to a node, and what it gets for it. Each attack runs in a process of its own, at the
lowest priority, from loopback addresses that nobody else uses; connections and frames are bounded in number
and rate, so that what is measured is what the node does about them."""

from __future__ import annotations

import itertools
import os
import random
import resource
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

import orjson

from bench import wire

ALONE = "127.0.1.1"
"""The address of an attacker that has one."""

MANY = tuple(f"127.0.2.{n}" for n in range(1, 101))
"""Of one that has a hundred."""

DIAL_S = 1.0
NICE = 19

_EMPTY_TEXT = b"\x01\x80\0\0\0\0"
_EMPTY_MORE = b"\x00\x80\0\0\0\0"
_PING = b"\x89\xfd\0\0\0\0" + b"p" * 125
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


@dataclass(frozen=True, slots=True)
class Target:
    """What an attacker knows.

    Args:
        code: of a session that everybody may join, and that is not the neighbour's.
        huge: id of a large session that is over.
        huge_token: of a player of it.
    """

    http_port: int
    realtime_port: int
    code: str
    huge: str
    huge_token: str


class Attack:
    """One attack while it goes on. `got` counts what it was given."""

    def __init__(self, target: Target, seconds: float) -> None:
        self.target = target
        self.until = time.monotonic() + seconds
        self.got: Counter[str] = Counter()
        self.rng = random.Random(1)
        self._poll = select.epoll()

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.until

    def dial(self, port: int, source: str = ALONE) -> socket.socket | None:
        """A connection; None if none is to be had."""
        made = socket.socket()
        made.settimeout(DIAL_S)
        try:
            made.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: or ports run out
            made.bind((source, 0))
            made.connect(("127.0.0.1", port))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self.got["connections refused"] += 1
            made.close()
            return None
        made.setblocking(False)
        return made

    def send(self, each: socket.socket, data: bytes) -> bool:
        """As much as fits; whether the connection stands."""
        try:
            each.send(data)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def exchange(
        self, port: int, requests: Sequence[bytes], sources: Sequence[str], within_s: float, enough: bytes
    ) -> Iterator[bytes]:
        """Each request on a connection of its own, all at once: what came back until `enough` was in it, the
        connection ended, or the time was over."""
        heard: dict[int, bytes] = {}
        sockets: dict[int, socket.socket] = {}
        for number, request in enumerate(requests):
            each = self.dial(port, sources[number % len(sources)])
            if each is not None:
                self.send(each, request)
                sockets[each.fileno()], heard[each.fileno()] = each, b""
                self._poll.register(each.fileno(), select.EPOLLIN)
        deadline = min(time.monotonic() + within_s, self.until + 1.0)
        while sockets and (left_s := deadline - time.monotonic()) > 0:
            for fd, _ in self._poll.poll(left_s):
                data = _read(sockets[fd])
                heard[fd] += data or b""
                if data is None or enough in heard[fd]:
                    self._poll.unregister(fd)
                    sockets.pop(fd).close()
        for fd, each in sockets.items():
            self._poll.unregister(fd)
            each.close()
        yield from heard.values()

    def hold(
        self,
        plan: Sequence[tuple[int, bytes]],
        per_s: float = 2_000.0,
        feed: Callable[[socket.socket], bool] | None = None,
    ) -> None:
        """Open all, say what each has to say, and keep them until the time is over.

        Args:
            plan: ports, and what is said there.
            feed: called for each connection once a second; whether it stands.
        """
        held: list[socket.socket] = []
        began = time.monotonic()
        for number, (port, data) in enumerate(plan):
            if not self.goes_on:
                break
            _pace(began, number, per_s)
            each = self.dial(port)
            if each is None:
                continue
            self.got["connections opened"] += 1
            left = memoryview(data)
            with suppress(OSError):
                each.settimeout(DIAL_S)
                each.sendall(left)
            each.setblocking(False)
            held.append(each)
        while self.goes_on:
            if feed is not None:
                held = [each for each in held if feed(each)]
            time.sleep(1.0)
        streams = 0
        for each in held:
            heard, ended = _read_all(each)
            self.got["held at the end"] += not ended
            streams += not ended and b"event: joined" in heard
            each.close()
        if streams:
            self.got["streams held at the end"] = streams

    def note(self, replies: Iterator[bytes], good: bytes, what: str) -> None:
        for reply in replies:
            self.got[what if good in reply else _why(reply)] += 1


def _read(each: socket.socket) -> bytes | None:
    """None at the end."""
    try:
        return each.recv(65_536) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None


def _read_all(each: socket.socket) -> tuple[bytes, bool]:
    """What has come, and whether that was the end."""
    heard = b""
    while data := _read(each):
        heard = (heard + data)[:4096]
    return heard, data is None


def _why(reply: bytes) -> str:
    for code in (
        *(b"too_many_attempts", b"too_many_connections", b"rate_limited", b"session_not_found", b"busy"),
        *(b"session_full", b"session_locked", b"too_many_seats", b"token_missing", b"token_invalid"),
    ):
        if code in reply:
            return code.decode()
    if not reply:
        return "no reply"
    if reply.startswith(b"HTTP/1.1 101"):
        return "a handshake, and no reply"
    status = reply[:12].decode(errors="replace") if reply.startswith(b"HTTP/1.1") else ""
    return f"other: {status}" if status else "other"


def _pace(began: float, number: int, per_s: float) -> None:
    early_s = began + number / per_s - time.monotonic()
    if early_s > 0.002:
        time.sleep(early_s)


def _join(code: str, **more: object) -> bytes:
    return wire.REQUEST + wire.client_frame({"t": "join", "code": code, **more})


def _codes(rng: random.Random) -> Iterator[str]:
    """Never the same one."""
    numbers = rng.sample(range(1_000_000), 200_000)
    return (f"{each:06}" for each in itertools.cycle(numbers))


def _rounds(attack: Attack, every_s: float) -> Iterator[None]:
    while attack.goes_on:
        began = time.monotonic()
        yield
        time.sleep(max(min(began + every_s, attack.until) - time.monotonic(), 0))


# -- the attacks -------------------------------------------------------------------------------------


def nothing(attack: Attack) -> None:
    time.sleep(max(attack.until - time.monotonic(), 0))


def odd_keys(attack: Attack) -> None:
    """Texts where a code or an id belongs, of which Python and PostgreSQL do not think alike."""
    plain = "0" * 8 + "-" + "-".join(["0" * 4] * 3) + "-" + "0" * 12
    odd = ["1_2_3_4_5_6_7_8_9_0_1_2_3_4_5_67", "{" + plain + "}", "urn:uuid:" + plain, plain.replace("-", "")]
    odd += ["%00" * 6, "١٢٣٤٥٦", "1234567", "-12345", "+12345", "0" * 32, "%ff" * 3, "1" * 4000, "²23456"]
    doors = [(attack.target.realtime_port, "events"), (attack.target.http_port, "events")]
    doors += [(attack.target.http_port, each) for each in ("leaderboard", "results.json", "players")]
    for _ in _rounds(attack, 1.0):
        for (port, door), key in itertools.product(doors, odd):
            if not attack.goes_on:
                return
            request = f"GET /api/sessions/{key}/{door} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            attack.note(
                attack.exchange(port, [request.encode()], [ALONE], 0.5, b"}}"), b"not_found", "not found"
            )


def guesses(attack: Attack) -> None:
    """600 codes at once from one address, again and again."""
    codes = _codes(attack.rng)
    for _ in _rounds(attack, 2.0):
        requests = [_join(next(codes), name="Guess") for _ in range(600)]
        replies = attack.exchange(attack.target.realtime_port, requests, [ALONE], 2.0, b'"code"')
        attack.note(replies, b"session_not_found", "guesses judged")


def invented_codes(attack: Attack) -> None:
    """New codes from a hundred addresses, over HTTP."""
    codes = _codes(attack.rng)
    for _ in _rounds(attack, 0.5):
        requests = [
            wire.http_request(
                b"POST",
                f"/api/sessions/{next(codes)}/players",
                {"Connection": "close"},
                orjson.dumps({"name": "Guess"}),
            )
            for _ in range(200)
        ]
        replies = attack.exchange(attack.target.http_port, requests, MANY, 2.0, b"}}")
        attack.note(replies, b"session_not_found", "guesses judged")


def seats(attack: Attack) -> None:
    """10,000 players from one address."""
    names = (f"Bot {n}" for n in range(10_000))
    began, number = time.monotonic(), 0
    while attack.goes_on and number < 10_000:
        _pace(began, number, 1_000)
        batch = [_join(attack.target.code, name=name) for name in itertools.islice(names, 100)]
        number += len(batch)
        replies = attack.exchange(attack.target.realtime_port, batch, [ALONE], 3.0, b'"t":')
        attack.note(replies, b'"t":"joined"', "seats")
    nothing(attack)


def streams(attack: Attack) -> None:
    """Event streams, 2,000 on either port."""
    request = wire.http_request(b"GET", f"/api/sessions/{attack.target.code}/events", {"Accept": "*/*"})
    ports = (attack.target.http_port, attack.target.realtime_port)
    attack.hold([(ports[n % 2], request) for n in range(4_000)], 1_000.0)


def streams_on_api(attack: Attack) -> None:
    """All of them on the API's port."""
    request = wire.http_request(b"GET", f"/api/sessions/{attack.target.code}/events", {"Accept": "*/*"})
    attack.hold([(attack.target.http_port, request)] * 4_000, 1_000.0)


def http2_prefaces(attack: Attack) -> None:
    attack.hold([(attack.target.http_port, _HTTP2)] * 4_000)


def bodies(attack: Attack) -> None:
    """A megabyte for a route that takes 4 KiB, but for the last byte."""
    size = 1 << 20
    head = wire.http_request(
        b"POST",
        f"/api/sessions/{attack.target.code}/answers",
        {"Content-Type": "application/json", "Content-Length": str(size), "Authorization": "Bearer x"},
    )
    data = head + b" " * (size - 1)
    ports = (attack.target.http_port, attack.target.realtime_port)
    attack.hold([(ports[n % 2], data) for n in range(400)], 100.0)


def silent(attack: Attack) -> None:
    """Connections on which nothing is ever said."""
    ports = (attack.target.http_port, attack.target.realtime_port)
    attack.hold([(ports[n % 2], b"") for n in range(8_000)])


def slow_heads(attack: Attack) -> None:
    """A byte a second."""
    ports = (attack.target.http_port, attack.target.realtime_port)
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "
    plan = [(ports[n % 2], head) for n in range(2_000)]

    def feed(each: socket.socket) -> bool:
        return attack.send(each, b"a")

    attack.hold(plan, feed=feed)


def _flood(attack: Attack, first: bytes, frames: bytes, per_batch: int) -> None:
    """From 20 spectators, 40,000 frames a second at most. Who is sent away comes back."""
    batch = frames * per_batch
    connections: list[socket.socket] = []
    watch = _join(attack.target.code, role="spectator")
    for _ in _rounds(attack, per_batch * 20 / 40_000):
        while len(connections) < 20 and attack.goes_on:
            each = attack.dial(attack.target.realtime_port)
            if each is None:
                break
            attack.got["connections opened"] += 1
            attack.send(each, watch + first)
            connections.append(each)
        standing = []
        for each in connections:
            ended = _read_all(each)[1]
            if not ended and select.select([], [each], [], 0)[1]:
                try:
                    attack.got["frames taken"] += each.send(batch) // len(frames)
                except OSError:
                    ended = True
            if ended:
                each.close()
                attack.got["connections ended"] += 1
            else:
                standing.append(each)
        connections = standing
        if attack.got["connections ended"] > 20:
            time.sleep(0.05)  # handshakes are another attack
    for each in connections:
        each.close()


def pings(attack: Attack) -> None:
    _flood(attack, b"", _PING, 100)


def empty_fragments(attack: Attack) -> None:
    _flood(attack, _EMPTY_TEXT, _EMPTY_MORE, 200)


def handshakes(attack: Attack) -> None:
    """And nothing after them, 2,000 a second at most."""
    for _ in _rounds(attack, 0.1):
        replies = attack.exchange(
            attack.target.realtime_port, [wire.REQUEST] * 200, [ALONE], 1.0, b"\r\n\r\n"
        )
        attack.note(replies, b" 101 ", "handshakes")


def one_unknown_code(attack: Attack) -> None:
    """2,000 at once want to join the same session, which is not there, from a hundred addresses."""
    for _ in _rounds(attack, 2.0):
        requests = [_join("000000", name="Late")] * 2_000
        replies = attack.exchange(attack.target.realtime_port, requests, MANY, 3.0, b'"code"')
        attack.note(replies, b"session_not_found", "guesses judged")


def huge_results(attack: Attack) -> None:
    """What a session of 50,000 players has come to, whole, for its own players, 20 at a time."""
    headers = {"Authorization": f"Bearer {attack.target.huge_token}", "Connection": "close"}
    doors = ("results.json", "results.csv", "leaderboard", "results")
    while attack.goes_on:
        requests = [
            wire.http_request(b"GET", f"/api/sessions/{attack.target.huge}/{doors[n % 4]}", headers)
            for n in range(20)
        ]
        replies = attack.exchange(attack.target.http_port, requests, [ALONE], 5.0, b"never")
        attack.note(replies, b" 200 ", "answers")


ATTACKS: Mapping[str, Callable[[Attack], None]] = {
    "nothing": nothing,
    "odd-keys": odd_keys,
    "guesses": guesses,
    "invented-codes": invented_codes,
    "one-unknown-code": one_unknown_code,
    "seats": seats,
    "streams": streams,
    "streams-on-api": streams_on_api,
    "http2-prefaces": http2_prefaces,
    "bodies": bodies,
    "silent": silent,
    "slow-heads": slow_heads,
    "pings": pings,
    "empty-fragments": empty_fragments,
    "handshakes": handshakes,
    "huge-results": huge_results,
}


def _run(name: str, target: Target, seconds: float, cpu: int | None, control: Connection) -> None:
    os.nice(NICE)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    attack = Attack(target, seconds)
    try:
        ATTACKS[name](attack)
    except Exception as exc:
        attack.got[f"the attacker failed: {exc!r}"] += 1
        raise
    finally:
        control.send(dict(attack.got))


def attacked(name: str, target: Target, seconds: float, cpu: int | None) -> dict[str, int]:
    """Run it to its end, and return what it was given. Blocks."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(name, target, seconds, cpu, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if ours.poll(seconds * 3 + 60):
            found: dict[str, int] = ours.recv()
            return found
        return {"the attacker hangs": 1}
    except EOFError:
        return {"the attacker failed": 1}
    finally:
        process.kill()
        process.join(5)
