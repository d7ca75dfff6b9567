"""What the tests of the client libraries share: a node, and a fresh project with the npm package in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import Node
from tests.npm import CLIENT, ROOT, npm
from tests.web.conftest import chromium, held_node

__all__ = ["chromium"]


@pytest.fixture(scope="session")
def client_node(short_tmp_path: Path) -> Iterator[Node]:
    """A node for all tests of clients; none of them ends it."""
    with held_node(short_tmp_path / "clients", "--no-samples") as node:
        yield node


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh project that has installed the package as `npm pack` makes it, with the examples in it."""
    packed = tmp_path_factory.mktemp("packed")
    (made,) = json.loads(npm("pack", "--json", "--pack-destination", str(packed), cwd=CLIENT))
    folder = tmp_path_factory.mktemp("project")
    (folder / "package.json").write_text('{"name": "fresh", "private": true}')
    compiler = json.loads((CLIENT / "package.json").read_text())["devDependencies"]["typescript"]
    npm("install", str(packed / made["filename"]), f"typescript@{compiler}", cwd=folder)
    for example in [*(ROOT / "examples").glob("js/*"), *(ROOT / "examples").glob("web/*")]:
        shutil.copy(example, folder)
    return folder
