"""`fanfare doctor`: checks every setting and every service that a node needs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import trio

from server.cli.terminal import author_key_for, output, printable, run
from server.security.client_address import EVERYWHERE

if TYPE_CHECKING:
    from rich.console import Console

    from loadtest.client.api import Api
    from server.config.config import Config, Resolved

State = Literal["ok", "warning", "failed"]
MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failed": "[red]failed[/]"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    detail: str


@click.command()
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with settings.  [default: fanfare.toml, if it is there]",
)
@click.option(
    "--url",
    envvar="FANFARE_URL",
    show_envvar=True,
    help="Address of the server's HTTP API.  [default: as configured]",
)
def doctor(file: Path | None, url: str | None) -> None:
    """Show every setting with its source, and try what a node needs.

    Reads the configuration as `fanfare serve` would here and now. The exit code is 0 only if everything that
    is needed works.
    """

    async def main() -> int:
        from server.config.config import resolve

        console = output()
        resolved = resolve(file, os.environ, {})
        _print_settings(console, resolved)
        config = resolved.config
        findings = [data_directory(config), *await database(config), file_limit(config)]
        findings += certificates(config)
        findings += await identity_keys(config)
        if config.plain_behind_tls:
            findings.append(Finding("public_ws_url", "warning", config.plain_behind_tls))
        findings += await reachable(config, url)
        _print_findings(console, findings)
        return 1 if any(each.state == "failed" for each in findings) else 0

    run(main)


def _print_settings(console: Console, resolved: Resolved) -> None:
    from rich.table import Table
    from rich.text import Text

    from server.config.config import settings

    table = Table("Setting", "Value", "From", box=None)
    for setting in settings():
        source = resolved.sources[setting.key]
        origin = {
            "default": "default",
            "environment": setting.variable,
            "file": str(resolved.file),
            "flag": setting.option,
        }[source]
        style = "dim" if source == "default" else ""
        cells = (setting.key, resolved.config.shown(setting.key), origin)
        table.add_row(*(Text(cell, style=style) for cell in cells))
    console.print(table)


def _print_findings(console: Console, findings: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    for each in findings:
        table.add_row(MARKS[each.state], each.what, Text(each.detail))
    console.print()
    console.print(table)


def data_directory(config: Config) -> Finding:
    """Whether the data directory can be used, and whether a database runs in it."""
    from engine.storage.embedded import EmbeddedPostgresError, NotRunning, dsn

    path = config.data_dir.absolute()
    nearest = next(each for each in (path, *path.parents) if each.exists())
    if not nearest.is_dir():
        return Finding("data directory", "failed", f"{nearest} is no directory")
    if not os.access(nearest, os.W_OK | os.X_OK):
        return Finding("data directory", "failed", f"{nearest} cannot be written to")
    if nearest != path:
        return Finding("data directory", "ok", f"{path} will be created")
    if config.database_url is not None:
        return Finding("data directory", "ok", f"{path}; the database is elsewhere")
    try:
        dsn(path)
    except NotRunning:
        return Finding("data directory", "ok", f"{path}; no database runs in it")
    except EmbeddedPostgresError as exc:
        return Finding("data directory", "failed", str(exc))
    return Finding("data directory", "ok", f"{path}; its database runs")


async def database(config: Config) -> list[Finding]:
    """Whether the database can be reached, and keeps its commits. An embedded database that does not run is
    not reported."""
    from engine.aio import open_asyncio
    from engine.ports import StorageUnavailable
    from engine.storage import embedded
    from engine.storage.postgres import Database

    address = config.database_url
    if address is None:
        try:
            address = embedded.dsn(config.data_dir)
        except embedded.EmbeddedPostgresError:
            return []
    async with open_asyncio(), Database.open(address, connections_max=1) as opened:
        try:
            row = await opened.fetchrow("SELECT current_setting('server_version') AS version")
        except StorageUnavailable as error:
            return [Finding("database", "failed", f"PostgreSQL: {error}")]
    assert row is not None
    return [Finding("database", "ok", f"PostgreSQL {row['version']} keeps what it has committed")]


def file_limit(config: Config) -> Finding:
    """How many connections the limit of open files leaves room for."""
    from server.file_limit import files_allowed, problem, room

    if (sentence := problem(config.connections_max)) is not None:
        return Finding("open files", "warning", sentence[0].upper() + sentence[1:])
    taken, allowed = room(config.connections_max), files_allowed()
    return Finding(
        "open files",
        "ok",
        f"{allowed:,} allowed: room for {taken.realtime:,} connections, and {taken.http:,} to the HTTP API",
    )


def certificates(config: Config) -> list[Finding]:
    """Whether the TLS files, if any, can be read."""
    found = []
    for key, path in (("tls_cert", config.tls_cert), ("tls_key", config.tls_key)):
        if path is not None:
            readable = path.is_file() and os.access(path, os.R_OK)
            detail = str(path) if readable else f"{path} cannot be read"
            found.append(Finding(key, "ok" if readable else "failed", detail))
    return found


async def identity_keys(config: Config) -> list[Finding]:
    """Whether the keys of identity tokens can be had, and what tokens have to say."""
    from server.security.key_ring import LOOK_TIMEOUT_S, KeysUnavailable, keys_in, loader

    found = []
    if config.identity != "off" and config.identity_audience is None:
        detail = "is not set: a token that the app has signed for something else than Fanfare may do"
        found.append(Finding("identity_audience", "warning", detail))
    if config.identity_jwks is not None:
        try:
            with trio.fail_after(LOOK_TIMEOUT_S):
                keys = keys_in(await loader(config.identity_jwks)())
        except KeysUnavailable as error:
            found.append(Finding("identity_jwks", "failed", str(error)))
        except trio.TooSlowError:
            detail = f"{config.identity_jwks} does not answer within {LOOK_TIMEOUT_S:g} s"
            found.append(Finding("identity_jwks", "failed", detail))
        else:
            algorithms = ", ".join(sorted({algorithm for _, algorithm in keys}))
            found.append(Finding("identity_jwks", "ok", f"keys: {len(keys)}, for {algorithms}"))
    return found


async def reachable(config: Config, url: str | None) -> list[Finding]:
    """What answers: the HTTP API, the database behind it, the WebSocket."""
    from loadtest.client.api import Api, ApiRefused, ApiUnreachable

    http_url = url or config.public_url or _local(config)
    if http_url is None:
        return [
            Finding(
                "HTTP API", "failed", "http_port is 0, so that its address is not known: name it with --url"
            )
        ]
    try:
        async with Api(http_url, author_key=author_key_for(http_url), timeout_s=10.0) as api:
            ws_url = (await api.alive())["ws_url"]
            ready = await api.readiness()
            health = await _health(api)
    except (ApiRefused, ApiUnreachable) as exc:
        return [Finding("HTTP API", "failed", f"{exc}. Is `fanfare serve` running?")]
    return [
        Finding("HTTP API", "ok", http_url),
        Finding("ready", "ok", "the database answers")
        if ready["ready"]
        else Finding("ready", "failed", "; ".join(ready["reasons"])),
        *health,
        await _realtime(ws_url),
    ]


FINDING_STATES: dict[str, State] = {"ok": "ok", "down": "failed"}
"""Of components; all others are warnings."""


async def _health(api: Api) -> list[Finding]:
    """How the running node is, by its components. A node of an earlier release does not tell."""
    from loadtest.client.api import ApiRefused

    try:
        components = (await api.health())["components"]
    except ApiRefused as refused:
        return [Finding("health", "warning", f"the node does not tell: {refused}")]
    return [
        Finding(
            printable(" to ".join(part for part in (each["name"], each["node"]) if part)),
            FINDING_STATES.get(each["state"], "warning"),
            printable(_told(each)),
        )
        for each in components
    ]


def _told(component: dict[str, Any]) -> str:
    """What is said of a component: its state, what that means, and what is known besides."""
    said: str = f"{component['state']} since {component['since']}: "
    if component["problem"]:
        said += f"{component['problem']}. "
    said += component["means"]
    if (latency := component["latency"]) is not None:
        said += f" Answers within {latency['p50_ms']:.1f} ms (p50), {latency['p99_ms']:.1f} ms (p99)."
    if component["days_left"] is not None:
        said += f" Days left: {component['days_left']:.0f}."
    if (error := component["last_error"]) is not None:
        said += f" Last error, {error['at']}: {error['text'] or 'shown to admins'}"
    return said


async def _realtime(ws_url: str) -> Finding:
    from loadtest.client.connection import NotOpened, open_wire

    try:
        async with open_wire(ws_url, timeout_s=10.0):
            return Finding("WebSocket", "ok", ws_url)
    except NotOpened as exc:
        return Finding("WebSocket", "failed", str(exc))


def _local(config: Config) -> str | None:
    """Where a node with this configuration is found from its own machine; None for any free port."""
    port = config.http_port
    if port == 0:
        return None
    host = EVERYWHERE.get(config.host, config.host)
    scheme = "https" if config.tls_cert else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
