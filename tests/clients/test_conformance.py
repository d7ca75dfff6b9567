"""Both client libraries keep the protocol in every scenario of `clients/conformance`, and so does Microsoft's
client of SignalR with what docs/signalr.md says beside it."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import pytest

from tests.clients.test_js import switches
from tests.npm import ROOT, program
from tests.signalr.clients import library as signalr

FOLDER = ROOT / "clients" / "conformance"
SCENARIOS = sorted(FOLDER.glob("*.json"))
run_module = runpy.run_path(str(FOLDER / "run.py"))
run, by_command = run_module["run"], run_module["by_command"]
play = runpy.run_path(str(FOLDER / "driver.py"))["play"]


async def python(url: str, code: str) -> str:
    """The driver, in the loop that plays the node's part: a process would do little else than import."""
    lines: list[str] = []
    await play(url, code, say=lambda *words: lines.append(" ".join(map(str, words))))
    return "\n".join(lines)


def keeps(scenario: Path, client: Callable[[str, str], Awaitable[str]], backend: str = "trio") -> None:
    assert anyio.run(run, json.loads(scenario.read_text()), client, backend=backend) == []


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.stem)
def test_the_python_library_keeps_the_protocol(scenario: Path, backend: str) -> None:
    keeps(scenario, python, backend)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.stem)
def test_the_javascript_library_keeps_the_protocol(scenario: Path) -> None:
    words = [program("node"), *switches("websocket"), "--no-warnings", str(FOLDER / "driver.mjs")]
    keeps(scenario, partial(by_command, *words))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.stem)
def test_a_client_of_signalr_keeps_the_protocol(scenario: Path, tmp_path: Path) -> None:
    if why := json.loads(scenario.read_text()).get("but_signalr"):
        pytest.skip(why)
    (tmp_path / "node_modules").symlink_to(signalr() / "node_modules")
    keeps(
        scenario, partial(by_command, program("node"), shutil.copy(FOLDER / "driver_signalr.mjs", tmp_path))
    )


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_command_says_that_a_client_keeps_the_protocol(backend: str) -> None:
    driver = [sys.executable, FOLDER / "driver.py", f"--{backend}"]
    words = [sys.executable, FOLDER / "run.py", FOLDER / "kicked.json", *driver]
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
