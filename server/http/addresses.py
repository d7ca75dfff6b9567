"""Where a client finds the node: its realtime port, and its pages."""

from __future__ import annotations

from socket import AF_INET, SOCK_DGRAM, socket
from urllib.parse import urlsplit, urlunsplit

from quart import request

from engine.shards.router import RemoteSession
from server.http.services import LiveSession, Services
from server.realtime.handshake import HUB_PATH
from server.security.client_address import EVERYWHERE, host_name, is_loopback

ELSEWHERE = "192.0.2.1"
"""An unused address (RFC 5737): the route to it is the default route."""


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


def hub_url(services: Services) -> str | None:
    """Of the hub of this node, or else of any that has one; None if none has."""
    urls = (ws_url(services, None), *(member.ws_url for member in services.members()))
    found = next((url for url in urls if url), None)
    return None if found is None else f"http{found.removeprefix('ws').removesuffix('/ws')}{HUB_PATH}"


def join_url(services: Services, code: str) -> str | None:
    """The page that joins the session with this code; None if its address is unknown.

    A host on the node's own machine asks by a loopback name, which is of no use to other machines. If the
    node listens on all addresses, the address in the network is returned instead.
    """
    base = services.config.public_url
    if base is None:
        host = request.headers.get("Host", "")
        name = host_name(host)
        if not name:
            return None
        if is_loopback(name) and services.config.host in EVERYWHERE and (own := network_address()):
            port = urlsplit(f"//{host}").port
            host = own if port is None else f"{own}:{port}"
        base = f"{request.scheme}://{host}"
    return f"{base.rstrip('/')}/?code={code}"


def network_address() -> str | None:
    """The address of this machine in its network; None without a network. Nothing is sent: connecting a
    datagram socket only asks the kernel for the route."""
    with socket(AF_INET, SOCK_DGRAM) as asking:
        try:
            asking.connect((ELSEWHERE, 9))
        except OSError:
            return None
        found = str(asking.getsockname()[0])
    return None if is_loopback(found) else found


def _as_reached(url: str) -> str:
    """An address of this node, under the name by which the client reached us: a phone that asked for
    192.168.1.5 cannot connect to 127.0.0.1."""
    name = host_name(request.headers.get("Host", ""))
    if not (name and url):  # a node without a realtime port has no address of one
        return url
    bound = urlsplit(url)
    host = f"[{name}]" if ":" in name else name
    return urlunsplit(bound._replace(netloc=host if bound.port is None else f"{host}:{bound.port}"))
