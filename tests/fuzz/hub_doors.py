"""The doors of the hub: clients of SignalR, over WebSockets and by requests."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec
import trio

from engine.websocket import BINARY, TEXT
from tests.fuzz.doors import (
    REPLY_S,
    Door,
    Nodes,
    Seen,
    dial,
    http_reply,
    latin,
    masked_frame,
    note_event,
    websocket,
)
from tests.fuzz.grammar import Grammar

RECORDS_MAX = 12
PATHS = ("/hub",) * 9 + ("/hub?id=made.up", "/hub?access_token=x", "/hub/", "/hub?id=")


async def hub_reactor(grammar: Grammar, nodes: Nodes, seen: Seen) -> None:
    """The first node's, over a WebSocket."""
    await websocket(grammar, nodes.ports[0][1], seen, PATHS, _frames, _note)


async def hub_trio_websocket(grammar: Grammar, nodes: Nodes, seen: Seen) -> None:
    """That of the second."""
    await websocket(grammar, nodes.ports[1][1], seen, PATHS, _frames, _note)


async def hub_requests(grammar: Grammar, nodes: Nodes, seen: Seen) -> None:
    """Negotiation on either port; and a client that sends by requests, and listens to an event stream or
    asks."""
    port = grammar.one((nodes.ports[0][1],) * 9 + (nodes.ports[0][0],))
    version = grammar.one(
        ("?negotiateVersion=1",) * 3 + ("", "?negotiateVersion=-1", "?negotiateVersion=" + "9" * 50)
    )
    body = grammar.dumped(grammar.value()) if grammar.often(0.2) else b""
    heard = await http_reply(grammar, port, seen, _request(grammar, "POST", f"/hub/negotiate{version}", body))
    found = re.search(rb'"connectionToken":"([^"]+)"', heard)
    token = found[1].decode() if found is not None else "made.up"
    if grammar.often(0.1):
        token = grammar.text(token)
    target = f"/hub?id={token}".encode("ascii", "replace").decode()
    if grammar.often(0.3):
        await _by_stream(grammar, port, seen, target)
        return
    await http_reply(grammar, port, seen, _request(grammar, "GET", target))
    for data in _posts(grammar):
        await http_reply(grammar, port, seen, _request(grammar, "POST", target, data))
    for method in ("GET", "GET", grammar.one(("DELETE", "PUT", "OPTIONS", "HEAD"))):
        await http_reply(grammar, port, seen, _request(grammar, method, target))


async def _by_stream(grammar: Grammar, port: int, seen: Seen, target: str) -> None:
    stream = await dial(grammar, port)
    try:
        with suppress(trio.BrokenResourceError), trio.move_on_after(REPLY_S):
            await stream.send_all(_request(grammar, "GET", target, accept="text/event-stream"))
            await stream.receive_some(65_536)
            for data in _posts(grammar):
                await http_reply(grammar, port, seen, _request(grammar, "POST", target, data))
            while part := await stream.receive_some(65_536):
                seen.said["events"] += part.count(b"\n\n")
    finally:
        await trio.aclose_forcefully(stream)


def _request(grammar: Grammar, method: str, target: str, body: bytes = b"", accept: str = "*/*") -> bytes:
    lines = [
        "Host: 127.0.0.1",
        f"Accept: {accept}",
        f"Content-Length: {len(body)}",
        "X-Requested-With: XMLHttpRequest",
    ]
    if grammar.often(0.2):
        lines.append(f"Authorization: Bearer {latin(grammar.token())}")
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{each}\r\n" for each in lines)
    return head.encode("latin-1", "replace") + b"\r\n" + body


def _posts(grammar: Grammar) -> Iterator[bytes]:
    """What a client sends by one request after another."""
    data = b"".join(_records(grammar))
    while data:
        size = grammar.one((len(data), 100, 1_000, 7_000))
        yield data[:size]
        data = data[size:]


def _records(grammar: Grammar) -> list[bytes]:
    handshake, packs = grammar.hub_handshake()
    record: Callable[[object], bytes] = _packed if packs else lambda said: grammar.dumped(said) + b"\x1e"
    records = [handshake]
    if grammar.often(0.7):
        join = {name: value for name, value in grammar.join().items() if name != "t"}
        records.append(record({"type": 1, "target": "Join", "arguments": [join], "invocationId": "j"}))
    for _ in range(grammar.rng.randrange(RECORDS_MAX)):
        said = record(grammar.hub_message())
        records.append(grammar.bytes(said) if grammar.often(0.05) else said)
    return records


def _packed(said: object) -> bytes:
    """A record of MessagePack: members in their places, as far as there are any."""
    body = said
    if isinstance(said, dict):
        kind = said.get("type")
        body = [kind, {}, *(value for name, value in said.items() if name != "type")]
        if kind in (1, 4):
            body = [kind, {}, *map(said.get, ("invocationId", "target", "arguments")), []]
    try:
        data = msgspec.msgpack.encode(body)
    except (OverflowError, UnicodeEncodeError, RecursionError):
        data = b"\xc1"
    head = bytearray()
    size = len(data)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*head, size]) + data


def _frames(grammar: Grammar) -> list[bytes]:
    data = _records(grammar)
    if grammar.often(0.2):  # all in one, or cut anywhere
        whole = b"".join(data)
        at = grammar.rng.randrange(len(whole))
        data = [whole[:at], whole[at:]]
    return [masked_frame(TEXT if grammar.often(0.05) else BINARY, each) for each in data]


def _note(opcode: int, payload: bytes, seen: Seen) -> None:
    if opcode == TEXT:
        for record in payload.split(b"\x1e")[:-1]:
            _note_message(json.loads(record), seen)
    elif opcode == BINARY:
        seen.said["packed"] += 1
    else:
        note_event(opcode, payload, seen)


def _note_message(message: Mapping[str, Any], seen: Seen) -> None:
    if "error" in message:
        code = str(message["error"]).partition(":")[0]
        seen.said[code if len(code) < 30 else "handshake refused"] += 1
        if code in ("failed", "internal"):
            seen.faults.append(f"the hub failed: {message}")
    else:
        seen.said[str(message.get("target") or message.get("type", "handshake"))] += 1


HUB_DOORS: Mapping[str, Door] = {
    "hub, reactor": hub_reactor,
    "hub, trio-websocket": hub_trio_websocket,
    "hub, by requests": hub_requests,
}
