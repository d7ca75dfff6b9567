"""What the tests of the pages share: a browser and a node for the whole run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.e2e.node import Node, running_node
from tests.web.chromium import Chromium
from tests.web.install_chromium import executable, missing


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """Without a browser the test is skipped; on CI, where one must be, it fails."""
    path = executable()
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(missing(), pytrace=False)
        pytest.skip(missing())
    browser = Chromium(path)
    yield browser
    browser.close()


@contextmanager
def held_node(data_dir: Path, *options: str) -> Iterator[Node]:
    """A node that runs in a thread of its own, so that tests with loops of their own share it."""
    up: Future[tuple[Node, Callable[[], None]]] = Future()

    async def hold() -> None:
        try:
            async with running_node(data_dir, *options) as (node, _):
                over = trio.Event()
                token = trio.lowlevel.current_trio_token()
                up.set_result((node, lambda: token.run_sync_soon(over.set)))
                await over.wait()
        except BaseException as exc:
            if not up.done():
                up.set_exception(exc)
            raise

    with ThreadPoolExecutor(1, "node") as thread:
        held = thread.submit(trio.run, hold)
        node, end = up.result()
        yield node
        end()
        held.result()


@pytest.fixture(scope="session")
def shared_node(short_tmp_path: Path) -> Iterator[Node]:
    """A node for all tests that neither end it nor want it configured."""
    with held_node(short_tmp_path / "web") as node:
        yield node
