"""What the tests of Microsoft's client share: a node, and an app whose pages use it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.e2e.node import Node
from tests.signalr.clients import SCRIPTS, library
from tests.web.conftest import chromium, held_node

__all__ = ["chromium"]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def app_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a page with the client's files as npm has them, on 127.0.0.1 and by another name on
    localhost."""
    folder = tmp_path_factory.mktemp("app")
    shutil.copy(SCRIPTS / "page.html", folder)
    for package in ("signalr", "signalr-protocol-msgpack"):
        built = library() / "node_modules/@microsoft" / package / "dist/browser" / f"{package}.min.js"
        shutil.copy(built, folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, name="app").start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="session")
def node(short_tmp_path: Path, app_port: int) -> Iterator[Node]:
    """For all tests that do not end it. Pages on 127.0.0.1 may use it."""
    with held_node(
        short_tmp_path / "signalr", "--allowed-origins", f"http://127.0.0.1:{app_port}"
    ) as running:
        yield running
