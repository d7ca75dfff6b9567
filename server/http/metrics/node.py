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
from server.runtime.request_times import together
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


def _requests(node: NodeSnapshot) -> Mapping[tuple[str, ...], LatencyStatistics]:
    return together((node.http.requests.statistics(), node.transports.requests))


def _certificate_ends(health: Health) -> Mapping[tuple[str, ...], float]:
    """Nothing where there is none, or it cannot be read: a zero would be an alert."""
    ends_ms = health.certificate_ends
    return {} if ends_ms is None else {(): ends_ms / 1000}


# fmt: off
SESSIONS: tuple[Row[NodeSnapshot], ...] = (
    Row(GAUGE, "fanfare_sessions_active", "Sessions in memory.", lambda s: s.registry.active,
        advice="The load of a node in sessions; on an idle node it falls to 0 as sessions leave memory.",
        over_nodes="sum"),
    Row(GAUGE, "fanfare_sessions_quarantined", "Sessions taken out of service.",
        lambda s: s.registry.quarantined,
        advice="Above 0: a session crashed again and again; the log has its traceback.", over_nodes="sum"),
    Row(GAUGE, "fanfare_players", "Players in the sessions in memory.", lambda s: s.registry.players,
        advice="Compare nodes by it: one that has far more than the others needs a lower `weight`.",
        over_nodes="sum"),
    Row(GAUGE, "fanfare_subscribers", "Clients that listen to a session.", lambda s: s.registry.subscribers,
        advice="What one broadcast costs: each frame goes to so many clients.", over_nodes="sum"),
    Row(GAUGE, "fanfare_mailbox_commands", "Commands that wait in mailboxes.", lambda s: s.registry.backlog,
        advice="Grows: actors do not keep up; see how busy the loop is, and which session is large.",
        over_nodes="sum"),
    Row(GAUGE, "fanfare_commands_waiting", "Commands that wait for their session to come up.",
        lambda s: s.waiting,
        advice="Grows: sessions come up slowly; see how long PostgreSQL takes.", over_nodes="sum"),
    Row(COUNTER, "fanfare_session_crashes", "Crashes of session actors.", lambda s: s.registry.crashes,
        advice="Rises: a bug; the log has the session and the traceback."),
    Row(COUNTER, "fanfare_mistakes",
        "Mistakes outside of session actors, each of which cost a command or a connection.",
        lambda s: s.mistakes,
        advice="Rises: a bug; the log has the work and the traceback."),
    Row(COUNTER, "fanfare_players_joined", "Players who joined.", lambda s: s.registry.players_joined,
        advice="The rate at which players come; with `fanfare_join_seconds` shows what a rush of joins "
               "does."),
    Row(COUNTER, "fanfare_answers_accepted", "Answers accepted.", lambda s: s.registry.answers_accepted,
        advice="The load in answers; falls to 0 during a question if players cannot reach the node."),
    Row(COUNTER, "fanfare_answers_repeated", "Answers sent again.", lambda s: s.registry.answers_repeated,
        advice="Rises: clients did not get their ack in time; see `fanfare_answer_ack_seconds` and the "
               "network."),
    Row(COUNTER, "fanfare_acks", "Acknowledgements of answers sent.", lambda s: s.registry.acks,
        advice="What other work is divided by: turns, commits and looks for an answer."),
    Row(HISTOGRAM, "fanfare_answer_ack_seconds",
        "From the receipt of an answer at its first node to the ack at the session's owner.",
        lambda s: s.registry.ack_latency,
        advice="A share above 0.5 s breaks the promise to players; the timelines at `/ops` show which "
               "stage is slow."),
    Row(COUNTER, "fanfare_refused", "Requests refused, by code.",
        # From zero on: a rate does not see a counter that begins at its first value.
        lambda s: {"busy": 0} | s.registry.refused, ("code",),
        advice="`busy` should stay at 0: see which node refuses, and the reasons in its `/readyz`."),
    Row(COUNTER, "fanfare_answers_late", "Answers refused because they came late.",
        lambda s: s.registry.refused.get("late", 0),
        advice="Rises with slow clients or networks; with slow acks as well, the node is the cause."),
    Row(GAUGE, "fanfare_sessions_stalled",
        "Sessions whose oldest answer or join has waited in the mailbox for over a second.",
        lambda s: s.registry.stalled,
        advice="Above 0: players wait now; see the loop, and the size of the largest session.",
        over_nodes="sum"),
    Row(HISTOGRAM, "fanfare_join_seconds",
        "From the receipt of a new player's join at its first node to its commit at the session's owner.",
        lambda s: s.registry.join_latency,
        advice="A share above 1 s breaks the promise to players; compare `fanfare_commit_seconds`."),
    Row(COUNTER, "fanfare_rejoins", "Clients that came back to their seat.", lambda s: s.registry.rejoins,
        advice="A burst: many lost their connection at once; see proxies, the network, and nodes that "
               "ended."),
    Row(HISTOGRAM, "fanfare_resume_seconds",
        "From the join with a token by WebSocket to the `joined` that answers it.", lambda s: s.resumes,
        advice="Slow: clients that come back wait; see how busy the loop is."),
    Row(HISTOGRAM, "fanfare_broadcast_seconds",
        "From the moment when a frame is queued until it was handed over to all subscribers of its session.",
        lambda s: s.registry.broadcast_latency,
        advice="Slow: boards and questions reach the last player late; see the loop and the size of the "
               "session."),
    Row(HISTOGRAM, "fanfare_answer_broadcast_seconds",
        "From the receipt of the oldest answer that a count, a leaderboard or a reveal tells of until that "
        "frame was handed over to all who get it.",
        lambda s: s.registry.answer_broadcast_latency,
        advice="How old what the screen shows is; above the tick (`fanfare_tick_seconds`): see "
               "`fanfare_broadcast_seconds` and the loop."),
    Row(COUNTER, "fanfare_broadcasts", "Broadcasts of all sessions.", lambda s: s.registry.broadcasts,
        advice="With `fanfare_frames_pushed_total`: how many clients one broadcast reaches."),
    Row(COUNTER, "fanfare_frames_pushed", "Frames handed to subscribers.",
        lambda s: s.registry.frames_pushed,
        advice="The load in frames: clients times broadcasts."),
    Row(GAUGE, "fanfare_tick_seconds", "Least time between two leaderboards just now.",
        lambda s: s.registry.tick_ms / 1000,
        advice="Above the session's `tick_ms`: the node sheds leaderboards to keep up with answers; add a "
               "node.",
        over_nodes="max"),
)

