"""The QR code of a session."""

from __future__ import annotations

import re
from ipaddress import ip_address
from xml.etree import ElementTree

import pytest
import segno

from server.http import addresses
from tests.http.edge import OUTSIDE, edge

SVG = "{http://www.w3.org/2000/svg}"


def modules(svg: bytes) -> list[list[bool]]:
    """The picture as rows of dark modules, read back from the strokes of its path."""
    root = ElementTree.fromstring(svg)
    side = int(root.attrib["viewBox"].split(" ")[2])
    (strokes,) = [path.attrib["d"] for path in root.iter(f"{SVG}path") if "stroke" in path.attrib]
    rows = [[False] * side for _ in range(side)]
    x = y = 0.0
    for command, right, down in re.findall(r"([Mmh])(-?[\d.]+)(?: (-?[\d.]+))?", strokes):
        if command == "h":
            rows[int(y)][int(x) : int(x) + int(right)] = [True] * int(right)
        elif command == "M":
            x = y = 0.0
        x, y = x + float(right), y + float(down or 0)
    return rows


def modules_of(text: str) -> list[list[bool]]:
    return [[bool(module) for module in row] for row in segno.make_qr(text, error="m").matrix_iter(border=4)]


@pytest.mark.parametrize(
    ("host", "public_url", "address"),
    [
        ("localhost:5001", None, "http://localhost:5001/?code=482913"),
        ("192.168.1.5:5001", None, "http://192.168.1.5:5001/?code=482913"),
        ("[2001:db8::1]", None, "http://[2001:db8::1]/?code=482913"),
        ("10.0.0.7:5001", "https://quiz.example/n/a", "https://quiz.example/n/a/?code=482913"),
    ],
)
async def test_it_leads_to_the_page_that_joins(host: str, public_url: str | None, address: str) -> None:
    async with edge(public_url=public_url) as e:
        picture = await e.get("/qr.svg?code=482913", headers={"Host": host}, peer=OUTSIDE)
        assert picture.status == 200
        assert picture.headers["Content-Type"] == "image/svg+xml"
        assert picture.headers["Cache-Control"] == "public, max-age=3600"
        assert modules(picture.body) == modules_of(address)


@pytest.mark.parametrize(
    ("bound", "own", "host", "shown"),
    [
        ("0.0.0.0", "192.168.1.5", "127.0.0.1:5001", "192.168.1.5:5001"),
        ("::", "192.168.1.5", "[::1]:5001", "192.168.1.5:5001"),
        ("0.0.0.0", "192.168.1.5", "quiz.local:5001", "quiz.local:5001"),
        ("0.0.0.0", None, "127.0.0.1:5001", "127.0.0.1:5001"),
        ("127.0.0.1", "192.168.1.5", "127.0.0.1:5001", "127.0.0.1:5001"),
    ],
)
async def test_the_qr_code_on_the_nodes_own_machine_has_the_address_in_the_network(
    monkeypatch: pytest.MonkeyPatch, bound: str, own: str | None, host: str, shown: str
) -> None:
    monkeypatch.setattr(addresses, "network_address", lambda: own)
    async with edge(host=bound) as e:
        picture = await e.get("/qr.svg?code=482913", headers={"Host": host})
        assert modules(picture.body) == modules_of(f"http://{shown}/?code=482913")
        session = await e.session()
        told = (await e.get(session.url, headers={"Host": host})).json
        assert told["join_url"] == f"http://{shown}/?code={told['code']}"


def test_the_address_of_this_machine_is_no_loopback() -> None:
    own = addresses.network_address()
    assert own is None or not ip_address(own).is_loopback


async def test_it_is_black_on_white_and_nothing_else() -> None:
    async with edge() as e:
        root = ElementTree.fromstring((await e.get("/qr.svg?code=000001")).body)
        white, black = root
        assert (white.attrib["fill"], black.attrib["stroke"]) == ("#fff", "#000")
        assert "style" not in white.attrib | black.attrib


@pytest.mark.parametrize(
    ("query", "code", "path"),
    [
        ("", "missing_field", "code"),
        ("?code=", "bad_field", "code"),
        ("?code=48291", "bad_field", "code"),
        ("?code=4829134", "bad_field", "code"),
        ("?code=48291x", "bad_field", "code"),
        ("?code=%D9%A1%D9%A1%D9%A1%D9%A1%D9%A1%D9%A1", "bad_field", "code"),
        ("?code=482913&code=482914", "bad_field", "code"),
        ("?code=482913&size=9", "unknown_field", "size"),
    ],
)
async def test_it_is_of_six_digits_and_nothing_else(query: str, code: str, path: str) -> None:
    async with edge() as e:
        refused = await e.get(f"/qr.svg{query}")
        assert (refused.status, refused.error, refused.path) == (400, code, path)


async def test_without_an_address_there_is_no_picture() -> None:
    async with edge() as e:
        refused = await e.get("/qr.svg?code=482913", headers={"Host": "<b>"})
        assert (refused.status, refused.error) == (400, "bad_message")
