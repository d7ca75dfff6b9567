"""Event streams: what is sent, how they end, and that each costs only itself."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Command, Detach
from engine.actors.delivery.frame import Frame
from server.http.events import EventStream
from server.http.throttle import Throttle
from server.wire.sse import EventDialect
from tests.actors.world import settle
from tests.http.edge import edge
from tests.http.events import Stream, stream


async def test_a_spectator_follows_a_whole_session() -> None:
    async with edge() as e:
        session = await e.session()
        async with stream(e, f"{session.url}/events") as watching:
            joined = await watching.next()
            assert joined is not None
            assert (joined.kind, joined.id) == ("joined", "1:0")
            assert joined.message["role"] == "spectator"
            assert joined.message["state"]["phase"] == "lobby"
            assert 500 <= watching.retry_ms[0] <= 3000
            ada = await session.join("Ada")
            assert (await watching.until("leaderboard")).message["players"] == 1
            await session.do("start")
            question = await watching.until("question")
            assert question.id == "1:1"
            assert "correct" not in question.message
            await session.answer(ada, 0)
            reveal = await watching.until("reveal")
            assert (reveal.id, reveal.message["counts"]) == ("1:2", [1, 0, 0])
            await session.do("finish")
            assert (await watching.until("finished")).message["podium"][0]["name"] == "Ada"


async def test_a_leaderboard_has_no_id_of_its_own() -> None:
    async with edge() as e:
        session = await e.session()
        async with stream(e, f"{session.url}/events") as watching:
            await session.join("Ada")
            assert (await watching.until("leaderboard")).id is None


async def test_a_count_of_the_answers_has_no_id_of_its_own_either() -> None:
    async with edge() as e:
        session, ada = await e.started("Ada", early_close=False)
        async with stream(e, f"{session.url}/events") as watching:
            await watching.until("joined")
            await session.answer(ada, 0)
            count = await watching.until("progress")
            assert (count.id, count.message["answered"], count.message["players"]) == (None, 1, 1)


async def test_players_and_hosts_see_their_own() -> None:
    async with edge() as e:
        session = await e.session()
        ada = await session.join("Ada")
        async with (
            stream(e, f"{session.url}/events", token=ada["token"]) as player,
            stream(e, f"/api/sessions/{session.id}/events", token=session.host_token) as host,
        ):
            assert (await player.until("joined")).message["player"] == 1
            assert (await host.until("joined")).message["role"] == "host"
            await session.do("start")
            assert "correct" not in (await player.until("question")).message
            assert (await host.until("question")).message["correct"] == 0
            await session.answer(ada, 0)
            result = await player.until("result")
            assert (result.id, result.message["correct"]) == (None, True)


async def test_a_token_may_stand_in_the_address() -> None:
    async with edge() as e:
        session = await e.session()
        async with stream(e, f"{session.url}/events?token={session.host_token}") as host:
            assert (await host.until("joined")).message["role"] == "host"


async def test_the_newer_of_two_streams_of_a_token_stays() -> None:
    async with edge() as e:
        session = await e.session()
        ada = await session.join("Ada")
        async with stream(e, f"{session.url}/events", token=ada["token"]) as older:
            await older.until("joined")
            async with stream(e, f"{session.url}/events", token=ada["token"]) as newer:
                await newer.until("joined")
                assert [event.message for event in await older.rest()] == [
                    {"t": "close", "code": 4001, "reason": "replaced", "reconnect": "no"}
                ]
                assert older.retry_ms[-1] >= 3_600_000
                assert (await session.actor()).subscribers == 1


async def test_resume_of_an_event_stream_sends_missed_frames() -> None:
    async with edge() as e:
        session = await e.session()
        await session.join("Ada")
        async with stream(e, f"{session.url}/events") as watching:
            await watching.until("joined")
            await session.do("start")
            position = (await watching.until("question")).id
        await session.do("close")
        await session.do("next")
        async with stream(e, f"{session.url}/events", last_event_id=position) as back:
            joined = await back.until("joined")
            assert (joined.id, joined.message["state"]) == (None, None)
            kinds = [(await back.next()) for _ in range(2)]
            assert [(event.kind, event.id) for event in kinds if event] == [
                ("reveal", "1:2"),
                ("question", "1:3"),
            ]


@pytest.mark.parametrize("position", ["7:1", "1:99", "1", "x:y", "1:-1", "1:1:1", "9" * 40 + ":1", ""])
async def test_a_position_that_is_not_ours_gets_the_whole_picture(position: str) -> None:
    async with edge() as e:
        session = await e.session()
        await session.do("start")
        async with stream(e, f"{session.url}/events", last_event_id=position) as back:
            joined = await back.until("joined")
            assert joined.message["state"]["phase"] == "question"
            assert joined.id == "1:1"


async def test_a_quiet_stream_shows_that_it_lives(mock_clock: MockClock) -> None:
    async with edge() as e:
        session = await e.session()
        async with stream(e, f"{session.url}/events") as watching:
            await watching.until("joined")
            await settle()
            mock_clock.jump(5)
            chunk = await watching.chunk()
            assert chunk == b'event: alive\ndata: {"t":"alive"}\n\n'


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [("forged", 401, "token_invalid"), ("other", 401, "token_invalid"), (None, 409, "session_finished")],
)
async def test_refusals_are_ordinary_errors(
    token: str | None, status: int, code: str, mock_clock: MockClock
) -> None:
    async with edge() as e:
        session, other = await e.session(), await e.session()
        if token is None:
            await session.do("finish")
            mock_clock.autojump_threshold = 0
            await session.leave_memory()
        refused = await e.get(f"{session.url}/events", token=other.host_token if token == "other" else token)
        assert (refused.status, refused.error) == (status, code)
        assert len(e.app.streams) == 0


async def test_a_client_that_goes_is_detached() -> None:
    async with edge() as e:
        session = await e.session()
        actor = await session.actor()
        async with stream(e, f"{session.url}/events") as watching:
            await watching.until("joined")
            assert (actor.subscribers, len(e.app.streams)) == (1, 1)
            watching.hang_up()
            await settle()
            assert (actor.subscribers, len(e.app.streams)) == (0, 0)


@pytest.mark.parametrize("gone_at", ["http.response.start", "http.response.body"])
async def test_a_client_that_goes_before_the_first_byte_is_detached(gone_at: str) -> None:
    async with edge() as e:
        session = await e.session()
        broken = Stream(e, f"{session.url}/events", {})
        broken.fail_at = gone_at
        with pytest.RaisesGroup(ConnectionResetError):
            await broken.run()
        await settle()
        assert ((await session.actor()).subscribers, len(e.app.streams)) == (0, 0)


async def test_a_slow_consumer_is_let_go_and_costs_the_others_nothing() -> None:
    async with edge(outbox_bytes_max=4096) as e:
        session = await e.session()
        actor = await session.actor()
        async with stream(e, f"{session.url}/events") as slow, stream(e, f"{session.url}/events") as other:
            await other.until("joined")
            for turn in range(60):
                await session.do("lock", on=turn % 2 == 0)
                await other.until("state")
            assert actor.subscribers == 1
            events = await slow.rest()
            offsets = [event.message["offset"] for event in events if event.kind == "state"]
            assert offsets == list(range(1, len(offsets) + 1))
            assert len(offsets) < 60
            assert events[-1].message == {
                "t": "close",
                "code": 4006,
                "reason": "slow_consumer",
                "reconnect": "resume",
            }
            assert slow.retry_ms[-1] <= 250
            await session.do("lock", on=True)
            assert (await other.until("state")).id == "1:61"


async def test_a_session_that_moves_away_says_so() -> None:
    async with edge() as e:
        session = await e.session()
        async with stream(e, f"{session.url}/events") as watching:
            await watching.until("joined")
            e.registry.close(CloseReason.RESTARTING)
            last = (await watching.rest())[-1]
            assert (last.kind, last.message["reason"], last.message["reconnect"]) == (
                "close",
                "restarting",
                "later",
            )


async def test_closing_all_streams_ends_new_ones_too() -> None:
    async with edge() as e:
        session = await e.session()
        async with stream(e, f"{session.url}/events") as watching:
            await watching.until("joined")
            e.app.streams.close_all(CloseReason.SHUTDOWN)
            assert (await watching.rest())[-1].message["reason"] == "shutdown"
        refused = await e.get(f"{session.url}/events")
        assert (refused.status, refused.error) == (503, "busy")


def test_all_streams_of_an_epoch_share_the_bytes() -> None:
    frame = Frame({"t": "question", "offset": 3})
    first = frame.encoded(EventDialect(7))
    assert first == b'event: question\nid: 7:3\ndata: {"t":"question","offset":3}\n\n'
    assert frame.encoded(EventDialect(7)) is first


def test_no_name_can_forge_an_event() -> None:
    data = EventDialect(1)({"t": "leaderboard", "offset": 1, "top": ["a\n\nevent: close\r\ndata: x"]})
    assert data.count(b"\n") == 3
    assert b"\r" not in data


async def test_a_seat_that_comes_after_the_client_has_gone_is_given_back() -> None:
    delivered: list[Command] = []
    stream = EventStream(delivered.append, 10_000, Throttle())
    stream.leave()
    stream.push(Frame({"t": "joined", "epoch": 1, "offset": 0, "state": None}))
    assert delivered == [Detach(stream), Detach(stream)]
