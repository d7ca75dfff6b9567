"""One run: a cluster, sessions, people who play them, faults, and what must hold of it all."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import trio

from engine.domain.facts import AnswerAccepted, AnswerMerged, AttemptBegun, Finished, PlayerJoined
from engine.domain.quiz import Quiz
from engine.domain.session import Session
from engine.domain.settings import OPEN_MIN_MS
from engine.ports import SessionRecord
from tests.settings import at_once
from tests.shards.simulation import schedule
from tests.shards.simulation.clients import Client, Kind
from tests.shards.simulation.plan import FAULTS_UNTIL_S, Faults, plan
from tests.shards.simulation.world import BUSY_CODES, CONFIG, Tokens, World, logged, until

FINISH_S = 90.0
"""After everything is well again, all sessions have ended and everybody knows how, within so long."""

QUIETEN_S = 40.0
"""And after that nothing is left over, within so long: a little more than a link waits for a reply."""

LOOK_EVERY_S = 0.5

SEATS_KNOWN_S = 5.0
"""Once everything is well, no owner is wrong for so long about who sits at another node."""

OWN_PACE = 0.35
"""Of the sessions, that every player goes through at the own pace."""

QUIZ = Quiz.parse(
    {
        "title": "Simulated",
        "questions": [
            {"type": "single", "text": f"{n}?", "choices": ["a", "b"], "correct": "b", "time_limit_s": 3}
            for n in (1, 2, 3)
        ],
    }
)


@dataclass(frozen=True)
class Outcome:
    """What a run has come to."""

    seed: int
    events: Sequence[tuple[float, str]]
    violations: Sequence[str]

    def __str__(self) -> str:
        lines = [f"{at:10.4f}  {what}" for at, what in self.events]
        return "\n".join([*lines, "", *(f"seed {self.seed}: {each}" for each in self.violations)])


def play(seed: int) -> Outcome:
    """Play one run to its end. The same seed is the same run."""
    worlds: list[World] = []

    async def main(draw: Random) -> None:
        async with trio.open_nursery() as nursery:
            world = World(nursery, draw)
            worlds.append(world)
            log.world = world
            await _Run(world, draw).go()
            world.close()

    failures: list[str] = []
    try:
        with logged() as log:
            schedule.run(main, seed)
    except Exception as error:  # noqa: BLE001 - whatever ends a node is what we look for
        failures = ["".join(traceback.format_exception(error))]
    [world] = worlds
    return Outcome(seed, world.events, [*world.violations, *failures])


class _Run:
    def __init__(self, world: World, draw: Random) -> None:
        self._world = world
        self._draw = draw
        self._records: list[SessionRecord] = []
        self._clients: list[Client] = []
        self._mistakes: dict[str, float] = {}
        """About who sits where, and since when."""

    async def go(self) -> None:
        world, draw = self._world, self._draw
        names = [f"node-{n}" for n in range(1, draw.randint(2, 4) + 1)]
        await world.open(names)
        quiz = await world.postgres.sessions.catalog.add(QUIZ)
        for number in range(draw.randint(2, 3)):
            await self._open(quiz.id, shared=number == 0)
        faults = Faults(world, self._clients)
        planned = plan(draw, names)
        faults.begin(planned)
        for client in self._clients:
            world.at(draw.choice([1.0, 1.0, FAULTS_UNTIL_S / 2]) * draw.random(), client.come)
        await trio.sleep_until(max([FAULTS_UNTIL_S, *(fault.at_s + fault.lasts_s for fault in planned)]))
        faults.heal()
        with trio.move_on_after(FINISH_S):
            await until(self._finished, LOOK_EVERY_S)
        if world.violations:
            return
        self._check_ends()
        for record in self._records:
            self._check_session(record)
        with trio.move_on_after(QUIETEN_S):
            await until(lambda: not self._left_over(), LOOK_EVERY_S)
        for each in self._left_over():
            world.blame(each)

    async def _open(self, quiz_id: str, *, shared: bool) -> None:
        draw = self._draw
        aside = Random(str(draw.getstate()[1][:9]))  # what it draws leaves the run of each seed as it was
        by_clock = draw.random() < 0.8
        settings = at_once(
            pace="auto" if by_clock else "host",
            player_limit=CONFIG.relay_above + 1 if shared else CONFIG.relay_above,
            reveal_ms=500,
            lobby_ms=draw.randint(500, 3000) if by_clock else None,
            early_close=draw.random() < 0.5,
            host_away_s=None if by_clock else draw.choice([None, 5]),
            board=draw.choice(["at_close", "live"]),
            late_join=aside.choice(["current", "next"]),
            shuffle_choices=aside.random() < 0.5,
        )
        own_pace = aside.random() < OWN_PACE
        if own_pace:
            by_clock = True  # and nobody leads it
            settings = at_once(
                pace="self",
                player_limit=settings.player_limit,
                open_from=self._world.now_ms() + aside.randint(12_000, 25_000) - OPEN_MIN_MS,
                open_ms=OPEN_MIN_MS,
                reveal=aside.choice(["each", "end"]),
                shuffle_choices=settings.shuffle_choices,
                attempts=aside.choice([1, 2, 3]),
            )
        node = draw.choice(self._world.up())
        record = None
        while record is None:
            try:
                record = await node.create(quiz_id, settings)
            except BUSY_CODES:
                await trio.sleep(0.5)
        self._records.append(record)
        kinds: list[Kind] = ["player", "player", "stream", draw.choice(["player", "spectator", "watcher"])]
        for kind in kinds:
            name = f"{kind}-{len(self._clients) + 1}"
            client = Client(self._world, name, record.code, kind, Random(draw.random()), own_pace=own_pace)
            self._clients.append(client)
        if not by_clock:
            host = Client(self._world, f"host of {record.code}", record.code, "host", Random(draw.random()))
            host.token = Tokens().issue(record.id, "host", None)
            self._clients.append(host)

    def _finished(self) -> bool:
        """Whether all sessions have ended, everybody knows, and no facts are under way."""
        world = self._world
        self._check_seats()
        if world.violations:
            return True
        sessions = world.postgres.sessions
        return (
            all(sessions.finished(record.id) for record in self._records)
            and all(client.done for client in self._clients)
            and not any(disk.facts for disk in world.disks.values())
            and all(part.merged for part in world.postgres.put_aside.values())
        )

    # -- what must hold --------------------------------------------------------------------------

    def _check_seats(self) -> None:
        now = trio.current_time()
        self._mistakes = {each: self._mistakes.get(each, now) for each in self._wrong_seats()}
        for each, since in self._mistakes.items():
            if now - since > SEATS_KNOWN_S:
                self._world.blame(each)

    def _wrong_seats(self) -> Iterator[str]:
        """What owners take to be so that is not, or do not know; some of it is under way just now."""
        relays = {
            (node.run, relay.session_id): relay
            for node in self._world.up()
            for relay in node.router.relays()
            if relay._subscription is not None
        }
        for node in self._world.up():
            for actor in node.registry.active():
                audience = actor.live.audience
                for run in audience._relays:
                    relay = relays.get((run, actor.session_id))
                    if relay is not None and relay.owner.run == node.run:
                        known = {key for key, at in audience._away.items() if at == run}
                        for key in known.symmetric_difference(relay._audience.held()):
                            yield f"{node.run} is wrong about {key} of {actor.session_id} at {run}"

    def _check_ends(self) -> None:
        world = self._world
        for client in self._clients:
            if client.done is None:
                world.blame(f"{client.name} is not done")
        for disk in world.disks.values():
            if disk.facts:
                world.blame(f"{disk.facts} facts are still in a spool")
        for part in world.postgres.put_aside.values():
            if not part.merged:
                world.blame(f"{part.session_id}: facts that were put aside are not merged")

    def _check_session(self, record: SessionRecord) -> None:
        world, sessions = self._world, self._world.postgres.sessions
        facts = sessions.facts(record.id)
        ends = [n for n, fact in enumerate(facts) if isinstance(fact, Finished)]
        if len(ends) != 1:
            world.blame(f"{record.id} has ended {len(ends)} times")
            return
        joins = [fact for fact in facts if isinstance(fact, PlayerJoined)]
        names = {fact.player: fact.name for fact in joins}
        users = [fact.user_id for fact in joins if fact.user_id is not None]
        for user in {user for user in users if users.count(user) > 1}:
            world.blame(f"{record.id}: {user} has two seats")
        for fact in joins:
            if fact.user_id is not None and fact.name != fact.user_id:
                world.blame(f"{record.id}: {fact.user_id} is called {fact.name}")
        begun = {
            fact.plays_as: (fact.player, fact.attempt) for fact in facts if isinstance(fact, AttemptBegun)
        }
        if len(set(begun.values())) < len(begun):
            world.blame(f"{record.id}: an attempt was begun twice: {begun}")
        answers: dict[tuple[str, int], list[AnswerAccepted | AnswerMerged]] = {}
        for fact in facts:
            if isinstance(fact, AnswerAccepted | AnswerMerged):
                player, attempt = begun.get(fact.player, (fact.player, 1))
                turn = fact.question + len(QUIZ.questions) * (attempt - 1)
                answers.setdefault((names[player], turn), []).append(fact)
        for (name, question), given in answers.items():
            if sum(isinstance(fact, AnswerAccepted) for fact in given) > 1:
                world.blame(f"{record.id}: {name} has two answers to {question}: {given}")
        standings = [
            _standing(Session.recover(QUIZ, record.settings, record.created_at, facts[: n + 1]))
            for n in range(ends[0], len(facts))
        ]
        players = [client for client in self._clients if client.code == record.code and client.plays]
        # The numbers that were given to two players: whose is whose is not told apart from then on.
        shared = {client.player for client in players if client.mistaken}
        for client in players:
            if client.player in shared:
                continue
            if client.done == "was replaced":
                world.blame(f"{client.name} was replaced by nobody")
            for question, own in client.given.items():
                there = answers.get((client.joined_as, question), [])
                if own.ack is not None and own.choice not in [fact.choice for fact in there]:
                    world.blame(f"{client.name} has an ack for {question}, and its answer is lost: {there}")
                merged = any(isinstance(fact, AnswerMerged) for fact in there)
                if question in client.contradicted and not merged:
                    world.blame(f"{client.name} was told two things of its answer to {question}")
                if question in client.refused and not merged and record.id not in sessions.taken:
                    world.blame(f"{client.name} was told two things of its answer to {question}")
            if client.final is not None:
                scores = [standing.get(client.joined_as) for standing in standings]
                if client.final["score"] not in scores:
                    world.blame(f"{client.name} ends with {client.final}, and the store has {scores}")

    def _left_over(self) -> list[str]:
        """What is there without a use."""
        world = self._world
        live = {node.run for node in world.nodes.values() if not node.dead}
        found = []
        for node in world.up():
            router, registry = node.router, node.registry
            if router._held:
                found.append(f"{node.run} holds commands for {sorted(router._held)}")
            if waiting := router.waiting:
                found.append(f"{node.run} has {waiting} commands that wait")
            for relay in router.relays():
                if relay.owner.run not in live:
                    found.append(f"{node.run} relays {relay.session_id} of {relay.owner.run}, which is gone")
                if relay.subscribers:
                    found.append(f"{node.run} relays {relay.session_id} for {relay.subscribers}")
            if crashes := registry.statistics().crashes:
                found.append(f"{crashes} sessions have crashed on {node.run}")
            if node.draining and node.unfinished():
                found.append(f"{node.run} is drained and has {node.unfinished()}")
        return found


def _standing(session: Session) -> dict[str, int]:
    return {session.name_of(entry.player): entry.score for entry in session.leaderboard.ranked()}