CONNECTIONS: tuple[Row[NodeSnapshot], ...] = (
    Row(GAUGE, "fanfare_connections", "Open connections to the realtime port.",
        lambda s: s.transports.connections,
        advice="Compare it with the open files of the process; falls at once if a proxy fails.",
        over_nodes="sum"),
    Row(GAUGE, "fanfare_event_streams", "Open event streams.",
        lambda s: s.streams + s.transports.event_streams,
        advice="Readers of boards, and views of operators, that are connected.", over_nodes="sum"),
    Row(GAUGE, "fanfare_hub_polls", "Clients of the hub that ask by long polling.",
        lambda s: s.transports.hub_polls,
        advice="Networks in which neither WebSockets nor event streams get through.", over_nodes="sum"),
    Row(COUNTER, "fanfare_realtime_requests", "HTTP requests to the realtime port.",
        lambda s: s.transports.requests_total,
        advice="The load in joins, answers and looks that come by HTTP to the realtime port."),
    Row(COUNTER, "fanfare_realtime_looks", "Times that the realtime port asked which sockets are ready.",
        lambda s: s.transports.looks_total,
        advice="Divide by `fanfare_acks_total`: far below 1 under load."),
    Row(COUNTER, "fanfare_messages_in", "Messages from WebSocket clients.",
        lambda s: s.transports.messages_in_total,
        advice="The load in messages; far more than answers and joins: a client does not behave."),
    Row(COUNTER, "fanfare_frames_out", "Frames sent to WebSocket clients.",
        lambda s: s.transports.frames_out_total,
        advice="The load of the realtime port in frames."),
    Row(COUNTER, "fanfare_bytes_out", "Bytes sent to WebSocket clients.",
        lambda s: s.transports.bytes_out_total,
        advice="Compare it with what the network card carries."),
    Row(COUNTER, "fanfare_connections_accepted", "WebSocket connections accepted.",
        lambda s: s.transports.accepted_total,
        advice="The rate at which clients come; a burst without new players is a reconnection of many."),
    Row(GAUGE, "fanfare_http_connections", "Open connections to the HTTP API.", lambda s: s.http.connections,
        advice="At its bound new ones are refused as `busy`.", over_nodes="sum"),
    Row(HISTOGRAM, "fanfare_http_request_seconds",
        "From a request to the head of its response, by route and class of the status; of the realtime port "
        "without event streams and long polls.", _requests, ("route", "status"),
        advice="Class `5xx` rises: the log has the request; slow on one route: see what that one reads."),
    Row(COUNTER, "fanfare_http_connections_refused",
        "Connections to the HTTP API that were closed at once, by reason.",
        lambda s: s.http.refused, ("reason",),
        advice="`busy`: too many in all; `too_many_connections`: from one address, perhaps a proxy that is "
               "not named in the settings."),
    Row(COUNTER, "fanfare_handshakes_refused", "Failed handshakes, by reason.",
        lambda s: s.transports.refused_total, ("reason",),
        advice="Rises: the reason says why clients are turned away."),
    Row(COUNTER, "fanfare_slow_consumers", "Connections ended because their client did not keep up.",
        lambda s: s.transports.closed_total.get("slow_consumer", 0),
        advice="A few are poor networks; many at once: the network of the node, or a proxy, is full."),
    Row(COUNTER, "fanfare_connections_closed", "Ended connections, by reason.",
        lambda s: s.transports.closed_total, ("reason",),
        advice="See the reason: `slow_consumer` and `restarting` come back by themselves."),
)

