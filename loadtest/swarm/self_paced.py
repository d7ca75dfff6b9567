"""A user of an app who goes through a self-paced quiz: at one's own speed, leaving and coming back elsewhere.

How to think about it: every join brings the identity, and nothing else is kept from one connection to the
next. Whenever the player is in and waits for no ack, `next` may be asked: it is the same question until the
player has answered it. Who is through may go again, where the session has several attempts.
"""

from __future__ import annotations

import orjson

from fanfare_client.reconnect import elsewhere
from fanfare_client.seat import NOT_NOW
from loadtest.runs.attempts import attempt_of, numbered, question_of
from loadtest.swarm.player import Message, Player, Stage, Told

NEXT = "next"
"""The id of requests for the next question. Answers have numbers."""

SPARE_S = 0.1
"""Beyond the time for a question, until the next one is asked for."""


class SelfPacedPlayer(Player):
    """One user. As `Player`, but for what follows from the own pace."""

    __slots__ = ("_going", "_most", "_rested")

    _rested: int
    """The newest question after which the player has paused."""
    _going: int
    """Which attempt the player is in."""
    _most: int
    """How many attempts the player would make."""

    def come(self, intended: float) -> None:
        self._rested, self._going, self._most = 0, 1, 1
        while self._with.rng.random() < self._with.habits.again_share:
            self._most += 1
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
            attempt = f',"attempt":{self._going}' if self._going > 1 else ""
            self._link.send(f'{{"t":"next","id":"{NEXT}"{attempt}}}'.encode())

    def _on_no_next(self, code: str) -> None:
        around = self._with
        around.measures.refused[code] = around.measures.refused.get(code, 0) + 1
        if code in NOT_NOW:
            around.loop.at(around.loop.now() + around.rng.uniform(0.2, 1.0), self._next)
        elif code == "illegal_move" and self._going > 1:
            # An owner who has not heard that the attempt before is over.
            self._going -= 1
            self._next()
        else:
            self.ledger.faults.append(f"no next question: `{code}`")
            self._leave(code)

    def _on_done(self, message: Message) -> None:
        attempt, score = message.get("attempt", 1), message["score"]
        for each in message["review"] or ():
            self.ledger.told(numbered(each["number"], attempt), each["correct"], each["points"], score)
        around = self._with
        if attempt < min(self._most, message.get("attempts", 1)) and message["phase"] == "open":
            self._going = attempt + 1
            around.loop.at(around.loop.now() + around.habits.pause_s * self._slowness, self._next)
            return
        self.ledger.final = (None, score)
        self._leave("finished")

    # -- answering -------------------------------------------------------------------------------

    def _consider(self, question: Message) -> None:
        """Once more, if the answer was refused: by an owner that did not know the question as shown, because
        the owner before had that in its spool alone, and shows it again; or as late, and then a node came up
        that gave the time back in which nobody had heard of the one before. An answer that is acknowledged
        stands, though the owner who shows its question again has yet to hear of it: the next question comes
        when the time for this one is over."""
        number = numbered(question["number"], question.get("attempt", 1))
        if number <= self._begun and number in self.ledger.refused:
            del self.ledger.refused[number]
            self._begun = self._rested = number - 1
        elif number in self.ledger.acks and question["remaining_ms"] is not None:
            around = self._with
            around.loop.at(around.loop.now() + question["remaining_ms"] / 1000 + SPARE_S, self._next)
            return
        super()._consider({**question, "number": number})

    def _answer_frame(self, number: int, choice: str) -> bytes:
        question, attempt = question_of(number), attempt_of(number)
        of = f',"attempt":{attempt}' if attempt > 1 else ""
        return f'{{"t":"answer","id":"{number}","question":{question},"choice":{choice}{of}}}'.encode()

    def _on_ack(self, message: Message) -> None:
        attempt, result = attempt_of(int(message["id"])), message.get("result")
        if result is not None:
            number = numbered(result["number"], attempt)
            self.ledger.told(number, result["correct"], result["points"], result["score"])
        super()._on_ack({**message, "question": numbered(message["question"], attempt)})

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
