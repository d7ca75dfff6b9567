"""Opening sessions and looking at them over HTTP."""

from __future__ import annotations

import gc
from types import TracebackType
from typing import Any

import pytest
import trio
from quart import Request
from trio.testing import MockClock

from engine.shards.session_locator import FAILED_S
from tests.http.edge import OUTSIDE, QUIZ, edge


async def test_a_session_is_opened_and_found_by_code_and_by_id(mock_clock: MockClock) -> None:
    async with edge() as e:
        await e.post("/api/quizzes?id=caps", QUIZ)
        opened = await e.post(
            "/api/sessions",
            {
                "quiz_id": "caps",
                "quiz_version": 1,
                "pace": "auto",
                "player_limit": 3,
                "reveal_ms": 1000,
                "lobby_ms": 60_000,
                "early_close": False,
            },
        )
        assert opened.status == 201
        assert opened.headers["Location"] == f"/api/sessions/{opened.json['code']}"
        by_code = await e.get(f"/api/sessions/{opened.json['code']}", peer=OUTSIDE)
        by_id = await e.get(f"/api/sessions/{opened.json['session_id']}", peer=OUTSIDE)
        assert by_code.json == by_id.json
        assert by_code.json["state"]["phase"] == "lobby"
        assert by_code.json["state"]["now"] == e.clock.now_ms()
        assert by_code.json["settings"] == {
            "pace": "auto",
            "player_limit": 3,
            "reveal_ms": 1000,
            "lobby_ms": 60_000,
            "get_ready_ms": 3000,
            "reading_ms": 0,
            "board": "at_close",
            "early_close": False,
            "scoring": None,
            "streak": None,
            "host_away_s": None,
            "names": "chosen",
            "results_public": False,
            "name_filter": True,
            "approval": False,
            "identity": "optional",
            "shuffle_choices": False,
            "shuffle_questions": False,
            "late_join": "current",
            "extra_time_max": 4,
            "foldings": 2,
            "open_from": None,
            "open_ms": None,
            "untimed": False,
            "reveal": "each",
            "attempts": 1,
        }
        assert opened.json["host_token"].encode() not in by_code.body


async def test_a_session_that_would_be_over_already_is_not_opened(mock_clock: MockClock) -> None:
    async with edge() as e:
        await e.post("/api/quizzes?id=caps", QUIZ)
        asked = {"quiz_id": "caps", "pace": "self", "open_ms": 60_000}
        over = await e.post("/api/sessions", {**asked, "open_from": e.clock.now_ms() - 60_000})
        assert (over.status, over.json["error"]["code"]) == (400, "bad_field")
        assert over.json["error"]["path"] == "open_ms"
        open_still = await e.post("/api/sessions", {**asked, "open_from": e.clock.now_ms() - 59_999})
        assert open_still.status == 201


async def test_the_public_state_does_not_tell_the_right_answer_of_an_open_question() -> None:
    async with edge() as e:
        session, _ = await e.started("Ada")
        open_question = await e.get(session.url)
        assert open_question.json["state"]["question"]["choices"] == ["right", "wrong", "other"]
        assert open_question.json["state"]["reveal"] is None
        assert b"correct" not in open_question.body
        await session.do("close")
        closed = await e.get(session.url)
        assert closed.json["state"]["reveal"] == {"number": 1, "correct": 0, "counts": [0, 0, 0]}


async def test_a_session_that_is_over_and_out_of_memory_is_shown_from_the_store(
    mock_clock: MockClock,
) -> None:
    async with edge() as e:
        session, ada, _ben = await e.started("Ada", "Ben")
        await session.answer(ada, 0)
        await session.do("finish")
        in_memory = (await e.get(session.url, token=ada["token"])).json
        mock_clock.autojump_threshold = 0
        await session.leave_memory()
        stored = (await e.get(session.url, token=ada["token"])).json
        assert e.registry.statistics().active == 0
        assert (stored["epoch"], stored["offset"]) == (None, None)
        assert stored["state"]["now"] == e.clock.now_ms()
        assert stored["state"]["podium"] == in_memory["state"]["podium"]
        assert [line["name"] for line in stored["state"]["podium"]] == ["Ada", "Ben"]
        assert stored["state"]["phase"] == "finished"


