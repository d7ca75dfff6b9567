"""What is proven of a run that was cut short."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from trio.testing import MockClock

from loadtest.chaos.proof import prove_all
from loadtest.chaos.waves import SessionOf, write_sessions
from loadtest.client.api import Api
from loadtest.runs.scores import StoredScores


@pytest.mark.parametrize("own_pace", [False, True])
async def test_sessions_without_ledgers_are_ended_before_scores_are_compared(
    own_pace: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    write_sessions(
        tmp_path, [SessionOf(1, 0, "s", "123456", "ws://n/ws", "host", 3, "quiz", own_pace, by_users=True)]
    )
    asked: list[str] = []

    def node(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}")
        if request.method == "POST":
            return httpx.Response(200, json={"t": "done"})
        if request.url.path == "/metrics":
            text = "# a comment\nfanfare_leaderboard_sets_filled_total 4.0\nfanfare_leaderboard_sets 7.0\n"
            return httpx.Response(200, text=text)
        return httpx.Response(200, json={"final": "POST /api/sessions/123456/host" in asked, "players": []})

    async def answers(ids: Sequence[str]) -> Any:
        raise AssertionError("there is no ledger to compare them with")

    async def merged() -> list[str]:
        return []

    async def scores(ids: Sequence[str], quiz_id: str) -> StoredScores:
        asked.append(f"scores of {ids}")
        return StoredScores(3, 18, [], "2026-11-29", {})

    async with Api("http://node", transport=httpx.MockTransport(node)) as api:
        verdict = await prove_all([api], answers, merged, tmp_path, scores)
    assert (verdict.broken, verdict.scores, verdict.filled) == ({}, 3, 4)
    results = "GET /api/sessions/s/results.json"
    assert asked == [results, "POST /api/sessions/123456/host", results, "scores of ['s']", "GET /metrics"]
