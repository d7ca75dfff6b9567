"""One slow answer is seen wherever an operator may look, each time by the same trace id."""

from __future__ import annotations

from pathlib import Path

from tests.deploy.slow_answer import follow

STILL_S = 3.0
"""Longer than an answer is on its way to its commit, on a busy machine too."""

SLOW_MS = 500


async def test_one_slow_answer_is_followed(database_dsn: str, tmp_path: Path) -> None:
    followed = await follow(database_dsn, tmp_path, tmp_path / "ops.png", still_s=STILL_S)
    [alert] = followed.alert
    assert alert["metric"]["severity"] == "ticket"
    assert followed.dashboard, "the panel shows it"
    assert followed.exemplar is not None
    assert 1000 * followed.exemplar.value >= SLOW_MS
    assert followed.kept == {followed.trace_id}
    assert followed.spans["answer"] >= followed.spans["commit"] >= SLOW_MS
    # Others were told at the next tick, and waited for no commit.
    assert followed.spans["broadcast"] < followed.spans["commit"]
    assert followed.line["trace_id"] == followed.trace_id
    assert followed.line["commit_ended_ms"] - followed.line["commit_started_ms"] >= SLOW_MS
    assert followed.trace_id in followed.top
    [line] = followed.log
    assert (line["session"], line["player"]) == (followed.line["session_id"], followed.line["player"])
    assert line["level"] == "warning"
