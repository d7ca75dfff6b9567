"""Messages of every type, composed here, as Microsoft's library and the hub write them, one file for each
type. What the two have really said to each other is in `recording.py`.

    python -m tests.signalr.golden

records them anew.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame
from server.wire import hub
from server.wire.hub import PROTOCOLS, Type
from tests.npm import program
from tests.signalr.clients import SCRIPTS, library

FOLDER = SCRIPTS / "golden"

Entry = dict[str, Any]
"""`from` says who says `message`, which is in the words of the library; `json` and `messagepack` are the
bytes, the latter in hexadecimal digits."""

_NEW = {"code": "123456", "name": "Zoë"}
_ANSWER = {"id": "a", "question": 1, "choice": 0}
_QUESTION = {"t": "question", "offset": 2, "number": 1, "text": "Grün?", "choices": None, "limit_ms": 20_000}
_ACK = {"t": "ack", "id": "a", "question": 1, "status": "accepted", "elapsed_ms": 1234}
_LONG = {
    "t": "reveal",
    "offset": 3,
    "number": 1,
    "correct": ["x" * 150],
    "counts": [0, 70_000, -1, 0.5, True],
}

CONVERSATIONS: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]] = {
    "handshake": [("client", {}), ("server", {}), ("server", {"error": "The version is 1."})],
    "invocation": [
        (
            "client",
            {"target": "Join", "arguments": [_NEW], "invocationId": "0", "type": 1},
        ),
        ("client", {"target": "Answer", "arguments": [1, [0, 2]], "type": 1}),
        ("client", {"target": "Next", "arguments": [], "invocationId": "12", "type": 1}),
        ("server", {"type": 1, "target": "question", "arguments": [_QUESTION]}),
        ("server", {"type": 1, "target": "reveal", "arguments": [_LONG]}),
    ],
    "stream_item": [("client", {"type": 2, "invocationId": "1", "item": {"a": 1}})],
    "completion": [
        ("client", {"target": "Answer", "arguments": [_ANSWER], "invocationId": "1", "type": 1}),
        ("server", {"type": 3, "invocationId": "1", "result": _ACK}),
        ("client", {"target": "Leave", "arguments": [], "invocationId": "2", "type": 1}),
        ("server", {"type": 3, "invocationId": "2"}),
        ("client", {"target": "Jump", "arguments": [], "invocationId": "3", "type": 1}),
        ("server", {"type": 3, "invocationId": "3", "error": "unknown_type: Jump is not a method."}),
        ("client", {"type": 3, "invocationId": "4", "result": 1}),
    ],
    "stream_invocation": [
        ("client", {"target": "Counter", "arguments": [1], "invocationId": "5", "type": 4}),
        ("server", {"type": 3, "invocationId": "5", "error": "unknown_type: This hub has no streams."}),
    ],
    "cancel_invocation": [("client", {"type": 5, "invocationId": "5"})],
    "ping": [("client", {"type": 6}), ("server", {"type": 6})],
    "close": [
        ("client", {"type": 7}),
        ("server", {"type": 7}),
        ("server", {"type": 7, "error": "replaced: this token joined from somewhere else"}),
        ("server", {"type": 7, "error": "shutdown: the node is going down", "allowReconnect": True}),
    ],
    "ack": [("client", {"type": 8, "sequenceId": 3})],
    "sequence": [("client", {"type": 9, "sequenceId": 1})],
}


def frame_of(message: Mapping[str, Any]) -> Frame:
    """What the hub sends for a message in the words of the library."""
    kind = message.get("type")
    if kind == Type.INVOCATION:
        return Frame(message["arguments"][0])
    if kind == Type.COMPLETION:
        if "error" in message:
            return hub.failure(message["invocationId"], *message["error"].split(": ", 1))
        return hub.completion(message["invocationId"], message.get("result"))
    if kind == Type.PING:
        return hub.PING
    if kind == Type.CLOSE:
        name = message.get("error", "left").partition(":")[0]
        return hub.closing(next(each for each in CloseReason if each.reason == name))
    return hub.SHAKEN


def said(message: Mapping[str, Any], protocol: str) -> str:
    """What the hub sends, as in a file."""
    if "type" not in message and "error" in message:
        return hub.handshake_refused(message["error"]).decode()
    data = frame_of(message).encoded(PROTOCOLS[protocol].encode)
    return data.decode() if protocol == "json" or "type" not in message else data.hex()


def by_library(files: Mapping[str, Sequence[Entry]]) -> dict[str, list[Entry]]:
    """The same with what the library writes for a client's messages, and how it reads the server's."""
    done = subprocess.run(
        [program("node"), str(SCRIPTS / "golden.mjs")],
        input=json.dumps(files),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SIGNALR_DIR": str(library())},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[Entry]] = json.loads(done.stdout)
    return found


def recorded() -> dict[str, list[Entry]]:
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def record() -> None:
    files: dict[str, list[Entry]] = {
        name: [
            {"from": who, "message": dict(message)}
            | ({each: said(message, each) for each in PROTOCOLS} if who == "server" else {})
            for who, message in conversation
        ]
        for name, conversation in CONVERSATIONS.items()
    }
    FOLDER.mkdir(exist_ok=True)
    for name, entries in by_library(files).items():
        for entry in entries:
            for protocol in PROTOCOLS:
                assert entry.pop(f"{protocol}_read", entry["message"]) == entry["message"], entry
        Path(FOLDER / f"{name}.json").write_text(
            json.dumps(entries, indent=1, ensure_ascii=False) + "\n", "utf-8"
        )


if __name__ == "__main__":
    record()
