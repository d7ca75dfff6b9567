"""Both client libraries keep the protocol in every scenario of `clients/conformance`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.test_js import switches
from tests.npm import ROOT, program

FOLDER = ROOT / "clients" / "conformance"
SCENARIOS = sorted(FOLDER.glob("*.json"))
LIBRARIES = ("javascript", "asyncio", "trio")


def command(library: str) -> list[str | Path]:
    if library == "javascript":
        return [program("node"), *switches("websocket"), "--no-warnings", FOLDER / "driver.mjs"]
    return [sys.executable, FOLDER / "driver.py", f"--{library}"]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.stem)
def test_a_library_keeps_the_protocol(scenario: Path, library: str) -> None:
    words = [sys.executable, FOLDER / "run.py", scenario, *command(library)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout + done.stderr
