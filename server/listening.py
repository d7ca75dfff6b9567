"""Where a node listens, and under which addresses its clients and the other nodes reach it."""

from __future__ import annotations

import errno
import secrets
import socket
import ssl
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from server.config.config import Config
from server.security.client_address import EVERYWHERE

_PORTS = range(10_000, 32_768)
"""Below those that the kernel picks for connections: it would give one away while the node that it is for is
down."""


class StartError(Exception):
    """The node cannot start. One sentence for the person who started it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The bound sockets of a node, and its addresses as bound or as configured. `realtime` is None, and
    `ws_url` and `play_url` are empty, on a node for the API alone."""

    http: socket.socket
    realtime: socket.socket | None
    tls: ssl.SSLContext | None
    http_url: str
    ws_url: str
    play_url: str


def open_ports(config: Config, stack: ExitStack) -> Ports:
    """Bind the HTTP port, and the realtime port of a node that has one, for as long as the stack is open.
    Raises StartError."""
    http = stack.enter_context(bound(config.host, config.http_port, "http_port"))
    realtime = None
    if config.role != "api":
        realtime = stack.enter_context(bound(config.host, config.realtime_port, "realtime_port"))
    tls = _tls(config)
    ws_url = play_url = ""
    if realtime is not None:
        ws_url = config.public_ws_url or url_of("ws", realtime, tls) + "/ws"
        carrier = realtime if config.carrier == "reactor" else http
        play_url = config.public_url or url_of("http", carrier, tls)
    return Ports(http, realtime, tls, config.public_url or url_of("http", http, tls), ws_url, play_url)


def bound(host: str, port: int, setting: str) -> socket.socket:
    """A bound TCP socket that does not listen yet. Raises StartError."""
    option = "--" + setting.replace("_", "-")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise StartError(f"cannot listen on {host}: {error.strerror or error}") from error
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        # Only a listening socket keeps a second node from binding the same port.
        opened.listen(1)
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"port {port} on {host} is taken: stop what listens there, or choose another with {option}"
            ) from error
        raise StartError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return opened


def free_ports(count: int) -> list[int]:
    """TCP ports of 127.0.0.1 that nobody has now, all different."""
    found: list[int] = []
    while len(found) < count:
        port = secrets.choice(_PORTS)  # whoever repeats a run seeds the generator of `random`
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in found:
                found.append(port)
    return found


def url_of(scheme: str, bound: socket.socket, tls: ssl.SSLContext | None) -> str:
    host, port = bound.getsockname()[:2]
    # By a loopback name one is its author without a key, by one that stands for all addresses not.
    host = EVERYWHERE.get(host, host)
    if ":" in host:
        host = f"[{host}]"
    return f"{scheme}{'s' if tls else ''}://{host}:{port}"


def _tls(config: Config) -> ssl.SSLContext | None:
    if config.tls_cert is None or config.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"the certificate {config.tls_cert} with its key: {error}") from error
    return context
