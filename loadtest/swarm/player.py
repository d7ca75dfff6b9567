"""One player of a swarm: joins, answers when its time has come, comes back, sends again what has no ack.

How to think about it: a player is AWAY, OPENING (a connection and its handshake), JOINING, IN, MOVING (told
where to go and when), or GONE for good. Whatever else ends a connection leads to AWAY with a timer, or to
GONE by the protocol's table of endings.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import orjson

from fanfare_client.reconnect import Policy, after_close, after_error, delay_s, elsewhere
from fanfare_client.seat import BROADCASTS, MOVES_MAX, NOT_NOW, PASSING, SETTLE_S, Seat
from loadtest.bots.knowledge import opens_in_s, withheld
from loadtest.runs.attempts import question_of
from loadtest.runs.histogram import Histogram
from loadtest.swarm.compact_ledger import CompactLedger
from loadtest.swarm.connection import Link, Target
from loadtest.swarm.fault_log import FaultLog
from loadtest.swarm.loop import Loop

Message = dict[str, Any]

JOIN_WITHIN_S = 30.0
"""From the first SYN to `joined`; then the connection is given up and another is tried."""

IN_TIME_SHARE = 0.9
"""However slow a player is, it answers within this share of the time that is left."""

MEMO_MAX = 8
"""Broadcasts of one session that are kept parsed: all its players get the same bytes."""

FINISHED = 0
"""Stands for the end of a session among its questions, which count from 1."""

_NOT_NOW = NOT_NOW | {"not_open_yet"}

_SHARED = (BROADCASTS - {"finished"}) | PASSING
"""The same bytes for all players of a session; `finished` says how each of them came out."""


class Stage(Enum):
    AWAY = "away"
    OPENING = "opening"
    JOINING = "joining"
    IN = "in"
    MOVING = "moving"
    GONE = "gone"


_WAITS = {
    Stage.AWAY: "away",
    Stage.OPENING: "waits for a connection",
    Stage.JOINING: "waits for `joined`",
    Stage.MOVING: "waits to go to another node",
}


@dataclass(frozen=True, slots=True)
class Habits:
    """What the players of a run are like: the fields of a scenario that concern one player."""

    even: bool
    """Whether answers come at any moment of the time for them, rather than around `think_s`."""
    think_s: float
    skill: float
    silent_share: float
    duplicate_share: float
    drop_share: float
    stall_share: float
    stall_s: float
    patience_s: float
    live: bool = False
    """Whether the leaderboard moves while people answer."""
    own_pace: bool = False
    """Whether each of them goes through the quiz alone; what follows is for that."""
    pause_s: float = 0.0
    away_share: float = 0.0
    away_s: float = 0.0
    again_share: float = 0.0
    """Of players who are through, those who begin another attempt, if the session has one."""


@dataclass(slots=True)
class Measures:
    """What the players of one process have counted since the start; the histograms since they were last
    taken."""

    joined: int = 0
    """Players who have joined at least once."""
    gone: int = 0
    never_in: int = 0
    """Those of the gone who have never joined."""
    answers_sent: int = 0
    acks: int = 0
    frames: int = 0
    reconnects: int = 0
    """Players who came back after a loss, or after they had left for a while."""
    moved: int = 0
    """Joins that were sent on to another node."""
    handed: int = 0
    """Players who were sent on while they were in, because their session moved."""
    connections: int = 0
    """Attempts, failed ones too."""
    stalls: int = 0
    open: int = 0
    """Players who are in, now."""
    ends: dict[str, int] = field(default_factory=dict)
    """How connections have ended, but for those of players who were sent on, and the last one of a player who
    stayed to the end."""
    refused: dict[str, int] = field(default_factory=dict)
    """Errors, by code."""
    join: Histogram = field(default_factory=Histogram)
    """From the intended first SYN to `joined`."""
    ack: Histogram = field(default_factory=Histogram)
    """From the intended moment of an answer to its ack."""
    fault: int | None = None
    """The number of the last fault."""
    beside: Histogram = field(default_factory=Histogram)
    """The same of those players only whom the last fault does not concern, since it was announced."""
    board: Histogram = field(default_factory=Histogram)
    """From the intended moment of an answer to the first leaderboard in the player's own hands that shows
    its points. Only players among the first ten can tell, and only where the board is live."""
    tick: Histogram = field(default_factory=Histogram)
    """The least time to the next leaderboard, as leaderboards announce it; each counts once, however many
    players got it."""
    late: Histogram = field(default_factory=Histogram)
    """From the intended moment of an answer to its sending: the generator's own share of what it measures."""

    def ended(self, reason: str) -> None:
        self.ends[reason] = self.ends.get(reason, 0) + 1


