"""The public keys of the app, from a file or an address (a JSON Web Key Set), kept and renewed.

How to think about it: tokens are checked with the keys that are here, whatever becomes of their source. A
task looks at the source now and then, and also when a token names a key that is not here, though never more
than once in `PAUSE_S`. What it finds takes the place of what was there; a look that fails changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import orjson
import trio

from engine.boundary import Boundary
from server.security.fetch import Fetcher, FetchError

log = logging.getLogger(__name__)

RENEW_S = 600.0
PAUSE_S = 5.0
"""Between two looks at the source, at least."""
LOOK_TIMEOUT_S = 5.0
BYTES_MAX = 262_144
KEYS_MAX = 100
WAITING_MAX = 1_000
"""Tokens that wait for the next look. Beyond that, a token with an unknown key is refused at once."""
RSA_BITS = range(2_048, 4_097)
"""Below is not safe, and above costs too much."""

Load = Callable[[], Awaitable[bytes]]

KeySet = Mapping[tuple[str | None, str], Any]
"""Public keys by their id and the one algorithm that each goes with: what a token says of itself only chooses
among these."""


class KeysUnavailable(Exception):
    """The source has no keys to give. The sentence says why."""


class KeyRing:
    """Implements `server.security.identity.Keys`. `run` must be running.

    Args:
        load: reads the source. Raises KeysUnavailable.
    """

    def __init__(self, load: Load, boundary: Boundary | None = None) -> None:
        self._load = load
        self._boundary = boundary or Boundary()
        self._keys: KeySet = {}
        self._raw = b""
        self._waiting: list[Callable[[], None]] = []
        self._wanted = trio.Event()
        self.failing = False
        self.generation = 0

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, kid: str | None, algorithm: str) -> Any | None:
        """Keys."""
        return find_key(self._keys, kid, algorithm)

    def renew(self, done: Callable[[], None]) -> bool:
        """Keys."""
        if len(self._waiting) >= WAITING_MAX:
            return False
        self._waiting.append(partial(copy_context().run, self._tell, done))
        self._wanted.set()
        return True

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at the source until cancelled. Started at once: the keys may be a while in coming."""
        task_status.started()
        while True:
            waiting, self._waiting = self._waiting, []
            self._wanted = trio.Event()
            looked = False
            with self._boundary.within("a look at the identity keys"):
                await self._look()
                looked = True
            self.failing = self.failing or not looked
            for tell in [*waiting, *self._waiting]:
                tell()
            self._waiting = []
            await trio.sleep(PAUSE_S)
            with trio.move_on_after(RENEW_S - PAUSE_S):
                await self._wanted.wait()

    def _tell(self, done: Callable[[], None]) -> None:
        """As the request that waits: a line of the log about it names that."""
        with self._boundary.within("telling of an identity"):
            done()

    async def _look(self) -> None:
        try:
            with trio.fail_after(LOOK_TIMEOUT_S):
                raw = await self._load()
            keys = keys_in(raw)
        except (KeysUnavailable, trio.TooSlowError) as error:
            why = str(error) or f"no answer within {LOOK_TIMEOUT_S:g} s"
            if not self.failing:
                log.warning("identity_jwks cannot be read, %d keys stay as they are: %s", len(self), why)
            self.failing = True
            return
        if self.failing:
            log.info("identity_jwks can be read again")
        self.failing = False
        if raw != self._raw:
            self._keys, self._raw = keys, raw
            self.generation += 1


def find_key(keys: KeySet, kid: str | None, algorithm: str) -> Any | None:
    """The key with this id for this algorithm. Without an id, the only one for it."""
    if kid is not None:
        return keys.get((kid, algorithm))
    fitting = [key for (_, for_algorithm), key in keys.items() if for_algorithm == algorithm]
    return fitting[0] if len(fitting) == 1 else None


def keys_in(raw: bytes) -> KeySet:
    """The keys of a JSON Web Key Set that tokens may be signed with, by their id and their algorithm. Keys of
    other kinds are passed over. Raises KeysUnavailable if this is no such set, or no such key is in it."""
    try:
        listed = orjson.loads(raw)["keys"]
    except (ValueError, TypeError, KeyError):
        raise KeysUnavailable("this is no JSON Web Key Set") from None
    if type(listed) is not list or len(listed) > KEYS_MAX:
        raise KeysUnavailable(f"a JSON Web Key Set has a list of at most {KEYS_MAX} keys")
    found: dict[tuple[str | None, str], Any] = {}
    for each in listed:
        algorithm = _algorithm_of(each)
        if algorithm is None:
            continue
        try:
            key = jwt.PyJWK.from_dict(_public(each), algorithm).key
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
        if algorithm != "RS256" or key.key_size in RSA_BITS:
            kid = each.get("kid")
            found[kid if type(kid) is str else None, algorithm] = key
    if not found:
        raise KeysUnavailable("there is no key in it for EdDSA, ES256 or RS256")
    return found


def _algorithm_of(jwk: Any) -> str | None:
    """The one algorithm that goes with a public key; None for one that signs no tokens here."""
    if type(jwk) is not dict or jwk.get("use", "sig") != "sig":
        return None
    algorithm = {
        ("OKP", "Ed25519"): "EdDSA",
        ("EC", "P-256"): "ES256",
        ("RSA", None): "RS256",
    }.get((str(jwk.get("kty")), jwk.get("crv")))
    said = jwk.get("alg")
    same = said in (None, algorithm) or (algorithm == "EdDSA" and said == "Ed25519")
    return algorithm if same else None


def _public(jwk: dict[str, Any]) -> dict[str, Any]:
    """Without what is private, should the app have told it by mistake."""
    return {name: value for name, value in jwk.items() if name in ("kty", "crv", "x", "y", "n", "e")}


def loader(source: str) -> Load:
    """Reads the keys of a file or of an address."""
    if "://" in source:
        return partial(_address, Fetcher(LOOK_TIMEOUT_S, BYTES_MAX), source)
    return lambda: trio.to_thread.run_sync(_file, Path(source).expanduser())


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(BYTES_MAX + 1)[:BYTES_MAX]
    except OSError as error:
        raise KeysUnavailable(f"{path}: {error.strerror or error}") from None


async def _address(fetcher: Fetcher, url: str) -> bytes:
    try:
        status, body = await fetcher.read("GET", url)
    except FetchError as error:
        raise KeysUnavailable(str(error)) from None
    if status != 200:
        raise KeysUnavailable(f"{url}: status {status}")
    return body