FACTS: tuple[Row[NodeSnapshot], ...] = (
    Row(GAUGE, "fanfare_journal_queued_facts", "Facts that wait for their commit.",
        lambda s: s.journal.queued,
        advice="Grows: PostgreSQL does not keep up; hold each node's against `fanfare_journal_max_facts`.",
        over_nodes="sum"),
    Row(COUNTER, "fanfare_journal_committed_facts", "Facts committed.", lambda s: s.journal.committed_total,
        advice="The load of PostgreSQL in rows."),
    Row(COUNTER, "fanfare_journal_batches", "Transactions committed.", lambda s: s.journal.batches_total,
        advice="With the facts: how many share a commit, which grows under load."),
    Row(COUNTER, "fanfare_journal_retries", "Commits that had to be tried again.",
        lambda s: s.journal.retries_total,
        advice="Rises: PostgreSQL was away or slow; the log has the error."),
    Row(COUNTER, "fanfare_journal_fenced", "Sessions found to be somebody else's.",
        lambda s: s.journal.fenced_total,
        advice="Rises: another node took sessions over; see whether this one stood still."),
    Row(GAUGE, "fanfare_journal_healthy", "Whether commits succeed just now.", lambda s: s.journal.healthy,
        advice="0: the last commit failed; the spool stands in, if there is one.", over_nodes="min"),
    Row(GAUGE, "fanfare_journal_last_commit_seconds", "The last transaction's duration.",
        lambda s: s.journal.last_commit_s,
        advice="A look at the moment; use `fanfare_commit_seconds` for graphs and alerts.", over_nodes="max"),
    Row(HISTOGRAM, "fanfare_commit_seconds", "Transactions with facts, from their statement to its answer.",
        lambda s: s.journal.commits,
        advice="Slow: PostgreSQL or its disk; every ack and join waits for it."),
    Row(HISTOGRAM, "fanfare_journal_latency_seconds",
        "From the append of a batch's oldest fact to the end of its transaction.",
        lambda s: s.journal.latency,
        advice="Far above `fanfare_commit_seconds`: facts wait for an earlier commit."),
    Row(COUNTER, "fanfare_database_losses",
        "Times that the database came back without commits that it had confirmed.",
        lambda s: s.journal.retained.losses_total,
        advice="Rises: look at once for a restore, a lagging replica, or `fsync` off."),
    Row(COUNTER, "fanfare_facts_written_again", "Facts that the database had lost and that are there again.",
        lambda s: s.journal.retained.written_again_total,
        advice="After a loss: what was repaired; leave the nodes running until it stands still."),
    Row(COUNTER, "fanfare_facts_put_aside",
        "Facts that the database had lost and that wait for another owner to merge them.",
        lambda s: s.journal.retained.put_aside_total,
        advice="After a loss: what waits for another owner; it is merged by itself."),
    Row(COUNTER, "fanfare_facts_lost", "Facts that the database had lost for good.",
        lambda s: s.journal.retained.lost_total,
        advice="Above 0: acknowledged facts are gone; the log names the sessions, tell their hosts."),
)

