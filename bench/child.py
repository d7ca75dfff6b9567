"""A process beside the benchmark's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection


@contextmanager
def child(
    run: Callable[..., object], *args: object, patience_s: float = 10.0
) -> Iterator[tuple[Connection, int]]:
    """Run `run` in a process of its own during the block. It gets `args` and its end of a connection, and is
    to return when the other end is closed.

    Yields the end of this process, and the id of the other one. Args: patience_s: then it is killed.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=partial(run, *args), args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        assert process.pid is not None
        yield ours, process.pid
    finally:
        ours.close()
        process.join(patience_s)
        process.kill()
