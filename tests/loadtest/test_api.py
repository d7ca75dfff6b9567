"""The client of the HTTP API, where a connection ends at a bad moment."""

from __future__ import annotations

import gc

import httpx
import pytest

from loadtest.client.api import Api, ApiUnreachable


class Broken(httpx.AsyncBaseTransport):
    """The connection breaks while the request's body is being sent."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        async for part in request.stream:
            self.taken.append(part)
            raise httpx.WriteError("the other end is gone")
        raise AssertionError("a body was to be sent")


async def test_a_request_that_breaks_off_leaves_nothing_unfinished() -> None:
    transport = Broken()
    async with Api("http://127.0.0.1:9", transport=transport) as api:
        with pytest.raises(ApiUnreachable, match="the other end is gone"):
            await api.join("123456", "Ada")
    gc.collect()  # what is unfinished complains when it is collected
    assert transport.taken == [b'{"name":"Ada"}']
