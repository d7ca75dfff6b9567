"""Plain HTTP on the reactor's port: the same rules as on the API's, at the price of a WebSocket."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from operator import attrgetter
from typing import Any

import httpx
import pytest
import trio
import trio.lowlevel
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.actors import confirmations, slow_answers
from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame, Message
from engine.actors.slow_answers import SlowAnswer
from engine.trace import Trace
from server.http.services import Directory
from server.realtime import transport
from server.realtime.conversation import ConversationDeps
from server.realtime.reactor import event_stream, exchange, first_reply
from server.realtime.reactor.request import Malformed, Request, RequestReader, TooLarge
from server.realtime.reactor.transport import ReactorTransport
from server.runtime.logs import OfRequest
from server.runtime.request_times import together
from server.runtime.tracing import Tracing
from server.security.authentication import Guard
from server.wire.sse import EventDialect
from tests.http.edge import Edge, Played, edge
from tests.http.events import EventReader
from tests.http.test_cluster_api import FakeCluster, member
from tests.odd_requests import ODD
from tests.realtime.rig import PATIENCE_S, ListeningPort, RawClient
from tests.realtime.rig import request as handshake
from tests.refusals import ANSWERS, HTTP_ONLY
from tests.traced import SPAN_ID, TRACE_ID, TRACEPARENT, Traced


class Ports(Edge, ListeningPort):
    """An edge whose sessions are reached over the reactor's port as well."""

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pages(self) -> list[str]:
        return [member.http_url for member in self.services.members()]

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        token: str | None = None,
        last_event_id: str | None = None,
        buffer: int | None = None,
    ) -> AsyncIterator[EventReader]:
        """An open event stream."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        async with self.raw(buffer) as raw:
            await raw.send(request("GET", f"{url}/events", headers))
            head = await raw.head()
            assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head + await raw.rest()
            assert b"\r\nContent-Type: text/event-stream; charset=utf-8\r\n" in head
            yield EventReader(partial(self._more, raw))

    @staticmethod
    async def _more(raw: RawClient) -> bytes:
        if raw._received:
            data, raw._received = raw._received, b""
            return data
        with trio.fail_after(PATIENCE_S):
            return bytes(await raw.stream.receive_some())


@asynccontextmanager
async def ports(
    sessions: Callable[[Edge], Directory] = attrgetter("router"),
    tracing: Tracing | None = None,
    **config: Any,
) -> AsyncIterator[Ports]:
    """Args: sessions: where the port finds them."""
    async with edge(**config) as e:
        if tracing is not None:
            e.but(tracing=tracing)
        e.__class__ = Ports  # what `edge` has made, with another port in front of it
        assert isinstance(e, Ports)
        limits = e.config.messages_per_s, e.config.messages_burst
        deps = ConversationDeps(
            sessions(e),
            e.tokens,
            e.clock,
            e.services.attempts,
            *limits,
            pages=e.pages,
            identities=e.services.identities,
            tracing=e.services.tracing,
        )
        ListeningPort.__init__(e, ReactorTransport(deps, e.config))
        async with trio.open_nursery() as nursery:
            await nursery.start(e.serve)
            with trio.fail_after(30):
                yield e
            await e.stop()


def client_of(e: Ports, **more: Any) -> httpx.AsyncClient:
    """Without the certificates of the world: to load them takes longer than all else of a test."""
    return httpx.AsyncClient(base_url=e.base, verify=False, **more)


def request(method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answer(session: Played, token: str, choice: object = 0, id: str = "a", question: int = 1) -> bytes:  # noqa: A002 - the protocol's word
    body = json.dumps({"id": id, "question": question, "choice": choice}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return request("POST", f"{session.url}/answers", headers, body)


async def read_response(raw: RawClient, request_id: str = "") -> tuple[int, Any]:
    head = (await raw.head()).decode().split("\r\n")
    assert len([line for line in head if line.startswith(f"X-Request-Id: {request_id}")]) == 1
    lengths = [int(line.partition(": ")[2]) for line in head if line.startswith("Content-Length: ")]
    body = await raw._take(lengths[0])
    return int(head[0].split()[1]), json.loads(body.removesuffix(b"\x1e")) if body else None


# -- one set of rules ----------------------------------------------------------------------------------

JSON = {"Content-Type": "application/json"}
GOOD = b'{"id":"a","question":1,"choice":0}'
PAGE = {"Origin": "https://quiz.example"}
EVIL = {"Origin": "https://evil.example"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"),
    [
        ("POST", "answers", {}, GOOD),
        ("POST", "answers", {"Authorization": "Bearer {ada}"}, GOOD),
        ("POST", "answers", {"Authorization": "Basic {ada}"}, GOOD),
        ("POST", "answers", {"Authorization": "Bearer nonsense"}, GOOD),
        ("POST", "answers", {"Authorization": "Bearer {host}"}, GOOD),
        ("POST", "answers", {"Authorization": "Bearer {other}"}, GOOD),
        ("POST", "answers", {"Authorization": "Bearer {ada}", "Content-Type": "text/plain"}, GOOD),
        ("POST", "answers", {"Authorization": "Bearer {ada}", "Content-Type": "a/b+json; x=y"}, GOOD),
        ("POST", "answers", {"Authorization": "bearer  {ada}"}, b"{"),
        ("POST", "answers", {"Authorization": "Bearer {ada}", "Content-Encoding": "gzip"}, GOOD),
        ("POST", "answers", {"Authorization": "Bearer {ada}", "Content-Encoding": "identity"}, GOOD),
        *(
            ("POST", "answers", {"Authorization": "Bearer {ada}"}, json.dumps(body).encode())
            for body, _, code, _ in ANSWERS
            if code not in HTTP_ONLY
        ),
        ("POST", "answers", {"Authorization": "Bearer {ada}"} | PAGE, GOOD),
        ("POST", "answers", {"Authorization": "Bearer {ada}"} | EVIL, GOOD),
        ("POST", "answers", {"Authorization": "Bearer {ada}", "Origin": "http://127.0.0.1:5001"}, GOOD),
        ("GET", "answers", {}, b""),
        ("POST", "next", {}, b""),
        ("POST", "next", {"Authorization": "Bearer {ada}"}, b""),
        ("POST", "next", {"Authorization": "Bearer {host}"}, b""),
        ("POST", "next", {"Authorization": "Bearer {other}"}, b""),
        ("GET", "next", {}, b""),
        ("POST", "events", {}, b""),
        ("POST", "events", EVIL, b""),
        ("GET", "events?token=nonsense", {}, b""),
        ("GET", "events?x=1", {}, b""),
        ("GET", "events?token=a&token=b", {}, b""),
        ("GET", "events?token={other}", {}, b""),
        ("GET", "events?token={ada}", {"Authorization": "Bearer {host}"}, b""),
        ("GET", "events", PAGE | {"Authorization": "Bearer nonsense"}, b""),
        ("HEAD", "events", {}, b""),
        ("OPTIONS", "answers", PAGE | {"Access-Control-Request-Method": "POST"}, b""),
        ("OPTIONS", "answers", EVIL | {"Access-Control-Request-Method": "POST"}, b""),
        ("OPTIONS", "events", {}, b""),
    ],
)
async def test_both_ports_say_the_same(
    method: str, path: str, headers: Mapping[str, str], body: bytes
) -> None:
    async with ports(allowed_origins=("https://quiz.example",)) as e:
        session, elsewhere = await e.session(), await e.session()
        ada = await session.join("Ada")
        words = {
            "ada": ada["token"],
            "host": session.host_token,
            "other": (await elsewhere.join("Eve"))["token"],
        }
        await session.do("start")
        url = f"{session.url}/{path.format(**words)}"
        sent = (
            {"X-Request-Id": "mine"}
            | (JSON if body else {})
            | {name: value.format(**words) for name, value in headers.items()}
        )
        async with client_of(e) as client:
            fast = await client.request(method, url, headers=sent, content=body)
            with_id = url.replace(session.code, session.id)
            again = await client.request(method, with_id, headers=sent, content=body)
        api = await e.call(method, url, headers={"Host": "127.0.0.1"} | sent, data=body or None)
        assert (fast.status_code, fast.content) == (api.status, api.body)
        assert (again.status_code, again.content) == (api.status, api.body)
        kept = {"date", "content-length", "connection", "content-type"}
        ours = {name.lower(): value for name, value in fast.headers.items() if name.lower() not in kept}
        theirs = {name.lower(): value for name, value in api.headers.items() if name.lower() not in kept}
        if api.status == 405:
            assert set(ours.pop("allow").split(", ")) <= set(theirs.pop("allow").split(", "))
        assert ours == theirs


async def test_both_ports_trace_a_request_and_its_answer_below_it() -> None:
    tracing = Traced()
    async with ports(tracing=tracing) as e:
        session, ada, ben = await e.started("Ada", "Ben")
        told: list[tuple[SlowAnswer, Trace | None]] = []
        e.registry.slow_answers.tell = lambda answer, trace, _: told.append((answer, trace))
        url, body = f"{session.url}/answers", {"id": "a", "question": 1, "choice": 0}
        assert tracing.spans == [], "whoever does not ask for it is not traced"
        async with client_of(e) as client:
            headers = {"Authorization": f"Bearer {ada['token']}", "traceparent": TRACEPARENT}
            fast = await client.post(url, headers=headers, json=body)
            await client.post(url, headers=headers, json=body | {"question": 2})
        await e.post(url, body, token=ben["token"], headers={"traceparent": TRACEPARENT})
        await e.post(url, body | {"traceparent": TRACEPARENT}, token=ben["token"])
        await e.get("/api/sessions/000000", headers={"traceparent": TRACEPARENT})
        await e.get("/api/nothing", headers={"traceparent": TRACEPARENT})
    assert fast.status_code == 200
    accepted, refused, api, unknown, nothing = tracing.spans
    for span in tracing.spans:
        assert (span.trace_id, span.parent_id, span.attributes["url.scheme"]) == (TRACE_ID, SPAN_ID, "http")
    for span, status in ((accepted, 200), (refused, 409), (api, 200)):
        assert span.name == "POST /api/sessions/{key}/answers"
        assert span.attributes["http.request.method"] == "POST"
        assert span.attributes["http.route"] == "/api/sessions/{key}/answers"
        assert (span.attributes["http.response.status_code"], span.error) == (status, None)
    assert (unknown.name, unknown.attributes["http.response.status_code"]) == ("GET /api/sessions/{key}", 404)
    assert (nothing.name, nothing.attributes["http.route"]) == ("GET", None)
    below = [Trace(TRACE_ID, span.span_id) for span in (accepted, refused, api)]
    assert [trace for _, trace in told] == [*below, Trace(TRACE_ID, SPAN_ID)], (
        "the body counts without a header"
    )


@pytest.mark.parametrize("sent", ["req-1/a:b", None, "", "x" * 129, "two words", "ä"])
async def test_a_request_id_is_taken_or_made_and_returned_by_both_ports(sent: str | None) -> None:
    async with ports() as e:
        session = await e.session()
        headers = {} if sent is None else {"X-Request-Id": sent}
        raw_headers = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        async with client_of(e) as client:
            refusal = await client.post(f"{session.url}/answers", headers=raw_headers)
            preflight = await client.options(f"{session.url}/answers", headers=raw_headers)
        api = await e.get("/healthz", headers=headers)
        async with e.raw() as raw:
            await raw.send(request("GET", f"{session.url}/events", {} if sent != "req-1/a:b" else headers))
            head = (await raw.head()).decode()
        assert "X-Request-Id: " in head
        ids = [each.headers["x-request-id"] for each in (refusal, preflight)] + [api.headers["X-Request-Id"]]
        if sent == "req-1/a:b":
            assert ids == [sent] * 3
            assert f"X-Request-Id: {sent}" in head.split("\r\n")
        else:
            assert len(set(ids)) == 3
            assert all(re.fullmatch("[0-9a-f]{16}", each) for each in ids)


async def test_lines_of_the_log_name_the_request_that_they_are_about(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Answers that are late, or refused as busy, whose lines are the session's; and mistakes."""
    for module in (slow_answers, confirmations):
        monkeypatch.setattr(module, "SLOW_MS", 0)
    monkeypatch.setattr(slow_answers, "_LOG_AGAIN_MS", 0)
    caplog.handler.addFilter(OfRequest())

    def lines() -> list[tuple[str, str | None]]:
        found = [(each.getMessage(), vars(each).get("request_id")) for each in caplog.records]
        caplog.clear()
        return found

    async with ports() as e:
        session = await e.session()
        ada, ben = await session.join("Ada"), await session.join("Ben")
        await session.do("start")
        url, body = f"{session.url}/answers", {"id": "a", "question": 1, "choice": 0}
        async with client_of(e) as client:

            async def say(port: str, player: dict[str, Any]) -> int:
                headers = {"X-Request-Id": f"{port}-{player['name']}"}
                if port == "api":
                    return (await e.post(url, body, token=player["token"], headers=headers)).status
                headers["Authorization"] = f"Bearer {player['token']}"
                return (await client.post(url, headers=headers, json=body)).status_code

            lines()
            assert (await say("api", ada), await say("realtime", ben)) == (200, 200)
            late = lines()
            assert ["acknowledged late" in text for text, _ in late] == [True, True]
            assert [request_id for _, request_id in late] == ["api-Ada", "realtime-Ben"]

            monkeypatch.setattr(e.journal, "has_room", lambda *_: False)
            assert (await say("api", ada), await say("realtime", ben)) == (503, 503)
            busy = lines()
            assert ["refused or failed" in text for text, _ in busy] == [True, True]
            assert [request_id for _, request_id in busy] == ["api-Ada", "realtime-Ben"]

            monkeypatch.setattr(Guard, "refuse_foreign_origin", lambda *_: 1 / 0)
            with pytest.raises(httpx.RemoteProtocolError):
                await say("realtime", ben)
        [(text, request_id)] = lines()
        assert (text, request_id) == ("a mistake in a request", "realtime-Ben")


