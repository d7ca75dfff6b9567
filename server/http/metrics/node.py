"""What a node counts of its sessions, its connections, its facts and its loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.actors.clock import SessionClock
from engine.actors.pacing import Pacing
from engine.actors.registry import RegistryStatistics
from engine.latency import LatencyStatistics
from engine.storage.journal.writer import WriteBehindStatistics
from server.http.metrics.row import COUNTER, GAUGE, HISTOGRAM, Row
from server.http.sockets import HttpTally
from server.realtime.transport import TransportStatistics
from server.runtime.gc_policy import CollectorStatistics
from server.runtime.health import NUMBERS, Health
from server.runtime.loop_watch import LoopStatistics
from server.runtime.tracing import Tracing


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """What a node counts of itself. `waiting` counts commands whose session is looked up or activated;
    `transports` is the sum of all of them; `streams` counts the event streams of the HTTP port,
    and `resumes` clients that came back by WebSocket."""

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
    resumes: LatencyStatistics


def _holders(loop: LoopStatistics) -> Mapping[tuple[str, ...], float]:
    holds = (("minute", loop.hold), ("start", loop.hold_ever))
    return {(since, hold.task): hold.cpu_s for since, hold in holds if hold.task}


def _requests(http: HttpTally) -> Mapping[tuple[str, ...], LatencyStatistics]:
    return {key: each.statistics() for key, each in http.requests.items()}


# fmt: off
SESSIONS: tuple[Row[NodeSnapshot], ...] = (
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
    Row(COUNTER, "fanfare_answers_late", "Answers refused because they came late.",
        lambda s: s.registry.refused.get("late", 0)),
    Row(GAUGE, "fanfare_sessions_stalled",
        "Sessions whose oldest answer or join has waited in the mailbox for over a second.",
        lambda s: s.registry.stalled),
    Row(HISTOGRAM, "fanfare_join_seconds",
        "From the receipt of a new player's join at its first node to its commit at the session's owner.",
        lambda s: s.registry.join_latency),
    Row(COUNTER, "fanfare_rejoins", "Clients that came back to their seat.", lambda s: s.registry.rejoins),
    Row(HISTOGRAM, "fanfare_resume_seconds",
        "From the join with a token by WebSocket to the `joined` that answers it.", lambda s: s.resumes),
    Row(HISTOGRAM, "fanfare_broadcast_seconds",
        "From the moment when a frame is queued until it was handed over to all subscribers of its session.",
        lambda s: s.registry.broadcast_latency),
    Row(COUNTER, "fanfare_broadcasts", "Broadcasts of all sessions.", lambda s: s.registry.broadcasts),
    Row(COUNTER, "fanfare_frames_pushed", "Frames handed to subscribers.",
        lambda s: s.registry.frames_pushed),
    Row(GAUGE, "fanfare_tick_seconds", "Least time between two leaderboards just now.",
        lambda s: s.registry.tick_ms / 1000),
)

CONNECTIONS: tuple[Row[NodeSnapshot], ...] = (
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
    Row(HISTOGRAM, "fanfare_http_request_seconds",
        "From a request to the HTTP API to the head of its response, by route and class of the status.",
        lambda s: _requests(s.http), ("route", "status")),
    Row(COUNTER, "fanfare_http_connections_refused",
        "Connections to the HTTP API that were closed at once, by reason.",
        lambda s: s.http.refused, ("reason",)),
    Row(COUNTER, "fanfare_handshakes_refused", "Failed handshakes, by reason.",
        lambda s: s.transports.refused_total, ("reason",)),
    Row(COUNTER, "fanfare_slow_consumers", "Connections ended because their client did not keep up.",
        lambda s: s.transports.closed_total.get("slow_consumer", 0)),
    Row(COUNTER, "fanfare_connections_closed", "Ended connections, by reason.",
        lambda s: s.transports.closed_total, ("reason",)),
)

FACTS: tuple[Row[NodeSnapshot], ...] = (
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
    Row(HISTOGRAM, "fanfare_commit_seconds", "Transactions with facts, from their statement to its answer.",
        lambda s: s.journal.commits),
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
)

LOOP: tuple[Row[NodeSnapshot], ...] = (
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
    Row(HISTOGRAM, "fanfare_loop_long_step_seconds", "Steps of a task that took over a millisecond.",
        lambda s: s.loop.long_steps),
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

HEALTH: tuple[Row[Health], ...] = (
    Row(GAUGE, "fanfare_component_state", "How a component is: 0 ok, 1 degraded, 2 down, 3 unknown.",
        lambda h: {name: NUMBERS[state] for name, state in h.states().items()}, ("component",)),
)

TRACES: tuple[Row[Tracing], ...] = (
    Row(COUNTER, "fanfare_traces_sent", "Traces that the collector has taken.", lambda s: s.sent_total),
    Row(COUNTER, "fanfare_traces_dropped", "Traces that it did not take.", lambda s: s.dropped_total),
)

# fmt: on
