"""The processes of a cluster on one machine: its nodes, and the supervisor of their services.

Nothing outlives `fanfare cluster`, not even when it is killed: each process has a pipe for standard input,
and ends in good order when no process holds the other end any more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import trio

from server.cli.cluster.node_process import END_WITHIN_S, LINES_KEPT, START_WITHIN_S, each_line

UP = "Fanfare is up."
"""What a node says first once it is."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The services of the nodes. `held` is a file descriptor: a process that has it keeps the services
    running."""

    database_url: str
    redis_url: str
    held: int

    def nodes_are_up(self) -> None:
        """Then HAProxy looks for them."""
        os.write(self.held, b".")


@asynccontextmanager
async def supervisor(directory: Path, nodes: int, haproxy: Sequence[str] = ()) -> AsyncGenerator[Kept]:
    """PostgreSQL and Redis while the block runs, and HAProxy if `haproxy` has its program, its file and where
    it listens.

    Raises ClickException when they do not start.
    """
    read_end, held = os.pipe()
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "server.cli.cluster.supervisor", str(directory), str(nodes), *haproxy],
        stdin=read_end,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us
    )
    os.close(read_end)
    try:
        told = b""
        with trio.move_on_after(START_WITHIN_S):
            told = await _first_line(process)
        if not told:
            raise click.ClickException("What the nodes need beside them has not started.")
        addresses = json.loads(told)
        yield Kept(addresses["postgres"], addresses["redis"], held)
    finally:
        os.close(held)
        with trio.CancelScope(shield=True):
            with trio.move_on_after(END_WITHIN_S):
                await process.wait()
            if process.returncode is None:
                click.echo(
                    f"PostgreSQL or Redis has not ended yet; process {process.pid} sees to it.", err=True
                )
            assert process.stdout is not None, "it was opened with a pipe"
            await process.stdout.aclose()


class ClusterNode:
    """One node: `run` it, wait until it is `up`.

    Args:
        data_dir: its working directory too, so it must be there.
        environment: the whole environment, settings included.
        held: the file descriptor from `Kept`, which the node holds.
        say: called with each line for the user.
    """

    def __init__(
        self,
        name: str,
        data_dir: Path,
        environment: Mapping[str, str],
        held: int,
        *,
        options: Sequence[str] = (),
        end_within_s: float = END_WITHIN_S,
        say: Callable[[str], object] = click.echo,
    ) -> None:
        self.name = name
        self.up = trio.Event()
        self.ended = trio.Event()
        self._data_dir = data_dir
        self._environment = environment
        self._held = held
        self._options = options
        self._end_within_s = end_within_s
        self._say = say
        self._complaints: deque[str] = deque(maxlen=LINES_KEPT)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the node until it ends by itself, which is reported, or until cancelled; then end it in good
        order.

        Started when the node is up. Raises ClickException if the node ends before that, or never gets up.
        """
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "server.cli.main", "serve", "--until-eof", *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._data_dir,
            env=self._environment,
            pass_fds=[self._held],
            start_new_session=True,  # Ctrl-C is for us; nodes are ended in good order
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, process)
                await self._until_up()
                task_status.started()
                await self.ended.wait()
                await process.wait()
            self._say(f"{self.name} has ended by itself, with exit code {process.returncode}.")
        finally:
            with trio.CancelScope(shield=True):
                await self._end(process)

    async def _until_up(self) -> None:
        with trio.move_on_after(START_WITHIN_S):
            async with trio.open_nursery() as nursery:
                for event in (self.up, self.ended):
                    nursery.start_soon(_cancel_after, event, nursery.cancel_scope)
        if not self.up.is_set():
            how = "has ended" if self.ended.is_set() else f"was not up within {START_WITHIN_S:g} s"
            tail = "".join(f"\n  {line}" for line in self._complaints)
            raise click.ClickException(f"{self.name} {how}.{tail}")

    async def _read(self, process: trio.Process) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(each_line, process.stdout, self._hear)
            nursery.start_soon(each_line, process.stderr, self._pass_on)
        self.ended.set()

    def _hear(self, line: str) -> None:
        if line.startswith(UP):
            self.up.set()

    def _pass_on(self, line: str) -> None:
        self._complaints.append(line)
        if self.up.is_set():
            self._say(f"{self.name}: {line}")

    async def _end(self, process: trio.Process) -> None:
        if process.returncode is None:
            process.terminate()
            with trio.move_on_after(self._end_within_s):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read, process)  # a full pipe must not hold it up
                    await process.wait()
                    nursery.cancel_scope.cancel()
        if process.returncode is None:
            self._say(f"{self.name} has not ended within {self._end_within_s:g} s and is killed.")
            process.kill()
            await process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def _first_line(process: trio.Process) -> bytes:
    """Empty if there is none."""
    assert process.stdout is not None, "it was opened with a pipe"
    read = b""
    while not read.endswith(b"\n"):
        data = await process.stdout.receive_some()
        if not data:
            return b""
        read += data
    return read
