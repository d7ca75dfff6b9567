"""What a commit costs, counted in steps of tasks, statements and timers."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from engine.aio import call
from engine.storage.journal.writer import SMALL
from tests.storage.making import Listener, answered
from tests.storage.test_postgres import running_loop
from tests.storage.world import World

ROUNDS = 20


class Steps(trio.abc.Instrument):
    """The functions whose tasks had a step, in order."""

    def __init__(self) -> None:
        self.of: list[str] = []

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.of.append(task.name.rsplit(".", 1)[-1])


class Told(Listener):
    """Ends the count in the very step in which it is told."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self._steps = steps

    def committed(self, seq: int) -> None:
        trio.lowlevel.remove_instrument(self._steps)
        super().committed(seq)


@pytest.mark.parametrize("answers", [1, SMALL])
async def test_a_commit_takes_three_steps_and_no_timer(
    world: World, monkeypatch: pytest.MonkeyPatch, answers: int
) -> None:
    record, epoch = await world.session()
    loop = await call(running_loop)
    timers = 0

    def counted(*args: object, **more: object) -> object:
        nonlocal timers
        timers += 1
        return call_at(*args, **more)

    call_at = loop.call_at
    seen: list[list[str]] = []
    async with world.running(alive_interval_s=3600) as journal:
        for turn in range(ROUNDS + 1):
            steps = Steps()
            told = Told(steps)
            first = 1 + turn * answers
            facts = [answered(seq, seq) for seq in range(first, first + answers)]
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.add_instrument(steps)
            for fact in facts:
                journal.append(record.id, epoch, [fact], told)
            await told.until(facts[-1].seq)
            if not turn:  # it connects
                before = journal.statistics()
                monkeypatch.setattr(loop, "call_at", counted)
            else:
                seen.append(steps.of)
        after = journal.statistics()
        assert timers <= 1
    assert after.batches_total - before.batches_total == ROUNDS
    assert after.committed_total - before.committed_total == ROUNDS * answers
    # PostgreSQL may send a reply in two parts, but hardly ever does.
    assert sorted(seen, key=len)[ROUNDS // 2] == ["_write", "pump", "_write"]
