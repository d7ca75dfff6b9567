"""The web pages: what they are made of, what they may do, and how long they are kept."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.http.app import create_app
from server.http.assets import Assets
from tests.http.edge import OUTSIDE, Edge, edge
from tests.http.test_cluster_api import FakeCluster, member

PAGES = {
    "/": "play",
    "/host": "host",
    "/screen": "screen",
    "/author": "author",
    "/ops": "ops",
    "/login/failed": "login",
}

TEMPLATE = """<!doctype html>
<html lang="{lang}">
<head>
{preload}
</head>
<select>{languages}</select>
{foot}
</html>
"""

FILES = {
    "foot.html": '<script type="module" src="{assets}/{page}.js"></script>',
    **{f"{page}.html": TEMPLATE for page in PAGES.values()},
    **{f"{page}.js": 'import "./lib/wire.js";\n' for page in PAGES.values()},
    "play.js": 'import { open } from "./lib/wire.js";\nimport {\n  clock,\n} from "./elements/clock.js";\n',
    "lib/wire.js": 'export const RETRY = "./never.js";\nexport * from "./frames.js";\n' + "// long\n" * 99,
    "lib/frames.js": 'import "./wire.js";\n',
    "elements/clock.js": 'import { frames } from "../lib/frames.js";\n',
    "play.css": "body { color: black; }\n",
    "icon.svg": '<svg xmlns="http://www.w3.org/2000/svg"/>',
    "notes.txt": "not served",
    "texts/en.json": '{"language": "English", "join": "Join"}',
    "texts/de.json": '{"language": "<Deutsch>", "join": "Beitreten"}',
}


def written(folder: Path, files: Mapping[str, str] = FILES) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@asynccontextmanager
async def node(web: Path, services: Mapping[str, Any] | None = None, **config: Any) -> AsyncIterator[Edge]:
    async with edge(**config) as e:
        e.services = replace(e.services, **(services or {}))
        e.app = create_app(e.services, web)
        yield e


@pytest.fixture
def web(tmp_path: Path) -> Path:
    return written(tmp_path)


def assets(body: bytes) -> str:
    found = re.search(rb'src="(/assets/[0-9a-f]+)/', body)
    assert found is not None
    return found[1].decode()


def connects(headers: Mapping[str, str]) -> list[str]:
    """Where the page may connect to."""
    return headers["Content-Security-Policy"].partition("connect-src ")[2].split(" ")


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_its_template_for_everyone_and_brings_its_modules_along(web: Path, path: str) -> None:
    async with node(web, author_key="the-author-key") as e:
        page = await e.get(f"{path}?code=123456", peer=OUTSIDE)
        assert page.status == 200
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert b"{" not in page.body
        prefix = assets(page.body)
        assert f'src="{prefix}/{PAGES[path]}.js"' in page.body.decode()
        for address in re.findall(r'(?:src|href)="([^"]+)"', page.body.decode()):
            assert (await e.get(address, peer=OUTSIDE)).status == 200


async def test_modules_are_loaded_ahead_with_all_that_they_import(web: Path) -> None:
    async with node(web) as e:
        body = (await e.get("/")).body.decode()
        prefix = assets(body.encode())
        assert re.findall(r'rel="modulepreload" href="([^"]+)"', body) == [
            f"{prefix}/{name}" for name in ("lib/wire.js", "elements/clock.js", "lib/frames.js")
        ]
        assert f'<link rel="preload" as="fetch" crossorigin href="{prefix}/texts/en.json">' in body


@pytest.mark.parametrize(
    ("path", "headers", "language"),
    [
        ("/", {}, "en"),
        ("/", {"Accept-Language": "de-AT, en;q=0.5"}, "de"),
        ("/", {"Accept-Language": "fr, de;q=0.3"}, "de"),
        ("/", {"Accept-Language": "fr"}, "en"),
        ("/", {"Accept-Language": "de;q=0, *"}, "en"),
        ("/", {"Accept-Language": "en;q=0.5, DE"}, "de"),
        ("/", {"Accept-Language": "de", "Cookie": "lang=en"}, "en"),
        ("/", {"Accept-Language": "de", "Cookie": "lang=fr"}, "de"),
        ("/?lang=de", {"Cookie": "lang=en"}, "de"),
        ("/?lang=<b>", {"Cookie": "lang=de"}, "de"),
    ],
)
async def test_the_language_is_that_of_the_address_of_the_cookie_or_of_the_browser(
    web: Path, path: str, headers: dict[str, str], language: str
) -> None:
    async with node(web) as e:
        page = await e.get(path, headers=headers)
        assert f'<html lang="{language}">'.encode() in page.body
        assert f"/texts/{language}.json".encode() in page.body
        names = {"de": "&lt;Deutsch&gt;", "en": "English"}
        options = (
            f'<option value="{each}" lang="{each}"{" selected" * (each == language)}>{name}</option>'
            for each, name in names.items()
        )
        assert f"<select>{''.join(options)}</select>".encode() in page.body
        assert {"Accept-Language", "Cookie"} <= set(page.headers["Vary"].split(", "))


async def test_a_page_is_asked_for_again_and_sent_when_it_has_changed(web: Path) -> None:
    async with node(web) as e:
        page = await e.get("/")
        assert page.headers["Cache-Control"] == "no-cache"
        known = {"If-None-Match": page.headers["ETag"]}
        again = await e.get("/", headers=known)
        assert (again.status, again.body) == (304, b"")
        assert again.headers["ETag"] == page.headers["ETag"]
        assert again.headers["Content-Security-Policy"] == page.headers["Content-Security-Policy"]
        assert (await e.get("/", headers=known | {"Accept-Language": "de"})).status == 200
        assert (await e.get("/host", headers=known)).status == 200
        # With other rights it is another page: a browser may keep the old headers on a 304.
        assert (await e.get("/", headers=known | {"Host": "192.168.1.5:5001"})).status == 200


async def test_a_page_may_do_nothing_that_its_policy_does_not_name(web: Path) -> None:
    async with node(web) as e:
        headers = (await e.get("/")).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "camera=()" in headers["Permissions-Policy"]


@pytest.mark.parametrize(
    ("host", "origins"),
    [
        ("localhost:5001", ["ws://localhost:5002", "http://localhost:5002"]),
        ("192.168.1.5:5001", ["ws://192.168.1.5:5002", "http://192.168.1.5:5002"]),
        ("[::1]:5001", ["ws://*:5002", "http://*:5002"]),
        ("a;script-src *", ["ws://127.0.0.1:5002", "http://127.0.0.1:5002"]),
    ],
)
async def test_a_page_may_connect_to_the_realtime_port_as_it_was_reached(
    web: Path, host: str, origins: list[str]
) -> None:
    async with node(web) as e:
        assert connects((await e.get("/", headers={"Host": host})).headers) == ["'self'", *origins]


async def test_a_page_may_connect_to_every_node_of_the_cluster(web: Path) -> None:
    cluster = FakeCluster(
        member("a", ws_url="ws://127.0.0.1:5002/ws", play_url="http://127.0.0.1:5002"),
        member("b", ws_url="wss://B.example:443/ws", play_url="https://b.example"),
        member("c", ws_url="wss://b.example/n/c/ws", play_url="https://b.example/n/c"),
        member("api", ws_url="", play_url="http://api.example:5001"),
        member("odd", ws_url="ws://x y; script-src *", play_url="javascript:alert(1)"),
    )
    async with node(web, {"cluster": cluster}) as e:
        assert connects((await e.get("/", headers={"Host": "127.0.0.1:5001"})).headers) == [
            "'self'",
            "ws://127.0.0.1:5002",
            "http://127.0.0.1:5002",
            "wss://b.example",
            "https://b.example",
            "http://api.example:5001",
        ]


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("play.js", "text/javascript; charset=utf-8"),
        ("lib/wire.js", "text/javascript; charset=utf-8"),
        ("play.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
        ("texts/de.json", "application/json"),
    ],
)
async def test_an_asset_is_kept_for_a_year_under_the_digest_of_all(
    web: Path, name: str, content_type: str
) -> None:
    async with node(web) as e:
        prefix = assets((await e.get("/")).body)
        asset = await e.get(f"{prefix}/{name}")
        assert (asset.status, asset.body) == (200, FILES[name].encode())
        assert asset.headers["Content-Type"] == content_type
        assert asset.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        known = {"If-None-Match": asset.headers["ETag"]}
        assert (await e.get(f"{prefix}/{name}", headers=known)).status == 304


async def test_a_page_of_another_release_finds_its_modules_and_does_not_keep_them(web: Path) -> None:
    async with node(web) as e:
        asset = await e.get("/assets/0123456789abcdef/lib/wire.js")
        assert (asset.status, asset.body) == (200, FILES["lib/wire.js"].encode())
        assert asset.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "path", ["nothing.js", "lib", "lib/nothing.js", "notes.txt", "play.html", "..%2fapp.py", "../http/app.py"]
)
async def test_an_asset_that_is_not_there(web: Path, path: str) -> None:
    async with node(web) as e:
        missing = await e.get(f"{assets((await e.get('/')).body)}/{path}")
        assert (missing.status, missing.error) == (404, "not_found")


async def test_what_packs_well_is_packed_for_who_takes_it(web: Path) -> None:
    async with node(web) as e:
        address = f"{assets((await e.get('/')).body)}/lib/wire.js"
        packed = await e.get(address, headers={"Accept-Encoding": "br, gzip"})
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.headers["Content-Length"] == str(len(packed.body))
        assert gzip.decompress(packed.body) == FILES["lib/wire.js"].encode()
        for accepted in ("", "br", "gzip;q=0"):
            plain = await e.get(address, headers={"Accept-Encoding": accepted})
            assert "Content-Encoding" not in plain.headers
            assert plain.body == FILES["lib/wire.js"].encode()
            assert "Accept-Encoding" in plain.headers["Vary"]
        short = await e.get(address.replace("lib/wire.js", "icon.svg"), headers={"Accept-Encoding": "gzip"})
        assert "Content-Encoding" not in short.headers


async def test_a_head_is_a_get_without_its_body(web: Path) -> None:
    async with node(web) as e:
        for path in (*PAGES, f"{assets((await e.get('/')).body)}/play.js"):
            whole, head = await e.get(path), await e.call("HEAD", path)
            assert head.status == 200
            assert head.headers["Content-Length"] == str(len(whole.body))
            assert head.headers["ETag"] == whole.headers["ETag"]


def test_the_digest_follows_from_names_and_contents(tmp_path: Path) -> None:
    before = Assets(written(tmp_path)).digest
    assert Assets(tmp_path).digest == before
    (tmp_path / "play.css").write_text("body { color: white; }\n")
    changed = Assets(tmp_path).digest
    (tmp_path / "play.css").rename(tmp_path / "all.css")
    assert len({before, changed, Assets(tmp_path).digest}) == 3


@pytest.mark.parametrize("missing", ["play.html", "host.js", "lib/frames.js", "texts/en.json"])
async def test_a_node_does_not_start_without_a_file_that_is_needed(web: Path, missing: str) -> None:
    (web / missing).unlink()
    async with edge() as e:
        with pytest.raises(ValueError, match=re.escape(missing)):
            create_app(e.services, web)


INLINE = re.compile(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:", re.IGNORECASE)


@pytest.mark.parametrize("path", PAGES)
async def test_our_own_pages_have_nothing_inline_and_all_that_they_ask_for(path: str) -> None:
    async with edge() as e:
        body = (await e.get(path)).body.decode()
        assert INLINE.search(body) is None
        assert re.search(r"\{\w+\}", body) is None
        for address in re.findall(r'(?:src|href)="(/assets/[^"]+)"', body):
            assert (await e.get(address)).status == 200, address


@pytest.mark.parametrize(
    ("typed", "page"),
    [
        ("/482913", "/?code=482913"),
        ("/٤٨٢٩١٣", "/?code=482913"),
        ("/play", "/"),
        ("/play?code=482913&lang=de", "/?code=482913&lang=de"),
        ("/join", "/"),
        ("/host/", "/host"),
        ("/host/?quiz=a%20b", "/host?quiz=a%20b"),
        ("/screen/?code=482913", "/screen?code=482913"),
        ("/author/", "/author"),
        ("/ops/", "/ops"),
    ],
)
async def test_what_people_type_leads_to_the_page(web: Path, typed: str, page: str) -> None:
    async with node(web) as e:
        answer = await e.get(typed)
        assert (answer.status, answer.headers["Location"]) == (302, page)


@pytest.mark.parametrize("typed", ["/48291", "/4829134", "/48291a", "/hosts", "/482913/", "//evil.example"])
async def test_what_is_no_address_leads_nowhere(web: Path, typed: str) -> None:
    async with node(web) as e:
        missing = await e.get(typed)
        assert (missing.status, missing.error) == (404, "not_found")
