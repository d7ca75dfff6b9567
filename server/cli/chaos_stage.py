"""The processes that `fanfare chaos` breaks: one node and one PostgreSQL, which can be started again."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil  # type: ignore[import-untyped]  # ships no types
import trio

from engine.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError, NotRunning, dsn
from loadtest.chaos.inject import StageFailed
from loadtest.chaos.proxy import Proxy, proxy_to
from server.cli.sql import psql_command

START_WITHIN_S = 60.0
END_WITHIN_S = 30.0
GONE_WITHIN_S = 10.0
DISK_MIB = 64
"""Of the file system that the node's data directory is on, if we may mount one."""

LINES_KEPT = 10
NODE = (sys.executable, "-m", "server.cli.main")
_UP = b"HTTP API"


class Stage:
    """Made by `staged`. The ports of the node stay the same for as long as it lasts."""

    def __init__(
        self,
        directory: Path,
        proxy: Proxy,
        nursery: trio.Nursery,
        options: Sequence[str],
        program: Sequence[str],
    ) -> None:
        self.proxy = proxy
        self.http_port, self.realtime_port = _free_ports()
        self._directory = directory
        self._nursery = nursery
        self._command = [
            *program,
            "serve",
            *("--data-dir", str(directory / "node"), "--node", "chaos", "--no-samples"),
            *("--http-port", str(self.http_port), "--realtime-port", str(self.realtime_port)),
            *("--database-url", f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"),
            # All players come from a few addresses of this machine, and come back all at once.
            *("--connections-per-address-max", "1000000", "--log-level", "info"),
            *options,
        ]
        self._node: trio.Process | None = None
        self._heard_all: trio.Event | None = None
        self._ending = False
        self._tail: deque[bytes] = deque(maxlen=LINES_KEPT)
        self._postgres: EmbeddedPostgres | None = None
        self._server: list[psutil.Process] = []
        """The processes of PostgreSQL while they stand still."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def database(self) -> str:
        """PostgreSQL itself, not by way of the proxy."""
        return dsn(self._directory)

    # -- the node --------------------------------------------------------------------------------

    async def start_node(self) -> None:
        self._ending = False
        process = await trio.lowlevel.open_process(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._directory,  # not here, where a fanfare.toml may lie
            env={name: value for name, value in os.environ.items() if not name.startswith("FANFARE_")},
            start_new_session=True,  # Ctrl-C is for us
        )
        self._node, self._heard_all = process, trio.Event()
        up = trio.Event()
        self._nursery.start_soon(self._listen, process, up, self._heard_all)
        with trio.move_on_after(START_WITHIN_S):
            await up.wait()
        if not up.is_set():
            raise StageFailed(f"the node has not started within {START_WITHIN_S:.0f} s{self._said}")

    async def kill_node(self) -> None:
        await self._end(signal.SIGKILL)

    async def end_node(self) -> None:
        began = time.monotonic()
        code = await self._end(signal.SIGTERM)
        if code != 0:
            took_s = time.monotonic() - began
            raise StageFailed(f"after SIGTERM the node ended with {code} after {took_s:.1f} s{self._said}")

    def pause_node(self, on: bool) -> None:
        if self._node is not None:
            with suppress(ProcessLookupError):
                self._node.send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    async def _end(self, sign: signal.Signals) -> int:
        """Returns the exit code; that of a kill when it did not end within its time."""
        process, heard_all = self._node, self._heard_all
        if process is None or heard_all is None:
            return 0
        self._ending = True
        process.send_signal(sign)
        with trio.move_on_after(END_WITHIN_S):
            await process.wait()
        if process.returncode is None:
            process.kill()
        code = await process.wait()
        await heard_all.wait()
        self._node = None
        return code

    async def _listen(self, process: trio.Process, up: trio.Event, heard_all: trio.Event) -> None:
        """Write down what the node says, to its end, which must not come by itself."""
        assert process.stdout is not None
        with (self._directory / "node.log").open("ab", buffering=0) as log:
            async for data in process.stdout:
                log.write(data)
                self._tail += bytes(data).splitlines()
                if _UP in data:
                    up.set()
        await process.stdout.aclose()
        heard_all.set()
        if not self._ending:
            code = await process.wait()
            raise StageFailed(f"the node has ended by itself with {code}{self._said}")

    @property
    def _said(self) -> str:
        return "".join(f"\n  {line.decode(errors='replace')}" for line in self._tail)

    # -- PostgreSQL ------------------------------------------------------------------------------

    async def start_postgres(self) -> None:
        self._postgres = EmbeddedPostgres(self._directory, timeout_s=START_WITHIN_S)
        try:
            await trio.to_thread.run_sync(self._postgres.start)
        except EmbeddedPostgresError as exc:
            raise StageFailed(f"PostgreSQL: {exc}") from exc

    async def kill_postgres(self) -> None:
        processes = self._server_processes()
        for process in processes:
            _signal(process, signal.SIGKILL)
        await _until_gone(processes)
        await self._let_go()

    async def kill_backend(self, share: float) -> None:
        backends = [each for each in self._server_processes()[1:] if _serves_a_client(each)]
        if backends:
            _signal(backends[min(int(share * len(backends)), len(backends) - 1)], signal.SIGKILL)
        await trio.lowlevel.checkpoint()

    def pause_postgres(self, on: bool) -> None:
        if on:
            self._server = self._server_processes()
        for process in self._server if on else reversed(self._server):
            _signal(process, signal.SIGSTOP if on else signal.SIGCONT)

    async def lock_answers(self, lasts_s: float) -> None:
        statements = f"BEGIN; LOCK TABLE answers IN EXCLUSIVE MODE; SELECT pg_sleep({lasts_s}); COMMIT;\n"
        with trio.move_on_after(lasts_s + START_WITHIN_S):
            done = await trio.run_process(
                psql_command(self.database),
                stdin=statements.encode(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
            if done.returncode != 0:
                raise StageFailed(f"psql: {done.stderr.decode(errors='replace').strip()}")
            return
        raise StageFailed(f"the table of answers could not be locked within {START_WITHIN_S:.0f} s")

    async def _let_go(self) -> None:
        """Of the data directory of a server that is gone, so that another can take it; or end the server."""
        postgres, self._postgres = self._postgres, None
        if postgres is not None:
            with suppress(EmbeddedPostgresError):
                await trio.to_thread.run_sync(postgres.stop)

    def _server_processes(self) -> list[psutil.Process]:
        """The postmaster, and then its children."""
        try:
            lines = (self._directory / "postgres" / "postmaster.pid").read_text().splitlines()
            postmaster = psutil.Process(int(lines[0]))
            return [postmaster, *postmaster.children(recursive=True)]
        except (OSError, IndexError, psutil.Error) as exc:
            raise StageFailed(f"PostgreSQL does not run: {exc}") from exc

    # -- the disk --------------------------------------------------------------------------------

    def fill_disk(self, on: bool) -> None:
        """On a file system of its own it is full indeed; else no file of the node may grow."""
        directory = self._directory / "node"
        if directory.is_mount():
            ballast = directory / "ballast"
            if not on:
                ballast.unlink(missing_ok=True)
                return
            with ballast.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(1 << 20))
            with ballast.open("ab", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(512))
        elif self._node is not None:
            with suppress(ProcessLookupError):
                _, hard = resource.prlimit(self._node.pid, resource.RLIMIT_FSIZE)
                resource.prlimit(self._node.pid, resource.RLIMIT_FSIZE, (0 if on else hard, hard))

    # -- the end ---------------------------------------------------------------------------------

    async def end(self) -> None:
        """Whatever state the processes are in, they are gone afterwards."""
        if self._server:
            self.pause_postgres(False)
        self.pause_node(False)
        await self._end(signal.SIGTERM)
        await self._let_go()


@asynccontextmanager
async def staged(
    directory: Path, options: Sequence[str] = (), program: Sequence[str] = NODE
) -> AsyncGenerator[Stage]:
    """A node and a PostgreSQL in a directory; afterwards both have ended.

    Args:
        options: for `fanfare serve`.
        program: what takes the place of `fanfare`.

    Raises StageFailed, also within a group, from within the block when the node ends by itself.
    """

    def socket_path() -> str:
        try:
            asked = parse_qs(urlsplit(dsn(directory)).query)
        except NotRunning as exc:
            raise ConnectionRefusedError(str(exc)) from exc
        return f"{asked['host'][0]}/.s.PGSQL.{asked['port'][0]}"

    with _disk_of(directory / "node"):
        async with proxy_to(socket_path) as proxy, trio.open_nursery() as nursery:
            stage = Stage(directory, proxy, nursery, options, program)
            try:
                await stage.start_postgres()
                await stage.start_node()
                yield stage
            finally:
                with trio.CancelScope(shield=True):
                    await stage.end()
            nursery.cancel_scope.cancel()


@contextmanager
def _disk_of(directory: Path) -> Iterator[None]:
    """A small file system for the directory while the block runs, if we may mount one. What is in it stays
    there."""
    directory.mkdir(exist_ok=True)
    mounted = os.geteuid() == 0 and _runs(
        "mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=700", "fanfare-chaos", str(directory)
    )
    try:
        yield
    finally:
        if mounted:
            kept = directory.with_name("node.kept")
            shutil.copytree(directory, kept, dirs_exist_ok=True)
            if not _runs("umount", str(directory)):
                _runs("umount", "--lazy", str(directory))
            shutil.copytree(kept, directory, dirs_exist_ok=True)
            shutil.rmtree(kept)


def _runs(*command: str) -> bool:
    with suppress(FileNotFoundError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def _signal(process: psutil.Process, sign: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(sign)


async def _until_gone(processes: Sequence[psutil.Process]) -> None:
    """Wait for processes that are no children of ours."""
    with trio.move_on_after(GONE_WITHIN_S):
        for process in processes:
            while _runs_still(process):  # noqa: ASYNC110 - nothing tells of the end of others' children
                await trio.sleep(0.01)
        return
    raise StageFailed(f"PostgreSQL was killed, and is there after {GONE_WITHIN_S:.0f} s")


def _runs_still(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _serves_a_client(process: psutil.Process) -> bool:
    try:
        return "[local]" in " ".join(process.cmdline())
    except psutil.Error:
        return False
