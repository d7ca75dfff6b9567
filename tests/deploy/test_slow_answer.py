"""One slow answer is seen wherever an operator may look, each time by the same trace id."""

from __future__ import annotations

from pathlib import Path

from tests.deploy.slow_answer import STILL_S, follow


async def test_one_slow_answer_is_followed(database_dsn: str, tmp_path: Path) -> None:
    followed = await follow(database_dsn, tmp_path, tmp_path / "ops.png")
    slow_ms = 1000 * STILL_S * 0.9
    [alert] = followed.alert
    assert alert["metric"]["severity"] == "ticket"
    assert followed.dashboard, "the panel shows it"
    assert followed.exemplar is not None
    assert 1000 * followed.exemplar.value >= slow_ms
    assert followed.kept == {followed.trace_id}
    assert followed.spans["answer"] >= followed.spans["commit"] >= slow_ms
    # Others were told at the next tick, and waited for no commit.
    assert followed.spans["broadcast"] < slow_ms
    assert followed.line["trace_id"] == followed.trace_id
    assert followed.line["commit_ended_ms"] - followed.line["commit_started_ms"] >= slow_ms
    assert followed.trace_id in followed.top
    [line] = followed.log
    assert (line["session"], line["player"]) == (followed.line["session_id"], followed.line["player"])
    assert line["level"] == "warning"
