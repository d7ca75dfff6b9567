"""Node and npm, for the tests of the JavaScript client.

Without them these tests fail: a client that nobody has run is not one that works.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CLIENT = ROOT / "clients" / "js"
INSTALL_S = 240.0
NODE_MIN = (18, 0)


@cache
def program(name: str) -> str:
    """The path of `node` or `npm`. Fails the test when it is missing or older than the client takes."""
    path = shutil.which(name)
    if path is None:
        pytest.fail(
            f"The tests of clients/js need Node 18 or newer: `{name}` is not on the path.", pytrace=False
        )
    if name == "node" and node_version() < NODE_MIN:
        pytest.fail(
            f"The tests of clients/js need Node 18 or newer, and not {node_version()}.", pytrace=False
        )
    return path


@cache
def node_version() -> tuple[int, ...]:
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in said.strip().removeprefix("v").split(".")[:2])


def npm(*words: str, cwd: Path) -> str:
    """What an npm command prints. Fails the test with what npm says."""
    done = subprocess.run(
        [program("npm"), *words, "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
        check=False,
        env={**os.environ, "npm_config_update_notifier": "false"},
    )
    if done.returncode:
        pytest.fail(f"npm {' '.join(words)}:\n{done.stderr}{done.stdout}", pytrace=False)
    return done.stdout