class Told:
    """A message, and for a leaderboard its scores by player."""

    __slots__ = ("kind", "message", "scores")

    def __init__(self, message: Message) -> None:
        self.kind: str = message["t"]
        self.message = message
        self.scores = {}
        if self.kind == "leaderboard":
            self.scores = {entry["id"]: entry["score"] for entry in message["top"]}


class Spread:
    """When the first and the last of the players of one process heard of something, and how many did."""

    __slots__ = ("count", "first", "last")

    def __init__(self, now: float) -> None:
        self.first = self.last = now
        self.count = 1


class SessionView:
    """What the players of one session share: where it can be asked for, and the broadcasts that all of them
    get.

    Args:
        targets: of nodes that know where the session is. A player begins at any of them.
    """

    __slots__ = ("_measures", "_memo", "answered_at", "code", "number", "spreads", "targets")

    def __init__(self, number: int, code: str, targets: Sequence[Target], measures: Measures) -> None:
        self.number = number
        self.code = code
        self.targets = targets
        self.spreads: dict[int, Spread] = {}
        """By question, and of the end."""
        self.answered_at: float | None = None
        """When the last answer was sent."""
        self._measures = measures
        self._memo: dict[bytes, Told] = {}

    def heard_of(self, number: int, now: float) -> None:
        """A player has heard of a question, or of the end."""
        spread = self.spreads.get(number)
        if spread is None:
            self.spreads[number] = Spread(now)
        else:
            spread.last = now
            spread.count += 1

    def read(self, payload: bytes) -> Told:
        """Raises ValueError for what is no message."""
        told = self._memo.get(payload)
        if told is not None:
            return told
        message = orjson.loads(payload)
        if not isinstance(message, dict) or not isinstance(message.get("t"), str):
            raise ValueError(  # noqa: TRY004 - the type of what a peer sent is a value here
                f"no message: {payload[:80]!r}"
            )
        told = Told(message)
        if told.kind == "leaderboard":
            self._measures.tick.add(message["tick_ms"] / 1000)
        if told.kind in _SHARED:
            if len(self._memo) == MEMO_MAX:
                del self._memo[next(iter(self._memo))]
            self._memo[payload] = told
        return told


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all players of one process share.

    Args:
        answers: per question, what to answer if right and if wrong, as JSON.
        sources: addresses to come from, in turn; none for whichever the system takes.
        targets: by address, all that were looked up.
        identify: makes the identity token of the user with a name; None for guests.
    """

    loop: Loop
    rng: random.Random
    habits: Habits
    answers: list[tuple[str, str]]
    measures: Measures
    sources: list[str]
    targets: dict[str, Target] = field(default_factory=dict)
    identify: Callable[[str], str] | None = None

    def target(self, url: str) -> Target:
        """Raises ValueError for an address that no load can be sent to, OSError for one that is not known."""
        found = self.targets.get(url)
        if found is None:
            found = self.targets[url] = Target.of(url)
        return found


@dataclass(slots=True)
class Sent:
    """An answer without an ack."""

    question: int
    payload: bytes
    intended: float


class Player:
    """One player. `ledger` is its own; all else is for the crowd.

    Args:
        skill: how likely it is right.
        slowness: factor on the time it thinks.
    """

    __slots__ = (
        "_attempt",
        "_awaits_board",
        "_away_since",
        "_begun",
        "_failures",
        "_fault_log",
        "_intended",
        "_link",
        "_moves",
        "_pending",
        "_place",
        "_seat",
        "_session",
        "_skill",
        "_slow",
        "_slowness",
        "_stage",
        "_target",
        "_wanted",
        "_with",
        "ledger",
    )

    def __init__(
        self,
        name: str,
        session: SessionView,
        around: Surroundings,
        *,
        skill: float,
        slowness: float,
        slow: bool,
    ) -> None:
        self.ledger = CompactLedger(session.number, name)
        self._with = around
        self._session = session
        self._place = around.rng.randrange(len(session.targets)) if len(session.targets) > 1 else 0
        """Of the session's addresses, the one that it tried last."""
        self._target = session.targets[self._place]
        self._wanted = name
        self._skill = skill
        self._slowness = slowness
        self._slow = slow
        """Whether it has yet to stop reading for a while."""
        self._link: Link | None = None
        self._stage = Stage.AWAY
        self._attempt = 0
        self._failures = self._moves = 0
        """In a row: since it was in, and for failures not counting moves."""
        self._intended = self._away_since = 0.0
        self._seat = Seat(session.code, gaps=self.ledger.gaps)
        self._begun = 0
        """The newest question that it has thought about."""
        self._awaits_board: float | None = None
        self._pending: dict[str, Sent] = {}
        self._fault_log: FaultLog | None = None

    # -- for the crowd ---------------------------------------------------------------------------

    def come(self, intended: float) -> None:
        """Connect for the first time."""
        self._intended = self._away_since = intended
        self._connect()

    def cut(self) -> None:
        """Lose the connection, if there is one."""
        if self._link is not None:
            self._link.cut()
            self.ended(None, "cut")

    def mark(self, fault: int, target: Target) -> FaultLog | None:
        """Before something happens to a node: if it is connected to that one, take note of what follows."""
        if self._stage is not Stage.IN or self._target != target:
            return None
        self._fault_log = FaultLog(fault)
        return self._fault_log

    @property
    def gone(self) -> bool:
        return self._stage is Stage.GONE

    @property
    def doing(self) -> str:
        """What a player that has not left does and waits for, in words."""
        if self._stage is not Stage.IN:
            waits = _WAITS[self._stage]
        elif self._pending:
            waits = "in, waits for the ack of " + " and ".join(self._pending)
        else:
            waits = "in, waits for what comes next"
        return f"code {self._session.code}, {f'question {self._begun}' if self._begun else 'lobby'}: {waits}"

    # -- coming and going ------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._stage is not Stage.AWAY:
            return
        around = self._with
        self._attempt += 1
        around.measures.connections += 1
        source = around.sources[around.measures.connections % len(around.sources)] if around.sources else None
        try:
            self._link = Link(around.loop, self._target, source, self, slow=self._slow)
        except OSError as exc:
            self._part(Policy.LATER, f"connect: {exc.strerror}")
            return
        self._stage = Stage.OPENING
        around.loop.at(around.loop.now() + JOIN_WITHIN_S, self._give_up, self._attempt)

    def _give_up(self, attempt: int) -> None:
        if attempt == self._attempt and self._stage in (Stage.OPENING, Stage.JOINING) and self._link:
            self._link.cut()
            self._part(Policy.LATER, "no answer in time")

    def opened(self) -> None:
        """Holder."""
        self._stage = Stage.JOINING
        self._ask_in()

    def _ask_in(self) -> None:
        assert self._link is not None
        message = self._seat.join(name=self.ledger.name)
        identify = self._with.identify
        if identify is not None:  # the token of the seat is kept by nobody
            message = {name: value for name, value in message.items() if name not in ("name", "token")}
            message["identity"] = identify(self._wanted)
        self._link.send(orjson.dumps(message))

    def ended(self, code: int | None, reason: str) -> None:
        """Holder."""
        if self.ledger.final is not None and not self._pending:
            self._leave("finished")
        elif self._stage is Stage.MOVING:
            self._link = None
        elif code is not None and code < 1000:
            turned_away = 400 <= code < 500 and code not in (408, 429)
            self._part(Policy.NO if turned_away else Policy.LATER, reason)
        else:
            self._part(after_close(code), reason or f"close {code}")

    def _part(self, policy: Policy, reason: str) -> None:
        """The connection is over, and was not the last one unless the policy says so."""
        around = self._with
        now = around.loop.now()
        if self._stage is Stage.IN:
            self._out(now)
            self._failures = 0
        around.measures.ended(reason)
        self._link = None
        self._stage = Stage.AWAY
        delay = delay_s(policy, self._failures, around.rng)
        self._failures += 1
        if policy is not Policy.RESUME:
            self._place = elsewhere(self._session.targets, self._place, self._target)
            self._target = self._session.targets[self._place]
        if policy is Policy.NO:
            self._leave(reason)
        elif now + delay - self._away_since > around.habits.patience_s:
            self._leave("unreachable")
        else:
            around.loop.at(now + delay, self._connect)

    def _out(self, now: float) -> None:
        """In no longer, for now."""
        self._with.measures.open -= 1
        self._away_since = now
        if self._fault_log is not None:
            self._fault_log.lost(min([now, *(sent.intended for sent in self._pending.values())]))

    def _leave(self, reason: str) -> None:
        """For good."""
        if self._stage is Stage.GONE:
            return
        if self._stage is Stage.IN:
            self._with.measures.open -= 1
        if self._link is not None:
            self._link.close()
            self._link = None
        self._stage = Stage.GONE
        self.ledger.ended = reason
        self._with.measures.gone += 1
        self._with.measures.never_in += self.ledger.player is None

    def _moved(self, message: Message) -> None:
        """Sent on. The server closes the connection; be that done or not, the time to go is the one told."""
        around, now = self._with, self._with.loop.now()
        if self._stage not in (Stage.IN, Stage.JOINING) or self._link is None:
            return
        if self._moves == MOVES_MAX:
            self._link.close()
            self._part(Policy.LATER, "moved in a circle")
            return
        try:
            target = around.target(message["url"])
        except (ValueError, OSError) as exc:
            self.ledger.faults.append(f"moved to {exc}")
            return
        if self._stage is Stage.IN:
            around.measures.handed += 1
            self._out(now)
        else:
            around.measures.moved += 1
        self._moves += 1
        self._target = target
        self._stage = Stage.MOVING
        around.loop.at(now + message["after_ms"] / 1000, self._go)

    def _go(self) -> None:
        if self._stage is not Stage.MOVING:
            return
        if self._link is not None:
            self._link.close()
            self._link = None
        self._stage = Stage.AWAY
        self._connect()

    # -- hearing ---------------------------------------------------------------------------------

    def heard(self, payload: bytes) -> None:
        """Holder."""
        self._with.measures.frames += 1
        try:
            told = self._session.read(payload)
        except ValueError as exc:
            self.ledger.faults.append(str(exc))
            return
        self._take(told)

    def _take(self, told: Told) -> None:
        kind, message = told.kind, told.message
        if kind in PASSING:
            self._seat.up_to(message["offset"])
            if kind == "leaderboard":
                self._on_board(told)
        elif kind == "ack":
            self._on_ack(message)
        elif kind in BROADCASTS:
            if not self._seat.in_order(message["offset"]):
                return
            if kind == "question":
                self._session.heard_of(message["number"], self._with.loop.now())
                self._consider(message)
            elif kind == "finished":
                self._session.heard_of(FINISHED, self._with.loop.now())
                self._on_end(message["you"])
        elif kind == "result":
            self._on_result(message)
        elif kind == "joined":
            self._on_joined(message)
        elif kind == "error":
            self._on_error(message)
        elif kind == "moved":
            self._moved(message)

    def _on_board(self, told: Told) -> None:
        ledger, player = self.ledger, self.ledger.player
        assert player is not None
        ledger.top = told.message["top"]
        shown = told.scores.get(player, ledger.score)
        if shown != ledger.score and not self._with.habits.live:
            ledger.early.append((ledger.score, shown))
        if self._awaits_board is not None and shown > ledger.score:
            self._with.measures.board.add(self._with.loop.now() - self._awaits_board)
            self._awaits_board = None

    def _on_result(self, message: Message) -> None:
        self.ledger.told(message["number"], message["correct"], message["points"], message["score"])
        self._awaits_board = None

    def _on_joined(self, message: Message) -> None:
        measures, state, before = self._with.measures, message["state"], self._seat.epoch
        if self.ledger.player is None:
            self.ledger.player, self.ledger.name = message["player"], message["name"]
            measures.joined += 1
            measures.join.add(self._with.loop.now() - self._intended)
        else:
            measures.reconnects += self._failures > 0
            if message["player"] != self.ledger.player:
                self._on_other_number(message["player"], moved=before != message["epoch"])
        wrong = self._seat.joined(message)
        if wrong is not None:
            self.ledger.faults.append(wrong)
        self._stage = Stage.IN
        self._failures = self._moves = 0
        self.ledger.place = self._target.place
        measures.open += 1
        if self._fault_log is not None:
            self._fault_log.joined(self._with.loop.now())
        if state is not None:
            if before is not None and before != message["epoch"]:
                self.ledger.restored()
            self._look(state)
        if self._link is not None:
            for sent in self._pending.values():
                self._link.send(sent.payload)

    def _on_other_number(self, player: int, *, moved: bool) -> None:
        """A user whose join the former owner had in its spool may have another number once it is merged."""
        if self._with.identify is None or not moved:
            self.ledger.faults.append(f"was player {self.ledger.player}, now {player}")
        self.ledger.player = player

    def _look(self, state: Message) -> None:
        """Take in the whole picture."""
        you, top = state["you"], state["leaderboard"]["top"]
        if top:
            self.ledger.top = top
        self.ledger.score = you["score"]
        if you["result"] is not None:
            self._on_result(you["result"])
        if state["phase"] == "question" and you["answered"] is None:
            self._consider(state["question"])
        elif state["phase"] == "finished":
            self._on_end(you)

    def _on_end(self, you: Message) -> None:
        self.ledger.final = (you["rank"], you["score"])
        self.ledger.score = you["score"]
        if not self._pending:
            self._leave("finished")
        else:
            self._with.loop.at(self._with.loop.now() + SETTLE_S, self._leave, "finished")

    def _on_error(self, message: Message) -> None:
        code = message["code"]
        refused = self._with.measures.refused
        refused[code] = refused.get(code, 0) + 1
        mark = message.get("id")
        if mark is not None:
            self._on_refusal(mark, code)
        elif self._stage is not Stage.JOINING or self._link is None:
            return
        elif code == "name_taken" and (another := self._seat.another_name(self._wanted)) is not None:
            self.ledger.name = another
            self._ask_in()
        else:
            self._link.close()
            self._part(after_error(code), code)

    # -- answering -------------------------------------------------------------------------------

    def _consider(self, question: Message) -> None:
        """Begin to think about a question, once, as soon as its choices are there."""
        number = question["number"]
        if number <= self._begun or withheld(question):
            return
        self._begun = number
        around = self._with
        habits, rng, now = around.habits, around.rng, around.loop.now()
        self._awaits_board = None
        if self._slow and self._link is not None:
            self._slow = False
            around.measures.stalls += 1
            self._link.read(False)
            around.loop.at(now + habits.stall_s, self._read_again, self._link)
            return  # who does not look does not answer, and would measure only itself
        if rng.random() < habits.silent_share:
            return
        remaining_s = (question["remaining_ms"] or 0) / 1000
        in_time_s = IN_TIME_SHARE * remaining_s
        if habits.even:
            think_s = in_time_s * rng.random()
        else:
            think_s = min(habits.think_s * self._slowness * rng.lognormvariate(0.0, 0.45), in_time_s)
        intended = now + opens_in_s(question) + think_s
        around.loop.at(intended, self._answer, number, intended)

    def _read_again(self, link: Link) -> None:
        link.read(True)

    def _answer(self, number: int, intended: float) -> None:
        if self._stage is Stage.GONE or number != self._begun:
            return
        around, rng = self._with, self._with.rng
        right, wrong = around.answers[question_of(number) - 1]
        mark = f"{number}"
        choice = right if rng.random() < self._skill else wrong
        payload = self._answer_frame(number, choice)
        self.ledger.unsettled.add(number)
        self._pending[mark] = Sent(number, payload, intended)
        self._awaits_board = intended
        measures, now = around.measures, around.loop.now()
        measures.late.add(now - intended)
        self._session.answered_at = now
        if self._stage is not Stage.IN or self._link is None:
            return  # sent once it is back
        self._link.send(payload)
        measures.answers_sent += 1
        if rng.random() < around.habits.duplicate_share and self._link is not None:
            self._link.send(payload)
        if rng.random() < around.habits.drop_share:
            around.loop.at(around.loop.now() + rng.uniform(0.0, 0.02), self.cut)

    def _answer_frame(self, number: int, choice: str) -> bytes:
        return f'{{"t":"answer","id":"{number}","question":{number},"choice":{choice}}}'.encode()

    def _on_ack(self, message: Message) -> None:
        measures = self._with.measures
        sent = self._pending.pop(message["id"], None)
        first = self.ledger.acked(message["question"], message["status"], message["elapsed_ms"])
        if sent is not None:
            if sent.question != message["question"]:
                self.ledger.faults.append(f"an ack of question {message['question']} for {sent.question}")
            if first:
                now = self._with.loop.now()
                measures.acks += 1
                measures.ack.add(now - sent.intended)
                if measures.fault is not None:
                    self._note(sent.intended, now)
            self._finish_if_settled()

    def _note(self, intended: float, now: float) -> None:
        """An ack after a fault, be it with those whom it concerns or beside them."""
        measures, fault_log = self._with.measures, self._fault_log
        if fault_log is not None:
            fault_log.acked(now, intended, waits=bool(self._pending))
        if fault_log is None or fault_log.fault != measures.fault:
            measures.beside.add(now - intended)

    def _on_refusal(self, mark: str, code: str) -> None:
        sent = self._pending.get(mark)
        if sent is None:
            if mark.isdigit() and code not in _NOT_NOW:
                self.ledger.refuse(int(mark), code)
            return
        if code in _NOT_NOW:
            now = self._with.loop.now()
            self._with.loop.at(now + self._with.rng.uniform(0.2, 1.0), self._send_again, mark)
            return
        del self._pending[mark]
        self.ledger.refuse(sent.question, code)
        self._finish_if_settled()

    def _send_again(self, mark: str) -> None:
        sent = self._pending.get(mark)
        if sent is not None and self._stage is Stage.IN and self._link is not None:
            self._link.send(sent.payload)

    def _finish_if_settled(self) -> None:
        if self.ledger.final is not None and not self._pending:
            self._leave("finished")