async def test_http_alone_is_enough_to_go_through_a_quiz_alone() -> None:
    async with ports() as e:
        session = await e.session(pace="self")
        ada = await session.join("Ada")
        own = {"Authorization": f"Bearer {ada['token']}"}
        async with client_of(e, headers=own) as client:
            first = (await client.post(f"{session.url}/next")).json()
            again = (await e.post(f"{session.url}/next", token=ada["token"])).json
            assert first["t"] == "question"
            assert again["remaining_ms"] <= first["remaining_ms"]
            for number in range(1, first["of"] + 1):
                step = (await client.post(f"{session.url}/next")).json()
                assert step["number"] == number
                answer = {"id": "a", "question": number, "choice": 0}
                ack = (await client.post(f"{session.url}/answers", json=answer)).json()
                assert (ack["status"], ack["result"]["number"]) == ("accepted", number)
            end = (await client.post(f"{session.url}/next")).json()
            assert (end["t"], end["done"], len(end["review"])) == ("done_all", True, first["of"])


async def test_requests_name_the_attempt_on_both_ports() -> None:
    async with ports() as e:
        session = await e.session(pace="self", attempts=2)
        ada = await session.join("Ada")
        url = f"{session.url}/next"
        async with client_of(e, headers={"Authorization": f"Bearer {ada['token']}"}) as client:
            early = await client.post(f"{url}?attempt=2")
            assert (early.status_code, early.json()["error"]["code"]) == (409, "illegal_move")
            while (await client.post(url)).json()["t"] == "question":
                number = (await client.post(url)).json()["number"]
                answer = {"id": "a", "question": number, "choice": 0}
                await client.post(f"{session.url}/answers", json=answer)
            begun = (await client.post(f"{url}?attempt=2")).json()
            assert (begun["t"], begun["number"], begun["attempt"]) == ("question", 1, 2)
            again = (await e.post(f"{url}?attempt=2", token=ada["token"])).json
            assert (again["number"], again["attempt"]) == (1, 2)
            answer = {"id": "b", "question": 1, "choice": 0, "attempt": 2}
            ack = (await client.post(f"{session.url}/answers", json=answer)).json()
            assert ack["status"] == "accepted"
            assert (await e.post(f"{session.url}/answers", answer, token=ada["token"])).json == ack
            for query, code in (
                ("attempt=3", "bad_field"),
                ("attempt=0", "bad_field"),
                ("attempt=101", "bad_field"),
                ("attempt=2&attempt=2", "bad_field"),
                ("try=2", "unknown_field"),
            ):
                fast = await client.post(f"{url}?{query}")
                slow = await e.post(f"{url}?{query}", token=ada["token"])
                assert (fast.status_code, fast.json()) == (slow.status, slow.json)
                assert slow.error == code


