"""`fanfare` in a process that is forked from one with everything imported already.

Importing costs a process 0.8 s of the processor, and the tests start dozens of nodes. What runs is the same
command with the same words, environment and signals, in a process of its own. Not seen here are the imports
themselves and what differs in each process that begins anew, such as the hashes of texts: tests of the
command, of clusters and of faults start `fanfare` from the command line.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

import trio


@cache
def _context() -> ForkServerContext:
    """Its server is a process that the first fork starts. It ends with this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["server.cli.operate.serve", "server.node", __name__])
    return context


def _run(output: Connection, words: Sequence[str], environment: Mapping[str, str]) -> None:
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    output.close()
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["fanfare", *words]
    from server.cli.main import main

    main(prog_name="fanfare")


class ForkedProcess:
    """The part of `trio.Process` that a node needs. `stdout` has both streams of the output."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        reader, writer = _context().Pipe(duplex=False)
        with reader, writer:
            self._process = _context().Process(target=_run, args=(writer, words, environment), daemon=True)
            self._process.start()
            self.stdout = trio.lowlevel.FdStream(os.dup(reader.fileno()))

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, sign: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, sign)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        await trio.lowlevel.wait_readable(self._process.sentinel)
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode
