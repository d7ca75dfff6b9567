"""The contract of a transport, against the real thing over loopback.

Every test of a bad client has a neighbour on the same port: a player who must go on as if nothing were.
A new transport is one more line in TRANSPORTS.
"""

from __future__ import annotations

import json
import logging
import re
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from engine.actors.close_reasons import CloseReason
from server.realtime import transport, trio_websocket
from server.realtime.conversation import Conversation
from server.realtime.reactor import listener
from server.realtime.reactor.transport import ReactorTransport
from server.realtime.trio_websocket import TrioWebSocketTransport
from tests.realtime.rig import MakeTransport, RawClient, Rig, frame, request, rig

TRANSPORTS: dict[str, MakeTransport] = {
    "trio-websocket": TrioWebSocketTransport,
    "reactor": ReactorTransport,
}


@pytest.fixture(params=list(TRANSPORTS))
def make(request: pytest.FixtureRequest) -> MakeTransport:
    return TRANSPORTS[request.param]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No client, however bad, is worth a warning in the log. Tests that expect one take it out."""
    yield
    records = caplog.get_records("call")
    assert [record.getMessage() for record in records if record.levelno >= logging.WARNING] == []


def wire(**message: Any) -> bytes:
    return frame(json.dumps(message).encode())


async def test_while_a_question_is_open_the_count_moves_and_not_the_board(make: MakeTransport) -> None:
    async with rig(make) as node, node.host() as host, node.client() as screen:
        await screen.send(t="join", code=node.code, role="spectator")
        await screen.expect("joined")
        async with node.player("Ada") as ada, node.player("Ben"):
            while (await screen.expect("leaderboard"))[
                "players"
            ] < 2:  # the lobby's last board comes a tick late
                pass
            await host.send(t="host", id="s", do="start")
            await screen.expect("question")
            await ada.send(t="answer", id="a", question=1, choice=0)
            assert (await ada.expect("ack")).keys() == {"t", "id", "question", "status", "elapsed_ms"}
            for each in (host, screen):
                told = {"t": "progress", "offset": 1, "number": 1, "answered": 1, "players": 2}
                assert await each.expect("progress") == told
            await host.send(t="host", id="c", do="close")
            heard = [await screen.receive() for _ in range(2)]
            assert [message["t"] for message in heard] == ["reveal", "leaderboard"]
            assert [line["score"] for line in heard[1]["top"]] == [1000, 0]


LONG_ANSWERED = wire(t="x" * 64)
"""A message whose answer is several times as long."""


async def try_to_send(raw: RawClient, data: bytes) -> None:
    """Send as much as the server takes."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await raw.send(data)


# -- a good client -----------------------------------------------------------------------------------


async def test_a_whole_session(make: MakeTransport) -> None:
    async with rig(make) as node, node.host() as host, node.player("Ada") as ada, node.client() as screen:
        await screen.send(t="join", code=node.code, role="spectator")
        assert (await screen.expect("joined"))["player"] is None
        for number in (1, 2, 3):
            await host.send(t="host", id=f"h-{number}", do="start" if number == 1 else "next")
            assert (await host.expect("done"))["id"] == f"h-{number}"
            question = await ada.expect("question")
            assert question["number"] == (await screen.expect("question"))["number"] == number
            assert "correct" not in question
            await ada.send(t="answer", id=f"a-{number}", question=number, choice=0)
            told = await ada.gather("ack", "result")
            assert (told["ack"]["id"], told["ack"]["status"]) == (f"a-{number}", "accepted")
            assert told["result"]["correct"] is True
        await host.send(t="host", id="h-4", do="finish")
        assert (await ada.expect("finished"))["you"]["rank"] == 1
        assert (await screen.expect("finished"))["podium"][0]["name"] == "Ada"


async def test_resume_after_a_lost_connection_sends_missed_frames(make: MakeTransport) -> None:
    async with rig(make) as node, node.host() as host:
        async with node.opened() as raw:
            await raw.send_message(t="join", code=node.code, name="Ada")
            joined = await raw.expect_message("joined")
        await node.settle()
        assert await node.subscribers() == 1
        await host.send(t="host", id="h", do="start")
        await host.expect("done")
        async with node.client() as ada:
            await ada.send(
                t="join",
                code=node.code,
                token=joined["token"],
                epoch=joined["epoch"],
                offset=joined["offset"],
            )
            again = await ada.receive()
            assert (again["t"], again["player"], again["state"]) == ("joined", joined["player"], None)
            assert (await ada.receive())["t"] == "question"