async def test_the_list_of_sessions_is_for_authors() -> None:
    async with edge() as e:
        first, second = await e.session(), await e.session()
        listed = (await e.get("/api/sessions")).json["sessions"]
        assert {line["id"] for line in listed} == {first.id, second.id}
        assert len((await e.get("/api/sessions?limit=1")).json["sessions"]) == 1
        outside = await e.get("/api/sessions", peer=OUTSIDE)
        assert (outside.status, outside.error) == (401, "token_missing")


@pytest.mark.parametrize("limit", ["0", "201", "x"])
async def test_the_list_of_sessions_is_bounded(limit: str) -> None:
    async with edge() as e:
        refused = await e.get(f"/api/sessions?limit={limit}")
        assert (refused.status, refused.error, refused.path) == (400, "bad_field", "limit")


@pytest.mark.parametrize(
    ("body", "status", "code", "path"),
    [
        ({}, 400, "missing_field", "quiz_id"),
        ([], 400, "bad_message", None),
        ("caps", 400, "bad_message", None),
        ({"quiz_id": 7}, 400, "bad_field", "quiz_id"),
        ({"quiz_id": "caps", "quiz_version": True}, 400, "bad_field", "quiz_version"),
        ({"quiz_id": "caps", "quiz_version": 0}, 400, "bad_field", "quiz_version"),
        ({"quiz_id": "caps", "quiz_version": 2}, 404, "quiz_not_found", None),
        ({"quiz_id": "none"}, 404, "quiz_not_found", None),
        ({"quiz_id": "a\0b"}, 404, "quiz_not_found", None),
        ({"quiz_id": "caps", "speed": 1}, 400, "unknown_field", "speed"),
        ({"quiz_id": "caps", "pace": "slow"}, 400, "bad_field", "pace"),
        ({"quiz_id": "caps", "player_limit": 0}, 400, "bad_field", "player_limit"),
        ({"quiz_id": "caps", "reveal_ms": "5"}, 400, "bad_field", "reveal_ms"),
        ({"quiz_id": "caps", "lobby_ms": -1}, 400, "bad_field", "lobby_ms"),
        ({"quiz_id": "caps", "early_close": 1}, 400, "bad_field", "early_close"),
    ],
)
async def test_what_cannot_be_opened(body: Any, status: int, code: str, path: str | None) -> None:
    async with edge() as e:
        await e.post("/api/quizzes?id=caps", QUIZ)
        refused = await e.post("/api/sessions", body)
        assert (refused.status, refused.error, refused.path) == (status, code, path)
        assert e.registry.statistics().active == 0


async def test_an_unknown_field_is_told_the_known_ones() -> None:
    async with edge() as e:
        refused = await e.post("/api/sessions", {"quiz_id": "caps", "players": 5})
        assert "player_limit" in refused.message


@pytest.mark.parametrize("key", ["999999", "1", "no-such-session", "x" * 200, "a%20b", "..%2Fadmin", "%00"])
async def test_a_session_that_is_not_there(key: str) -> None:
    async with edge() as e:
        for address in ("", "/leaderboard", "/results", "/results.json", "/results.csv", "/events"):
            missing = await e.get(f"/api/sessions/{key}{address}")
            assert missing.status == 404
        missing = await e.post(f"/api/sessions/{key}/players", {"name": "Ada"})
        assert missing.status == 404


