"""What an answer costs a node from its frame to its ack, counted in steps of the loop's tasks.

The reactor, the actor and the journal are real ones, and so is the PostgreSQL behind them.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack

import trio

from engine.actors.clock import SessionClock
from engine.actors.commands import Host
from engine.storage.catalog import PostgresCatalog
from engine.storage.journal.writer import WriteBehind
from engine.storage.postgres import Database
from engine.storage.sessions import PostgresSessionStore
from server.config.config import Config
from server.realtime.conversation import ConversationDeps
from server.realtime.reactor.transport import ReactorTransport
from server.security.limits import Attempts
from server.security.tokens import Tokens
from tests.actors.world import QUIZ, Client
from tests.counting import Steps
from tests.lone_node import LoneNode, options_of
from tests.realtime.rig import SECRET, ListeningPort
from tests.settings import at_once

PLAYERS = 11


async def test_a_lone_answer_takes_four_steps_from_its_frame_to_its_ack(database: Database) -> None:
    clock, config = SessionClock(), Config(host="127.0.0.1")
    catalog = PostgresCatalog(database, clock.now_ms)
    store = PostgresSessionStore(database, catalog)
    journal = WriteBehind(database, owner="node", now_ms=clock.now_ms)
    tokens = Tokens(SECRET, 3600, clock)
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        await nursery.start(journal.run)
        lone = LoneNode(
            nursery,
            store=store,
            catalog=catalog,
            journal=journal,
            tokens=tokens,
            clock=clock,
            options=options_of(config, tick_ms=60_000, tick_max_ms=60_000),
        )
        record = await lone.router.create((await catalog.add(QUIZ)).id, at_once(early_close=False))
        deps = ConversationDeps(lone.router, tokens, clock, Attempts(1000), 1e6, 1_000_000)
        port = ListeningPort(ReactorTransport(deps, config))
        await nursery.start(port.serve)
        players = [await stack.enter_async_context(port.raw()) for _ in range(PLAYERS)]
        for number, player in enumerate(players):
            await player.open()
            await player.send_message(t="join", code=record.code, name=f"P{number}")
            await player.expect_message("joined")
        (await lone.get(record.id)).send(Host(Client(), "h", "start"))
        for player in players:
            await player.expect_message("question")
        found: list[Counter[str]] = []
        frames = []
        for player in players:
            await port.settle()
            before = port.statistics.frames_out_total
            steps = Steps()
            await player.send_message(t="answer", id="a", question=1, choice=0)
            await player.expect_message("ack")
            steps.stop()
            own = trio.lowlevel.current_task().name.rpartition(".")[2]
            found.append(Counter(name for name in steps.functions if name != own))
            frames.append(port.statistics.frames_out_total - before)
        # The first answer also has its statement prepared, and everybody is told of it. A reply of PostgreSQL
        # that comes in pieces takes a step for each piece: so the least of ten is what counts.
        least = min(found[1:], key=Counter.total)
        assert least == {
            "serve": 1,  # the reactor reads the frame, and the answer is judged and given to the journal
            "_write": 2,  # the journal sends it to PostgreSQL; and sends the ack
            "pump": 1,  # asyncio reads the reply
        }
        assert frames[1:] == [1] * (PLAYERS - 1), "the ack and nothing else"
        await port.stop()
        nursery.cancel_scope.cancel()
