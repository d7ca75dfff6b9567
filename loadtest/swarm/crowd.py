"""All players of one process: who comes when, and what they have measured."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.runs.histogram import Histogram
from loadtest.swarm.fault_log import Fault
from loadtest.swarm.loop import Loop
from loadtest.swarm.player import Habits, Measures, Player, SessionView, Surroundings
from loadtest.swarm.self_paced import SelfPacedPlayer

HOUR_S = 3600.0

SPREADS = ".spreads"
"""Suffix of the file beside the ledgers with what `Crowd.spreads` tells."""

_HISTOGRAMS = ("join", "ack", "beside", "board", "tick", "late")


@dataclass(frozen=True, slots=True)
class Seats:
    """Players of one session who live in one process.

    Args:
        ws_urls: addresses of nodes that know where the session is. Each player begins at any of them.
        first: the number of the first player.
    """

    session: int
    code: str
    ws_urls: Sequence[str]
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Signing:
    """How the identities of players are signed.

    Args:
        secret: the `identity_secret` of the nodes.
        users: what the ids of the users begin with; the name follows.
    """

    secret: str
    users: str

    def signer(self) -> Callable[[str], str]:
        """What makes a token that says that this is the user with that name, for an hour."""
        import jwt  # here alone: it is a third of what a process of guests would import

        def identify(name: str) -> str:
            user = f"{self.users}{name}"
            return jwt.encode({"sub": user, "name": name, "exp": time.time() + HOUR_S}, self.secret, "HS256")

        return identify


@dataclass(frozen=True, slots=True)
class CrowdPlan:
    """What one process has to do. Made once, sent as JSON.

    Args:
        seed: of all that is random; what happens when is up to the server and the machine.
        join_from_s: on the machine's monotonic clock, when the first one comes.
        join_per_s: how many come in a second.
        sources: addresses to come from, in turn; none for whichever the system takes.
        answers: per question, what to answer if right and if wrong, as JSON.
        signing: None for guests.
    """

    seed: int
    habits: Habits
    join_from_s: float
    join_per_s: float
    sources: Sequence[str]
    answers: Sequence[tuple[str, str]]
    seats: Sequence[Seats]
    signing: Signing | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CrowdPlan:
        """From what `to_dict` gave, also after it was JSON."""
        return cls(
            **{
                **data,
                "habits": Habits(**data["habits"]),
                "answers": [(right, wrong) for right, wrong in data["answers"]],
                "seats": [Seats(**each) for each in data["seats"]],
                "signing": None if data["signing"] is None else Signing(**data["signing"]),
            }
        )


class Crowd:
    """The players of a plan. They begin to come when `begin` is called and the loop runs.

    Raises ValueError for an address that no load can be sent to.
    """

    def __init__(self, plan: CrowdPlan, loop: Loop) -> None:
        self._plan = plan
        self._loop = loop
        self._coming = 0
        self.measures = Measures()
        around = Surroundings(
            loop,
            random.Random(f"{plan.seed}/{plan.sources}"),
            plan.habits,
            list(plan.answers),
            self.measures,
            list(plan.sources),
            identify=None if plan.signing is None else plan.signing.signer(),
        )
        self._around = around
        self._faults: dict[int, Fault] = {}
        self._views: list[SessionView] = []
        self.players: list[Player] = []
        for seats in plan.seats:
            targets = tuple(around.target(url) for url in seats.ws_urls)
            view = SessionView(seats.session, seats.code, targets, self.measures)
            self._views.append(view)
            self.players += [
                _player(number, view, around) for number in range(seats.first, seats.first + seats.count)
            ]

    def begin(self) -> None:
        self._loop.at(self._plan.join_from_s, self._bring_in)

    def cut_all(self) -> None:
        """Everybody loses the connection at once."""
        for player in self.players:
            player.cut()

    def mark(self, fault: int, ws_url: str) -> int:
        """Something is about to happen to the node at that address. Returns how many are connected to it."""
        target = self._around.target(ws_url)
        self.measures.fault = fault
        made = self._faults[fault] = Fault()
        made.fault_logs = [
            each for player in self.players if (each := player.mark(fault, target)) is not None
        ]
        return len(made.fault_logs)

    def struck(self, fault: int, at: float) -> None:
        """It has happened, at that moment of the machine's monotonic clock."""
        self._faults[fault].struck_at = at

    def faults(self) -> dict[str, dict[str, Any]]:
        """By number: what those went through who were connected to the node, as `Fault.to_dict` has it."""
        return {str(number): fault.to_dict() for number, fault in self._faults.items()}

    def left(self) -> dict[str, int]:
        """What the players that have not left are doing, and how many do that; the most frequent first."""
        return dict(Counter(player.doing for player in self.players if not player.gone).most_common())

    def spreads(self) -> Iterator[dict[str, Any]]:
        """By session: when its players heard of each question, and of the end (as question 0)."""
        for view in self._views:
            yield {
                "session": view.number,
                "answered_at": view.answered_at,
                "spreads": [
                    [number, each.first, each.last, each.count] for number, each in view.spreads.items()
                ],
            }

    @property
    def over(self) -> bool:
        """Whether the last one has left for good."""
        return self.measures.gone == len(self.players)

    def take(self) -> dict[str, Any]:
        """What was counted so far, and the latencies since this was last called."""
        measures = self.measures
        taken: dict[str, Any] = {
            "joined": measures.joined,
            "gone": measures.gone,
            "never_in": measures.never_in,
            "answers_sent": measures.answers_sent,
            "acks": measures.acks,
            "frames": measures.frames,
            "reconnects": measures.reconnects,
            "moved": measures.moved,
            "handed": measures.handed,
            "connections": measures.connections,
            "stalls": measures.stalls,
            "open": measures.open,
            "ends": measures.ends,
            "refused": measures.refused,
            "late_s": self._loop.late_s,
        }
        self._loop.late_s = 0.0
        for name in _HISTOGRAMS:
            taken[name] = getattr(measures, name).to_dict()
            setattr(measures, name, Histogram())
        return taken

    def _bring_in(self) -> None:
        """Those whose time has come. Never more than that: a late start is the server's latency."""
        plan, now = self._plan, self._loop.now()
        while self._coming < len(self.players):
            intended = plan.join_from_s + self._coming / plan.join_per_s
            if intended > now:
                self._loop.at(intended, self._bring_in)
                return
            self.players[self._coming].come(intended)
            self._coming += 1
            if self._coming % 64 == 0:
                self._loop.at(now, self._bring_in)  # the others' sockets are not forgotten meanwhile
                return


def _player(number: int, view: SessionView, around: Surroundings) -> Player:
    habits, rng = around.habits, around.rng
    made = SelfPacedPlayer if habits.own_pace else Player
    return made(
        f"P{number}",
        view,
        around,
        skill=min(max(rng.gauss(habits.skill, 0.15), 0.0), 1.0),
        slowness=rng.lognormvariate(0.0, 0.35),
        slow=rng.random() < habits.stall_share,
    )
