"""The kinds of values that settings have: how each is read, and what is allowed in one phrase.

A kind reads text (from the environment and the command line) as well as what TOML and Python give, and
raises a bare ValueError for the rest; who asks knows the key and the source and builds the sentence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_HOST = re.compile(r"[A-Za-z0-9._\-]{1,253}|[0-9a-fA-F:.]{2,45}")
_NAME = re.compile(r"[A-Za-z0-9._\-]+")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+\-]*(/[A-Za-z0-9_+\-]+)*")


@dataclass(frozen=True, slots=True)
class Kind:
    """`read` turns a raw value into a valid one or raises ValueError; `allowed` completes the sentence
    "... is not allowed; ... is"."""

    allowed: str
    read: Callable[[object], object]


def setting_field(default: object, kind: Kind, doc: str, *, secret: bool = False) -> Any:
    """A field of the configuration."""
    return field(default=default, repr=not secret, metadata={"kind": kind, "doc": doc, "secret": secret})


def integer(least: int, most: int) -> Kind:
    """A whole number. Text may have underscores between digits, as in TOML."""

    def read(raw: object) -> int:
        value = int(_whole(raw))
        if not least <= value <= most:
            raise ValueError
        return value

    return Kind(f"a whole number from {least} to {most}", read)


def number(least: float, most: float) -> Kind:
    """A finite number; whole ones become float."""

    def read(raw: object) -> float:
        value = raw if isinstance(raw, float) else float(_whole(raw))
        if not math.isfinite(value) or not least <= value <= most:
            raise ValueError
        return value

    return Kind(f"a number from {least:,g} to {most:,.10g}".replace(",", ""), read)


def choice(*words: str) -> Kind:
    """One of a few words, in any case."""

    def read(raw: object) -> str:
        word = _text(raw).lower()
        if word not in words:
            raise ValueError
        return word

    return Kind(f"one of {', '.join(words)}", read)


def time_zone() -> Kind:
    """A name of the IANA's database. Whether it is in there, PostgreSQL knows."""

    def read(raw: object) -> str:
        text = _text(raw)
        if len(text) > 64 or not _ZONE.fullmatch(text):
            raise ValueError
        return text

    return Kind("the name of a time zone, as in Europe/Berlin", read)


def name(most: int) -> Kind:
    """A name of letters, digits, dots, dashes and underscores."""

    def read(raw: object) -> str:
        text = _text(raw)
        if len(text) > most or not _NAME.fullmatch(text):
            raise ValueError
        return text

    return Kind(f"a name of at most {most} letters, digits, dots, dashes and underscores", read)


def secret(least: int) -> Kind:
    """A key of printable ASCII without spaces, so that it fits into a header and a shell."""

    def read(raw: object) -> str:
        text = _text(raw)
        if not least <= len(text) <= 512 or not all("!" <= each <= "~" for each in text):
            raise ValueError
        return text

    return Kind(f"a key of {least} to 512 printable ASCII characters without spaces", read)


def url(*schemes: str, per_node: bool = False) -> Kind:
    """An address with a host and perhaps a port and a path. A trailing slash is dropped. With `per_node` it
    may hold `{node}`."""

    def read(raw: object) -> str:
        text = _text(raw)
        parts = urlsplit(text.replace("{node}", "node") if per_node else text)
        if parts.scheme not in schemes or not _authority_fits(parts.netloc, parts.hostname, parts.port):
            raise ValueError
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError
        return text.rstrip("/")

    return Kind(f"an address like {schemes[-1]}://quiz.example without query and password", read)


def _key_set(raw: object) -> str:
    """Keys that come from afar have to come by TLS: whoever could change them on the way could be anybody."""
    text = _text(raw)
    if "://" not in text:
        return str(_path(text))
    parts = urlsplit(text)
    near = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    if not (parts.scheme == "https" or near) or "@" in parts.netloc or parts.fragment:
        raise ValueError
    if not _authority_fits(parts.netloc, parts.hostname, parts.port):
        raise ValueError
    return text


def issuer() -> Kind:
    """The address of an OpenID Connect provider, exactly as it names itself: a slash at the end stays.
    Without TLS it must be on this machine."""

    def read(raw: object) -> str:
        text = _text(raw)
        url("http", "https").read(text)
        parts = urlsplit(text)
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError
        return text

    return Kind("an address like https://login.example, or http:// on this machine", read)


