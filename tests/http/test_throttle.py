"""Many together do not hold the loop."""

from __future__ import annotations

from collections import Counter

import trio

from server.http.throttle import FairThrottle, Throttle


async def test_a_few_go_through_in_each_turn_of_the_loop() -> None:
    throttle = Throttle(8)
    turn = 0
    passed: list[tuple[int, int]] = []

    async def count() -> None:
        nonlocal turn
        while True:
            await trio.lowlevel.checkpoint()
            turn += 1

    async def go_through(n: int) -> None:
        await throttle.go_through()
        passed.append((turn, n))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        async with trio.open_nursery() as many:
            for n in range(500):
                many.start_soon(go_through, n)
        nursery.cancel_scope.cancel()
    assert len(passed) == 500
    # The counting task may run first or last in a turn, so that two turns can share a number.
    assert max(Counter(at for at, _ in passed).values()) <= 16
    assert len({at for at, _ in passed}) >= 500 / 16


async def test_a_caller_that_gives_up_makes_room() -> None:
    throttle = Throttle(1)
    with trio.move_on_after(0) as gone:
        await throttle.go_through()
    assert gone.cancelled_caught
    with trio.fail_after(1):
        await throttle.go_through()


async def test_one_address_does_not_keep_the_others_waiting() -> None:
    throttle = FairThrottle(8, 2)
    passed: list[str] = []

    async def go_through(address: str) -> None:
        await throttle.go_through(address)
        passed.append(address)

    async with trio.open_nursery() as many:
        for _ in range(500):
            many.start_soon(go_through, "203.0.113.1")
        await trio.lowlevel.checkpoint()
        for _ in range(2):
            many.start_soon(go_through, "203.0.113.2")
        while passed.count("203.0.113.2") < 2:
            await trio.lowlevel.checkpoint()
        assert passed.count("203.0.113.1") < 20
    assert len(passed) == 502
    assert len(throttle) == 0
