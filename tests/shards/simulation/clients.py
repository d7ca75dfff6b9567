"""People who play: they come to any node, go where they are sent, come back when they are cut off, and say
everything again until they hear an answer. Each of them checks what it hears."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

import trio

from engine.actors import commands
from engine.actors.close_reasons import CloseReason, Reconnect
from tests.shards.simulation.world import Connection, Node, World

Kind = Literal["player", "stream", "spectator", "watcher", "host"]
"""A player with a WebSocket, one with an event stream and requests, who looks on over either, the host."""

LEADS_AFTER_S = (0.3, 1.0)
"""The host takes the next step so long after the last one was seen, and asks again when it does not come."""

USERS = 0.4
"""Of the players with a WebSocket, that are users of the app."""

HASTE = 0.05
"""Of connections, that are lost before or just after the join is answered."""

LOOKS_AGAIN_S = 3.0
"""After an end that is not in the store yet."""

PING_S = 1.0
SILENCE_S = 3.5
"""After so long without a word the connection is given up."""

STREAM_SILENCE_S = 12.0
"""As long for an event stream, on which nobody can ask."""

LATER_MAX_S = 4.0
"""Between two tries to come back, from the third on."""

REPLY_S = 45.0
"""No request may stay for longer without an answer, or the end of its connection, once all is well."""

NEXT = 0
"""Stands for the number of the question in a request for the next one."""

ANY_MS = 3_000
"""Within so long a player answers who has no limit."""

CLOCK_OFF_MS = 800
"""A move may put a clock off by so much: a link with delays tells the difference between two clocks."""

LEAVES = 0.15
"""Of players at the own pace, who leave after an answer, and come back."""

FINAL = frozenset(
    """late joined_late question_closed session_finished wrong_question kicked player_not_found
    token_invalid""".split()  # noqa: SIM905  # words read better
)
"""Refusals of an answer after which there is nothing to be said again. That of a wrong question is, because a
question that was asked may be lost with the node that asked it."""

NUMBERED = frozenset({"question", "reveal", "state", "finished"})


@dataclass
class Given:
    """An answer to one question, under way or acknowledged."""

    choice: int
    ack: tuple[object, object] | None = None
    """Status and time, as of the first."""
    over: bool = False
    tries: int = 0


@dataclass
class Client:
    world: World
    name: str
    code: str
    kind: Kind
    draw: Random
    session_id: str = ""
    token: str | None = None
    player: int | None = None
    joined_as: str = ""
    """The name under which the session knows the player."""
    epoch: int | None = None
    offset: int = 0
    given: dict[int, Given] = field(default_factory=dict)
    final: Mapping[str, Any] | None = None
    """What was heard last of the result: `you` of the end, or of the whole picture after it."""
    done: str | None = None
    """Why there is nothing more to do."""
    mistaken: bool = False
    """Its number was given to another (docs/decisions/0023)."""
    contradicted: set[int] = field(default_factory=set)
    """Questions with another ack than the first. Only a merge may bring that."""
    refused: set[int] = field(default_factory=set)
    """Those with a refusal after an ack. An owner that does not know yet that it was replaced may say that,
    for nobody asks the store about a refusal."""
    own_pace: bool = False
    """Whether the session is one through which every player goes at the own pace."""
    shown: dict[int, tuple[float, int]] = field(default_factory=dict)
    """When the client last asked for each question, and how much of its time was left then or a little
    later, in ms."""
    through: bool = False
    attempt: int = 1
    """Which attempt of its player it is in. Questions of later ones are told from those of the first by their
    numbers, which go on (`_turn`)."""
    of: int = 0
    """How many questions the quiz has."""
    leaves: float = LEAVES
    """How often it does, after an answer."""

    def __post_init__(self) -> None:
        self._connection: Connection | None = None
        self._requests: dict[Connection, tuple[int | None, float]] = {}
        self._go_to: str | None = None
        self._tries = 0
        self._joined = False
        self._stray = False
        """A join may still be on its way by an earlier connection."""
        self._asked_s: dict[str, float] = {}
        self._heard_s = 0.0
        self._came_s = 0.0
        self._ids = 0
        self._phase = ""
        self.joined_as = self.name
        self.user = self.name if self.kind == "player" and self.draw.random() < USERS else None
        """Of the app; None for a guest. A user shows the identity at each join, and keeps no token."""
        self._ticking = False

    @property
    def plays(self) -> bool:
        return self.kind in ("player", "stream")

    def _say(self, what: str) -> None:
        self.world.trace(f"{self.name} {what}")

    # -- coming ----------------------------------------------------------------------------------

    def come(self) -> None:
        if self.done or self._connection is not None:
            return
        if not self._ticking:
            self._ticking = True
            self._tick()
            if self.own_pace and self.plays:
                self._go_on()
        node = self._node()
        if node is None:
            self.world.after(self.draw.uniform(0.1, 0.6), self.come)
            return
        if self.kind == "stream" and self.token is None:
            if not self._requests:
                name = self.joined_as
                self._request(node, None, lambda reply, now: commands.Join(reply, name, now, attach=False))
            return
        self._joined = False
        self._heard_s = self._came_s = trio.current_time()
        if self.kind in ("stream", "watcher"):
            where = (self.epoch, self.offset) if self.epoch is not None else (None, None)
            self._connection = node.stream(self, self.code, self.token, *where)
        else:
            self._connection = node.converse(self)
            self._connection.say(self._join())
        self._asked_s["join"] = trio.current_time()
        if self.kind == "host":
            self.world.after(self.draw.uniform(*LEADS_AFTER_S), self._lead, self._connection)
        if self.draw.random() < HASTE:
            self.world.after(self.draw.uniform(0.0, 0.06), self._drop, self._connection)
        self._say(f"comes to {node.run} at {self.epoch}:{self.offset}")

    def _node(self) -> Node | None:
        up = self.world.up()
        if self._go_to is not None:
            name, self._go_to = self._go_to, None
            return next((node for node in up if f"ws://{node.name}" == name), None)
        return self.draw.choice(up) if up else None

    def _join(self) -> dict[str, object]:
        message: dict[str, object] = {"t": "join", "code": self.code}
        if self.user is not None:
            message["identity"] = self.user
        elif self.token is not None:
            message["token"] = self.token
        elif self.kind == "spectator":
            message["role"] = "spectator"
        else:
            message["name"] = self.joined_as
        if self.epoch is not None and "name" not in message:
            message |= {"epoch": self.epoch, "offset": self.offset}
        return message

    def _drop(self, connection: Connection) -> None:
        if connection is self._connection:
            self.drop()

    def drop(self) -> None:
        """The network between the client and its node is lost."""
        if self._connection is not None:
            self._say("loses its connection")
            connection = self._connection
            connection.drop()
            self.ended(connection, None)

    # -- what it hears ---------------------------------------------------------------------------

    def hear(self, connection: Connection, message: Mapping[str, Any]) -> None:
        if connection in self._requests:
            self._hear_answer(connection, message)
            return
        if connection is not self._connection:
            return
        self._heard_s = trio.current_time()
        kind = message["t"]
        if kind == "pong":
            return
        if kind == "question" and self.own_pace:
            self._shown(message, self._asked_s.pop(message["id"], self._came_s))
        elif kind == "done_all":
            self._asked_s.pop(message["id"], None)
            self._done_all(message)
        elif kind in NUMBERED:
            self._count(message)
            self._phase = message.get("phase", kind)
        if kind == "joined":
            self._begin(message)
        elif kind == "question" and not self.own_pace:
            self._consider(message["number"], message["remaining_ms"])
        elif kind == "ack":
            self._acked(message)
        elif kind == "finished":
            self._finish(message["you"], "was there at the end")
        elif kind == "moved":
            self._go_to = message["url"]
        elif kind == "error":
            self._refused(message)
        elif kind == "done":
            self._asked_s.pop(message["id"], None)

    def _count(self, message: Mapping[str, Any]) -> None:
        offset = message["offset"]
        self._say(f"hears {message['t']} {message.get('number', '')} at {self.epoch}:{offset}")
        if not self._joined:
            self.world.blame(f"{self.name} hears {message['t']} before it has joined")
        if offset != self.offset + 1:
            self.world.blame(f"{self.name} hears {self.epoch}:{offset} after {self.epoch}:{self.offset}")
        self.offset = offset

    def _begin(self, message: Mapping[str, Any]) -> None:
        self._joined = True
        self._tries = 0
        self._asked_s.pop("join", None)
        state = message["state"]
        self._say(
            f"has joined at {message['epoch']}:{message['offset']}, {'from' if state is None else 'anew'}"
        )
        self.session_id = message["session"]
        if self.plays:
            if message["name"] != self.joined_as:
                self.mistaken = True
                self._go("is taken for another")
                return
            self.player = message["player"]
        self.token = message["token"] or self.token
        if state is None:
            if self.epoch is not None and message["epoch"] != self.epoch:
                self.world.blame(f"{self.name} resumes {self.epoch} and is told {message['epoch']}")
            self.epoch = message["epoch"]
            if message["offset"] < self.offset:
                self.world.blame(f"{self.name} stood at {self.offset} and is told {message['offset']}")
            return
        self.epoch, self.offset = message["epoch"], message["offset"]
        self._phase = state["phase"]
        if state["phase"] == "finished":
            self._finish(state["you"], "came after the end")
        elif state["phase"] == "question":
            self._consider(state["number"], state["question"]["remaining_ms"])
        elif self.plays and state["question"] is not None:
            self._shown(state["question"], self._came_s)

    def _finish(self, you: Mapping[str, Any] | None, why: str) -> None:
        self._say(f"was told {you}")
        if not self.world.postgres.sessions.finished(self.session_id):
            # So far that is in a spool alone. If the next owner does not find it, the session goes on.
            self._leave()
            self.world.after(LOOKS_AGAIN_S, self.come)
            return
        self.final = you
        self._go(why)

    def _go(self, why: str) -> None:
        """There is nothing more to do."""
        self._say(why)
        self.done = why
        self._leave()

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.drop()
            self._connection = None
            self._asked_s.clear()

    def _refused(self, message: Mapping[str, Any]) -> None:
        mark, code = message.get("id"), message["code"]
        if mark is not None:
            if self._asked_s.pop(mark, None) is None or self.kind == "host":
                return
            if mark.startswith("next"):
                self._next_refused(code)
                return
            self._answer_refused(int(mark.partition("-")[0]), code)
            return
        self._asked_s.pop("join", None)
        self._say(f"is refused: {code}")
        self._join_refused(code)
        connection, self._connection = self._connection, None
        if connection is not None and not connection.over:
            connection.drop()
        self._come_later()

    def _join_refused(self, code: str) -> None:
        if code == "name_taken":
            self.joined_as += "+"
        elif code in ("session_finished", "session_full"):
            self.done = code
        elif code not in (
            "busy",
            "player_not_found",
        ):  # one who joined by way of a spool is found after the merge
            self.world.blame(f"{self.name} cannot join: {code}")
            self.done = code

    def ended(self, connection: Connection, close_reason: CloseReason | None) -> None:
        if connection in self._requests:
            question, _ = self._requests.pop(connection)
            if question is None:
                self._come_later()
            return
        if connection is not self._connection:
            return
        self._connection = None
        self._stray = self._stray or "join" in self._asked_s
        self._asked_s.clear()
        policy = Reconnect.LATER if close_reason is None else close_reason.reconnect
        self._say(f"ends: {close_reason.name if close_reason else 'lost'}")
        if close_reason is CloseReason.FINISHED:
            self.done = "was let go after the end"
        elif close_reason is CloseReason.REPLACED and self._stray:
            # By its own join from before, which took longer than it waited. A person would come back.
            self._stray = False
            self._come_later()
        elif close_reason is CloseReason.REPLACED:
            self.done = "was replaced"
        elif policy is Reconnect.NO:
            self.world.blame(f"{self.name} is let go for good: {close_reason}")
            self.done = str(close_reason)
        elif policy is Reconnect.MOVE:
            self.world.after(self.draw.uniform(0.0, 0.05), self.come)
        elif policy is Reconnect.RESUME:
            self.world.after(self.draw.uniform(0.0, 0.25), self.come)
        else:
            self._come_later()

    def _come_later(self) -> None:
        self._tries = min(self._tries + 1, 3)
        self.world.after(self.draw.uniform(0.4, 1.0) * LATER_MAX_S * 2.0 ** (self._tries - 3), self.come)

    # -- leading ---------------------------------------------------------------------------------

    def _lead(self, connection: Connection) -> None:
        """Have the session go on, as long as it needs a host for that. Said twice, the second is refused."""
        if connection is not self._connection or self.done:
            return
        do = {"lobby": "start", "reveal": "next"}.get(self._phase)
        if self._joined and do is not None and not self._asked_s:
            self._ids += 1
            self._asked_s[f"{do}-{self._ids}"] = trio.current_time()
            connection.say({"t": "host", "id": f"{do}-{self._ids}", "do": do})
        self.world.after(self.draw.uniform(*LEADS_AFTER_S), self._lead, connection)

    # -- answering -------------------------------------------------------------------------------

    def _consider(self, number: int, remaining_ms: int) -> None:
        if self.plays and number not in self.given and not self.done:
            given = self.given[number] = Given(self.draw.randrange(2))
            self.world.after(self.draw.uniform(0.0, 0.9) * remaining_ms / 1000, self._answer, number, given)

    # -- at the own pace -------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Ask for a question, whenever none waits for an answer, and again a while later."""
        if self.done:
            return
        self.world.after(self.draw.uniform(0.3, 1.5), self._go_on)
        if self.player is None or self.through or not all(given.over for given in self.given.values()):
            return
        player, up = self.player, self.world.up()
        attempt = self.attempt if self.attempt > 1 else None
        self._ids += 1
        mark = f"next-{self._ids}"
        if self.kind == "stream" or (self.user is None and self.draw.random() < 0.3):
            if up:
                node = self.draw.choice(up)
                self._request(
                    node, NEXT, lambda reply, now: commands.Next(reply, player, mark, attempt=attempt)
                )
        elif self._connection is not None and self._joined and not self._connection.over:
            self._asked_s[mark] = trio.current_time()
            self._connection.say({"t": "next", "id": mark} | ({"attempt": attempt} if attempt else {}))

    def _done_all(self, message: Mapping[str, Any]) -> None:
        """Begin another attempt, if there is one. It may be one that is over."""
        attempt, attempts = message.get("attempt", 1), message.get("attempts", 1)
        self._say(f"is through with attempt {attempt}")
        if attempt == self.attempt < attempts and message["phase"] != "finished":
            self.attempt += 1
        elif attempt == attempts or message["phase"] == "finished":
            self.through = True

    def _turn(self, question: Mapping[str, Any]) -> int:
        """The number of a question, counted over all attempts."""
        self.of = question["of"]
        number: int = question["number"]
        return number + self.of * (question.get("attempt", 1) - 1)

    def _shown(self, question: Mapping[str, Any], asked_s: float) -> None:
        """The time of a question goes on from where it was, whichever node tells. What is told was so at some
        moment since the client has asked."""
        number, now = self._turn(question), trio.current_time()
        left_ms = ANY_MS if question["remaining_ms"] is None else question["remaining_ms"]
        self._say(f"is shown {number}, {left_ms} ms left")
        if number in self.shown and question["remaining_ms"] is not None:
            since_s, before_ms = self.shown[number]
            if left_ms < max(0, before_ms - (now - since_s) * 1000) - CLOCK_OFF_MS:
                self.world.blame(f"{self.name} has {left_ms} ms for {number}, had {before_ms} at {since_s}")
            taken = self.session_id in self.world.postgres.sessions.taken
            if left_ms > before_ms + (now - asked_s) * 1000 + CLOCK_OFF_MS and not taken:
                self.world.blame(f"{self.name} gets {number} anew, with {left_ms} ms after {before_ms}")
        self.shown[number] = asked_s, left_ms
        given = self.given.get(number)
        if given is None:
            self._consider(number, left_ms)
        elif given.over and not self.done:
            # The answer is with an earlier owner, or came too late there.
            given.over, given.tries = False, 0
            self._answer(number, given)

    def _next_refused(self, code: str) -> None:
        if code == "illegal_move" and self.attempt > 1:
            self.attempt -= 1  # that it is over is in a spool still
        elif code not in ("busy", "session_finished", "player_not_found"):
            self.world.blame(f"{self.name} cannot go on: {code}")

    def _answer(self, number: int, given: Given) -> None:
        """And again a while later, until there is an answer."""
        if given.over or (self.done and given.tries > 20):
            return
        given.tries += 1
        player, choice = self.player, given.choice
        assert player is not None
        self._ids += 1
        mark = f"{number}-{self._ids}"
        attempt, asked = 1, number
        if self.own_pace:
            attempt, asked = (number - 1) // self.of + 1, (number - 1) % self.of + 1
        over_http = self.kind == "stream" or self._connection is None or self.draw.random() < 0.3
        # The number may be that of somebody else by now: a guest finds that out when it shows its token.
        over_http = over_http and self.user is None
        up = self.world.up()
        if over_http and up:
            self._request(
                self.draw.choice(up),
                number,
                lambda reply, now: commands.Answer(
                    reply, player, mark, asked, choice, now, attempt=attempt if attempt > 1 else None
                ),
            )
        elif self._connection is not None and self._joined and not self._connection.over:
            self._asked_s[mark] = trio.current_time()
            say = {"t": "answer", "id": mark, "question": asked, "choice": choice}
            self._connection.say(say | ({"attempt": attempt} if attempt > 1 else {}))
        self.world.after(self.draw.uniform(0.8, 2.0), self._answer, number, given)

    def _acked(self, message: Mapping[str, Any]) -> None:
        self._asked_s.pop(message["id"], None)
        number = int(message["id"].partition("-")[0])
        given = self.given[number]
        ack = message["status"], message["elapsed_ms"]
        if given.ack is None:
            given.ack = ack
            self._say(f"has an ack for {number}: {ack}")
            if self.draw.random() < 0.3:  # it says it once more, as if it had not heard
                return
        elif given.ack != ack:
            self._say(f"has another ack for {number}: {ack}, not {given.ack}")
            self.contradicted.add(number)
        if ack[0] != "accepted":  # it has answered in one way only
            self.contradicted.add(number)
        given.over = True
        if self.own_pace and self.draw.random() < self.leaves:
            self.drop()

    def _answer_refused(self, number: int, code: str) -> None:
        given = self.given[number]
        if code == "wrong_question" and given.tries < 5:
            return
        if code in FINAL:
            if given.ack is not None and code != "session_finished":  # that is out of memory by then
                self._say(f"had an ack for {number}, and is refused: {code}")
                self.refused.add(number)
            given.over = True
        elif code != "busy":
            self.world.blame(f"{self.name} cannot answer {number}: {code}")

    # -- requests --------------------------------------------------------------------------------

    def _request(self, node: Node, question: int | None, make: Any) -> None:
        key = self.session_id or self.code
        self._requests[node.request(self, key, make)] = question, trio.current_time()

    def _hear_answer(self, connection: Connection, message: Mapping[str, Any]) -> None:
        question, asked_s = self._requests.pop(connection)
        kind = message["t"]
        if kind == "question":
            self._shown(message, asked_s)
        elif kind == "done_all":
            self._done_all(message)
        elif question == NEXT:
            self._next_refused(message["code"])
        elif kind == "ack":
            self._acked(message)
        elif kind == "joined":
            self.token, self.player = message["token"], message["player"]
            self.session_id = message["session"]
            self._say(f"is player {self.player}")
            self.world.after(0.0, self.come)
        elif question is not None:
            self._answer_refused(question, message["code"])
        else:
            self._join_refused(message["code"])
            self._come_later()

    # -- from time to time -----------------------------------------------------------------------

    def _tick(self) -> None:
        """Look whether anything has stayed without an answer."""
        if self.done and not self._requests:
            return
        now = trio.current_time()
        asked = [*self._asked_s.items(), *((f"request {q}", at) for q, at in self._requests.values())]
        for what, at in asked:
            if now - max(at, self.world.healed_at) > REPLY_S:
                self.world.blame(f"{self.name} has waited for an answer to {what} since {at:.3f}")
                self.done = "waits for ever"
                return
        if self._connection is not None and self.kind in ("stream", "watcher"):
            if self._connection.node.dead and now - self._heard_s > STREAM_SILENCE_S:
                self.drop()
        elif self._connection is not None:
            if now - self._heard_s > SILENCE_S:
                self.drop()
            else:
                self._connection.say({"t": "ping", "at": 0})
        self.world.after(PING_S, self._tick)
