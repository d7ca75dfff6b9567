"""The bridge to asyncio: what passes over it, and that neither side starves or outlives the other."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import weakref
from collections.abc import Iterator
from contextvars import ContextVar

import pytest
import trio
from trio.testing import MockClock, Sequencer, wait_all_tasks_blocked

from engine.aio import CANCELLED_TIMERS_MAX, call, open_asyncio, rest
from tests.counting import Steps


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        yield near, far


async def ask(near: socket.socket) -> bytes:
    """asyncio-flavoured: one request, and its reply."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(near, b"?")
    return await loop.sock_recv(near, 10)


async def test_a_request_is_sent_in_the_step_of_its_caller_and_its_reply_takes_two_more(
    asyncio_loop: None, pair: tuple[socket.socket, socket.socket], nursery: trio.Nursery
) -> None:
    near, far = pair
    replies: list[bytes] = []

    async def caller() -> None:
        replies.append(await call(ask, near))

    nursery.start_soon(caller)
    sending = Steps()
    await wait_all_tasks_blocked()
    sending.stop()
    assert far.recv(10) == b"?"
    receiving = Steps()
    far.send(b"!")
    await wait_all_tasks_blocked(0.05)
    receiving.stop()
    assert replies == [b"!"]
    # The caller's, and that of this task, which waits for it.
    assert len(sending.names) == 2
    # The pump's, the caller's, and that of this task.
    assert len(receiving.names) == 3


async def test_what_is_ready_again_and_again_does_not_keep_the_loop(
    asyncio_loop: None, nursery: trio.Nursery
) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async def work() -> None:
        for _ in range(30):
            until = time.perf_counter() + 0.001
            while time.perf_counter() < until:
                pass
            await asyncio.sleep(0)

    nursery.start_soon(others)
    await call(work)
    assert turns >= 9, "three rounds in each turn"


async def test_timers_that_were_cancelled_are_forgotten(asyncio_loop: None) -> None:
    contexts: list[weakref.ref[Request]] = []

    class Request:
        pass

    request: ContextVar[Request] = ContextVar("request")

    async def work() -> None:
        request.set(made := Request())
        contexts.append(weakref.ref(made))
        asyncio.get_running_loop().call_later(3600, print).cancel()

    for _ in range(500):
        await call(work)
    assert sum(context() is not None for context in contexts) <= CANCELLED_TIMERS_MAX + 1


async def test_a_rest_takes_its_time(asyncio_loop: None, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    await call(rest, 5.0)
    assert trio.current_time() == began + 5


async def test_cancellation_waits_until_what_was_called_has_unwound(asyncio_loop: None) -> None:
    seen: list[str] = []

    async def hold() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0.01)
            raise
        finally:
            seen.append("unwound")

    with trio.move_on_after(0.01) as scope:
        await call(hold)
    assert scope.cancelled_caught
    assert seen == ["cancelled", "unwound"]


async def test_what_comes_to_its_end_in_spite_of_a_cancellation_has_a_result(asyncio_loop: None) -> None:
    async def go_on() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "done all the same"
        raise AssertionError

    with trio.move_on_after(0.01) as scope:
        assert await call(go_on) == "done all the same"
    assert not scope.cancelled_caught


async def test_a_cancellation_that_nobody_asked_for_is_an_error(asyncio_loop: None) -> None:
    async def give_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await call(give_up)


async def test_what_was_cancelled_before_it_is_not_called(asyncio_loop: None) -> None:
    called = False

    async def note() -> None:
        nonlocal called
        called = True

    with trio.CancelScope() as scope:
        scope.cancel()
        await call(note)
    assert not called


async def test_errors_pass_unchanged(asyncio_loop: None) -> None:
    error = KeyError("mine")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise error

    with pytest.raises(KeyError) as caught:
        await call(fail)
    assert caught.value is error


async def test_a_call_lets_others_have_a_turn_even_if_it_waits_for_nothing(asyncio_loop: None) -> None:
    async def nothing() -> None:
        pass

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            sequencer = Sequencer()

            async def other() -> None:
                async with sequencer(1):
                    nursery.cancel_scope.cancel()

            nursery.start_soon(other)
            async with sequencer(0):
                pass
            while True:
                await call(nothing)


