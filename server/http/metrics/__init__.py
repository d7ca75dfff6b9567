"""What Prometheus reads: snapshots, taken when it asks.

How to think about it: a metric is a row of a table: its kind, its name, its help text, and how its value is
read off a snapshot. Counters get `_total` behind their names when they are written out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit
from typing import Any

import psutil  # type: ignore[import-untyped]  # ships no types
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    generate_latest,
)
from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from server.http.metrics.cluster import CLUSTER, ClusterSnapshot
from server.http.metrics.node import CONNECTIONS, FACTS, HEALTH, LOOP, SESSIONS, TRACES, NodeSnapshot
from server.http.metrics.row import Row, counter, gauge, metrics
from server.http.metrics.scores import SCORES, ScoresSnapshot
from server.http.metrics.storage import BOUNDS, CAPACITY, POSTGRESQL, SPOOL
from server.http.services import Services
from server.http.sockets import HttpTally
from server.realtime.transport import TransportStatistics
from server.runtime.health import Health
from server.runtime.request_times import together

TABLES: Mapping[str, Sequence[Row[Any]]] = {
    "Sessions and answers": SESSIONS,
    "Connections": CONNECTIONS,
    "Facts on their way to PostgreSQL": (*FACTS, *POSTGRESQL),
    "The spool": SPOOL,
    "Bounds": BOUNDS,
    "What fills up": CAPACITY,
    "Health": HEALTH,
    "The event loop and the clock": LOOP,
    "Users and quizzes": SCORES,
    "The cluster": CLUSTER,
    "Traces": TRACES,
}
"""Every metric of a node, by subject."""


class NodeCollector(Collector):
    """Reads every `statistics()` of the node.

    Args:
        streams: how many event streams are open.
        http: what is counted of the HTTP port.
    """

    def __init__(
        self, services: Services, streams: Callable[[], int], http: HttpTally, health: Health
    ) -> None:
        self._services = services
        self._health = health
        self._streams = streams
        self._http = http

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering must not take a snapshot."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        services = self._services
        yield InfoMetricFamily("fanfare", "The program.", {"version": services.version})
        journal = services.journal.statistics()
        snapshot = NodeSnapshot(
            registry=services.registry.statistics(),
            waiting=services.directory.waiting,
            mistakes=services.boundary.mistakes_total,
            transports=_total(services.transports()),
            streams=self._streams(),
            http=self._http,
            journal=journal,
            loop=services.loop_watch.statistics(),
            pacing=services.registry.pacing,
            clock=services.clock,
            garbage=services.collector.statistics(),
            resumes=services.resumes.statistics(),
        )
        for table in (SESSIONS, CONNECTIONS, FACTS, LOOP):
            yield from metrics(table, snapshot)
        yield from metrics(SCORES, ScoresSnapshot(services.scores.statistics(), services.quiz_caches))
        if journal.spooling is not None:
            yield from metrics(SPOOL, journal.spooling)
        yield from metrics(BOUNDS, services.config)
        yield from metrics(HEALTH, self._health)
        yield from metrics(POSTGRESQL, services.journal)
        if services.capacity is not None:
            yield from metrics(CAPACITY, services.capacity.seen)
        if services.tracing is not None:
            yield from metrics(TRACES, services.tracing)
        if services.cluster is not None:
            yield from metrics(CLUSTER, ClusterSnapshot(services.cluster, services.cluster.traffic()))


def _total(transports: Iterable[TransportStatistics]) -> TransportStatistics:
    each = list(transports)
    return TransportStatistics(
        connections=sum(t.connections for t in each),
        accepted_total=sum(t.accepted_total for t in each),
        refused_total=sum((Counter(t.refused_total) for t in each), Counter()),
        closed_total=sum((Counter(t.closed_total) for t in each), Counter()),
        messages_in_total=sum(t.messages_in_total for t in each),
        frames_out_total=sum(t.frames_out_total for t in each),
        bytes_out_total=sum(t.bytes_out_total for t in each),
        event_streams=sum(t.event_streams for t in each),
        hub_polls=sum(t.hub_polls for t in each),
        requests_total=sum(t.requests_total for t in each),
        requests=together(t.requests for t in each),
        looks_total=sum(t.looks_total for t in each),
    )


class ProcessCollector(Collector):
    """What the operating system knows of this process, under the usual names.

    The one of prometheus_client counts the open files by listing them: two milliseconds for a thousand
    connections.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()

    def collect(self) -> Iterator[Metric]:
        spent = self._process.cpu_times()
        memory = self._process.memory_info()
        yield counter("process_cpu_seconds", "Processor time, user and system.", spent.user + spent.system)
        yield gauge("process_resident_memory_bytes", "Memory in use.", memory.rss)
        yield gauge("process_virtual_memory_bytes", "Memory reserved.", memory.vms)
        yield gauge("process_start_time_seconds", "Since the epoch.", self._process.create_time())
        yield gauge("process_max_fds", "Files that may be open.", getrlimit(RLIMIT_NOFILE)[0])
        with suppress(OSError):
            # Linux tells since 6.2; elsewhere the size is 0.
            if open_files := Path(f"/proc/{self._process.pid}/fd").stat().st_size:
                yield gauge("process_open_fds", "Files that are open.", open_files)


class Metrics:
    def __init__(
        self, services: Services, streams: Callable[[], int], http: HttpTally, health: Health
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(NodeCollector(services, streams, http, health))
        self._registry.register(ProcessCollector())
        GCCollector(registry=self._registry)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The text that Prometheus scrapes, and its media type, as the request accepts it: OpenMetrics, which
        has exemplars, or Prometheus' own."""
        if _prefers_openmetrics(accept):
            # Not typed by the library.
            text: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return text, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


def _prefers_openmetrics(accept: str) -> bool:
    """Whether an `Accept` header names OpenMetrics, and nothing that it would rather have."""
    quality = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for media_type, wanted in parse_accept_header(accept, MIMEAccept):
        name = media_type.partition(";")[0].strip()
        if name in quality:
            quality[name] = max(quality[name], wanted)
    openmetrics_q, text_q = quality.values()
    return openmetrics_q > 0 and openmetrics_q >= text_q
