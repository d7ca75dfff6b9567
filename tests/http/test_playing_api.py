"""Playing and leading over plain requests."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors.commands import Answer
from engine.domain.shuffling import seed_of
from tests.actors.world import Client, settle
from tests.http.edge import OUTSIDE, QUIZ, Edge, Played, Reply, edge
from tests.http.events import stream


async def test_a_whole_quiz_over_http() -> None:
    async with edge() as e:
        session = await e.session()
        ada, ben = await session.join("Ada"), await session.join("Ben")
        assert (ada["player_id"], ada["name"], ada["code"]) == (1, "Ada", session.code)
        started = await session.do("start", id="go")
        assert started.json == {"t": "done", "id": "go", "do": "start", "phase": "question"}
        ack = await session.answer(ada, 0, id="mine")
        assert ack.status == 200
        assert ack.json | {"elapsed_ms": 0} == {
            "t": "ack",
            "id": "mine",
            "question": 1,
            "status": "accepted",
            "elapsed_ms": 0,
        }
        await session.answer(ben, 1)
        board = (await e.get(f"{session.url}/leaderboard?top=1&around=me", token=ben["token"])).json
        assert [line["name"] for line in board["top"]] == ["Ada"]
        assert [line["name"] for line in board["around"]] == ["Ada", "Ben"]
        assert (board["players"], board["answered"]) == (2, 2)
        assert (await session.do("next")).json["phase"] == "question"
        assert (await session.do("finish")).json["phase"] == "finished"
        standing = (await e.get(f"{session.url}/results", token=ben["token"], peer=OUTSIDE)).json
        assert [(line["name"], line["rank"], line["correct"]) for line in standing["players"]] == [
            ("Ada", 1, 1),
            ("Ben", 2, 0),
        ]


async def test_a_command_sent_twice_is_one_step() -> None:
    async with edge() as e:
        session = await e.session()
        await session.do("start")
        await session.do("close")
        seen = {"number": 1, "phase": "reveal"}
        replies = []

        async def go_on() -> None:
            replies.append(await session.do("next", expect=seen))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(go_on)
            nursery.start_soon(go_on)
        assert sorted(reply.status for reply in replies) == [200, 409]
        assert {reply.error for reply in replies if reply.status == 409} == {"illegal_move"}
        await session.do("close")
        assert (await session.do("next", expect=seen)).error == "illegal_move", (
            "question 2 is shown, and not 1"
        )
        assert (await e.get(session.url)).json["state"]["number"] == 2


async def test_an_author_takes_a_session_over() -> None:
    async with edge(author_key="the-author-key") as e:
        quiz = await e.post("/api/quizzes", QUIZ, token="the-author-key")
        opened = await e.post("/api/sessions", {"quiz_id": quiz.json["id"]}, token="the-author-key")
        session = Played(e, opened.json)
        url = f"{session.url}/host-token"
        assert (await e.post(url, token=session.host_token)).status == 401
        assert (await e.post(url, token="the-author-key")).status == 201
        taken = await e.post(f"/api/sessions/{session.id}/host-token", token="the-author-key")
        assert (taken.status, taken.json["code"]) == (201, session.code)
        refused = await session.do("start")
        assert (refused.status, refused.error) == (403, "token_replaced")
        older = await e.get(f"{session.url}/players", token=session.host_token)
        assert older.error == "token_replaced"
        for path in ("results", "results.csv"):
            stale = await e.get(f"{session.url}/{path}", token=session.host_token)
            assert stale.error == "token_replaced"
        session.host_token = taken.json["host_token"]
        assert (await session.do("start")).status == 200
        await session.do("finish")
        assert (await e.post(url, token="the-author-key")).error == "session_finished"


async def test_the_answer_is_confirmed_only_once_it_is_stored() -> None:
    async with edge() as e:
        session, ada = await e.started("Ada")
        e.journal.auto = "off"
        replies: list[Reply] = []

        async def answer() -> None:
            replies.append(await session.answer(ada, 0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            await settle()
            assert replies == []
            e.journal.commit()
        assert replies[0].json["status"] == "accepted"


async def test_the_same_choice_on_both_ways_at_once_gets_equal_acks() -> None:
    async with edge() as e:
        session, ada = await e.started("Ada")
        websocket = Client()
        actor = await session.actor()
        actor.send(Answer(websocket, 1, "same", 1, 0, e.clock.now_ms()))
        over_http = await session.answer(ada, 0, id="same")
        assert over_http.json == dict(websocket.last("ack"))
        again = await session.answer(ada, 0, id="same")
        assert again.json == over_http.json
        other = await session.answer(ada, 1, id="same")
        assert other.json == over_http.json | {"status": "duplicate"}


@pytest.mark.parametrize("commit_after_s", [20, None])
async def test_waiting_for_an_ack_is_bounded(autojump_clock: MockClock, commit_after_s: int | None) -> None:
    async with edge() as e:
        session, ada = await e.started("Ada")
        e.journal.fail()
        waited_from = trio.current_time()
        reply = await session.answer(ada, 0)
        assert (reply.status, reply.error) == (503, "busy")
        assert trio.current_time() - waited_from == pytest.approx(15, abs=0.5)
        e.journal.heal()
        assert (await session.answer(ada, 0)).json["status"] == "accepted"


async def test_a_full_journal_is_busy() -> None:
    async with edge() as e:
        session, ada = await e.started("Ada")
        e.journal.facts_max = 0
        for reply in (
            await session.answer(ada, 0),
            await session.do("next"),
            await e.post(f"{session.url}/players", {"name": "Ben"}),
        ):
            assert (reply.status, reply.error) == (503, "busy")
            assert reply.headers["Retry-After"] == "1"


async def test_a_crash_of_the_session_while_one_waits_is_busy() -> None:
    async with edge() as e:
        session, ada = await e.started("Ada")
        e.journal.auto = "off"
        replies: list[Reply] = []

        async def answer() -> None:
            replies.append(await session.answer(ada, 0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            await settle()
            e.journal.fence(session.id)
            e.journal.commit()
        assert replies[0].error == "busy"


async def test_sessions_that_take_nobody() -> None:
    async with edge() as e:
        full = await e.session(player_limit=1)
        await full.join("Ada")
        assert (await e.post(f"{full.url}/players", {"name": "Ben"})).error == "session_full"
        locked = await e.session()
        await locked.do("lock", on=True)
        assert (await e.post(f"{locked.url}/players", {"name": "Ben"})).error == "session_locked"
        await locked.do("lock", on=False)
        await locked.join("Ben")
        await locked.do("finish")
        over = await e.post(f"{locked.url}/players", {"name": "Cy"})
        assert (over.status, over.error) == (409, "session_finished")


async def test_what_late_players_are_told() -> None:
    async with edge() as e:
        shut = await e.session(late_join="refused")
        await shut.join("Ada")
        await shut.do("start")
        refused = await e.post(f"{shut.url}/players", {"name": "Ben"})
        assert (refused.status, refused.error) == (409, "session_started")
        watched = await e.session(late_join="next")
        await watched.join("Ada")
        await watched.do("start")
        late = await watched.answer(await watched.join("Ben"), 0)
        assert (late.status, late.error) == (409, "joined_late")


async def test_extra_time_and_the_seed_of_a_player_over_requests() -> None:
    async with edge() as e:
        session = await e.session(shuffle_choices=True)
        ada, ben = await session.join("Ada"), await session.join("Ben")
        assert ada["shuffle"] == seed_of(session.id, 1)
        given = await session.do("extra_time", player=1, factor="untimed")
        assert (given.status, given.json["do"]) == (200, "extra_time")
        listed = await e.get(f"{session.url}/players", token=session.host_token)
        assert [each.get("extra_time") for each in listed.json["players"]] == [4.0, None]
        wrong = await session.do("extra_time", player=1, factor=5)
        assert (wrong.status, wrong.error) == (400, "bad_field")
        others = await e.get(f"{session.url}/players", token=ben["token"])
        assert others.error == "not_host"


async def test_a_rush_into_one_session_is_slowed_down() -> None:
    async with edge(joins_per_s=1) as e:
        session = await e.session()
        await session.join("Ada")
        rushed = await e.post(f"{session.url}/players", {"name": "Ben"})
        assert (rushed.status, rushed.error) == (503, "busy")


async def test_players_of_one_address_come_in_as_fast_as_may(mock_clock: MockClock) -> None:
    async with edge(seats_per_address_per_s=2) as e:
        session = await e.session()
        url = f"{session.url}/players"
        for n in range(40):
            await session.join(f"Bot {n}")
        rushed = await e.post(url, {"name": "Ada"})
        assert (rushed.status, rushed.error) == (503, "busy")
        other = await e.post(url, {"name": "Ben"}, peer=OUTSIDE)
        assert other.status == 201


async def test_seats_that_were_taken_away_are_not_given_back_to_their_address() -> None:
    async with edge(seats_per_address_max=2) as e:
        session = await e.session()
        url = f"{session.url}/players"
        for name in ("Bot", "Bob"):
            player = (await session.join(name))["player_id"]
            await session.do("kick", player=player)
        full = await e.post(url, {"name": "Bod"})
        assert (full.status, full.error) == (409, "address_full")
        taken = await e.post(url, {"name": "bot"}, peer=OUTSIDE)
        assert taken.error == "name_taken", "nobody comes back under the name of somebody who was removed"
        assert (await e.post(url, {"name": "Ada"}, peer=OUTSIDE)).status == 201


async def test_a_removed_player_cannot_join_under_another_name() -> None:
    async with edge() as e:
        session, other = await e.session(), await e.session()
        url = f"{session.url}/players"
        ada = await session.join("Ada")
        await session.do("kick", player=1)
        refused = await e.post(url, {"name": "Ben", "former": ada["token"]})
        assert (refused.status, refused.error) == (403, "kicked")
        bad = await e.post(url, {"name": "Ben", "former": 7})
        assert (bad.status, bad.error, bad.json["error"]["path"]) == (400, "bad_field", "former")
        assert (await e.post(f"{other.url}/players", {"name": "Ben", "former": ada["token"]})).status == 201
        assert (await e.post(url, {"name": "Cy", "former": "forged"})).status == 201
        await session.do("readmit", player=1)
        assert (await e.post(url, {"name": "Ben", "former": ada["token"]})).status == 201


async def test_where_the_host_lets_players_in_they_ask_until_it_has() -> None:
    async with edge() as e:
        session = await e.session(approval=True)
        url = f"{session.url}/players"
        ada, ben = [await e.post(url, {"name": name}) for name in ("Ada", "Ben")]
        assert ada.status == 202
        asks = {"name": "Ada", "ticket": ada.json["ticket"]}
        listed = await e.get(url, token=session.host_token)
        assert (listed.json["waiting"], listed.json["total"]) == (
            [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Ben"}],
            0,
        )
        assert (await e.post(url, asks)).json == ada.json, "still to be decided"
        assert (await session.do("admit", player=1)).status == 200
        assert (await session.do("refuse")).status == 200
        assert (await e.get(url, token=session.host_token)).json["waiting"] == []
        rude = await e.post(url, {**asks, "name": "Rude"})
        assert rude.status == 202, "the host has let in Ada, and nobody under another name"
        refused = await e.post(url, {"name": "Ben", "ticket": ben.json["ticket"]})
        assert (refused.status, refused.error) == (403, "not_admitted")
        cy = {"name": "Cy", "ticket": "a-ticket-of-cy"}
        assert (await e.post(url, cy)).status == 202
        await session.do("approval", on=False)
        assert (await e.post(url, cy)).status == 201, "the door is open to all"
        assert (await session.do("admit", player=99)).error == "player_not_found"


async def test_answers_out_of_time(mock_clock: MockClock) -> None:
    async with edge() as e:
        session, ada, _ = await e.started("Ada", "Ben")
        await session.do("pause")
        assert (await session.answer(ada, 0)).error == "paused"
        await session.do("resume")
        await session.do("close")
        assert (await session.answer(ada, 0)).error == "question_closed"
        await session.do("finish")
        assert (await session.answer(ada, 0)).error in ("session_finished", "question_closed")


async def test_a_kicked_player_is_out() -> None:
    async with edge() as e:
        session, ada, _ = await e.started("Ada", "Ben")
        assert (await session.do("kick", player=1)).status == 200
        for reply in (
            await session.answer(ada, 0),
            await e.get(f"{session.url}/leaderboard?around=me", token=ada["token"]),
            await e.get(f"{session.url}/events", token=ada["token"]),
        ):
            assert (reply.status, reply.error) == (403, "kicked")


async def test_tokens_open_only_what_they_were_made_for(mock_clock: MockClock) -> None:
    async with edge(token_ttl_s=60) as e:
        session, other = await e.session(), await e.session()
        ada = await session.join("Ada")
        answer = {"id": "a", "question": 1, "choice": 0}

        async def tried(address: str, body: Any, token: str | None) -> tuple[int, str]:
            reply = await e.post(address, body, token=token)
            return reply.status, reply.error

        assert await tried(f"{session.url}/answers", answer, None) == (401, "token_missing")
        assert await tried(f"{session.url}/answers", answer, "forged") == (401, "token_invalid")
        assert await tried(f"{session.url}/answers", answer, session.host_token) == (403, "not_player")
        assert await tried(f"{session.url}/host", {"do": "start"}, ada["token"]) == (403, "not_host")
        assert await tried(f"{other.url}/answers", answer, ada["token"]) == (401, "token_invalid")
        assert await tried(f"{other.url}/host", {"do": "start"}, session.host_token) == (401, "token_invalid")
        board = await e.get(f"{session.url}/leaderboard?around=me", token=session.host_token)
        assert (board.status, board.error) == (403, "not_player")
        mock_clock.jump(61)
        assert await tried(f"{session.url}/host", {"do": "start"}, session.host_token) == (
            401,
            "token_expired",
        )
        assert (await session.actor()).session.phase == "lobby"


async def test_refusals_of_tokens_name_the_scheme() -> None:
    async with edge() as e:
        session = await e.session()
        missing = await e.post(f"{session.url}/host", {"do": "start"})
        assert missing.headers["WWW-Authenticate"].startswith("Bearer")


async def test_guessing_tokens_is_stopped() -> None:
    async with edge(attempts_per_min=3) as e:
        session = await e.session()
        codes = [
            (await e.post(f"{session.url}/host", {"do": "start"}, token=f"guess{n}")).error for n in range(5)
        ]
        assert codes == ["token_invalid"] * 3 + ["too_many_attempts"] * 2
        assert (await session.do("start")).status == 200


@pytest.mark.parametrize(
    ("query", "code", "path"),
    [
        ("top=0", "bad_field", "top"),
        ("top=1001", "bad_field", "top"),
        ("top=ten", "bad_field", "top"),
        ("around=you", "bad_field", "around"),
        ("around=me", "token_missing", None),
        ("tip=1", "unknown_field", "tip"),
    ],
)
async def test_leaderboard_queries_that_are_refused(query: str, code: str, path: str | None) -> None:
    async with edge() as e:
        session = await e.session()
        refused = await e.get(f"{session.url}/leaderboard?{query}")
        assert (refused.error, refused.path) == (code, path)


async def test_the_leaderboard_of_a_session_out_of_memory(mock_clock: MockClock) -> None:
    async with edge() as e:
        session = await e.session()
        players = [await session.join(f"player {n}") for n in range(8)]
        await session.do("start")
        await session.answer(players[5], 0)
        await session.do("finish")
        live = await board(e, session.url, players[5]["token"])
        mock_clock.autojump_threshold = 0
        await session.leave_memory()
        assert await board(e, session.url, players[5]["token"]) == live
        assert [line["id"] for line in live["around"]] == [6, 1, 2]


async def board(e: Edge, url: str, token: str) -> Any:
    body = (await e.get(f"{url}/leaderboard?top=3&around=me", token=token)).json
    return body | {"answered": None}


async def test_the_host_and_authors_see_who_is_in_and_who_is_connected(mock_clock: MockClock) -> None:
    async with edge(author_key="the-author-key") as e:
        quiz = await e.post("/api/quizzes", QUIZ, token="the-author-key")
        opened = await e.post(
            "/api/sessions", {"quiz_id": quiz.json["id"], "get_ready_ms": 0}, token="the-author-key"
        )
        session = Played(e, opened.json)
        players = [await session.join(name) for name in ("Ada", "Ben", "Cem")]
        url = f"{session.url}/players"
        async with stream(e, f"{session.url}/events", token=players[0]["token"]) as ada:
            await ada.until("joined")
            page = await e.get(f"{url}?limit=2", token=session.host_token)
            assert page.json == {
                "players": [
                    {"id": 1, "name": "Ada", "score": 0, "rank": 1, "connected": True},
                    {"id": 2, "name": "Ben", "score": 0, "rank": 1, "connected": False},
                ],
                "next": 2,
                "total": 3,
                "connected": 1,
                "waiting": [],
            }
            rest = await e.get(f"{url}?after=2", token="the-author-key")
            assert ([each["name"] for each in rest.json["players"]], rest.json["next"]) == (["Cem"], None)
        for token, code in (
            (None, "token_missing"),
            (players[0]["token"], "not_host"),
            ("forged", "token_invalid"),
        ):
            assert (await e.get(url, token=token)).error == code
        await session.do("kick", player=2)
        await session.do("finish")
        live = (await e.get(f"{url}?limit=1", token=session.host_token)).json
        mock_clock.autojump_threshold = 0
        await session.leave_memory()
        assert (await e.get(f"{url}?limit=1", token=session.host_token)).json == live
        assert live["players"] == [{"id": 1, "name": "Ada", "score": 0, "rank": 1, "connected": False}]
        assert (live["next"], live["total"], live["connected"]) == (1, 2, 0)
        last = (await e.get(f"{url}?after=1", token=session.host_token)).json
        assert ([each["name"] for each in last["players"]], last["next"]) == (["Cem"], None)


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "after=-1", "after=x", "before=3"])
async def test_lists_of_players_that_are_refused(query: str) -> None:
    async with edge() as e:
        session = await e.session()
        refused = await e.get(f"{session.url}/players?{query}")
        assert (refused.status, refused.path) == (400, query.partition("=")[0])


async def test_the_players_token_of_another_session_lists_nobody() -> None:
    async with edge() as e:
        one, other = await e.session(), await e.session()
        refused = await e.get(f"{one.url}/players", token=other.host_token, peer=OUTSIDE)
        assert (refused.status, refused.error) == (401, "token_invalid")


async def test_where_names_are_given_nobody_chooses_one() -> None:
    async with edge() as e:
        session = await e.session(names="given")
        assert (await e.get(session.url)).json["settings"]["names"] == "given"
        unnamed = await e.post(f"{session.url}/players", {})
        named = await e.post(f"{session.url}/players", {"name": "Ada"})
        assert [reply.json["name"] for reply in (unnamed, named)] == ["Brave Otter", "Clever Fox"]
