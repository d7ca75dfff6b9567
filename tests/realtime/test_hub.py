"""The contract of the hub, for every transport: what clients of SignalR may rely on.

The conversations are those of the specification, byte by byte; tests/signalr has the real client.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from server.realtime.hub import HubClient
from server.realtime.reactor.transport import ReactorTransport
from server.realtime.trio_websocket import TrioWebSocketTransport
from tests.identities import SETTINGS, signed
from tests.realtime.rig import MakeTransport, RawClient, Rig, request, rig
from tests.settings import at_once

TRANSPORTS: dict[str, MakeTransport] = {
    "trio-websocket": TrioWebSocketTransport,
    "reactor": ReactorTransport,
}
HANDSHAKE = b'{"protocol":"json","version":1}\x1e'


@pytest.fixture(autouse=True)
def pings_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first comes at any moment of the interval: also between two frames that a test compares."""
    monkeypatch.setattr("server.realtime.hub.PING_INTERVAL_S", 3_600.0)


@pytest.fixture(params=list(TRANSPORTS))
def make(request: pytest.FixtureRequest) -> MakeTransport:
    return TRANSPORTS[request.param]


class Hub:
    """A client of the JSON hub protocol."""

    def __init__(self, raw: RawClient) -> None:
        self.raw = raw
        self._records: list[dict[str, Any]] = []
        self._events: list[dict[str, Any]] = []
        self._ended: list[dict[str, Any]] = []
        self._ids = 0

    async def say(self, *records: dict[str, Any]) -> None:
        """All in one frame."""
        await self.raw.send_frame(b"".join(json.dumps(record).encode() + b"\x1e" for record in records))

    async def hear(self) -> dict[str, Any]:
        """The next hub message but pings."""
        while True:
            while not self._records:
                frame = await self.raw.expect(1)
                assert frame.payload.endswith(b"\x1e")
                self._records = [json.loads(each) for each in frame.payload.split(b"\x1e")[:-1]]
            record = self._records.pop(0)
            if record.get("type") != 6:
                return record

    async def on(self, target: str) -> dict[str, Any]:
        """The argument of the next invocation of this target; earlier messages are passed over."""
        record = next((each for each in self._events if each["target"] == target), None)
        if record is not None:
            del self._events[: self._events.index(record) + 1]
        while record is None or record.get("target") != target:
            record = await self.hear()
        assert record.keys() == {"type", "target", "arguments"}
        (message,) = record["arguments"]
        assert message["t"] == target
        assert isinstance(message, dict)
        return message

    async def completion(self, invocation: str) -> dict[str, Any]:
        """The end of a call. What comes before it is kept."""
        record = next((each for each in self._ended if each["invocationId"] == invocation), None)
        if record is not None:
            self._ended.remove(record)
        while record is None or record.get("invocationId") != invocation:
            if record is not None:
                (self._events if "target" in record else self._ended).append(record)
            record = await self.hear()
        assert record["type"] == 3
        return record

    async def invoke(self, target: str, *arguments: Any) -> dict[str, Any]:
        self._ids += 1
        invocation = str(self._ids)
        await self.say({"type": 1, "target": target, "arguments": arguments, "invocationId": invocation})
        return await self.completion(invocation)

    async def result(self, target: str, *arguments: Any) -> dict[str, Any]:
        result = (await self.invoke(target, *arguments))["result"]
        assert isinstance(result, dict)
        return result

    async def closed(self) -> tuple[dict[str, Any], int]:
        """The Close message and the code of the close frame."""
        while (record := await self.hear()).get("type") != 7:
            pass
        return record, (await self.raw.expect(8)).close_code


@asynccontextmanager
async def hub(node: Rig, query: str = "", *headers: str) -> AsyncIterator[Hub]:
    async with node.raw() as raw:
        await raw.send(request(*headers, path="/hub" + query))
        assert (await raw.response())[0] == 101
        client = Hub(raw)
        await raw.send_frame(HANDSHAKE)
        assert await client.hear() == {}
        yield client


async def status(node: Rig, query: str, *headers: str) -> int:
    async with node.raw() as raw:
        await raw.send(request(*headers, path="/hub" + query))
        return (await raw.response())[0]


# -- a good client -----------------------------------------------------------------------------------