async def test_pages_of_other_nodes_may_use_this_port() -> None:
    async with ports() as e:
        session, ada = await e.started("Ada")
        page = {"Origin": "http://a.example:5001"}
        sent = JSON | page | {"Authorization": f"Bearer {ada['token']}"}
        async with client_of(e) as client:
            foreign = await client.post(f"{session.url}/answers", headers=sent, content=GOOD)
            assert foreign.json()["error"]["code"] == "origin_refused"
            e.but(cluster=FakeCluster(member("a", http_url="http://a.example:5001")))
            asked = page | {"Access-Control-Request-Method": "POST"}
            granted = await client.options(f"{session.url}/answers", headers=asked)
            assert granted.headers["Access-Control-Allow-Origin"] == page["Origin"]
            taken = await client.post(f"{session.url}/answers", headers=sent, content=GOOD)
            assert (taken.status_code, taken.json()["t"]) == (200, "ack")
            assert taken.headers["Access-Control-Allow-Origin"] == page["Origin"]


@pytest.mark.parametrize("path", ["/", "/api/sessions", "/api/sessions/123456/players", "/metrics", "/ws/x"])
async def test_what_is_not_on_this_port(path: str) -> None:
    async with ports() as e, client_of(e) as client:
        reply = await client.get(path)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/nowhere", "/api/sessions/123456/answers", "/hub", "/hub?id=x"])
