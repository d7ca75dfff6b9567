"""How a node is, by its components: what each one's state is, since when, and what it means for players.

How to think about it: nothing is asked here. Each component is known from what the node does anyway, such as
its signs of life, so health comes at once, whatever hangs. What is kept is small: for each component its
state, since when, and its last error.

States: `ok`; `degraded`, it does not work as it should and something else stands in for it, so play goes on;
`down`, it does not work and players notice; `unknown`, the node cannot tell, or not yet, which is no
news: what changes is the state that was known before.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import trio
from cryptography import x509

from engine.actors.clock import SessionClock
from engine.beats import sleep_to_beat
from engine.latency import Failure, Percentiles, Signs
from engine.storage.journal.writer import WriteBehindStatistics
from server.config.config import Config
from server.runtime.loop_watch import BUSY_OVER_BEATS, LoopStatistics
from server.wire.api.operations import ComponentName, State

_log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""Between two looks of `Health.run`."""

OFFSET_MAX_S: Final = 1.0
HOLD_MAX_S: Final = 0.1
BUSY_MAX: Final = 0.95
CERTIFICATE_DAYS_MIN: Final = 14.0
"""Beyond these, clock, loop and certificate are degraded; the alerts have the same bounds, with patience."""

ERROR_CHARS_MAX: Final = 200
SETTLE_S: Final = 15.0
"""So long after its start a node need not be certain yet that its sessions are its own, nor have heard of
Redis."""

COMPONENTS_MAX: Final = 1_000
"""The most components, one for each other node among them, whose state is kept."""

_DAY_MS: Final = 86_400_000
NUMBERS: Mapping[State, int] = {"ok": 0, "degraded": 1, "down": 2, "unknown": 3}
"""What stands for a state in the metrics."""

_WORST: tuple[State, ...] = ("ok", "unknown", "degraded", "down")


@dataclass(frozen=True, slots=True)
class LinkHealth:
    """The link to one other node. `signs` is how long its pings take, and the last error."""

    node: str
    state: State
    signs: Signs


class _Journal(Protocol):
    @property
    def database_signs(self) -> Signs: ...
    def acknowledges_without_postgres(self) -> bool: ...
    def database_problem(self) -> str | None: ...
    def statistics(self) -> WriteBehindStatistics: ...


class _Cluster(Protocol):
    @property
    def redis_signs(self) -> Signs: ...
    def redis_up(self) -> bool: ...
    def links(self) -> Sequence[LinkHealth]: ...


class _LoopWatch(Protocol):
    def statistics(self) -> LoopStatistics: ...


class Sources(Protocol):
    """What health is read from: the services of a node."""

    @property
    def config(self) -> Config: ...
    @property
    def clock(self) -> SessionClock: ...
    @property
    def journal(self) -> _Journal: ...
    @property
    def loop_watch(self) -> _LoopWatch: ...
    @property
    def cluster(self) -> _Cluster | None: ...


class Found(NamedTuple):
    """A component as it is.

    Attributes:
        means: for players, in a sentence.
        problem: in a sentence, with nothing in it that strangers may not read; empty without any.
        node: the other node that a link goes to.
        failure: the last error, as it was raised.
        days_left: of a certificate.
    """

    name: ComponentName
    state: State
    means: str
    problem: str = ""
    node: str = ""
    latency: Percentiles | None = None
    failure: Failure | None = None
    days_left: float | None = None

    @property
    def about(self) -> str:
        return f"{self.name} to {self.node}" if self.node else self.name


@dataclass(frozen=True, slots=True)
class LastError:
    """Its moment in ms since the epoch, and its text, which is for those who run the node alone."""

    at: int
    text: str


@dataclass(frozen=True, slots=True)
class Component:
    """What was found, since when it has been in that state (ms since the epoch), and its last error."""

    found: Found
    since: int
    last_error: LastError | None


# -- what there is to find -------------------------------------------------------------------------


def look(sources: Sources, certificate_ends: int | None, *, settled: bool) -> Iterator[Found]:
    """All components as they are. `settled` if the node has not just started. Waits for nothing."""
    journal, now_s = sources.journal, trio.current_time()
    problem = journal.database_problem()
    statistics = journal.statistics()
    yield _postgresql(problem, journal.acknowledges_without_postgres(), journal.database_signs, now_s)
    if statistics.spooling is not None:
        bytes_max = sources.config.spool_bytes_max
        yield _spool(statistics, bytes_max, without_postgresql=problem is not None, settled=settled)
    cluster = sources.cluster
    if cluster is not None:
        yield _redis(cluster.redis_up(), cluster.redis_signs, now_s, settled=settled)
        for link in cluster.links():
            yield _link(link, now_s)
    yield _clock(sources.clock.offset_ms() / 1000)
    if sources.config.tls_cert is not None:
        yield _certificate(certificate_ends, sources.clock.now_ms())
    yield _loop(sources.loop_watch.statistics())