async def test_a_whole_session(make: MakeTransport) -> None:
    async with rig(make) as node, hub(node) as host, hub(node) as ada, hub(node) as screen:
        joined = await host.result("Join", {"code": node.code, "token": node.host_token()})
        assert (joined["t"], joined["role"]) == ("joined", "host")
        assert (await ada.result("Join", {"code": node.code, "name": "Ada"}))["name"] == "Ada"
        assert (await screen.result("Watch", {"code": node.code}))["role"] == "spectator"
        for number in (1, 2, 3):
            done = await host.result("Host", {"do": "start" if number == 1 else "next"})
            assert done == {"t": "done", "do": done["do"], "phase": "question"}
            question = await ada.on("question")
            assert question == await screen.on("question")
            assert "correct" not in question
            given = {"id": f"a-{number}", "question": number, "choice": 0}
            acked = await ada.result("Answer", *([given] if number < 3 else [3, 0]))
            assert (acked["t"], acked["question"], acked["status"]) == ("ack", number, "accepted")
            assert acked.get("id") == (f"a-{number}" if number < 3 else None)
            assert (await ada.on("result"))["correct"] is True
        await host.result("Host", "finish")
        assert (await ada.on("finished"))["you"]["rank"] == 1
        assert (await screen.on("finished"))["podium"][0]["name"] == "Ada"


async def test_a_player_at_the_own_pace_asks_for_each_question_and_for_another_attempt(
    make: MakeTransport,
) -> None:
    async with rig(make, session=at_once(pace="self", attempts=2)) as node, hub(node) as ada:
        await ada.result("Join", node.code, "Ada")
        for number in (1, 2, 3):
            question = await ada.result("Next")
            assert question == await ada.result("Next", {}) | {
                name: question[name] for name in ("now", "remaining_ms")
            }
            assert (question["t"], question["number"], question["attempt"]) == ("question", number, 1)
            acked = await ada.result("Answer", number, 0)
            assert (acked["status"], acked["result"]["number"]) == ("accepted", number)
        done = await ada.result("Next")
        assert (done["t"], done["attempt"], done["attempts"]) == ("done_all", 1, 2)
        begun = await ada.result("Next", {"attempt": 2, "id": "n"})
        assert (begun["t"], begun["number"], begun["attempt"], begun["id"]) == ("question", 1, 2, "n")
        acked = await ada.result("Answer", {"question": 1, "choice": 0, "attempt": 2})
        assert acked["status"] == "accepted"
        await ada.say({"type": 1, "target": "Next", "arguments": [{"attempt": 2, "id": "m"}]})
        event = await ada.on("question")
        assert (event["number"], event["attempt"], event["id"]) == (2, 2, "m")
        for arguments, code in (
            ([{"attempt": 3}], "bad_field"),
            ([{"attempt": "two"}], "bad_field"),
            ([2], "bad_message"),
        ):
            assert (await ada.invoke("Next", *arguments))["error"].startswith(f"{code}: ")


async def test_hub_and_plain_clients_play_one_session(make: MakeTransport) -> None:
    async with rig(make) as node, node.host() as host, node.player("Ben") as ben, hub(node) as ada:
        await ada.result("join", node.code, "Ada")
        await host.send(t="host", id="s", do="start")
        assert await ben.expect("question") == await ada.on("question")


async def test_handshake_and_first_calls_may_come_in_one_frame_or_in_pieces(make: MakeTransport) -> None:
    async with rig(make) as node, node.raw() as raw:
        await raw.send(request(path="/hub"))
        await raw.response()
        join = {"type": 1, "target": "Join", "arguments": [{"code": node.code, "name": "Ada"}]}
        words = HANDSHAKE + json.dumps({**join, "invocationId": "0"}).encode() + b'\x1e{"type":6}\x1e'
        await raw.send_frame(words[:10])
        await raw.send_frame(words[10:60])
        await raw.send_frame(words[60:] + b'{"type":1,"target":"Ping","invocationId":"1"')
        await raw.send_frame(b',"arguments":[{"at":7}]}\x1e')
        client = Hub(raw)
        assert await client.hear() == {}
        assert (await client.completion("0"))["result"]["name"] == "Ada"
        assert (await client.completion("1"))["result"]["at"] == 7


async def test_a_call_without_an_id_is_not_completed_and_its_reply_is_an_event(make: MakeTransport) -> None:
    async with rig(make) as node, hub(node) as ada:
        await ada.say({"type": 1, "target": "Join", "arguments": [{"code": node.code, "name": "Ada"}]})
        assert (await ada.on("joined"))["name"] == "Ada"
        await ada.say({"type": 1, "target": "Answer", "arguments": [{"id": "a", "question": 1, "choice": 0}]})
        assert ((error := await ada.on("error"))["code"], error["id"]) == ("wrong_question", "a")
        await ada.say({"type": 1, "target": "Jump", "arguments": []})
        assert (await ada.on("error"))["code"] == "unknown_type"


