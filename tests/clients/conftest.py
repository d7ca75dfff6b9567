"""What the tests of the client libraries share: a node, and a fresh project with the npm package in it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import Node
from tests.npm import CLIENT, ROOT, npm
from tests.web.conftest import chromium, held_node

__all__ = ["chromium"]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh project that has installed the package as `npm pack` makes it, with the examples in it, and
    room for scripts of tests (`tests`)."""
    packed = tmp_path_factory.mktemp("packed")
    (made,) = json.loads(npm("pack", "--json", "--pack-destination", str(packed), cwd=CLIENT))
    folder = tmp_path_factory.mktemp("project")
    (folder / "package.json").write_text('{"name": "fresh", "private": true}')
    compiler = json.loads((CLIENT / "package.json").read_text())["devDependencies"]["typescript"]
    npm("install", str(packed / made["filename"]), f"typescript@{compiler}", cwd=folder)
    for example in [*(ROOT / "examples").glob("js/*"), *(ROOT / "examples").glob("web/*")]:
        shutil.copy(example, folder)
    (folder / "tests").mkdir()
    return folder


@pytest.fixture(scope="session")
def app(project: Path) -> Iterator[tuple[str, Path]]:
    """The address of the app whose backend is an example, and the file with its public keys."""
    keys = project / "jwks.json"
    command = [sys.executable, ROOT / "examples" / "backend" / "backend.py", "0", project, keys]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), keys
        process.terminate()


@pytest.fixture(scope="session")
def client_node(short_tmp_path: Path, app: tuple[str, Path]) -> Iterator[Node]:
    """A node for all tests of clients; none of them ends it. It takes the users of the app, and its pages."""
    url, keys = app
    identities = {"jwks": str(keys), "issuer": "https://app.example", "audience": "fanfare"}
    options = [word for name, value in identities.items() for word in (f"--identity-{name}", value)]
    with held_node(
        short_tmp_path / "clients",
        "--no-samples",
        "--identity",
        "optional",
        *options,
        "--allowed-origins",
        url,
    ) as node:
        yield node
