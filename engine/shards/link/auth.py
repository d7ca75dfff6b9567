"""How two nodes prove to each other that they belong to one cluster, before anything else is read.

The link server sends a nonce. The link client answers with its own nonce, both runs, and a proof that it has
the key: an HMAC-SHA256 over all of that. The server proves the same with another label, so that no proof can
be sent back to its maker, or used for another link, another run or another direction.

Pure: bytes in, bytes out. Nonces are arguments, and must never be used twice.
"""

from __future__ import annotations

import hmac

import orjson

VERSION = 1
"""The version of links. Nodes of different versions talk to each other: the older one ignores unknown kinds
of entries, and unknown members."""

VERSION_OLDEST = 1
"""The oldest version that this release works with."""

HANDSHAKE_S = 5.0
"""The most seconds from the first byte until both nodes have proved themselves."""

NONCE_BYTES = 32
_HELLO_BYTES_MAX = 4096


class Refused(Exception):
    """The other node has no valid proof. `str()` is the reason to close with."""


def link_key(secret: bytes) -> bytes:
    """The key of links, which serves nothing else, derived from the secret of the cluster."""
    return hmac.digest(secret, b"fanfare link", "sha256")


class ClientProof:
    """The proof of the link client.

    Args:
        run: of this node.
        to: the run that this node wants to talk to.
    """

    def __init__(self, key: bytes, run: str, to: str, nonce: bytes) -> None:
        self._key = key
        self._run = run
        self._to = to
        self._nonce = nonce.hex()
        self._theirs = ""

    def respond(self, hello: str | bytes) -> bytes:
        """The answer to the first message of the server. Raises Refused."""
        (self._theirs,) = _read(hello, "nonce")
        proof = _proof(self._key, "calling", self._theirs, self._nonce, self._run, self._to)
        return _message(run=self._run, to=self._to, nonce=self._nonce, proof=proof)

    def confirm(self, message: str | bytes) -> None:
        """Check the second message of the server. Raises Refused unless it comes from the wanted run."""
        (proof,) = _read(message, "proof")
        _compare(proof, _proof(self._key, "called", self._theirs, self._nonce, self._run, self._to))


class ServerProof:
    """The proof of the link server. Args: run: of this node."""

    def __init__(self, key: bytes, run: str, nonce: bytes) -> None:
        self._key = key
        self._run = run
        self._nonce = nonce.hex()

    def hello(self) -> bytes:
        return _message(nonce=self._nonce)

    def admit(self, message: str | bytes) -> tuple[str, bytes]:
        """The run of the client, and the message that proves this node. Raises Refused."""
        run, to, theirs, proof = _read(message, "run", "to", "nonce", "proof")
        _compare(proof, _proof(self._key, "calling", self._nonce, theirs, run, to))
        if to != self._run:
            raise Refused("another run of this node is wanted")
        return run, _message(proof=_proof(self._key, "called", self._nonce, theirs, run, to))


def _proof(key: bytes, side: str, called_nonce: str, calling_nonce: str, run: str, to: str) -> str:
    # As JSON, so that no two lists of words become the same bytes. Without the version: nodes of different
    # versions must understand each other's proofs.
    words = orjson.dumps([side, called_nonce, calling_nonce, run, to])
    return hmac.new(key, words, "sha256").hexdigest()


def _compare(given: str, right: str) -> None:
    if not hmac.compare_digest(given.encode(), right.encode()):
        raise Refused("the secret is another")


def _message(**words: str) -> bytes:
    return orjson.dumps({"version": VERSION, **words})


def _read(message: str | bytes, *names: str) -> list[str]:
    """The words of a message with these names. Raises Refused."""
    data: object = None
    if len(message) <= _HELLO_BYTES_MAX:
        try:
            data = orjson.loads(message)
        except orjson.JSONDecodeError:
            data = None
    if not isinstance(data, dict) or type(data.get("version")) is not int or data["version"] < 1:
        raise Refused("this is not a link of a node")
    words = [data.get(name) for name in names]
    if not all(type(word) is str and word.isascii() for word in words):
        raise Refused("this is not a link of a node")
    return [str(word) for word in words]
