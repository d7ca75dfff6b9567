"""A crowd in a process of its own: `python -m loadtest.swarm.process`.

It is led over its standard input, one JSON object a line, and reports on its standard output in the same
way. It ends when its standard input does.

    in   {"do": "begin", "plan": ..., "pulse_s": ...}   first of all
         {"do": "cut_all"}              every connection is lost
         {"do": "mark", "fault": n, "ws_url": ...}   something is about to happen to that node; say `marked`
         {"do": "struck", "fault": n, "at": s}       it has happened
         {"do": "left"}                 say who is left, and doing what
         {"do": "write", "file": ...}   write the ledgers, and beside them what `Crowd.spreads` tells; say
                                        `written`, and end
    out  {"t": "pulse", ...}            for every `pulse_s`: `Crowd.take`, `at` on the monotonic clock, `over`
         {"t": "marked", "fault": n, "players": n}
         {"t": "left", "players": ...}                      as `Crowd.left` has them
         {"t": "written", "players": n, "faults": ...}      as `Crowd.faults` has them
"""

from __future__ import annotations

import gc
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from select import EPOLLIN
from typing import Any

import orjson

from loadtest.swarm.compact_ledger import lines
from loadtest.swarm.crowd import SPREADS, Crowd, CrowdPlan
from loadtest.swarm.loop import READ_BYTES, Loop


class Conductor:
    """Obeys the standard input and reports.

    Args:
        say: takes one object for the standard output.
    """

    def __init__(self, loop: Loop, stdin: int, say: Callable[[dict[str, Any]], None]) -> None:
        self._loop = loop
        self._stdin = stdin
        self._say = say
        self._held = b""
        self._crowd: Crowd | None = None
        self._pulse_s = 1.0
        loop.add(stdin, EPOLLIN, self)

    def ready(self, events: int) -> None:  # noqa: ARG002 - whatever it is, reading tells
        """Served."""
        data = os.read(self._stdin, READ_BYTES)
        if not data:
            self._loop.stop()
            return
        *orders, self._held = (self._held + data).split(b"\n")
        for order in orders:
            self._obey(orjson.loads(order))

    def _obey(self, order: dict[str, Any]) -> None:
        match order["do"]:
            case "begin":
                self._crowd = Crowd(CrowdPlan.from_dict(order["plan"]), self._loop)
                gc.disable()  # nothing here refers to itself, and a collection makes tens of answers late
                self._crowd.begin()
                self._pulse_s = order["pulse_s"]
                self._pulse(self._loop.now())
            case "cut_all":
                self._begun.cut_all()
            case "mark":
                players = self._begun.mark(order["fault"], order["ws_url"])
                self._say({"t": "marked", "fault": order["fault"], "players": players})
            case "struck":
                self._begun.struck(order["fault"], order["at"])
            case "left":
                self._say({"t": "left", "players": self._begun.left()})
            case "write":
                self._write(Path(order["file"]))

    @property
    def _begun(self) -> Crowd:
        assert self._crowd is not None, "the plan comes first"
        return self._crowd

    def _pulse(self, due: float) -> None:
        """One for each of its moments, however late it is."""
        crowd = self._begun
        self._say({"t": "pulse", "at": due, "over": crowd.over, **crowd.take()})
        self._loop.at(due + self._pulse_s, self._pulse, due + self._pulse_s)

    def _write(self, path: Path) -> None:
        players = self._begun.players
        self._begun.take()
        with path.open("wb") as file:
            for each in lines(player.ledger for player in players):
                file.write(orjson.dumps(each) + b"\n")
        with path.with_suffix(SPREADS).open("wb") as file:
            for spread in self._begun.spreads():
                file.write(orjson.dumps(spread) + b"\n")
        self._say({"t": "written", "players": len(players), "faults": self._begun.faults()})
        self._loop.stop()


def main() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    out = sys.stdout.buffer

    def say(message: dict[str, Any]) -> None:
        out.write(orjson.dumps(message) + b"\n")
        out.flush()

    loop = Loop()
    Conductor(loop, sys.stdin.fileno(), say)
    try:
        loop.run()
    except (KeyboardInterrupt, BrokenPipeError):
        # Whoever led this process is gone, or is being ended by the same key.
        sys.exit(1)
    finally:
        loop.close()


if __name__ == "__main__":
    main()
