"""docs/embedding.md: its backend runs as it stands there, and a node believes what it signs."""

from __future__ import annotations

import re
import threading
import tomllib
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import trio

from server.security.identities import open_identities
from tests.http.edge import edge
from tests.identities import NOW_S

PAGE = Path(__file__).parent.parent.joinpath("docs/embedding.md").read_text("utf-8")


def block(language: str) -> str:
    [found] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture
def backend() -> Iterator[tuple[str, dict[str, Any]]]:
    """Its address, and what its module has."""
    module: dict[str, Any] = {"__name__": "backend"}
    exec(compile(block("python"), "docs/embedding.md", "exec"), module)
    module["time"] = SimpleNamespace(time=lambda: NOW_S)
    module["App"].log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), module["App"])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", module
    server.shutdown()
    thread.join()
    server.server_close()


async def test_two_users_of_the_app_play_on_whatever_device(
    backend: tuple[str, dict[str, Any]], nursery: trio.Nursery
) -> None:
    url, module = backend
    settings = {**tomllib.loads(block("toml")), "identity_jwks": f"{url}/.well-known/jwks.json"}
    async with edge(**settings) as e:
        identities, ring = open_identities(e.config, e.clock)
        assert ring is not None
        await nursery.start(ring.run)
        e.but(identities=identities)
        session = await e.session()
        async with httpx.AsyncClient() as app:
            assert (await app.get(f"{url}/identity")).status_code == 401
            for cookie, player, name in (
                ("cookie-of-ada", 1, "Ada"),
                ("cookie-of-ben", 2, "Ben"),
                ("cookie-of-ada", 1, "Ada"),
            ):
                token = (await app.get(f"{url}/identity", headers={"Cookie": cookie})).json()["identity"]
                joined = await e.post(f"{session.url}/players", {}, token=token)
                assert (joined.status, joined.json["player_id"], joined.json["name"]) == (201, player, name)
        assert len(ring) == 1
        module["KEY_ID"] = "no longer here"
        assert len((await session.actor()).session.players) == 2
    nursery.cancel_scope.cancel()


async def test_an_address_that_gives_no_keys(backend: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    from server.security.key_ring import BYTES_MAX, KeysUnavailable, loader

    url, module = backend
    file = tmp_path / "keys.json"
    file.write_bytes(b"x" * (BYTES_MAX + 5))
    assert len(await loader(str(file))()) == BYTES_MAX
    module["key_set"] = lambda: "x" * (BYTES_MAX + 1)
    for source, why in (
        (f"{url}/nothing", "status 401"),
        (f"{url}/.well-known/jwks.json", "more than"),
        ("http://127.0.0.1:9/", "connection|attempts"),
        (str(tmp_path / "none.json"), "No such file"),
    ):
        with pytest.raises(KeysUnavailable, match=why):
            await loader(source)()