async def test_an_error_in_answer_to_head_has_no_body(path: str) -> None:
    async with ports() as e, e.raw() as raw:
        await raw.send(request("HEAD", path) + request("GET", "/nowhere"))
        head = await raw.head()
        assert head.startswith((b"HTTP/1.1 404", b"HTTP/1.1 405"))
        assert b"Content-Length: 0" not in head
        assert (await read_response(raw))[0] == 404, "what follows is the next response"


async def test_an_address_may_be_written_with_escapes_as_on_the_other_port() -> None:
    async with ports() as e, client_of(e) as client:
        reply = await client.post("/api/sessions/123%3456/%61nswers")
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "token_missing")


async def test_a_refusal_leaves_nothing_behind() -> None:
    async with ports(messages_burst=1) as e:
        session, ada = await e.started("Ada")
        for _ in range(3):
            async with e.raw() as raw:
                await raw.send(request("GET", "/nowhere") + 2 * answer(session, ada["token"]))
                for _ in range(3):
                    await read_response(raw)
        await e.until_connections(0)
        gc.collect()
        # The loop may still have hold of the one that it served last.
        assert sum(isinstance(each, exchange.Exchange) for each in gc.get_objects()) <= 1


async def test_an_unknown_code_counts_as_a_guess_on_either_port() -> None:
    async with ports(attempts_per_min=4) as e, client_of(e) as client:
        for number in range(2):
            assert (await client.get(f"/api/sessions/99999{number}/events")).status_code == 404
            assert (await e.get(f"/api/sessions/99999{number}/events")).status == 404
        assert (await client.get("/api/sessions/999999/events")).json()["error"][
            "code"
        ] == "too_many_attempts"
        assert (await e.get("/api/sessions/999999/events")).error == "too_many_attempts"


async def test_a_player_who_sends_too_much_is_slowed_down_and_no_other() -> None:
    async with ports(messages_per_s=0.1, messages_burst=3) as e:
        session, ada, ben = await e.started("Ada", "Ben")
        async with e.raw() as raw:
            await raw.send(answer(session, ada["token"]) * 4 + answer(session, ben["token"]))
            assert [(await read_response(raw))[0] for _ in range(5)] == [200, 200, 200, 429, 200]


# -- answers -------------------------------------------------------------------------------------------


async def test_an_answer_is_confirmed_only_once_it_is_stored() -> None:
    async with ports() as e:
        session, ada = await e.started("Ada")
        e.journal.auto = "off"
        async with e.raw() as raw:
            await raw.send(answer(session, ada["token"]))
            with trio.move_on_after(0.1):
                await raw.head()
                pytest.fail("confirmed before it was stored")
            e.journal.commit()
            status, ack = await read_response(raw)
        assert (status, ack["t"], ack["status"]) == (200, "ack", "accepted")


