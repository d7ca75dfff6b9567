"""Both client libraries keep the protocol in every scenario of `clients/conformance`, and so does Microsoft's
client of SignalR with what docs/signalr.md says beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.clients.test_js import switches
from tests.npm import ROOT, program
from tests.signalr.clients import library as signalr

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
    keeps(scenario, command(library))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.stem)
def test_a_client_of_signalr_keeps_the_protocol(scenario: Path, tmp_path: Path) -> None:
    if why := json.loads(scenario.read_text()).get("but_signalr"):
        pytest.skip(why)
    (tmp_path / "node_modules").symlink_to(signalr() / "node_modules")
    keeps(scenario, [program("node"), shutil.copy(FOLDER / "driver_signalr.mjs", tmp_path)])


def keeps(scenario: Path, command: Sequence[str | Path]) -> None:
    words = [sys.executable, FOLDER / "run.py", scenario, *command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout + done.stderr


def test_a_clock_that_is_off_is_found(tmp_path: Path) -> None:
    right = (FOLDER / "driver.py").read_text()
    wrong = right.replace("closes - game.server_now()", "closes - game.server_now() + 2000")
    (tmp_path / "driver.py").write_text(wrong)
    words = [sys.executable, FOLDER / "run.py", FOLDER / "clock.json", sys.executable, tmp_path / "driver.py"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert " ms left, and should have had " in done.stdout
