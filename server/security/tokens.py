"""Tokens: a signed token lets its bearer act as one player, or as the host, of one session."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itsdangerous import BadData, Serializer, Signer, TimestampSigner, URLSafeTimedSerializer
from itsdangerous.encoding import base64_encode

from engine.actors.clock import Clock
from engine.actors.commands import Role

SECRET_FILE = "token-secret"
SECRET_BYTES_MIN = 16
AUTHOR_KEY_FILE = "author-key"
AUTHOR_KEY_CHARS_MIN = 8
TOKEN_CHARS_MAX = 512

KNOWN_MAX = 10_000
"""Good tokens that are remembered. Over HTTP each answer brings one along, and to verify it again would be a
third of what the answer costs."""


class TokenError(Exception):
    """A token that is not accepted.

    Args:
        code: `token_invalid` or `token_expired`.
        message: one sentence for a person.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class SecretError(Exception):
    """The key file cannot be used. The sentence says what to do."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a valid token says. `player` is None for a host and a spectator; `generation` is how often the
    session had been taken over when a host's token was issued."""

    session_id: str
    role: Role
    player: int | None
    generation: int = 0


def generation_of(grant: Grant) -> int | None:
    """The generation as commands carry it: None unless this is a host's token."""
    return grant.generation if grant.role == "host" else None


def former_of(read: Callable[[str], Grant], token: str | None) -> tuple[str, int] | tuple[None, None]:
    """The session id and the number of the player that a new player was before, by that token. An invalid
    token, or one that is not a player's, is ignored: it refuses no join."""
    if token is None:
        return None, None
    try:
        grant = read(token)
    except TokenError:
        return None, None
    return (None, None) if grant.player is None else (grant.session_id, grant.player)


class Tokens:
    """Issues and reads signed tokens (HMAC-SHA256). Implements `engine.actors.tokens.Tokens`.

    Args:
        secret: the key. Every node of a cluster has the same.
        ttl_s: seconds for which a token is valid. It may as well come from that far in the future: clocks are
            set back, and those of nodes differ, but the signature says that it was issued here.
        clock: dates the tokens.
    """

    def __init__(self, secret: bytes, ttl_s: int, clock: Clock) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._known: dict[str, tuple[Grant, float]] = {}
        """Tokens whose signature was found good, the oldest first."""
        self._serializer = serializer(secret, "fanfare", clock)

    def issue(self, session_id: str, role: Role, player: int | None, generation: int = 0) -> str:
        """A token that lets its bearer be this player, the host, or a spectator. Safe in a URL."""
        return self._serializer.dumps([session_id, role, generation or None if role == "host" else player])

    def read(self, token: str) -> Grant:
        """The grant of the token. Raises TokenError for any other text."""
        known = self._known.get(token)
        grant, issued_s = known if known is not None else self._verify(token)
        age_s = self._clock.now_ms() / 1000 - issued_s
        if age_s > self._ttl_s:
            raise TokenError("token_expired", "This token is too old; join again.")
        if age_s < -self._ttl_s:
            raise _invalid()
        if known is None:
            if len(self._known) >= KNOWN_MAX:
                del self._known[next(iter(self._known))]
            self._known[token] = grant, issued_s
        return grant

    def _verify(self, token: str) -> tuple[Grant, float]:
        """What a token says and when it was issued, in seconds. Raises TokenError."""
        if len(token) > TOKEN_CHARS_MAX:
            raise _invalid()
        try:
            payload, issued = self._serializer.loads(token, return_timestamp=True)
        except (BadData, ValueError):
            raise _invalid() from None
        match payload:
            case [str(session_id), "player", int(player)]:
                return Grant(session_id, "player", player), issued.timestamp()
            case [str(session_id), "host", None]:
                return Grant(session_id, "host", None), issued.timestamp()
            case [str(session_id), "host", int(generation)]:
                return Grant(session_id, "host", None, generation), issued.timestamp()
            case [str(session_id), "spectator", None]:
                return Grant(session_id, "spectator", None), issued.timestamp()
        raise _invalid()


def _invalid() -> TokenError:
    return TokenError("token_invalid", "This token was not issued here.")


