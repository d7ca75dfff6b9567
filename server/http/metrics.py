"""What Prometheus reads: snapshots, taken when it asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from math import inf
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit

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

from engine.storage.journal.latency import LatencyStatistics
from engine.storage.journal.retained import RetainedStatistics
from engine.storage.spool.journal import SpoolingStatistics
from server.http.services import ClusterTraffic, Services
from server.http.sockets import HttpTally

CONTENT_TYPE = CONTENT_TYPE_LATEST


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
        yield InfoMetricFamily("fanfare", "The program.", {"version": self._services.version})
        yield from self._sessions()
        yield from self._connections()
        yield from self._journal()
        yield from self._loop()
        yield from self._garbage()
        yield from self._cluster()

    def _sessions(self) -> Iterator[Metric]:
        registry = self._services.registry.statistics()
        yield _gauge("fanfare_sessions_active", "Sessions in memory.", registry.active)
        yield _gauge("fanfare_sessions_quarantined", "Sessions taken out of service.", registry.quarantined)
        yield _gauge("fanfare_players", "Players in the sessions in memory.", registry.players)
        yield _gauge("fanfare_subscribers", "Clients that listen to a session.", registry.subscribers)
        yield _gauge("fanfare_mailbox_commands", "Commands that wait in mailboxes.", registry.backlog)
        yield _gauge(
            "fanfare_commands_waiting", "Commands that wait for their session to come up.", registry.waiting
        )
        yield _counter("fanfare_session_crashes", "Crashes of session actors.", registry.crashes)
        yield _counter(
            "fanfare_mistakes",
            "Mistakes outside of session actors, each of which cost a command or a connection.",
            self._services.boundary.mistakes_total,
        )
        yield _counter("fanfare_players_joined", "Players who joined.", registry.players_joined)
        yield _counter("fanfare_answers_accepted", "Answers accepted.", registry.answers_accepted)
        yield _counter("fanfare_answers_repeated", "Answers sent again.", registry.answers_repeated)
        refused = CounterMetricFamily("fanfare_refused", "Requests refused, by code.", labels=["code"])
        _add(refused, registry.refused)
        yield refused
        yield _counter("fanfare_broadcasts", "Broadcasts of all sessions.", registry.broadcasts)
        yield _counter("fanfare_frames_pushed", "Frames handed to subscribers.", registry.frames_pushed)
        yield _gauge(
            "fanfare_tick_seconds", "Least time between two leaderboards just now.", registry.tick_ms / 1000
        )

    def _connections(self) -> Iterator[Metric]:
        transports = list(self._services.transports())
        yield _gauge(
            "fanfare_connections",
            "Open connections to the realtime port.",
            sum(t.connections for t in transports),
        )
        yield _gauge(
            "fanfare_event_streams",
            "Open event streams.",
            self._streams() + sum(t.event_streams for t in transports),
        )
        yield _counter(
            "fanfare_realtime_requests",
            "HTTP requests to the realtime port.",
            sum(t.requests_total for t in transports),
        )
        yield _counter(
            "fanfare_messages_in",
            "Messages from WebSocket clients.",
            sum(t.messages_in_total for t in transports),
        )
        yield _counter(
            "fanfare_frames_out",
            "Frames sent to WebSocket clients.",
            sum(t.frames_out_total for t in transports),
        )
        yield _counter(
            "fanfare_bytes_out",
            "Bytes sent to WebSocket clients.",
            sum(t.bytes_out_total for t in transports),
        )
        yield _counter(
            "fanfare_connections_accepted",
            "WebSocket connections accepted.",
            sum(t.accepted_total for t in transports),
        )
        yield _gauge("fanfare_http_connections", "Open connections to the HTTP API.", self._http.connections)
        turned_away = CounterMetricFamily(
            "fanfare_http_connections_refused",
            "Connections to the HTTP API that were closed at once, by reason.",
            labels=["reason"],
        )
        _add(turned_away, self._http.refused)
        yield turned_away
        refused = CounterMetricFamily(
            "fanfare_handshakes_refused", "Failed handshakes, by reason.", labels=["reason"]
        )
        closed = CounterMetricFamily(
            "fanfare_connections_closed", "Ended connections, by reason.", labels=["reason"]
        )
        _add(refused, sum((Counter(t.refused_total) for t in transports), Counter()))
        _add(closed, sum((Counter(t.closed_total) for t in transports), Counter()))
        yield refused
        yield closed

    def _journal(self) -> Iterator[Metric]:
        journal = self._services.journal.statistics()
        yield _gauge("fanfare_journal_queued_facts", "Facts that wait for their commit.", journal.queued)
        yield _counter("fanfare_journal_committed_facts", "Facts committed.", journal.committed_total)
        yield _counter("fanfare_journal_batches", "Transactions committed.", journal.batches_total)
        yield _counter(
            "fanfare_journal_retries", "Commits that had to be tried again.", journal.retries_total
        )
        yield _counter(
            "fanfare_journal_fenced", "Sessions found to be somebody else's.", journal.fenced_total
        )
        yield _gauge("fanfare_journal_healthy", "Whether commits succeed just now.", journal.healthy)
        yield _gauge(
            "fanfare_journal_last_commit_seconds", "The last transaction's duration.", journal.last_commit_s
        )
        yield _histogram(
            "fanfare_journal_latency_seconds",
            "From the append of a batch's oldest fact to the end of its transaction.",
            journal.latency,
        )
        yield from self._retained(journal.retained)
        if journal.spooling is not None:
            yield from self._spool(journal.spooling)

    def _retained(self, retained: RetainedStatistics) -> Iterator[Metric]:
        yield _counter(
            "fanfare_database_losses",
            "Times that the database came back without commits that it had confirmed.",
            retained.losses_total,
        )
        yield _counter(
            "fanfare_facts_written_again",
            "Facts that the database had lost and that are there again.",
            retained.written_again_total,
        )
        yield _counter(
            "fanfare_facts_put_aside",
            "Facts that the database had lost and that wait for another owner to merge them.",
            retained.put_aside_total,
        )
        yield _counter(
            "fanfare_facts_lost", "Facts that the database had lost for good.", retained.lost_total
        )

    def _spool(self, spool: SpoolingStatistics) -> Iterator[Metric]:
        yield _gauge("fanfare_spool_active", "Whether facts go by way of the spool just now.", spool.active)
        yield _gauge("fanfare_spool_failing", "Whether the spool's last write failed.", spool.failing)
        yield _gauge(
            "fanfare_spool_certain", "Whether the node may acknowledge from its spool.", spool.certain
        )
        yield _gauge("fanfare_spool_facts", "Facts in the spool.", spool.facts)
        yield _gauge("fanfare_spool_bytes", "Bytes of the facts in the spool.", spool.bytes)
        yield _gauge(
            "fanfare_spool_oldest_seconds", "Age of the oldest fact in the spool.", spool.oldest_age_s
        )
        yield _counter("fanfare_spool_in_facts", "Facts that went into the spool.", spool.spooled_total)
        yield _counter(
            "fanfare_spool_drained_facts", "Facts that went from the spool to Postgres.", spool.drained_total
        )
        yield _counter(
            "fanfare_spool_put_aside_facts",
            "Drained facts whose session had another owner.",
            spool.put_aside_total,
        )
        yield _counter("fanfare_spool_failures", "Writes to the spool that failed.", spool.failures_total)

    def _loop(self) -> Iterator[Metric]:
        loop = self._services.loop_watch.statistics()
        yield _gauge("fanfare_loop_lag_seconds", "Lateness of the event loop, last reading.", loop.lag_s)
        yield _gauge("fanfare_loop_lag_max_seconds", "Worst of the last minute.", loop.lag_max_s)
        yield _gauge(
            "fanfare_loop_busy_ratio",
            "Share of the last five seconds in which the loop had something to do.",
            loop.busy_ratio,
        )
        yield _counter("fanfare_loop_busy_seconds", "Time in which it had.", loop.busy_total_s)
        yield _gauge("fanfare_loop_hold_seconds", "Longest step of one task in the last minute.", loop.hold_s)
        yield _gauge(
            "fanfare_loop_hold_cpu_seconds",
            "Most of the processor that one step has taken in the last minute.",
            loop.hold.cpu_s,
        )
        holder = GaugeMetricFamily(
            "fanfare_loop_holder_seconds", "The same, and whose step it was.", labels=["since", "task"]
        )
        for since, hold in (("minute", loop.hold), ("start", loop.hold_ever)):
            if hold.task:
                holder.add_metric([since, hold.task], hold.cpu_s)
        yield holder
        yield _counter("fanfare_loop_holds", "Steps that took over 5 ms of the processor.", loop.holds_total)
        yield _gauge(
            "fanfare_clock_offset_seconds",
            "How far the wall clock is ahead of the clock of the sessions.",
            self._services.clock.offset_ms() / 1000,
        )
        yield _counter(
            "fanfare_stood_still_seconds",
            "Time in which the process was stopped, or its machine; running countdowns got it back.",
            self._services.clock.stood_still_ms / 1000,
        )
        yield _gauge(
            "fanfare_loop_gap_seconds",
            "Longest time of the last minute between two looks at the sockets.",
            loop.gap_s,
        )

    def _garbage(self) -> Iterator[Metric]:
        garbage = self._services.collector.statistics()
        collections = CounterMetricFamily(
            "fanfare_garbage_collections", "Collections of garbage, by what was looked at.", labels=["of"]
        )
        _add(collections, garbage.collections_total)
        yield collections
        yield _counter(
            "fanfare_garbage_freezes", "Times that survivors were put out of sight.", garbage.freezes_total
        )
        yield _gauge(
            "fanfare_garbage_pause_seconds",
            "Processor time of the longest collection of the last minute, full ones left out.",
            garbage.pause_s,
        )
        yield _gauge(
            "fanfare_garbage_full_pause_seconds", "That of the last full collection.", garbage.full_pause_s
        )
        yield _gauge(
            "fanfare_garbage_full_age_seconds", "Since that, or since the start.", garbage.since_full_s
        )

    def _cluster(self) -> Iterator[Metric]:
        """Nothing of a node alone."""
        cluster = self._services.cluster
        if cluster is None:
            return
        nodes = cluster.nodes()
        states = Counter("draining" if node.member.draining else "up" for node in nodes)
        by_state = GaugeMetricFamily(
            "fanfare_cluster_nodes", "Nodes that this one knows, by state.", labels=["state"]
        )
        _add(by_state, {"up": 0, "draining": 0} | states)
        yield by_state
        shards = GaugeMetricFamily(
            "fanfare_cluster_shards", "Shards of each node by this one's ring.", labels=["node"]
        )
        _add(shards, {node.member.name: node.shards for node in nodes})
        yield shards
        yield _gauge("fanfare_cluster_redis_up", "Whether Redis has answered lately.", cluster.redis_up())
        yield _gauge(
            "fanfare_cluster_ring_generation",
            "The same on nodes that place sessions alike.",
            cluster.generation(),
        )
        yield from self._traffic(cluster.traffic())

    def _traffic(self, traffic: ClusterTraffic) -> Iterator[Metric]:
        """Between the nodes."""
        moves = CounterMetricFamily(
            "fanfare_cluster_sessions_moved", "Sessions that changed nodes, by how.", labels=["how"]
        )
        _add(
            moves,
            {
                "taken_over": traffic.taken_over,
                "handed_on": traffic.handed_on,
                "not_handed_on": traffic.not_handed_on,
            },
        )
        yield moves
        yield _counter("fanfare_cluster_clients_sent_on", "Clients told of another node.", traffic.sent_on)
        yield _counter(
            "fanfare_cluster_commands_forwarded", "Commands passed to another node.", traffic.forwarded
        )
        yield _gauge("fanfare_relays", "Sessions elsewhere that have clients here.", traffic.relays)
        yield _gauge("fanfare_relay_clients", "Those clients.", traffic.relay_clients)
        yield _gauge("fanfare_links", "Links to other nodes.", traffic.links)
        yield _gauge("fanfare_link_entries_waiting", "What waits to be sent to them.", traffic.link_waiting)
        yield _counter("fanfare_links_lost", "Links that were lost.", traffic.links_lost)
        yield _counter("fanfare_bus_messages_dropped", "Announcements not made.", traffic.bus_dropped)
        yield _gauge("fanfare_cluster_strangers", "Nodes there that are not let in.", traffic.strangers)
        yield _counter("fanfare_cluster_nodes_refused", "Nodes that were not let in.", traffic.refused)


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


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value)


def _histogram(name: str, help_text: str, latency: LatencyStatistics) -> Metric:
    labels = ["+Inf" if bound_s == inf else str(bound_s) for bound_s in latency.bounds_s]
    buckets = list(zip(labels, accumulate(latency.counts), strict=True))
    return HistogramMetricFamily(name, help_text, buckets, latency.sum_s)


def _add(family: CounterMetricFamily | GaugeMetricFamily, counts: Mapping[str, int]) -> None:
    for label, count in sorted(counts.items()):
        family.add_metric([label], count)


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(name, help_text, value)
