"""Who is at the other end: the client's address behind proxies, and the web page it speaks for."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit


def client_address(peer: str, forwarded_for: str | None, proxy_hops: int) -> str:
    """The address of the client.

    Args:
        peer: the address that the socket shows.
        forwarded_for: the X-Forwarded-For header, several of them joined by commas; None without one.
        proxy_hops: trusted proxies in front of us. Each has added one address at the right end, so the
            client is that many from the right; what stands further left, the client may have written itself.
    """
    if proxy_hops == 0 or not forwarded_for:
        return peer
    hops = forwarded_for.split(",")
    if len(hops) < proxy_hops:
        return peer
    return _address(hops[-proxy_hops].strip()) or peer


def _address(text: str) -> str | None:
    """An address with or without brackets and port, in its usual spelling."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def origin_allowed(
    origin: str | None, host: str | None, public_url: str | None, allowed: Collection[str]
) -> bool:
    """Whether a browser page from `origin` may open a connection.

    Browsers send Origin, and a page cannot make them lie about it; programs need not send it. A page from
    the host that it connects to, or from the public address, is allowed whatever the port: the web pages
    and the WebSocket have different ones.

    Args:
        origin: the Origin header; None without one.
        host: the Host header.
        public_url: the configured address of the web pages.
        allowed: further origins, in lower case.
    """
    if origin is None or origin.lower() in allowed:
        return True
    own = {_hostname(f"//{host}"), _hostname(public_url or "")}
    return _hostname(origin) in own - {None}


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
