"""Players that play by themselves: of mixed skill and speed, some careless, some with a bad connection.

What a bot does follows from the plan's seed and the bot's number; only when things happen depends on the
server and the network. Each bot keeps its own ledger.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import trio

from fanfare_client.reconnect import Policy, delay_s
from fanfare_client.seat import SETTLE_S
from loadtest.bots.habits import CrowdPlan, Habits, Intent
from loadtest.bots.knowledge import Knowledge, opens_in_s, withheld
from loadtest.client.api import Api, ApiRefused, ApiUnreachable
from loadtest.client.connection import BadFrame, Dial, Message, dial
from loadtest.client.player import Gone, PlayerClient
from loadtest.runs.attempts import attempt_of, question_of
from loadtest.runs.ledger import Ledger

_NOT_NOW = frozenset({"paused", "not_open_yet"})
"""Refused answers that are sent again once the session goes on."""

JOINING_MAX = 48
"""Bots that join at the same time."""

# fmt: off
_NAMES = (
    "Ada", "Ayşe", "Björn", "Chloé", "Diego", "Elif", "Femi", "Grace", "Hanna", "Ivan", "Jun",
    "Kofi", "Lena", "Mateo", "Nadia", "Omar", "Priya", "Quinn", "Rosa", "Sofía", "Tomás", "Uma",
    "Viktor", "Wei", "Yuki", "Zoë",
)
# fmt: on


class Bot:
    """One player. `play` lasts until the session is over or the patience ends."""

    def __init__(
        self,
        number: int,
        plan: CrowdPlan,
        knowledge: Knowledge,
        *,
        ws_url: str | Sequence[str],
        code: str,
        api: Api,
        connect: Dial = dial,
    ) -> None:
        urls = [ws_url] if isinstance(ws_url, str) else list(ws_url)
        random.Random(f"{plan.seed}/{number}/nodes").shuffle(urls)
        self.ledger = Ledger(f"{_NAMES[(number - 1) % len(_NAMES)]} {number}")
        self.ended: str | None = None
        """Why it left, as `PlayerClient.run` says it; None while it plays."""
        self._habits = Habits(plan, number, knowledge)
        self._rng = random.Random(f"{plan.seed}/{number}/network")
        self._api = api
        self._patience_s = plan.patience_s
        self._begun: set[int] = set()
        self._goes_alone = False
        """Whether the bot goes through the quiz at its own pace."""
        self._thinking: trio.CancelScope | None = None
        self._phase_changed = trio.Event()
        self._play_url = ""
        """Where answers go that go over HTTP: to the node itself while it can be reached."""
        self._tasks: trio.Nursery | None = None
        self._client = PlayerClient(
            urls,
            code,
            self.ledger.name,
            rng=self._rng,
            listener=self._heard,
            patience_s=plan.patience_s,
            connect=connect,
        )

    @property
    def reconnects(self) -> int:
        return self._client.reconnects

    @property
    def token(self) -> str | None:
        return self._client.token

    async def join(self, staying: trio.Nursery) -> None:
        """Come in, or give it up; whatever follows runs in the nursery and ends by itself."""
        if self._habits.by_http and not await self._join_by_http():
            return
        staying.start_soon(self._stay)
        await self._client.arrived.wait()

    async def _stay(self) -> None:
        async with trio.open_nursery() as self._tasks:
            try:
                self.ended = await self._client.run()
            except BadFrame as exc:
                self.ledger.faults.append(f"the server sent {exc}")
                self.ended = "bad_frame"
            self._stop_thinking()
            self._tell_phase()
            self._tasks.cancel_scope.deadline = trio.current_time() + SETTLE_S
        for gap in self._client.gaps:
            self.ledger.faults.append(f"epoch {gap.epoch}: broadcast {gap.got} instead of {gap.expected}")
        if self._client.finished is not None and (you := self._client.finished["you"]) is not None:
            self.ledger.final = (you["score"], you["rank"])

    # -- hearing ----------------------------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        match message["t"]:
            case "joined":
                self.ledger.player, self.ledger.name = message["player"], message["name"]
                if message["state"] is not None:
                    self._look(message["state"])
            case "question" if not self._goes_alone:
                self._consider(message)
            case "reveal" | "finished":
                self._stop_thinking()
            case "result":
                self.ledger.result(message)
            case "leaderboard":
                self.ledger.top = message["top"]
        if message["t"] not in ("leaderboard", "progress"):
            self._tell_phase()

    def _look(self, state: Message) -> None:
        """Take in the whole picture, which stands for a new beginning."""
        self.ledger.restored()
        self.ledger.top = state["leaderboard"]["top"]
        if state["phase"] == "open":
            if not self._goes_alone and self._tasks is not None:
                self._goes_alone = True
                self._tasks.start_soon(self._go_alone)
            return
        you = state["you"]
        if you["result"] is not None:
            self.ledger.result(you["result"])
        watches = you.get("watches") == state["number"]
        if state["phase"] == "question" and you["answered"] is None and not watches:
            self._consider(state["question"])
        elif state["phase"] not in ("question", "paused"):
            self._stop_thinking()

    def _tell_phase(self) -> None:
        self._phase_changed.set()
        self._phase_changed = trio.Event()

    # -- answering --------------------------------------------------------------------------------

    def _consider(self, question: Message) -> None:
        """Begin to think about a question, once, as soon as its choices are there."""
        if question["number"] in self._begun or self._tasks is None or withheld(question):
            return
        self._begun.add(question["number"])
        self._stop_thinking()
        intent = self._habits.intend(question)
        if intent is not None:
            self._thinking = trio.CancelScope()
            self._tasks.start_soon(self._answer, intent, opens_in_s(question), self._thinking)

    def _stop_thinking(self) -> None:
        if self._thinking is not None:
            self._thinking.cancel()
            self._thinking = None

    def _refuse(self, number: int, code: str) -> None:
        """A session that was restored to an earlier moment may open the same question again."""
        self.ledger.refuse(number, code)
        self._begun.discard(number)

    async def _answer(self, intent: Intent, ready_s: float, thinking: trio.CancelScope) -> None:
        with thinking:
            await trio.sleep(ready_s + intent.think_s)
        if thinking.cancelled_caught:
            self._begun.discard(intent.number)
            return
        self._thinking = None
        self.ledger.sent(intent.number)
        send = self._send_by_http if self._habits.by_http else self._send
        if intent.cut_after_s is not None and self._tasks is not None:
            self._tasks.start_soon(self._cut, intent.cut_after_s)
        try:
            await send(intent)
            if intent.twice and intent.number in self.ledger.acks:
                await send(intent)
        except Gone:
            return  # an answer without an ack stays unsettled in the ledger

    async def _go_alone(self) -> None:
        """Question after question, each as soon as the one before is answered or its time is over, and
        perhaps all of it again."""
        attempt = 1
        try:
            while True:
                step = (await self._client.next(attempt)).message
                if step["t"] == "done_all":
                    self.ledger.through(step)
                    if attempt == step.get("attempts", 1) or not self._habits.goes_again():
                        await self._client.leave()
                        return
                    self.ledger.final = None  # it may become better
                    attempt += 1
                    continue
                if step["t"] != "question":
                    if step["code"] == "illegal_move" and attempt > 1:
                        attempt -= 1  # whoever has the session now has not heard that it is over
                    await trio.sleep(self._rng.uniform(0.5, 1.5))  # or not open yet
                    continue
                intent = self._habits.intend(step)
                if intent is None:
                    await trio.sleep((step["remaining_ms"] or 0) / 1000 + 0.1)
                    if step["remaining_ms"] is None:
                        return  # without a limit, who does not answer stays at this question
                    continue
                await self._answer(intent, 0, trio.CancelScope())
        except Gone:
            return

    async def _cut(self, after_s: float) -> None:
        await trio.sleep(after_s)
        await self._client.drop()

    async def _send(self, intent: Intent) -> None:
        while True:
            question, attempt = question_of(intent.number), attempt_of(intent.number)
            reply = await self._client.answer(question, intent.choice, attempt)
            if reply.error is None:
                self.ledger.acked(reply.message, reply.latency_s, attempt)
                return
            if reply.error not in _NOT_NOW:
                self._refuse(intent.number, reply.error)
                return
            await self._while_paused()

    async def _while_paused(self) -> None:
        while self._client.phase == "paused" and self.ended is None:
            await self._phase_changed.wait()
        if self.ended is not None:
            raise Gone(self.ended)
        await trio.sleep(self._rng.uniform(0.05, 0.2))

    # -- over HTTP --------------------------------------------------------------------------------

    async def _send_by_http(self, intent: Intent) -> None:
        token = self._client.token
        assert token is not None, "who answers over HTTP has joined over HTTP"
        patience = _Patience(self._patience_s, self._rng)
        while True:
            try:
                ack = await self._api.answer(
                    self._client.code,
                    token,
                    f"http-{intent.number}",
                    question_of(intent.number),
                    intent.choice,
                    attempt=attempt_of(intent.number),
                    play_url=self._play_url,
                )
            except ApiUnreachable:
                self._play_url = ""
            except ApiRefused as exc:
                if exc.code in _NOT_NOW:
                    await self._while_paused()
                    continue
                if not exc.not_now:
                    self._refuse(intent.number, exc.code)
                    return
            else:
                self.ledger.acked(ack, patience.spent_s, attempt_of(intent.number))
                return
            if not await patience.wait():
                raise Gone("unreachable")

    async def _join_by_http(self) -> bool:
        """Get a token for the WebSocket. A name that is taken after an answer was lost may have been taken by
        this very bot: then it goes by another."""
        wanted = name = self.ledger.name
        lost = 0
        patience = _Patience(self._patience_s, self._rng)
        while True:
            try:
                joined = await self._api.join(self._client.code, name)
            except ApiUnreachable:
                self.ended = "unreachable"
            except ApiRefused as exc:
                self.ended = exc.code
                if exc.code == "name_taken" and lost:
                    name = f"{wanted} {lost + 1}"
                elif not exc.not_now:
                    return False
            else:
                self._client.token, self.ended = joined["token"], None
                self._play_url = joined["play_url"]
                return True
            lost += 1
            if not await patience.wait():
                return False


class _Patience:
    """Waits between attempts, longer each time, while the patience lasts."""

    def __init__(self, patience_s: float, rng: random.Random) -> None:
        self._started = trio.current_time()
        self._patience_s = patience_s
        self._rng = rng
        self._failures = 0

    @property
    def spent_s(self) -> float:
        return trio.current_time() - self._started

    async def wait(self) -> bool:
        """False, at once, when the patience would end before the next attempt."""
        wait_s = delay_s(Policy.LATER, self._failures, self._rng)
        if self.spent_s + wait_s > self._patience_s:
            return False
        self._failures += 1
        await trio.sleep(wait_s)
        return True


class Crowd:
    """Many bots in one session.

    Args:
        knowledge: what skilled bots know of the quiz; without it all of them guess.
        ws_url: address of the session's WebSocket; or those of several nodes, and each bot begins at any.
    """

    def __init__(
        self,
        plan: CrowdPlan,
        *,
        ws_url: str | Sequence[str],
        code: str,
        api: Api,
        knowledge: Knowledge | None = None,
        connect: Dial = dial,
    ) -> None:
        known = knowledge or Knowledge()
        self.bots = [
            Bot(number, plan, known, ws_url=ws_url, code=code, api=api, connect=connect)
            for number in range(1, plan.players + 1)
        ]
        self.all_in = trio.Event()
        """Set once every bot has come in or given it up."""

    async def run(self, on_join: Callable[[], None] = lambda: None) -> None:
        """Play until the last bot has left. `on_join` is called for each that has come in or given it up."""
        queue = iter(self.bots)

        async def usher(staying: trio.Nursery) -> None:
            for bot in queue:
                await bot.join(staying)
                on_join()

        async with trio.open_nursery() as staying:
            async with trio.open_nursery() as joining:
                for _ in range(min(JOINING_MAX, len(self.bots))):
                    joining.start_soon(usher, staying)
            self.all_in.set()

    @property
    def joined(self) -> int:
        """How many bots have become players."""
        return sum(bot.ledger.player is not None for bot in self.bots)

    @property
    def ledgers(self) -> list[Ledger]:
        return [bot.ledger for bot in self.bots]

    @property
    def token(self) -> str | None:
        """Of a bot that was there at the end, and so may see the results."""
        return next((bot.token for bot in self.bots if bot.ended != "kicked" and bot.token), None)

    @property
    def reconnects(self) -> int:
        return sum(bot.reconnects for bot in self.bots)

    @property
    def ends(self) -> dict[str, int]:
        """How many bots left for each reason."""
        found: dict[str, int] = {}
        for bot in self.bots:
            if bot.ended is not None:
                found[bot.ended] = found.get(bot.ended, 0) + 1
        return found