async def test_one_connection_carries_the_answers_of_many_in_their_order() -> None:
    async with ports() as e:
        session = await e.session()
        tokens = [(await session.join(f"Player {n}"))["token"] for n in range(10)]
        await session.do("start")
        async with e.raw() as raw:
            await raw.send(b"".join(answer(session, token, id=str(n)) for n, token in enumerate(tokens)))
            assert [(await read_response(raw))[1]["id"] for _ in tokens] == [str(n) for n in range(10)]
            await raw.send(request("GET", "/nowhere", {"Connection": "close"}))
            assert (await read_response(raw))[0] == 404
            assert await raw.rest() == b""
        assert e.statistics.requests_total == 11


async def test_a_client_that_sends_more_requests_than_may_wait_is_cut_off() -> None:
    async with ports() as e:
        session, ada = await e.started("Ada")
        e.journal.auto = "off"
        async with e.raw() as raw:
            for _ in range(exchange.REQUESTS_WAITING_MAX + 2):
                await raw.send(answer(session, ada["token"]))
            with pytest.raises((EOFError, trio.BrokenResourceError)):
                await raw.head()


async def test_the_wait_for_the_session_is_bounded_and_a_late_word_is_not_taken_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(first_reply, "REPLY_TIMEOUT_S", 0.1)
    async with ports() as e:
        session, ada, ben = await e.started("Ada", "Ben")
        e.journal.auto = "off"
        async with e.raw() as raw:
            await raw.send(answer(session, ada["token"], id="first"))
            status, body = await read_response(raw)
            assert (status, body["error"]["code"]) == (503, "busy")
            monkeypatch.setattr(first_reply, "REPLY_TIMEOUT_S", 15.0)
            await raw.send(answer(session, ben["token"], id="second"))
            await e.settle()
            e.journal.commit()
            assert (await read_response(raw))[1]["id"] == "second"


async def test_a_client_that_leaves_while_waiting_has_answered() -> None:
    async with ports() as e:
        session, ada, ben = await e.started("Ada", "Ben")
        e.journal.auto = "off"
        async with e.raw() as raw:
            await raw.send(answer(session, ada["token"]))
            await e.settle()
        await e.until_connections(0)
        e.journal.auto = "now"
        e.journal.commit()
        async with e.raw() as raw:
            await raw.send(answer(session, ben["token"]))
            assert (await read_response(raw))[0] == 200
        board = (await e.get(f"{session.url}/leaderboard")).json
        assert board["answered"] == 2


async def test_a_session_that_is_being_restored_is_busy() -> None:
    async with ports() as e:
        session, ada = await e.started("Ada")
        e.journal.auto = "off"
        async with e.raw() as raw:
            await raw.send(answer(session, ada["token"]))
            await e.settle()
            (await session.actor()).end(CloseReason.RESTARTING)
            status, body = await read_response(raw)
        assert (status, body["error"]["code"]) == (503, "busy")


async def test_at_shutdown_who_waits_gets_the_answer_and_the_idle_are_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "SHUTDOWN_S", 5.0)
    async with ports() as e:
        session, ada = await e.started("Ada")
        async with e.raw() as idle, e.raw() as waiting:
            await idle.send(request("GET", "/nowhere"))
            assert (await read_response(idle))[0] == 404
            e.journal.auto = "off"
            await waiting.send(answer(session, ada["token"]))
            await e.settle()
            e.serving.cancel()
            assert await idle.rest() == b""
            e.journal.commit()
            assert (await read_response(waiting))[0] == 200
            assert await waiting.rest() == b""


# -- bad clients ---------------------------------------------------------------------------------------


POST_ANYWHERE = b"POST / HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad_message"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4_000, 431, "bad_message"),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 20_000, 431, "bad_message"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_message"),
        (
            POST_ANYWHERE + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "bad_message",
        ),
        (POST_ANYWHERE + b"Content-Length: -5\r\n\r\n", 400, "bad_message"),
        (POST_ANYWHERE + b"X-Request-Id: mine\r\nContent-Length: 4097\r\n\r\n", 413, "too_large"),
        (
            POST_ANYWHERE + b"Transfer-Encoding: chunked\r\n\r\n1001\r\n" + b"x" * 4097,
            413,
            "too_large",
        ),
        (
            POST_ANYWHERE
            + b"X-Request-Id: mine\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"800\r\n%b\r\n" % (b"x" * 2_048) * 3
            + b"0\r\n\r\n",
            413,
            "too_large",
        ),
        (
            b"GET / HTTP/1.1\r\nX-Request-Id: mine\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            400,
            "bad_message",
        ),
        (
            POST_ANYWHERE + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 4\r\n\r\nabcd",
            400,
            "bad_message",
        ),
    ],
)
@pytest.mark.parametrize("first", [True, False])
async def test_what_is_no_request_is_told_so(data: bytes, status: int, code: str, first: bool) -> None:
    async with ports() as e, e.raw() as raw:
        if not first:
            await raw.send(request("GET", "/nowhere"))
            assert (await read_response(raw))[0] == 404
        with trio.move_on_after(PATIENCE_S):
            await raw.send(data)
        told, body = await read_response(raw, "mine" if b"mine" in data else "")
        assert (told, body["error"]["code"]) == (status, code)
        assert await raw.rest() == b""