async def test_the_newer_of_two_connections_with_one_token_stays(make: MakeTransport) -> None:
    async with rig(make) as node, node.player("Ada") as older, node.client() as newer:
        await newer.send(t="join", code=node.code, token=older.joined["token"])
        await newer.expect("joined")
        assert await older.ended() == (4001, "replaced")
        await newer.ping()
        assert await node.subscribers() == 1


async def test_leaving_closes_with_the_right_code(make: MakeTransport) -> None:
    async with rig(make) as node, node.neighbour(), node.player("Ada") as ada:
        await ada.send(t="leave")
        assert await ada.ended() == (4000, "left")
        await node.settle()
        assert await node.subscribers() == 1


async def test_the_subprotocol_is_confirmed_when_asked_for(make: MakeTransport) -> None:
    async with rig(make) as node:
        async with node.client(subprotocols=["chat", "fanfare.v1"]) as client:
            assert client.websocket.subprotocol == "fanfare.v1"
            await client.ping()
        async with node.client() as client:
            assert client.websocket.subprotocol is None


async def test_no_extension_is_agreed_on(make: MakeTransport) -> None:
    async with rig(make) as node, node.raw() as raw:
        await raw.send(request("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"))
        assert b"permessage-deflate" not in await raw.head()


async def test_frames_may_come_in_any_pieces(make: MakeTransport) -> None:
    async with rig(make) as node, node.opened() as raw:
        for byte in wire(t="ping", at=1):
            await raw.send(bytes([byte]))
        await raw.send(wire(t="ping", at=2) + wire(t="ping", at=3))
        text = b'{"t":"ping","at":4}'
        await raw.send(frame(text[:5], 1, fin=False) + frame(b"are you there?", 9))
        await raw.send(frame(text[5:9], 0, fin=False) + frame(text[9:], 0))
        frames = [await raw.receive_frame() for _ in range(5)]
        assert [frame.message["at"] for frame in frames if frame.opcode == 1] == [1, 2, 3, 4]
        assert [frame.payload for frame in frames if frame.opcode == 10] == [b"are you there?"]


async def test_a_close_frame_is_answered(make: MakeTransport) -> None:
    async with rig(make) as node, node.neighbour(), node.opened() as raw:
        await raw.send(frame(b"\x03\xe8", 8))
        assert (await raw.receive_frame()).close_code == 1000
        assert await raw.rest() == b""


async def test_a_client_that_vanishes_gives_its_seat_back(make: MakeTransport) -> None:
    async with rig(make) as node, node.neighbour():
        async with node.opened() as raw:
            await raw.send_message(t="join", code=node.code, name="Ada")
            await raw.expect_message("joined")
            assert await node.subscribers() == 2
        await node.settle()
        assert await node.subscribers() == 1
        assert node.statistics.connections == 1


async def test_what_is_counted(make: MakeTransport) -> None:
    async with rig(make) as node:
        async with node.client() as client:
            await client.ping()
            await client.ping()
            counted = node.statistics
            assert (counted.connections, counted.accepted_total, counted.closed_total) == (1, 1, {})
            assert (counted.messages_in_total, counted.frames_out_total) == (2, 2)
            assert 60 < counted.bytes_out_total < 200
        async with node.player("Ada") as ada:
            await ada.send(t="leave")
            await ada.ended()
        assert (await refused(node, request("Origin: https://evil.example")))[0] == 403
        await node.settle()
        counted = node.statistics
        assert (counted.connections, counted.accepted_total) == (0, 2)
        assert counted.closed_total == {"peer_closed": 1, "left": 1}
        assert counted.refused_total == {"origin_refused": 1}