def text(most: int) -> Kind:
    """Printable text on one line."""

    def read(raw: object) -> str:
        found = _text(raw)
        if len(found) > most or not found.isprintable():
            raise ValueError
        return found

    return Kind(f"a text of at most {most} printable characters", read)


def database_url() -> Kind:
    """A PostgreSQL address. Host and password may be left to the server's own means (socket, .pgpass)."""

    def read(raw: object) -> str:
        text = _text(raw)
        parts = urlsplit(text)
        if parts.scheme not in ("postgresql", "postgres") or not text.startswith(f"{parts.scheme}://"):
            raise ValueError
        if not parts.hostname and "host=" not in parts.query:
            raise ValueError
        _ = parts.port
        return text

    return Kind("an address like postgresql://user:password@host:5432/name", read)


def redis_url() -> Kind:
    """A Redis address, with a password and a database number if need be."""

    def read(raw: object) -> str:
        text = _text(raw)
        parts = urlsplit(text)
        socket = parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc
        if not socket and not (parts.scheme in ("redis", "rediss") and parts.hostname):
            raise ValueError
        if not socket:
            _ = parts.port
        return text

    return Kind("an address like redis://:password@host:6379/0 or unix:///run/redis.sock", read)


def optional(kind: Kind) -> Kind:
    """The same kind, or nothing at all (None)."""

    def read(raw: object) -> object:
        return None if raw is None else kind.read(raw)

    return Kind(kind.allowed, read)


def without_password(address: str) -> str:
    """The same address with `***` for its password."""
    parts = urlsplit(address)
    query = re.sub(r"(?i)(^|&)((?:ssl)?password)=[^&]*", r"\1\2=***", parts.query)
    netloc = parts.netloc
    if "@" in netloc:
        user, _, place = netloc.rpartition("@")
        netloc = f"{user.partition(':')[0]}:***@{place}" if ":" in user else netloc
    return urlunsplit(parts._replace(netloc=netloc, query=query))


def _text(raw: object) -> str:
    if not isinstance(raw, str) or not raw or raw != raw.strip():
        raise ValueError
    return raw


def _whole(raw: object) -> int | str:
    """A bool is an int to Python and a mistake in a setting."""
    match raw:
        case bool():
            raise ValueError
        case int() | str():
            return raw
    raise ValueError


def _authority_fits(netloc: str, host: str | None, port: int | None) -> bool:
    return bool(host and _HOST.fullmatch(host)) and port != 0 and not netloc.endswith(":")


def _path(raw: object) -> Path:
    if isinstance(raw, Path):
        return raw
    text = _text(raw)
    if "\0" in text:
        raise ValueError
    try:
        return Path(text).expanduser()
    except RuntimeError as exc:  # the home directory of a user whom nobody knows
        raise ValueError from exc


def _host(raw: object) -> str:
    text = _text(raw)
    if not _HOST.fullmatch(text):
        raise ValueError
    return text


def _boolean(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    word = _text(raw).lower()
    if word not in _TRUE | _FALSE:
        raise ValueError
    return word in _TRUE


def _origin(raw: object) -> str:
    text = _text(raw).lower()
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or text != f"{parts.scheme}://{parts.netloc}":
        raise ValueError
    if "@" in parts.netloc or not _authority_fits(parts.netloc, parts.hostname, parts.port):
        raise ValueError
    return text


def _origins(raw: object) -> tuple[str, ...]:
    """Text is split at commas; a list or tuple is taken item by item. Repeats are dropped."""
    if isinstance(raw, str):
        raw = [part.strip() for part in raw.split(",")]
    if not isinstance(raw, (list, tuple)) or len(raw) > 100:
        raise ValueError
    return tuple(dict.fromkeys(_origin(each) for each in raw))


PORT = integer(0, 65_535)
PATH = Kind("a path", _path)
HOST = Kind("a host name or an IP address", _host)
KEY_SET = Kind("an https:// address, or a path", _key_set)
BOOLEAN = Kind("true or false", _boolean)
ORIGINS = Kind("a list of origins like https://quiz.example", _origins)
