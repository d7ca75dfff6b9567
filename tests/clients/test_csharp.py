"""The C# example is C#, and says what the hub understands. Where .NET is at hand it is built too."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from server.wire.asyncapi import HEARD, SAID, document, name_of
from tests.messages import PLAY_URL, WS_URL
from tests.npm import ROOT, npm, program

FOLDER = ROOT / "examples" / "csharp"
GRAMMAR = ("web-tree-sitter@0.27.2", "tree-sitter-c-sharp@0.23.5")

COMPONENTS = document(WS_URL, PLAY_URL)["components"]["schemas"]


def members(*names: str) -> set[str]:
    return {member for name in names for member in COMPONENTS[name].get("properties", {})}


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program says."""
    folder = tmp_path_factory.mktemp("csharp")
    (folder / "package.json").write_text('{"private": true}')
    npm("install", "--ignore-scripts", "--legacy-peer-deps", *GRAMMAR, cwd=folder)
    shutil.copy(Path(__file__).parent / "csharp.mjs", folder)
    command = [program("node"), "csharp.mjs", FOLDER / "Program.cs"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_is_csharp(read: dict[str, Any]) -> None:
    assert not read["hasError"]


def test_it_says_what_the_hub_understands(read: dict[str, Any]) -> None:
    said = [each for each in read["calls"] if each["name"] in ("InvokeAsync", "SendAsync")]
    assert {each["first"] for each in said} == {"Join", "Answer"}
    for each in said:
        known = members(*(form.__name__ for form in SAID[each["first"].lower()].forms))
        assert set(each["members"]) <= known


def test_it_hears_what_the_node_says(read: dict[str, Any]) -> None:
    heard = {each.get("first") for each in read["calls"] if each["name"] == "On"} - {None}
    assert {"joined", "question", "result", "finished", "error"} <= heard
    assert heard <= {name_of(body) for body in HEARD}
    asked = {each["first"] for each in read["calls"] if each["name"] == "GetProperty"}
    assert asked <= members(*COMPONENTS)


@pytest.mark.skipif(shutil.which("dotnet") is None, reason="builds where the .NET SDK is on the path")
def test_it_builds(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "csharp")
    built = subprocess.run(
        ["dotnet", "build"], cwd=tmp_path / "csharp", capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout
