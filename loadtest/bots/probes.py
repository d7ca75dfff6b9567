"""Players beside the swarm, on trio-websocket: an independent witness of what a client sees."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from loadtest.bots.bot import Bot
from loadtest.bots.habits import CrowdPlan
from loadtest.bots.knowledge import Knowledge
from loadtest.client.api import Api
from loadtest.runs.ledger import Ledger
from loadtest.runs.load_quiz import LoadQuiz
from loadtest.runs.load_sessions import Session
from loadtest.runs.scenario import Scenario
from loadtest.swarm.compact_ledger import CompactLedger, coded


class Probes:
    """One player in each of the first sessions.

    Args:
        apis: of the nodes, by the place that sessions name.
        ws_urls: of nodes that know where every session is; without them, each goes to its session's own.
    """

    def __init__(
        self,
        scenario: Scenario,
        sessions: Sequence[Session],
        apis: Sequence[Api],
        quiz: LoadQuiz,
        seed: int,
        ws_urls: Sequence[str] = (),
    ) -> None:
        plan = CrowdPlan(
            scenario.probes,
            seed=seed,
            think_s=scenario.median_answer_s,
            http_share=0.0,
            duplicate_share=scenario.duplicate_share,
            drop_share=scenario.drop_share,
            typo_share=0.0,
            silent_share=scenario.silent_share,
            patience_s=scenario.patience_s,
        )
        known = Knowledge(quiz.data)
        self._sat = [
            (
                session.number,
                Bot(
                    number,
                    plan,
                    known,
                    ws_url=ws_urls or session.ws_url,
                    code=session.code,
                    api=apis[session.node],
                ),
            )
            for number, session in enumerate(sessions[: scenario.probes], 1)
        ]

    def __len__(self) -> int:
        return len(self._sat)

    async def play(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until the last one has left. Started once all are in, or have given it up."""
        async with trio.open_nursery() as staying:
            async with trio.open_nursery() as joining:
                for _, bot in self._sat:
                    joining.start_soon(bot.join, staying)
            task_status.started()

    def ledgers(self) -> list[CompactLedger]:
        """What they were told, in the form of the swarm's ledgers."""
        return [_compact(session, bot.ledger, bot.ended) for session, bot in self._sat]


def _compact(session: int, ledger: Ledger, ended: str | None) -> CompactLedger:
    return CompactLedger(
        session=session,
        name=ledger.name,
        player=ledger.player,
        acks={question: ack.elapsed_ms for question, ack in ledger.acks.items()},
        results={question: coded(told.correct, told.points) for question, told in ledger.told.items()},
        unsettled=set(ledger.unsettled),
        refused=dict(ledger.refused),
        score=ledger.score,
        final=None if ledger.final is None else (ledger.final[1], ledger.final[0]),
        top=ledger.top,
        faults=list(ledger.faults),
        ended=ended,
    )
