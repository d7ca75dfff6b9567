"""The doors of a node, and how each is knocked at. Each call is one attempt on a connection of its own."""

from __future__ import annotations

import json
import re
import secrets
import socket
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from engine.shards.link.auth import ClientProof, Refused, link_key
from engine.websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, FramingError, Parser, encode_frame
from server.cli.operate.sql import psql_command
from tests.fuzz.grammar import Grammar

REPLY_S = 1.0
FRAMES_MAX = 12
_BUSY = 503
_FAILED = 1011
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)


@dataclass
class Nodes:
    """Where everything is.

    Args:
        ports: by the place of the node: HTTP, realtime, link.
        runs: of the nodes, to prove oneself to on a link.
        rows: a session that can be copied, and a quiz.
    """

    ports: list[list[int]]
    runs: list[str]
    secret: str
    database: str
    redis_socket: str
    cluster: str
    row: str


@dataclass
class Seen:
    """What one door has said. `faults` are sentences; none means that all is well."""

    said: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


Door = Callable[[Grammar, Nodes, Seen], Awaitable[None]]


async def dial(grammar: Grammar, port: int) -> trio.SocketStream:
    """From an address of its own each time: limits by address are not what is tried here. Raises OSError."""
    made = trio.socket.socket()
    made.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: or ports run out
    rng = grammar.rng
    await made.bind((f"127.3.{rng.randrange(256)}.{rng.randrange(1, 255)}", 0))
    try:
        with trio.fail_after(REPLY_S * 5):
            await made.connect(("127.0.0.1", port))
    except BaseException:
        made.close()
        raise
    return trio.SocketStream(made)


# -- over HTTP ---------------------------------------------------------------------------------------


async def api(grammar: Grammar, nodes: Nodes, seen: Seen) -> None:
    """The HTTP API's port."""
    await http_reply(grammar, grammar.one(nodes.ports)[0], seen, _request(grammar))


async def plain_http(grammar: Grammar, nodes: Nodes, seen: Seen) -> None:
    """Answers, questions at the own pace and event streams on the realtime port of the reactor."""
    await http_reply(grammar, nodes.ports[0][1], seen, _request(grammar, ("answers", "next", "events")))


async def event_stream(grammar: Grammar, nodes: Nodes, seen: Seen) -> None:
    """On either port."""
    query = grammar.one(("", f"?token={_quoted(grammar.token())}", "?x=1", "?token=", "?token=a&token=b"))
    position = grammar.one(("1-1", "", "1", "-1--1", "9" * 40 + "-1", "1_0-1", str(grammar.value())))
    target = f"/api/sessions/{_quoted(grammar.key())}/events{query}"
    head = f"GET {target} HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {latin(position)}\r\n\r\n"
    port = grammar.one((nodes.ports[0][0], nodes.ports[0][1], nodes.ports[1][0]))
    await http_reply(grammar, port, seen, head.encode("latin-1"))


