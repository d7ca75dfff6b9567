"""Examples for the document that describes the API. A test holds each against the schema of its type."""

from __future__ import annotations

from engine.domain.phases import Phase
from server.wire.api import authors, live, operations, playing, quizzes, scores, sessions

_CREATED_AT = 1_764_332_400_000
_SESSION = "019accd4-1f00-7000-8000-000000000001"
_CODE = "417205"
_WS_URL = "ws://127.0.0.1:5002/ws"
_PLAY_URL = "http://127.0.0.1:5002"
_TOKEN = "eyJzIjoiMDE5YWNjZDQi.aSmKsA.signature"

QUIZ = quizzes.Quiz(
    title="Capitals",
    description="Of Europe.",
    questions=[
        quizzes.SingleChoiceQuestion(
            text="What is the capital of Portugal?",
            choices=["Porto", "Lisbon", "Madrid", "Faro"],
            correct="Lisbon",
        ),
        quizzes.TypedTextQuestion(
            text="And of Norway?", time_limit_s=30, points=2000, accept=["Oslo"], match="loose"
        ),
    ],
)
QUIZ_IDENTITY = quizzes.QuizIdentity("capitals", 1, "Capitals", 2, _CREATED_AT)
QUIZ_WITH_ANSWERS = quizzes.QuizWithAnswers("capitals", 1, "Capitals", 2, _CREATED_AT, QUIZ)
_SUMMARY = quizzes.QuizSummary("capitals", 1, "Capitals", "en", 2, _CREATED_AT, "f3a9")
QUIZ_LIST = quizzes.QuizList([_SUMMARY], next=None)
QUIZ_VERSIONS = quizzes.QuizVersions([_SUMMARY])
DELETED_QUIZ = quizzes.DeletedQuiz("capitals")
CHECKED_QUIZ = quizzes.CheckedQuiz(
    quiz=None,
    draft={"title": "Capitals", "questions": []},
    problems=[quizzes.QuizProblem("no_questions", "a quiz needs at least one question", "questions", 2)],
)

NEW_SESSION = sessions.NewSession(quiz_id="capitals", pace="host", get_ready_ms=0)
OPENED_SESSION = sessions.OpenedSession(
    session_id=_SESSION,
    code=_CODE,
    quiz_id="capitals",
    quiz_version=1,
    host_token=_TOKEN,
    ws_url=_WS_URL,
    play_url=_PLAY_URL,
)
FRESH_HOST_TOKEN = sessions.FreshHostToken(_SESSION, _CODE, _TOKEN, _WS_URL)
SESSION_LIST = sessions.SessionList(
    [sessions.SessionSummary(_SESSION, _CODE, "capitals", "Capitals", 2, _CREATED_AT, None, "f3a9")],
    next=None,
)
DELETED_SESSION = sessions.DeletedSession(_SESSION, _CODE)
ME = authors.Me(sign_in=True, user_id="f3a9", name="Ada Lovelace", admin=False)
SIGNED_OUT = authors.SignedOut(signed_out=True)
_LINES = [sessions.Line(1, 2, "Ben", 967), sessions.Line(2, 1, "Ada", 0)]
SESSION = sessions.Session(
    session_id=_SESSION,
    code=_CODE,
    quiz_id="capitals",
    quiz_version=1,
    settings=sessions.Settings(get_ready_ms=0),
    created_at=_CREATED_AT,
    join_url=f"http://127.0.0.1:5001/?code={_CODE}",
    ws_url=_WS_URL,
    play_url=_PLAY_URL,
    epoch=1,
    offset=4,
    state=sessions.State(
        phase=Phase.REVEAL,
        locked=False,
        approval=False,
        title="Capitals",
        language="en",
        number=1,
        of=2,
        players=2,
        answered=2,
        now=_CREATED_AT + 60_000,
        question=sessions.Question(
            number=1,
            of=2,
            type="single",
            text="What is the capital of Portugal?",
            choices=["Porto", "Lisbon", "Madrid", "Faro"],
            limit_ms=20_000,
            opens_in_ms=None,
            remaining_ms=None,
            points=1_000,
        ),
        reveal=sessions.Reveal(number=1, correct=1, counts=[1, 1, 0, 0]),
        leaderboard=sessions.Standing(_LINES, 2, 2),
        podium=None,
        you=None,
    ),
)

