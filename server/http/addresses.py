"""Where a client finds the node: its realtime port, and its pages."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from quart import request

from engine.shards.router import RemoteSession
from server.errors import ApiError
from server.http.access import host_name
from server.http.services import LiveSession, Services


def ws_url(services: Services, session: LiveSession | None) -> str:
    """Of the WebSocket, where the session runs if that is known."""
    if isinstance(session, RemoteSession):
        return session.member.ws_url
    return services.ws_url if services.config.public_ws_url else _as_reached(services.ws_url)


def play_url(services: Services, session: LiveSession | None) -> str:
    """Where answers and event streams cost least, as a base like that of this API: the realtime port if it
    takes them, else this API. A load balancer in front has one address for both."""
    if isinstance(session, RemoteSession):
        return session.member.play_url
    return services.play_url if services.config.public_url else _as_reached(services.play_url)


def join_url(services: Services, code: str) -> str:
    """The page that joins the session with this code. Raises ApiError if nobody can know its address."""
    base = services.config.public_url
    if base is None:
        host = request.headers.get("Host", "")
        if not host_name(host):
            raise ApiError("bad_message", "The Host header does not say how this node is reached.")
        base = f"{request.scheme}://{host}"
    return f"{base.rstrip('/')}/?code={code}"


def _as_reached(url: str) -> str:
    """An address of this node, under the name by which the client reached us: a phone that asked for
    192.168.1.5 cannot connect to 127.0.0.1."""
    name = host_name(request.headers.get("Host", ""))
    if not (name and url):  # a node without a realtime port has no address of one
        return url
    bound = urlsplit(url)
    host = f"[{name}]" if ":" in name else name
    return urlunsplit(bound._replace(netloc=host if bound.port is None else f"{host}:{bound.port}"))
