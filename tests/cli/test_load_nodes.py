"""Nodes of a load run that are killed and started again, with a small program in the place of a node."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click
import psutil
import pytest
import trio

from loadtest.client.api import Api, ApiUnreachable
from server.cli.load.nodes import Nodes, _ports_of, running
from server.cli.terminal import leaves

NODE = """
import http.server, signal, sys, threading

options = dict(each[2:].split("=", 1) for each in sys.argv[1:] if "=" in each)
port = int(options["http-port"])
unready = [503] * 2


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = unready.pop() if unready else 200
        body = b'{"ready": %s}' % (b"true" if status == 200 else b"false")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)


def end(*_):
    open("ended", "a").write("ended\\n")
    threading.Thread(target=server.shutdown).start()


signal.signal(signal.SIGTERM, end)
print(f"  HTTP API   http://127.0.0.1:{port}", flush=True)
server.serve_forever()
"""


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    path = tmp_path / "node.py"
    path.write_text(NODE)
    return [sys.executable, str(path)]


async def test_one_is_killed_and_another_restarted_at_its_address(tmp_path: Path, program: list[str]) -> None:
    with trio.fail_after(60):
        async with running(tmp_path, _ports_of(3), program) as made:
            nodes = Nodes(made, "", 0, "")
            assert [nodes.name(place) for place in nodes.running()] == ["load-1", "load-2", "load-3"]
            first, second, third = nodes.processes
            nodes.kill(0)
            assert nodes.running() == [1, 2]
            pid = await nodes.restart(1)
            assert nodes.running() == [1, 2]
            assert nodes.processes[0].url == second.url
            assert nodes.processes[0].pid == pid != second.pid
            async with Api(second.url) as api:
                assert (await api.readiness())["ready"], "that was waited for"
            async with Api(first.url) as api:
                with pytest.raises(ApiUnreachable):
                    await api.readiness()
    assert not any(psutil.pid_exists(each) for each in (first.pid, second.pid, third.pid, pid))
    ended = [(tmp_path / f"node-{number}" / "ended").exists() for number in (1, 2, 3)]
    assert ended == [False, True, True], "the killed one had no time for it"


async def test_one_that_dies_by_itself_ends_the_run(tmp_path: Path, program: list[str]) -> None:
    async def run() -> None:
        async with running(tmp_path, _ports_of(1), program) as made:
            assert made[0].process is not None
            os.kill(made[0].process.pid, signal.SIGKILL)
            await trio.sleep_forever()

    with trio.fail_after(60), pytest.raises(ExceptionGroup) as caught:
        await run()
    (failure,) = leaves(caught.value)
    assert isinstance(failure, click.ClickException)
    assert "has ended by itself" in failure.message


def test_ports_differ() -> None:
    ports = [each.partition("=")[2] for own in _ports_of(4) for each in own]
    assert len(set(ports)) == 12
