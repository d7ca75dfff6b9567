"""The client against a scripted server: joining, resuming, moving, waiting, giving up."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import trio

from fanfare_client.reconnect import ALIVE_WITHIN_S, QUIET_S
from fanfare_client.seat import Gap
from loadtest.client.connection import BadFrame
from loadtest.client.player import (
    Gone,
    HostClient,
    PlayerClient,
    SpectatorClient,
)
from tests.loadtest.scripted import (
    Message,
    Peer,
    ScriptedServer,
    ack,
    error,
    finished,
    joined,
    leaderboard,
    picture,
    question,
    result,
    reveal,
    says,
)

URL = "ws://quiz.example/ws"


def player(server: ScriptedServer, **options: Any) -> PlayerClient:
    return PlayerClient(URL, "123456", "Ada", rng=random.Random(7), connect=server.connect, **options)


async def test_joins_answers_and_hears_to_the_end(autojump_clock: object) -> None:
    asked: list[Message] = []

    async def scene(peer: Peer) -> None:
        asked.append(await peer.hear())
        await peer.say(joined(), question(1))
        asked.append(await peer.hear())
        await peer.say(ack(asked[1]), reveal(2), result(1, 950, 950), finished(3, 950))
        await peer.silence()

    heard: list[str] = []
    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [scene])
        client = player(server, listener=lambda message: heard.append(message["t"]))
        replies = []

        async def answer() -> None:
            await client.arrived.wait()
            replies.append(await client.answer(1, 1))

        nursery.start_soon(answer)
        assert await client.run() == "finished"

    assert asked[0] == {"t": "join", "code": "123456", "name": "Ada"}
    assert asked[1] == {"t": "answer", "question": 1, "choice": 1, "id": "1"}
    assert replies[0].message["status"] == "accepted"
    assert replies[0].error is None
    assert (client.token, client.player, client.epoch, client.offset) == ("tok-1", 1, 1, 3)
    assert client.finished == {"podium": [], "you": {"rank": 1, "score": 950}}
    assert heard == ["joined", "question", "ack", "reveal", "result", "finished"]
    assert client.gaps == []


async def test_resumes_where_it_stood_and_drops_what_it_has_heard(autojump_clock: object) -> None:
    greetings: list[Message] = []

    first = says(joined(epoch=4, offset=10), question(11), close=(4006, "slow_consumer"))

    async def second(peer: Peer) -> None:
        greetings.append(await peer.hear())
        await peer.say(joined(epoch=4, offset=13, resumed=True))
        await peer.say(question(11), reveal(12), question(13, 2), finished(14))
        await peer.silence()

    heard: list[int] = []
    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [first, second])
        client = player(server, listener=lambda m: heard.append(m["offset"]) if m["t"] != "joined" else None)
        assert await client.run() == "finished"

    assert greetings == [{"t": "join", "code": "123456", "token": "tok-1", "epoch": 4, "offset": 11}]
    assert heard == [11, 12, 13, 14]
    assert client.gaps == []
    assert client.reconnects == 1
    assert server.dialed[1][0] - server.dialed[0][0] <= 0.25


async def test_a_new_epoch_brings_the_whole_picture_and_a_new_place(autojump_clock: object) -> None:
    first = says(joined(epoch=4, offset=10), cut=True)

    second = says(joined(epoch=5, offset=0, state=picture("question", score=900)), reveal(1), finished(2))

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [first, second])
        client = player(server)
        assert await client.run() == "finished"

    assert (client.epoch, client.offset, client.gaps) == (5, 2, [])
    wait_s = server.dialed[1][0] - server.dialed[0][0]
    assert 0.5 <= wait_s <= 3.0


async def test_a_missing_broadcast_is_noted(autojump_clock: object) -> None:
    scene = says(joined(), question(1), reveal(3), leaderboard(4), finished(5))

    async with trio.open_nursery() as nursery:
        client = player(ScriptedServer(nursery, [scene]))
        await client.run()

    assert client.gaps == [Gap(epoch=1, expected=2, got=3), Gap(epoch=1, expected=4, got=5)]


async def test_an_unanswered_answer_is_sent_again_after_coming_back(autojump_clock: object) -> None:
    sent: list[Message] = []

    async def first(peer: Peer) -> None:
        await peer.hear()
        await peer.say(joined(), question(1))
        sent.append(await peer.hear())
        await peer.close(4010, "shutdown")

    async def second(peer: Peer) -> None:
        await peer.hear()
        await peer.say(joined(epoch=2, state=picture("question")))
        sent.append(await peer.hear())
        await peer.say(ack(sent[1]), finished(1))
        await peer.silence()

    async with trio.open_nursery() as nursery:
        client = player(ScriptedServer(nursery, [first, second]))
        nursery.start_soon(client.run)
        await client.arrived.wait()
        reply = await client.answer(1, 2)

    assert sent[0] == sent[1]
    assert reply.sent == 2
    assert reply.message["status"] == "accepted"
    assert reply.latency_s >= 0.5


async def test_an_answer_asked_while_away_goes_out_on_return(autojump_clock: object) -> None:
    sent: list[Message] = []

    async def first(peer: Peer) -> None:
        await peer.hear()
        await peer.say(joined())

    async def second(peer: Peer) -> None:
        await peer.hear()
        await peer.say(joined(resumed=True))
        sent.append(await peer.hear())
        await peer.say(ack(sent[0]), finished(1))
        await peer.silence()

    async with trio.open_nursery() as nursery:
        client = player(ScriptedServer(nursery, [first, second]))
        nursery.start_soon(client.run)
        await client.arrived.wait()
        await client.drop()
        assert (await client.answer(1, 0)).sent == 1


async def test_busy_is_tried_again(autojump_clock: object) -> None:
    async def scene(peer: Peer) -> None:
        await peer.hear()
        await peer.say(joined())
        await peer.say(error("busy", await peer.hear()))
        await peer.say(ack(await peer.hear()), finished(1))
        await peer.silence()

    async with trio.open_nursery() as nursery:
        client = player(ScriptedServer(nursery, [scene]))
        nursery.start_soon(client.run)
        await client.arrived.wait()
        reply = await client.answer(1, 0)

    assert reply.error is None
    assert reply.sent == 2


async def test_a_refusal_is_an_answer(autojump_clock: object) -> None:
    async def scene(peer: Peer) -> None:
        await peer.hear()
        await peer.say(joined())
        await peer.say(error("late", await peer.hear()), finished(1))
        await peer.silence()

    async with trio.open_nursery() as nursery:
        client = player(ScriptedServer(nursery, [scene]))
        nursery.start_soon(client.run)
        await client.arrived.wait()
        assert (await client.answer(1, 0)).error == "late"


async def test_an_answer_that_never_comes_ends_with_the_client(autojump_clock: object) -> None:
    async def scene(peer: Peer) -> None:
        await peer.hear()
        await peer.say(joined())
        await peer.hear()
        await peer.close(4001, "replaced")

    async with trio.open_nursery() as nursery:
        client = player(ScriptedServer(nursery, [scene]))
        nursery.start_soon(client.run)
        await client.arrived.wait()
        with pytest.raises(Gone, match="replaced"):
            await client.answer(1, 0)
        with pytest.raises(Gone, match="replaced"):
            await client.answer(2, 0)


async def test_after_finished_it_waits_for_answers_but_not_for_ever(autojump_clock: object) -> None:
    async def scene(peer: Peer) -> None:
        await peer.hear()
        await peer.say(joined())
        await peer.hear()
        await peer.say(finished(1))
        await peer.silence()

    async with trio.open_nursery() as nursery:
        client = player(ScriptedServer(nursery, [scene]))
        nursery.start_soon(client.run)
        await client.arrived.wait()
        with pytest.raises(Gone, match="finished"):
            await client.answer(1, 0)
    assert 10 <= trio.current_time() < 15


async def test_follows_moved_and_stays_there(autojump_clock: object) -> None:
    first = says({"t": "moved", "url": "ws://other.example/ws", "after_ms": 700})

    async def second(peer: Peer) -> None:
        assert peer.url == "ws://other.example/ws"
        await peer.hear()
        await peer.say(joined(), finished(1))
        await peer.silence()

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [first, second])
        assert await player(server).run() == "finished"
    assert server.dialed[1] == (pytest.approx(server.dialed[0][0] + 0.7), "ws://other.example/ws")


async def test_moved_in_the_midst_goes_on_where_it_stood_and_asks_again(autojump_clock: object) -> None:
    heard: list[Message] = []

    async def first(peer: Peer) -> None:
        await peer.hear()
        await peer.say(joined(epoch=4, offset=10), question(11))
        heard.append(await peer.hear())
        await peer.say({"t": "moved", "url": "ws://other.example/ws", "after_ms": 300})
        await peer.close(4009, "moved")

    async def second(peer: Peer) -> None:
        heard.append(await peer.hear())
        await peer.say(joined(epoch=4, offset=12, resumed=True), reveal(12))
        heard.append(await peer.hear())
        await peer.say(ack(heard[-1]), finished(13))
        await peer.silence()

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [first, second])
        client = player(server)
        nursery.start_soon(client.run)
        await client.arrived.wait()
        reply = await client.answer(1, 2)

    assert [url for _, url in server.dialed] == [URL, "ws://other.example/ws"]
    assert heard[1] == {"t": "join", "code": "123456", "token": "tok-1", "epoch": 4, "offset": 11}
    assert heard[0] == heard[2]
    assert (reply.error, reply.sent) == (None, 2)
    assert (client.gaps, client.moves, client.reconnects) == ([], 1, 0)


async def test_a_client_without_the_address_of_moved_reconnects_later_at_another_address(
    autojump_clock: object,
) -> None:
    first = says(joined(), close=(4009, "moved"))

    second = says(joined(resumed=True), finished(1))

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [first, second])
        client = PlayerClient(
            ["ws://a/ws", "ws://b/ws"], "123456", "Ada", rng=random.Random(7), connect=server.connect
        )
        assert await client.run() == "finished"
    assert [url for _, url in server.dialed] == ["ws://a/ws", "ws://b/ws"]
    assert 0.5 <= server.dialed[1][0] - server.dialed[0][0] <= 3.0


async def test_a_node_that_died_is_left_for_those_known_before_in_turn(autojump_clock: object) -> None:
    sent_on = says({"t": "moved", "url": "ws://b/ws", "after_ms": 0})

    dies = says(joined(epoch=4, offset=10), cut=True)

    restored = says(joined(epoch=5, offset=0), finished(1))

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [sent_on, dies, None, sent_on, None, restored])
        client = PlayerClient(
            ["ws://a/ws", "ws://b/ws", "ws://c/ws"],
            "123456",
            "Ada",
            rng=random.Random(7),
            connect=server.connect,
        )
        assert await client.run() == "finished"
    # b has died: not b again, though it is next; c refuses; a sends on to b, which is still gone; then c.
    tried = [url.removeprefix("ws://")[0] for _, url in server.dialed]
    assert tried == ["a", "b", "c", "a", "b", "c"]
    assert (client.epoch, client.gaps, client.reconnects) == (5, [], 1)


async def test_a_slow_one_comes_back_to_the_same_node(autojump_clock: object) -> None:
    slow = says(joined(), close=(4006, "slow_consumer"))

    back = says(joined(resumed=True), finished(1))

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [slow, back])
        client = SpectatorClient(
            ["ws://a/ws", "ws://b/ws"], "123456", rng=random.Random(7), connect=server.connect
        )
        assert await client.run() == "finished"
    assert [url for _, url in server.dialed] == ["ws://a/ws", "ws://a/ws"]


async def test_a_node_that_hangs_is_left_for_another_and_one_that_is_only_quiet_is_not(
    autojump_clock: object,
) -> None:
    async def hangs(peer: Peer) -> None:
        await peer.hear()
        await peer.say(joined())
        with trio.move_on_after(4 * QUIET_S):
            await peer.hear()  # and answers pings
        assert [message["t"] for message in await peer.silence()] == ["ping"]

    async def back(peer: Peer) -> None:
        assert (await peer.hear())["epoch"] == 1
        await peer.say(joined(resumed=True), finished(1))
        await peer.silence()

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [hangs, back])
        client = SpectatorClient(
            ["ws://a/ws", "ws://b/ws"], "123456", rng=random.Random(7), connect=server.connect
        )
        assert await client.run() == "finished"
    assert [url for _, url in server.dialed] == ["ws://a/ws", "ws://b/ws"]
    left_at = server.dialed[1][0] - server.dialed[0][0]
    assert left_at < 5 * QUIET_S + ALIVE_WITHIN_S + 3


async def test_a_full_node_is_left_for_another(autojump_clock: object) -> None:
    full = says(error("busy"))

    room = says(joined(), finished(1))

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [full, room])
        client = PlayerClient(
            ["ws://a/ws", "ws://b/ws"], "123456", "Ada", rng=random.Random(7), connect=server.connect
        )
        assert await client.run() == "finished"
    assert [url for _, url in server.dialed] == ["ws://a/ws", "ws://b/ws"]


async def test_moved_in_a_circle_slows_down_and_gives_up(autojump_clock: object) -> None:
    scene = says({"t": "moved", "url": URL, "after_ms": 0})

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [scene] * 100)
        assert await player(server, patience_s=30).run() == "unreachable"
    assert 9 <= len(server.dialed) < 20


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (4000, "left"),
        (4001, "replaced"),
        (4002, "kicked"),
        (4012, "unavailable"),
    ],
)
async def test_ends_for_good_where_the_protocol_says_so(
    autojump_clock: object, code: int, reason: str
) -> None:
    scene = says(joined(), close=(code, reason))

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [scene])
        assert await player(server).run() == reason
    assert len(server.dialed) == 1


@pytest.mark.parametrize("code", [4004, 4010, 4011, 1001, 1011])
async def test_comes_back_later_where_the_protocol_says_so(autojump_clock: object, code: int) -> None:
    first = says(joined(), close=(code, "whatever"))

    second = says(joined(resumed=True), finished(1))

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [first, second])
        assert await player(server).run() == "finished"
    assert 0.5 <= server.dialed[1][0] - server.dialed[0][0] <= 3.0


async def test_waits_longer_each_time_until_the_patience_ends(autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [])
        assert await player(server, patience_s=120).run() == "unreachable"
    times = [at for at, _ in server.dialed]
    waits = [after - before for before, after in itertools.pairwise(times)]
    for doubled, wait in enumerate(waits):
        doublings = max(doubled - 2, 0)
        assert min(0.5 * 2**doublings, 30) <= wait <= min(3.0 * 2**doublings, 30)
    assert 60 < times[-1] - times[0] <= 120


async def test_a_server_that_goes_away_during_the_handshake_is_noticed_at_once(
    autojump_clock: object,
) -> None:
    attempts: list[float] = []

    async def connect(url: str) -> trio.abc.Stream:
        attempts.append(trio.current_time())
        here, there = trio.testing.memory_stream_pair()
        await trio.aclose_forcefully(there)
        return here

    client = PlayerClient(URL, "123456", "Ada", rng=random.Random(7), connect=connect, patience_s=10)
    assert await client.run() == "unreachable"
    assert attempts[1] - attempts[0] <= 3.0


async def test_a_server_that_never_answers_the_handshake_is_left(autojump_clock: object) -> None:
    kept: list[object] = []

    async def connect(url: str) -> trio.abc.Stream:
        here, there = trio.testing.memory_stream_pair()
        kept.append(there)
        return here

    client = PlayerClient(URL, "123456", "Ada", rng=random.Random(7), connect=connect, patience_s=10)
    assert await client.run() == "unreachable"


@pytest.mark.parametrize("code", ["session_not_found", "session_finished", "session_locked", "token_expired"])
async def test_a_refused_join_is_the_end(autojump_clock: object, code: str) -> None:
    scene = says(error(code))

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [scene])
        client = player(server)
        assert await client.run() == code
    assert client.arrived.is_set()
    assert not client.connected


async def test_a_join_that_is_not_welcome_just_now_is_tried_again(autojump_clock: object) -> None:
    first = says(error("busy"))

    second = says(joined(), finished(1))

    async with trio.open_nursery() as nursery:
        assert await player(ScriptedServer(nursery, [first, second])).run() == "finished"


async def test_the_name_is_kept_unless_a_lost_join_may_have_taken_it(autojump_clock: object) -> None:
    taken = says(error("name_taken"))

    async def lost(peer: Peer) -> None:
        await peer.hear()
        await peer.cut()

    names: list[str] = []

    async def mine(peer: Peer) -> None:
        names.append((await peer.hear())["name"])
        await peer.say(error("name_taken"))
        names.append((await peer.hear())["name"])
        await peer.say(joined(name=names[-1]), finished(1))
        await peer.silence()

    async with trio.open_nursery() as nursery:
        assert await player(ScriptedServer(nursery, [taken])).run() == "name_taken"
        client = player(ScriptedServer(nursery, [lost, mine]))
        assert await client.run() == "finished"
    assert names == ["Ada", "Ada 2"]
    assert client.name == "Ada 2"


async def test_coming_back_to_a_finished_session_brings_the_final_score(autojump_clock: object) -> None:
    first = says(joined(offset=3), cut=True)

    second = says(joined(epoch=2, offset=9, state=picture("finished", score=2750)))

    async with trio.open_nursery() as nursery:
        client = player(ScriptedServer(nursery, [first, second]))
        assert await client.run() == "finished"
    assert client.finished == {"podium": [], "you": {"rank": 1, "score": 2750}}


async def test_a_ping_that_crosses_the_close_harms_nobody(autojump_clock: object) -> None:
    """The library trips over it: this holds the way around."""

    async def scene(peer: Peer) -> None:
        await peer.hear()
        await peer.say(joined(), finished(1))
        await peer.ping_while_the_client_closes()
        await peer.silence()

    async with trio.open_nursery() as nursery:
        assert await player(ScriptedServer(nursery, [scene])).run() == "finished"


@pytest.mark.parametrize("frame", ["no json", "[1]", '{"t": 3}', b"{}"])
async def test_a_frame_that_is_no_message_is_the_servers_fault(
    autojump_clock: object, frame: str | bytes
) -> None:
    async def scene(peer: Peer) -> None:
        await peer.hear()
        await peer.say_raw(frame)
        await peer.silence()

    async with trio.open_nursery() as nursery:
        with pytest.raises(BadFrame):
            await player(ScriptedServer(nursery, [scene])).run()


async def test_the_host_commands_and_the_spectator_only_joins(autojump_clock: object) -> None:
    heard: list[Message] = []

    async def hosting(peer: Peer) -> None:
        heard.append(await peer.hear())
        await peer.say(joined(token="host-token", player=None, name=None))
        heard.append(request := await peer.hear())
        await peer.say({"t": "done", "id": request["id"], "do": "lock", "phase": "lobby"}, finished(1))
        await peer.silence()

    async def watching(peer: Peer) -> None:
        heard.append(await peer.hear())
        await peer.say(joined(token=None, player=None, name=None), finished(1))
        await peer.silence()

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [hosting, watching])
        host = HostClient(URL, "123456", rng=random.Random(1), token="host-token", connect=server.connect)
        nursery.start_soon(host.run)
        await host.arrived.wait()
        reply = await host.command("lock", on=True)
        assert reply.message["phase"] == "lobby"
        watcher = SpectatorClient(URL, "123456", rng=random.Random(1), connect=server.connect)
        assert await watcher.run() == "finished"

    assert heard == [
        {"t": "join", "code": "123456", "token": "host-token"},
        {"t": "host", "do": "lock", "on": True, "id": "1"},
        {"t": "join", "code": "123456", "role": "spectator"},
    ]


async def test_leaving_while_away_ends_the_attempts(autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, [])
        client = player(server)
        nursery.start_soon(client.run)
        await trio.sleep(5)
        await client.leave()
        attempts = len(server.dialed)
        await trio.sleep(100)
    assert (client.ended, len(server.dialed)) == ("left", attempts)


async def test_leaving_is_an_end_of_its_own(autojump_clock: object) -> None:
    async def scene(peer: Peer) -> None:
        await peer.hear()
        await peer.say(joined())
        assert await peer.hear() == {"t": "leave"}
        await peer.close(4000, "left")

    ends: list[str] = []
    async with trio.open_nursery() as nursery:
        client = player(ScriptedServer(nursery, [scene]))

        async def run() -> None:
            ends.append(await client.run())

        nursery.start_soon(run)
        await client.arrived.wait()
        await client.leave()
    assert ends == ["left"]
