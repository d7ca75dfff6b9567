"""What a node knows of the spool, of PostgreSQL and of what fills up."""

from __future__ import annotations

from collections.abc import Mapping

from engine.storage.spool.journal import SpoolingStatistics
from server.config.config import Config
from server.http.metrics.row import COUNTER, GAUGE, HISTOGRAM, Row
from server.http.services import JournalState
from server.runtime.capacity import Capacity


def _ahead(capacity: Capacity) -> Mapping[tuple[str, ...], float]:
    """Nothing before PostgreSQL has answered: a zero would be an alert."""
    return {} if capacity.partitions_ahead is None else {(): capacity.partitions_ahead}


# fmt: off
SPOOL: tuple[Row[SpoolingStatistics], ...] = (
    Row(GAUGE, "fanfare_spool_active", "Whether facts go by way of the spool just now.", lambda s: s.active,
        advice="Above 0: PostgreSQL is away or too slow; keep those nodes and their disks.",
        over_nodes="sum"),
    Row(GAUGE, "fanfare_spool_failing", "Whether the disk did not take what the spool gave it last.",
        lambda s: s.failing,
        advice="Above 0: the disk is full or broken; the log has its error.", over_nodes="sum"),
    Row(GAUGE, "fanfare_spool_certain", "Whether the node may acknowledge from its spool.",
        lambda s: s.certain,
        advice="0: another node may own the sessions; see Redis, and clocks that stood still.",
        over_nodes="min"),
    Row(GAUGE, "fanfare_spool_facts", "Facts in the spool.", lambda s: s.facts,
        advice="Facts that are on disks of nodes alone; falls to 0 once PostgreSQL is back.",
        over_nodes="sum"),
    Row(GAUGE, "fanfare_spool_bytes", "Bytes of the facts in the spool.", lambda s: s.bytes,
        advice="Hold each node's against `fanfare_spool_max_bytes`: how long the spool lasts.",
        over_nodes="sum"),
    Row(GAUGE, "fanfare_spool_oldest_seconds", "Age of the oldest fact in the spool.",
        lambda s: s.oldest_age_s,
        advice="Since when facts have not been in PostgreSQL; does not fall though it is back: the log "
               "says why.",
        over_nodes="max"),
    Row(COUNTER, "fanfare_spool_in_facts", "Facts that went into the spool.", lambda s: s.spooled_total,
        advice="Rises only while PostgreSQL is away or slow."),
    Row(COUNTER, "fanfare_spool_drained_facts", "Facts that went from the spool to Postgres.",
        lambda s: s.drained_total,
        advice="Its rate is that of the drain; 0 with a filled spool: the log says why."),
    Row(COUNTER, "fanfare_spool_put_aside_facts", "Drained facts whose session had another owner.",
        lambda s: s.put_aside_total,
        advice="Facts whose session moved meanwhile; they are merged by themselves."),
    Row(COUNTER, "fanfare_spool_failures", "Writes to the spool that failed.", lambda s: s.failures_total,
        advice="Rises: the disk fails or is full; make room or replace it."),
)
"""Where there is a spool."""

POSTGRESQL: tuple[Row[JournalState], ...] = (
    Row(GAUGE, "fanfare_postgresql_up", "Whether PostgreSQL answers the node's signs of life.",
        lambda s: s.database_problem() is None,
        advice="0: `fanfare doctor` on that node says the error; leave the node running.", over_nodes="min"),
    Row(HISTOGRAM, "fanfare_postgresql_sign_seconds", "Signs of life to PostgreSQL, there and back.",
        lambda s: s.database_signs.total.statistics(),
        advice="Slow while commits are few: the network to PostgreSQL, or its machine, is busy."),
)
"""Known also while nobody plays, which `fanfare_journal_healthy` is not: it follows the last commit."""

BOUNDS: tuple[Row[Config], ...] = (
    Row(GAUGE, "fanfare_journal_max_facts", "Facts that may wait for their commit.",
        lambda c: c.journal_facts_max,
        advice="The bound of `fanfare_journal_queued_facts`; beyond it answers are refused as `busy`.",
        over_nodes="sum"),
    Row(GAUGE, "fanfare_spool_max_bytes", "Bytes of facts that the spool takes.",
        lambda c: c.spool_bytes_max,
        advice="The bound of `fanfare_spool_bytes`, set by `spool_bytes_max`.", over_nodes="sum"),
)
"""Settings that the values of other rows are held against."""

CAPACITY: tuple[Row[Capacity], ...] = (
    Row(GAUGE, "fanfare_data_disk_bytes", "Size of the file system with the data directory.",
        lambda s: s.disk_bytes,
        advice="What `fanfare_data_disk_free_bytes` is a share of.", over_nodes="each"),
    Row(GAUGE, "fanfare_data_disk_free_bytes", "What is free of it.", lambda s: s.disk_free_bytes,
        advice="Below a tenth: make room; a full disk ends the spool.", over_nodes="each"),
    Row(GAUGE, "fanfare_partitions_ahead", "Partitions for sessions of times to come.",
        _ahead,
        advice="Below 1: `fanfare db maintain`; the log says why a node did not make them.",
        over_nodes="min"),
    Row(GAUGE, "fanfare_replication_slot_lag_bytes",
        "Log that PostgreSQL keeps for a replication slot.", lambda s: s.slot_lag_bytes, ("slot",),
        advice="Grows: the reader of that slot is away; drop the slot if it is gone for good.",
        over_nodes="max"),
)
"""What fills up over days, looked at once a minute."""

# fmt: on
