"""A load run as a person starts it: nodes, generators and a database of its own, and a proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.node import fanfare, running_node

SCENARIO = """\
description = "everything, small"
players = 60
duration_s = 6
session_players = [10, 20]
join_per_s = 200
start_spread_s = 0.5
question_s = 2
reveal_s = 0.5
think_s = 0.6
duplicate_share = 0.1
drop_share = 0.1
cut_all_at_s = [1.5]
stall_share = 0.1
stall_s = 1
probes = 2
"""


def processes_of_ours() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


async def proven(
    tmp_path: Path, scenario: str, *options: str, data_dir: Path | None = None
) -> tuple[Any, str]:
    """A run of a scenario, which must succeed. Its report, and what was printed."""
    file, report = tmp_path / "scenario.toml", tmp_path / "report.json"
    file.write_text(scenario)
    words = ("load", str(file), *options, "--json", str(report))
    code, said = await fanfare(*words, data_dir=data_dir)
    assert code == 0, said
    return json.loads(report.read_text()), said


async def test_a_small_run_on_two_nodes_is_proven(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    before = processes_of_ours()
    options = ("--spawn", "2", "--node-option", "tick_ms=100", "--html", str(page))
    found, said = await proven(tmp_path, SCENARIO, *options)
    assert "Proven: " in said
    assert found["proven"]
    assert found["totals"]["joined"] == 60
    assert found["proof"]["players"] == 62
    assert found["proof"]["rows"] >= found["proof"]["acknowledged"] > 60
    assert found["proof"]["leaderboards"] == 62
    assert found["totals"]["reconnects"] >= 50
    assert found["nodes"] == 2
    assert len(found["series"]) > 5
    assert found["peaks"]["nodes_mib"] > 1
    assert processes_of_ours() <= before
    assert page.read_text().count("<svg") >= 7
    assert "Traceback" not in said


async def test_players_of_a_cluster_begin_anywhere_and_end_at_their_owner(tmp_path: Path) -> None:
    report, _ = await proven(tmp_path, SCENARIO, "--cluster", "--spawn", "2")
    found = report["cluster"]
    assert found["at_owner"] == sum(found["players_by_node"].values()) == 60
    assert found["moved"] > 0
    assert len(found["players_by_node"]) == 2


OWN_PACE = """\
description = "users at their own pace, small"
pace = "self"
players = 30
duration_s = 5
session_players = [10, 20]
session_questions = 3
join_per_s = 200
question_s = 5
think_s = 0.2
pause_s = 0.1
away_share = 0.3
away_s = 0.2
drop_share = 0.1
attempts = 3
again_share = 0.5
silent_share = 0
probes = 0
"""


async def test_users_at_their_own_pace_have_scores_that_are_proven(tmp_path: Path) -> None:
    found, _ = await proven(tmp_path, OWN_PACE, "--cluster", "--spawn", "2")
    proof = found["proof"]
    assert proof["players"] == 30
    assert proof["acknowledged"] == proof["rows"]
    further, rest = divmod(proof["rows"] - 90, 3)
    assert (0 < further <= 60, rest) == (True, 0), "some go again"
    # Day, week and all time, per quiz and over all; and what each node shows of day and all time.
    assert (proof["scores"], proof["lines"]) == (30, 30 * 6 + 2 * 30 * 4)
    assert found["ends"]["left for a while"] > 0
    assert found["totals"]["reconnects"] > 0


WAVES = """\
description = "sessions that come and go, small"
players = 40
duration_s = 12
waves = 2
session_questions = 2
session_players = [10, 20]
question_s = 1
reveal_s = 0.3
think_s = 0.3
memory_growth_max = 1
probes = 0
"""


async def test_sessions_come_and_go_and_memory_is_judged(tmp_path: Path) -> None:
    found, said = await proven(tmp_path, WAVES)
    assert found["proven"]
    assert found["flat"]["holds"]
    assert found["totals"]["joined"] == found["proof"]["players"] > 40, "the first waves have been followed"
    assert "times 4 s: " in said


async def test_where_nodes_are_asked_from_outside_nobody_says_who_owned_what(tmp_path: Path) -> None:
    async with running_node(tmp_path / "node", "--no-samples") as (node, _):
        options = ("--url", node.url, "--anywhere")
        found, _ = await proven(tmp_path, SCENARIO, *options, data_dir=node.data_dir)
    place = node.ws_url.removeprefix("ws://").removesuffix("/ws")
    cluster = {"moved": 0, "handed": 0, "at_owner": None, "players_by_node": {place: 60}}
    assert found["cluster"] == cluster
    assert found["spread"]["end"]["players"] > 30


async def test_what_cannot_be_run_is_said_in_one_line() -> None:
    code, said = await fanfare("load", "steady", "--url", "http://127.0.0.1:9", "--players", "5")
    assert code == 1
    assert "No server answers at http://127.0.0.1:9" in said
    assert "Traceback" not in said
