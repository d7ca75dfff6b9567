"""A node as a process of its own, and the embedded database that it leaves behind when it is killed."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import trio

NODE = (sys.executable, "-m", "server.cli.main")
START_WITHIN_S = 120.0
END_WITHIN_S = 30.0
LINES_KEPT = 20
CROWDED = ("--seats-per-address-max", "1000000", "--seats-per-address-per-s", "1000000")
"""For players who all come from a few addresses of this machine."""


_ADDRESS = re.compile(r"HTTP API\s+(https?://\S+)")


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """A node that runs. `url` is the address of its HTTP API."""

    url: str
    pid: int
    author_key: str


@asynccontextmanager
async def node_process(
    data_dir: Path,
    options: Sequence[str] = (),
    program: Sequence[str] = NODE,
    author_key: str | None = None,
) -> AsyncGenerator[NodeProcess]:
    """Run `fanfare serve` while the block runs, on free ports unless the options name others.

    However the block is left, the process has ended afterwards, and so has the database in `data_dir`. Raises
    ClickException when the node does not start or dies.

    Args:
        program: replaces `fanfare`.
        author_key: by default a random one.
    """
    key = author_key or secrets.token_urlsafe(18)
    process = await trio.lowlevel.open_process(
        [
            *(*program, "serve"),
            *("--data-dir", str(data_dir), "--http-port", "0", "--realtime-port", "0"),
            *("--log-level", "warning"),
            *options,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=data_dir,  # not here, where a fanfare.toml may lie
        env={name: value for name, value in os.environ.items() if not name.startswith("FANFARE_")}
        | {"FANFARE_AUTHOR_KEY": key},
        start_new_session=True,  # Ctrl-C is for us; the node is ended in good order
    )
    output = Output(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(output.read)
            with trio.move_on_after(START_WITHIN_S):
                await output.address_known.wait()
            if output.address is None:
                raise click.ClickException(
                    f"The node has not started within {START_WITHIN_S:g} s.{output.tail}"
                )
            yield NodeProcess(output.address, process.pid, key)
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await _end(process, data_dir)


class Output:
    """What a node prints: its address, and its last complaints in case it dies."""

    def __init__(self, process: trio.Process) -> None:
        self.address: str | None = None
        self.address_known = trio.Event()
        self._process = process
        self._complaints: deque[str] = deque(maxlen=LINES_KEPT)

    async def read(self) -> None:
        """To the end, which must not come by itself."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(each_line, self._process.stdout, self._hear)
            nursery.start_soon(each_line, self._process.stderr, self._complaints.append)
        raise click.ClickException(f"The node has ended by itself.{self.tail}")

    def _hear(self, line: str) -> None:
        found = _ADDRESS.search(line)
        if found and self.address is None:
            self.address = found[1]
            self.address_known.set()

    @property
    def tail(self) -> str:
        return "".join(f"\n  {line}" for line in self._complaints)


async def each_line(stream: trio.abc.ReceiveStream | None, hear: Callable[[str], None]) -> None:
    """To the end of the stream."""
    assert stream is not None, "the process was opened with pipes"
    rest = b""
    async for chunk in stream:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            hear(line.decode(errors="replace"))


async def _end(process: trio.Process, data_dir: Path) -> None:
    if process.returncode is None:
        process.terminate()
        with trio.move_on_after(END_WITHIN_S):
            await _drain(process)
        if process.returncode is None:
            process.kill()
            await process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            await stream.aclose()
    if process.returncode != 0:
        await trio.to_thread.run_sync(_stop_database, data_dir)


async def _drain(process: trio.Process) -> None:
    """Wait for the end; a full pipe must not hold it up."""
    async with trio.open_nursery() as nursery:
        for stream in (process.stdout, process.stderr):
            nursery.start_soon(each_line, stream, lambda _: None)
        await process.wait()
        nursery.cancel_scope.cancel()


def _stop_database(data_dir: Path) -> None:
    """The database outlives a node that was killed: take it up and stop it, unless it is another node's."""
    from engine.storage.embedded import DataDirectoryInUse, EmbeddedPostgres, NotRunning, dsn

    try:
        dsn(data_dir)
        database = EmbeddedPostgres(data_dir)
        database.start()
    except (NotRunning, DataDirectoryInUse):
        return
    database.stop()
