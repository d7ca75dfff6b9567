"""A keeper of two services that write down what becomes of them, for tests that kill whom they stand for."""

from __future__ import annotations

import sys
from pathlib import Path

from server.cli.cluster.supervisor import keep


class Noted:
    def __init__(self, name: str, notes: Path) -> None:
        self.name = name
        self.notes = notes

    def start(self) -> str:
        self.note("start")
        return f"address of {self.name}"

    def stop(self) -> None:
        self.note("stop")

    def note(self, what: str) -> None:
        with self.notes.open("a") as file:
            file.write(f"{what} {self.name}\n")


class Broken(Noted):
    def start(self) -> str:
        raise OSError("no room")


if __name__ == "__main__":
    notes = Path(sys.argv[1])
    second = (Broken if sys.argv[2:] == ["broken"] else Noted)("redis", notes)
    keep(
        {"postgres": Noted("postgres", notes), "redis": second},
        sys.stdin.fileno(),
        lambda line: print(line, flush=True),
    )
