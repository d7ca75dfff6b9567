"""A node that acknowledges what it has not committed: what the fault harness must find."""

from __future__ import annotations

from collections.abc import Sequence

from engine.domain.facts import Fact
from engine.ports import CommitListener
from engine.storage.journal.writer import WriteBehind
from server.cli.main import main

honest = WriteBehind.append


def append(
    self: WriteBehind, session_id: str, epoch: int, facts: Sequence[Fact], listener: CommitListener
) -> None:
    honest(self, session_id, epoch, facts, listener)
    if facts:
        listener.committed(facts[-1].seq)


if __name__ == "__main__":
    WriteBehind.append = append  # type: ignore[method-assign]  # this is the lie
    main()