# -- messages that are not understood ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "code", "path"),
    [
        ("{", "bad_json", None),
        ("[" * 4000, "bad_json", None),
        ("[1,2]", "bad_message", None),
        ('{"t":"jion"}', "unknown_type", "t"),
        ('{"t":"ping","at":1,"tiem":2}', "unknown_field", "tiem"),
        ('{"t":"answer","id":"a","question":1,"choice":0}', "not_joined", None),
    ],
)
async def test_a_bad_message_is_answered_and_forgiven(
    make: MakeTransport, raw: str, code: str, path: str | None
) -> None:
    async with rig(make) as node, node.neighbour(), node.client() as client:
        await client.send_raw(raw)
        error = await client.receive()
        assert (error["t"], error["code"], error.get("path")) == ("error", code, path)
        await client.join(node.code, "Ada")


async def test_a_binary_frame_ends_the_connection_after_an_error(make: MakeTransport) -> None:
    async with rig(make) as node, node.neighbour(), node.client() as client:
        await client.send_raw(b'{"t":"leave"}')
        assert (await client.receive())["code"] == "bad_message"
        assert await client.ended() == (1003, "bad_frame")


async def test_a_frame_of_a_megabyte_ends_the_connection_with_its_code(make: MakeTransport) -> None:
    async with rig(make) as node, node.neighbour(), node.opened() as raw:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(try_to_send, raw, frame(b"x" * 1_000_000))
            assert (await raw.receive_frame()).close_code == 1009
            assert await raw.rest() == b""
        await node.settle()
        assert node.statistics.closed_total == {"too_large": 1}


async def test_so_do_many_small_pieces_of_a_message_that_is_too_large(make: MakeTransport) -> None:
    async with rig(make) as node, node.neighbour(), node.opened() as raw:
        await raw.send(frame(b"x" * 1000, 1, fin=False) + frame(b"x" * 1000, 0, fin=False) * 4)
        assert (await raw.expect(8)).close_code == 1009


