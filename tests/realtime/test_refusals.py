"""The table of refusals over the API and over a WebSocket. For answers over HTTP on the realtime port,
test_exchange.py holds it against the API."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from engine.actors.close_reasons import CloseReason
from tests.identities import SETTINGS, made_up, signed
from tests.realtime.test_exchange import Ports, ports
from tests.refusals import ANSWERS, HOSTS, HTTP_ONLY, IDENTITIES, JOINS, TYPED


async def over_websocket(
    e: Ports, join: dict[str, Any] | None, body: Any, **envelope: Any
) -> tuple[str, str | None]:
    """Code and path of the error that a message is answered with, on a connection that has joined."""
    async with e.raw() as raw:
        await raw.open()
        if join is not None:
            await raw.send_message(t="join", **join)
            await raw.expect_message("joined")
        await raw.send_frame(json.dumps({**envelope, **body} if isinstance(body, dict) else body).encode())
        error = await raw.expect_message("error")
        return error["code"], error.get("path")


@pytest.mark.parametrize(("body", "status", "code", "path"), JOINS)
async def test_joins(body: Any, status: int, code: str, path: str | None) -> None:
    async with ports() as e:
        session = await e.session()
        await session.join("Ada")
        refused = await e.post(f"{session.url}/players", body)
        assert (refused.status, refused.error) == (status, code)
        if path is not None:
            assert refused.path == path
        if code not in HTTP_ONLY:
            told = await over_websocket(e, None, body, t="join", code=session.code)
            assert told == (code, refused.path)
        assert (await session.actor()).session.active == 1


@pytest.mark.parametrize(("token", "status", "code"), IDENTITIES)
async def test_identities(token: Callable[[], str], status: int, code: str) -> None:
    async with ports(**SETTINGS) as e:
        session, identity = await e.session(), token()
        refused = await e.post(f"{session.url}/players", {"identity": identity})
        assert (refused.status, refused.error, refused.path) == (status, code, "identity")
        told = await over_websocket(e, None, {"identity": identity}, t="join", code=session.code)
        assert told == (code, "identity")
        as_bearer = await e.post(f"{session.url}/players", {}, token=identity)
        assert (as_bearer.status, as_bearer.error) == (
            401 if code == "bad_field" else status,
            as_bearer.error,
        )
        assert as_bearer.error == ("identity_invalid" if code == "bad_field" else code)
        assert (await session.actor()).session.active == 0


async def test_a_user_comes_in_by_every_door_and_is_one_player() -> None:
    async with ports(**SETTINGS) as e:
        session, identity = await e.session(), signed(name="Ada", locale="en", extra_time="untimed")
        first = await e.post(f"{session.url}/players", {"identity": identity})
        second = await e.post(f"{session.url}/players", {}, token=identity)
        assert [(each.status, each.json["player_id"], each.json["name"]) for each in (first, second)] == [
            (201, 1, "Ada"),
            (201, 1, "Ada"),
        ]
        async with e.raw() as phone, e.raw() as tablet:
            for device in (phone, tablet):
                await device.open()
                await device.send_message(t="join", code=session.code, identity=identity)
                assert (await device.expect_message("joined"))["player"] == 1
            assert (await phone.expect(8)).close_code == CloseReason.REPLACED.code
            position = {"epoch": 1, "offset": 0}
            async with e.raw() as again:
                await again.open()
                await again.send_message(t="join", code=session.code, identity=identity, **position)
                assert (await again.expect_message("joined"))["state"] is None
        assert (await session.actor()).session.active == 1


async def test_a_node_takes_guests_or_identities_as_it_is_set() -> None:
    async with ports(**{**SETTINGS, "identity": "required"}) as e:
        session = await e.session()
        refused = await e.post(f"{session.url}/players", {"name": "Ada"})
        assert (refused.status, refused.error) == (401, "identity_required")
        told = await over_websocket(e, None, {"name": "Ada"}, t="join", code=session.code)
        assert told == ("identity_required", "identity")
        assert (await e.post(f"{session.url}/players", {"identity": signed(name="Ada")})).status == 201
    async with ports() as e:
        session = await e.session()
        refused = await e.post(f"{session.url}/players", {"name": "Ada", "identity": signed()})
        assert (refused.status, refused.error) == (400, "identity_off")
        told = await over_websocket(e, None, {"identity": signed()}, t="join", code=session.code)
        assert told == ("identity_off", "identity")
        with pytest.raises(AssertionError, match="nobody could join"):
            await e.session(identity="required")


async def test_forged_identities_count_as_wrong_codes_do() -> None:
    forged = made_up({"alg": "HS256"}, bytes(32))
    async with ports(**SETTINGS, attempts_per_min=3) as e:
        session = await e.session()
        codes = [(await e.post(f"{session.url}/players", {"identity": forged})).error for _ in range(4)]
        assert codes == ["identity_invalid"] * 3 + ["too_many_attempts"]
        async with e.raw() as raw:
            await raw.open()
            await raw.send_message(t="join", code=session.code, identity=forged)
            assert (await raw.expect_message("error"))["code"] == "identity_invalid"
            assert (await raw.expect_message("error"))["code"] == "too_many_attempts"
            assert (await raw.expect(8)).close_code == CloseReason.TOO_MANY_ATTEMPTS.code


@pytest.mark.parametrize(("body", "status", "code", "path"), ANSWERS)
async def test_answers(body: Any, status: int, code: str, path: str | None) -> None:
    async with ports() as e:
        session, ada = await e.started("Ada")
        refused = await e.post(f"{session.url}/answers", body, token=ada["token"])
        assert (refused.status, refused.error, refused.path) == (status, code, path)
        if code not in HTTP_ONLY and body != TYPED:
            join = {"code": session.code, "token": ada["token"]}
            assert await over_websocket(e, join, body, t="answer") == (code, path)
        assert (await session.actor()).session.answered == 0


@pytest.mark.parametrize(("body", "status", "code", "path"), HOSTS)
async def test_host_commands(body: Any, status: int, code: str, path: str | None) -> None:
    async with ports() as e:
        session = await e.session()
        await session.join("Ada")
        refused = await e.post(f"{session.url}/host", body, token=session.host_token)
        assert (refused.status, refused.error, refused.path) == (status, code, path)
        join = {"code": session.code, "token": session.host_token}
        assert await over_websocket(e, join, body, t="host", id="h") == (code, path)
        assert (await session.actor()).session.phase == "lobby"