async def test_guessing_codes_is_stopped_by_address() -> None:
    async with edge(attempts_per_min=5) as e:
        session = await e.session()
        for guess in range(5):
            wrong = await e.get(f"/api/sessions/90000{guess}", peer=OUTSIDE)
            assert (wrong.status, wrong.error) == (404, "session_not_found")
        for address in ("", "/leaderboard", "/results.csv", "/events"):
            stopped = await e.get(f"{session.url}{address}", peer=OUTSIDE)
            assert (stopped.status, stopped.error) == (429, "too_many_attempts")
            assert stopped.headers["Retry-After"] == "10"
        stopped = await e.post(f"{session.url}/players", {"name": "Ada"}, peer=OUTSIDE)
        assert stopped.error == "too_many_attempts"
        assert (await e.get(session.url, peer=("203.0.113.10", 1))).status == 200


async def test_wrong_codes_and_refused_tries_leave_nothing_in_memory() -> None:
    def requests() -> int:
        gc.collect()
        return sum(isinstance(each, Request) for each in gc.get_objects())

    async with edge(attempts_per_min=5) as e:
        before = requests()  # of other tests in this process
        for count in (3, 30):
            for guess in range(count):
                answer = await e.get(f"/api/sessions/9000{guess:02}", peer=OUTSIDE)
                assert answer.error in ("session_not_found", "too_many_attempts")
            assert answer.error == ("session_not_found" if count == 3 else "too_many_attempts")
            assert requests() - before <= 1


async def test_of_a_code_that_nobody_has_no_traceback_is_remembered() -> None:
    def tracebacks() -> int:
        return sum(isinstance(each, TracebackType) for each in gc.get_objects())

    async with edge(attempts_per_min=1000) as e:
        await e.get("/api/sessions/900000", peer=OUTSIDE)
        gc.collect()
        gc.disable()  # a node collects rarely what is old
        try:
            before = tracebacks()
            for guess in range(100):
                assert (await e.get(f"/api/sessions/9001{guess:02}", peer=OUTSIDE)).status == 404
            assert tracebacks() - before < 20
        finally:
            gc.enable()


async def test_a_good_token_works_from_the_address_of_a_guesser() -> None:
    async with edge(attempts_per_min=1) as e:
        session = await e.session()
        for number in range(2):
            wrong = await e.get(f"/api/sessions/90000{number}", peer=OUTSIDE)
        assert wrong.status == 429
        start = {"do": "start"}
        assert (
            await e.post(f"{session.url}/host", start, token=session.host_token, peer=OUTSIDE)
        ).status == 200
        seen = await e.get(session.url, peer=OUTSIDE)
        assert seen.status == 200, "the host is in that session, so nobody there has to guess its code"


async def test_a_session_whose_actor_cannot_start_is_busy_and_then_there(mock_clock: MockClock) -> None:
    async with edge() as e:
        session = await e.session()
        mock_clock.autojump_threshold = 0
        await session.leave_memory()
        e.store.available = False
        away = await e.get(session.url)
        assert (away.status, away.error) == (503, "busy")
        e.store.available = True
        await trio.sleep(FAILED_S)  # so long a failed look is good for everybody who asks
        assert (await e.get(session.url)).status == 200


@pytest.mark.parametrize(
    ("host", "configured", "url"),
    [
        ("192.168.1.5:5001", None, "ws://192.168.1.5:5002/ws"),
        ("[fe80::1]:5001", None, "ws://[fe80::1]:5002/ws"),
        ("quiz.local", None, "ws://quiz.local:5002/ws"),
        ("<script>", None, "ws://127.0.0.1:5002/ws"),
        ("a@b", None, "ws://127.0.0.1:5002/ws"),
        ("quiz.local", "wss://play.example/ws", "wss://play.example/ws"),
    ],
)
async def test_clients_are_sent_to_a_websocket_that_they_can_reach(
    host: str, configured: str | None, url: str
) -> None:
    async with edge(public_ws_url=configured) as e:
        session = await e.session()
        assert (await e.get(session.url, headers={"Host": host})).json["ws_url"] == url