@pytest.mark.parametrize("odd", ODD)
async def test_an_odd_request_is_told_what_is_wrong_as_by_the_api(odd: str) -> None:
    sent, status, code = ODD[odd]
    async with ports() as e, e.raw() as raw:
        with trio.move_on_after(PATIENCE_S):
            await raw.send(sent)
        told, body = await read_response(raw)
        assert (told, body["error"]["code"]) == (status, code)
        assert await raw.rest() == b""


@pytest.mark.parametrize("path", ["/ws", "/hub"])
async def test_a_handshake_with_two_bearers_is_refused(path: str) -> None:
    async with ports() as e, e.raw() as raw:
        await raw.send(handshake("Authorization: Bearer a", "Authorization: Bearer b", path=path))
        assert (await raw.response())[0] == 400


@pytest.mark.parametrize("first", [True, False])
async def test_a_body_that_does_not_come_is_not_waited_for(first: bool) -> None:
    async with ports(join_timeout_s=0.3) as e, e.raw() as raw:
        if not first:
            await raw.send(request("GET", "/nowhere"))
            await read_response(raw)
        await raw.send(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        assert (await read_response(raw))[0] == 408
        assert await raw.rest() == b""


async def test_what_has_begun_behind_a_whole_request_is_not_waited_for() -> None:
    async with ports(join_timeout_s=0.3) as e, e.raw() as raw:
        await raw.send(request("GET", "/nowhere") + b"GET /nowhere HTTP/1.1\r\n")
        assert (await read_response(raw))[0] == 404
        assert (await read_response(raw))[0] == 408


async def test_a_body_a_byte_at_a_time_is_as_late() -> None:
    async with ports(join_timeout_s=0.3) as e, e.raw() as raw:
        await raw.send(request("GET", "/nowhere"))
        await read_response(raw)
        await raw.send(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")

        async def drip() -> None:
            while True:
                await raw.send(b"x")
                await trio.sleep(0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            assert (await read_response(raw))[0] == 408
            nursery.cancel_scope.cancel()


async def test_what_waits_is_bounded_in_bytes_too() -> None:
    async with ports() as e:
        session, ada = await e.started("Ada")
        e.journal.auto = "off"
        async with e.raw() as raw:
            long = request("GET", "/nowhere", {"X-Long": "x" * 12_000})
            await raw.send(answer(session, ada["token"]) + 2 * long)
            await e.settle()
            assert e.statistics.connections == 1
            await raw.send(long)
            with pytest.raises((EOFError, trio.BrokenResourceError)):
                await raw.head()


async def test_the_idle_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "IDLE_S", 0.1)
    async with ports() as e, e.raw() as raw:
        await raw.send(request("GET", "/nowhere"))
        await read_response(raw)
        assert await raw.rest() == b""


async def test_a_client_that_does_not_read_is_cut_off_in_time() -> None:
    async with ports(send_timeout_s=0.3) as e, e.raw(receive_buffer=4096) as raw:

        async def ask_on() -> None:
            while True:
                await raw.send(request("GET", "/nowhere") * exchange.REQUESTS_WAITING_MAX)
                await e.settle()

        with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE_S):
            await ask_on()
        await e.until_connections(0)


@pytest.mark.parametrize("first", [True, False])
async def test_expect_100_continue_is_answered(first: bool) -> None:
    async with ports() as e, e.raw() as raw:
        if not first:
            await raw.send(request("GET", "/nowhere"))
            await read_response(raw)
        await raw.send(
            b"POST /nowhere HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        )
        assert await raw.head() == b"HTTP/1.1 100 Continue"
        await raw.send(b"abcd")
        assert (await read_response(raw))[0] == 404


async def test_how_long_requests_took_is_told_of_both_ports_together() -> None:
    async with ports() as e, e.raw() as raw:
        session, ada = await e.started("Ada")
        await raw.send(
            answer(session, ada["token"]) + request("GET", "/api/no?a=b") + request("GET", "/hubba")
        )
        await raw.send(request("POST", "/hub/negotiate?negotiateVersion=1"))
        for _ in range(3):
            await read_response(raw)
        hub = f"/hub?id={(await read_response(raw))[1]['connectionToken']}"
        await raw.send(request("GET", hub))
        assert await read_response(raw) == (200, None)
        await raw.send(request("POST", hub, body=b'{"protocol":"json","version":1}\x1e'))
        assert await read_response(raw) == (200, None)
        await raw.send(request("GET", hub))
        assert await read_response(raw) == (200, {})
        answers = "/api/sessions/{key}/answers", "2xx"
        assert {key: each.count for key, each in e.statistics.requests.items()} == {
            answers: 1,
            ("unmatched", "4xx"): 2,
            ("/hub/negotiate", "2xx"): 1,
            ("/hub", "2xx"): 2,  # a long poll takes as long as it waits
        }
        await e.post(f"{session.url}/answers", json.loads(GOOD), token=ada["token"])
        both = together((e.statistics.requests, e.app.tally.requests.statistics()))
        assert both[answers].count == 2


async def test_a_full_node_says_so() -> None:
    async with ports(connections_max=1) as e, e.raw() as there:
        await there.send(request("GET", "/nowhere"))
        await read_response(there)
        async with e.raw() as raw:
            await raw.send(request("GET", "/nowhere"))
            assert (await read_response(raw))[0] == 503


async def test_requests_and_streams_count_for_their_address() -> None:
    async with ports(connections_per_address_max=2) as e:
        session = await e.session()
        async with e.raw() as one, e.stream(session.url):
            await one.send(request("GET", "/nowhere"))
            await read_response(one)
            async with e.raw() as third:
                await third.send(request("GET", "/nowhere"))
                status, body = await read_response(third)
                assert (status, body["error"]["code"]) == (429, "too_many_connections")
        await e.until_connections(0)
        async with e.stream(session.url), e.stream(session.url):
            pass


async def test_a_proxy_s_connection_counts_for_whom_it_speaks() -> None:
    async with ports(connections_per_address_max=1, proxy_hops=1) as e, e.raw() as pooled, e.raw() as other:
        await pooled.send(request("GET", "/nowhere", {"X-Forwarded-For": "203.0.113.1"}))
        assert (await read_response(pooled))[0] == 404
        await pooled.send(request("GET", "/nowhere", {"X-Forwarded-For": "203.0.113.2"}))
        assert (await read_response(pooled))[0] == 404
        await other.send(request("GET", "/nowhere", {"X-Forwarded-For": "203.0.113.1"}))
        assert (await read_response(other))[0] == 404
        of_another = {"X-Forwarded-For": "203.0.113.2", "X-Request-Id": "mine"}
        await other.send(request("GET", "/nowhere", of_another))
        assert (await read_response(other, "mine"))[0] == 429
        assert await other.rest() == b""


async def test_streams_have_a_lower_limit_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    async with ports(event_streams_per_address_max=1) as e, e.raw() as raw:
        session = await e.session()
        async with e.stream(session.url):
            await raw.send(request("GET", f"{session.url}/events"))
            status, body = await read_response(raw)
            assert (status, body["error"]["code"]) == (429, "too_many_connections")
        await e.until_connections(1)
        await raw.send(request("GET", f"{session.url}/events"))
        assert (await raw.head()).startswith(b"HTTP/1.1 200")
    assert "raise event_streams_per_address_max" in caplog.text


# -- a WebSocket after requests ------------------------------------------------------------------------


async def test_a_handshake_may_come_after_requests() -> None:
    """Connection pools of HTTP clients do that."""
    async with ports() as e, e.raw() as raw:
        session, ada = await e.started("Ada")
        await raw.send(answer(session, ada["token"]))
        assert (await read_response(raw))[0] == 200
        await raw.open()
        await raw.send_message(t="join", code=session.code, token=ada["token"])
        assert (await raw.expect_message("joined"))["name"] == "Ada"
        counted = e.statistics
        assert (counted.connections, counted.accepted_total, counted.requests_total) == (1, 1, 1)


async def test_a_handshake_behind_a_request_waits_for_its_answer() -> None:
    async with ports() as e, e.raw() as raw:
        session, ada = await e.started("Ada")
        await raw.send(answer(session, ada["token"]) + handshake())
        assert (await read_response(raw))[0] == 200
        assert (await raw.response())[0] == 101
        await raw.send_message(t="ping", at=1)
        assert (await raw.receive_frame()).message["t"] == "pong"


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        (handshake("Origin: https://evil.example"), 403, "origin_refused"),
        (handshake(path="/elsewhere"), 404, "not_found"),
        (request("GET", "/ws"), 400, "bad_message"),
    ],
)
async def test_a_late_handshake_is_judged_like_an_early_one(asked: bytes, status: int, code: str) -> None:
    async with ports() as e, e.raw() as raw:
        await raw.send(request("GET", "/nowhere"))
        await read_response(raw)
        await raw.send(asked)
        told, body = await read_response(raw)
        assert (told, body["error"]["code"]) == (status, code)
        assert await raw.rest() == b""
        assert e.statistics.refused_total == {code: 1}


