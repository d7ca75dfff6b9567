"""A real HAProxy over the configuration that is made for a cluster, with small nodes behind it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from server.cli.cluster.haproxy import Role, Upstream, clients_for, configuration, files_for
from tests.deploy.haproxy import haproxy_program

PATIENCE_S = 20.0
NO_LIMITS: Mapping[str, int] = {}
CHECKS_TO_GO_DOWN = 2

KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The example of RFC 6455. HAProxy compares them."""


@dataclass
class SmallNode:
    """Says who was asked for what on which of its two ports; echoes what comes over a WebSocket."""

    name: str
    role: Role
    ready: bool = True
    hangs: bool = False
    taken_out: trio.Event = field(default_factory=trio.Event)
    refused_checks: int = 0
    ports: dict[str, int] = field(default_factory=dict)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                for port in ("http", "realtime"):
                    listeners: list[trio.SocketListener] = await nursery.start(
                        partial(trio.serve_tcp, partial(self._serve, port), 0, host="127.0.0.1")
                    )
                    self.ports[port] = listeners[0].socket.getsockname()[1]
                task_status.started()

    @property
    def upstream(self) -> Upstream:
        realtime = None if self.role == "api" else self.ports["realtime"]
        return Upstream(self.name, "127.0.0.1", self.ports["http"], realtime, self.role)

    async def _serve(self, port: str, stream: trio.SocketStream) -> None:
        head = await _head(stream)
        if not head:
            return  # HAProxy may open a connection and have no use for it
        request, *lines = head.split("\r\n")
        _method, path, _version = request.split(" ")
        headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
        if self.hangs:
            await trio.sleep_forever()
        if path == "/readyz":
            self._count_check()
            await _answer(stream, 200 if self.ready else 503, {})
        elif ("upgrade", "websocket") in headers:
            await stream.send_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Accept: %b\r\nX-Node: %b\r\nX-Path: %b\r\n\r\n"
                % (ACCEPT, self.name.encode(), path.encode())
            )
            async for data in stream:
                await stream.send_all(data)
        else:
            forwarded = ",".join(value for name, value in headers if name == "x-forwarded-for")
            said = {"node": self.name, "port": port, "path": path, "forwarded": forwarded}
            await _answer(stream, 200, said)

    def _count_check(self) -> None:
        """The check after the last that was needed: HAProxy has drawn its conclusion."""
        self.refused_checks = 0 if self.ready else self.refused_checks + 1
        if self.refused_checks > CHECKS_TO_GO_DOWN:
            self.taken_out.set()


async def _head(stream: trio.SocketStream) -> str:
    """Of a request or a response: the lines before the empty one. Nothing when the connection ends unused."""
    read = b""
    while b"\r\n\r\n" not in read:
        data = await stream.receive_some(1)
        if not data and not read:
            return ""
        assert data, f"the connection ended within {read!r}"
        read += data
    return read.decode().removesuffix("\r\n\r\n")


async def _answer(stream: trio.SocketStream, status: int, said: object) -> None:
    body = json.dumps(said).encode()
    await stream.send_all(
        b"HTTP/1.1 %d OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
    )
    await stream.aclose()


@dataclass
class Proxy:
    """An HAProxy that runs, and the nodes behind it."""

    port: int
    nodes: dict[str, SmallNode]

    async def ask(self, path: str, *, method: str = "GET", headers: str = "") -> tuple[int, Any]:
        """The status, and what the node said, if a node did."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream:
            request = f"{method} {path} HTTP/1.1\r\nHost: quiz.example\r\n{headers}Connection: close\r\n\r\n"
            await stream.send_all(request.encode())
            whole = b"".join([data async for data in stream]).decode()
        head, _, body = whole.partition("\r\n\r\n")
        status = int(head.split(" ")[1])
        return status, json.loads(body) if status == 200 else None

    async def asked(self, path: str, times: int = 12, **more: str) -> Counter[str]:
        """How often which node answered."""
        return Counter([(await self.ask(path, **more))[1]["node"] for _ in range(times)])

    async def open_websocket(self, path: str, headers: str = "") -> tuple[trio.SocketStream, str]:
        """A connection past its handshake, and the head of the answer."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        await stream.send_all(
            f"GET {path} HTTP/1.1\r\nHost: quiz.example\r\n{headers}"
            "Connection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()
        )
        return stream, (await _head(stream)).lower()


