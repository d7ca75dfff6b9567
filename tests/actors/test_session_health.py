"""The host hears how the session is: who is connected and lags, and whether answers are saved."""

from __future__ import annotations

from trio.testing import MockClock

from engine.actors.commands import Detach
from tests.actors.world import Client, World, settle, world


async def look(w: World, p99_ms: int | None = None, *, spools: bool = False) -> None:
    await w.registry.tell_hosts(p99_ms, spools=spools)
    await settle()


async def test_the_host_alone_hears_it_and_only_what_has_changed(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        await look(w)
        host = await w.host(actor)
        await look(w, 12)
        await look(w, 12)
        told = {"players": 1, "connected": 1, "lagging": 0, "waiting": 0, "p99_ms": 12}
        assert host.got("health") == [{"t": "health", **told, "saved": True, "saved_in": "postgresql"}]
        actor.send(Detach(ada))
        await settle()
        await look(w, 12, spools=True)
        assert (host.last("health")["connected"], host.last("health")["saved_in"]) == (0, "spool")
        assert ada.got("health") == []


async def test_another_connection_of_the_host_is_told_anew(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        first = await w.host(actor)
        await look(w)
        second = await w.host(actor)
        await look(w)
        assert [len(each.got("health")) for each in (first, second)] == [1, 1]


async def test_answers_are_saved_if_those_from_before_the_last_look_are(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada, host = await w.join(actor, "Ada"), await w.host(actor)
        await w.do(actor, "start")
        await look(w)
        w.journal.fail()
        w.answer(actor, ada, 1)
        await settle()
        await look(w)
        assert host.last("health")["saved"], "it is on its way"
        await look(w)
        assert not host.last("health")["saved"]
        w.journal.heal()
        await settle()
        await look(w)
        assert host.last("health")["saved"]


async def test_connections_that_lag_are_counted(autojump_clock: MockClock) -> None:
    class Lagging(Client):
        lags = True

    async with world() as w:
        actor = await w.session()
        host = await w.host(actor)
        for _ in range(3):
            w.seat(actor, Lagging())
        await settle()
        await look(w)
        assert host.last("health")["lagging"] == 3


async def test_a_session_that_is_handed_over_says_nothing(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        host = await w.host(actor)
        actor.give_away()
        await look(w)
        assert host.got("health") == []
