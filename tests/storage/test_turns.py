"""What a commit costs, counted in steps of tasks, statements and timers."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from engine.aio import call
from engine.ports import Commit
from engine.storage.journal.writer import SMALL
from tests.counting import Steps, counted_timers
from tests.storage.making import Listener, answered
from tests.storage.test_postgres import running_loop
from tests.storage.world import World

ROUNDS = 20


class Told(Listener):
    """Ends the count in the very step in which it is told."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self._steps = steps

    def committed(self, seq: int, commit: Commit | None = None) -> None:
        self._steps.stop()
        super().committed(seq, commit)


@pytest.mark.parametrize("answers", [1, SMALL])
async def test_a_commit_takes_three_steps_and_no_timer(
    world: World, monkeypatch: pytest.MonkeyPatch, answers: int
) -> None:
    record, epoch = await world.session()
    loop = await call(running_loop)
    seen: list[list[str]] = []
    async with world.running(alive_interval_s=3600) as journal:
        for turn in range(ROUNDS + 1):
            first = 1 + turn * answers
            facts = [answered(seq, seq) for seq in range(first, first + answers)]
            await trio.testing.wait_all_tasks_blocked()
            steps = Steps()
            told = Told(steps)
            for fact in facts:
                journal.append(record.id, epoch, [fact], told)
            await told.until(facts[-1].seq)
            if not turn:  # it connects
                before = journal.statistics()
                timers = counted_timers(loop, monkeypatch)
            else:
                seen.append(steps.functions)
        after = journal.statistics()
        assert len(timers) <= 1
    assert after.batches_total - before.batches_total == ROUNDS
    assert after.committed_total - before.committed_total == ROUNDS * answers
    # PostgreSQL may send a reply in two parts, but hardly ever does.
    assert sorted(seen, key=len)[ROUNDS // 2] == ["_write", "pump", "_write"]
