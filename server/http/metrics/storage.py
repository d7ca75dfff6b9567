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

POSTGRESQL: tuple[Row[JournalState], ...] = (
    Row(GAUGE, "fanfare_postgresql_up", "Whether PostgreSQL answers the node's signs of life.",
        lambda s: s.database_problem() is None),
    Row(HISTOGRAM, "fanfare_postgresql_sign_seconds", "Signs of life to PostgreSQL, there and back.",
        lambda s: s.database_signs.total.statistics()),
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

# fmt: on