def serializer(secret: bytes, salt: str, clock: Clock) -> URLSafeTimedSerializer:
    """What signs and dates values of one purpose, the salt, and reads them again."""
    return _Serializer(
        secret,
        salt=salt,
        signer=_Signer,
        signer_kwargs={"clock": clock, "digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )


class _Serializer(URLSafeTimedSerializer):
    """Writes tokens without trying to compress them first: what is in them is too short for that. Reads
    tokens that are compressed as well."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._signer = super().make_signer(self.salt)

    def make_signer(self, salt: str | bytes | None = None) -> Signer:
        """The same one for all tokens: they have one salt."""
        return self._signer if salt is None else super().make_signer(salt)

    def dump_payload(self, *args: Any, **kwargs: Any) -> bytes:
        return base64_encode(Serializer.dump_payload(self, *args, **kwargs))


class _Signer(TimestampSigner):
    """Signs with the time of the given clock instead of the machine's, and with one key, derived once."""

    def __init__(self, *args: Any, clock: Clock, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clock = clock
        self._key = super().derive_key()

    def derive_key(self, secret_key: str | bytes | None = None) -> bytes:  # noqa: ARG002 - there is one secret
        return self._key

    def get_timestamp(self) -> int:
        return self._clock.now_ms() // 1000


def new_ticket() -> str:
    """A ticket for a join without one. It identifies a player that waits for the host, and cannot be
    guessed."""
    return secrets.token_urlsafe(12)


def load_secret(secret: str | None, data_dir: Path) -> bytes:
    """The key that signs tokens.

    Args:
        secret: the configured one; None takes the random key in the data directory, which is made, readable
            to its owner alone, when it is not there yet. Processes that start together agree on one.
        data_dir: made when it is not there yet.

    Raises:
        SecretError: the key file cannot be read, cannot be made, or is too short to be a key.
    """
    if secret is not None:
        return secret.encode()
    key = _key_in(data_dir / SECRET_FILE, secrets.token_hex(32))
    if len(key) < SECRET_BYTES_MIN:
        raise SecretError(
            data_dir / SECRET_FILE,
            "is too short to be a key. Delete it, and a new one is made; tokens issued before end.",
        )
    return key


def load_author_key(author_key: str | None, shared_secret: str | None, data_dir: Path) -> str:
    """The key that authors show.

    Args:
        author_key: the configured one; None takes that of the data directory, where commands on this machine
            find it. Like the key that signs tokens it is random, made when it is not there yet, and readable
            to its owner alone.
        shared_secret: that of a cluster: then the key follows from it, so that all nodes have the same one.
        data_dir: made when it is not there yet.

    Raises:
        SecretError: the key file cannot be read, cannot be made, or is too short to be a key.
    """
    if author_key is not None:
        return author_key
    path = data_dir / AUTHOR_KEY_FILE
    if shared_secret is None:
        key = _key_in(path, secrets.token_urlsafe(24))
    else:
        digest = hmac.digest(shared_secret.encode(), b"fanfare author key", "sha256")
        key = _key_in(path, base64.urlsafe_b64encode(digest[:24]).decode(), replace=True)
    if len(key) < AUTHOR_KEY_CHARS_MIN or not key.isascii():
        raise SecretError(path, "is no key. Delete it, and a new one is made.")
    return key.decode()


def author_key_in(data_dir: Path) -> str | None:
    """The key that a node has made in this directory; None when there is none, or none that may be read."""
    try:
        return (data_dir / AUTHOR_KEY_FILE).read_text("ascii").strip() or None
    except (OSError, ValueError):
        return None


def _key_in(path: Path, made: str, *, replace: bool = False) -> bytes:
    """What the file holds: `made`, if it was not there or is to replace another. Raises SecretError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make_key_file(path, made)
        elif replace and path.read_bytes().strip() != made.encode():
            _make_key_file(path, made, replace=True)
        return path.read_bytes().strip()
    except OSError as exc:
        raise SecretError(path, f"cannot be used: {exc.strerror or exc}") from exc


def _make_key_file(path: Path, key: str, *, replace: bool = False) -> None:
    """The file appears whole or not at all. One that is there stays, unless it is to be replaced."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(key + "\n")
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)
