"""How many connections the limit of open files leaves room for."""

from __future__ import annotations

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cli.operate.doctor import file_limit
from server.config.config import Config
from server.file_limit import CONNECTIONS_MOST, FILES_BESIDE, HTTP_LEAST, files_allowed, problem, room


@pytest.mark.parametrize(
    ("connections_max", "allowed", "expected"),
    [
        (0, 20_000, (19_250, 500)),
        (0, 1_024, (674, 100)),
        (0, 1_048_576, (1_000_000, 4_000)),
        (0, 10, (1, 100)),
        (15_000, 20_000, (15_000, 4_000)),
        (19_000, 20_000, (19_000, 750)),
        (30_000, 20_000, (30_000, 100)),
    ],
)
def test_what_a_limit_leaves_room_for(connections_max: int, allowed: int, expected: tuple[int, int]) -> None:
    assert room(connections_max, allowed) == expected


@given(st.integers(FILES_BESIDE + HTTP_LEAST + 1, 10_000_000))
def test_all_connections_together_fit_into_the_limit(allowed: int) -> None:
    taken = room(0, allowed)
    assert 1 <= taken.realtime <= CONNECTIONS_MOST
    assert taken.realtime + taken.http + FILES_BESIDE <= allowed


def test_a_limit_that_is_low_is_told_with_what_raises_it() -> None:
    assert problem(0, 20_000) is None
    assert problem(15_000, 20_000) is None
    low = problem(0, 4_096)
    assert low is not None
    assert "4,096 open files, which leaves room for 3,744 connections" in low
    assert "LimitNOFILE=" in low
    too_many = problem(30_000, 20_000)
    assert too_many is not None
    assert "needs 30,350 open files" in too_many


def test_the_limit_that_counts_is_the_one_up_to_which_a_node_may_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1_024, 20_000))
    assert files_allowed() == 20_000
    found = file_limit(Config())
    assert (found.state, found.detail) == (
        "ok",
        "20,000 allowed: room for 19,250 connections, and 500 to the HTTP API",
    )
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1_024, resource.RLIM_INFINITY))
    assert room(0) == (1_000_000, 4_000)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1_024, 1_024))
    assert file_limit(Config()).state == "warning"
