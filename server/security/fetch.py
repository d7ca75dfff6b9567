"""Requests to other servers, which may be slow, away, or wrong: bounded in time and in what is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    import ssl

    import httpx


class FetchError(Exception):
    """There is no answer, or it is too long. The message names the address, and is for the log."""


_NO_HEADERS: Mapping[str, str] = {}


class Fetcher:
    """Sends requests. No redirect is followed: where to ask is for the operator to say. The proxies that the
    environment names are used.

    Args:
        timeout_s: of each step of a request.
        bytes_max: of an answer.
        transport: what carries the requests; None is the network.
    """

    def __init__(
        self, timeout_s: float, bytes_max: int, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._timeout_s = timeout_s
        self._bytes_max = bytes_max
        self._transport = transport
        self._context: ssl.SSLContext | None = None

    async def read(
        self, method: str, url: str, headers: Mapping[str, str] = _NO_HEADERS, **more: Any
    ) -> tuple[int, bytes]:
        """The status and the body of the answer, whatever the status. Args: headers: of the request, beside
        those that ask for plain JSON. more: as httpx has it. Raises FetchError."""
        if self._context is None and self._transport is None:
            self._context = await trio.to_thread.run_sync(_tls_context)
        import httpx  # has been imported by the thread

        body = bytearray()
        try:
            async with (
                httpx.AsyncClient(
                    verify=self._context or True, timeout=self._timeout_s, transport=self._transport
                ) as client,
                client.stream(
                    method,
                    url,
                    headers={"Accept": "application/json", "Accept-Encoding": "identity", **headers},
                    **more,
                ) as response,
            ):
                async for piece in response.aiter_bytes():
                    # To the end, or to the time-out: httpx leaves what reads a response that is cut short to
                    # the garbage.
                    body += piece[: self._bytes_max + 1 - len(body)]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise FetchError(f"{url}: {str(error) or type(error).__name__}") from None
        if len(body) > self._bytes_max:
            raise FetchError(f"{url}: more than {self._bytes_max} bytes")
        return response.status_code, bytes(body)


def _tls_context() -> ssl.SSLContext:
    """For a thread: httpx, what its first client imports, and the certificates take a tenth of a second, and
    only nodes that ask others need them."""
    import httpx

    context = httpx.create_ssl_context()
    httpx.AsyncClient(verify=context)
    return context