async def test_resume_sends_missed_messages_as_invocations(make: MakeTransport) -> None:
    async with rig(make) as node, node.host() as host:
        async with hub(node) as ada:
            joined = await ada.result("Join", {"code": node.code, "name": "Ada"})
        await node.settle()
        await host.send(t="host", id="h", do="start")
        await host.expect("done")
        position = {name: joined[name] for name in ("code", "token", "epoch", "offset")}
        async with hub(node) as ada:
            again = await ada.result("Join", position)
            assert (again["player"], again["state"]) == (joined["player"], None)
            assert (await ada.on("question"))["number"] == 1


async def test_the_token_of_the_connection_joins_as_its_bearer(make: MakeTransport) -> None:
    async with rig(make) as node:
        async with hub(node, f"?access_token={node.host_token()}") as host:
            assert (await host.result("Join", {"code": node.code}))["role"] == "host"
        async with hub(node, "", f"Authorization: Bearer {node.host_token()}") as host:
            # A typed client sends what it does not know as null.
            assert (await host.result("Join", {"code": node.code, "token": None}))["role"] == "host"
        # A client that had no token and was sent on shows the one that stands for none.
        async with hub(node, "?access_token=anonymous") as client:
            assert (await client.invoke("Join", {"code": node.code}))["error"].startswith("missing_field: ")
        async with hub(node, "?access_token=wrong") as client:
            assert (await client.invoke("Join", {"code": node.code}))["error"].startswith("token_invalid: ")


async def test_a_user_of_an_app_has_one_seat_however_the_identity_comes(make: MakeTransport) -> None:
    now_s = int(time.time())
    ada = signed("ada@app", name="Ada", iat=now_s, exp=now_s + 600)
    expired = signed("ada@app", iat=now_s - 900, exp=now_s - 600)
    async with rig(make, **SETTINGS) as node:
        async with hub(node) as phone, hub(node, "", f"Authorization: Bearer {ada}") as laptop:
            joined = await phone.result("Join", {"code": node.code, "identity": ada})
            assert (joined["player"], joined["name"]) == (1, "Ada")
            assert (await laptop.result("Join", {"code": node.code}))["player"] == 1
            assert (await phone.closed())[0]["error"].startswith("replaced: ")
        async with hub(node, f"?access_token={ada}") as tablet:
            assert (await tablet.result("Join", {"code": node.code}))["player"] == 1
        for token, code in ((f"{ada[:-4]}AAAA", "identity_invalid"), (expired, "identity_expired")):
            async with hub(node) as client:
                ended = await client.invoke("Join", {"code": node.code, "identity": token})
                assert ended["error"].startswith(f"{code}: ")


async def test_leaving_is_completed_and_closed_for_good(make: MakeTransport) -> None:
    async with rig(make) as node, hub(node) as ada:
        await ada.result("Join", node.code, "Ada")
        assert await ada.invoke("Leave") == {"type": 3, "invocationId": "2"}
        assert await ada.closed() == ({"type": 7}, 4000)


async def test_a_close_message_ends_the_connection(make: MakeTransport) -> None:
    async with rig(make) as node, hub(node) as ada:
        await ada.result("Join", node.code, "Ada")
        await ada.say({"type": 7})
        await ada.closed()
        await node.until_connections(0)
        assert await node.subscribers() == 0


async def test_the_close_message_says_why_and_whether_to_come_back(make: MakeTransport) -> None:
    async with rig(make) as node, node.client() as newer, hub(node) as ada, hub(node) as ben:
        joined = await ada.result("Join", node.code, "Ada")
        await newer.send(t="join", code=node.code, token=joined["token"])
        replaced = {"type": 7, "error": "replaced: this token joined from somewhere else"}
        assert await ada.closed() == (replaced, 4001)
        await ben.result("Join", node.code, "Ben")
        node.serving.cancel()
        down = {"type": 7, "error": "shutdown: the node is going down", "allowReconnect": True}
        assert await ben.closed() == (down, 4010)


# -- calls that are refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "arguments", "error"),
    [
        ("Jump", [], "unknown_type: Jump is not a method of this hub"),
        ("Answer", [{"question": 1, "choice": 0}], "not_joined: "),
        ("Answer", [{"question": 1}], "missing_field: choice is missing"),
        ("Answer", [{"id": 7, "question": 1, "choice": 0}], "bad_field: id is text"),
        ("Answer", [1, 0, 2], "bad_message: Answer takes one object or question, choice."),
        ("Host", [{"do": "jump"}], "bad_field: do is one of"),
        ("Join", ["000000", "Ada"], "session_not_found: "),
        ("Join", [{"code": "000000", "nmae": "Ada"}], "unknown_field: nmae"),
        ("Watch", [], "missing_field: code is missing"),
        ("Next", [], "not_joined: "),
    ],
)
async def test_a_bad_call_is_completed_with_code_and_sentence(
    make: MakeTransport, target: str, arguments: list[Any], error: str
) -> None:
    async with rig(make) as node, hub(node) as ada:
        completion = await ada.invoke(target, *arguments)
        assert completion.keys() == {"type", "invocationId", "error"}
        assert completion["error"].startswith(error)
        assert (await ada.result("Join", node.code, "Ada"))["name"] == "Ada"
        assert (await ada.invoke("Join", node.code, "Ada"))["error"].startswith("already_joined: ")


