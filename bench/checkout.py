"""A node of any checkout of the project, beside a PostgreSQL of its own: to tell before and after."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import trio

from bench.figures import process_cpu_s
from engine.storage.embedded import EmbeddedPostgres
from loadtest.client.api import Api
from server.listening import free_ports
from tests.e2e.node import clean_environment

ROOT = Path(__file__).parent.parent
AUTHOR_KEY = "an-author-key-for-benchmarks"
START_WITHIN_S = 90.0
END_WITHIN_S = 30.0
LOOK_EVERY_S = 0.05
CONNECTIONS_MAX = 60


@dataclass
class CheckoutNode:
    """`start` it, `stop` it, start it again. It may die meanwhile: that is for whoever looks on to judge.

    Args:
        checkout: the directory with its packages.
        options: for `fanfare serve`.
        cpu: the only one that it may use; None: any.
        environ: of its process, beside what every node gets.
    """

    checkout: Path
    data_dir: Path
    options: Sequence[str]
    cpu: int | None = None
    ports: list[int] = field(default_factory=lambda: free_ports(3))
    process: trio.Process | None = None
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def realtime_port(self) -> int:
        return self.ports[1]

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.realtime_port}/ws"

    @property
    def log(self) -> Path:
        return self.data_dir.with_suffix(".log")

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def memory_mb(self) -> float:
        assert self.process is not None
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20 if self.alive else 0.0

    def cpu_s(self) -> float:
        assert self.process is not None
        return process_cpu_s(self.process.pid) if self.alive else 0.0

    def api(self) -> Api:
        return Api(self.url, author_key=AUTHOR_KEY)

    async def start(self) -> None:
        """Returns once it says that it is up. Raises RuntimeError."""
        self.data_dir.mkdir(exist_ok=True)
        seen = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = await trio.lowlevel.open_process(
                [
                    *(sys.executable, "-m", "server.cli.main", "serve", "--data-dir", str(self.data_dir)),
                    *(
                        "--http-port",
                        str(self.ports[0]),
                        "--realtime-port",
                        str(self.ports[1]),
                        "--no-samples",
                    ),
                    *("--author-key", AUTHOR_KEY, *self.options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data_dir,
                env=clean_environment() | {"PYTHONPATH": str(self.checkout), **self.environ},
                start_new_session=True,
            )
        if self.cpu is not None:
            os.sched_setaffinity(self.process.pid, {self.cpu})
        with trio.move_on_after(START_WITHIN_S):
            while self.alive:
                if b"WebSocket " in self.log.read_bytes()[seen:]:
                    return
                await trio.sleep(LOOK_EVERY_S)
        said = self.log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"the node has not started:\n{said}")

    def send(self, sign: signal.Signals) -> None:
        assert self.process is not None
        if self.alive:
            self.process.send_signal(sign)

    async def stop(self, sign: signal.Signals = signal.SIGTERM) -> int | None:
        """The exit code; None when it had to be killed."""
        if self.process is None:
            return 0
        self.send(sign)
        with trio.move_on_after(END_WITHIN_S):
            return await self.process.wait()
        self.process.kill()
        await self.process.wait()
        return None


@asynccontextmanager
async def postgres(cpu: int | None = None) -> AsyncIterator[tuple[Path, str]]:
    """A new directory with a PostgreSQL in it, and its DSN. Nothing is left of either."""
    directory = Path(tempfile.mkdtemp(prefix="fanfare-"))
    server = EmbeddedPostgres(directory, connections_max=CONNECTIONS_MAX)
    try:
        dsn = await trio.to_thread.run_sync(server.start)
        if cpu is not None:
            pid = int((directory / "postgres" / "postmaster.pid").read_text().splitlines()[0])
            for process in (psutil.Process(pid), *psutil.Process(pid).children()):
                os.sched_setaffinity(process.pid, {cpu})
        yield directory, dsn
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(server.stop)
        shutil.rmtree(directory, ignore_errors=True)