def _postgresql(problem: str | None, spools: bool, signs: Signs, now_s: float) -> Found:
    state: State
    if problem is None:
        state, means = "ok", "Answers are acknowledged once they are in PostgreSQL."
    elif spools:
        state = "degraded"
        means = (
            "Answers are acknowledged from the spool. New sessions cannot be opened, and results not be read."
        )
    else:
        state, means = "down", "Answers are refused as busy: nothing can be acknowledged."
    latency = signs.latency.percentiles(now_s)
    return Found("postgresql", state, means, problem or "", latency=latency, failure=signs.failure)


def _spool(
    statistics: WriteBehindStatistics, bytes_max: int, *, without_postgresql: bool, settled: bool
) -> Found:
    spool = statistics.spooling
    assert spool is not None
    needed = spool.active or without_postgresql
    trouble = ""
    if spool.failing:
        trouble = "the disk does not take the spool"
    elif spool.bytes >= bytes_max:
        trouble = "the spool is full"
    elif not spool.certain:
        if not (settled or needed):
            return Found("spool", "unknown", "Nothing: the node has just begun to make sure of its sessions.")
        trouble = "the node is not certain that its sessions are its own"
    if trouble and needed:
        return Found("spool", "down", "Answers are refused as busy: nothing can be acknowledged.", trouble)
    if trouble:
        means = "Nothing yet. If PostgreSQL goes away, answers are refused as busy."
        return Found("spool", "degraded", means, trouble)
    if spool.active:
        holds = f"facts go by way of the spool, which holds {spool.facts}"
        return Found("spool", "degraded", "Answers are acknowledged from the disk of this node.", holds)
    return Found("spool", "ok", "It stands in for PostgreSQL when that is away.")


def _redis(up: bool, signs: Signs, now_s: float, *, settled: bool) -> Found:
    state: State
    if up:
        state, means, problem = "ok", "Nodes know of each other.", ""
    elif signs.failure is None and not settled:
        state, means, problem = "unknown", "Nothing: the node has just begun to show signs of life.", ""
    else:
        means = "Running sessions go on. The sessions of a node that dies now wait until Redis is back."
        state, problem = "degraded", "Redis does not answer"
    latency = signs.latency.percentiles(now_s)
    return Found("redis", state, means, problem, latency=latency, failure=signs.failure)


def _link(link: LinkHealth, now_s: float) -> Found:
    means = {
        "ok": "Players here may take part in sessions there.",
        "unknown": "It is being dialled: players here whose session is there wait for a moment.",
    }.get(
        link.state,
        "Players here whose session is there get no answers until they go to that node themselves.",
    )
    return Found(
        "links",
        link.state,
        means,
        "" if link.state in ("ok", "unknown") else f"no link to {link.node}",
        link.node,
        latency=link.signs.latency.percentiles(now_s),
        failure=link.signs.failure,
    )


def _clock(offset_s: float) -> Found:
    if abs(offset_s) <= OFFSET_MAX_S:
        return Found("clock", "ok", "Countdowns and times in results agree with the wall clock.")
    means = "Countdowns are right: they do not follow the wall clock. Times in the results are off."
    return Found("clock", "degraded", means, f"the wall clock is {offset_s:+.1f} s off that of the sessions")


def _certificate(ends_ms: int | None, now_ms: int) -> Found:
    if ends_ms is None:
        return Found("certificate", "unknown", "It cannot be told how long browsers will connect.")
    days = (ends_ms - now_ms) / _DAY_MS
    state: State = "down" if days <= 0 else "degraded" if days < CERTIFICATE_DAYS_MIN else "ok"
    means = {
        "ok": "Browsers connect.",
        "degraded": "Browsers connect until the certificate ends.",
        "down": "Browsers do not connect.",
    }[state]
    problem = {"ok": "", "degraded": f"it ends in {max(days, 0):.0f} days", "down": "it has ended"}[state]
    return Found("certificate", state, means, problem, days_left=round(days, 1))