async def test_streams_are_refused_and_what_belongs_to_one_is_ignored(make: MakeTransport) -> None:
    async with rig(make) as node, hub(node) as ada:
        await ada.say(
            {"type": 4, "target": "Counter", "arguments": [1], "invocationId": "s"},
            {"type": 5, "invocationId": "s"},
            {"type": 2, "invocationId": "s", "item": 1},
            {"type": 99},
        )
        assert (await ada.completion("s"))["error"].startswith("unknown_type: ")
        assert (await ada.result("Ping", 1))["at"] == 1


@pytest.mark.parametrize(
    "words",
    [
        b"{\x1e",
        b"[1]\x1e",
        b'{"type":"1"}\x1e',
        b'{"type":1,"target":"Ping"}\x1e',
        b'{"type":1,"target":"Ping","arguments":[],"invocationId":7}\x1e',
        b'{"type":4,"target":"Ping","arguments":[]}\x1e',
        b'{"type":9,"sequenceId":1}\x1e',
        b"\xff\x1e",
    ],
)
async def test_a_client_that_breaks_the_protocol_is_closed(make: MakeTransport, words: bytes) -> None:
    async with rig(make) as node, node.neighbour(), hub(node) as ada:
        await ada.raw.send_frame(words, 2)
        assert await ada.closed() == ({"type": 7, "error": "bad_frame: this is not the hub protocol"}, 1003)