async def test_the_limit_is_in_bytes_and_exact(make: MakeTransport) -> None:
    async with rig(make) as node, node.neighbour(), node.client() as client:
        fits = json.dumps({"t": "leave", "x": ""}, separators=(",", ":"))
        fits = fits.replace('""', '"' + "é" * ((4096 - len(fits)) // 2) + '"')
        assert 4094 < len(fits.encode()) <= 4096
        await client.send_raw(fits)
        assert (await client.receive())["code"] == "unknown_field"
        await client.send_raw(fits + "  ")
        assert (await client.ended())[0] == 1009


@pytest.mark.parametrize(
    ("data", "codes"),
    [
        (frame(b"{}", 1, masked=False), {1002}),
        (frame(b"{}", 3), {1002}),
        (frame(b"{}", 0), {1002}),
        (frame(b"x" * 126, 9), {1002}),
        (frame(b"", 9, fin=False), {1002}),
        (b"\xc1\x80" + bytes(4), {1002}),
        (frame(b"\xff\xfe", 1), {1007}),
        (frame(b"\x03", 8), {1002}),
        (frame(b"\x03\xe8\xff", 8), {1007}),
        (b"\x81\xff" + b"\xff" * 8 + bytes(4), {1002, 1009}),
    ],
    ids=[
        "unmasked",
        "opcode",
        "continuation",
        "long-ping",
        "split-ping",
        "rsv",
        "utf8",
        "close",
        "why",
        "length",
    ],
)
async def test_broken_framing_ends_the_connection_with_its_code(
    make: MakeTransport, data: bytes, codes: set[int]
) -> None:
    async with rig(make) as node, node.neighbour(), node.opened() as raw:
        await raw.send(data)
        assert (await raw.expect(8)).close_code in codes
        assert await raw.rest() == b""


async def test_messages_after_the_end_are_not_heard(make: MakeTransport) -> None:
    async with rig(make) as node, node.neighbour(), node.opened() as raw:
        await raw.send(wire(t="leave") + wire(t="join", code=node.code, name="Ada"))
        assert (await raw.receive_frame()).close_code == 4000
        await try_to_send(raw, frame(b"still there?", 9) + wire(t="ping", at=1))
        assert await raw.rest() == b""
        await node.settle()
        assert await node.subscribers() == 1


# -- joins that are not granted ----------------------------------------------------------------------


@pytest.mark.parametrize("ttl_s", [60])
async def test_forged_and_expired_tokens(make: MakeTransport, ttl_s: int) -> None:
    async with rig(make, token_ttl_s=ttl_s) as node, node.neighbour(), node.client() as client:
        token = node.host_token()
        forged = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
        await client.send(t="join", code=node.code, token=forged)
        assert (await client.receive())["code"] == "token_invalid"
        await client.send(t="join", code="999999", token=token)
        assert (await client.receive())["code"] == "token_invalid"
        await client.send(t="join", code=node.code, token=node.old_token(ttl_s + 2))
        assert (await client.receive())["code"] == "token_expired"
        await client.send(t="join", code=node.code, token=token)
        assert (await client.expect("joined"))["role"] == "host"


async def test_a_name_of_ten_thousand_characters(make: MakeTransport) -> None:
    async with rig(make, frame_bytes_max=16_384) as node, node.neighbour(), node.client() as client:
        await client.send(t="join", code=node.code, name="x" * 10_000)
        assert (await client.receive())["code"] == "name_too_long"
        await client.join(node.code, "x")


async def test_which_by_default_is_a_frame_too_large(make: MakeTransport) -> None:
    async with rig(make) as node, node.neighbour(), node.client() as client:
        await client.send(t="join", code=node.code, name="x" * 3_000)
        assert (await client.receive())["code"] == "name_too_long"
        await client.send(t="join", code=node.code, name="x" * 10_000)
        assert (await client.ended())[0] == 1009


async def test_unknown_codes_end_with_the_attempts(make: MakeTransport) -> None:
    async with rig(make, attempts_per_min=3) as node, node.neighbour(), node.client() as client:
        for code in ("700001", "700002", "700003"):
            await client.send(t="join", code=code, name="Eve")
            assert (await client.receive())["code"] == "session_not_found"
        await client.send(t="join", code="700004", name="Eve")
        assert (await client.receive())["code"] == "too_many_attempts"
        assert await client.ended() == (4005, "too_many_attempts")


async def test_wrong_codes_do_not_keep_others_of_the_address_out_of_a_session_that_it_is_in(
    make: MakeTransport,
) -> None:
    async with rig(make, attempts_per_min=1) as node, node.client() as first:
        await first.send(t="join", code=node.code, name="Ada")
        await first.expect("joined")
        for code in ("700001", "700002", "700003"):
            async with node.client() as guesser:
                await guesser.send(t="join", code=code, name="Eve")
                assert (await guesser.receive())["t"] == "error"
        async with node.client() as second:
            await second.send(t="join", code=node.code, name="Ben")
            await second.expect("joined")


async def test_attempts_count_for_the_client_s_address_behind_the_proxy(make: MakeTransport) -> None:
    async with rig(make, attempts_per_min=1, proxy_hops=1) as node:
        for address, codes in (
            ("203.0.113.1", ["session_not_found", "too_many_attempts"]),
            ("203.0.113.2", ["session_not_found"]),
        ):
            async with node.client(f"X-Forwarded-For: 198.51.100.1, {address}") as client:
                for number, code in enumerate(codes):
                    await client.send(t="join", code=f"70000{number}", name="Eve")
                    assert (await client.receive())["code"] == code


# -- clients that take too much or too little --------------------------------------------------------


async def test_ten_thousand_messages_a_second_get_one_error_and_the_end(make: MakeTransport) -> None:
    async with rig(make) as node, node.neighbour(), node.opened() as raw:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(try_to_send, raw, wire(t="ping", at=1) * 10_000)
            pongs = 0
            while (message := (await raw.receive_frame()).message)["t"] == "pong":
                pongs += 1
            assert 60 <= pongs < 100
            assert message["code"] == "rate_limited"
            assert (await raw.receive_frame()).close_code == 4004
            nursery.cancel_scope.cancel()
        await node.until(lambda: node.statistics.connections == 1)
        assert node.statistics.messages_in_total < 200


@pytest.mark.parametrize(
    "limits",
    [{"outbox_bytes_max": 4096}, {"outbox_bytes_max": 16_777_216, "send_timeout_s": 0.3}],
    ids=["past-the-bound", "past-the-time"],
)
async def test_a_client_that_never_reads_is_let_go(make: MakeTransport, limits: dict[str, Any]) -> None:
    limits = {"messages_per_s": 1_000_000, "messages_burst": 1_000_000, "send_timeout_s": 1.0} | limits
    async with rig(make, **limits) as node, node.neighbour(), node.opened(receive_buffer=4096) as raw:
        await raw.send_message(t="join", code=node.code, name="Ada")
        await raw.expect_message("joined")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(try_to_send, raw, LONG_ANSWERED * 2_000)
            await node.until(lambda: node.statistics.connections == 1)
            nursery.cancel_scope.cancel()
        assert node.statistics.closed_total == {"slow_consumer": 1}
        assert await node.subscribers() == 1


async def test_a_client_that_answers_no_ping_is_let_go(make: MakeTransport) -> None:
    async with (
        rig(make, ping_interval_s=0.1, ping_timeout_s=0.4) as node,
        node.neighbour(),
        node.opened() as raw,
    ):
        await raw.send_message(t="join", code=node.code, name="Ada")
        assert (await raw.expect(9)).opcode == 9
        end = await raw.expect(8)
        assert (end.close_code, end.payload[2:]) == (4007, b"ping_timeout")
        await raw.rest()
        await node.settle()
        assert await node.subscribers() == 1


async def test_a_client_that_answers_pings_stays(make: MakeTransport) -> None:
    async with rig(make, ping_interval_s=0.1, ping_timeout_s=0.4) as node, node.opened() as raw:
        await raw.send_message(t="join", code=node.code, name="Ada")
        for _ in range(4):
            await raw.send(frame((await raw.expect(9)).payload, 10))
        await raw.send_message(t="ping", at=1)
        await raw.expect_message("pong")


@pytest.mark.parametrize(
    "flood",
    [
        frame(b"", 1, fin=False) + frame(b"", 0, fin=False) * 60_000,
        frame(b"", 9) * 60_000,
        frame(b"x", 10) * 60_000,
        (frame(b" ", 1, fin=False) + frame(b"", 9) + frame(b"{}", 0)) * 20_000,
    ],
    ids=["fragments", "pings", "pongs", "messages-in-pieces"],
)
async def test_frames_that_say_nothing_count_as_messages(make: MakeTransport, flood: bytes) -> None:
    async with rig(make) as node, node.neighbour(), node.opened() as raw, trio.open_nursery() as nursery:
        nursery.start_soon(try_to_send, raw, flood)
        while (wire := await raw.receive_frame()).opcode in (1, 10):
            last = wire
        assert wire.close_code == CloseReason.RATE_LIMITED.code
        assert last.message["code"] == "rate_limited"
        await node.until(lambda: node.statistics.connections == 1)
        assert node.statistics.closed_total == {"rate_limited": 1}
        nursery.cancel_scope.cancel()


async def test_a_few_pieces_and_pings_are_no_hurry(make: MakeTransport) -> None:
    async with rig(make, messages_burst=12, messages_per_s=0.1) as node, node.opened() as raw:
        message = json.dumps({"t": "join", "code": node.code, "name": "Ada"}).encode()
        pieces = [frame(b"", 1, fin=False), *(frame(b"", 0, fin=False) for _ in range(4)), frame(message, 0)]
        await raw.send(frame(b"", 9).join(pieces))
        joined = (await raw.expect(1)).message
        assert joined["t"] == "joined"
        await raw.send(wire(t="ping", at=1))
        assert (await raw.expect_message("pong"))["at"] == 1
        await raw.send(wire(t="ping", at=2))
        assert (await raw.expect(1)).message["code"] == "rate_limited"


async def test_a_client_that_only_answers_pings_stays_for_ever(
    make: MakeTransport, autojump_clock: trio.testing.MockClock
) -> None:
    """A screen that nobody touches for a night: pongs are no messages, and no hurry either."""
    settings: dict[str, Any] = {"frame_bytes_max": 512, "messages_burst": 1, "messages_per_s": 0.1}
    async with rig(make, ping_interval_s=2, patience_s=1e6, **settings) as node, node.opened() as raw:
        await raw.send_message(t="join", code=node.code, role="spectator")
        await raw.expect_message("joined")
        for _ in range(1_500):
            await raw.send(frame((await raw.expect(9)).payload, 10))
        assert node.statistics.closed_total == {}
        assert await node.subscribers() == 1


async def test_random_bytes_harm_nobody(make: MakeTransport) -> None:
    random = Random(20_24)
    async with rig(make, messages_burst=1_000, attempts_per_min=1_000) as node, node.neighbour():
        for _ in range(60):
            async with node.raw() as raw:
                if random.random() < 0.7:
                    await raw.open()
                    data = b"".join(
                        frame(
                            random.randbytes(random.randrange(8)),
                            random.randrange(16),
                            fin=random.random() < 0.8,
                        )
                        for _ in range(random.randrange(1, 6))
                    )
                else:
                    data = bytearray(
                        request("Origin: http://127.0.0.1", "Sec-WebSocket-Protocol: fanfare.v1")
                    )
                    for _ in range(random.randrange(1, 5)):
                        data[random.randrange(len(data))] = random.randrange(256)
                await raw.send(bytes(data))
                await node.settle()
        await node.until(lambda: node.statistics.connections == 1)


# -- handshakes that lead nowhere --------------------------------------------------------------------


async def refused(node: Rig, data: bytes) -> tuple[int, str | None]:
    """The status, and the code in the body if there is one."""
    async with node.raw() as raw:
        await raw.send(data)
        status, body = await raw.response()
        return status, json.loads(body)["error"]["code"] if body else None


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"POST /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\n\r\nabc",
        b"HELO quiz.example\r\n\r\n",
        b"\r\n" * 5_000,
        b"GET /ws HTTP/1.1\r\n" + b"X: " + b"x" * 100_000 + b"\r\n\r\n",
        request("Upgrade: h2c"),
        request(host="\xff\xfe.example"),
        request("Sec-WebSocket-Protocol: caf\xe9"),
    ],
    ids=["tls", "plain-get", "post", "smtp", "blank-lines", "long-header", "upgrade", "idna", "non-ascii"],
)
async def test_what_is_no_handshake_is_a_bad_request(make: MakeTransport, garbage: bytes) -> None:
    async with rig(make) as node, node.neighbour(), node.raw() as raw, trio.open_nursery() as nursery:
        nursery.start_soon(try_to_send, raw, garbage)
        assert (await raw.response())[0] in (400, 405, 431)


