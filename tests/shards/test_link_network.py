"""The real links: batches, bounds, times, and a hostile world."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from trio_websocket import ConnectionClosed

from engine.actors import commands
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import SubscribeNode
from engine.actors.delivery import fanout
from engine.actors.delivery.fanout import CHUNK
from engine.actors.delivery.frame import Frame
from engine.shards.link import auth, codec, entries, listener, pool, transport
from engine.shards.link import client as link_client
from engine.shards.link.auth import ClientProof, link_key
from engine.shards.link.client import LinkClient
from engine.shards.link.keepalive import LOOKS, SILENCE_S
from engine.shards.link.listener import LinkListener
from engine.shards.link.pool import LinkPool
from engine.shards.ports import LinkLost
from tests.shards.linking import (
    FAR,
    NEAR,
    SECRET,
    Client,
    Peer,
    Sessions,
    acked,
    answer,
    connected,
    member,
    proven,
)

# -- the real ones, over streams and a virtual clock -------------------------------------------------


class Dialled:
    """Dials the server over streams, and remembers each dial."""

    def __init__(
        self,
        nursery: trio.Nursery,
        server: LinkListener | None,
        pair_of: Callable[[], Any] = trio.testing.memory_stream_pair,
    ) -> None:
        self.times: list[float] = []
        self._nursery = nursery
        self._server = server
        self._pair_of = pair_of

    async def __call__(self, url: str) -> trio.abc.Stream:
        self.times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        ours, theirs = self._pair_of()
        if self._server is None:
            raise OSError("nobody there")
        self._nursery.start_soon(self._server.attend, theirs)
        stream: trio.abc.Stream = ours
        return stream


async def linked(nursery: trio.Nursery, server: LinkListener | None) -> tuple[LinkPool, Dialled]:
    dialled = Dialled(nursery, server)
    links = LinkPool(NEAR, SECRET, open=dialled)
    await nursery.start(links.run)
    return links, dialled


async def test_what_is_sent_in_one_turn_goes_as_one_message(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    sessions = Sessions()
    sessions.do = acked
    server = LinkListener(FAR, SECRET, sessions)
    links, dialled = await linked(nursery, server)
    clients = [Client() for _ in range(600)]
    for each in clients:
        links.send(member(), "s", answer(each))
    await clients[-1].heard(1)
    assert links.statistics().sent_total == 600
    assert links.statistics().messages_total == 3
    assert server.statistics().messages_total <= 3 * 17  # what has queued up when a slice of reading is over
    for each in clients[:10]:
        links.send(member(), "s", answer(each))
    await clients[9].heard(2)
    assert links.statistics().messages_total == 4
    assert len(dialled.times) == 1


async def test_a_batch_does_not_hold_the_loop(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "SLICE_S", 0.001)
    sessions = Sessions()
    turns = 0

    def work(command: object) -> None:
        until = time.perf_counter() + 0.0002
        while time.perf_counter() < until:
            pass

    async def take_turns() -> None:
        nonlocal turns
        while len(sessions.commands) < 256:
            turns += bool(sessions.commands)
            await trio.lowlevel.checkpoint()

    sessions.do = work
    links, _ = await linked(nursery, LinkListener(FAR, SECRET, sessions))
    await links.ask(member(), {})
    for number in range(256):
        links.send(member(), "s", answer(Client(), number))
    await take_turns()
    assert links.statistics().messages_total == 2
    assert turns >= 256 // CHUNK - 2


async def test_large_entries_are_spread_over_messages(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    sessions = Sessions()
    links, _ = await linked(nursery, LinkListener(FAR, SECRET, sessions))
    for _ in range(10):
        links.send(member(), "s", commands.Answer(Client(), 1, "a", 1, "x" * 100_000, 0))
    await sessions.got(10)
    assert links.statistics().messages_total == 5


async def test_a_failed_dial_is_followed_by_rests_that_double(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    links, dialled = await linked(nursery, None)
    while len(dialled.times) < 6:
        client = Client()
        links.send(member(), "s", answer(client))
        assert await client.ended() is CloseReason.RESTARTING
        await trio.sleep(0.05)
    pauses = [later - earlier for earlier, later in zip(dialled.times, dialled.times[1:], strict=False)]
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 2.0], abs=0.06)
    statistics = links.statistics()
    assert (statistics.failed_dials_total, statistics.open) == (6, 0)


async def test_during_a_rest_everything_fails_at_once(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    links, dialled = await linked(nursery, None)
    first, second = Client(), Client()
    links.send(member(), "s", answer(first))
    assert first.close_reasons == []
    await first.ended()
    await trio.testing.wait_all_tasks_blocked()
    links.send(member(), "s", answer(second))
    assert second.close_reasons == [CloseReason.RESTARTING]
    with pytest.raises(LinkLost, match="cannot be reached"):
        await links.ask(member(), {})
    assert len(dialled.times) == 1


async def test_without_its_task_nothing_is_dialled(autojump_clock: trio.testing.MockClock) -> None:
    client = Client()
    LinkPool(NEAR, SECRET).send(member(), "s", answer(client))
    assert client.close_reasons == [CloseReason.RESTARTING]


@pytest.mark.parametrize("url", ["http://far:1", "ws://", "not an address", "ws://far:no port"])
async def test_what_is_no_address_cannot_be_dialled(nursery: trio.Nursery, url: str) -> None:
    links = LinkPool(NEAR, SECRET)
    await nursery.start(links.run)
    client = Client()
    links.send(member(link_url=url), "s", answer(client))
    assert await client.ended() is CloseReason.RESTARTING


async def test_a_command_that_is_never_answered_is_given_up(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    sessions = Sessions()
    links, _ = await linked(nursery, LinkListener(FAR, SECRET, sessions))
    forgotten, listening = Client(), Client()
    links.send(member(), "s", answer(forgotten))
    links.send(member(), "s", SubscribeNode(listening, NEAR))
    await sessions.got(2)
    await trio.sleep(entries.REPLY_S + pool.EXPIRE_EVERY_S + 1)
    assert (forgotten.close_reasons, listening.close_reasons) == ([CloseReason.RESTARTING], [])
    assert links.statistics().replies == 1


async def test_a_request_has_a_limit_of_time(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    sessions = Sessions()
    sessions.may_answer = trio.Event()
    links, _ = await linked(nursery, LinkListener(FAR, SECRET, sessions))
    started = trio.current_time()
    with pytest.raises(LinkLost, match="no answer"):
        await links.ask(member(), {})
    assert trio.current_time() - started == pytest.approx(entries.ASK_S, abs=0.1)
    assert links.statistics().asks == 0


async def test_requests_and_replies_are_bounded(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_client, "ASKS_MAX", 2)
    monkeypatch.setattr(link_client, "REPLIES_MAX", 3)
    sessions = Sessions()
    sessions.may_answer = trio.Event()
    links, _ = await linked(nursery, LinkListener(FAR, SECRET, sessions))
    async with trio.open_nursery() as asking:
        for _ in range(2):
            asking.start_soon(links.ask, member(), {})
        await sessions.until(lambda: sessions.asked == 2)
        with pytest.raises(LinkLost, match="no room"):
            await links.ask(member(), {})
        sessions.may_answer.set()
    clients = [Client() for _ in range(5)]
    for each in clients:
        links.send(member(), "s", answer(each))
    assert [each.close_reasons for each in clients] == [[]] * 3 + [[CloseReason.RESTARTING]] * 2
    assert links.statistics().refused_total == 2


async def test_without_room_a_command_is_refused(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "WAITING_BYTES_MAX", 1000)
    sessions = Sessions()
    links, _ = await linked(nursery, LinkListener(FAR, SECRET, sessions))
    clients = [Client() for _ in range(20)]
    for each in clients:
        links.send(member(), "s", answer(each))
    refused = [each for each in clients if each.close_reasons]
    assert refused
    assert refused == clients[-len(refused) :]
    assert links.statistics().waiting_bytes <= 1000
    assert len(await sessions.got(20 - len(refused))) == 20 - len(refused)
    later = Client()
    links.send(member(), "s", answer(later))
    await sessions.got(21 - len(refused))
    assert later.close_reasons == []


async def test_a_node_that_does_not_read_its_broadcasts_loses_the_link_and_may_resume(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "WAITING_MAX", 100)
    sessions = Sessions()
    links, _ = await linked(nursery, LinkListener(FAR, SECRET, sessions))
    listening, waiting = Client(), Client()
    links.send(member(), "s", SubscribeNode(listening, NEAR))
    links.send(member(), "s", answer(waiting))
    relay, _ = await sessions.got(2)
    for number in range(101):
        relay.reply.push(Frame({"t": "question", "number": number}))
    assert sessions.detached() == []  # not from inside the push
    assert await listening.ended() is CloseReason.SLOW_CONSUMER
    assert await waiting.ended() is CloseReason.RESTARTING
    await sessions.got(3)
    assert sessions.detached() == [relay.reply]


async def test_a_peer_that_reads_nothing_costs_itself_only(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    sessions = Sessions()
    server = LinkListener(FAR, SECRET, sessions)
    ours, theirs = trio.testing.lockstep_stream_pair()
    nursery.start_soon(server.attend, theirs)
    async with trio.open_nursery() as library:
        peer = await proven(library, ours)
        await peer.say(["c", 1, "s", {"t": "subscribenode", "node": NEAR}])
        (relay,) = await sessions.got(1)
        library.cancel_scope.cancel()  # from now on nobody reads
    relay.reply.push(Frame({"t": "question"}))
    links, _ = await linked(nursery, server)
    fine = Client()
    sessions.do = acked
    links.send(member(), "s", answer(fine))
    await fine.heard(1)
    assert server.statistics().open == 2
    await trio.sleep(2 * SILENCE_S)
    assert sessions.detached() == [relay.reply]
    assert server.statistics().open == 1


class Cable:
    """Dials a server. Once it is cut its streams stay open, and nothing comes through in either direction."""

    def __init__(self, nursery: trio.Nursery, server: LinkListener) -> None:
        self.cut = trio.Event()
        self._nursery = nursery
        self._server = server

    async def dial(self, url: str) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        held, inner = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._pump, theirs, held)
        self._nursery.start_soon(self._pump, held, theirs)
        self._nursery.start_soon(self._server.attend, inner)
        await trio.lowlevel.checkpoint()
        return ours

    async def _pump(self, source: trio.abc.Stream, to: trio.abc.Stream) -> None:
        while data := await source.receive_some(65_536):
            if self.cut.is_set():
                return
            await to.send_all(data)


@pytest.mark.parametrize(("gone", "within_s"), [(False, SILENCE_S), (True, SILENCE_S / 2)])
async def test_a_node_that_has_died_without_a_word_is_found_by_its_silence(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, gone: bool, within_s: float
) -> None:
    """On both sides, in less than the time of a lease; sooner when its heartbeat is gone."""
    sessions = Sessions()
    missed: set[str] = set()
    server = LinkListener(FAR, SECRET, sessions, gone=missed.__contains__)
    cable = Cable(nursery, server)
    links = LinkPool(NEAR, SECRET, gone=missed.__contains__, open=cable.dial)
    await nursery.start(links.run)
    client, asking = Client(), Client()
    links.send(member(), "s", SubscribeNode(client, NEAR))
    (relay,) = await sessions.got(1)
    await trio.sleep(10 * SILENCE_S)
    assert links.statistics().lost_total == 0
    cable.cut.set()
    links.send(member(), "s", answer(asking))
    if gone:
        missed.update((NEAR, FAR))
    await trio.sleep(within_s + 0.1)
    assert client.close_reasons == asking.close_reasons == [CloseReason.RESTARTING]
    assert sessions.detached() == [relay.reply]
    late = Client()
    links.send(member(), "s", answer(late))
    assert late.close_reasons == [CloseReason.RESTARTING], "nothing is dialled for a while"


async def test_a_node_missing_from_redis_that_answers_pings_keeps_its_links(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Its lease in PostgreSQL may hold, and then its sessions go on."""
    sessions = Sessions()
    sessions.do = acked
    server = LinkListener(FAR, SECRET, sessions, gone=lambda run: True)
    links = LinkPool(NEAR, SECRET, gone=lambda run: True, open=Cable(nursery, server).dial)
    await nursery.start(links.run)
    client = Client()
    links.send(member(), "s", answer(client))
    await client.heard(1)
    await trio.sleep(10 * SILENCE_S)
    links.send(member(), "s", answer(client, 2))
    await client.heard(2)
    assert links.statistics().lost_total == 0


