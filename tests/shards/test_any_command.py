"""Whatever command a link lets through, the session that gets it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from engine.shards.link import codec
from tests.actors.world import Client, settle, world

WHOLE = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 2**31, 2**63 - 1])
TEXT = st.sampled_from(["", "a", "host", "node", "next", "start", "close", "kick", "admit", "readmit"])
ANY = WHOLE | TEXT | st.none() | st.booleans() | st.lists(WHOLE | TEXT, max_size=2)
FIELDS = sorted({name for wire_type, _ in codec._READERS.values() for name in wire_type.__struct_fields__})
USUAL: Mapping[str, st.SearchStrategy[Any]] = {
    "role": st.sampled_from(["player", "host", "spectator"]),
    "attach": st.booleans(),
    "removed": st.booleans(),
    "node": TEXT,
    "do": TEXT,
    "id": TEXT,
    **dict.fromkeys(("after", "limit", "at", "player", "number", "question", "key"), WHOLE),
}
COMMANDS = st.builds(
    lambda kind, usual, odd: {"t": kind, **usual, **odd},
    st.sampled_from(sorted(codec._READERS)),
    st.fixed_dictionaries(dict(USUAL)),
    st.dictionaries(st.sampled_from(FIELDS), ANY, max_size=3),
)


async def _survives(said: Sequence[Mapping[str, Any]]) -> None:
    async with world() as w:
        actor = await w.session()
        await w.join(actor, "Ada")
        await w.do(actor, "start")
        for data in said:
            reply = Client()
            try:
                command = codec.command_from_json(data, reply)
            except ValueError:
                continue
            actor.send(command)
            await settle()
        assert w.registry.statistics().crashes == 0


@settings(max_examples=150, deadline=None)
@given(said=st.lists(COMMANDS, min_size=1, max_size=8))
@example(said=[{"t": "listplayers", "after": -1, "limit": 5}])
@example(said=[{"t": "listplayers", "after": 0, "limit": 0}])
@example(said=[{"t": "look", "role": "player", "player": 1, "top": -(2**63)}])
@example(said=[{"t": "host", "do": "kick", "player": 1}, {"t": "look", "role": "player", "player": 1}])
def test_no_command_of_a_peer_ends_a_session(said: Sequence[Mapping[str, Any]]) -> None:
    trio.run(_survives, said, clock=MockClock())