NEW_PLAYER = playing.NewPlayer(name="Ada")
JOINED = playing.Joined(1, "Ada", _TOKEN, _SESSION, _CODE, _WS_URL, _PLAY_URL)
WAITING = playing.Waiting(_CODE, "f1Vd0yQJ6wS3", 2_000)
PLAYERS = playing.Players(
    players=[playing.ListedPlayer(1, "Ada", 0, 2, connected=True)],
    next=None,
    total=1,
    connected=1,
    waiting=[playing.WaitingPlayer(3, "Cleo")],
)
ERASED_PLAYER = playing.ErasedPlayer(_SESSION, 1, "#1")
ANSWER = playing.Answer("a1", 1, 1)
ACK = playing.Ack("a1", 1, "accepted", 1_480)
NEXT_STEP = playing.NextStep(
    t="question",
    id=None,
    of=2,
    number=1,
    type="single",
    text="What is the capital of Portugal?",
    choices=["Porto", "Lisbon", "Madrid", "Faro"],
    limit_ms=20_000,
    points=1_000,
    remaining_ms=20_000,
    opens_in_ms=0,
    now=_CREATED_AT + 60_000,
)
HOST_COMMAND = playing.HostCommand(id="h1", do="next", expect=playing.Expect(1, Phase.REVEAL))
DONE = playing.Done("h1", "next", Phase.QUESTION)
LEADERBOARD = playing.Leaderboard(_LINES, None, 2, 2)
REDIRECT = playing.Redirect("http://127.0.0.1:5002/hub", _TOKEN)
RESULTS = playing.Results(
    session_id=_SESSION,
    code=_CODE,
    final=True,
    skipped=[],
    players=[
        playing.PlayerResult(1, 2, "Ben", 967, 1, 2, 2_730),
        playing.PlayerResult(2, 1, "Ada", 0, 0, 1, 1_480),
    ],
)

HEALTH = operations.Health("alive", "0.1.0", _WS_URL)
READY = operations.Readiness(ready=True, reasons=[], degraded=[])
_SINCE = "2026-11-29T06:00:00.000Z"
HEALTH_REPORT = operations.HealthReport(
    state="ok",
    at="2026-11-29T06:36:23.000Z",
    version="0.1.0",
    components=[
        operations.ComponentHealth(
            "postgresql",
            None,
            "ok",
            _SINCE,
            "Answers are acknowledged once they are in PostgreSQL.",
            "",
            None,
            operations.LastMinute(1.4, 3.2),
            None,
        )
    ],
)
HEALTH_REPORT_DOWN = operations.HealthReport(
    state="down",
    at="2026-11-29T06:36:23.000Z",
    version="0.1.0",
    components=[
        operations.ComponentHealth(
            "postgresql",
            None,
            "down",
            _SINCE,
            "Answers are refused as busy: nothing can be acknowledged.",
            "the database cannot be reached",
            operations.LastError("2026-11-29T06:36:22.000Z", None),
            None,
            None,
        )
    ],
)
NOT_READY = operations.Readiness(
    ready=False, reasons=["the node is draining: its sessions go to the others"], degraded=[]
)
CLUSTER = operations.Cluster(
    cluster="fanfare",
    redis_up=True,
    generation=3_405_691_582,
    nodes=[
        operations.Node(
            name="node-1",
            role="both",
            state="up",
            weight=100,
            shards=4_096,
            sessions=12,
            players=340,
            connections=355,
            queued=0,
            lag_ms=4.0,
            busy=0.07,
            version="0.1.0",
            started_at=_CREATED_AT,
            ws_url=_WS_URL,
        )
    ],
)
LIVE = live.LiveView(
    at=_CREATED_AT,
    node="node-1",
    cluster=CLUSTER,
    nodes=[
        live.LiveNode(
            name="node-1",
            at=_CREATED_AT,
            version="0.1.0",
            reasons=[],
            degraded=[],
            components=[live.LiveComponent("postgresql", "ok", _CREATED_AT - 900_000)],
            acks=4_120,
            refused={"late": 3},
            sessions=[
                live.LiveSession(
                    _SESSION,
                    _CODE,
                    "question",
                    players=340,
                    connected=338,
                    subscribers=340,
                    backlog=0,
                    saved=True,
                )
            ],
            slowest=[
                live.SlowAnswer(
                    at=_CREATED_AT,
                    session_id=_SESSION,
                    player=7,
                    question=1,
                    outcome="accepted",
                    taken_ms=1,
                    decided_ms=1,
                    queued_ms=1,
                    commit_started_ms=2,
                    commit_ended_ms=702,
                    acked_ms=703,
                    spooled=False,
                    trace_id=None,
                )
            ],
            failed=[],
            samples=[
                live.LiveSample(
                    at=_CREATED_AT,
                    answers_per_s=61.4,
                    refused_per_s=0.2,
                    p50_ms=2.1,
                    p99_ms=9.5,
                    busy=0.07,
                    sessions=12,
                    players=340,
                    connections=355,
                    queued=0,
                )
            ],
            events=[live.LiveEvent(_CREATED_AT - 60_000, "taken_over", 2)],
        )
    ],
    silent=[],
)
DRAINING = operations.Draining("node-1", "draining")

USER_LEADERBOARD = scores.UserLeaderboard(
    quiz_id="capitals",
    period="week",
    starts_on="2025-11-24",
    rule="best",
    total=2,
    top=[
        scores.UserLine(1, "Ben", 1934, 4_200, _CREATED_AT, me=False),
        scores.UserLine(2, "Ada", 967, 2_000, _CREATED_AT, me=True),
    ],
    around=None,
)
USER_SCORES = scores.UserScores(
    user_id="user-417",
    totals=scores.UserTotals(
        plays=1, score=967, correct=1, answered=2, elapsed_ms=2_000, days=1, days_best=1
    ),
    scores=[scores.Play(_SESSION, "capitals", "Ada", 967, 1, 2, 2_000, 2, 2, _CREATED_AT)],
    next=None,
)
ERASED_USER = scores.ErasedUser("user-417", 1)
