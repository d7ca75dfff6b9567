from __future__ import annotations

import resource

import click
import pytest

from loadtest.runs import scenario as scenarios
from loadtest.runs.faults import Moments
from server.cli.load.command import _nodes_for
from server.cli.load.nodes import check_room, players_per_node
from tests.cli.conftest import Fanfare


def test_the_scenarios_are_listed(fanfare: Fanfare) -> None:
    result = fanfare("load", "list")
    assert result.exit_code == 0
    assert "steady             many sessions of 20 to 50 players" in result.output


def test_more_players_than_the_nodes_have_files_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 20_000))
    check_room(18_850, 1)
    check_room(150_004, 8)
    with pytest.raises(click.ClickException, match="20,000 players on one node need more"):
        check_room(20_000, 1)


@pytest.mark.parametrize(
    ("files", "players"),
    [(4_096, 3_344), (20_000, 18_850), (1_000_000, 19_000), (resource.RLIM_INFINITY, 19_000)],
)
def test_a_node_gets_as_many_players_as_files_allow(
    monkeypatch: pytest.MonkeyPatch, files: int, players: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, files))
    assert players_per_node() == players
    check_room(players, 1)


def test_what_does_not_go_together_is_refused(fanfare: Fanfare) -> None:
    assert "give one of them" in fanfare("load", "steady", "--spawn", "1", "--url", "http://x").output
    assert "goes with --url" in fanfare("load", "steady", "--database-url", "postgresql://x/y").output
    assert "players is 0, and must be" in fanfare("load", "steady", "--players", "0").output
    unknown_option = fanfare("load", "steady", "--node-option", "colour=1").output
    assert "NAME one of oidc_issuer, " in unknown_option
    assert ", data_dir, " in unknown_option
    aimed = fanfare("load", "steady", "--node-option", "tick_ms=50", "--url", "http://x")
    assert "not for those of --url" in aimed.output
    users = fanfare("load", "self", "--url", "http://x")
    assert "--identity-secret goes with --url and" in users.output
    secret = fanfare("load", "steady", "--url", "http://x", "--identity-secret", "x" * 32)
    assert "--identity-secret goes with --url and" in secret.output
    clustered = fanfare("load", "steady", "--cluster", "--url", "http://x")
    assert "those of --url get --anywhere" in clustered.output
    assert "get --cluster" in fanfare("load", "steady", "--anywhere").output
    assert "go with --cluster" in fanfare("load", "steady", "--kill", "5").output
    assert "the play is over after" in fanfare("load", "steady", "--cluster", "--roll", "9999").output
    fatal = fanfare("load", "steady", "--cluster", "--spawn", "2", "--kill", "5", "--kill", "6")
    assert "1 times at most: one of 2 must be left" in fatal.output
    unknown = fanfare("load", "storm")
    assert unknown.exit_code == 1
    assert "there is no scenario 'storm'; there are" in unknown.output


def test_a_cluster_has_enough_nodes_for_those_who_are_left_to_take_everybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 20_000))
    giant = scenarios.load("giant")
    assert _nodes_for(giant, False, Moments()) == 6
    assert _nodes_for(giant, True, Moments()) == 6
    assert _nodes_for(giant, True, Moments(kill_s=[1, 2], roll_s=[3])) == 9
    assert _nodes_for(scenarios.load("spike"), False, Moments()) == 8
    assert _nodes_for(giant.changed(10, None), True, Moments()) == 2