async def test_half_a_handshake_and_then_silence(make: MakeTransport) -> None:
    async with rig(make, join_timeout_s=0.5) as node, node.neighbour():
        assert await refused(node, request()[:60]) == (408, "join_timeout")
        assert node.statistics.refused_total == {"join_timeout": 1}


async def test_no_handshake_at_all(make: MakeTransport) -> None:
    async with rig(make, join_timeout_s=0.5) as node, node.neighbour():
        assert (await refused(node, b""))[0] == 408
        async with node.raw():
            pass


async def test_a_handshake_and_then_silence(make: MakeTransport) -> None:
    async with rig(make, join_timeout_s=0.5) as node, node.neighbour(), node.opened() as raw:
        end = await raw.receive_frame()
        assert (end.close_code, end.payload[2:]) == (4008, b"join_timeout")


async def test_a_silent_client_that_answers_no_ping_is_late_all_the_same(make: MakeTransport) -> None:
    async with rig(make, join_timeout_s=0.5, ping_interval_s=0.1) as node, node.opened() as raw:
        await raw.expect(9)
        assert (await raw.expect(8)).close_code == 4008


async def test_a_join_that_waits_for_the_database_is_not_late(make: MakeTransport) -> None:
    async with rig(make, join_timeout_s=0.3, ping_interval_s=0.1) as node, node.client() as client:
        node.journal.fail()
        await client.send(t="join", code=node.code, name="Ada")
        with trio.move_on_after(0.6):
            await client.websocket.get_message()
            pytest.fail("something came before the join was committed")
        node.journal.heal()
        assert (await client.expect("joined"))["name"] == "Ada"