async def test_a_process_that_was_stopped_itself_blames_nobody_for_the_silence(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    server = LinkListener(FAR, SECRET, Sessions())
    links = LinkPool(NEAR, SECRET, open=Cable(nursery, server).dial)
    await nursery.start(links.run)
    links.send(member(), "s", SubscribeNode(Client(), NEAR))
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(3):
        mock_clock.jump(60)
        await trio.testing.wait_all_tasks_blocked()
    assert (links.statistics().open, links.statistics().lost_total) == (1, 0)


async def test_what_was_sent_while_a_silent_node_is_dialled_fails_as_soon_as_it_is_gone(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def dial(url: str) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return trio.testing.memory_stream_pair()[0]

    missed: set[str] = set()
    links = LinkPool(NEAR, SECRET, gone=missed.__contains__, open=dial)
    await nursery.start(links.run)
    client = Client()
    links.send(member(), "s", answer(client))
    await trio.sleep(SILENCE_S / 2)
    assert client.close_reasons == []
    missed.add(FAR)
    await trio.sleep(SILENCE_S / LOOKS + 0.1)
    assert client.close_reasons == [CloseReason.RESTARTING]


async def test_cancelled_in_the_middle_everything_ends_and_no_task_is_left() -> None:
    sessions = Sessions()
    sessions.may_answer = trio.Event()
    server = LinkListener(FAR, SECRET, sessions)
    waiting, listening = Client(), Client()
    async with trio.open_nursery() as nursery:
        links, _ = await linked(nursery, server)
        links.send(member(), "s", answer(waiting))
        links.send(member(), "s", SubscribeNode(listening, NEAR))
        await sessions.got(2)
        nursery.start_soon(links.ask, member(), {})
        await sessions.until(lambda: sessions.asked == 1)
        nursery.cancel_scope.cancel()
    assert waiting.close_reasons == listening.close_reasons == [CloseReason.RESTARTING]
    assert len(sessions.detached()) == 1
    assert (links.statistics().open, links.statistics().replies, server.statistics().open) == (0, 0, 0)
    late = Client()
    links.send(member(), "s", answer(late))
    assert late.close_reasons == [CloseReason.RESTARTING]


async def test_cancelled_while_it_dials_everything_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    async def dial(url: str) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    client = Client()
    async with trio.open_nursery() as nursery:
        links = LinkPool(NEAR, SECRET, open=dial)
        await nursery.start(links.run)
        links.send(member(), "s", answer(client))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert client.close_reasons == [CloseReason.RESTARTING]


@pytest.mark.parametrize("hangs", ["dial", "handshake"])
async def test_an_address_that_never_answers_is_given_up_after_a_while(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, hangs: str
) -> None:
    async def dial(url: str) -> trio.abc.Stream:
        if hangs == "dial":
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return trio.testing.memory_stream_pair()[0]

    links = LinkPool(NEAR, SECRET, open=dial)
    await nursery.start(links.run)
    client = Client()
    links.send(member(), "s", answer(client))
    await trio.sleep(SILENCE_S + 0.1)
    assert client.close_reasons == [CloseReason.RESTARTING]


# -- who may come in --------------------------------------------------------------------------------


async def attended(nursery: trio.Nursery, server: LinkListener) -> trio.abc.Stream:
    ours, theirs = trio.testing.memory_stream_pair()
    nursery.start_soon(server.attend, theirs)
    await trio.lowlevel.checkpoint()
    return ours


async def test_a_stranger_is_told_why_and_it_is_logged_once(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    server = LinkListener(FAR, SECRET, Sessions())
    for _ in range(3):
        websocket = await connected(nursery, await attended(nursery, server))
        proof = ClientProof(link_key(b"another secret"), NEAR, FAR, bytes(32))
        await websocket.send_message(proof.respond(await websocket.get_message()))
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.get_message()
        assert closed.value.reason is not None
        assert (closed.value.reason.code, closed.value.reason.reason) == (
            listener.REFUSED,
            "the secret is another",
        )
    assert server.statistics().refused_total == 3
    assert [each.message for each in caplog.records if "is refused" in each.message] == [
        "a link from an unknown address is refused: the secret is another"
    ]


async def test_a_server_without_the_secret_gets_no_command(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    sessions = Sessions()
    links, dialled = await linked(nursery, LinkListener(FAR, b"another secret", sessions))
    for _ in range(2):
        client = Client()
        links.send(member(), "s", answer(client))
        assert await client.ended() is CloseReason.RESTARTING
        await trio.sleep(pool.REST_MAX_S)
    assert sessions.commands == []
    assert len(dialled.times) == 2
    refused = [each.message for each in caplog.records if each.name.startswith("engine.shards.link.")]
    assert refused == [
        "a link from an unknown address is refused: the secret is another",
        "no link to ws://far.invalid:5003: closed with 1008 the secret is another",
    ]


async def test_nothing_is_read_before_the_proof(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    sessions = Sessions()
    server = LinkListener(FAR, SECRET, sessions)
    peer = Peer(await connected(nursery, await attended(nursery, server)))
    await peer.say(["c", 1, "s", {"t": "subscribenode", "node": NEAR}])
    await peer.websocket.get_message()  # the hello
    with pytest.raises(ConnectionClosed):
        await peer.websocket.get_message()
    assert sessions.commands == []


async def test_a_silent_connection_is_cut_off(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    server = LinkListener(FAR, SECRET, Sessions())
    mute = await attended(nursery, server)
    websocket = await connected(nursery, await attended(nursery, server))
    await websocket.get_message()
    assert server.statistics().meeting == 2
    await trio.sleep(auth.HANDSHAKE_S + 0.1)
    assert server.statistics().meeting == 0
    assert await mute.receive_some(1) == b""
    with pytest.raises(ConnectionClosed):
        await websocket.get_message()


async def test_only_so_many_may_be_there_without_proof(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    server = LinkListener(FAR, SECRET, Sessions())
    for _ in range(listener.HANDSHAKES_MAX):
        await attended(nursery, server)
    await trio.testing.wait_all_tasks_blocked()
    one_more = await attended(nursery, server)
    assert await one_more.receive_some(1) == b""
    assert server.statistics().meeting == listener.HANDSHAKES_MAX


# -- what a peer may say ----------------------------------------------------------------------------


async def test_entries_of_a_newer_node_are_passed_over(nursery: trio.Nursery) -> None:
    sessions = Sessions()
    sessions.do = acked
    peer = await proven(nursery, await attended(nursery, LinkListener(FAR, SECRET, sessions)))
    command = {"t": "answer", "player": 1, "question": 1, "at": 0, "id": "a", "news": True}
    await peer.say(["z", 1, "what is it"], ["c", 2, "s", command, "more"])
    assert await peer.hear() == [["f", 2, {"t": "ack", "id": "a"}]]


async def test_a_command_of_a_newer_node_is_refused_alone(nursery: trio.Nursery) -> None:
    sessions = Sessions()
    peer = await proven(nursery, await attended(nursery, LinkListener(FAR, SECRET, sessions)))
    await peer.say(["c", 1, "s", {"t": "dance"}], ["q", 2, {}])
    assert await peer.hear() == [["e", 1, CloseReason.FAILED.code]]
    assert await peer.hear() == [["a", 2, {"to": {}}]]


@pytest.mark.parametrize(
    "raw",
    [
        b"not JSON",
        b"{}",
        b"[5]",
        b"[[]]",
        b'[["c"]]',
        b'[["c","1","s",{}]]',
        b'[["c",1]]',
        b'[["c",1,5,{}]]',
        b'[["q",1]]',
        b'[["q",1,[]]]',
        "text is no batch either",
    ],
)
async def test_nonsense_ends_the_link_it_came_over_and_no_other(
    nursery: trio.Nursery, raw: bytes | str
) -> None:
    sessions = Sessions()
    server = LinkListener(FAR, SECRET, sessions)
    fine = await proven(nursery, await attended(nursery, server))
    peer = await proven(nursery, await attended(nursery, server))
    await peer.say(["c", 1, "s", {"t": "subscribenode", "node": NEAR}])
    (relay,) = await sessions.got(1)
    await peer.websocket.send_message(raw)
    with pytest.raises(ConnectionClosed) as closed:
        await peer.hear()
    assert closed.value.reason is not None
    assert (closed.value.reason.code, closed.value.reason.reason) == (transport.MALFORMED, "malformed")
    await sessions.got(2)
    assert sessions.detached() == [relay.reply]
    await fine.say(["q", 1, {}])
    assert await fine.hear() == [["a", 1, {"to": {}}]]


async def test_a_message_that_is_too_large_ends_the_link(nursery: trio.Nursery) -> None:
    sessions = Sessions()
    peer = await proven(nursery, await attended(nursery, LinkListener(FAR, SECRET, sessions)))
    await peer.say(["c", 1, "s", {"t": "subscribenode", "node": NEAR}])
    await sessions.got(1)
    await peer.websocket.send_message(b" " * (codec.MESSAGE_BYTES_MAX + 1))
    with pytest.raises(ConnectionClosed) as closed:
        await peer.hear()
    assert closed.value.reason is not None
    assert closed.value.reason.code == 1009
    await sessions.got(2)


@pytest.mark.parametrize(
    "entry", [["f", 1, []], ["f", 1], ["e", 1, "left"], ["a", 1, 5], ["a", 1], "f", ["f", True, {}]]
)
async def test_nonsense_from_the_far_end_ends_the_link(nursery: trio.Nursery, entry: object) -> None:
    near = LinkClient(Nowhere())
    with pytest.raises(entries.Malformed):
        near.hear(entry)


async def test_what_nobody_waits_for_is_passed_over() -> None:
    near = LinkClient(Nowhere())
    for entry in (["f", 9, {"t": "ack"}], ["e", 9, 4000], ["a", 9, {}], ["x", 9], ["z", 9]):
        near.hear(entry)


class Nowhere:
    has_room = True

    def offer(self, entry: bytes) -> bool:
        return True

    async def wait_for_room(self) -> None:
        raise AssertionError

    def overflow(self) -> None:
        raise AssertionError


# -- real sockets -----------------------------------------------------------------------------------


async def test_garbage_on_the_port_costs_nobody_else_anything(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_S", 1.0)  # half a greeting is waited for until then
    sessions = Sessions()
    sessions.do = acked
    server = LinkListener(FAR, SECRET, sessions)
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    port = bound.getsockname()[1]
    await nursery.start(partial(server.serve, [bound]))
    links = LinkPool(NEAR, SECRET)
    await nursery.start(links.run)
    there = member(link_url=f"ws://127.0.0.1:{port}")
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 100_000,
        b"GET /link HTTP/1.1\r\nHost: far\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n\xff\xff\xff",
    ):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(garbage)
        with trio.fail_after(8):
            try:
                while await stream.receive_some(65_536):
                    pass
            except trio.BrokenResourceError:
                pass
        client = Client()
        links.send(there, "s", answer(client))
        await client.heard(1)
        await stream.aclose()
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


async def test_a_link_may_go_through_tls(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(ours)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    sessions = Sessions()
    sessions.do = acked
    server = LinkListener(FAR, SECRET, sessions)
    serve = partial(trio.serve_ssl_over_tcp, server.attend, 0, ours, host="127.0.0.1", https_compatible=True)
    listeners = await nursery.start(serve)
    links = LinkPool(NEAR, SECRET)
    await nursery.start(links.run)
    client = Client()
    port = listeners[0].transport_listener.socket.getsockname()[1]
    links.send(member(link_url=f"wss://localhost:{port}"), "s", answer(client))
    await client.heard(1)


async def test_a_port_that_is_no_link_cannot_be_reached(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await stream.aclose()

    listeners = await nursery.start(partial(trio.serve_tcp, refuse, 0, host="127.0.0.1"))
    links = LinkPool(NEAR, SECRET)
    await nursery.start(links.run)
    client = Client()
    port = listeners[0].socket.getsockname()[1]
    links.send(member(link_url=f"ws://127.0.0.1:{port}"), "s", answer(client))
    assert await client.ended() is CloseReason.RESTARTING
    assert "404" in caplog.text