async def test_a_mistake_in_the_hub_ends_one_connection(
    make: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a mistake")

    async with rig(make) as node, node.neighbour(), hub(node) as ada:
        monkeypatch.setattr(HubClient, "_hear", fail)
        await ada.say({"type": 6})
        close, code = await ada.closed()
        assert (close["error"].partition(":")[0], code) == ("failed", 1011)


async def test_an_id_of_a_call_that_waits_may_not_be_used_again(make: MakeTransport) -> None:
    async with rig(make) as node, hub(node) as ada:
        await ada.result("Join", node.code, "Ada")
        async with node.host() as host:
            await host.send(t="host", id="s", do="start")
            await ada.on("question")
        node.journal.fail()
        answer = {"type": 1, "target": "Answer", "arguments": [1, 0], "invocationId": "a"}
        await ada.say(answer, answer)
        assert (await ada.closed())[1] == 1003
        node.journal.heal()


@pytest.mark.parametrize(
    "words",
    [
        b'{"protocol":"xml","version":1}\x1e',
        b'{"protocol":"json","version":3}\x1e',
        b'{"type":6}\x1e',
        b"hello\x1e",
    ],
)
async def test_a_bad_handshake_is_answered_with_an_error(make: MakeTransport, words: bytes) -> None:
    async with rig(make) as node, node.raw() as raw:
        await raw.send(request(path="/hub"))
        await raw.response()
        await raw.send_frame(words)
        client = Hub(raw)
        assert (await client.hear()).keys() == {"error"}
        assert (await raw.expect(8)).close_code == 1003


async def test_no_handshake_ends_the_connection(make: MakeTransport) -> None:
    async with rig(make, join_timeout_s=0.1) as node, node.raw() as raw:
        await raw.send(request(path="/hub"))
        await raw.response()
        assert (await Hub(raw).hear()).keys() == {"error"}
        assert (await raw.expect(8)).close_code == 4008


# -- limits ------------------------------------------------------------------------------------------


async def test_many_small_messages_in_one_frame_count_each(make: MakeTransport) -> None:
    async with rig(make, messages_burst=20, messages_per_s=1) as node, node.neighbour(), hub(node) as ada:
        await ada.say(*[{"type": 6}] * 100)
        close, code = await ada.closed()
        assert (close["error"], close["allowReconnect"], code) == (
            "rate_limited: too many messages",
            True,
            4004,
        )


async def test_a_message_without_an_end_is_bounded(make: MakeTransport) -> None:
    async with rig(make) as node, node.neighbour(), hub(node) as ada:
        for _ in range(3):
            await ada.raw.send_frame(b"x" * 2000)
        assert (await ada.closed())[1] == 1009


def _call_of(protocol: str, size: int) -> bytes:
    """A call of about `size` bytes that is good but for that."""
    arguments = [{"code": "123456", "name": "x" * size}]
    if protocol == "messagepack":
        return packed(1, {}, "1", "Join", arguments, [])
    record = {"type": 1, "target": "Join", "arguments": arguments, "invocationId": "1"}
    return json.dumps(record).encode() + b"\x1e"


@pytest.mark.parametrize("protocol", ["json", "messagepack"])
@pytest.mark.parametrize("pieces", [[4200], [2500, 2500], [4000, 100, 100], [10] * 3 + [4090, 2000]])
async def test_a_message_that_is_too_large_is_told_so_however_it_comes(
    make: MakeTransport, protocol: str, pieces: list[int]
) -> None:
    async with rig(make) as node, node.neighbour(), node.raw() as raw:
        await raw.send(request(path="/hub"))
        await raw.response()
        opcode = 2 if protocol == "messagepack" else 1
        await raw.send_frame(json.dumps({"protocol": protocol, "version": 1}).encode() + b"\x1e")
        await raw.expect(opcode)
        words = _call_of(protocol, sum(pieces))
        for size in pieces[:-1]:
            await raw.send_frame(words[:size], opcode)
            words = words[size:]
        await raw.send_frame(words, opcode)
        if len(pieces) > 1:  # one frame alone the library of the other transport closes without a message
            assert b"too_large: the frame is larger" in (await raw.expect(opcode)).payload
        assert (await raw.expect(8)).close_code == 1009


async def test_calls_that_wait_for_their_replies_are_bounded(make: MakeTransport) -> None:
    async with rig(make, messages_burst=1000) as node, hub(node) as ada:
        await ada.result("Join", node.code, "Ada")
        async with node.host() as host:
            await host.send(t="host", id="s", do="start")
            await ada.on("question")
        node.journal.fail()
        for number in range(65):
            await ada.say({"type": 1, "target": "Answer", "arguments": [1, 0], "invocationId": f"a{number}"})
        assert (await ada.completion("a64"))["error"].startswith("busy: ")
        node.journal.heal()
        for number in range(64):
            assert (await ada.completion(f"a{number}"))["result"]["t"] == "ack"


async def test_who_may_come_in(make: MakeTransport) -> None:
    async with rig(make) as node:
        assert await status(node, "") == 101
        assert await status(node, "?id=made-up.signature") == 404
        assert await status(node, "", "Origin: https://evil.example") == 403
        assert await status(node, "", "Origin: http://other.example:5001") == 101
        assert await status(node, "s") == 404


# -- MessagePack -------------------------------------------------------------------------------------


def packed(*message: Any) -> bytes:
    data = msgspec.msgpack.encode(message)
    assert len(data) < 16_384
    head = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
    return head + data


def unpacked(data: bytes) -> list[list[Any]]:
    records = []
    while data:
        length = data[0] & 127
        at = 1
        if data[0] > 127:
            length |= data[1] << 7
            at = 2
            assert data[1] < 128
        records.append(msgspec.msgpack.decode(data[at : at + length]))
        data = data[at + length :]
    return records


async def test_messagepack(make: MakeTransport) -> None:
    async with rig(make) as node, node.host() as host, node.raw() as raw:
        await raw.send(request(path="/hub"))
        await raw.response()
        await raw.send_frame(b'{"protocol":"messagepack","version":1}\x1e')
        assert (await raw.expect(2)).payload == b"{}\x1e"
        join = packed(1, {}, "j", "Join", [{"code": node.code, "name": "Ada"}])
        await raw.send_frame(join[:7], 2)
        await raw.send_frame(join[7:] + packed(1, {}, "p", "Ping", [1], []) + packed(6), 2)
        heard: list[list[Any]] = []
        while [3, {}, "j", 3] not in (heads := [each[:4] for each in heard]):
            heard += unpacked((await raw.expect(2)).payload)
        joined = heard[heads.index([3, {}, "j", 3])][4]
        assert (joined["t"], joined["name"]) == ("joined", "Ada")
        await host.send(t="host", id="s", do="start")
        while heard[-1][3:4] != ["question"]:
            heard += unpacked((await raw.expect(2)).payload)
        assert [3, {}, "p", 3] in [each[:4] for each in heard]
        number, headers, invocation, target, (question,), streams = heard[-1]
        assert (number, headers, invocation, target, streams) == (1, {}, None, "question", [])
        assert question.keys() | {"correct"} == (await host.expect("question")).keys()
        await raw.send_frame(packed(1, {}, "x", "Jump", []), 2)
        while heard[-1][:4] != [3, {}, "x", 1]:
            heard += unpacked((await raw.expect(2)).payload)
        assert heard[-1][4].startswith("unknown_type: ")
        await raw.send_frame(packed(1, {}, "l", "Leave", [], []), 2)
        last: list[list[Any]] = []
        while not last or last[-1][0] != 7:
            last += unpacked((await raw.expect(2)).payload)
        assert ([3, {}, "l", 2] in last, last[-1]) == (True, [7, None, False])
        assert (await raw.expect(8)).close_code == 4000


@pytest.mark.parametrize(
    "words",
    [
        b"\xff\xff\xff\xff\xff\x01",
        b"\x00",
        b"\x01\xc1",
        packed("1"),
        packed(1, {}, None),
        packed(1, {}, None, "Join", [{"code": b"\x00"}]),
        packed(1, {}, None, "Join", [{7: "x"}]),
    ],
)
async def test_what_is_not_messagepack_is_closed_or_waited_for(make: MakeTransport, words: bytes) -> None:
    async with rig(make) as node, node.neighbour(), node.raw() as raw:
        await raw.send(request(path="/hub"))
        await raw.response()
        await raw.send_frame(b'{"protocol":"messagepack","version":1}\x1e')
        await raw.expect(2)
        await raw.send_frame(words + b"\x01\xc1", 2)
        assert (await raw.expect(2)).payload == packed(7, "bad_frame: this is not the hub protocol", False)
        assert (await raw.expect(8)).close_code == 1003


# -- signs of life -----------------------------------------------------------------------------------


async def test_a_client_that_says_nothing_is_pinged_and_then_let_go(
    make: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.realtime.hub.PING_INTERVAL_S", 0.05)
    async with rig(make) as node, hub(node) as ada:
        await ada.result("Join", node.code, "Ada")
        pings = 0
        while True:
            record = json.loads((await ada.raw.expect(1)).payload[:-1])
            pings += record == {"type": 6}
            if record.get("type") == 7:
                break
        assert pings >= 1
        assert record["error"] == "ping_timeout: no sign of life"
        assert record["allowReconnect"] is True
        await ada.raw.expect(8)


# -- negotiation: what is no WebSocket is the reactor's ----------------------------------------------


async def ask(
    node: Rig, method: str, target: str, *headers: str, body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    async with node.raw() as raw:
        lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers]
        await raw.send("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)
        status, *fields = (await raw.head()).decode().split("\r\n")
        names = {name.lower(): value for name, _, value in (each.partition(": ") for each in fields)}
        return int(status.split()[1]), names, await raw.rest()


async def post(
    node: Rig, target: str, *headers: str, method: str = "POST"
) -> tuple[int, dict[str, str], Any]:
    status, names, body = await ask(node, method, target, *headers)
    return status, names, json.loads(body) if body else None


async def test_negotiation_gives_an_id_that_connects() -> None:
    async with rig(ReactorTransport) as node:
        status_, _, agreed = await post(node, "/hub/negotiate?negotiateVersion=1")
        assert (status_, agreed["negotiateVersion"]) == (200, 1)
        assert agreed["availableTransports"][0] == {
            "transport": "WebSockets",
            "transferFormats": ["Text", "Binary"],
        }
        assert agreed["connectionId"] not in agreed["connectionToken"]
        async with hub(node, f"?id={agreed['connectionToken']}") as ada:
            await ada.result("Join", node.code, "Ada")
        assert await status(node, f"?id={agreed['connectionId']}") == 404
        assert await status(node, f"?id={agreed['connectionToken']}") == 404, "it has opened one"
        for query in ("", "?negotiateVersion=0", "?negotiateVersion=x"):
            older = (await post(node, f"/hub/negotiate{query}"))[2]
            assert "connectionToken" not in older
            assert await status(node, f"?id={older['connectionId']}") == 101
        assert (await post(node, "/hub/negotiate?negotiateVersion=7"))[2]["negotiateVersion"] == 1
        code, headers, _ = await post(node, "/hub/negotiate", method="GET")
        assert (code, headers["allow"]) == (405, "POST")
        code, headers, _ = await post(node, "/hub", method="PUT")
        assert (code, headers["allow"]) == (405, "GET, POST, DELETE")


async def test_a_page_of_an_allowed_origin_may_negotiate_with_credentials() -> None:
    async with rig(ReactorTransport) as node:
        origin = "Origin: http://other.example:5001"
        asks = "Access-Control-Request-Headers: x-requested-with,x-signalr-user-agent,authorization"
        code, headers, _ = await post(
            node, "/hub/negotiate", origin, "Access-Control-Request-Method: POST", asks, method="OPTIONS"
        )
        assert (code, "content-length" in headers) == (204, False)
        allowed = headers["access-control-allow-headers"].lower().split(", ")
        assert {"x-requested-with", "x-signalr-user-agent", "authorization"} <= set(allowed)
        for answer in (headers, (await post(node, "/hub/negotiate", origin))[1]):
            assert answer["access-control-allow-origin"] == "http://other.example:5001"
            assert answer["access-control-allow-credentials"] == "true"
        code, headers, _ = await post(node, "/hub/negotiate", "Origin: https://evil.example")
        assert (code, "access-control-allow-origin" in headers) == (403, False)


async def test_the_address_of_one_node_is_told_where_there_is_one() -> None:
    """Without a WebSocket a client sends several requests, which have to come to one node."""
    url = "wss://quiz.example/n/rt-1/ws"
    async with rig(ReactorTransport, public_ws_url=url, node="rt-1") as node:
        there = "https://quiz.example/n/rt-1/hub?node=rt-1"
        redirect = (await post(node, "/hub/negotiate?negotiateVersion=1"))[2]
        assert redirect == {"url": there, "accessToken": "anonymous"}
        redirect = (await post(node, "/hub/negotiate", "Authorization: Bearer mine"))[2]
        assert redirect == {"url": there, "accessToken": "mine"}
        agreed = (await post(node, "/hub/negotiate?node=rt-1&negotiateVersion=1"))[2]
        assert [each["transport"] for each in agreed["availableTransports"]] == [
            "WebSockets",
            "ServerSentEvents",
            "LongPolling",
        ]


# -- without a WebSocket -----------------------------------------------------------------------------


async def token_of(node: Rig) -> str:
    return str((await post(node, "/hub/negotiate?negotiateVersion=1"))[2]["connectionToken"])


def call(target: str, *arguments: Any, invocation: str = "0") -> bytes:
    words = {"type": 1, "target": target, "arguments": arguments, "invocationId": invocation}
    return json.dumps(words).encode() + b"\x1e"


async def poll(node: Rig, token: str) -> list[dict[str, Any]]:
    status, _, body = await ask(node, "GET", f"/hub?id={token}")
    assert status == 200
    return [json.loads(each) for each in body.split(b"\x1e")[:-1]]


async def test_long_polling() -> None:
    async with rig(ReactorTransport) as node:
        token = await token_of(node)
        target = f"/hub?id={token}"
        assert (await ask(node, "POST", target, body=HANDSHAKE))[0] == 404, "no connection yet"
        assert await poll(node, token) == []
        assert (await ask(node, "POST", target, body=HANDSHAKE))[0] == 200
        assert await poll(node, token) == [{}]
        heard: list[dict[str, Any]] = []
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                while not any(each.get("type") == 3 for each in heard):
                    heard.extend(await poll(node, token))

            nursery.start_soon(listen)
            await node.settle()
            await ask(node, "POST", target, body=call("Join", node.code, "Ada"))
        assert heard[0]["result"]["name"] == "Ada"
        assert await node.subscribers() == 1
        assert (await ask(node, "GET", target, "Accept: text/event-stream"))[0] == 409
        assert node.statistics.hub_polls == 1
        assert (await ask(node, "DELETE", target))[0] == 202
        await node.settle()
        assert await node.subscribers() == 0
        assert node.statistics.hub_polls == 0
        assert node.statistics.closed_total == {"left": 1}
        for method in ("DELETE", "GET", "POST"):
            assert (await ask(node, method, target))[0] == 404, "it does not live again"
        assert (await ask(node, "GET", target, "Accept: text/event-stream"))[0] == 404
        assert await status(node, f"?id={token}") == 404
        assert node.statistics.hub_polls == 0


async def test_a_poll_gets_the_close_and_then_the_end() -> None:
    async with rig(ReactorTransport) as node:
        token = await token_of(node)
        await poll(node, token)
        await ask(node, "POST", f"/hub?id={token}", body=HANDSHAKE + b"{\x1e")
        heard = await poll(node, token)
        assert heard == [{}, {"type": 7, "error": "bad_frame: this is not the hub protocol"}]
        code, headers, _ = await ask(node, "GET", f"/hub?id={token}")
        assert (code, "content-length" in headers) == (204, False)
        assert (await ask(node, "GET", f"/hub?id={token[:-1]}"))[0] == 404


async def test_a_client_that_stops_asking_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.realtime.reactor.hub_poll.LOOK_S", 0.02)
    monkeypatch.setattr("server.realtime.reactor.hub_poll.AWAY_S", 0.1)
    async with rig(ReactorTransport) as node:
        token = await token_of(node)
        await poll(node, token)
        await ask(node, "POST", f"/hub?id={token}", body=HANDSHAKE + call("Join", node.code, "Ada"))
        await node.until(lambda: node.statistics.closed_total == {"ping_timeout": 1})
        await node.settle()
        assert await node.subscribers() == 0
        assert (await ask(node, "POST", f"/hub?id={token}", body=b""))[0] == 404


async def test_what_waits_for_a_client_that_does_not_ask_is_bounded() -> None:
    async with rig(ReactorTransport, outbox_bytes_max=4096, messages_burst=10_000) as node:
        token = await token_of(node)
        await poll(node, token)
        target = f"/hub?id={token}"
        await ask(node, "POST", target, body=HANDSHAKE)
        while not node.statistics.closed_total:
            assert (await ask(node, "POST", target, body=call("Ping", 1) * 40))[0] == 200
        assert node.statistics.closed_total == {"slow_consumer": 1}
        heard = await poll(node, token)
        assert [each["type"] for each in heard] == [7]
        assert heard[0]["allowReconnect"] is True


async def test_connections_without_a_websocket_are_limited_by_address() -> None:
    async with rig(ReactorTransport, event_streams_per_address_max=2) as node:
        tokens = [await token_of(node) for _ in range(3)]
        for token in tokens[:2]:
            assert await poll(node, token) == []
        assert (await ask(node, "GET", f"/hub?id={tokens[2]}"))[0] == 429
        assert (await ask(node, "GET", f"/hub?id={tokens[2]}", "Accept: text/event-stream"))[0] == 429
        await ask(node, "DELETE", f"/hub?id={tokens[0]}")
        assert await poll(node, tokens[2]) == []


async def test_an_event_stream_and_the_end_of_the_node() -> None:
    async with rig(ReactorTransport) as node, node.raw() as raw:
        token = await token_of(node)
        await raw.send(
            f"GET /hub?id={token} HTTP/1.1\r\nHost: x\r\nX-Request-Id: r-1\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        head = await raw.head()
        assert b"text/event-stream" in head
        assert b"X-Request-Id: r-1" in head
        target = f"/hub?id={token}"
        assert (await ask(node, "GET", target, "Accept: text/event-stream"))[0] == 409
        await ask(node, "POST", target, body=HANDSHAKE + call("Join", node.code, "Ada"))
        await node.settle()
        assert (await node.subscribers(), node.statistics.event_streams) == (1, 1)
        polled = await token_of(node)
        await poll(node, polled)
        await ask(node, "POST", f"/hub?id={polled}", body=HANDSHAKE)
        assert await poll(node, polled) == [{}]
        async with trio.open_nursery() as nursery:

            async def hear_the_end() -> None:
                (close,) = await poll(node, polled)
                assert close["error"] == "shutdown: the node is going down"

            nursery.start_soon(hear_the_end)
            await node.settle()
            node.serving.cancel()
            words = (await raw.rest()).split(b"\n\n")
        assert words[:2] == [b":", b"data: {}\x1e"]
        assert json.loads(words[2].removeprefix(b"data: ")[:-1])["result"]["name"] == "Ada"
        close = json.loads(words[-2].removeprefix(b"data: ")[:-1])
        assert (close["type"], close["allowReconnect"]) == (7, True)


async def test_an_event_stream_carries_no_messagepack() -> None:
    async with rig(ReactorTransport) as node, node.raw() as raw:
        token = await token_of(node)
        await raw.send(
            f"GET /hub?id={token} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode()
        )
        await raw.head()
        await ask(node, "POST", f"/hub?id={token}", body=b'{"protocol":"messagepack","version":1}\x1e')
        assert b'data: {"error":' in await raw.rest()


async def test_a_hub_client_that_does_not_read_is_let_go(make: MakeTransport) -> None:
    limits = {"send_timeout_s": 0.2, "outbox_bytes_max": 4096, "messages_burst": 1_000_000}
    async with rig(make, **limits) as node, node.raw(receive_buffer=4096) as raw:
        await raw.send(request(path="/hub"))
        await raw.response()
        await raw.send_frame(HANDSHAKE)
        await raw.expect(1)
        ping = json.dumps({"type": 1, "target": "Ping", "arguments": [1], "invocationId": "p"}).encode()
        with trio.fail_after(5):
            while not node.statistics.closed_total:
                with trio.move_on_after(0.2):
                    await raw.send_frame((ping + b"\x1e") * 40)
        assert node.statistics.closed_total == {"slow_consumer": 1}
