"""The configuration of an HAProxy in front of a cluster: one address for all nodes, and one for each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

Role = Literal["api", "realtime", "both"]

CLIENTS_MAX = 150_000
PORT = 5000
PER_ADDRESS_MAX = 6_000
"""Connections from one address: a school may have one for all of its pupils."""

NEW_PER_ADDRESS = 2
"""As many times that may come anew in ten seconds: a page opens several connections."""

FILES_PER_CLIENT = 2
"""One connection to the client, one to the node."""

FILES_BESIDE = 200
"""Listeners, checks, pipes: what HAProxy opens besides."""

_NODE = re.compile(
    r"(?P<name>[\w.-]{1,64})=(?P<host>[\w.-]+):(?P<http>\d{1,5})(?::(?P<realtime>\d{1,5}))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A node as the proxy reaches it. `realtime_port` is None for one of the role `api`."""

    name: str
    host: str
    http_port: int
    realtime_port: int | None
    role: Role = "both"

    @classmethod
    def parse(cls, text: str, role: Role) -> Upstream:
        """From `NAME=HOST:HTTP_PORT:REALTIME_PORT`; a node of the role `api` has no realtime port here.

        Raises ValueError."""
        found = _NODE.fullmatch(text)
        if found is None or (found["realtime"] is None) != (role == "api"):
            form = "NAME=HOST:HTTP_PORT" + ("" if role == "api" else ":REALTIME_PORT")
            raise ValueError(f"{text!r} is not of the form {form}")
        realtime_port = None if found["realtime"] is None else int(found["realtime"])
        return cls(found["name"], found["host"], int(found["http"]), realtime_port, role)


def configuration(
    nodes: Sequence[Upstream],
    *,
    bind: str = f":{PORT}",
    clients_max: int = CLIENTS_MAX,
    per_address_max: int = PER_ADDRESS_MAX,
    proxy_hops: int = 0,
    note: str = "",
) -> str:
    """The content of haproxy.cfg, for HAProxy 2.6 and later.

    Args:
        bind: address and port to listen on.
        clients_max: connections from clients at a time.
        per_address_max: of those, from one address. IPv6 addresses count by their /64.
        proxy_hops: trusted proxies in front of HAProxy, so that the client's address is that many from the
            right in X-Forwarded-For. With 0 it is what the socket shows.
        note: goes into the first line.

    Raises ValueError if two nodes have one name, or if no node serves the API or sessions.
    """
    names = [node.name for node in nodes]
    if len(set(names)) != len(names):
        raise ValueError("two nodes have the same name")
    if not any(node.role != "realtime" for node in nodes):
        raise ValueError("no node is there for the API")
    if not any(node.role != "api" for node in nodes):
        raise ValueError("no node is there for the sessions")
    by_name = not all(_is_address(node.host) for node in nodes)
    return _TEMPLATE.format(
        note=f"# {note}\n" if note else "",
        bind=bind,
        clients_max=clients_max,
        limits=_limits(per_address_max, proxy_hops),
        files=files_for(clients_max),
        resolvers=_RESOLVERS if by_name else "",
        resolved=_RESOLVED if by_name else "",
        http="\n".join(_http_servers(nodes)),
        realtime="\n".join(_realtime_servers(nodes)),
    )


def files_for(clients_max: int) -> int:
    """Open files that HAProxy needs for so many clients."""
    return FILES_PER_CLIENT * clients_max + FILES_BESIDE


