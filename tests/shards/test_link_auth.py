"""Two nodes prove to each other that they belong to one cluster."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from engine.shards.link import auth
from engine.shards.link.auth import ClientProof, Refused, ServerProof, link_key
from tests.shards.linking import FAR, NEAR, SECRET

KEY = link_key(SECRET)


def proofs(**other: Any) -> tuple[ClientProof, ServerProof]:
    return (
        ClientProof(other.get("key", KEY), NEAR, other.get("to", FAR), b"n" * 32),
        ServerProof(KEY, FAR, other.get("nonce", b"f" * 32)),
    )


def test_both_sides_prove_that_they_have_the_secret() -> None:
    calling, called = proofs()
    run, ours = called.admit(calling.respond(called.hello()))
    assert run == NEAR
    calling.confirm(ours)


def test_another_secret_is_refused_by_both() -> None:
    calling, called = proofs(key=link_key(b"another secret"))
    response = calling.respond(called.hello())
    with pytest.raises(Refused, match="secret"):
        called.admit(response)
    with pytest.raises(Refused, match="secret"):
        calling.confirm(proofs()[1].admit(proofs()[0].respond(proofs()[1].hello()))[1])


def test_another_run_is_refused() -> None:
    calling, called = proofs(to="run-before")
    with pytest.raises(Refused, match="another run"):
        called.admit(calling.respond(called.hello()))


def test_what_was_overheard_is_of_no_use_for_another_link() -> None:
    calling, called = proofs()
    overheard = calling.respond(called.hello())
    _, ours = called.admit(overheard)
    later = proofs(nonce=b"g" * 32)[1]
    with pytest.raises(Refused, match="secret"):
        later.admit(overheard)
    another = ClientProof(KEY, NEAR, FAR, b"m" * 32)
    another.respond(called.hello())
    with pytest.raises(Refused, match="secret"):
        another.confirm(ours)


def test_a_proof_cannot_be_sent_back_to_its_maker() -> None:
    calling, called = proofs()
    theirs = orjson.loads(calling.respond(called.hello()))
    with pytest.raises(Refused, match="secret"):
        calling.confirm(orjson.dumps({"version": 1, "proof": theirs["proof"]}))


@pytest.mark.parametrize("newer", ["calling", "called"])
def test_a_newer_version_is_talked_to(monkeypatch: pytest.MonkeyPatch, newer: str) -> None:
    def by(side: str) -> None:
        monkeypatch.setattr(auth, "VERSION", 2 if side == newer else 1)

    calling, called = proofs()
    by("called")
    hello = orjson.loads(called.hello()) | {"more": [1]}
    by("calling")
    response = orjson.loads(calling.respond(orjson.dumps(hello))) | {"more": [1]}
    by("called")
    run, ours = called.admit(orjson.dumps(response))
    assert run == NEAR
    by("calling")
    calling.confirm(ours)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"version":0}', b'{"version":1,"nonce":5}', b"x" * 5000, '{"version":1}']
)
def test_what_is_no_proof_is_refused(raw: bytes | str) -> None:
    calling, called = proofs()
    with pytest.raises(Refused, match="not a link"):
        called.admit(raw)
    with pytest.raises(Refused, match="not a link"):
        calling.respond(raw)
    with pytest.raises(Refused, match="not a link"):
        calling.confirm(raw)