async def test_asyncio_code_that_never_waits_starves_nobody() -> None:
    async def spin() -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            loop.call_soon(again)

        again()
        await asyncio.sleep(3600)

    async with open_asyncio(), trio.open_nursery() as nursery:
        nursery.start_soon(call, spin)
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


async def test_timers_follow_the_clock_of_trio(autojump_clock: MockClock) -> None:
    fired: list[float] = []

    async def set_timers() -> None:
        loop = asyncio.get_running_loop()
        for delay_s in (30, 10, 20, 0):
            loop.call_later(delay_s, lambda: fired.append(round(trio.current_time() - began_s)))
        loop.call_later(15, lambda: fired.append(-1)).cancel()

    async with open_asyncio():
        began_s = trio.current_time()
        await call(set_timers)
        await call(asyncio.sleep, 3600)
        assert trio.current_time() - began_s == pytest.approx(3600)
    assert fired == [0, 10, 20, 30]


async def test_timers_that_were_cancelled_wake_the_loop_once_at_most(autojump_clock: MockClock) -> None:
    async def set_timers() -> None:
        loop = asyncio.get_running_loop()
        for delay_s in range(1, 101):
            loop.call_later(delay_s, print).cancel()

    async with open_asyncio():
        await call(set_timers)
        steps = Steps()
        await trio.sleep(200)
        steps.stop()
    # Once the pump, once this task.
    assert len(steps.names) <= 4


async def test_a_short_reply_is_not_read_into_a_large_buffer(
    asyncio_loop: None, nursery: trio.Nursery
) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def connect() -> int:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, *listener.socket.getsockname())
        size: int = transport.max_size
        transport.close()
        return size

    async with listener:
        assert await call(connect) <= 65_536


async def test_a_thread_of_asyncio_is_heard(asyncio_loop: None) -> None:
    async def in_a_thread() -> int:
        return await asyncio.get_running_loop().run_in_executor(None, lambda: 7)

    assert await call(in_a_thread) == 7


async def test_a_block_within_a_block_is_a_loop_of_its_own(asyncio_loop: None) -> None:
    async def running_loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    outer = await call(running_loop)
    async with open_asyncio():
        assert await call(running_loop) is not outer
    assert await call(running_loop) is outer


async def test_at_the_end_what_still_runs_is_cancelled_and_unwinds() -> None:
    seen: list[str] = []

    async def hold() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)
            seen.append("unwound")

    async def leave_behind() -> asyncio.Task[None]:
        return asyncio.create_task(hold())

    async with open_asyncio():
        left = await call(leave_behind)
        await wait_all_tasks_blocked()
    assert seen == ["unwound"]
    assert left.cancelled()


async def test_a_block_that_is_cancelled_can_still_call_with_a_shield() -> None:
    with trio.CancelScope() as scope:
        async with open_asyncio():
            scope.cancel()
            with trio.CancelScope(shield=True):
                await call(asyncio.sleep, 0.01)
            seen = True
    assert seen


async def test_an_error_of_the_block_reaches_its_caller() -> None:
    with pytest.RaisesGroup(KeyError):
        async with open_asyncio():
            raise KeyError


async def test_an_error_that_nobody_waits_for_any_more_is_logged_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def give_up() -> None:
        asyncio.get_running_loop().create_future().set_exception(ConnectionError("lost"))

    async with open_asyncio():
        await call(give_up)
        gc.collect()
        await wait_all_tasks_blocked()
        await call(asyncio.sleep, 0)
    assert "never retrieved: ConnectionError('lost')" in caplog.text


async def test_the_bridge_lets_no_other_error_pass() -> None:
    async def plan_a_mistake() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)

    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with open_asyncio():
            await call(plan_a_mistake)
            await trio.sleep_forever()


async def test_the_bridge_needs_its_block() -> None:
    async def nothing() -> None:
        pass

    with pytest.raises(RuntimeError):
        await call(nothing)


async def test_after_the_block_nothing_can_be_called(nursery: trio.Nursery) -> None:
    async def nothing() -> None:
        pass

    async def late() -> None:
        await over.wait()
        with pytest.raises(RuntimeError):
            await call(nothing)

    over = trio.Event()
    async with open_asyncio():
        nursery.start_soon(late)
    over.set()