async def test_a_join_that_nobody_answers_is_given_up(
    make: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "JOIN_REPLY_S", 0.2)
    async with rig(make, join_timeout_s=0.2) as node, node.client() as client:
        node.journal.fail()
        await client.send(t="join", code=node.code, name="Ada")
        assert (await client.receive())["code"] == "busy"
        assert await client.ended() == (4011, "restarting")
        assert await node.subscribers() == 0
        node.journal.heal()
        await node.settle()
        assert await node.subscribers() == 0


async def test_a_handshake_a_byte_at_a_time_is_as_late(make: MakeTransport) -> None:
    async with rig(make, join_timeout_s=0.5) as node, node.neighbour(), node.raw() as raw:

        async def drip() -> None:
            for byte in request() * 1000:
                await try_to_send(raw, bytes([byte]))
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            assert (await raw.response())[0] == 408
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (request("Origin: https://evil.example"), (403, "origin_refused")),
        (request("Origin: null"), (403, "origin_refused")),
        (request(path="/"), (404, "not_found")),
        (request(path="/ws/../etc/passwd"), (404, "not_found")),
        (request("Sec-WebSocket-Protocol: chat, fanfare.v2"), (400, "subprotocol_refused")),
    ],
)
async def test_a_refused_client_is_told_why(
    make: MakeTransport, data: bytes, answer: tuple[int, str]
) -> None:
    async with rig(make) as node, node.neighbour():
        assert await refused(node, data) == answer
        assert node.statistics.refused_total == {answer[1]: 1}


