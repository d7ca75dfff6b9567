"""A door between a node and PostgreSQL."""

from __future__ import annotations

from functools import partial
from urllib.parse import parse_qs, urlsplit

import trio

from tests.door import Door


class Gate(Door):
    """Args: dsn: of a server on a socket of this machine."""

    def __init__(self, dsn: str) -> None:
        query = parse_qs(urlsplit(dsn).query)
        super().__init__(partial(trio.open_unix_socket, f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"))
        self._search_path = query.get("search_path", ["public"])[0]

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?search_path={self._search_path}"
