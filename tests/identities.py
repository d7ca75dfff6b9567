"""An app that signs who its users are."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from server.security.key_ring import KeyRing, keys_in

SECRET = "the-app-and-Fanfare-share-these-32-bytes"
ISSUER, AUDIENCE = "https://app.example", "fanfare"
NOW_S = 1_700_000_000
SETTINGS: Mapping[str, str] = {
    "identity": "optional",
    "identity_secret": SECRET,
    "identity_issuer": ISSUER,
    "identity_audience": AUDIENCE,
}

_ALGORITHMS: Mapping[str, Any] = {
    "EdDSA": jwt.algorithms.OKPAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "RS256": jwt.algorithms.RSAAlgorithm,
}


def private_key(algorithm: str, number: int = 0) -> Any:
    """Another number, another key."""
    return _private_key(algorithm, number)


@cache
def _private_key(algorithm: str, _: int) -> Any:
    match algorithm:
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case _:
            return rsa.generate_private_key(65_537, 2_048)


def public_jwk(algorithm: str, number: int = 0, **members: Any) -> dict[str, Any]:
    jwk = _ALGORITHMS[algorithm].to_jwk(private_key(algorithm, number).public_key(), as_dict=True)
    return {**jwk, "kid": f"{algorithm} {number}", **members}


def public_pem(algorithm: str) -> bytes:
    return bytes(
        private_key(algorithm)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def key_set(*jwks: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"keys": list(jwks)})


def claims(sub: object = "ada@app", **more: Any) -> dict[str, Any]:
    """Good claims; None takes one away."""
    good = {"sub": sub, "exp": NOW_S + 600, "iat": NOW_S, "iss": ISSUER, "aud": AUDIENCE, **more}
    return {name: value for name, value in good.items() if value is not None}


def signed(sub: object = "ada@app", *, algorithm: str = "HS256", number: int = 0, **more: Any) -> str:
    """A token of the app. Its claims begin with good ones."""
    if algorithm == "HS256":
        return jwt.encode(claims(sub, **more), SECRET, algorithm="HS256")
    headers = {"kid": f"{algorithm} {number}"}
    return jwt.encode(
        claims(sub, **more), private_key(algorithm, number), algorithm=algorithm, headers=headers
    )


def made_up(header: Mapping[str, Any], signature: bytes = b"", **more: Any) -> str:
    """Put together by hand."""
    parts = (orjson.dumps(header), orjson.dumps(claims(**more)), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


class FixedKeys(KeyRing):
    """That nobody renews."""

    def __init__(self, *jwks: Mapping[str, Any]) -> None:
        async def load() -> bytes:
            raise AssertionError("nobody runs it")

        super().__init__(load)
        self._keys = keys_in(key_set(*jwks))