async def test_a_late_handshake_must_be_followed_by_a_join_in_time() -> None:
    async with ports(join_timeout_s=0.3) as e, e.raw() as raw:
        await raw.send(request("GET", "/nowhere"))
        await read_response(raw)
        await raw.open()
        assert (await raw.expect(8)).close_code == CloseReason.JOIN_TIMEOUT.code


# -- event streams -------------------------------------------------------------------------------------


async def test_players_and_spectators_follow_a_session() -> None:
    async with ports() as e:
        session = await e.session()
        ada = await session.join("Ada")
        async with e.stream(session.url, token=ada["token"]) as player, e.stream(session.url) as spectator:
            joined = await player.until("joined")
            assert (joined.message["player"], joined.id) == (1, f"{joined.message['epoch']}:0")
            assert (await spectator.until("joined")).message["role"] == "spectator"
            assert e.statistics.event_streams == 2
            await session.do("start")
            assert (await player.until("question")).id == f"{joined.message['epoch']}:1"
            await session.answer(ada, 0)
            await session.do("close")
            assert (await player.until("result")).message["correct"] is True
            await session.do("finish")
            assert (await player.until("finished")).message["you"]["rank"] == 1
            assert (await spectator.until("finished")).message["you"] is None


async def test_resume_of_an_event_stream_sends_missed_frames() -> None:
    async with ports() as e:
        session = await e.session()
        async with e.stream(session.url) as before:
            joined = await before.until("joined")
        await session.do("start")
        await session.do("close")
        async with e.stream(session.url, last_event_id=joined.id) as after:
            assert (await after.until("joined")).message["state"] is None
            assert (await after.until("question")).message["offset"] == 1
            assert (await after.until("reveal")).message["offset"] == 2


