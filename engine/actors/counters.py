"""What the actors of a node count and note together."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.actors.delivery.audience import Sent
from engine.actors.slow_answers import SlowAnswers
from engine.latency import Latency


@dataclass(slots=True)
class Counters:
    """Counts since the start of the node. `refused` counts refusals by their code; `ack_latency` has the time
    from the receipt of an answer until its ack goes out, `join_latency` that from the receipt of a new
    player's join until it is committed, `told_latency` that from the receipt of an answer until others are
    told (see `tellings`). `rejoins` counts clients that came back with a token, or as a user with a seat."""

    slow_answers: SlowAnswers
    answers_accepted: int = 0
    answers_repeated: int = 0
    acks: int = 0
    ack_latency: Latency = field(default_factory=Latency)
    refused: dict[str, int] = field(default_factory=dict)
    players_joined: int = 0
    join_latency: Latency = field(default_factory=Latency)
    told_latency: Latency = field(default_factory=Latency)
    rejoins: int = 0
    sent: Sent = field(default_factory=Sent)
