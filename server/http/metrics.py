"""What Prometheus reads: snapshots, taken when it asks.

How to think about it: a metric is a row of a table: its kind, its name, its help text, and how its value is
read off a snapshot. Counters get `_total` behind their names when they are written out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit
from typing import Generic, TypeVar

import psutil  # type: ignore[import-untyped]  # ships no types
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from engine.actors.clock import SessionClock
from engine.actors.pacing import Pacing
from engine.actors.registry import RegistryStatistics
from engine.latency import LatencyStatistics
from engine.ports import CacheCounts
from engine.storage.journal.writer import WriteBehindStatistics
from engine.storage.spool.journal import SpoolingStatistics
from server.config.config import Config
from server.http.services import Cluster, ClusterTraffic, JournalState, Services
from server.http.sockets import HttpTally
from server.realtime.transport import TransportStatistics
from server.runtime.capacity import Capacity
from server.runtime.gc_policy import CollectorStatistics
from server.runtime.loop_watch import LoopStatistics
from server.runtime.tracing import Tracing
from server.scores import ScoresStatistics

CONTENT_TYPE = CONTENT_TYPE_LATEST

S = TypeVar("S")
Value = float | Mapping[str, float] | Mapping[tuple[str, ...], float] | LatencyStatistics


@dataclass(frozen=True, slots=True)
class Row(Generic[S]):
    """One metric.

    Args:
        make: of its kind: COUNTER, GAUGE or HISTOGRAM.
        get: reads its value off a snapshot: a number; with labels, numbers by their values; for a histogram
            a latency.
    """

    make: Callable[[str, str, Value, Sequence[str]], Metric]
    name: str
    help: str
    get: Callable[[S], Value]
    labels: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """What a node counts of itself. `waiting` counts commands whose session is looked up or activated;
    `transports` is the sum of all of them; `streams` counts the event streams of the HTTP port."""

    registry: RegistryStatistics
    waiting: int
    mistakes: int
    transports: TransportStatistics
    streams: int
    http: HttpTally
    journal: WriteBehindStatistics
    loop: LoopStatistics
    pacing: Pacing
    clock: SessionClock
    garbage: CollectorStatistics


@dataclass(frozen=True, slots=True)
class ScoresSnapshot:
    """Scores over sessions, and the caches of quizzes by where they are."""

    scores: ScoresStatistics
    caches: Mapping[str, CacheCounts]


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """What a node knows of the others, and has to do with them."""

    cluster: Cluster
    traffic: ClusterTraffic


# -- kinds -----------------------------------------------------------------------------------------


def _counter(name: str, help_text: str, value: Value, labels: Sequence[str] = ()) -> Metric:
    return _filled(CounterMetricFamily(name, help_text, labels=labels), value)


def _gauge(name: str, help_text: str, value: Value, labels: Sequence[str] = ()) -> Metric:
    return _filled(GaugeMetricFamily(name, help_text, labels=labels), value)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, value: Value) -> Metric:
    assert not isinstance(value, LatencyStatistics)
    if not isinstance(value, Mapping):
        family.add_metric([], value)
        return family
    for labels, count in sorted(value.items()):
        family.add_metric([labels] if isinstance(labels, str) else labels, count)
    return family


def _histogram(name: str, help_text: str, latency: Value, labels: Sequence[str] = ()) -> Metric:
    assert isinstance(latency, LatencyStatistics)
    assert not labels
    bounds = ["+Inf" if bound_s == inf else str(bound_s) for bound_s in latency.bounds_s]
    buckets = list(zip(bounds, accumulate(latency.counts), strict=True))
    return HistogramMetricFamily(name, help_text, buckets, latency.sum_s)


COUNTER, GAUGE, HISTOGRAM = _counter, _gauge, _histogram


# -- values that are more than an attribute --------------------------------------------------------


def _holders(loop: LoopStatistics) -> Mapping[tuple[str, ...], float]:
    holds = (("minute", loop.hold), ("start", loop.hold_ever))
    return {(since, hold.task): hold.cpu_s for since, hold in holds if hold.task}


def _nodes(cluster: Cluster) -> Mapping[str, float]:
    states = Counter("draining" if node.member.draining else "up" for node in cluster.nodes())
    return {"up": 0, "draining": 0} | states


def _shards(cluster: Cluster) -> Mapping[str, float]:
    return {node.member.name: node.shards for node in cluster.nodes()}


def _lookups(caches: Mapping[str, CacheCounts]) -> Mapping[tuple[str, ...], float]:
    return {
        (name, outcome): count
        for name, counts in caches.items()
        for outcome, count in (("hit", counts.hits), ("miss", counts.misses))
    }


def _ahead(capacity: Capacity) -> Mapping[tuple[str, ...], float]:
    """Nothing before PostgreSQL has answered: a zero would be an alert."""
    return {} if capacity.partitions_ahead is None else {(): capacity.partitions_ahead}


def _moved(traffic: ClusterTraffic) -> Mapping[str, float]:
    return {
        "taken_over": traffic.taken_over,
        "handed_on": traffic.handed_on,
        "not_handed_on": traffic.not_handed_on,
    }


# -- the metrics -----------------------------------------------------------------------------------

# fmt: off
NODE: tuple[Row[NodeSnapshot], ...] = (
    Row(GAUGE, "fanfare_sessions_active", "Sessions in memory.", lambda s: s.registry.active),
    Row(GAUGE, "fanfare_sessions_quarantined", "Sessions taken out of service.",
        lambda s: s.registry.quarantined),
    Row(GAUGE, "fanfare_players", "Players in the sessions in memory.", lambda s: s.registry.players),
    Row(GAUGE, "fanfare_subscribers", "Clients that listen to a session.", lambda s: s.registry.subscribers),
    Row(GAUGE, "fanfare_mailbox_commands", "Commands that wait in mailboxes.", lambda s: s.registry.backlog),
    Row(GAUGE, "fanfare_commands_waiting", "Commands that wait for their session to come up.",
        lambda s: s.waiting),
    Row(COUNTER, "fanfare_session_crashes", "Crashes of session actors.", lambda s: s.registry.crashes),
    Row(COUNTER, "fanfare_mistakes",
        "Mistakes outside of session actors, each of which cost a command or a connection.",
        lambda s: s.mistakes),
    Row(COUNTER, "fanfare_players_joined", "Players who joined.", lambda s: s.registry.players_joined),
    Row(COUNTER, "fanfare_answers_accepted", "Answers accepted.", lambda s: s.registry.answers_accepted),
    Row(COUNTER, "fanfare_answers_repeated", "Answers sent again.", lambda s: s.registry.answers_repeated),
    Row(COUNTER, "fanfare_acks", "Acknowledgements of answers sent.", lambda s: s.registry.acks),
    Row(HISTOGRAM, "fanfare_answer_ack_seconds",
        "From the receipt of an answer at its first node to the ack at the session's owner.",
        lambda s: s.registry.ack_latency),
    Row(COUNTER, "fanfare_refused", "Requests refused, by code.",
        # From zero on: a rate does not see a counter that begins at its first value.
        lambda s: {"busy": 0} | s.registry.refused, ("code",)),
    Row(COUNTER, "fanfare_broadcasts", "Broadcasts of all sessions.", lambda s: s.registry.broadcasts),
    Row(COUNTER, "fanfare_frames_pushed", "Frames handed to subscribers.",
        lambda s: s.registry.frames_pushed),
    Row(GAUGE, "fanfare_tick_seconds", "Least time between two leaderboards just now.",
        lambda s: s.registry.tick_ms / 1000),
    Row(GAUGE, "fanfare_connections", "Open connections to the realtime port.",
        lambda s: s.transports.connections),
    Row(GAUGE, "fanfare_event_streams", "Open event streams.",
        lambda s: s.streams + s.transports.event_streams),
    Row(COUNTER, "fanfare_realtime_requests", "HTTP requests to the realtime port.",
        lambda s: s.transports.requests_total),
    Row(COUNTER, "fanfare_realtime_looks", "Times that the realtime port asked which sockets are ready.",
        lambda s: s.transports.looks_total),
    Row(COUNTER, "fanfare_messages_in", "Messages from WebSocket clients.",
        lambda s: s.transports.messages_in_total),
    Row(COUNTER, "fanfare_frames_out", "Frames sent to WebSocket clients.",
        lambda s: s.transports.frames_out_total),
    Row(COUNTER, "fanfare_bytes_out", "Bytes sent to WebSocket clients.",
        lambda s: s.transports.bytes_out_total),
    Row(COUNTER, "fanfare_connections_accepted", "WebSocket connections accepted.",
        lambda s: s.transports.accepted_total),
    Row(GAUGE, "fanfare_http_connections", "Open connections to the HTTP API.", lambda s: s.http.connections),
    Row(COUNTER, "fanfare_http_connections_refused",
        "Connections to the HTTP API that were closed at once, by reason.",
        lambda s: s.http.refused, ("reason",)),
    Row(COUNTER, "fanfare_handshakes_refused", "Failed handshakes, by reason.",
        lambda s: s.transports.refused_total, ("reason",)),
    Row(COUNTER, "fanfare_connections_closed", "Ended connections, by reason.",
        lambda s: s.transports.closed_total, ("reason",)),
    Row(GAUGE, "fanfare_journal_queued_facts", "Facts that wait for their commit.",
        lambda s: s.journal.queued),
    Row(COUNTER, "fanfare_journal_committed_facts", "Facts committed.", lambda s: s.journal.committed_total),
    Row(COUNTER, "fanfare_journal_batches", "Transactions committed.", lambda s: s.journal.batches_total),
    Row(COUNTER, "fanfare_journal_retries", "Commits that had to be tried again.",
        lambda s: s.journal.retries_total),
    Row(COUNTER, "fanfare_journal_fenced", "Sessions found to be somebody else's.",
        lambda s: s.journal.fenced_total),
    Row(GAUGE, "fanfare_journal_healthy", "Whether commits succeed just now.", lambda s: s.journal.healthy),
    Row(GAUGE, "fanfare_journal_last_commit_seconds", "The last transaction's duration.",
        lambda s: s.journal.last_commit_s),
    Row(HISTOGRAM, "fanfare_journal_latency_seconds",
        "From the append of a batch's oldest fact to the end of its transaction.",
        lambda s: s.journal.latency),
    Row(COUNTER, "fanfare_database_losses",
        "Times that the database came back without commits that it had confirmed.",
        lambda s: s.journal.retained.losses_total),
    Row(COUNTER, "fanfare_facts_written_again", "Facts that the database had lost and that are there again.",
        lambda s: s.journal.retained.written_again_total),
    Row(COUNTER, "fanfare_facts_put_aside",
        "Facts that the database had lost and that wait for another owner to merge them.",
        lambda s: s.journal.retained.put_aside_total),
    Row(COUNTER, "fanfare_facts_lost", "Facts that the database had lost for good.",
        lambda s: s.journal.retained.lost_total),
    Row(COUNTER, "fanfare_loop_turns", "Turns of the event loop.", lambda s: s.loop.turns_total),
    Row(GAUGE, "fanfare_pacing_seconds", "Least time between two reads, and two commits, just now.",
        lambda s: s.pacing.wait_s),
    Row(GAUGE, "fanfare_loop_lag_seconds", "Lateness of the event loop, last reading.",
        lambda s: s.loop.lag_s),
    Row(GAUGE, "fanfare_loop_lag_max_seconds", "Worst of the last minute.", lambda s: s.loop.lag_max_s),
    Row(GAUGE, "fanfare_loop_busy_ratio",
        "Share of the last five seconds in which the loop had something to do.", lambda s: s.loop.busy_ratio),
    Row(COUNTER, "fanfare_loop_busy_seconds", "Time in which it had.", lambda s: s.loop.busy_total_s),
    Row(GAUGE, "fanfare_loop_hold_seconds", "Longest step of one task in the last minute.",
        lambda s: s.loop.hold_s),
    Row(GAUGE, "fanfare_loop_hold_cpu_seconds",
        "Most of the processor that one step has taken in the last minute.", lambda s: s.loop.hold.cpu_s),
    Row(GAUGE, "fanfare_loop_holder_seconds", "The same, and whose step it was.",
        lambda s: _holders(s.loop), ("since", "task")),
    Row(COUNTER, "fanfare_loop_holds", "Steps that took over 5 ms of the processor.",
        lambda s: s.loop.holds_total),
    Row(GAUGE, "fanfare_clock_offset_seconds",
        "How far the wall clock is ahead of the clock of the sessions.",
        lambda s: s.clock.offset_ms() / 1000),
    Row(COUNTER, "fanfare_stood_still_seconds",
        "Time in which the process was stopped, or its machine; running countdowns got it back.",
        lambda s: s.clock.stood_still_ms / 1000),
    Row(GAUGE, "fanfare_loop_gap_seconds",
        "Longest time of the last minute between two looks at the sockets.", lambda s: s.loop.gap_s),
    Row(COUNTER, "fanfare_garbage_collections", "Collections of garbage, by what was looked at.",
        lambda s: s.garbage.collections_total, ("of",)),
    Row(COUNTER, "fanfare_garbage_freezes", "Times that survivors were put out of sight.",
        lambda s: s.garbage.freezes_total),
    Row(GAUGE, "fanfare_garbage_pause_seconds",
        "Processor time of the longest collection of the last minute, full ones left out.",
        lambda s: s.garbage.pause_s),
    Row(GAUGE, "fanfare_garbage_full_pause_seconds", "That of the last full collection.",
        lambda s: s.garbage.full_pause_s),
    Row(GAUGE, "fanfare_garbage_full_age_seconds", "Since that, or since the start.",
        lambda s: s.garbage.since_full_s),
)

SPOOL: tuple[Row[SpoolingStatistics], ...] = (
    Row(GAUGE, "fanfare_spool_active", "Whether facts go by way of the spool just now.", lambda s: s.active),
    Row(GAUGE, "fanfare_spool_failing", "Whether the spool's last write failed.", lambda s: s.failing),
    Row(GAUGE, "fanfare_spool_certain", "Whether the node may acknowledge from its spool.",
        lambda s: s.certain),
    Row(GAUGE, "fanfare_spool_facts", "Facts in the spool.", lambda s: s.facts),
    Row(GAUGE, "fanfare_spool_bytes", "Bytes of the facts in the spool.", lambda s: s.bytes),
    Row(GAUGE, "fanfare_spool_oldest_seconds", "Age of the oldest fact in the spool.",
        lambda s: s.oldest_age_s),
    Row(COUNTER, "fanfare_spool_in_facts", "Facts that went into the spool.", lambda s: s.spooled_total),
    Row(COUNTER, "fanfare_spool_drained_facts", "Facts that went from the spool to Postgres.",
        lambda s: s.drained_total),
    Row(COUNTER, "fanfare_spool_put_aside_facts", "Drained facts whose session had another owner.",
        lambda s: s.put_aside_total),
    Row(COUNTER, "fanfare_spool_failures", "Writes to the spool that failed.", lambda s: s.failures_total),
)
"""Where there is a spool."""

SCORES: tuple[Row[ScoresSnapshot], ...] = (
    Row(COUNTER, "fanfare_sessions_scored", "Sessions whose users' scores this node has made.",
        lambda s: s.scores.scoring.sessions_total),
    Row(COUNTER, "fanfare_session_scoring_failures", "Attempts at that which failed, and are repeated.",
        lambda s: s.scores.scoring.failed_total),
    Row(COUNTER, "fanfare_score_changes", "Changes of scores that this node has taken to the leaderboards.",
        lambda s: s.scores.scoring.changes_total),
    Row(COUNTER, "fanfare_leaderboard_reads", "Parts of leaderboards over sessions that were read, by where.",
        lambda s: {"redis": s.scores.from_redis_total, "postgres": s.scores.from_postgres_total}, ("from",)),
    Row(COUNTER, "fanfare_leaderboard_sets_filled", "Leaderboards that this node has filled in Redis.",
        lambda s: s.scores.scoring.sets_filled_total),
    Row(COUNTER, "fanfare_leaderboard_sets_given_up",
        "Times that the leaderboards in Redis were gone or not up to date, and began anew.",
        lambda s: s.scores.scoring.sets_given_up_total),
    Row(COUNTER, "fanfare_quiz_lookups", "Look-ups of quizzes, by cache and outcome.",
        lambda s: _lookups(s.caches), ("cache", "outcome")),
    Row(COUNTER, "fanfare_quiz_invalidations", "Quizzes that a cache was told to forget, by cache.",
        lambda s: {name: counts.invalidations for name, counts in s.caches.items()}, ("cache",)),
)
"""About users and quizzes."""

POSTGRESQL: tuple[Row[JournalState], ...] = (
    Row(GAUGE, "fanfare_postgresql_up", "Whether PostgreSQL answers the node's signs of life.",
        lambda s: s.database_problem() is None),
)
"""Known also while nobody plays, which `fanfare_journal_healthy` is not: it follows the last commit."""

BOUNDS: tuple[Row[Config], ...] = (
    Row(GAUGE, "fanfare_journal_max_facts", "Facts that may wait for their commit.",
        lambda c: c.journal_facts_max),
    Row(GAUGE, "fanfare_spool_max_bytes", "Bytes of facts that the spool takes.",
        lambda c: c.spool_bytes_max),
)
"""Settings that the values of other rows are held against."""

CAPACITY: tuple[Row[Capacity], ...] = (
    Row(GAUGE, "fanfare_data_disk_bytes", "Size of the file system with the data directory.",
        lambda s: s.disk_bytes),
    Row(GAUGE, "fanfare_data_disk_free_bytes", "What is free of it.", lambda s: s.disk_free_bytes),
    Row(GAUGE, "fanfare_partitions_ahead", "Partitions for sessions of times to come.",
        _ahead),
    Row(GAUGE, "fanfare_replication_slot_lag_bytes",
        "Log that PostgreSQL keeps for a replication slot.", lambda s: s.slot_lag_bytes, ("slot",)),
)
"""What fills up over days, looked at once a minute."""

TRACES: tuple[Row[Tracing], ...] = (
    Row(COUNTER, "fanfare_traces_sent", "Traces that the collector has taken.", lambda s: s.sent_total),
    Row(COUNTER, "fanfare_traces_dropped", "Traces that it did not take.", lambda s: s.dropped_total),
)

CLUSTER: tuple[Row[ClusterSnapshot], ...] = (
    Row(GAUGE, "fanfare_cluster_nodes", "Nodes that this one knows, by state.",
        lambda s: _nodes(s.cluster), ("state",)),
    Row(GAUGE, "fanfare_cluster_shards", "Shards of each node by this one's ring.",
        lambda s: _shards(s.cluster), ("node",)),
    Row(GAUGE, "fanfare_cluster_redis_up", "Whether Redis has answered lately.",
        lambda s: s.cluster.redis_up()),
    Row(GAUGE, "fanfare_cluster_ring_generation", "The same on nodes that place sessions alike.",
        lambda s: s.cluster.generation()),
    Row(COUNTER, "fanfare_cluster_sessions_moved", "Sessions that changed nodes, by how.",
        lambda s: _moved(s.traffic), ("how",)),
    Row(COUNTER, "fanfare_cluster_clients_sent_on", "Clients told of another node.",
        lambda s: s.traffic.sent_on),
    Row(COUNTER, "fanfare_cluster_commands_forwarded", "Commands passed to another node.",
        lambda s: s.traffic.forwarded),
    Row(GAUGE, "fanfare_relays", "Sessions elsewhere that have clients here.", lambda s: s.traffic.relays),
    Row(GAUGE, "fanfare_relay_clients", "Those clients.", lambda s: s.traffic.relay_clients),
    Row(GAUGE, "fanfare_links", "Links to other nodes.", lambda s: s.traffic.links),
    Row(GAUGE, "fanfare_link_entries_waiting", "What waits to be sent to them.",
        lambda s: s.traffic.link_waiting),
    Row(COUNTER, "fanfare_links_lost", "Links that were lost.", lambda s: s.traffic.links_lost),
    Row(COUNTER, "fanfare_bus_messages_dropped", "Announcements not made.", lambda s: s.traffic.bus_dropped),
    Row(GAUGE, "fanfare_cluster_strangers", "Nodes there that are not let in.",
        lambda s: s.traffic.strangers),
    Row(COUNTER, "fanfare_cluster_nodes_refused", "Nodes that were not let in.", lambda s: s.traffic.refused),
)
"""Where the node is one of several."""
# fmt: on


def _metrics(rows: Iterable[Row[S]], snapshot: S) -> Iterator[Metric]:
    return (row.make(row.name, row.help, row.get(snapshot), row.labels) for row in rows)


class NodeCollector(Collector):
    """Reads every `statistics()` of the node.

    Args:
        streams: how many event streams are open.
        http: what is counted of the HTTP port.
    """

    def __init__(self, services: Services, streams: Callable[[], int], http: HttpTally) -> None:
        self._services = services
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
        )
        yield from _metrics(NODE, snapshot)
        yield from _metrics(SCORES, ScoresSnapshot(services.scores.statistics(), services.quiz_caches))
        if journal.spooling is not None:
            yield from _metrics(SPOOL, journal.spooling)
        yield from _metrics(BOUNDS, services.config)
        yield from _metrics(POSTGRESQL, services.journal)
        if services.capacity is not None:
            yield from _metrics(CAPACITY, services.capacity.seen)
        if services.tracing is not None:
            yield from _metrics(TRACES, services.tracing)
        if services.cluster is not None:
            yield from _metrics(CLUSTER, ClusterSnapshot(services.cluster, services.cluster.traffic()))


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
        requests_total=sum(t.requests_total for t in each),
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
        yield _counter("process_cpu_seconds", "Processor time, user and system.", spent.user + spent.system)
        yield _gauge("process_resident_memory_bytes", "Memory in use.", memory.rss)
        yield _gauge("process_virtual_memory_bytes", "Memory reserved.", memory.vms)
        yield _gauge("process_start_time_seconds", "Since the epoch.", self._process.create_time())
        yield _gauge("process_max_fds", "Files that may be open.", getrlimit(RLIMIT_NOFILE)[0])
        with suppress(OSError):
            # Linux tells since 6.2; elsewhere the size is 0.
            if open_files := Path(f"/proc/{self._process.pid}/fd").stat().st_size:
                yield _gauge("process_open_fds", "Files that are open.", open_files)


class Metrics:
    def __init__(self, services: Services, streams: Callable[[], int], http: HttpTally) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(NodeCollector(services, streams, http))
        self._registry.register(ProcessCollector())
        GCCollector(registry=self._registry)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)
