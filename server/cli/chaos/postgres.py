"""The PostgreSQL that `fanfare chaos` breaks."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil  # type: ignore[import-untyped]  # ships no types
import trio

from engine.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError, NotRunning, dsn
from loadtest.chaos.inject import StageFailed
from server.cli.operate.sql import psql_command

_NOT_CONNECTED = 2
"""What psql ends with when the server does not take its connection."""

TRY_AGAIN_S = 0.1

START_WITHIN_S = 60.0
GONE_WITHIN_S = 10.0


class StagedPostgres:
    """A PostgreSQL that can be started again with the same data. Calls raise StageFailed.

    Args:
        connections_max: that it takes.
    """

    def __init__(self, directory: Path, connections_max: int) -> None:
        self._directory = directory
        self._connections_max = connections_max
        self._data = directory / "postgres"
        self._copy = directory / "postgres.copy"
        self._postgres: EmbeddedPostgres | None = None
        self._paused: list[psutil.Process] = []

    @property
    def dsn(self) -> str:
        return dsn(self._directory)

    def socket_path(self) -> str:
        """Raises OSError while it does not run."""
        try:
            asked = parse_qs(urlsplit(self.dsn).query)
        except NotRunning as exc:
            raise ConnectionRefusedError(str(exc)) from exc
        return f"{asked['host'][0]}/.s.PGSQL.{asked['port'][0]}"

    async def start(self) -> None:
        self._postgres = EmbeddedPostgres(
            self._directory, timeout_s=START_WITHIN_S, connections_max=self._connections_max
        )
        try:
            await trio.to_thread.run_sync(self._postgres.start)
        except EmbeddedPostgresError as exc:
            raise StageFailed(f"PostgreSQL: {exc}") from exc

    async def kill(self) -> None:
        processes = self._processes()
        for process in processes:
            _signal(process, signal.SIGKILL)
        await _until_gone(processes)
        await self._let_go()

    async def kill_backend(self, share: float) -> None:
        backends = [each for each in self._processes()[1:] if _serves_a_client(each)]
        if backends:
            _signal(backends[min(int(share * len(backends)), len(backends) - 1)], signal.SIGKILL)
        await trio.lowlevel.checkpoint()

    async def copy(self) -> None:
        """As a crash of this moment would leave its data."""
        self.pause(True)
        try:
            await trio.to_thread.run_sync(shutil.rmtree, self._copy, True)
            done = await trio.run_process(
                ["cp", "-a", str(self._data), str(self._copy)],
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
        finally:
            self.pause(False)
        if done.returncode != 0:
            raise StageFailed(f"PostgreSQL's data cannot be copied: {done.stdout.decode(errors='replace')}")

    async def restore(self) -> None:
        """Kill the server, and start it from the copy."""
        await self.kill()
        (self._copy / "postmaster.pid").unlink(missing_ok=True)
        await trio.to_thread.run_sync(shutil.rmtree, self._data)
        self._copy.rename(self._data)
        await self.start()

    def pause(self, on: bool) -> None:
        if on:
            self._paused = self._processes()
            _signal(self._paused[0], signal.SIGSTOP)
            self._paused = self._processes()  # it makes no others now
        for process in self._paused if on else reversed(self._paused):
            _signal(process, signal.SIGSTOP if on else signal.SIGCONT)
        if not on:
            self._paused = []

    async def lock_answers(self, lasts_s: float) -> None:
        statements = f"BEGIN; LOCK TABLE answers IN EXCLUSIVE MODE; SELECT pg_sleep({lasts_s}); COMMIT;\n"
        said = ""
        with trio.move_on_after(lasts_s + START_WITHIN_S):
            while True:
                done = await trio.run_process(
                    psql_command(self.dsn),
                    stdin=statements.encode(),
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                )
                if done.returncode == 0:
                    return
                said = done.stderr.decode(errors="replace").strip()
                if done.returncode != _NOT_CONNECTED:
                    break
                await trio.sleep(TRY_AGAIN_S)  # it may still recover from the fault before
        raise StageFailed(f"the table of answers could not be locked within {START_WITHIN_S:.0f} s: {said}")

    async def end(self) -> None:
        await self._let_go()

    async def _let_go(self) -> None:
        """Free the data directory of a server that is gone, so that another can take it; or end the
        server."""
        postgres, self._postgres = self._postgres, None
        if postgres is not None:
            with suppress(EmbeddedPostgresError):
                await trio.to_thread.run_sync(postgres.stop)

    def _processes(self) -> list[psutil.Process]:
        """The postmaster, and then its children."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            postmaster = psutil.Process(int(lines[0]))
            return [postmaster, *postmaster.children(recursive=True)]
        except (OSError, IndexError, psutil.Error) as exc:
            raise StageFailed(f"PostgreSQL does not run: {exc}") from exc


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
