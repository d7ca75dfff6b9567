"""The table of refusals over the API and over a WebSocket. For answers over HTTP on the realtime port,
test_exchange.py holds it against the API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.realtime.test_exchange import Ports, ports
from tests.refusals import ANSWERS, HOSTS, HTTP_ONLY, JOINS, TYPED


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


@pytest.mark.parametrize(("body", "status", "code", "path"), ANSWERS)
async def test_answers(body: Any, status: int, code: str, path: str | None) -> None:
    async with ports() as e:
        session = await e.session()
        ada = await session.join("Ada")
        await session.do("start")
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