def _loop(loop: LoopStatistics) -> Found:
    if loop.beats_total < BUSY_OVER_BEATS:
        return Found("loop", "unknown", "Nothing: the node has just begun to watch its loop.")
    problem = ""
    if loop.hold.cpu_s > HOLD_MAX_S:
        problem = f"one step held it for {loop.hold.cpu_s:.2f} s in the last minute"
    elif loop.busy_ratio > BUSY_MAX:
        problem = f"{loop.busy_ratio:.0%} of its time is taken"
    state: State = "degraded" if problem else "ok"
    means = "Leaderboards come more rarely, and acknowledgements later." if problem else "The node has time."
    return Found("loop", state, means, problem, latency=loop.lags)


def worst(states: Iterable[State]) -> State:
    """Of a whole of which these are parts; `ok` without any."""
    return max(states, key=_WORST.index, default="ok")


# -- what is kept ----------------------------------------------------------------------------------


class Health:
    """Of one node. Each reading keeps since when a component has been in its state; `run` takes one a second,
    and every change is a line of the log.

    Attributes:
        certificate_ends: when the node's own certificate ends, in ms since the epoch; None without one, or
            if it cannot be read.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        cert = sources.config.tls_cert
        self.certificate_ends: Final = None if cert is None else ends_of(cert)
        self._settled_s: Final = trio.current_time() + SETTLE_S
        self._states: dict[str, tuple[State, int]] = {}
        self._known: dict[str, State] = {}
        """The last state of each that was not `unknown`."""
        self._errors: dict[str, LastError] = {}

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            self.read()
            await sleep_to_beat(LOOK_S)

    def read(self) -> list[Component]:
        """All components, one for the link to each other node. Waits for nothing."""
        clock = self._sources.clock
        now = clock.now_ms()
        components = []
        settled = trio.current_time() >= self._settled_s
        for found in look(self._sources, self.certificate_ends, settled=settled):
            # The last to be read is the last to be forgotten.
            before = self._states.pop(found.about, None)
            since = now if before is None or before[0] != found.state else before[1]
            self._states[found.about] = found.state, since
            known = self._known.pop(found.about, "ok")
            self._known[found.about] = known if found.state == "unknown" else found.state
            if self._known[found.about] != known:
                _tell(found)
            error = self._errors.get(found.about)
            if found.failure is not None:
                error = LastError(clock.ms_at(found.failure.at_s), shown(found.failure.text))
            elif found.problem:
                error = LastError(now, found.problem)
            if error is not None:
                self._errors[found.about] = error
            components.append(Component(found, since, error))
        for kept in (self._states, self._known, self._errors):
            while len(kept) > COMPONENTS_MAX:
                del kept[next(iter(kept))]
        return components

    def by_name(self) -> dict[str, Component]:
        """The same with one for all links: the worst of them."""
        found: dict[str, Component] = {}
        for each in self.read():
            other = found.get(each.found.name)
            if other is None or worst((other.found.state, each.found.state)) != other.found.state:
                found[each.found.name] = each
        return found

    def states(self) -> dict[str, State]:
        """Of the components, by name."""
        return {name: each.found.state for name, each in self.by_name().items()}


def _tell(found: Found) -> None:
    """In the log."""
    level = logging.INFO if found.state == "ok" else logging.WARNING
    why = f" ({found.problem})" if found.problem else ""
    _log.log(level, "%s is %s%s: %s", found.about, found.state, why, found.means)


_SECRETS = re.compile(r"(?<=://)[^/@\s]*@|(?i:\b(password|passwd|pwd|secret|token)\s*[=:]\s*)\S+")


def shown(text: str) -> str:
    """An error as it is shown: one line, cut, without passwords in addresses and settings."""
    hidden = _SECRETS.sub(lambda found: (found[1] or "") and f"{found[1]}=...", " ".join(text.split()))
    return hidden if len(hidden) <= ERROR_CHARS_MAX else hidden[: ERROR_CHARS_MAX - 3] + "..."


def ends_of(certificate: Path) -> int | None:
    """The end of the first certificate in a PEM file, in ms since the epoch; None if it cannot be read."""
    try:
        first = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    except (OSError, ValueError, IndexError):
        return None
    return round(first.not_valid_after_utc.timestamp() * 1000)


def rfc3339(at_ms: int) -> str:
    """A moment as RFC 3339 writes it, in UTC, with milliseconds."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
