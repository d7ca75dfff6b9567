"""What the actors of a node count and note together."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.actors.delivery.audience import Sent
from engine.actors.slow_answers import SlowAnswers


@dataclass(slots=True)
class Counters:
    """Counts since the start of the node. `refused` counts refusals by their code."""

    slow_answers: SlowAnswers
    answers_accepted: int = 0
    answers_repeated: int = 0
    acks: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    players_joined: int = 0
    sent: Sent = field(default_factory=Sent)
