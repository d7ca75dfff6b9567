"""Microsoft's client, `@microsoft/signalr` in Node: many of them in one process, led by a test."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import trio

from tests.npm import npm, program

VERSION = "10.0.11"
PACKAGES = (f"@microsoft/signalr@{VERSION}", f"@microsoft/signalr-protocol-msgpack@{VERSION}")
SCRIPTS = Path(__file__).parent
PATIENCE_S = 30.0

WAYS = (
    ("WebSockets", "json"),
    ("WebSockets", "messagepack"),
    ("ServerSentEvents", "json"),
    ("LongPolling", "json"),
    ("LongPolling", "messagepack"),
)
"""Transports and protocols that go together."""


@cache
def library() -> Path:
    """Where Node finds the client. npm installs it once for all runs, at exactly this version."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    directory = Path(home) / "fanfare-tests" / f"signalr-{VERSION}"
    if not (directory / "installed").exists():
        directory.mkdir(parents=True, exist_ok=True)
        npm("install", "--prefix", str(directory), "--save-exact", *PACKAGES, cwd=directory)
        (directory / "installed").touch()
    return directory


async def run(script: str, *arguments: str) -> dict[str, Any]:
    """What a script prints."""
    with trio.fail_after(PATIENCE_S):
        done = await trio.run_process(
            [program("node"), str(SCRIPTS / script), *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(),
        )
    assert done.returncode == 0, done.stderr.decode()
    heard = json.loads(done.stdout)
    assert isinstance(heard, dict)
    return heard


def environment() -> dict[str, str]:
    return {**os.environ, "SIGNALR_DIR": str(library())}


class Refused(Exception):
    """What the client's library raised, in its words."""


class Clients:
    """What `clients.mjs` can do."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._saying = trio.Lock()
        self._waiting: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}
        self._number = 0

    async def do(self, command: str, name: str, **words: Any) -> Any:
        """What a command of the script comes to. Raises Refused."""
        self._number += 1
        number = self._number
        answers, answer = trio.open_memory_channel[dict[str, Any]](1)
        self._waiting[number] = answers
        line = json.dumps({"line": number, "do": command, "name": name, **words})
        assert self._process.stdin is not None
        with trio.fail_after(PATIENCE_S):
            async with self._saying:
                await self._process.stdin.send_all(line.encode() + b"\n")
            said = await answer.receive()
        if "error" in said:
            raise Refused(said["error"])
        return said["result"]

    async def connect(self, name: str, url: str, **how: Any) -> Any:
        """A new client, which says `join` if that is given. Returns what it joined as."""
        return await self.do("connect", name, url=url, **how)

    async def invoke(self, name: str, target: str, *args: Any) -> Any:
        return await self.do("invoke", name, target=target, args=args)

    async def listen(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        async for data in self._process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                said = json.loads(line)
                self._waiting.pop(said["line"]).send_nowait(said)


@asynccontextmanager
async def clients() -> AsyncIterator[Clients]:
    """A process of Node, ended at the end."""
    process = await trio.lowlevel.open_process(
        [program("node"), str(SCRIPTS / "clients.mjs")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    try:
        async with trio.open_nursery() as nursery:
            running = Clients(process)
            nursery.start_soon(running.listen)
            yield running
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
