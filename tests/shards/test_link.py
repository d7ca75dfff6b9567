"""One node asks another: what every kind of links does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
import trio.testing

from engine.actors import commands
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Command, Detach, SubscribeNode
from engine.actors.delivery.frame import Frame
from engine.shards.link import codec
from engine.shards.ports import LinkLost
from tests.fakes import MemoryLinks
from tests.shards.linking import (
    FAR,
    NEAR,
    Client,
    Pair,
    Sessions,
    acked,
    answer,
    member,
    over_memory,
    over_sockets,
    over_streams,
)

MakePair = Callable[[trio.Nursery], AbstractAsyncContextManager[Pair]]


@pytest.fixture(params=[over_sockets, over_streams, over_memory], ids=lambda kind: kind.__name__)
async def pair(request: pytest.FixtureRequest, nursery: trio.Nursery) -> AsyncIterator[Pair]:
    make: MakePair = request.param
    async with make(nursery) as made:
        yield made


def closing(command: Command) -> None:
    command.reply.close(CloseReason.FINISHED)


# -- what every kind does ---------------------------------------------------------------------------


async def test_a_command_goes_there_and_its_frame_comes_back(pair: Pair) -> None:
    pair.sessions.do = acked
    client = Client()
    pair.links.send(pair.member, "a session", answer(client))
    assert await client.heard(1) == [{"t": "ack", "id": "a1"}]
    (command,) = pair.sessions.commands
    assert pair.sessions.session_ids == ["a session"]
    assert command == commands.Answer(command.reply, 7, "a1", 1, ["choice"], 1001)
    assert command.reply is not client


async def test_a_reply_may_be_an_end(pair: Pair) -> None:
    pair.sessions.do = closing
    client = Client()
    pair.links.send(pair.member, "s", answer(client))
    assert await client.ended() is CloseReason.FINISHED


async def test_only_the_first_frame_of_a_command_is_heard(pair: Pair) -> None:
    client, last = Client(), Client()
    pair.links.send(pair.member, "s", answer(client))
    pair.links.send(pair.member, "s", answer(last))
    first, second = await pair.sessions.got(2)
    for number in range(3):
        first.reply.push(Frame({"t": "ack", "id": number}))
    first.reply.close(CloseReason.LEFT)
    second.reply.push(Frame({"t": "ack"}))
    await last.heard(1)
    assert (client.messages, client.close_reasons) == ([{"t": "ack", "id": 0}], [])


async def test_a_relay_hears_everything_in_order_until_its_end(pair: Pair) -> None:
    client = Client()
    pair.links.send(pair.member, "s", SubscribeNode(client, NEAR))
    (relay,) = await pair.sessions.got(1)
    assert isinstance(relay, SubscribeNode)
    assert relay.node == NEAR
    for number in range(1000):
        relay.reply.push(Frame({"t": "question", "number": number}))
    relay.reply.close(CloseReason.FINISHED)
    relay.reply.push(Frame({"t": "question"}))
    relay.reply.close(CloseReason.LEFT)
    assert await client.ended() is CloseReason.FINISHED
    assert [each["number"] for each in client.messages] == list(range(1000))
    assert pair.sessions.detached() == []


async def test_commands_keep_their_order(pair: Pair) -> None:
    for number in range(1000):
        pair.links.send(pair.member, f"s{number}", answer(Client(), number))
    await pair.sessions.got(1000)
    assert pair.sessions.session_ids == [f"s{number}" for number in range(1000)]


async def test_a_dropped_relay_gets_no_more_frames_and_the_session_is_told(pair: Pair) -> None:
    client, other = Client(), Client()
    pair.links.send(pair.member, "s", SubscribeNode(client, NEAR))
    pair.links.send(pair.member, "s", SubscribeNode(other, NEAR))
    relay, remaining = await pair.sessions.got(2)
    relay.reply.push(Frame({"t": "on its way"}))
    pair.links.drop(client)
    await pair.sessions.got(3)
    assert pair.sessions.commands[2] == Detach(relay.reply)
    assert pair.sessions.session_ids == ["s"] * 3
    relay.reply.push(Frame({"t": "too late"}))
    relay.reply.close(CloseReason.LEFT)
    remaining.reply.push(Frame({"t": "state"}))
    await other.heard(1)
    assert (client.messages, client.close_reasons) == ([], [])


async def test_a_detach_drops_the_reply_it_names(pair: Pair) -> None:
    client = Client()
    pair.links.send(pair.member, "s", SubscribeNode(client, NEAR))
    pair.links.send(pair.member, "s", Detach(client))
    relay, detach = await pair.sessions.got(2)
    assert detach == Detach(relay.reply)


async def test_a_dropped_command_is_heard_of_no_more(pair: Pair) -> None:
    client, last = Client(), Client()
    for reply in (client, client, last):
        pair.links.send(pair.member, "s", answer(reply))
    pair.links.drop(client)
    pair.links.drop(client)
    pair.links.drop(Client())
    for each in await pair.sessions.got(3):
        acked(each)
    await last.heard(1)
    assert (client.messages, client.close_reasons) == ([], [])


async def test_when_the_link_is_lost_every_reply_is_closed_once(pair: Pair) -> None:
    waiting = [Client() for _ in range(100)]
    listening = [Client() for _ in range(50)]
    for each in waiting:
        pair.links.send(pair.member, "s", answer(each))
    for number, each in enumerate(listening):
        pair.links.send(pair.member, f"s{number}", SubscribeNode(each, NEAR))
    before = list(await pair.sessions.got(150))
    acked(before[0])
    await waiting[0].heard(1)
    pair.lose()
    for each in [*waiting[1:], *listening]:
        assert await each.ended() is CloseReason.RESTARTING
    assert waiting[0].close_reasons == []
    await pair.sessions.got(200)
    assert set(pair.sessions.detached()) == {each.reply for each in before if isinstance(each, SubscribeNode)}
    assert len(pair.sessions.detached()) == 50
    for each in before:
        each.reply.push(Frame({"t": "too late"}))
        each.reply.close(CloseReason.LEFT)
    assert all(len(each.close_reasons) == 1 for each in [*waiting[1:], *listening])


async def test_after_a_loss_the_next_command_goes_over_a_new_link(pair: Pair) -> None:
    pair.sessions.do = acked
    client = Client()
    pair.links.send(pair.member, "s", answer(client))
    await client.heard(1)
    held = Client()
    pair.links.send(pair.member, "s", SubscribeNode(held, NEAR))
    await pair.sessions.got(2)
    pair.lose()
    await held.ended()
    await pair.sessions.got(3)
    pair.find()
    await trio.testing.wait_all_tasks_blocked()  # until then the loss may be under way
    pair.links.send(pair.member, "s", answer(client))
    await client.heard(2)
    assert client.close_reasons == []


async def test_a_node_that_cannot_be_reached_closes_what_is_sent_to_it(pair: Pair) -> None:
    pair.lose()
    client = Client()
    pair.links.send(pair.member, "s", answer(client))
    assert await client.ended() is CloseReason.RESTARTING
    with pytest.raises(LinkLost):
        await pair.links.ask(pair.member, {"what": "is it"})


async def test_an_address_with_another_run_behind_it_is_not_the_node(pair: Pair) -> None:
    client = Client()
    pair.links.send(member("run-before", pair.member.link_url), "s", answer(client))
    assert await client.ended() is CloseReason.RESTARTING
    assert pair.sessions.commands == []


async def test_nodes_ask_each_other(pair: Pair) -> None:
    answers = {}

    async def ask(number: int) -> None:
        answers[number] = await pair.links.ask(pair.member, {"number": number})

    with trio.fail_after(8):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, number)
    assert answers == {number: {"to": {"number": number}} for number in range(20)}


async def test_a_request_that_fails_is_an_answer_that_does_not_come(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(LinkLost):
        await pair.links.ask(pair.member, {"fail": True})
    assert "a mistake in answering another node" in caplog.text
    assert await pair.links.ask(pair.member, {}) == {"to": {}}


async def test_a_request_under_way_is_lost_with_the_link(pair: Pair) -> None:
    pair.sessions.may_answer = trio.Event()
    with trio.fail_after(8), pytest.RaisesGroup(LinkLost):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.links.ask, pair.member, {})
            await pair.sessions.until(lambda: pair.sessions.asked == 1)
            pair.lose()


async def test_a_command_that_cannot_be_said_ends_its_own_reply_only(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    pair.sessions.do = acked
    large, merge, fine = Client(), Client(), Client()
    pair.links.send(pair.member, "s", commands.Answer(large, 1, "a", 1, "x" * codec.ENTRY_BYTES_MAX, 0))
    pair.links.send(pair.member, "s", commands.Merge(merge, []))
    pair.links.send(pair.member, "s", answer(fine))
    await fine.heard(1)
    assert (large.close_reasons, merge.close_reasons) == ([CloseReason.FAILED], [CloseReason.FAILED])
    assert "cannot go over a link" in caplog.text


@pytest.mark.parametrize("value", ["x" * codec.ENTRY_BYTES_MAX, object()], ids=["too large", "not JSON"])
async def test_a_frame_that_cannot_be_said_ends_its_own_reply_only(pair: Pair, value: object) -> None:
    listening, waiting, fine = Client(), Client(), Client()
    pair.links.send(pair.member, "s", SubscribeNode(listening, NEAR))
    pair.links.send(pair.member, "s", answer(waiting))
    pair.links.send(pair.member, "s", answer(fine))
    relay, unlucky, last = await pair.sessions.got(3)
    for each in (relay, unlucky):
        each.reply.push(Frame({"t": "state", "value": value}))
    acked(last)
    await fine.heard(1)
    assert (listening.close_reasons, waiting.close_reasons) == ([CloseReason.FAILED], [CloseReason.FAILED])


async def test_an_entry_as_large_as_may_be_goes_through(pair: Pair) -> None:
    client = Client()
    command = commands.Answer(client, 1, "a", 1, "", 0)
    room = codec.ENTRY_BYTES_MAX - len(codec.command_entry(1, "s", command))
    pair.links.send(pair.member, "s", commands.Answer(client, 1, "a", 1, "x" * room, 0))
    (got,) = await pair.sessions.got(1)
    assert isinstance(got, commands.Answer)
    assert got.choice == "x" * room


async def test_a_mistake_in_the_service_costs_one_command(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(command: Command) -> None:
        raise RuntimeError("a mistake")

    client, fine = Client(), Client()
    pair.sessions.do = fail
    pair.links.send(pair.member, "s", answer(client))
    assert await client.ended() is CloseReason.FAILED
    pair.sessions.do = acked
    pair.links.send(pair.member, "s", answer(fine))
    await fine.heard(1)
    assert "a mistake" in caplog.text


async def test_a_mistake_in_a_reply_costs_that_reply(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    class Mistaken(Client):
        def push(self, frame: Frame) -> None:
            raise RuntimeError("a mistake in push")

        def close(self, close_reason: CloseReason) -> None:
            super().close(close_reason)
            raise RuntimeError("a mistake in close")

    pair.sessions.do = acked
    mistaken, listening, last = Mistaken(), Mistaken(), Client()
    pair.links.send(pair.member, "s", answer(mistaken))
    pair.links.send(pair.member, "s", SubscribeNode(listening, NEAR))
    pair.links.send(pair.member, "s", answer(last))
    await last.heard(1)
    held = Client()
    pair.links.send(pair.member, "s", SubscribeNode(held, NEAR))
    await pair.sessions.got(4)
    pair.lose()
    assert await held.ended() is await listening.ended() is CloseReason.RESTARTING
    assert "a mistake in push" in caplog.text
    assert "a mistake in close" in caplog.text


async def test_nothing_is_shared_by_reference(pair: Pair) -> None:
    choice = ["a"]
    client = Client()
    pair.links.send(pair.member, "s", commands.Answer(client, 1, "a", 1, choice, 0))
    choice.append("b")
    (command,) = await pair.sessions.got(1)
    assert isinstance(command, commands.Answer)
    assert command.choice == ["a"]
    message: dict[str, Any] = {"t": "ack", "list": [1]}
    command.reply.push(Frame(message))
    message["list"].append(2)
    assert await client.heard(1) == [{"t": "ack", "list": [1]}]


# -- links in memory --------------------------------------------------------------------------------


async def test_in_memory_entries_take_their_time_and_none_overtakes(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    delays = iter([3.0, 1.0, 2.0])
    sessions = Sessions()
    network = MemoryLinks(nursery, delay_s=lambda near, far: next(delays))
    links = network.node(NEAR, Sessions())
    network.node(FAR, sessions)
    for number in range(3):
        links.send(member(), f"s{number}", answer(Client(), number))
    await trio.sleep(2.9)
    assert sessions.session_ids == []
    await trio.sleep(0.2)
    assert sessions.session_ids == ["s0", "s1", "s2"]


async def test_in_memory_a_pair_can_be_cut_and_healed(nursery: trio.Nursery) -> None:
    network = MemoryLinks(nursery)
    sessions = Sessions()
    links = network.node(NEAR, Sessions())
    network.node(FAR, sessions)
    client, refused, fine = Client(), Client(), Client()
    links.send(member(), "s", SubscribeNode(client, NEAR))
    await sessions.got(1)
    network.cut(NEAR, FAR)
    assert await client.ended() is CloseReason.RESTARTING
    links.send(member(), "s", answer(refused))
    assert await refused.ended() is CloseReason.RESTARTING
    network.heal(NEAR, FAR)
    sessions.do = acked
    links.send(member(), "s", answer(fine))
    await fine.heard(1)


async def test_in_memory_there_is_a_bound_as_well(nursery: trio.Nursery) -> None:
    network = MemoryLinks(nursery, waiting_max=2)
    sessions = Sessions()
    links = network.node(NEAR, Sessions())
    network.node(FAR, sessions)
    clients = [Client() for _ in range(3)]
    links.send(member(), "s", SubscribeNode(clients[0], NEAR))
    for each in clients[1:]:
        links.send(member(), "s", answer(each))
    assert [each.close_reasons for each in clients] == [[], [], [CloseReason.RESTARTING]]
    relay, _ = await sessions.got(2)
    for _ in range(3):
        relay.reply.push(Frame({"t": "question"}))
    assert await clients[0].ended() is CloseReason.SLOW_CONSUMER
