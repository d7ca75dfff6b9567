"""How many connections a node takes: as many as the limit of open files leaves room for.

How to think about it: each connection is an open file, and a process without a free file can neither commit
nor let anybody in. The process may open as many files as the hard limit of RLIMIT_NOFILE says; a node raises
its soft limit to that when it starts. Of these files some are set aside first:

    FILES_BESIDE   connections to PostgreSQL and Redis, a link to each other node, the spool, the listening
                   sockets, and clients that are being told that there is no room
    a fortieth     connections to the HTTP API, 100 at least and 4,000 at most
    the rest       connections to the realtime port, unless `connections_max` says how many

With 20,000 files these are 250, 500 and 19,250. Where `connections_max` is set, the HTTP API gets what is
left, within the same bounds.
"""

from __future__ import annotations

import resource
from typing import Final, NamedTuple

FILES_BESIDE: Final = 250
HTTP_SHARE: Final = 40
HTTP_LEAST, HTTP_MOST = 100, 4_000
CONNECTIONS_MOST: Final = 1_000_000

FEW: Final = 10_000
"""A limit that leaves room for fewer connections is worth a warning."""

HOW: Final = "`ulimit -n` in a shell, LimitNOFILE= in systemd, --ulimit nofile= in Docker"


class Room(NamedTuple):
    """Connections that a node takes, at its realtime port and at its HTTP API."""

    realtime: int
    http: int


def files_allowed() -> int:
    """Files that this process may open once it has raised its limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MOST + HTTP_MOST + FILES_BESIDE if hard == resource.RLIM_INFINITY else hard


def raise_limit() -> None:
    """Use all files that the process is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def room(connections_max: int, allowed: int | None = None) -> Room:
    """What the limit leaves room for.

    Args:
        connections_max: as configured; 0 for as many as there is room for.
        allowed: files; None for those of this process.
    """
    files = (files_allowed() if allowed is None else allowed) - FILES_BESIDE
    if connections_max:
        return Room(connections_max, min(max(files - connections_max, HTTP_LEAST), HTTP_MOST))
    http = min(max((files + FILES_BESIDE) // HTTP_SHARE, HTTP_LEAST), HTTP_MOST)
    return Room(min(max(files - http, 1), CONNECTIONS_MOST), http)


def problem(connections_max: int, allowed: int | None = None) -> str | None:
    """A sentence on a limit that is too low, and on how to raise it; None if it is not."""
    files = files_allowed() if allowed is None else allowed
    taken = room(connections_max, files)
    needed = taken.realtime + FILES_BESIDE + HTTP_LEAST
    if connections_max and needed > files:
        return (
            f"connections_max is {connections_max:,}, which needs {needed:,} open files, and the process may "
            f"have {files:,}: raise the limit ({HOW}) or lower connections_max"
        )
    if not connections_max and taken.realtime < FEW:
        return (
            f"the process may have {files:,} open files, which leaves room for {taken.realtime:,} "
            f"connections: raise the limit ({HOW})"
        )
    return None
