"""A user of an app who goes through a self-paced quiz: at one's own speed, leaving and coming back elsewhere.

How to think about it: every join brings the identity, and nothing else is kept from one connection to the
next. Whenever the player is in and waits for no ack, `next` may be asked: it is the same question until the
player has answered it.
"""

from __future__ import annotations

import orjson

from fanfare_client.reconnect import elsewhere
from fanfare_client.seat import NOT_NOW
from loadtest.swarm.player import Message, Player, Stage, Told

NEXT = "next"
"""The id of requests for the next question. Answers have numbers."""


class SelfPacedPlayer(Player):
    """One user. As `Player`, but for what follows from the own pace."""

    __slots__ = ("_rested",)

    _rested: int
    """The newest question after which the player has paused."""

    def come(self, intended: float) -> None:
        self._rested = 0
        super().come(intended)

    def _ask_in(self) -> None:
        assert self._link is not None
        assert self._with.identify is not None
        identity = self._with.identify(self._wanted)
        self._link.send(orjson.dumps({"t": "join", "code": self._session.code, "identity": identity}))

    # -- hearing ---------------------------------------------------------------------------------

    def _take(self, told: Told) -> None:
        message = told.message
        if told.kind == "question":
            self._consider(message)
        elif told.kind == "done_all":
            self._on_done(message)
        elif told.kind == "error" and message.get("id") == NEXT:
            self._on_no_next(message["code"])
        else:
            super()._take(told)

    def _on_board(self, told: Told) -> None:
        """Others play on: no leaderboard is the last one."""

    def _look(self, state: Message) -> None:
        self.ledger.score = state["you"]["score"] or 0
        if not self._pending:
            self._next()

    def _next(self) -> None:
        if self._stage is Stage.IN and self._link is not None and not self._pending:
            self._link.send(b'{"t":"next","id":"next"}')

    def _on_no_next(self, code: str) -> None:
        around = self._with
        around.measures.refused[code] = around.measures.refused.get(code, 0) + 1
        if code in NOT_NOW:
            around.loop.at(around.loop.now() + around.rng.uniform(0.2, 1.0), self._next)
        else:
            self.ledger.faults.append(f"no next question: `{code}`")
            self._leave(code)

    def _on_done(self, message: Message) -> None:
        for each in message["review"]:
            self.ledger.told(each["number"], each["correct"], each["points"], message["score"])
        self.ledger.final = (None, message["score"])
        self._leave("finished")

    # -- answering -------------------------------------------------------------------------------

    def _consider(self, question: Message) -> None:
        """Once more, if the answer was refused: by an owner that did not know the question as shown, because
        the owner before had that in its spool alone, and shows it again; or as late, and then a node came up
        that gave the time back in which nobody had heard of the one before."""
        number = question["number"]
        if number == self._begun and number in self.ledger.refused:
            del self.ledger.refused[number]
            self._begun = self._rested = number - 1
        super()._consider(question)

    def _on_ack(self, message: Message) -> None:
        result = message.get("result")
        if result is not None:
            self.ledger.told(result["number"], result["correct"], result["points"], result["score"])
        super()._on_ack(message)

    def _finish_if_settled(self) -> None:
        """An answer has been settled: pause, or go away for a while, and then take the next question."""
        if self._pending or self._rested >= self._begun or self._stage is not Stage.IN:
            return
        self._rested = self._begun
        around = self._with
        habits, rng, now = around.habits, around.rng, around.loop.now()
        if rng.random() < habits.away_share and self._link is not None:
            self._link.close()
            self._link = None
            self._out(now)
            around.measures.ended("left for a while")
            self._stage = Stage.AWAY
            away_s = habits.away_s * self._slowness * rng.lognormvariate(0.0, 0.45)
            around.loop.at(now + away_s, self._come_back, self._attempt)
        else:
            pause_s = habits.pause_s * self._slowness * rng.lognormvariate(0.0, 0.45)
            around.loop.at(now + pause_s, self._next)

    def _come_back(self, attempt: int) -> None:
        if self._stage is not Stage.AWAY or attempt != self._attempt:
            return
        around = self._with
        self._place = elsewhere(self._session.targets, self._place, self._target)
        self._target = self._session.targets[self._place]
        self._away_since = around.loop.now()
        self._failures = 1
        self._connect()