async def _echo(stream: trio.SocketStream, data: bytes) -> bytes:
    await stream.send_all(data)
    return bytes(await stream.receive_some(len(data)))


@asynccontextmanager
async def proxied(
    tmp_path: Path,
    limits: Mapping[str, int] = NO_LIMITS,
    edit: Callable[[str], str] = str,
    **roles: Role,
) -> AsyncIterator[Proxy]:
    """HAProxy over so many nodes. It takes over a socket that listens already, so nobody waits for it."""
    program = haproxy_program()
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nodes = {name: SmallNode(name, role) for name, role in roles.items()}
            for node in nodes.values():
                await nursery.start(node.run)
            listener = socket.create_server(("127.0.0.1", 0))
            file = tmp_path / "haproxy.cfg"
            upstreams = [node.upstream for node in nodes.values()]
            made = configuration(upstreams, bind=f"fd@{listener.fileno()}", clients_max=500, **limits)
            file.write_text(edit(made))
            process = await trio.lowlevel.open_process(
                [program, "-db", "-f", str(file)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
            )
            port = listener.getsockname()[1]
            listener.close()
            try:
                yield Proxy(port, nodes)
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
            nursery.cancel_scope.cancel()


async def test_the_api_is_every_api_nodes(tmp_path: Path) -> None:
    async with proxied(tmp_path, one="both", two="realtime", web="api") as proxy:
        for path in ("/api/quizzes", "/healthz", "/api/sessions/123456", "/api/sessions/1/answers"):
            assert set(await proxy.asked(path)) == {"one", "web"}
        for path in ("/", "/host", "/qr.svg?code=123456", "/assets/0123456789abcdef/lib/wire.js"):
            assert set(await proxy.asked(path)) == {"one", "web"}
        status, said = await proxy.ask("/api/quizzes?id=a", headers="X-Forwarded-For: 203.0.113.9\r\n")
        assert (status, said["port"], said["path"]) == (200, "http", "/api/quizzes?id=a")
        # What a client claims stands before what the proxy knows, and proxy_hops counts from the end.
        assert said["forwarded"] == "203.0.113.9,127.0.0.1"


async def test_a_websocket_is_any_nodes_that_has_sessions(tmp_path: Path) -> None:
    async with proxied(tmp_path, one="both", two="realtime", web="api") as proxy:
        seen = set()
        for _ in range(4):
            stream, head = await proxy.open_websocket("/ws?v=1")
            async with stream:
                assert "http/1.1 101" in head
                assert "x-path: /ws?v=1" in head
                assert await _echo(stream, b"\x81\x05hello") == b"\x81\x05hello"
            seen |= {name for name in proxy.nodes if f"x-node: {name}" in head}
        assert seen == {"one", "two"}


async def test_answers_and_events_go_to_the_realtime_port(tmp_path: Path) -> None:
    async with proxied(tmp_path, one="both", two="realtime", web="api") as proxy:
        session = "/api/sessions/123456"
        for path, method in ((f"{session}/answers", "POST"), (f"{session}/events?token=t", "GET")):
            assert set(await proxy.asked(path, method=method)) == {"one", "two"}
            assert (await proxy.ask(path, method=method))[1]["port"] == "realtime"
            assert (await proxy.ask(f"/n/two{path}", method=method))[1]["port"] == "realtime"
        for path, method in ((f"{session}/players", "POST"), (f"{session}/answers", "OPTIONS")):
            assert (await proxy.ask(path, method=method))[1]["port"] == "http"


async def test_a_node_has_an_address_of_its_own(tmp_path: Path) -> None:
    async with proxied(tmp_path, one="both", two="realtime", web="api") as proxy:
        for name in proxy.nodes:
            assert await proxy.asked(f"/n/{name}/api/quizzes") == {name: 12}
            assert (await proxy.ask(f"/n/{name}/api/quizzes?id=a"))[1]["path"] == "/api/quizzes?id=a"
            assert (await proxy.ask(f"/n/{name}"))[1]["path"] == "/"
        for name in ("one", "two", "one", "two"):
            stream, head = await proxy.open_websocket(f"/n/{name}/ws")
            async with stream:
                assert f"x-node: {name}" in head
                assert "x-path: /ws\r\n" in f"{head}\r\n"
        # A node of a name that nobody has, or has any more: whoever answers knows where a session is.
        assert set(await proxy.asked("/n/three/api/quizzes")) == {"one", "web"}


@pytest.mark.parametrize("path", ["/metrics", "/n/one/metrics", "/%6detrics", "/n/one/%6Detrics"])
async def test_metrics_stay_inside(tmp_path: Path, path: str) -> None:
    async with proxied(tmp_path, one="both") as proxy:
        assert await proxy.ask(path) == (404, None)


async def test_a_node_that_is_not_ready_gets_no_new_connections_and_keeps_its_old_ones(
    tmp_path: Path,
) -> None:
    async with proxied(tmp_path, one="both", two="both") as proxy:
        stream, head = await proxy.open_websocket("/n/two/ws")
        assert "x-node: two" in head
        proxy.nodes["two"].ready = False
        await proxy.nodes["two"].taken_out.wait()
        assert await proxy.asked("/api/quizzes") == {"one": 12}
        for path, node in (("/ws", "one"), ("/n/two/ws", "two"), ("/n/two/ws", "two"), ("/ws", "one")):
            other, head = await proxy.open_websocket(path)
            async with other:
                assert f"x-node: {node}" in head, "by its name it is there for those who ask for it"
        assert await _echo(stream, b"still here") == b"still here"
        await stream.aclose()


async def test_the_clients_of_a_node_that_hangs_are_let_go_before_its_lease_is_over(tmp_path: Path) -> None:
    async with proxied(tmp_path, one="both", two="both") as proxy:
        stream, head = await proxy.open_websocket("/n/two/ws")
        other, _ = await proxy.open_websocket("/n/one/ws")
        assert "x-node: two" in head
        proxy.nodes["two"].hangs = True
        began = time.monotonic()
        assert await stream.receive_some(1) == b""
        assert time.monotonic() - began < PATIENCE_S / 2
        again, head = await proxy.open_websocket("/n/two/ws")
        assert "x-node: one" in head
        assert await _echo(other, b"not I") == b"not I"
        for each in (stream, other, again):
            await each.aclose()


async def test_the_clients_of_a_node_that_has_just_died_go_on_to_another(tmp_path: Path) -> None:
    async with proxied(tmp_path, one="both", two="both") as proxy:
        proxy.nodes["two"].scope.cancel()
        assert await proxy.asked("/n/two/api/quizzes", 3) == {"one": 3}
        stream, head = await proxy.open_websocket("/n/two/ws")
        async with stream:
            assert "x-node: one" in head


# -- limits --------------------------------------------------------------------------------------------


async def _rest(stream: trio.SocketStream) -> bytes:
    """All until HAProxy closes the connection, whichever way."""
    read = b""
    with suppress(trio.BrokenResourceError):
        async for data in stream:
            read += data
    return read


async def _is_closed_without_a_word(port: int) -> bool:
    """What becomes of a new connection on which nothing is said; it may be gone before it is made."""
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return True
    async with stream:
        return await _rest(stream) == b""


async def test_one_address_has_so_many_connections_be_they_silent(tmp_path: Path) -> None:
    async with proxied(tmp_path, {"per_address_max": 3}, one="both") as proxy, trio.open_nursery() as nursery:
        refused = 0
        two_are = trio.Event()

        async def stay_silent() -> None:
            nonlocal refused
            assert await _is_closed_without_a_word(proxy.port)
            refused += 1
            if refused == 2:
                two_are.set()

        for _ in range(5):
            nursery.start_soon(stay_silent)
        await two_are.wait()
        nursery.cancel_scope.cancel()


async def test_one_address_has_so_many_new_connections_in_ten_seconds(tmp_path: Path) -> None:
    async with proxied(tmp_path, {"per_address_max": 10}, one="both") as proxy:
        for _ in range(20):
            assert (await proxy.ask("/api/quizzes"))[0] == 200
        assert await _is_closed_without_a_word(proxy.port)


async def test_behind_a_proxy_a_client_counts_by_the_address_that_it_names(tmp_path: Path) -> None:
    async with proxied(tmp_path, {"per_address_max": 1, "proxy_hops": 1}, one="both") as proxy:
        named = "X-Forwarded-For: 203.0.113.9, 203.0.113.1\r\n"
        stream, head = await proxy.open_websocket("/ws", named)
        async with stream:
            assert "http/1.1 101" in head
            assert (await proxy.ask("/api/quizzes", headers=named))[0] == 429
            second, refused = await proxy.open_websocket("/ws", named)
            await second.aclose()
            assert "http/1.1 429" in refused
            assert "retry-after: 10" in refused
            other = "X-Forwarded-For: 203.0.113.1, 203.0.113.2\r\n"
            assert (await proxy.ask("/api/quizzes", headers=other))[0] == 200
        while (await proxy.ask("/api/quizzes", headers=named))[0] == 429:
            pass  # HAProxy has not seen the end of it yet


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\nHost: quiz.ex", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
)
async def test_a_request_whose_head_does_not_end_is_cut_off(tmp_path: Path, said: bytes) -> None:
    def impatient(text: str) -> str:
        assert "timeout http-request 10s" in text
        return text.replace("timeout http-request 10s", "timeout http-request 200ms")

    async with (
        proxied(tmp_path, edit=impatient, one="both") as proxy,
        await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream,
    ):
        await stream.send_all(said)
        assert (await _rest(stream)).startswith((b"HTTP/1.1 408", b"HTTP/1.1 400"))


