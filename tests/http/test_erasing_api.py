"""What is erased is gone, on whichever way somebody comes back to it."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from engine.domain.session import Session
from tests.actors.world import settle
from tests.http.edge import OUTSIDE, QUIZ, Edge, Played, edge
from tests.settings import AT_ONCE

AUTHOR = "the-author-key"


async def opened(e: Edge) -> Played:
    quiz = await e.post("/api/quizzes", QUIZ, token=AUTHOR)
    body = {"quiz_id": quiz.json["id"], **AT_ONCE}
    return Played(e, (await e.post("/api/sessions", body, token=AUTHOR)).json)


# -- quizzes -----------------------------------------------------------------------------------------


async def test_a_deleted_quiz_is_not_played_anew_and_played_on() -> None:
    async with edge(author_key=AUTHOR) as e:
        session = await opened(e)
        url = "/api/quizzes/capitals"
        assert (await e.call("DELETE", url)).error == "token_missing"
        assert (await e.call("DELETE", url, token=session.host_token)).error == "token_invalid"
        assert (await e.call("DELETE", url, token=AUTHOR)).json == {"id": "capitals"}
        assert (await e.get("/api/quizzes", token=AUTHOR)).json == {"quizzes": [], "next": None}
        for path in (url, f"{url}?version=1", f"{url}/versions"):
            assert (await e.get(path, token=AUTHOR)).error == "quiz_not_found"
        for more in ({}, {"quiz_version": 1}):
            begun = await e.post("/api/sessions", {"quiz_id": "capitals", **more}, token=AUTHOR)
            assert begun.error == "quiz_not_found"
        assert (await e.call("DELETE", url, token=AUTHOR)).error == "quiz_not_found"
        assert (await e.call("DELETE", "/api/quizzes/nothing", token=AUTHOR)).error == "quiz_not_found"

        ada = await session.join("Ada")
        await session.do("start")
        assert (await session.answer(ada, 0)).json["status"] == "accepted"
        await session.do("finish")
        assert (await e.get(session.url)).json["state"]["title"] == "Capitals"
        again = await e.post("/api/quizzes?id=capitals", QUIZ, token=AUTHOR)
        assert (again.status, again.json["version"]) == (201, 2)


# -- sessions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_memory", [True, False])
async def test_a_session_that_is_over_goes_with_all_that_was_in_it(
    mock_clock: MockClock, in_memory: bool
) -> None:
    async with edge(author_key=AUTHOR) as e:
        session, other = await opened(e), await opened(e)
        ada = await session.join("Ada")
        running = await e.call("DELETE", session.url, token=session.host_token)
        assert (running.status, running.error) == (409, "session_running")
        await session.do("finish")
        if not in_memory:
            mock_clock.autojump_threshold = 0
            await session.leave_memory()
        assert (await e.call("DELETE", session.url)).error == "token_missing"
        assert (await e.call("DELETE", session.url, token=ada["token"])).error == "not_host"
        assert (await e.call("DELETE", session.url, token=other.host_token)).error == "token_invalid"
        by_code = await e.call("DELETE", session.url, token=AUTHOR)
        assert (by_code.error, by_code.path) == ("bad_field", "key")

        gone = await e.call("DELETE", session.url, token=session.host_token)
        assert gone.json == {"session_id": session.id, "code": session.code}
        await settle()
        assert session.id not in {actor.session_id for actor in e.registry.active()}
        for token in (session.host_token, ada["token"], AUTHOR):
            for path in ("", "/results", "/results.csv", "/leaderboard", "/players", "/events"):
                error = (await e.get(f"{session.url}{path}", token=token)).error
                assert error in ("session_not_found", "token_invalid", "not_host")
        again = await e.call("DELETE", session.url, token=session.host_token)
        assert (again.status, again.error) == (404, "session_not_found")
        await other.do("finish")
        assert (await e.call("DELETE", f"/api/sessions/{other.id}", token=AUTHOR)).status == 200


async def test_a_session_whose_end_is_not_stored_yet_is_not_deleted() -> None:
    async with edge() as e:
        session = await e.session()
        await session.do("finish")
        e.store.available = False
        assert (await e.call("DELETE", session.url, token=session.host_token)).error == "busy"
        e.store.available = True
        assert (await e.call("DELETE", session.url, token=session.host_token)).status == 200


# -- players -----------------------------------------------------------------------------------------


async def with_players(e: Edge) -> tuple[Played, dict[str, str], dict[str, str]]:
    session = await opened(e)
    ada, ben = await session.join("Ada"), await session.join("Ben")
    await session.do("start")
    await session.answer(ada, 0)
    await session.answer(ben, 1)
    return session, dict(ada), dict(ben)


@pytest.mark.parametrize("when", ["running", "lingering", "over"])
@pytest.mark.parametrize("who", ["player", "host", "author"])
async def test_a_name_goes_and_all_else_stays(mock_clock: MockClock, when: str, who: str) -> None:
    async with edge(author_key=AUTHOR) as e:
        session, ada, ben = await with_players(e)
        if when != "running":
            await session.do("finish")
        if when == "over":
            mock_clock.autojump_threshold = 0
            await session.leave_memory()
        url = f"/api/sessions/{session.id if who == 'author' else session.code}/players"
        token = {"player": ada["token"], "host": session.host_token, "author": AUTHOR}[who]
        assert (await e.call("DELETE", f"{url}/1", peer=OUTSIDE)).error == "token_missing"
        assert (await e.call("DELETE", f"{url}/1", token=ben["token"])).error == "not_host"
        for number in ("3", "0", "-1", "one", "9" * 30):
            answer = await e.call("DELETE", f"{url}/{number}", token=session.host_token)
            assert answer.error == "player_not_found", number
        before = (await e.get(f"{session.url}/results", token=session.host_token)).json["players"]
        for _ in range(1 if who == "player" and when == "running" else 2):
            gone = await e.call("DELETE", f"{url}/1", token=token)
            assert gone.json == {"session_id": session.id, "player_id": 1, "name": "#1"}

        after = (await e.get(f"{session.url}/results", token=session.host_token)).json["players"]
        assert after == [line | {"name": "#1"} if line["player"] == 1 else line for line in before]
        for path in ("", "/results.csv", "/leaderboard", "/players"):
            body = (await e.get(f"{session.url}{path}", token=session.host_token)).body
            assert (b"Ada" in body, b"Ben" in body) == (False, True), path
        for path in ("/leaderboard?around=me", "/events", *(() if when == "running" else ("/results",))):
            back = await e.get(f"{session.url}{path}", token=ada["token"])
            over = when == "over" and path == "/events"
            assert back.error == ("session_finished" if over else "player_not_found"), path
        if when == "running":
            assert (await session.answer(ada, 0)).error == "player_not_found"
            again = await session.join("Ada")
            assert again["player_id"] == 3
            actor = await session.actor()
            stored = await e.store.claim(session.id, "reader")
            rebuilt = Session(stored.quiz, stored.record.settings, stored.record.created_at)
            rebuilt.replay(stored.facts)
            assert rebuilt == actor.session


@pytest.mark.parametrize("when", ["running", "lingering", "over"])
@pytest.mark.parametrize("removed", [False, True])
async def test_an_erased_player_is_told_the_same_everywhere_and_always(
    mock_clock: MockClock, when: str, removed: bool
) -> None:
    async with edge(author_key=AUTHOR) as e:
        quiz = await e.post("/api/quizzes", QUIZ, token=AUTHOR)
        for results_public in (False, True):
            body = {"quiz_id": quiz.json["id"], **AT_ONCE, "results_public": results_public}
            session = Played(e, (await e.post("/api/sessions", body, token=AUTHOR)).json)
            ada = await session.join("Ada")
            await session.join("Ben")
            if removed:
                await session.do("kick", player=1)
            if when != "running":
                await session.do("finish")
            if when == "over":
                mock_clock.autojump_threshold = 0
                await session.leave_memory()
            doors = ["/leaderboard?around=me"]
            if when != "running" and not results_public:
                doors += ["", "/leaderboard", "/results", "/results.csv", f"/results?token={ada['token']}"]
            if when != "over":
                doors += ["/events", f"/events?token={ada['token']}"]
            for door in doors if removed else ():
                assert (await e.get(f"{session.url}{door}", token=ada["token"])).error == "kicked", door
            url = f"{session.url}/players/1"
            assert (await e.call("DELETE", url, token=session.host_token)).status == 200
            for door in doors:
                reply = await e.get(f"{session.url}{door}", token=ada["token"])
                assert (reply.status, reply.error) == (404, "player_not_found"), (door, results_public)
            if when != "over":
                assert (await session.answer(ada, 0)).error in ("player_not_found", "session_finished")


async def test_a_player_who_is_not_in_the_store_yet_is_erased_later() -> None:
    async with edge(author_key=AUTHOR) as e:
        session = await opened(e)
        await session.join("Ada")
        row = e.store._rows[session.id]
        [kept] = [row.facts.pop(seq) for seq in list(row.facts)]
        url = f"{session.url}/players/1"
        waits = await e.call("DELETE", url, token=session.host_token)
        assert (waits.status, waits.error) == (503, "busy")
        row.facts[kept.seq] = kept
        assert (await e.call("DELETE", url, token=session.host_token)).status == 200


@pytest.mark.parametrize("who", ["host", "author"])
async def test_erasing_a_removed_player_lets_nobody_in_under_the_name(who: str) -> None:
    async with edge(author_key=AUTHOR) as e:
        session = await opened(e)
        ada, ben = await session.join("Ada"), await session.join("Ben")
        await session.do("kick", player=1)
        own = await e.call("DELETE", f"{session.url}/players/1", token=ada["token"])
        assert (own.status, own.error) == (403, "kicked"), "the door would be open again"
        url = f"/api/sessions/{session.id if who == 'author' else session.code}/players/1"
        token = session.host_token if who == "host" else AUTHOR
        for _ in range(2):
            assert (await e.call("DELETE", url, token=token)).json["name"] == "#1"
        for name in ("Ada", "ADA"):
            again = await e.post(f"{session.url}/players", {"name": name})
            assert (again.status, again.error) == (409, "name_taken")
        assert (await e.call("DELETE", f"{session.url}/players/2", token=ben["token"])).status == 200
        assert (await session.join("Ben"))["player_id"] == 3
        stored = await e.store.claim(session.id, "reader")
        assert "Ada" not in str(stored.facts)


@pytest.mark.parametrize("in_memory", [True, False])
async def test_a_removed_player_has_the_name_taken_away_after_the_end(
    mock_clock: MockClock, in_memory: bool
) -> None:
    async with edge() as e:
        session = await e.session()
        ada = await session.join("Ada")
        await session.do("kick", player=1)
        await session.do("finish")
        if not in_memory:
            mock_clock.autojump_threshold = 0
            await session.leave_memory()
        gone = await e.call("DELETE", f"{session.url}/players/1", token=ada["token"])
        assert gone.json["name"] == "#1"