def clients_for(files: int) -> int:
    """So many clients as these open files allow, and no more than `CLIENTS_MAX`."""
    return min(CLIENTS_MAX, (files - FILES_BESIDE) // FILES_PER_CLIENT)


def _http_servers(nodes: Iterable[Upstream]) -> Iterable[str]:
    for node in nodes:
        # Weight 0: never chosen for what may go anywhere, and still there for what is addressed to it.
        weight = " weight 0" if node.role == "realtime" else ""
        yield f"    server {node.name} {node.host}:{node.http_port} check{weight}"


def _realtime_servers(nodes: Iterable[Upstream]) -> Iterable[str]:
    for node in nodes:
        if node.role != "api":
            yield f"    server {node.name} {node.host}:{node.realtime_port} track http/{node.name}"


def _limits(per_address_max: int, proxy_hops: int) -> str:
    if proxy_hops:
        return _LIMITS_BEHIND_PROXIES.format(per_address_max=per_address_max, proxy_hops=proxy_hops)
    new_max = NEW_PER_ADDRESS * per_address_max
    return _LIMITS.format(per_address_max=per_address_max, new_max=new_max)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


_RESOLVERS = """
# Nodes come and go with other addresses under the same name.
resolvers names
    parse-resolv-conf
    hold valid 5s
"""

_RESOLVED = """
    # A name that is not known yet keeps nothing from starting: the node is down until it is.
    default-server init-addr last,libc,none resolvers names resolve-prefer ipv4"""

_LIMITS = """\
    # What one address may have, counted from the acceptance on, be it silent: connections at a time, and new
    # ones in ten seconds. More are closed without a word. With a proxy in front that would be the proxy: make
    # the file with --proxy-hops then.
    stick-table type ipv6 size 200k expire 10s store conn_cur,conn_rate(10s)
    tcp-request connection track-sc0 src,ipmask(32,64)
    tcp-request connection reject if {{ sc0_conn_cur gt {per_address_max} }}
    tcp-request connection reject if {{ sc0_conn_rate gt {new_max} }}"""

_LIMITS_BEHIND_PROXIES = """\
    # What one address may have at a time: WebSockets, event streams and requests. The proxy in front says
    # whose they are, and has to limit silent connections itself.
    stick-table type ipv6 size 200k expire 10s store conn_cur
    http-request track-sc0 req.hdr_ip(x-forwarded-for,-{proxy_hops}),ipmask(32,64)
    http-request deny deny_status 429 hdr Retry-After 10 if {{ sc0_conn_cur gt {per_address_max} }}"""

_TEMPLATE = """\
{note}
global
    log stdout format raw local0 info
    # Each client is two connections: one of its own and one to a node. So this needs {files:,} open files
    # (ulimit -n), and HAProxy does not start with fewer.
    maxconn {clients_max}
    # After a reload the old process keeps its connections for so long at most. Clients come back.
    hard-stop-after 60s
    # A connection to a node takes one of the local ports, of which Linux gives 28,000 for each address and
    # port that is connected to. Nodes have an address or a port of their own, so that holds for each node,
    # and a node takes as many connections as its open files allow. For more than 28,000 on one node:
    # sysctl net.ipv4.ip_local_port_range="1024 65535", or several "source" addresses.
{resolvers}
defaults
    mode http
    log global
    # Without the query: it may hold a token. What went well is not logged.
    log-format "%ci %b/%s %Tw/%Tc/%Tr/%Ta %ST %B %ts %HM %HPO"
    option dontlog-normal
    # Nodes take the client's address from this with proxy_hops = 1; one more for each proxy in front.
    option forwardfor
    # A node that has just died: its client goes on to another.
    option redispatch 1
    retries 3
    # Nobody needs HTTP/2 here, and a preface of it would be a state more to wait in.
    option disable-h2-upgrade
    timeout connect 2s
    timeout queue 5s
    # From the acceptance to the end of the first head, however slowly it comes.
    timeout http-request 10s
    timeout http-keep-alive 75s
    # An event stream is never silent for longer than 5 s.
    timeout client 60s
    timeout server 60s
    timeout client-fin 10s
    timeout server-fin 10s
    # A WebSocket is never silent for twice ping_interval_s: only what is dead on both sides is cut.
    timeout tunnel 1h
    timeout check 1s

frontend fanfare
    # With TLS: bind :443 ssl crt /etc/haproxy/certs/ alpn http/1.1
    bind {bind}
    maxconn {clients_max}

{limits}

    # /n/NAME/... is the node of this name, which sees the rest of the path.
    http-request set-var(txn.node) path,field(3,/) if {{ path_beg /n/ }}
    http-request replace-path ^/n/[^/]+/?(.*) /\\1 if {{ path_beg /n/ }}

    # Metrics are for those who run the nodes.
    http-request return status 404 if {{ path,url_dec -m str /metrics }}

    # As much as nodes take, by the declared length; what comes without one, they count. A quiz may be long:
    # longer yet with body_bytes_max.
    acl quiz path /api/quizzes /api/quizzes/check
    http-request deny deny_status 413 if quiz {{ req.body_size gt 1048576 }}
    http-request deny deny_status 413 if !quiz {{ req.body_size gt 65536 }}

    # What the realtime port takes: WebSockets, and there answers and event streams cost a tenth.
    acl websocket path /ws
    acl hub path /hub /hub/negotiate
    acl answers path_reg ^/api/sessions/[^/]+/(answers|next)$
    acl events path_reg ^/api/sessions/[^/]+/events$
    use_backend realtime if websocket or hub
    use_backend realtime if answers METH_POST
    use_backend realtime if events METH_GET
    default_backend http

# A node is asked whether it is ready. One that says it is not, as when it drains, is chosen no more. It keeps
# what it has, and what is addressed to it by name, for it knows where a session is. One that does not answer
# twice in a row is dead or hangs: it is down within three seconds, its connections are closed, and their
# clients come back to another.
backend http
    balance leastconn
    option httpchk
    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host fanfare
    http-check expect error-status L7OKC status 200
    default-server inter 500ms fastinter 250ms downinter 1s fall 2 rise 1 maxconn 3500{resolved}
    default-server on-marked-down shutdown-sessions
    use-server %[var(txn.node)] if {{ var(txn.node) -m found }}
{http}

backend realtime
    balance leastconn{resolved}
    default-server on-marked-down shutdown-sessions
    use-server %[var(txn.node)] if {{ var(txn.node) -m found }}
{realtime}
"""
