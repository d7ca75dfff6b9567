"""Users of an app who play by requests, with their identity and no token of ours: on both ports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from engine.actors.clock import SessionClock
from tests.http.edge import Played
from tests.http.events import stream
from tests.identities import NOW_S, SETTINGS, made_up, signed
from tests.realtime.test_exchange import Ports, client_of, ports, read_response, request

JSON = {"Content-Type": "application/json"}
ANSWER = {"id": "a", "question": 1, "choice": 0}


def as_bearer(identity: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {identity}"}


async def join(e: Ports, session: Played, identity: str) -> Mapping[str, Any]:
    reply = await e.post(f"{session.url}/players", {"name": "Ada", "identity": identity})
    assert reply.status == 201, reply.body
    return dict(reply.json)


async def both(
    e: Ports, session: Played, method: str, what: str, headers: Mapping[str, str], body: bytes = b""
) -> tuple[int, Any]:
    """What both ports say to it, which has to be the same."""
    url = f"{session.url}/{what}"
    sent = dict(headers) | (JSON if body else {})
    async with client_of(e) as client:
        fast = await client.request(method, url, headers=sent, content=body)
    api = await e.call(method, url, headers={"Host": "127.0.0.1"} | sent, data=body or None)
    assert (fast.status_code, fast.json()) == (api.status, api.json)
    return api.status, api.json


async def test_a_user_plays_and_sees_the_end_with_the_identity_alone() -> None:
    async with ports(clock=SessionClock(NOW_S * 1000), **SETTINGS) as e:
        session = await e.session(pace="self")
        ada = signed("ada@app", name="Ada")
        await join(e, session, ada)
        async with client_of(e, headers=as_bearer(ada)) as fast:
            shown = (await fast.post(f"{session.url}/next")).json()
            assert (shown["t"], shown["number"]) == ("question", 1)
            assert (await e.post(f"{session.url}/next", token=ada)).json["number"] == 1
            ack = (await fast.post(f"{session.url}/answers", json=ANSWER)).json()
            assert (ack["status"], ack["result"]["score"]) == ("accepted", 1_000)
            again = await e.post(f"{session.url}/answers", ANSWER, token=ada)
            assert again.json == ack
            assert (await fast.post(f"/api/sessions/{session.id}/next")).json()["number"] == 2
            assert (
                await fast.post(f"{session.url}/answers", json=ANSWER | {"question": 2})
            ).status_code == 200
            assert (await fast.post(f"{session.url}/next")).json()["t"] == "done_all"
        around = (await e.get(f"{session.url}/leaderboard?around=me", token=ada)).json["around"]
        assert [line["name"] for line in around] == ["Ada"]
        early = await e.get(f"{session.url}/results", token=ada)
        assert (early.status, early.error) == (403, "not_host")
        await session.do("finish")
        standing = (await e.get(f"{session.url}/results", token=ada)).json
        assert [line["name"] for line in standing["players"]] == ["Ada"]
        stranger = await e.get(f"{session.url}/results", token=signed("ben@app"))
        assert (stranger.status, stranger.error) == (404, "player_not_found")


async def test_an_event_stream_is_of_the_player_that_the_user_is() -> None:
    async with ports(clock=SessionClock(NOW_S * 1000), **SETTINGS) as e:
        session = await e.session()
        ada = signed("ada@app")
        await join(e, session, ada)
        async with stream(e, f"{session.url}/events", token=ada) as api:
            assert (await api.until("joined")).message["player"] == 1
            async with e.stream(session.url, token=ada) as fast:
                assert (await fast.until("joined")).message["player"] == 1
                assert (await api.until("close")).message["reason"] == "replaced"


@pytest.mark.parametrize(
    ("identity", "status", "code"),
    [
        (signed("ada@app", exp=NOW_S - 60), 401, "identity_expired"),
        (signed("ada@app", iss="https://other.example"), 401, "identity_issuer"),
        (signed("ada@app", aud="other"), 401, "identity_audience"),
        (made_up({"alg": "none"}), 401, "identity_algorithm"),
        (signed("ada@app", algorithm="EdDSA"), 401, "identity_algorithm"),
        (signed("ben@app"), 404, "player_not_found"),
        (signed("cem@app"), 403, "kicked"),
    ],
)
@pytest.mark.parametrize(
    ("method", "what", "body"),
    [
        ("POST", "answers", json.dumps(ANSWER).encode()),
        ("POST", "next", b""),
        ("GET", "events", b""),
    ],
)
async def test_who_is_refused(
    identity: str, status: int, code: str, method: str, what: str, body: bytes
) -> None:
    async with ports(clock=SessionClock(NOW_S * 1000), **SETTINGS) as e:
        session = await e.session(pace="self")
        cem = (await join(e, session, signed("cem@app")))["player_id"]
        await session.do("kick", player=cem)
        told, error = await both(e, session, method, what, as_bearer(identity), body)
        assert (told, error["error"]["code"]) == (status, code)


async def test_where_no_identities_are_taken_none_is() -> None:
    async with ports() as e:
        session = await e.session(pace="self")
        status, error = await both(e, session, "POST", "next", as_bearer(signed()))
        assert (status, error["error"]["code"]) == (400, "identity_off")


async def test_an_identity_in_the_address_is_no_token() -> None:
    async with ports(clock=SessionClock(NOW_S * 1000), **SETTINGS) as e:
        session = await e.session()
        await join(e, session, signed())
        _, error = await both(e, session, "GET", f"events?token={signed()}", {})
        assert error["error"]["code"] == "token_invalid"


async def test_a_request_does_not_say_twice_whose_it_is_and_not_the_same() -> None:
    async with ports(clock=SessionClock(NOW_S * 1000), **SETTINGS) as e:
        session = await e.session()
        ada, ben = signed("ada@app"), signed("ben@app")
        twice = await e.post(f"{session.url}/players", {"name": "Ada", "identity": ada}, token=ben)
        assert (twice.status, twice.error, twice.path) == (400, "bad_field", "identity")
        joined = await e.post(f"{session.url}/players", {"name": "Ada", "identity": ada}, token=ada)
        assert joined.status == 201
        by_backend = {"name": "Ben", "identity": ben}
        assert (await e.post(f"{session.url}/players", by_backend, token="some-author-key")).status == 201
        own = joined.json["token"]
        for other in (session.host_token, ben, "nonsense"):
            told, error = await both(e, session, "GET", f"events?token={own}", as_bearer(other))
            assert (told, error["error"]["code"], error["error"]["path"]) == (400, "bad_field", "token")
        await session.do("finish")
        for what in ("results", "results.csv", "results.json"):
            url = f"{session.url}/{what}?token={own}"
            twice = await e.get(url, token=session.host_token)
            assert (twice.status, twice.error, twice.path) == (400, "bad_field", "token")
            assert (await e.get(url, token=own)).status == 200
        negotiate = "/hub/negotiate?access_token=one"
        async with client_of(e) as client:
            assert (await client.post(negotiate, headers=as_bearer("one"))).status_code == 200
            refused = await client.post(negotiate, headers=as_bearer("two"))
        assert refused.json()["error"]["path"] == "access_token"
        assert (await e.post(negotiate, token="one")).status == 200
        assert (await e.post(negotiate, token="two")).path == "access_token"


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({"Content-Type": "text/plain"}, json.dumps(ANSWER).encode(), "unsupported_media_type"),
        ({}, b"{", "bad_json"),
        ({}, b'{"id":"a","question":1}', "missing_field"),
    ],
)
async def test_a_bad_body_is_refused_as_ever(headers: Mapping[str, str], body: bytes, code: str) -> None:
    async with ports(clock=SessionClock(NOW_S * 1000), **SETTINGS) as e:
        session = await e.session(pace="self")
        await join(e, session, signed())
        url, sent = f"{session.url}/answers", JSON | as_bearer(signed()) | dict(headers)
        async with client_of(e) as client:
            fast = await client.post(url, headers=sent, content=body)
        api = await e.call("POST", url, headers={"Host": "127.0.0.1"} | sent, data=body)
        assert fast.json()["error"]["code"] == api.error == code


async def test_codes_cannot_be_guessed_with_an_identity() -> None:
    """Wrong ones cost as much as anywhere else, on either port; a session that was found costs nothing."""
    async with ports(clock=SessionClock(NOW_S * 1000), attempts_per_min=4, **SETTINGS) as e:
        session = await e.session(pace="self")
        await join(e, session, signed())
        async with client_of(e, headers=as_bearer(signed())) as fast:
            wrong = [(await fast.post(f"/api/sessions/{number + 999_900:06}/next")) for number in range(2)]
            wrong_there = [
                await e.post(f"/api/sessions/{number + 999_900:06}/next", token=signed()) for number in (2, 3)
            ]
            assert {each.json()["error"]["code"] for each in wrong} == {"session_not_found"}
            assert {each.error for each in wrong_there} == {"session_not_found"}
            refused = await fast.post("/api/sessions/999999/next")
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_attempts")
            assert (await fast.post(f"{session.url}/next")).status_code == 200
            assert (await e.post(f"{session.url}/next", token=signed())).status == 200


async def test_made_up_identities_count_as_wrong_tokens() -> None:
    async with ports(clock=SessionClock(NOW_S * 1000), attempts_per_min=3, **SETTINGS) as e:
        session = await e.session(pace="self")
        await join(e, session, signed())
        async with client_of(e, headers=as_bearer(made_up({"alg": "none"}))) as fast:
            codes = [(await fast.post(f"{session.url}/next")).json()["error"]["code"] for _ in range(4)]
        assert codes == ["identity_algorithm"] * 3 + ["too_many_attempts"]


async def test_a_user_who_asks_too_often_is_told() -> None:
    async with ports(clock=SessionClock(NOW_S * 1000), messages_per_s=0.1, messages_burst=2, **SETTINGS) as e:
        session = await e.session(pace="self")
        ada, ben = signed("ada@app"), signed("ben@app", name="Ben")
        for user in (ada, ben):
            await join(e, session, user)
        async with client_of(e) as fast:
            told = [await fast.post(f"{session.url}/next", headers=as_bearer(ada)) for _ in range(3)]
            assert [each.status_code for each in told] == [200, 200, 429]
            assert told[2].json()["error"]["code"] == "rate_limited"
            assert (await fast.post(f"{session.url}/next", headers=as_bearer(ben))).status_code == 200


async def test_nobody_answers_before_the_own_join_is_stored() -> None:
    async with ports(clock=SessionClock(NOW_S * 1000), **SETTINGS) as e:
        session = await e.session(pace="self")
        e.journal.auto = "off"
        joined: list[Mapping[str, Any]] = []

        async def come() -> None:
            joined.append(await join(e, session, signed()))

        async with trio.open_nursery() as nursery, e.raw() as raw:
            nursery.start_soon(come)
            actor = await session.actor()
            while not actor.live.joins_under_way:
                await trio.lowlevel.checkpoint()
            await raw.send(request("POST", f"{session.url}/next", as_bearer(signed())))
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not joined
            assert not raw._received
            e.journal.commit()
            e.journal.auto = "soon"
            status, shown = await read_response(raw)
            assert (status, shown["number"]) == (200, 1)
