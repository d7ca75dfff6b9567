"""The ports of a cluster on one machine, and the settings of its nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from server.config.config import PREFIX, Config
from server.listening import free_ports
from server.security.client_address import EVERYWHERE

BASE_PORT = 5000
PORTS_APART = 10
"""From one node's ports to the next one's."""

PER_NODE = frozenset(
    """data_dir node http_port realtime_port link_port link_url role database_url redis_url secret""".split()  # noqa: SIM905  # words read better
)
"""Settings that the command sets, and that override the environment."""


@dataclass(frozen=True, slots=True)
class Place:
    """A node's name, and its ports on this machine."""

    name: str
    http_port: int
    realtime_port: int
    link_port: int

    def directory(self, cluster_directory: Path) -> Path:
        """Made when it is not there yet."""
        made = cluster_directory / self.name
        made.mkdir(exist_ok=True)
        return made


@dataclass(frozen=True, slots=True)
class Plan:
    """The ports of a cluster. `listens_on` is the address that is bound, `host` the one to reach it from this
    machine.

    `author_key` is that of all nodes; `key_made` tells that it is not configured.
    """

    places: Sequence[Place]
    listens_on: str
    host: str
    proxy_port: int | None
    author_key: str
    key_made: bool

    def url(self, place: Place) -> str:
        return f"http://{self.host}:{place.http_port}"

    def ws_url(self, place: Place) -> str:
        return f"ws://{self.host}:{place.realtime_port}/ws"

    @property
    def proxy_url(self) -> str:
        return f"http://{self.host}:{self.proxy_port}"


def plan_for(nodes: int, base_port: int, config: Config, author_key: str, *, proxy: bool) -> Plan:
    """Ports for so many nodes. With `base_port` 0 they are free ones, as far as one can tell beforehand."""
    host = "127.0.0.1" if config.host in EVERYWHERE else config.host
    if base_port:
        ports = [base_port + PORTS_APART * index + offset for index in range(nodes) for offset in (1, 2, 3)]
        proxy_port = base_port
    else:
        proxy_port, *ports = free_ports(3 * nodes + 1)
    places = [Place(f"node-{1 + at // 3}", *ports[at : at + 3]) for at in range(0, len(ports), 3)]
    return Plan(
        places, config.host, host, proxy_port if proxy else None, author_key, config.author_key is None
    )


def environment(
    environ: Mapping[str, str], plan: Plan, place: Place, directory: Path, shared: Mapping[str, str]
) -> dict[str, str]:
    """The environment of one node: the settings of the user, overridden by those of the command."""
    decided: dict[str, object] = {
        "data_dir": directory / place.name,
        "node": place.name,
        "http_port": place.http_port,
        "realtime_port": place.realtime_port,
        "link_port": place.link_port,
        "author_key": plan.author_key,
        **shared,
    }
    kept = {name: value for name, value in environ.items() if _key(name) not in PER_NODE}
    if plan.proxy_port is not None:
        decided["public_url"] = f"{plan.proxy_url}/n/{{node}}"
        decided["public_ws_url"] = f"{plan.proxy_url.replace('http', 'ws', 1)}/n/{{node}}/ws"
        decided["proxy_hops"] = 1
    return kept | {PREFIX + key.upper(): str(value) for key, value in decided.items()}


def _key(variable: str) -> str | None:
    return variable.removeprefix(PREFIX).lower() if variable.startswith(PREFIX) else None


def highest_port(nodes: int, base_port: int) -> int:
    return base_port + PORTS_APART * (nodes - 1) + 3
