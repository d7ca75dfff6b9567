"""A node that cannot know whether its sessions are still its own lets them go, and not too soon."""

from __future__ import annotations

import pytest
import trio

from engine.boundary import Boundary
from server.cluster import DOUBT_LOOKS, let_go_in_doubt

LEASE_S = 3.0


@pytest.fixture
def let_go(nursery: trio.Nursery, held: list[bool]) -> list[float]:
    """When, in seconds."""
    moments: list[float] = []
    began = trio.current_time()
    nursery.start_soon(
        let_go_in_doubt,
        lambda: held[0],
        LEASE_S,
        lambda: moments.append(trio.current_time() - began),
        Boundary(),
    )
    return moments


@pytest.fixture
def held() -> list[bool]:
    return [True]


async def test_after_a_lease_in_doubt_everything_is_let_go_once(
    autojump_clock: trio.testing.MockClock, let_go: list[float], held: list[bool]
) -> None:
    await trio.sleep(10.1)
    assert let_go == []
    held[0] = False
    await trio.sleep(20.0)
    assert let_go == [pytest.approx(10.0 + LEASE_S)]
    held[0] = True
    await trio.sleep(2.0)
    held[0] = False
    await trio.sleep(10.0)
    assert len(let_go) == 2


async def test_a_stopped_node_asks_before_its_sessions_go_on(
    mock_clock: trio.testing.MockClock, let_go: list[float], held: list[bool]
) -> None:
    await trio.testing.wait_all_tasks_blocked()
    held[0] = False
    for _ in range(DOUBT_LOOKS - 1):
        mock_clock.jump(60.0)
        await trio.testing.wait_all_tasks_blocked()
    assert let_go == []
