"""The Redis that a node brings along ends with it, whatever happens."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.shards.embedded_redis import EmbeddedRedis, EmbeddedRedisError

PARENT = """
import sys
from engine.shards.embedded_redis import EmbeddedRedis
server = EmbeddedRedis(sys.argv[1])
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


def test_it_starts_stops_and_starts_again(short_tmp_path: Path) -> None:
    server = EmbeddedRedis(short_tmp_path / "again")
    server.stop()
    assert server.pid is None
    url = server.start()
    assert url == server.url == f"unix://{short_tmp_path}/again/redis.sock"
    pid = server.pid
    assert pid is not None
    server.stop()
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert server.start() == url
    server.stop()


def test_only_its_user_may_use_it(short_tmp_path: Path) -> None:
    server = EmbeddedRedis(short_tmp_path / "private")
    server.start()
    assert (short_tmp_path / "private" / "redis.sock").stat().st_mode & 0o077 == 0
    server.stop()


def test_a_long_path_is_no_obstacle(short_tmp_path: Path) -> None:
    server = EmbeddedRedis(short_tmp_path / ("long" * 30))
    url = server.start()
    assert len(url) < 100
    server.stop()
    assert not Path(url.removeprefix("unix://")).parent.exists()


def test_a_directory_that_it_cannot_use_is_an_error(short_tmp_path: Path) -> None:
    directory = short_tmp_path / "taken"
    (directory / "redis.log").mkdir(parents=True)
    server = EmbeddedRedis(directory)
    with pytest.raises((EmbeddedRedisError, OSError)):
        server.start()
    assert server.pid is None


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux to wait for another's process")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_when_its_parent_is_killed(short_tmp_path: Path, number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(short_tmp_path / f"orphan-{number}")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        server = os.pidfd_open(pid)
        try:
            parent.send_signal(number)
            ended, _, _ = select.select([server], [], [], 30)
            assert ended
        finally:
            os.close(server)
