"""The services of a cluster on one machine, in a process of their own that runs as long as they are needed.

`fanfare cluster` and each of its nodes hold the write end of a pipe whose read end is standard input here.
The kernel closes it for every process that ends, killed or not. So the end of standard input means that all
of them are gone, which gives the right order: nodes end first, then their services.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from server.cli.load.nodes import DATABASE_CONNECTIONS_PER_NODE

HAPROXY_END_WITHIN_S = 5.0

LISTENER_VARIABLE = "LISTENER"
LISTENER = f'"fd@${{{LISTENER_VARIABLE}}}"'
"""The socket that HAProxy binds. It listens already, so no early client is refused."""


class Service(Protocol):
    """A service of the nodes."""

    def start(self) -> str:
        """Returns how it is reached, once it can be used. Raises what keeps it from that."""

    def stop(self) -> object: ...


class Haproxy:
    """An HAProxy over a file, in which it binds `LISTENER`. Its log is next to the file.

    From `start` on clients can connect. `go` lets it look for the nodes, which should be up by then.
    """

    def __init__(self, program: str, file: Path, host: str, port: int) -> None:
        self._command = [program, "-db", "-f", str(file)]
        self._log = file.with_suffix(".log")
        self._place = (host, port)
        self._listener: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Raises OSError when the port is taken."""
        self._listener = socket.create_server(self._place)
        return f"http://{self._place[0]}:{self._place[1]}"

    def go(self) -> None:
        assert self._listener is not None, "it was started"
        listener = self._listener.fileno()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {LISTENER_VARIABLE: str(listener)},
                pass_fds=[listener],
            )

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(HAPROXY_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def keep(
    services: Mapping[str, Service],
    stdin: int,
    tell: Callable[[str], object],
    go: Callable[[], object] = lambda: None,
) -> None:
    """Start them in order, `tell` their addresses as one JSON object by name, and stop them in the opposite
    order when `stdin` has ended. When one does not start, those before it are stopped. The first that comes
    over `stdin` says that the nodes are up: `go`."""
    with ExitStack() as stack:
        addresses = {}
        for name, service in services.items():
            addresses[name] = service.start()
            stack.callback(service.stop)
        tell(json.dumps(addresses))
        if os.read(stdin, 1):
            go()
        while os.read(stdin, 4096):
            pass


def main(directory: Path, nodes: int, haproxy: Haproxy | None) -> None:
    """Keep PostgreSQL, Redis and, if it is given, HAProxy, for so many nodes."""
    from engine.shards.embedded_redis import EmbeddedRedis
    from engine.storage.embedded import EmbeddedPostgres

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    connections_max = 10 + nodes * DATABASE_CONNECTIONS_PER_NODE
    services: dict[str, Service] = {
        "postgres": EmbeddedPostgres(directory, connections_max=connections_max),
        "redis": EmbeddedRedis(directory / "redis"),
    }
    if haproxy is not None:
        services["haproxy"] = haproxy
    go = (lambda: None) if haproxy is None else haproxy.go
    try:
        keep(services, sys.stdin.fileno(), lambda line: print(line, flush=True), go)  # noqa: T201 - to who has started it
    except Exception as error:  # noqa: BLE001 - one line for a person, whatever it was
        sys.exit(f"{type(error).__name__}: {error}")


def _haproxy(program: str, file: str, host: str, port: str) -> Haproxy:
    return Haproxy(program, Path(file), host, int(port))


if __name__ == "__main__":
    _, given_directory, given_nodes, *given_haproxy = sys.argv
    main(
        Path(given_directory),
        int(given_nodes),
        _haproxy(*given_haproxy) if given_haproxy else None,
    )