@pytest.mark.parametrize(
    "origin",
    [
        "http://127.0.0.1:5001",
        "https://quiz.example",
        "https://play.example",
        "http://other.example:5001",
    ],
)
async def test_pages_that_may_come_in(make: MakeTransport, origin: str) -> None:
    settings: dict[str, Any] = {
        "allowed_origins": ("https://quiz.example",),
        "public_url": "https://play.example",
    }
    async with rig(make, **settings) as node, node.client(f"Origin: {origin}") as client:
        await client.ping()


@pytest.mark.parametrize("sent", ["mine", None])
@pytest.mark.parametrize(
    ("settings", "path", "status"),
    [
        ({}, "/ws", 101),
        ({}, "/hub", 101),
        ({}, "/", 404),
        ({"connections_max": 1}, "/ws", 503),
        ({"connections_per_address_max": 1}, "/ws", 429),
        ({"connections_per_address_max": 1}, "/hub", 429),
    ],
)
async def test_every_answer_to_a_handshake_has_the_request_s_id(
    make: MakeTransport,
    sent: str | None,
    settings: dict[str, Any],
    path: str,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with rig(make, **settings) as node, node.client(), node.raw() as raw:
        await raw.send(request(*([f"X-Request-Id: {sent}"] if sent else []), path=path))
        [first, *headers] = (await raw.head()).decode().split("\r\n")
        assert int(first.split()[1]) == status
        [id_] = [each[14:] for each in headers if each.lower().startswith("x-request-id: ")]
        assert id_ == sent if sent else re.fullmatch("[0-9a-f]{16}", id_)
    if status == 429:
        assert "more are refused" in caplog.text
        caplog.clear()


async def test_a_full_node_says_so(make: MakeTransport) -> None:
    async with rig(make, connections_max=2) as node, node.neighbour():
        async with node.client():
            assert await refused(node, request()) == (503, "busy")
        await node.settle()
        async with node.client() as client:
            await client.ping()


async def test_the_silent_count_for_their_address(
    make: MakeTransport, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (listener, trio_websocket):
        monkeypatch.setattr(module, "REFUSED_AT_ONCE_MAX", 1)
    settings: dict[str, Any] = {"connections_per_address_max": 2, "connections_per_address_per_s": 1_000_000}
    async with rig(make, **settings) as node, node.raw() as silent, node.raw():  # none comes too fast
        await node.until(lambda: node.statistics.connections == 2)
        async with node.raw() as third:
            await node.until(lambda: node.statistics.connections == 3)
            async with node.raw() as fourth:
                assert await fourth.rest() == b""
            await third.send(request())
            status, body = await third.response()
            assert (status, json.loads(body)["error"]["code"]) == (429, "too_many_connections")
        assert node.statistics.refused_total["too_many_connections"] == 2
        await silent.stream.aclose()
        await node.until(lambda: node.statistics.connections == 1)
        async with node.client() as client:
            await client.ping()
    caplog.clear()


async def test_an_address_that_reconnects_again_and_again_is_slowed_down(
    make: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (listener, trio_websocket):
        monkeypatch.setattr(module, "REFUSED_AT_ONCE_MAX", 0)
    settings: dict[str, Any] = {"connections_per_address_max": 3, "connections_per_address_per_s": 0.1}
    async with rig(make, **settings) as node:
        for _ in range(3):
            async with node.client() as client:
                await client.ping()
            await node.until(lambda: node.statistics.connections == 0)
        async with node.raw() as raw:
            assert await raw.rest() == b""
        assert node.statistics.refused_total == {"too_many_connections": 1}


async def test_one_address_cannot_take_the_whole_node(
    make: MakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"connections_per_address_max": 2, "proxy_hops": 1}
    async with rig(make, **settings) as node, node.client("X-Forwarded-For: 203.0.113.1") as one:
        async with node.client("X-Forwarded-For: 203.0.113.1"):
            third = request("X-Forwarded-For: 203.0.113.1")
            assert await refused(node, third) == (429, "too_many_connections")
            async with node.client("X-Forwarded-For: 203.0.113.2") as other:
                await other.ping()
        await node.until(lambda: node.statistics.connections == 1)
        async with node.client("X-Forwarded-For: 203.0.113.1") as again:
            await again.ping()
        await one.ping()
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "203.0.113.1 has 2 connections" in record.getMessage()
    caplog.clear()


# -- the server's own trouble ------------------------------------------------------------------------


async def test_a_mistake_of_ours_costs_one_connection(
    make: MakeTransport, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    receive = Conversation.receive

    def faulty(self: Conversation, raw: str | bytes) -> None:
        if "boom" in str(raw):
            raise ZeroDivisionError("boom")
        receive(self, raw)

    monkeypatch.setattr(Conversation, "receive", faulty)
    async with rig(make) as node, node.neighbour(), node.player("Ada") as ada:
        await ada.send(t="boom")
        assert await ada.ended() == (CloseReason.FAILED.code, "failed")
        await node.settle()
        assert await node.subscribers() == 1
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    caplog.clear()


async def test_at_shutdown_everybody_is_told(make: MakeTransport) -> None:
    async with rig(make) as node, node.player("Ada") as ada, node.client() as stranger, node.raw() as half:
        await half.send(request()[:60])
        await node.settle()
        await node.stop()
        assert await ada.ended() == (4010, "shutdown")
        assert await stranger.ended() == (4010, "shutdown")
        assert (await half.response())[0] == 503
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", node.port)
        assert node.statistics.connections == 0


async def test_a_client_that_does_not_read_does_not_delay_the_shutdown(make: MakeTransport) -> None:
    limits = {"messages_per_s": 1_000_000, "messages_burst": 1_000_000}
    async with (
        rig(make, **limits) as node,
        node.opened(receive_buffer=4096) as raw,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(try_to_send, raw, LONG_ANSWERED * 1_000)
        await node.settle()
        with trio.fail_after(transport.SHUTDOWN_S + transport.PARTING_S + 0.5):
            await node.stop()
        nursery.cancel_scope.cancel()


async def test_frames_that_were_pushed_before_the_end_arrive_before_it(make: MakeTransport) -> None:
    async with rig(make) as node, node.opened() as raw:
        await raw.send(b"".join(wire(t="ping", at=at) for at in range(30)) + frame(b"x", 2))
        for at in range(30):
            assert (await raw.receive_frame()).message["at"] == at
        assert (await raw.receive_frame()).message["code"] == "bad_message"
        assert (await raw.receive_frame()).close_code == 1003


# -- TLS, for transports that have it in process -----------------------------------------------------


async def test_tls_in_process(certificate: tuple[Path, Path]) -> None:
    chain, key = certificate
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(chain, key)
    async with rig(TrioWebSocketTransport, ssl_context=server) as node:
        node.client_ssl = ssl.create_default_context(cafile=chain)
        async with node.neighbour(), node.player("Ada") as ada:
            async with node.raw() as plain:
                await plain.send(request())
                await plain.rest()
            async with node.raw():
                await node.settle()
            await ada.send(t="leave")
            assert await ada.ended() == (4000, "left")
