"""A node that `fanfare chaos` breaks, and the disk that its data lies on."""

from __future__ import annotations

import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import click
import trio

from loadtest.chaos.inject import StageFailed
from server.cli.cluster.node_process import CROWDED

START_WITHIN_S = 60.0
END_WITHIN_S = 30.0
DISK_MIB = 64
"""The size of the file system of the node's data directory, if mounting one is allowed."""

LINES_KEPT = 10
AUTHOR_KEY = secrets.token_urlsafe(18)
"""Secrets of the nodes of this run, which have to agree."""

CLOCK_PACKAGE = "libfaketime"
CLOCK_PLACES = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/lib64/faketime", "/usr/local/lib/faketime")
NODE = (sys.executable, "-m", "server.cli.main")
_UP = b"HTTP API"


class StagedNode:
    """A node that can be started again, always with the same data on the same ports. Its output goes to a log
    next to its data.

    Args:
        data_dir: exists. The log has its name.
        nursery: runs the reader of its output. StageFailed is raised there when the node ends by itself.
        options: for `fanfare serve`, ports included.
        program: replaces `fanfare`.
        clock_library: makes its wall clock settable, from `clock_library`.
    """

    def __init__(
        self,
        data_dir: Path,
        http_port: int,
        realtime_port: int,
        nursery: trio.Nursery,
        options: Sequence[str],
        program: Sequence[str],
        clock_library: Path | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.url = f"http://127.0.0.1:{http_port}"
        self.ws_url = f"ws://127.0.0.1:{realtime_port}/ws"
        self._nursery = nursery
        self._command = [
            *program,
            "serve",
            *("--data-dir", str(data_dir), "--no-samples"),
            *("--http-port", str(http_port), "--realtime-port", str(realtime_port)),
            # All players come from a few addresses of this machine, and come back all at once.
            *("--connections-per-address-max", "1000000", *CROWDED, "--log-level", "info"),
            *options,
        ]
        self._clock_library = clock_library
        self._clock = data_dir.with_suffix(".clock")
        self.set_clock(0.0)
        self._process: trio.Process | None = None
        self._heard_all: trio.Event | None = None
        self._ending = False
        self._tail: deque[bytes] = deque(maxlen=LINES_KEPT)

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Returns when it says that it is up. Raises StageFailed."""
        self._ending = False
        process = await trio.lowlevel.open_process(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.data_dir.parent,  # not here, where a fanfare.toml may lie
            env=_environment() | self._with_own_clock(),
            start_new_session=True,  # Ctrl-C is for us
        )
        self._process, self._heard_all = process, trio.Event()
        up = trio.Event()
        self._nursery.start_soon(self._listen, process, up, self._heard_all)
        with trio.move_on_after(START_WITHIN_S):
            await up.wait()
        if not up.is_set():
            raise StageFailed(
                f"the {self.data_dir.name} has not started within {START_WITHIN_S:.0f} s{self._said}"
            )

    async def kill(self) -> None:
        await self.end(signal.SIGKILL)

    async def terminate(self) -> None:
        """Raises StageFailed when it does not end well."""
        began = time.monotonic()
        code = await self.end(signal.SIGTERM)
        if code != 0:
            took_s = time.monotonic() - began
            raise StageFailed(
                f"after SIGTERM the {self.data_dir.name} ended with {code} after {took_s:.1f} s{self._said}"
            )

    def pause(self, on: bool) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    def set_clock(self, ahead_s: float) -> None:
        """Within a second its wall clock is so far ahead of the right time; below 0: behind. Its other clocks
        go on as they do."""
        if self._clock_library is not None:
            fresh = self._clock.with_suffix(".fresh")
            fresh.write_text(f"{ahead_s:+.3f}\n")
            fresh.replace(self._clock)

    def _with_own_clock(self) -> dict[str, str]:
        if self._clock_library is None:
            return {}
        return {
            "LD_PRELOAD": str(self._clock_library),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # its name in older releases
            "FAKETIME_DISABLE_SHM": "1",
        }

    async def end(self, sign: signal.Signals) -> int:
        """Returns the exit code; that of a kill when it did not end within its time."""
        process, heard_all = self._process, self._heard_all
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
        self._process = None
        return code

    async def _listen(self, process: trio.Process, up: trio.Event, heard_all: trio.Event) -> None:
        """Write down what the node says, to its end, which must not come by itself."""
        assert process.stdout is not None
        try:
            with self.data_dir.with_suffix(".log").open("ab", buffering=0) as log:
                async for data in process.stdout:
                    log.write(data)
                    self._tail += bytes(data).splitlines()
                    if _UP in data:
                        up.set()
            await process.stdout.aclose()
        finally:
            heard_all.set()
        if not self._ending:
            code = await process.wait()
            raise StageFailed(f"the {self.data_dir.name} has ended by itself with {code}{self._said}")

    @property
    def _said(self) -> str:
        return "".join(f"\n  {line.decode(errors='replace')}" for line in self._tail)

    def fill_disk(self, on: bool) -> None:
        """On a file system of its own it is full indeed; else no file of the node may grow."""
        if self.data_dir.is_mount():
            ballast = self.data_dir / "ballast"
            if not on:
                ballast.unlink(missing_ok=True)
                return
            with ballast.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(1 << 20))
            with ballast.open("ab", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(512))
        elif self._process is not None:
            with suppress(ProcessLookupError):
                _, hard = resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE)
                resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (0 if on else hard, hard))


async def end_by_itself(
    data_dir: Path, options: Sequence[str], program: Sequence[str], within_s: float
) -> tuple[int | None, str]:
    """Start a node that should end by itself. Returns its exit code, None if it had to be killed, and the end
    of its output. Its data directory is removed."""
    log = data_dir.with_suffix(".log")
    with log.open("ab") as file:
        process = await trio.lowlevel.open_process(
            [*program, "serve", "--data-dir", str(data_dir), "--no-samples", *options],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=data_dir.parent,
            env=_environment(),
            start_new_session=True,
        )
    try:
        with trio.move_on_after(within_s):
            await process.wait()
        code = process.returncode
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
                await process.wait()
            shutil.rmtree(data_dir, ignore_errors=True)
    said = log.read_text(errors="replace").splitlines()[-LINES_KEPT:]
    return code, "".join(f"\n  {line}" for line in said)


def clock_library() -> Path:
    """Of libfaketime, which gives a process a wall clock that can be set. Raises ClickException."""
    for place in CLOCK_PLACES:
        for found in sorted(Path("/").glob(f"{place[1:]}/libfaketimeMT.so.1")):
            return found
    raise click.ClickException(
        f"To set the clock of a node takes libfaketime: install the package `{CLOCK_PACKAGE}`, "
        "or leave these faults out (--without clock-step --without clock-wrong)."
    )


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FANFARE_")}
    return kept | {"FANFARE_AUTHOR_KEY": AUTHOR_KEY}


@contextmanager
def disk_of(data_dir: Path) -> Iterator[None]:
    """A small file system for the data of a node while the block runs, if mounting one is allowed. Its
    content is kept."""
    data_dir.mkdir(exist_ok=True)
    mounted = os.geteuid() == 0 and _runs(
        "mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=700", "fanfare-chaos", str(data_dir)
    )
    try:
        yield
    finally:
        if mounted:
            kept = data_dir.with_name(f"{data_dir.name}.kept")
            shutil.copytree(data_dir, kept, dirs_exist_ok=True)
            if not _runs("umount", str(data_dir)):
                _runs("umount", "--lazy", str(data_dir))
            shutil.copytree(kept, data_dir, dirs_exist_ok=True)
            shutil.rmtree(kept)


def _runs(*command: str) -> bool:
    with suppress(FileNotFoundError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False
