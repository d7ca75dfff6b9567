"""The address of a client behind proxies, and the origin of its web page."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

EVERYWHERE: Mapping[str, str] = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses to listen on that stand for all of a machine, and the ones by which it reaches itself then."""

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+", re.ASCII)
_HOST_HEADER = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?", re.ASCII)


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


@lru_cache(maxsize=1024)
def origin_of(url: str) -> str | None:
    """Scheme, host and port of an address, as browsers write an origin: in lower case, and without a default
    port. None if the text is not the address of a server."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not _HOST.fullmatch(host):
        return None
    shown = f"[{host}]" if ":" in host else host
    if port in (None, _DEFAULT_PORTS[parts.scheme]):
        return f"{parts.scheme}://{shown}"
    return f"{parts.scheme}://{shown}:{port}"


def origin_allowed(
    origin: str | None,
    host: str | None,
    http_port: int,
    public_url: str | None,
    allowed: Collection[str],
    pages: Iterable[str] = (),
) -> bool:
    """Whether a browser page from `origin` may use this node.

    Browsers send Origin, and a page cannot make them lie about it; programs need not send it. A page of this
    node comes from the same host and port as the request, or from that host at the port of the web pages,
    which differs from that of the WebSocket, or from the public address. Another port of the host is another
    origin.

    Args:
        origin: the Origin header; None without one.
        host: the Host header.
        http_port: where this node has its web pages.
        public_url: the configured address of the web pages.
        allowed: further origins, in lower case.
        pages: addresses of all nodes of the cluster: a page of one may use the sessions of another.
    """
    if origin is None:
        return True
    origin = origin.lower()
    if origin in allowed or origin == origin_of(public_url or ""):
        return True
    name = host_name(host or "")
    if name:
        shown = f"[{name}]" if ":" in name else name
        # Whether the client came by TLS, a proxy may know alone.
        own = (f"{scheme}://{at}" for scheme in ("http", "https") for at in (host, f"{shown}:{http_port}"))
        if any(origin == origin_of(url) for url in own):
            return True
    return any(origin == origin_of(url) for url in pages)


def host_name(host: str) -> str:
    """The name or address in a Host header, without brackets and port; empty if there is none."""
    match = _HOST_HEADER.fullmatch(host)
    return match["name"].strip("[]").lower() if match else ""


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    if not _is_address(name):
        return False
    parsed = ip_address(name)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
