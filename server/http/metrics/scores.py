"""What a node counts of users and quizzes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.ports import CacheCounts
from server.http.metrics.row import COUNTER, Row
from server.scores import ScoresStatistics


@dataclass(frozen=True, slots=True)
class ScoresSnapshot:
    """Scores over sessions, and the caches of quizzes by where they are."""

    scores: ScoresStatistics
    caches: Mapping[str, CacheCounts]


def _lookups(caches: Mapping[str, CacheCounts]) -> Mapping[tuple[str, ...], float]:
    return {
        (name, outcome): count
        for name, counts in caches.items()
        for outcome, count in (("hit", counts.hits), ("miss", counts.misses))
    }


# fmt: off
SCORES: tuple[Row[ScoresSnapshot], ...] = (
    Row(COUNTER, "fanfare_sessions_scored", "Sessions whose users' scores this node has made.",
        lambda s: s.scores.scoring.sessions_total,
        advice="Follows finished sessions; stands still with failures: scores are late."),
    Row(COUNTER, "fanfare_session_scoring_failures", "Attempts at that which failed, and are repeated.",
        lambda s: s.scores.scoring.failed_total,
        advice="Rises: PostgreSQL is slow or away; attempts are repeated by themselves."),
    Row(COUNTER, "fanfare_score_changes", "Changes of scores that this node has taken to the leaderboards.",
        lambda s: s.scores.scoring.changes_total,
        advice="The load of the leaderboards in Redis."),
    Row(COUNTER, "fanfare_leaderboard_reads", "Parts of leaderboards over sessions that were read, by where.",
        lambda s: {"redis": s.scores.from_redis_total, "postgres": s.scores.from_postgres_total}, ("from",),
        advice="Reads from `postgres` rise: Redis is away, or its sets are being filled."),
    Row(COUNTER, "fanfare_leaderboard_sets_filled", "Leaderboards that this node has filled in Redis.",
        lambda s: s.scores.scoring.sets_filled_total,
        advice="Rises after Redis was emptied; otherwise stands nearly still."),
    Row(COUNTER, "fanfare_leaderboard_sets_given_up",
        "Times that the leaderboards in Redis were gone or not up to date, and began anew.",
        lambda s: s.scores.scoring.sets_given_up_total,
        advice="Rises again and again: Redis forgets; see whether it evicts keys."),
    Row(COUNTER, "fanfare_quiz_lookups", "Look-ups of quizzes, by cache and outcome.",
        lambda s: _lookups(s.caches), ("cache", "outcome"),
        advice="Many misses in `memory`: quizzes are edited, or more are played than the cache holds."),
    Row(COUNTER, "fanfare_quiz_invalidations", "Quizzes that a cache was told to forget, by cache.",
        lambda s: {name: counts.invalidations for name, counts in s.caches.items()}, ("cache",),
        advice="Follows edits of quizzes, on each node."),
)
"""About users and quizzes."""

# fmt: on
