from __future__ import annotations

from tests.cli.conftest import Fanfare


def test_the_scenarios_are_listed(fanfare: Fanfare) -> None:
    result = fanfare("load", "list")
    assert result.exit_code == 0
    assert "steady             many sessions of 20 to 50 players" in result.output


def test_what_does_not_go_together_is_refused(fanfare: Fanfare) -> None:
    assert "give one of them" in fanfare("load", "steady", "--spawn", "1", "--url", "http://x").output
    assert "goes with --url" in fanfare("load", "steady", "--database-url", "postgresql://x/y").output
    assert "players is 0, and must be" in fanfare("load", "steady", "--players", "0").output
    assert "NAME one of data_dir" in fanfare("load", "steady", "--node-option", "colour=1").output
    aimed = fanfare("load", "steady", "--node-option", "tick_ms=50", "--url", "http://x")
    assert "not for those of --url" in aimed.output
    unknown = fanfare("load", "storm")
    assert unknown.exit_code == 1
    assert "there is no scenario 'storm'; there are" in unknown.output