def _request(grammar: Grammar, doors: tuple[str, ...] = ()) -> bytes:
    method, path, body = _route(grammar, doors)
    if grammar.often(0.1):
        method = grammar.one(("PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "get", "TRACE", "\0", "GET" * 50))
    content = grammar.dumped(grammar.changed(body)) if body is not None else b""
    if grammar.often(0.1):
        path += grammar.one(
            ("?", "?x=1", "?top=-1", "?top=99999999999", "?limit=a", "?version=1_0", "?%00", "#")
        )
    lines = ["Host: 127.0.0.1"]
    if grammar.often(0.7):
        lines.append(
            f"Authorization: {grammar.one(('Bearer', 'Bearer', 'Basic', ''))} {latin(grammar.token())}"
        )
    if content or grammar.often(0.1):
        kind = grammar.one(("application/json",) * 5 + ("text/plain", "application/yaml", "", "a/b; c=\x01"))
        length = len(content) + (grammar.one((-1, 1, 10**9, -5)) if grammar.often(0.05) else 0)
        lines += [f"Content-Type: {kind}", f"Content-Length: {length}"]
    if grammar.often(0.05):
        lines.append(grammar.one(("Transfer-Encoding: chunked", "Expect: 100-continue", "X: " + "y" * 9_000)))
    if grammar.often(0.05):
        lines.append(
            grammar.one(("Host: y", "Upgrade: websocket", ": x", "Origin: http://evil", "Range: bytes=0-1"))
        )
    head = f"{method} {path} HTTP/1.{grammar.one('11111110')}\r\n" + "".join(f"{each}\r\n" for each in lines)
    said = head.encode("latin-1", "replace") + b"\r\n" + content
    return grammar.bytes(said) if grammar.often(0.05) else said


def _route(grammar: Grammar, doors: tuple[str, ...]) -> tuple[str, str, object]:
    key, quiz = (
        _quoted(grammar.key()),
        _quoted(str(grammar.one(("fuzz", "huge", "x" * 300, "", grammar.value())))),
    )
    player = f"Fuzz {grammar.rng.randrange(10_000)}"
    answer = {"id": "a", "question": 1, "choice": 0}
    routes: dict[str, tuple[str, str, object]] = {
        "answers": ("POST", f"/api/sessions/{key}/answers", answer),
        "next": ("POST", f"/api/sessions/{key}/next", None),
        "events": ("GET", f"/api/sessions/{key}/events", None),
        "players": ("POST", f"/api/sessions/{key}/players", {"name": player}),
        "users": ("POST", f"/api/sessions/{key}/players", {"identity": grammar.identity()}),
        "list": ("GET", f"/api/sessions/{key}/players?after=0&limit=10", None),
        "host": ("POST", f"/api/sessions/{key}/host", {"id": "h", "do": "pause"}),
        "session": ("GET", f"/api/sessions/{key}", None),
        "board": ("GET", f"/api/sessions/{key}/leaderboard?top=10&around=me", None),
        "json": ("GET", f"/api/sessions/{key}/results.json", None),
        "csv": ("GET", f"/api/sessions/{key}/results.csv", None),
        "results": ("GET", f"/api/sessions/{key}/results", None),
        "open": ("POST", "/api/sessions", {"quiz_id": "fuzz", **grammar.settings()}),
        "sessions": ("GET", "/api/sessions?limit=5", None),
        "add": ("POST", f"/api/quizzes?id={quiz}", grammar.quiz()),
        "check": ("POST", "/api/quizzes/check", grammar.quiz()),
        "quizzes": ("GET", "/api/quizzes", None),
        "quiz": ("GET", f"/api/quizzes/{quiz}", None),
        "versions": ("GET", f"/api/quizzes/{quiz}/versions?limit=3", None),
        "cluster": ("GET", "/api/cluster", None),
        "live": ("GET", grammar.one(("/api/ops", "/api/ops/events")), None),
        "code": ("GET", f"/qr.svg?code={key}", None),
        "page": ("GET", f"/{grammar.one(('', 'host', 'screen', 'author', 'ops', 'x'))}?lang={key[:9]}", None),
        "asset": ("GET", f"/assets/{key}/{quiz}", None),
        "state": (
            "GET",
            grammar.one(("/healthz", "/readyz", "/metrics", "/asyncapi.json")),
            None,
        ),
    }
    return routes[grammar.one(doors or tuple(routes))]


def _quoted(text: str) -> str:
    """In a path: most of what is not ASCII as it must be, the rest as it is."""
    return "".join(c if "!" <= c <= "~" and c not in "?#" else f"%{ord(c) & 0xFF:02x}" for c in text) or "-"


def latin(text: str) -> str:
    return text.encode("latin-1", "replace").decode("latin-1").replace("\r", "").replace("\n", "")


async def http_reply(grammar: Grammar, port: int, seen: Seen, request: bytes) -> bytes:
    """The response, as far as it came in time."""
    stream = await dial(grammar, port)
    try:
        heard = b""
        with suppress(trio.BrokenResourceError), trio.move_on_after(REPLY_S):
            await stream.send_all(request)
            while len(heard) < 100_000 and not _whole(heard):
                part = await stream.receive_some(65_536)
                if not part:
                    break
                heard += part
    finally:
        await trio.aclose_forcefully(stream)
    found = _STATUS.match(heard)
    if found is None:
        seen.said["no reply" if not heard else "other"] += 1
        return heard
    status = int(found[1])
    seen.said[str(status)] += 1
    if status >= 500 and status not in (_BUSY, 501, 505):
        seen.faults.append(f"{status} for {request[:300]!r}: {heard[-200:]!r}")
    return heard


def _whole(heard: bytes) -> bool:
    head, found, body = heard.partition(b"\r\n\r\n")
    if not found:
        return False
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return (length is not None and len(body) >= int(length[1])) or (b"event-stream" in head and len(body) > 0)


# -- over WebSockets ---------------------------------------------------------------------------------


async def reactor(grammar: Grammar, nodes: Nodes, seen: Seen) -> None:
    """The realtime port of the first node."""
    await websocket(grammar, nodes.ports[0][1], seen)


async def trio_websocket(grammar: Grammar, nodes: Nodes, seen: Seen) -> None:
    """That of the second."""
    await websocket(grammar, nodes.ports[1][1], seen)


async def websocket(
    grammar: Grammar,
    port: int,
    seen: Seen,
    paths: Sequence[str] = ("/ws",) * 9 + ("/ws?x", "/", "/ws/"),
    frames: Callable[[Grammar], list[bytes]] | None = None,
    note: Callable[[int, bytes, Seen], None] | None = None,
) -> None:
    """Args: frames: what is said there; note: takes down what is heard."""
    more = grammar.one(
        ("",) * 8 + ("Sec-WebSocket-Protocol: fanfare.v1\r\n", "Origin: null\r\n", "X: \x01\r\n")
    )
    head = _HANDSHAKE.format(path=grammar.one(paths), more=more).encode("latin-1")
    if grammar.often(0.05):
        head = grammar.bytes(head)
    stream = await dial(grammar, port)
    try:
        parser = Parser(masked=False, message_bytes_max=1 << 22)
        with suppress(trio.BrokenResourceError, FramingError), trio.move_on_after(REPLY_S):
            await stream.send_all(head)
            heard = b""
            while b"\r\n\r\n" not in heard:
                part = await stream.receive_some(65_536)
                if not part:
                    return
                heard += part
            if b" 101 " not in heard:
                seen.said["refused"] += 1
                if (status := _STATUS.match(heard)) and int(status[1]) >= 500 and int(status[1]) != _BUSY:
                    seen.faults.append(f"{status[1]!r} for the handshake {head!r}")
                return
            seen.said["open"] += 1
            parser.feed(heard.partition(b"\r\n\r\n")[2])
            await stream.send_all(b"".join((frames or _frames)(grammar)))
            while True:
                while (event := parser.next_event()) is not None:
                    (note or note_event)(event.opcode, event.payload, seen)
                part = await stream.receive_some(65_536)
                if not part:
                    return
                parser.feed(part)
    finally:
        await trio.aclose_forcefully(stream)


def note_event(opcode: int, payload: bytes, seen: Seen) -> None:
    if opcode == CLOSE and len(payload) >= 2:
        code = int.from_bytes(payload[:2], "big")
        seen.said[str(code)] += 1
        if code == _FAILED:
            seen.faults.append(f"a WebSocket failed: {payload[2:]!r}")
    elif opcode == TEXT:
        message = json.loads(payload)
        seen.said[message.get("code", "error") if message["t"] == "error" else message["t"]] += 1


def _frames(grammar: Grammar) -> list[bytes]:
    frames = []
    if grammar.often(0.7):
        frames.append(masked_frame(TEXT, json.dumps(grammar.join()).encode()))
    for _ in range(grammar.rng.randrange(FRAMES_MAX)):
        said = grammar.client_message()
        what = grammar.rng.randrange(20)
        if what == 0:
            frames.append(masked_frame(BINARY, said))
        elif what == 1:
            frames += [
                masked_frame(TEXT, said[:5], fin=False),
                masked_frame(CONTINUATION, said[5:], fin=grammar.often(0.8)),
            ]
        elif what == 2:
            frames.append(
                masked_frame(
                    grammar.one((PING, PONG, CLOSE, 3, 11)), said[: grammar.one((0, 1, 2, 125, 126))]
                )
            )
        elif what == 3:
            frames.append(grammar.bytes(masked_frame(TEXT, said)))
        elif what == 4:
            frames.append(encode_frame(TEXT, said[:100]))  # unmasked
        else:
            frames.append(masked_frame(TEXT, said))
    return frames


def masked_frame(opcode: int, payload: bytes, fin: bool = True) -> bytes:
    return encode_frame(opcode, payload, mask=b"\1\2\3\4", fin=fin)


# -- between nodes -----------------------------------------------------------------------------------


async def link(grammar: Grammar, nodes: Nodes, seen: Seen) -> None:
    """The link port, by somebody who cannot prove anything."""
    stream = await dial(grammar, grammar.one(nodes.ports)[2])
    try:
        with suppress(trio.BrokenResourceError), trio.move_on_after(REPLY_S):
            if grammar.often(0.2):
                await stream.send_all(grammar.rng.randbytes(grammar.rng.randrange(1, 3_000)))
            await stream.send_all(
                _HANDSHAKE.format(path=grammar.one(("/link", "/", "/ws")), more="").encode()
            )
            proof = {"run": "x", "to": grammar.one(nodes.runs), "nonce": "0" * 64, "proof": "0" * 64}
            await stream.send_all(masked_frame(TEXT, grammar.dumped(grammar.changed(proof))))
            while part := await stream.receive_some(65_536):
                seen.said["heard"] += bool(part)
    finally:
        await trio.aclose_forcefully(stream)


async def proven_link(grammar: Grammar, nodes: Nodes, seen: Seen) -> None:
    """The link port, by a node that is of the cluster, and says what no node should."""
    place = grammar.rng.randrange(len(nodes.ports))
    stream = await dial(grammar, nodes.ports[place][2])
    proof = ClientProof(link_key(nodes.secret.encode()), "fuzz-1", nodes.runs[place], secrets.token_bytes(32))
    parser = Parser(masked=False, message_bytes_max=1 << 22)
    try:
        with suppress(trio.BrokenResourceError, FramingError, Refused), trio.move_on_after(REPLY_S):
            await stream.send_all(_HANDSHAKE.format(path="/link", more="").encode())
            heard = b""
            while b"\r\n\r\n" not in heard:
                heard += await _some(stream)
            parser.feed(heard.partition(b"\r\n\r\n")[2])
            await stream.send_all(masked_frame(TEXT, proof.respond(await _text(stream, parser))))
            proof.confirm(await _text(stream, parser))
            seen.said["let in"] += 1
            for _ in range(grammar.rng.randrange(1, 6)):
                entries = [_entry(grammar, number) for number in range(grammar.rng.randrange(1, 4))]
                await stream.send_all(masked_frame(TEXT, grammar.dumped(grammar.changed(entries))))
            while True:
                await _text(stream, parser)
                seen.said["replies"] += 1
    finally:
        await trio.aclose_forcefully(stream)


async def _some(stream: trio.SocketStream) -> bytes:
    part = await stream.receive_some(65_536)
    if not part:
        raise trio.BrokenResourceError
    return bytes(part)


async def _text(stream: trio.SocketStream, parser: Parser) -> bytes:
    while True:
        event = parser.next_event()
        if event is None:
            parser.feed(await _some(stream))
        elif event.opcode in (TEXT, BINARY):
            return event.payload
        elif event.opcode == CLOSE:
            raise trio.BrokenResourceError


def _entry(grammar: Grammar, number: int) -> list[object]:
    """What nodes ask each other, but that one of them should drain."""
    session = grammar.one([each for each in grammar.keys if "-" in each])
    commands: tuple[Mapping[str, object], ...] = (
        {"t": "join", "name": "Link", "at": 0, "attach": True},
        {"t": "rejoin", "role": "player", "player": 1, "epoch": 1, "offset": 1},
        {"t": "watch", "epoch": 1, "offset": 1, "relay": "x"},
        {"t": "look", "role": "player", "player": 1, "top": 10},
        {"t": "subscribenode", "node": "fuzz", "epoch": 1, "offset": 1, "seats": [1, "host"]},
        {"t": "listplayers", "after": 0, "limit": 10},
        {"t": "flushed", "node": "fuzz", "number": 1},
        {"t": "left", "node": "fuzz", "key": 1},
        {"t": "answer", "player": 1, "id": "a", "question": 1, "choice": 0, "at": 0},
        {"t": "host", "id": "h", "do": "pause"},
        {"t": "detach"},
    )
    request = {"do": grammar.one(("ready", "expect", "adopt", "x")), "session": session, "stream": [1, 1]}
    what = grammar.rng.randrange(10)
    if what < 7:
        return ["c", number, session, grammar.changed(grammar.one(commands))]
    return ["q", number, grammar.changed(request)] if what < 9 else [grammar.one("feaxz"), number, 4010]


async def bus(grammar: Grammar, nodes: Nodes, seen: Seen) -> None:
    """What is announced to all nodes."""
    message = grammar.one(
        (
            {"kind": "member", "what": "left", "name": "fuzz", "run": "fuzz-1"},
            {"kind": "member", "what": "joined", "name": "fuzz", "run": "fuzz-1"},
            {"kind": "quiz", "id": "fuzz"},
            {"kind": "session", "id": grammar.key(), "node": "fuzz", "epoch": 1},
        )
    )
    data = grammar.dumped(grammar.changed(message))
    async with await trio.open_unix_socket(nodes.redis_socket) as stream:
        channel = f"{nodes.cluster}:bus".encode()
        words = [b"PUBLISH", channel, data]
        await stream.send_all(b"*3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in words))
        with trio.move_on_after(REPLY_S):
            seen.said[(await stream.receive_some(100)).strip().decode(errors="replace")] += 1


# -- what is stored ----------------------------------------------------------------------------------


async def rows(grammar: Grammar, nodes: Nodes, seen: Seen) -> None:
    """A session and its quiz as a newer or an older release, or a mistake, may have stored them; and then
    somebody wants to play it."""
    session, quiz = _like(nodes.row), f"row-{secrets.token_hex(6)}"
    code = f"{grammar.rng.randrange(1_000_000):06}"
    settings = grammar.changed(grammar.settings()) if grammar.often(0.7) else grammar.settings()
    definition = grammar.changed(grammar.quiz()) if grammar.often(0.7) else grammar.quiz()
    fields = {
        "id": session,
        "code": code,
        "quiz_id": quiz,
        "quiz_version": 1,
        "epoch": 0,
        "settings": settings,
    }
    fields |= {"owner": None, "granted_by": None, "finished_at": None}
    statements = f"""
        INSERT INTO quizzes SELECT (jsonb_populate_record(q, {_literal({"id": quiz, "version": 1})})).*
        FROM quizzes q LIMIT 1;
        UPDATE quizzes SET definition = {_literal(definition)} WHERE id = '{quiz}';
        INSERT INTO sessions SELECT (jsonb_populate_record(s, {_literal(fields)})).*
        FROM sessions s WHERE id = '{nodes.row}';
    """
    done = await trio.run_process(
        psql_command(nodes.database),
        stdin=statements.encode("utf-8", "replace"),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    if done.returncode != 0:
        seen.said["PostgreSQL does not take it"] += 1
        return
    ports = grammar.one(nodes.ports)
    for path in (session, f"{code}/leaderboard", f"{session}/players"):
        await http_reply(
            grammar, ports[0], seen, f"GET /api/sessions/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        )
    body = json.dumps({"name": "Row"})
    head = f"POST /api/sessions/{code}/players HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    await http_reply(grammar, ports[0], seen, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())


def _like(session: str) -> str:
    """An id of the same time, and so of the same partition."""
    return str(uuid.UUID(session.replace("-", "")[:16] + "8" + secrets.token_hex(8)[1:]))


def _literal(data: object) -> str:
    """JSON in a statement. What PostgreSQL cannot hold is left out."""
    text = json.dumps(data).replace("\\u0000", "").replace("'", "''")
    return f"'{text}'::jsonb"


DOORS: Mapping[str, Door] = {
    "WebSocket, reactor": reactor,
    "WebSocket, trio-websocket": trio_websocket,
    "HTTP API": api,
    "HTTP, realtime port": plain_http,
    "event streams": event_stream,
    "link": link,
    "link, proven": proven_link,
    "bus": bus,
    "rows": rows,
}
