"""Sessions and players in waves: some begin while others end, so that every fault meets every phase."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import orjson
import trio

from loadtest.chaos.timeline import PULSE_S
from loadtest.client.api import Api, ApiRefused, ApiUnreachable
from loadtest.runs.fleet import Generator, Pulse, generators
from loadtest.runs.load_quiz import LoadQuiz, load_quiz
from loadtest.runs.load_sessions import session_sizes
from loadtest.runs.scores import PERIODS
from loadtest.runs.timeline import WaveState
from loadtest.swarm.crowd import CrowdPlan, Seats, Signing
from loadtest.swarm.player import Habits

AHEAD_S = 0.5
"""Time for a generator to make its players before the first one comes."""

JOIN_WITHIN_S = 15.0
"""After this long a wave's sessions start without those who are not in yet: they come late."""

AGAIN_S = (0.3, 1.0)
"""Between two attempts of a request, while the node or its database is away."""

REQUESTS_MAX = 8
END_SPARE_S = 60.0
LOOK_EVERY_S = 5.0
START_WITHIN_S = 60.0
HASTY_EVERY = 5
"""One wave in five is of people who give up soon."""

HASTY_PATIENCE_S = 4.0

HABITS = Habits(
    even=False,
    think_s=0.3,
    skill=0.6,
    silent_share=0.03,
    duplicate_share=0.03,
    drop_share=0.003,
    stall_share=0.0,
    stall_s=0.0,
    patience_s=60.0,
)
"""During faults."""

OWN_PACE = {
    "own_pace": True,
    "silent_share": 0.0,
    "pause_s": 0.7,
    "away_share": 0.05,
    "away_s": 1.0,
    "again_share": 0.3,
}
"""The same for those who go through the quiz each at their own pace."""

ATTEMPTS = 2
"""That these have."""

IDENTITY_SECRET = "of-an-app-whose-users-play-during-faults"
"""With which the app signs who its users are."""

USERS = "chaos-"
"""Ids of users begin so; the number within the wave follows. So most of them come back, wave after wave."""

DONE_BEFORE = ("illegal_move", "session_finished")
"""Refusals of a host command that an earlier attempt may have carried out without our hearing of it."""

DOINGS_MAX = 5
"""The most frequent things that stuck players were doing, which a report names."""

