from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Fanfare


def test_the_plan_of_a_seed_is_printed_and_nothing_is_done(fanfare: Fanfare) -> None:
    plan = ("chaos", "--seed", "7", "--faults", "30", "--plan")
    result = fanfare(*plan)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len(lines) == 30
    assert "the node is killed and started again" in result.output
    assert fanfare(*plan).output == result.output
    assert fanfare(*plan, "--only", "link-cut").output.count("link-cut") == 30
    assert "link-cut" not in fanfare(*plan, "--without", "link-cut").output
    assert list(Path.cwd().iterdir()) == []


def test_chaos_without_faketime_says_what_to_install(
    fanfare: Fanfare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.cli.chaos.node.CLOCK_PLACES", ("/nowhere",))
    result = fanfare("chaos", "--only", "clock-step")
    assert result.exit_code == 1
    assert "install the package `libfaketime`" in result.output
    assert list(Path.cwd().iterdir()) == []


def test_what_cannot_be_done_is_refused(fanfare: Fanfare) -> None:
    assert "KIND is one of node-kill, node-term" in fanfare("chaos", "--only", "fire").output
    assert "KIND is one of node-kill, node-term" in fanfare("chaos", "--without", "fire").output
    assert "no kind is left" in fanfare("chaos", "--only", "link-cut", "--without", "link-cut").output
    assert "it exists already" in fanfare("chaos", "--keep", ".").output
    assert " data_dir, " in fanfare("chaos", "--node-option", "colour=1").output.partition("NAME one of")[2]
    nothing = fanfare("chaos", "--prove", ".")
    assert nothing.exit_code == 1
    assert "is no directory that a run has kept" in nothing.output