LOOP: tuple[Row[NodeSnapshot], ...] = (
    Row(COUNTER, "fanfare_loop_turns", "Turns of the event loop.", lambda s: s.loop.turns_total,
        advice="Divide by `fanfare_acks_total`: far below 1 under load."),
    Row(GAUGE, "fanfare_pacing_seconds", "Least time between two reads, and two commits, just now.",
        lambda s: s.pacing.wait_s,
        advice="Up to 0.01 on a busy node, 0 on a quiet one; explains a part of the acks' time.",
        over_nodes="max"),
    Row(GAUGE, "fanfare_loop_lag_seconds", "Lateness of the event loop, last reading.",
        lambda s: s.loop.lag_s,
        advice="A look at the moment; use the worst of the minute.", over_nodes="max"),
    Row(GAUGE, "fanfare_loop_lag_max_seconds", "Worst of the last minute.", lambda s: s.loop.lag_max_s,
        advice="High: the node is busy or was held; see who held it.", over_nodes="max"),
    Row(GAUGE, "fanfare_loop_busy_ratio",
        "Share of the last five seconds in which the loop had something to do.", lambda s: s.loop.busy_ratio,
        advice="Near 1: the processor is the limit; add a node.", over_nodes="max"),
    Row(COUNTER, "fanfare_loop_busy_seconds", "Time in which it had.", lambda s: s.loop.busy_total_s,
        advice="Its rate is the share of a processor's time that the node had use for."),
    Row(GAUGE, "fanfare_loop_hold_seconds", "Longest step of one task in the last minute.",
        lambda s: s.loop.hold_s,
        advice="Far above the processor's time: the machine is overcommitted.", over_nodes="max"),
    Row(GAUGE, "fanfare_loop_hold_cpu_seconds",
        "Most of the processor that one step has taken in the last minute.", lambda s: s.loop.hold.cpu_s,
        advice="Above 0.005: a step is too long; `fanfare_loop_holder_seconds` names its task.",
        over_nodes="max"),
    Row(GAUGE, "fanfare_loop_holder_seconds", "The same, and whose step it was.",
        lambda s: _holders(s.loop), ("since", "task"),
        advice="Names the task to report when a step is too long.", over_nodes="each"),
    Row(HISTOGRAM, "fanfare_loop_long_step_seconds", "Steps of a task that took over a millisecond.",
        lambda s: s.loop.long_steps,
        advice="How long long steps are; a tail above 0.1 s holds up everybody on the node."),
    Row(COUNTER, "fanfare_loop_holds", "Steps that took over 5 ms of the processor.",
        lambda s: s.loop.holds_total,
        advice="Should stand still; rises: report the task that held the loop."),
    Row(GAUGE, "fanfare_clock_offset_seconds",
        "How far the wall clock is ahead of the clock of the sessions.",
        lambda s: s.clock.offset_ms() / 1000,
        advice="Stays away from 0: somebody set the clock; see NTP on that machine.", over_nodes="each"),
    Row(COUNTER, "fanfare_stood_still_seconds",
        "Time in which the process was stopped, or its machine; running countdowns got it back.",
        lambda s: s.clock.stood_still_ms / 1000,
        advice="Rises: the machine was suspended or throttled; its own log says so."),
    Row(GAUGE, "fanfare_loop_gap_seconds",
        "Longest time of the last minute between two looks at the sockets.", lambda s: s.loop.gap_s,
        advice="High with short steps: many tasks ran before the sockets had their turn.", over_nodes="max"),
    Row(COUNTER, "fanfare_garbage_collections", "Collections of garbage, by what was looked at.",
        lambda s: s.garbage.collections_total, ("of",),
        advice="Many full ones (`of`) explain long steps; report it with the release."),
    Row(COUNTER, "fanfare_garbage_freezes", "Times that survivors were put out of sight.",
        lambda s: s.garbage.freezes_total,
        advice="With the collections: shows that sessions in memory are not looked at again and again."),
    Row(GAUGE, "fanfare_garbage_pause_seconds",
        "Processor time of the longest collection of the last minute, full ones left out.",
        lambda s: s.garbage.pause_s,
        advice="Above 0.005: more survives than should; report it with the release.", over_nodes="max"),
    Row(GAUGE, "fanfare_garbage_full_pause_seconds", "That of the last full collection.",
        lambda s: s.garbage.full_pause_s,
        advice="Grows with what is in memory; explains a long step now and then.", over_nodes="max"),
    Row(GAUGE, "fanfare_garbage_full_age_seconds", "Since that, or since the start.",
        lambda s: s.garbage.since_full_s,
        advice="Beyond an hour: full collections do not come, and memory may grow.", over_nodes="max"),
)

HEALTH: tuple[Row[Health], ...] = (
    Row(GAUGE, "fanfare_certificate_ends_timestamp_seconds",
        "The end of the node's own TLS certificate, since the epoch; not there without one.",
        _certificate_ends,
        advice="Minus `time()`: how long browsers will connect; renew it and restart the node.",
        over_nodes="min"),
    Row(GAUGE, "fanfare_component_state", "How a component is: 0 ok, 1 degraded, 2 down, 3 unknown.",
        lambda h: {name: NUMBERS[state] for name, state in h.states().items()}, ("component",),
        advice="Not 0: `/health` of that node says what is wrong and what it means for players.",
        over_nodes="each"),
)

TRACES: tuple[Row[Tracing], ...] = (
    Row(COUNTER, "fanfare_traces_sent", "Traces that the collector has taken.", lambda s: s.sent_total,
        advice="The load of the collector in traces."),
    Row(COUNTER, "fanfare_traces_dropped", "Traces that it did not take.", lambda s: s.dropped_total,
        advice="Rises: the collector is away or slow; the log says so once."),
)

# fmt: on