SESSIONS_FILE = "sessions.json"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Load:
    """Who plays during the faults.

    Args:
        players: at one time.
        slots: waves at one time, which begin one after the other.
        questions: of one session.
        habits: of the players; some waves have less patience.
        pulse_s: how often the generators report.
        own_share: of the waves, those whose players, who are users of an app, go through the quiz each at
            their own pace.
        user_share: of the other waves, those whose players are users of an app, too.
    """

    players: int = 4_000
    slots: int = 6
    session_players: tuple[int, int] = (20, 40)
    questions: int = 20
    question_s: float = 1.0
    reveal_s: float = 0.3
    habits: Habits = HABITS
    pulse_s: float = PULSE_S
    own_share: float = 0.0
    user_share: float = 0.0

    def own_pace(self, wave: int) -> bool:
        """Whether its players go at their own pace: evenly among the waves, from the first on."""
        return math.ceil(wave * self.own_share) > math.ceil((wave - 1) * self.own_share)

    def by_users(self, wave: int) -> bool:
        """Whether its players are users of an app: those at their own pace, and evenly among the others."""
        led = sum(not self.own_pace(each) for each in range(1, wave + 1))
        even = math.ceil(led * self.user_share) > math.ceil((led - 1) * self.user_share)
        return self.own_pace(wave) or even

    @property
    def wave_players(self) -> int:
        return max(self.players // self.slots, 1)

    @property
    def wave_s(self) -> float:
        """How long a wave plays when nothing happens."""
        return self.questions * (self.question_s + self.reveal_s)


@dataclass(frozen=True, slots=True)
class SessionOf:
    """A session of a wave. `number` counts within the whole run."""

    wave: int
    number: int
    id: str
    code: str
    ws_url: str
    host_token: str
    players: int
    quiz_id: str = ""
    own_pace: bool = False
    by_users: bool = False


class WaveTimeline(Protocol):
    """Takes what the generators report."""

    def take(self, wave: int, pulse: Pulse) -> None: ...

    def state_of(self, wave: int) -> WaveState: ...


class Waves:
    """Brings in wave after wave, in several slots at a time.

    Args:
        apis: of the nodes. They are asked in turn.
        ws_urls: of the nodes. Players begin at any of them.
        directory: where the ledgers and the list of sessions are written.
    """

    def __init__(
        self,
        apis: Sequence[Api],
        ws_urls: Sequence[str],
        load: Load,
        seed: int,
        timeline: WaveTimeline,
        directory: Path,
    ) -> None:
        self.sessions: list[SessionOf] = []
        self.stuck: list[str] = []
        """Waves whose players did not come to an end in time."""
        self._turn = itertools.cycle(apis)
        self._ws_urls = tuple(ws_urls)
        self._load = load
        self._seed = seed
        self._timeline = timeline
        self._directory = directory
        self._quiz: LoadQuiz = load_quiz(load.questions, load.question_s)
        self._limit = trio.CapacityLimiter(REQUESTS_MAX)
        self._crowds: dict[int, Generator] = {}
        self._number = 0
        self._pulsed = trio.Event()
        self._rng = random.Random(f"waves/{seed}")

    async def add_quiz(self) -> None:
        await self._ask(lambda api: api.add_quiz(self._quiz.data, self._quiz.id))

    async def run(self, wanted: Callable[[], bool]) -> None:
        """New waves for as long as they are wanted; then the last ones play to their end.

        Raises GeneratorDied, and ApiRefused for what no waiting helps against.
        """
        async with trio.open_nursery() as nursery:
            for slot in range(self._load.slots):
                nursery.start_soon(self._fill, slot, wanted)

    async def cut_all(self) -> None:
        """Every player loses the connection."""
        for crowd in list(self._crowds.values()):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # it has just ended
                await crowd.cut_all()

    async def _fill(self, slot: int, wanted: Callable[[], bool]) -> None:
        await trio.sleep(slot * self._load.wave_s / self._load.slots)
        while wanted():
            self._number += 1
            await self._play(self._number)

    async def _play(self, wave: int) -> None:
        opened = await self._open(wave)
        players = sum(session.players for session in opened)
        async with generators(1, lambda _, pulse: self._on_pulse(wave, pulse)) as crowds:
            crowd = crowds[0]
            await crowd.begin(self._crowd_plan(wave, opened), self._load.pulse_s)
            self._crowds[wave] = crowd
            state = self._timeline.state_of
            try:
                await self._until(lambda: state(wave).came >= players, JOIN_WITHIN_S)
                async with trio.open_nursery() as leading:
                    for session in opened:
                        if not session.own_pace:
                            leading.start_soon(self._lead, session)
                    # Faults stop the clock of a question, and players come back late.
                    within_s = 4 * self._load.wave_s + self._load.habits.patience_s + END_SPARE_S
                    if not await self._until(lambda: state(wave).over, within_s):
                        self.stuck.append(f"wave {wave}: {no_end(await crowd.left())} in {within_s:.0f} s")
                    leading.cancel_scope.cancel()
                if self._load.by_users(wave):
                    await self._look_at_leaderboards()
                for session in opened:
                    if session.own_pace:
                        await self._ask(partial(finish, session=session))
            finally:
                del self._crowds[wave]
            await crowd.write(ledgers_file(self._directory, wave))

    async def _look_at_leaderboards(self) -> None:
        """So that they are in Redis, and follow what is played, when faults come."""
        for quiz_id, period in itertools.product((self._quiz.id, "all"), PERIODS):
            await self._ask(partial(Api.leaderboard, quiz_id=quiz_id, period=period, top=1))

    async def _open(self, wave: int) -> list[SessionOf]:
        sizes = session_sizes(self._load.wave_players, self._load.session_players, self._rng)
        opened: list[SessionOf] = []
        own_pace, by_users = self._load.own_pace(wave), self._load.by_users(wave)

        async def one(players: int) -> None:
            settings: dict[str, object] = {"identity": "required" if by_users else "optional"}
            if own_pace:
                settings |= {"pace": "self", "attempts": ATTEMPTS}
            else:
                settings |= {
                    "pace": "auto",
                    "reveal_ms": int(self._load.reveal_s * 1000),
                    "get_ready_ms": 0,
                    "early_close": False,
                }
            # One that was opened without our hearing of it stays in its lobby, and concerns nobody.
            told = await self._ask(lambda api: api.create_session(self._quiz.id, settings))
            session = SessionOf(
                wave,
                len(self.sessions),
                told["session_id"],
                told["code"],
                told["ws_url"],
                told["host_token"],
                players,
                self._quiz.id,
                own_pace,
                by_users,
            )
            self.sessions.append(session)
            opened.append(session)

        async with trio.open_nursery() as nursery:
            for players in sizes:
                nursery.start_soon(one, players)
        write_sessions(self._directory, self.sessions)
        return opened

    async def _lead(self, session: SessionOf) -> None:
        """Start it; in a cluster, until it has been seen to play. A start that a node acknowledged from its
        spool, cut off from everybody, is not known to the next owner: the host sees the lobby again."""
        # Also when its players have all given up by then: one that never starts comes to no end.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + START_WITHIN_S):
            await trio.sleep(self._rng.uniform(0.0, 1.0))
            await self._start(session)
        if len(self._ws_urls) > 1:
            while True:
                await trio.sleep(LOOK_EVERY_S)
                try:
                    told = await self._ask(lambda api: api.session(session.id))
                except ApiRefused as exc:
                    # Its owner knows that it is over, and PostgreSQL does not yet.
                    if exc.code != "session_finished":
                        raise
                    return
                if told["state"]["phase"] == "lobby":
                    await self._start(session)

    async def _start(self, session: SessionOf) -> None:
        try:
            await self._ask(lambda api: api.start(session.code, session.host_token))
        except ApiRefused as exc:
            if exc.code not in DONE_BEFORE:
                raise

    def _crowd_plan(self, wave: int, opened: Sequence[SessionOf]) -> CrowdPlan:
        habits = self._load.habits
        if self._load.own_pace(wave):
            habits = replace(habits, **OWN_PACE)  # type: ignore[arg-type]  # of the fields that have these names
        seats, first = [], 1
        for session in opened:
            seats.append(Seats(session.number, session.code, self._ws_urls, first, session.players))
            first += session.players
        return CrowdPlan(
            seed=self._seed * 1_000 + wave,
            habits=replace(habits, patience_s=min(HASTY_PATIENCE_S, habits.patience_s))
            if wave % HASTY_EVERY == 0
            else habits,
            join_from_s=time.monotonic() + AHEAD_S,
            join_per_s=1_000.0,
            sources=[f"127.0.{1 + wave % 200}.1"],
            answers=self._quiz.answers,
            seats=seats,
            signing=Signing(IDENTITY_SECRET, USERS) if self._load.by_users(wave) else None,
        )

    def _on_pulse(self, wave: int, pulse: Pulse) -> None:
        self._timeline.take(wave, pulse)
        self._pulsed.set()
        self._pulsed = trio.Event()

    async def _until(self, reached: Callable[[], bool], within_s: float) -> bool:
        with trio.move_on_after(within_s):
            while not reached():
                await self._pulsed.wait()
            return True
        return False

    async def _ask(self, request: Callable[[Api], Awaitable[T]]) -> T:
        """Until it is answered: a node that is away comes back, and the run has its own bound."""
        while True:
            try:
                async with self._limit:
                    return await request(next(self._turn))
            except ApiUnreachable:
                pass
            except ApiRefused as exc:
                if not exc.not_now:
                    raise
            await trio.sleep(self._rng.uniform(*AGAIN_S))


async def finish(api: Api, session: SessionOf) -> None:
    """End a session, if it has not ended. An end that a node acknowledged from its spool, cut off from
    everybody, is not known to the next owner: the proof of the run ends the session once more."""
    try:
        await api.host(session.code, session.host_token, "finish", "finish")
    except ApiRefused as exc:
        if exc.code not in DONE_BEFORE:
            raise


def no_end(left: Mapping[str, int]) -> str:
    """In words: how many players have come to no end, and what they were doing."""
    told = [f"{count} with {doing}" for doing, count in itertools.islice(left.items(), DOINGS_MAX)]
    if len(left) > DOINGS_MAX:
        told.append("…")
    return f"{sum(left.values())} players have come to no end ({'; '.join(told)})"


def ledgers_file(directory: Path, wave: int) -> Path:
    return directory / f"ledgers-{wave}.jsonl"


def write_sessions(directory: Path, sessions: Sequence[SessionOf]) -> None:
    (directory / SESSIONS_FILE).write_bytes(orjson.dumps([asdict(session) for session in sessions]))


def read_sessions(directory: Path) -> list[SessionOf]:
    """What a run has written down. Raises OSError, ValueError, TypeError."""
    found: list[dict[str, Any]] = orjson.loads((directory / SESSIONS_FILE).read_bytes())
    return [SessionOf(**each) for each in found]
