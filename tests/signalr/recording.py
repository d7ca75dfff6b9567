"""What Microsoft's library and a node really say to each other, by the type of the message.

    python -m tests.signalr.recording

records it anew. Values that are others each time are put in order; which members there are, in which order
and of which type, is as it was on the wire.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import msgspec
import trio

from server.realtime import hub as hub_of_node
from server.realtime.reactor.transport import ReactorTransport
from server.wire.hub import PROTOCOLS, Type
from tests.npm import program
from tests.realtime.rig import rig
from tests.signalr.clients import PATIENCE_S, SCRIPTS, library

FOLDER = SCRIPTS / "recorded"

CHANGING = {
    "code": "123456", "token": "T", "session": "S", "epoch": 1, "now": 0, "elapsed_ms": 0, "remaining_ms": 0,
    "opens_in_ms": 0, "points": 0, "score": 0,
}  # fmt: skip
"""What stands for the values of these members; null stays null."""

ANY_TIME = {"progress", "leaderboard"}
"""Come with the tick, as many as there are."""

ONCE = (Type.PING, Type.CLOSE)
"""The same again says no more: pings come by the clock, and whether the answer to a close still arrives is
up to the network."""

SHAKEN = b"{}\x1e".hex()

Entry = dict[str, Any]
"""`from` says who says `message`, which is what the protocol makes of it: an object in JSON, in MessagePack
an array."""

Recording = dict[str, list[Entry]]
"""By the name of the type."""


def settled(value: Any, name: str = "") -> Any:
    """With values that are the same each time."""
    if name == "top":
        return []  # as of the last tick
    if isinstance(value, dict):
        return {key: settled(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [settled(each) for each in value]
    return CHANGING[name] if name in CHANGING and value is not None else value


def _records(frame: dict[str, str], protocol: str) -> Iterator[tuple[Type, Any]]:
    data = frame["data"]
    if data == SHAKEN:  # in JSON, though in a binary frame
        yield Type.HANDSHAKE, {}
        return
    if data.endswith("\x1e"):
        for part in data.split("\x1e")[:-1]:
            said = json.loads(part)
            yield Type(said.get("type", 0)), said
        return
    records, rest = PROTOCOLS[protocol].split(bytes.fromhex(data))
    assert not rest
    for record in records:
        array = msgspec.msgpack.decode(record)
        yield Type(array[0]), array


def _is_any_time(message: Any) -> bool:
    if isinstance(message, dict):
        return message.get("target") in ANY_TIME
    return message[0] == Type.INVOCATION and message[3] in ANY_TIME


def by_type(frames: list[dict[str, str]], protocol: str) -> Recording:
    found: Recording = {}
    for frame in frames:
        for kind, message in _records(frame, protocol):
            entry = {"from": frame["from"], "message": settled(message)}
            entries = found.setdefault(kind.name.lower(), [])
            if not _is_any_time(message) and not (kind in ONCE and entry in entries):
                entries.append(entry)
    return found


async def had(protocol: str) -> Recording:
    """A conversation now, with a node of this process."""
    async with rig(ReactorTransport, patience_s=PATIENCE_S) as node:
        words = (f"http://127.0.0.1:{node.port}/hub", node.code, node.host_token(), protocol)
        with trio.fail_after(PATIENCE_S):
            done = await trio.run_process(
                [program("node"), str(SCRIPTS / "recording.mjs"), *words],
                capture_stdout=True,
                env={**os.environ, "SIGNALR_DIR": str(library())},
            )
    return by_type(json.loads(done.stdout), protocol)


def recorded(protocol: str) -> Recording:
    return {
        path.stem: json.loads(path.read_text("utf-8")) for path in sorted((FOLDER / protocol).glob("*.json"))
    }


async def record() -> None:
    hub_of_node.PING_INTERVAL_S = 0.3  # type: ignore[misc]  # nobody waits 15 s for one
    for protocol in PROTOCOLS:
        folder = FOLDER / protocol
        folder.mkdir(parents=True, exist_ok=True)
        for name, entries in (await had(protocol)).items():
            text = json.dumps(entries, indent=1, ensure_ascii=False)
            (folder / f"{name}.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    trio.run(record)
