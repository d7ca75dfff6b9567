"""What it costs to watch the loop: `python -m bench.loop`.

Tasks that do nothing take turns, as many in each turn of the loop as it says, with and without the watch.
"""

from __future__ import annotations

import trio
from rich.console import Console

from bench.__main__ import WIDTH, table
from bench.figures import Costs, Figure, machine
from server.runtime.loop_watch import LoopWatch

TASKS = (1, 10, 100)
STEPS = 20_000
ROUNDS = 15

BARE = "a step of a task that does nothing"
WATCHED = "the same, watched"


async def take_turns(tasks: int, steps: int) -> None:
    async def idle() -> None:
        for _ in range(steps // tasks):
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(idle)


async def measure(steps: int, rounds: int) -> Costs:
    costs = Costs()
    for _ in range(rounds):
        for tasks in TASKS:
            with costs.cpu_us(BARE, tasks, steps):
                await take_turns(tasks, steps)
            with LoopWatch().installed(), costs.cpu_us(WATCHED, tasks, steps):
                await take_turns(tasks, steps)
    return costs


def run(steps: int = STEPS, rounds: int = ROUNDS) -> list[Figure]:
    costs = trio.run(measure, steps, rounds)
    return [
        Figure(
            what,
            f"{tasks} a turn",
            costs.median(what, tasks),
            "µs CPU",
            costs.ratio(what, tasks, BARE, tasks),
            "bare",
        )
        for what in (BARE, WATCHED)
        for tasks in TASKS
    ]


if __name__ == "__main__":
    console = Console(width=WIDTH)
    console.print(machine(), highlight=False)
    console.print(table({"loop": run()}))
