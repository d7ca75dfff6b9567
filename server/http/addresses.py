"""Where a client finds the WebSocket of this node."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from quart import request

from server.http.access import host_name
from server.http.services import Services


def ws_url(services: Services) -> str:
    """The configured address; without one, the bound port at the name by which the client reached us: a
    phone that asked for 192.168.1.5 cannot connect to 127.0.0.1."""
    if services.config.public_ws_url is not None:
        return services.config.public_ws_url
    name = host_name(request.headers.get("Host", ""))
    if not name:
        return services.ws_url
    bound = urlsplit(services.ws_url)
    host = f"[{name}]" if ":" in name else name
    return urlunsplit(bound._replace(netloc=host if bound.port is None else f"{host}:{bound.port}"))
