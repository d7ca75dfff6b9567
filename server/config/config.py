"""One validated, frozen object that holds every setting of a node.

A setting comes from the first of these that names it: a flag of the command line, a `FANFARE_*` variable
of the environment, the TOML file, the default. Nothing is guessed: an unknown key and a value out of range
are errors that say what would have been right.
"""

from __future__ import annotations

import difflib
import os
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from server.config import kinds as kinds
from server.config.contradictions import contradictions
from server.config.kinds import setting_field as _setting
from server.config.sign_in import SignInSettings

PREFIX = "FANFARE_"
FILE_NAME = "fanfare.toml"

CLIENT_VARIABLES = frozenset({"FANFARE_URL", "FANFARE_HOST_TOKEN"})
"""Variables of the same family that the client commands read; a node passes over them."""

_ON_LINUX = sys.platform == "linux"

Source = Literal["flag", "environment", "file", "default"]


class ConfigError(Exception):
    """The configuration cannot be used.

    Args:
        key: the setting, as in `http_port`; None when the whole is meant.
        source: where the value came from, as in `FANFARE_HTTP_PORT`, `--http-port` or a path.
        problem: what is wrong and what is allowed. Never holds the value of a secret.
    """

    def __init__(self, key: str | None, source: str, problem: str) -> None:
        super().__init__(key, source, problem)
        self.key = key
        self.source = source
        self.problem = problem

    def __str__(self) -> str:
        if self.key is None or self.key == self.source:
            return f"{self.source}: {self.problem}"
        return f"{self.key} ({self.source}): {self.problem}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(SignInSettings):
    """Every setting of a node. Valid by construction: raises ConfigError otherwise."""

    # Where it runs
    data_dir: Path = _setting(  # noqa: RUF009 - a field()
        Path("data"), kinds.PATH, "directory of the embedded database, the spool and the keys"
    )
    host: str = _setting("127.0.0.1", kinds.HOST, "address to listen on; 0.0.0.0 for every interface")
    http_port: int = _setting(5001, kinds.PORT, "port of the HTTP API; 0 takes any free one")
    realtime_port: int = _setting(5002, kinds.PORT, "port of the WebSocket listener; 0 takes any free one")
    public_url: str | None = _setting(
        None,
        kinds.optional(kinds.url("http", "https", per_node=True)),
        "the HTTP API's address as clients see it; {node} stands for the node's name",
    )
    public_ws_url: str | None = _setting(
        None,
        kinds.optional(kinds.url("ws", "wss", per_node=True)),
        "the WebSocket's address as clients see it; {node} stands for the node's name",
    )
    database_url: str | None = _setting(
        None,
        kinds.optional(kinds.database_url()),
        "a PostgreSQL to use; without it one runs inside the data directory",
        secret=True,
    )
    partition_days: int = _setting(
        30,
        kinds.integer(1, 366),
        "days of sessions in one partition of the database, for those made from now on",
    )
    retention_days: int | None = _setting(
        None,
        kinds.optional(kinds.integer(1, 36_500)),
        "days after which the sessions of a partition are dropped; without it they are kept",
    )
    node: str | None = _setting(
        None, kinds.optional(kinds.name(64)), "this node's name in the logs; by default the host's name"
    )

    # Together with others
    redis_url: str | None = _setting(
        None,
        kinds.optional(kinds.redis_url()),
        "a Redis in which the nodes of a cluster find each other; without it the node is alone",
        secret=True,
    )
    cluster: str = _setting(
        "fanfare",
        kinds.name(32),
        "name of the cluster: several may share a Redis, each with a database of its own",
    )
    role: str = _setting(
        "both",
        kinds.choice("api", "realtime", "both"),
        "what this node does in a cluster: the HTTP API, sessions and their players, or both",
    )
    weight: int = _setting(
        1, kinds.integer(1, 8), "share of the sessions that this node gets, against that of the others"
    )
    link_host: str = _setting(
        "127.0.0.1", kinds.HOST, "address to listen on for the other nodes of the cluster"
    )
    link_port: int = _setting(
        5003, kinds.PORT, "port for the other nodes of the cluster; 0 takes any free one"
    )
    link_url: str | None = _setting(
        None, kinds.optional(kinds.url("ws", "wss")), "the link port's address as the other nodes see it"
    )
    lease_s: float = _setting(
        3.0,
        kinds.number(1, 60),
        "seconds without a sign of life after which others may take a node's sessions",
    )
    drain_s: float = _setting(
        20.0, kinds.number(0, 3600), "seconds that a node takes at most to move its sessions before it ends"
    )
    relay_above: int = _setting(
        10_000,
        kinds.integer(1, 1_000_000),
        "player limit of a session above which every node takes players of it, and not its owner alone",
    )

    # Who may do what
    secret: str | None = _setting(
        None,
        kinds.optional(kinds.secret(16)),
        "key that signs tokens; without it a random one is made in the data directory",
        secret=True,
    )
    author_key: str | None = _setting(
        None,
        kinds.optional(kinds.secret(8)),
        "key for authoring and for opening sessions; without it a random one is made in the data directory",
        secret=True,
    )
    allowed_origins: tuple[str, ...] = _setting(
        (), kinds.ORIGINS, "web origins that may use the API and the WebSocket from a browser"
    )
    proxy_hops: int = _setting(
        0, kinds.integer(0, 10), "trusted proxies in front, for the client's address in X-Forwarded-For"
    )
    tls_cert: Path | None = _setting(  # noqa: RUF009 - a field()
        None, kinds.optional(kinds.PATH), "certificate chain (PEM), for TLS in this process"
    )
    tls_key: Path | None = _setting(None, kinds.optional(kinds.PATH), "private key (PEM) of the certificate")  # noqa: RUF009 - a field()
    token_ttl_s: int = _setting(86_400, kinds.integer(60, 31_536_000), "seconds for which a token is valid")

    # The users of an app
    identity: str = _setting(
        "off",
        kinds.choice("off", "optional", "required"),
        "whether players may, or have to, show an identity token that the app has signed",
    )
    identity_jwks: str | None = _setting(
        None,
        kinds.optional(kinds.KEY_SET),
        "where the app's public keys are, as a JSON Web Key Set",
    )
    identity_secret: str | None = _setting(
        None,
        kinds.optional(kinds.secret(32)),
        "key that the app signs identity tokens with, if it uses HS256",
        secret=True,
    )
    identity_issuer: str | None = _setting(
        None, kinds.optional(kinds.secret(1)), "issuer that an identity token must name"
    )
    identity_audience: str | None = _setting(
        None, kinds.optional(kinds.secret(1)), "audience that an identity token must name"
    )
    identity_leeway_s: float = _setting(
        30.0, kinds.number(0, 300), "seconds by which the app's clock may differ"
    )

    # What it says and brings along
    log_level: str = _setting(
        "info", kinds.choice("debug", "info", "warning", "error", "critical"), "least level that is logged"
    )
    log_format: str = _setting(
        "text", kinds.choice("text", "json"), "lines for people, or one JSON object a line"
    )
    samples: bool = _setting(True, kinds.BOOLEAN, "whether the sample quizzes are in the catalog")

    # Sessions
    tick_ms: int = _setting(
        250, kinds.integer(20, 10_000), "least time between two leaderboards, or counts of the answers"
    )
    tick_max_ms: int = _setting(
        10_000,
        kinds.integer(20, 60_000),
        "what that time rises to at most while the node is busy; as much as tick_ms: it never rises",
    )
    mailbox_max: int = _setting(10_000, kinds.integer(16, 1_000_000), "commands that wait for one session")
    history_max: int = _setting(32, kinds.integer(1, 65_536), "broadcasts kept for clients that resume")
    journal_facts_max: int = _setting(
        50_000, kinds.integer(100, 10_000_000), "facts that wait for the database before `busy` is answered"
    )
    spool_after_s: float = _setting(
        1.0, kinds.number(0.05, 600), "seconds without a commit after which facts go to the spool on disk"
    )
    spool_bytes_max: int = _setting(
        1_073_741_824,
        kinds.integer(1_048_576, 1_099_511_627_776),
        "bytes of facts in the spool before `busy` is answered",
    )
    sessions_max: int = _setting(20_000, kinds.integer(1, 1_000_000), "sessions in memory")
    session_idle_s: float = _setting(
        300.0, kinds.number(1, 86_400), "seconds without clients after which a session leaves memory"
    )
    session_max_age_s: float = _setting(
        86_400.0, kinds.number(60, 31_536_000), "seconds after which an unfinished session is finished"
    )

    # Leaderboards over sessions
    leaderboard_rule: str = _setting(
        "best", kinds.choice("best", "sum"), "which plays of a user count: the best one, or all of them"
    )
    leaderboard_zone: str = _setting(
        "UTC", kinds.time_zone(), "time zone in which the days and weeks of leaderboards begin"
    )
    leaderboards_public: bool = _setting(
        False, kinds.BOOLEAN, "whether all may see leaderboards, and not only users and authors"
    )

    # Connections
    transport: str | None = _setting(
        None,
        kinds.optional(kinds.choice("reactor", "trio-websocket")),
        "what carries WebSockets; by default reactor, or trio-websocket for TLS in process or off Linux",
    )
    connections_max: int = _setting(
        0,
        kinds.integer(0, 1_000_000),
        "connections to the realtime port; 0 for as many as the limit of open files leaves room for",
    )
    connections_per_address_max: int = _setting(
        5_000, kinds.integer(1, 1_000_000), "connections to the realtime port from one address"
    )
    http_connections_per_address_max: int = _setting(
        2_000,
        kinds.integer(1, 1_000_000),
        "connections to the HTTP API from one address; 4,000 in all at most",
    )
    event_streams_per_address_max: int = _setting(
        1_000,
        kinds.integer(1, 1_000_000),
        "event streams from one address on the realtime port; on the HTTP port, a quarter of that",
    )
    frame_bytes_max: int = _setting(4096, kinds.integer(512, 65_536), "bytes of one frame from a client")
    body_bytes_max: int = _setting(
        1_048_576, kinds.integer(1024, 67_108_864), "bytes of one HTTP request's body"
    )
    outbox_bytes_max: int = _setting(
        65_536, kinds.integer(4096, 16_777_216), "bytes that wait for one client before it is cut off"
    )
    send_timeout_s: float = _setting(10.0, kinds.number(0.1, 600), "seconds that one send may take")
    ping_interval_s: float = _setting(
        20.0, kinds.number(0.1, 3600), "seconds between two looks for a sign of life; who gave none is pinged"
    )
    ping_timeout_s: float = _setting(20.0, kinds.number(0.1, 3600), "seconds to wait for a pong")
    join_timeout_s: float = _setting(10.0, kinds.number(0.1, 600), "seconds for a new connection to join")

    # Limits against abuse
    messages_per_s: float = _setting(
        20.0, kinds.number(0.1, 1_000_000), "messages a second from one connection, in the long run"
    )
    messages_burst: int = _setting(
        60, kinds.integer(1, 1_000_000), "messages that one connection may send at once"
    )
    attempts_per_min: int = _setting(
        30, kinds.integer(1, 1_000_000), "wrong codes and tokens a minute from one address"
    )
    connections_per_address_per_s: float = _setting(
        200.0,
        kinds.number(0.1, 1_000_000),
        "new connections a second from one address to each port, in the long run",
    )
    joins_per_s: float = _setting(
        5_000.0, kinds.number(0.1, 1_000_000), "new players a second in one session"
    )
    seats_per_address_max: int = _setting(
        2_000, kinds.integer(1, 1_000_000), "players that may join one session from one address"
    )
    seats_per_address_per_s: float = _setting(
        25.0,
        kinds.number(0.1, 1_000_000),
        "of those, how many a second in the long run; twenty times as many at once",
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, _read(each, getattr(self, each.name), "the program"))
        for contradiction in contradictions(self, on_linux=_ON_LINUX):
            raise ConfigError(*contradiction)

    @classmethod
    def load(cls, file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Config:
        """The settings of this node.

        Args:
            file: a TOML file that must exist; None takes `fanfare.toml` of the working directory if there.
            environ: the environment. An empty variable counts as not given.
            flags: by field name. None counts as not given.

        Raises:
            ConfigError: names the key, where it came from, and what is allowed.
        """
        return resolve(file, environ, flags).config

    @property
    def plain_behind_tls(self) -> str | None:
        """What browsers will not do with this configuration, if clients come by TLS; else None."""
        url, ws_url = self.public_url, self.public_ws_url
        if url is None or not url.startswith("https:"):
            return None
        if ws_url is None and (self.tls_cert is not None or self.role == "api"):
            return None
        if ws_url is not None and ws_url.startswith("wss:"):
            return None
        told = "public_ws_url is not set" if ws_url is None else f"public_ws_url is {ws_url}"
        return (
            f"public_url is {url} and {told}: a page that comes by TLS may open no WebSocket without it, so "
            "all play by requests and event streams, which cost more; public_ws_url wants a wss:// address"
        )

    @property
    def carrier(self) -> str:
        """The transport, chosen if need be."""
        if self.transport is not None:
            return self.transport
        return "reactor" if _ON_LINUX and self.tls_cert is None else "trio-websocket"

    def shown(self, key: str) -> str:
        """The value as it may be printed: secrets are hidden, a database's password too."""
        value = getattr(self, key)
        if value is None:
            return "-"
        if key in ("database_url", "redis_url"):
            return kinds.without_password(str(value))
        if setting(key).secret:
            return "(set)"
        if isinstance(value, tuple):
            return ", ".join(value) or "-"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            return f"{value:g}"
        return str(value)


@dataclass(frozen=True, slots=True)
class Setting:
    """The documentation of one field of Config."""

    key: str
    doc: str
    allowed: str
    default: object
    secret: bool
    flag: bool
    """True for yes-or-no settings."""
    many: bool
    """True where several values may be given."""

    @property
    def variable(self) -> str:
        return PREFIX + self.key.upper()

    @property
    def option(self) -> str:
        return "--" + self.key.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Resolved:
    """A configuration and, for every key, where its value came from."""

    config: Config
    sources: Mapping[str, Source]
    file: Path | None


def settings() -> tuple[Setting, ...]:
    """Every setting in the order of Config."""
    return tuple(_described(each) for each in fields(Config))


def setting(key: str) -> Setting:
    """One setting. Raises KeyError."""
    return _described(Config.__dataclass_fields__[key])


def resolve(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Resolved:
    """As `Config.load`, and tells where each value came from."""
    path = _file(file)
    layers: list[tuple[Source, dict[str, tuple[str, object]]]] = [
        ("file", _from_file(path) if path is not None else {}),
        ("environment", _from_environ(environ)),
        ("flag", _from_flags(flags)),
    ]
    values: dict[str, object] = {}
    sources: dict[str, Source] = {each.name: "default" for each in fields(Config)}
    for layer, entries in layers:
        for key, (source, raw) in entries.items():
            values[key] = _read(Config.__dataclass_fields__[key], raw, source)
            sources[key] = layer
    return Resolved(Config(**cast(dict[str, Any], values)), sources, path)


def _file(file: Path | None) -> Path | None:
    if file is not None:
        return file
    found = Path(FILE_NAME)
    return found if found.is_file() else None


def _from_file(path: Path) -> dict[str, tuple[str, object]]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(None, str(path), f"cannot be read: {exc.strerror or exc}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(None, str(path), f"is not TOML: {exc}") from exc
    known = [each.name for each in fields(Config)]
    for key in data:
        if key not in known:
            raise _unknown(key, str(path), known)
    return {key: (str(path), raw) for key, raw in data.items()}


def _from_environ(environ: Mapping[str, str]) -> dict[str, tuple[str, object]]:
    by_variable = {each.variable: each.key for each in settings()}
    found: dict[str, tuple[str, object]] = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in CLIENT_VARIABLES:
            continue
        if variable not in by_variable:
            raise _unknown(variable, "the environment", by_variable)
        if environ[variable] != "":
            found[by_variable[variable]] = (variable, environ[variable])
    return found


def _from_flags(flags: Mapping[str, object]) -> dict[str, tuple[str, object]]:
    known = {each.key: each.option for each in settings()}
    for key in flags:
        if key not in known:
            raise _unknown(key, "the command line", known)
    return {key: (known[key], raw) for key, raw in flags.items() if raw is not None}


def _read(each: Field[Any], raw: object, source: str) -> object:
    kind: kinds.Kind = each.metadata["kind"]
    try:
        return kind.read(raw)
    except (ValueError, OverflowError):
        shown = (
            "the value" if each.metadata["secret"] else repr(os.fspath(raw) if isinstance(raw, Path) else raw)
        )
        raise ConfigError(each.name, source, f"{shown} is not allowed; {kind.allowed} is") from None


def _unknown(key: str, source: str, known: Iterable[str]) -> ConfigError:
    names = list(known)
    close = difflib.get_close_matches(key, names, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return ConfigError(key, source, f"is not a setting; {meant}Known are: {', '.join(names)}")


def _described(each: Field[Any]) -> Setting:
    kind: kinds.Kind = each.metadata["kind"]
    return Setting(
        key=each.name,
        doc=each.metadata["doc"],
        allowed=kind.allowed,
        default=each.default,
        secret=each.metadata["secret"],
        flag=kind is kinds.BOOLEAN,
        many=kind is kinds.ORIGINS,
    )
