"""A node as a process of its own, which runs the command that a person starts it with."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psutil
import trio

from engine.aio import open_asyncio
from engine.storage import embedded
from engine.storage.embedded import EmbeddedPostgres
from engine.storage.postgres import Database, Row
from loadtest.client.api import Api
from server.listening import free_ports
from server.security.tokens import author_key_in
from tests.e2e.forked import ForkedProcess

PATIENCE_S = 60.0
"""Longer than a start or an end takes on a busy machine."""

FANFARE = [sys.executable, "-m", "server.cli.main"]


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FANFARE_")}


@cache
def _empty_postgres() -> Path:
    """A database cluster that initdb has made and nobody has used."""
    directory = Path(tempfile.mkdtemp(prefix="fanfare-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    server = EmbeddedPostgres(directory)
    server.start()
    server.stop()
    return directory / "postgres"


def with_postgres(data_dir: Path) -> Path:
    """Give a new data directory a database cluster that is a copy: initdb costs a second of the processor,
    and a hundred tests need one. That a node makes its own is for `tests/storage/test_embedded.py`."""
    if not (data_dir / "postgres").exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", _empty_postgres(), data_dir / "postgres"], check=True)
    return data_dir


@dataclass
class Node:
    """`start` it, `kill` it, start it again: the ports and the data directory stay the same."""

    data_dir: Path
    options: Sequence[str] = ()
    ports: list[int] = field(default_factory=lambda: free_ports(2))
    process: trio.Process | ForkedProcess | None = None
    said: str = ""
    forked: bool = True
    """From a process with everything imported. Tests of the command itself start that."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.ports[1]}/ws"

    @property
    def author_key(self) -> str:
        """The configured one, or the one that the node has made."""
        if "--author-key" in self.options:
            return self.options[list(self.options).index("--author-key") + 1]
        return author_key_in(self.data_dir) or ""

    def as_author(self, path: str) -> str:
        """The page's address with the key, as the node prints it."""
        return f"{self.url}{path}#key={self.author_key}"

    @property
    def words(self) -> list[str]:
        return [
            "serve",
            "--data-dir",
            str(self.data_dir),
            "--http-port",
            str(self.ports[0]),
            "--realtime-port",
            str(self.ports[1]),
            *self.options,
        ]

    async def start(self) -> None:
        """Returns once the node says that it is up."""
        if "--database-url" not in self.options:
            with_postgres(self.data_dir)
        if self.forked:
            self.process = ForkedProcess(self.words, clean_environment())
        else:
            self.process = await trio.lowlevel.open_process(
                [*FANFARE, *self.words],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
            )
        assert self.process.stdout is not None
        self.said = ""
        with trio.fail_after(PATIENCE_S):
            while "watch CODE" not in self.said:
                data = await self.process.stdout.receive_some()
                assert data, f"the node ended at its start:\n{self.said}"
                self.said += data.decode()

    async def kill(self) -> None:
        """As if the power of this one process had been cut. Its database server stays up."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()
        await self._forget()

    async def stop(self, sign: signal.Signals = signal.SIGTERM) -> int:
        """End it in good order. Returns the exit code."""
        assert self.process is not None
        self.process.send_signal(sign)
        with trio.fail_after(PATIENCE_S):
            code = await self.process.wait()
        await self._forget()
        return code

    async def _forget(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        async for data in self.process.stdout:
            self.said += data.decode()
        self.process = None

    @property
    def database_processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.name() == "postgres" and str(self.data_dir) in process.cwd():
                    found.append(process)
        return found

    async def query(self, sql: str, *args: object) -> Sequence[Row]:
        """Straight from the tables."""
        async with open_asyncio(), Database.open(embedded.dsn(self.data_dir)) as database:
            return await database.fetch(sql, *args)


@asynccontextmanager
async def running_node(data_dir: Path, *options: str, forked: bool = True) -> AsyncIterator[tuple[Node, Api]]:
    """A node and its API; nothing of it is left afterwards, however the test ends."""
    node = Node(data_dir, options, forked=forked)
    try:
        await node.start()
        async with Api(node.url, author_key=node.author_key) as api:
            yield node, api
    finally:
        with trio.CancelScope(shield=True):
            if node.process is not None:
                await node.stop()
            for process in node.database_processes:
                with suppress(psutil.Error):
                    process.kill()


async def fanfare(*words: str, data_dir: Path | None = None, forked: bool = False) -> tuple[int, str]:
    """Run a client command to its end. Returns its exit code and all that it printed. `data_dir`: of the node
    on this machine that it is about. `forked`: as of `Node`."""
    where = {} if data_dir is None else {"FANFARE_DATA_DIR": str(data_dir)}
    environment = clean_environment() | where
    with trio.fail_after(5 * PATIENCE_S):
        if forked:
            process = ForkedProcess(words, environment)
            said = b"".join([data async for data in process.stdout])
            return await process.wait(), said.decode()
        done = await trio.run_process(
            [*FANFARE, *words],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
            env=environment,
        )
    return done.returncode, done.stdout.decode()