async def test_a_body_longer_than_any_node_takes_goes_no_further(tmp_path: Path) -> None:
    async with proxied(tmp_path, one="both", two="both") as proxy:

        async def status(path: str, length: int) -> int:
            async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
                head = f"POST {path} HTTP/1.1\r\nHost: quiz.example\r\nContent-Length: {length}\r\n\r\n"
                await stream.send_all(head.encode())
                return int((await _head(stream)).split(" ")[1])

        session = "/api/sessions/123456"
        for path in (f"{session}/answers", f"/n/two{session}/players", "/api/sessions"):
            assert await status(path, 65_537) == 413
            assert await status(path, 1) == 200
        for path in ("/api/quizzes", "/n/two/api/quizzes/check"):
            assert await status(path, 1_048_577) == 413
            assert await status(path, 1_048_576) == 200


def test_names_of_nodes_may_be_unknown_when_it_starts(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(configuration([Upstream("one", "one.invalid", 5001, 5002)], clients_max=500))
    subprocess.run([haproxy_program(), "-c", "-f", str(file)], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("nodes", "problem"),
    [
        ([], "no node is there for the API"),
        ([Upstream("a", "h", 1, 2, "realtime")], "no node is there for the API"),
        ([Upstream("a", "h", 1, None, "api")], "no node is there for the sessions"),
        ([Upstream("a", "h", 1, 2), Upstream("a", "i", 1, 2)], "two nodes have the same name"),
    ],
)
def test_nodes_that_make_no_cluster_are_refused(nodes: list[Upstream], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        configuration(nodes)


def test_a_node_is_read_from_one_word() -> None:
    assert Upstream.parse("n-1=10.0.0.7:5001:5002", "both") == Upstream("n-1", "10.0.0.7", 5001, 5002)
    assert Upstream.parse("web=web.example:80", "api") == Upstream("web", "web.example", 80, None, "api")


@pytest.mark.parametrize(
    ("text", "role"),
    [
        ("node-1", "both"),
        ("n=10.0.0.7:5001", "both"),
        ("n=10.0.0.7:5001:5002", "api"),
        ("n m=10.0.0.7:5001:5002", "both"),
        ("n=10.0.0.7\n:5001:5002", "both"),
        ("n=::1:5001:5002", "realtime"),
    ],
)
def test_what_is_no_node_is_refused(text: str, role: Role) -> None:
    with pytest.raises(ValueError, match=r"is not of the form NAME=HOST:HTTP_PORT"):
        Upstream.parse(text, role)


def test_as_many_clients_as_files_allow() -> None:
    assert clients_for(files_for(9_000)) == 9_000
    assert clients_for(10**9) == 150_000