async def test_the_newer_of_two_connections_of_a_token_stays() -> None:
    async with ports() as e:
        session = await e.session()
        ada = await session.join("Ada")
        async with e.stream(session.url, token=ada["token"]) as older:
            await older.until("joined")
            async with e.stream(session.url, token=ada["token"]) as newer:
                await newer.until("joined")
                end = (await older.rest())[-1]
                assert (end.kind, end.message["reason"], end.message["reconnect"]) == (
                    "close",
                    "replaced",
                    "no",
                )
                assert older.retry_ms[-1] == 3_600_000


async def test_a_stream_whose_client_has_gone_gives_its_seat_back() -> None:
    async with ports() as e:
        session = await e.session()
        async with e.stream(session.url) as reader:
            await reader.until("joined")
            assert (await session.actor()).subscribers == 1
        await e.until_connections(0)
        await e.settle()
        assert (await session.actor()).subscribers == 0


async def test_a_quiet_stream_shows_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_S", 0.05)
    async with ports() as e:
        session = await e.session()
        async with e.stream(session.url) as reader:
            await reader.until("joined")
            with trio.move_on_after(0.4):
                await reader.next()
            assert reader.signs_of_life > 0


async def test_a_session_that_does_not_answer_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "OPEN_TIMEOUT_S", 0.1)
    async with ports() as e:
        session = await e.session()
        monkeypatch.setattr(e.router, "deliver", lambda key, command: None)
        async with e.raw() as raw:
            await raw.send(request("GET", f"{session.url}/events"))
            status, body = await read_response(raw)
        assert (status, body["error"]["code"]) == (503, "busy")


async def test_a_slow_consumer_is_let_go_with_a_whole_last_event() -> None:
    async with ports(outbox_bytes_max=4096) as e:
        session = await e.session()
        large = {"t": "reveal", "number": 1, "correct": 0, "counts": [0] * 1500}
        async with e.stream(session.url, buffer=4096) as slow, e.stream(session.url) as quick:
            await quick.until("joined")
            actor = await session.actor()
            for number in range(2_000):  # as many broadcasts as it takes
                await actor.live.audience.send(Frame({**large, "offset": number}))
                await quick.until("reveal")
                if actor.subscribers == 1:
                    break
            assert actor.subscribers == 1
            end = (await slow.rest())[-1]
            assert (end.kind, end.message["reason"], end.message["reconnect"]) == (
                "close",
                "slow_consumer",
                "resume",
            )


async def test_a_client_that_sends_on_an_event_stream_is_cut_off() -> None:
    async with ports() as e:
        session = await e.session()
        async with e.raw() as raw:
            await raw.send(request("GET", f"{session.url}/events"))
            await raw.head()

            async def talk_on() -> None:
                while True:
                    await raw.send(b"x" * 4096)

            with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE_S):
                await talk_on()
            await e.until_connections(0)


async def test_at_shutdown_streams_are_told() -> None:
    async with ports() as e:
        session = await e.session()
        async with e.stream(session.url) as reader:
            await reader.until("joined")
            e.serving.cancel()
            end = (await reader.rest())[-1]
            assert (end.kind, end.message["reason"]) == ("close", "shutdown")


async def test_a_broadcast_is_encoded_once_for_all_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[object] = []
    encode = EventDialect.__call__

    def counted(self: EventDialect, message: Message) -> bytes:
        encoded.append(message["t"])
        return encode(self, message)

    monkeypatch.setattr(EventDialect, "__call__", counted)
    async with ports() as e:
        session = await e.session()
        async with e.stream(session.url) as one, e.stream(session.url) as two:
            await one.until("joined")
            await two.until("joined")
            await session.do("start")
            assert (await one.until("question")).message == (await two.until("question")).message
    assert encoded.count("question") == 1


# -- reading requests ----------------------------------------------------------------------------------


def read(data: bytes, sizes: list[int]) -> list[Request] | str:
    reader = RequestReader(64)
    try:
        for size in [*sizes, len(data)]:
            chunk, data = data[:size], data[size:]
            if chunk:
                reader.feed(chunk)
    except (Malformed, TooLarge) as error:
        return type(error).__name__
    found = []
    while (one := reader.pop()) is not None:
        found.append(one)
    return found


REQUESTS = [
    request("GET", "/a?b=c", {"X": "1"}),
    request("POST", "/b", {}, b"hello"),
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
    b"GET /d HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    b"HEAD /e HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
]


@settings(max_examples=150, deadline=None)
@example([REQUESTS[0], REQUESTS[3]], [1, 35, 60, 3])
@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=5), st.lists(st.integers(1, 60), max_size=20))
def test_requests_may_come_in_any_pieces(parts: list[bytes], sizes: list[int]) -> None:
    whole = read(b"".join(parts), [])
    assert read(b"".join(parts), sizes) == whole
    assert len(whole) == len(parts)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(1, 60), max_size=10), st.sampled_from(REQUESTS))
def test_whatever_comes_is_read_or_refused(data: bytes, sizes: list[int], before: bytes) -> None:
    read(before + data, sizes)
    read(data + before, sizes)
