"""What it takes Microsoft's SignalR client to be back in a quiz after its connection was cut, part by part.

A stateful reconnect would keep a client's place in the memory of its node, and spare the client what it needs
beside a new WebSocket: the negotiation, the handshake and the rejoin by (epoch, offset). So the client, with
its automatic reconnect and a rejoin as documented, loses its connection at every question: with an answer
under way, or while the host closes the question. It plays as usual, without negotiation, and asking for a
stateful reconnect, which the node does not offer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import trio

from bench.answer_wire import quiz
from bench.clusters import Cluster, cluster
from bench.figures import Figure, percentile
from tests.npm import program
from tests.signalr.clients import environment

SCRIPT = Path(__file__).with_name("hub_cuts.mjs")
WAYS = {"negotiate": "as usual", "skip": "skipNegotiation", "stateful": "withStatefulReconnect"}
ONE_WAY_MS = (0, 20)
QUESTIONS = 40
OPTIONS = ("--messages-per-s", "1000")
"""The host waits for nobody."""

PARTS = ("loss seen", "negotiation", "WebSocket", "handshake", "rejoin", "what was missed")
SPARED = ("negotiation", "handshake", "rejoin")
"""By a stateful reconnect: it opens a WebSocket at the same address and goes on with a Sequence message."""

COUNTED = {
    "numbered": "numbered messages",
    "missed": "missed",
    "twice": "heard twice",
    "acks": "answers acknowledged",
    "results": "answers counted",
    "failed": "calls made again",
    "resumed": "resumed",
}


async def played(served: Cluster, way: str, one_way_ms: int, questions: int) -> dict[str, Any]:
    """What became of one client, by what the script prints."""
    address, _ = await served.open_session(quiz(questions))
    told = {
        "url": f"http://127.0.0.1:{address.port}/hub",
        "code": address.code,
        "token": address.host_token,
        "questions": questions,
        "way": way,
        "oneWayMs": one_way_ms,
    }
    with trio.fail_after(10 + 2 * questions):
        done = await trio.run_process(
            [program("node"), str(SCRIPT), json.dumps(told)], capture_stdout=True, env=environment()
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def measure(
    ways: Sequence[str], one_way_ms: Sequence[int], questions: int
) -> Mapping[tuple[str, int], dict[str, Any]]:
    async with cluster(1, *OPTIONS) as served:
        return {
            (way, distance_ms): await played(served, way, distance_ms, questions)
            for distance_ms in one_way_ms
            for way in ways
        }


def run(
    ways: Sequence[str] = tuple(WAYS), one_way_ms: Sequence[int] = ONE_WAY_MS, questions: int = QUESTIONS
) -> list[Figure]:
    found = trio.run(measure, ways, one_way_ms, questions)
    return [
        figure for (way, distance_ms), each in found.items() for figure in _figures(way, distance_ms, each)
    ]


def _figures(way: str, distance_ms: int, found: Mapping[str, Any]) -> Iterator[Figure]:
    at = f"{WAYS[way]}, {2 * distance_ms} ms round trip"
    parts = [_parts(times) for times in found["cuts"]]
    for name, each_ms in zip(PARTS, zip(*parts, strict=True), strict=True):
        yield Figure(name, at, median(each_ms), "ms")
    spared = [sum(part for name, part in zip(PARTS, each, strict=True) if name in SPARED) for each in parts]
    yield Figure("of these, at most spared", at, median(spared), "ms")
    wholes = [sum(each) for each in parts]
    yield Figure("cut to first message", at, median(wholes), "ms")
    yield Figure("cut to first message, p90", at, percentile(wholes, 0.9), "ms")
    for member, what in COUNTED.items():
        yield Figure(what, at, found[member], "")


def _parts(times: Sequence[float | None]) -> list[float]:
    """Milliseconds. What did not happen, as a negotiation, takes none."""
    moments = [times[0] or 0.0]
    for each in times[1:]:
        moments.append(moments[-1] if each is None else each)
    return [after - before for before, after in pairwise(moments)]
