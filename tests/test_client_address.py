"""Who is at the other end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.security.client_address import client_address, origin_allowed, origin_of


@pytest.mark.parametrize(
    ("forwarded_for", "proxy_hops", "address"),
    [
        (None, 0, "192.0.2.1"),
        ("203.0.113.9", 0, "192.0.2.1"),
        (None, 1, "192.0.2.1"),
        ("", 1, "192.0.2.1"),
        ("203.0.113.9", 1, "203.0.113.9"),
        ("198.51.100.66, 203.0.113.9", 1, "203.0.113.9"),
        ("198.51.100.66, 203.0.113.9, 10.0.0.2", 2, "203.0.113.9"),
        ("203.0.113.9", 2, "192.0.2.1"),
        ("203.0.113.9:4711", 1, "203.0.113.9"),
        ("[2001:DB8::1]:4711", 1, "2001:db8::1"),
        ("2001:db8::1", 1, "2001:db8::1"),
        ("unknown", 1, "192.0.2.1"),
        ("203.0.113.9,", 1, "192.0.2.1"),
    ],
)
def test_the_address_is_the_one_that_the_outermost_trusted_proxy_saw(
    forwarded_for: str | None, proxy_hops: int, address: str
) -> None:
    assert client_address("192.0.2.1", forwarded_for, proxy_hops) == address


@given(st.text(max_size=60), st.integers(0, 3))
def test_no_header_breaks_it(forwarded_for: str, proxy_hops: int) -> None:
    assert client_address("192.0.2.1", forwarded_for, proxy_hops)


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "quiz.example", True),
        ("https://quiz.example", "quiz.example", True),
        ("http://127.0.0.1:5001", "127.0.0.1:5002", True),
        ("http://[::1]:5001", "[::1]:5002", True),
        ("https://QUIZ.example", "quiz.EXAMPLE:443", True),
        ("https://evil.example", "quiz.example", False),
        ("https://quiz.example.evil.example", "quiz.example", False),
        ("https://evil.example", None, False),
        ("null", "quiz.example", False),
        ("", "", False),
        ("http://[", "[", False),
        ("http://quiz.example:5001", "quiz.example:5002", True),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
        ("http://127.0.0.1:8080", "127.0.0.1:5002", False),
        ("http://127.0.0.1:5003", "127.0.0.1:5001", False),
        ("http://localhost", "localhost:5001", False),
        ("http://localhost:5001", "127.0.0.1:5001", False),
        ("http://quiz.example:5001", "evil@quiz.example:5001", False),
        ("https://play.example", "10.0.0.7:5002", True),
        ("https://school.example", "quiz.example", True),
        ("HTTPS://School.example", "quiz.example", True),
        ("http://school.example", "quiz.example", False),
    ],
)
def test_pages_of_the_host_of_the_public_address_and_of_allowed_origins_may_connect(
    origin: str | None, host: str | None, allowed: bool
) -> None:
    assert origin_allowed(origin, host, 5001, "https://play.example/", ["https://school.example"]) is allowed


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://b.example:5001", True),
        ("http://B.example:5001", True),
        ("https://c.example", True),
        ("http://[2001:db8::7]:5001", True),
        ("http://b.example:5002", False),
        ("https://b.example:5001", False),
        ("https://c.example.evil.example", False),
        ("null", False),
        ("", False),
        ("http://d.example", False),
    ],
)
def test_pages_of_other_nodes_may_connect(origin: str, allowed: bool) -> None:
    pages = [
        "",
        "http://b.example:5001",
        "https://C.example:443/n/c",
        "http://[2001:db8::7]:5001",
        "http://[",
    ]
    assert origin_allowed(origin, "a.example", 5001, None, [], pages) is allowed


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("ws://Quiz.example:5002/ws", "ws://quiz.example:5002"),
        ("wss://quiz.example:443/n/a/ws", "wss://quiz.example"),
        ("http://quiz.example:80", "http://quiz.example"),
        ("http://[::1]:5001/", "http://[::1]:5001"),
        ("ftp://quiz.example", None),
        ("http://quiz.example:x", None),
        ("http://quiz.example; script-src *", None),
        ("//quiz.example", None),
        ("", None),
    ],
)
def test_the_origin_of_an_address(url: str, origin: str | None) -> None:
    assert origin_of(url) == origin


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_origin_breaks_it(origin: str, host: str) -> None:
    origin_allowed(origin, host, 5001, None, [])
