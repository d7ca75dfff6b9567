"""`fanfare serve`: one node, in the foreground."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.cli.terminal import author_key_for, command_line, leaves, run
from server.config.config import FILE_NAME, Config, Setting, settings
from server.runtime.logs import log_to_stderr

if TYPE_CHECKING:
    import trio

    from server.node import Running


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One option for each setting of a node, and `--config`."""
    for setting in reversed(settings()):
        command = _option(setting)(command)
    return click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        help=f"TOML file with settings.  [default: {FILE_NAME}, if it is there]",
    )(command)


def _option(setting: Setting) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    text = setting.doc[0].upper() + setting.doc[1:]
    if setting.default not in (None, ()):
        text += f"  [default: {Config().shown(setting.key)}]"
    if setting.flag:
        names = f"{setting.option}/--no-{setting.option[2:]}"
        return click.option(names, setting.key, default=None, help=text)
    return click.option(setting.option, setting.key, metavar="VALUE", multiple=setting.many, help=text)


@click.command()
@setting_options
@click.option(
    "--until-eof",
    is_flag=True,
    help="End as well when standard input does: when who started the node is gone.",
)
def serve(file: Path | None, until_eof: bool, **flags: Any) -> None:
    """Run a node until Ctrl-C or SIGTERM.

    Every option can also be set in the environment, as in FANFARE_HTTP_PORT=8080, or in a TOML file, as in
    http_port = 8080. A flag counts more than the environment, and that more than the file.
    """

    async def main() -> int:
        import trio

        from server.file_limit import problem as file_problem
        from server.listening import StartError
        from server.node import serve as serve_node

        config = load(file, flags)
        log_to_stderr(config.log_level, config.log_format, config.node or socket.gethostname())
        failed: list[str] = []
        try:
            async with trio.open_nursery() as nursery:
                if until_eof:
                    nursery.start_soon(_cancel_at_eof, nursery.cancel_scope)
                running: Running = await nursery.start(serve_node, config)
                greet(running)
                for problem in (config.plain_behind_tls, file_problem(config.connections_max)):
                    if problem:
                        click.echo(f"Warning: {problem}.", err=True)
        except* StartError as group:
            failed = [str(each) for each in leaves(group)]
        if failed:
            raise click.ClickException("; ".join(failed))
        return 0

    run(main, on_signal=0)


async def _cancel_at_eof(scope: trio.CancelScope) -> None:
    """The kernel closes the pipe of a process that dies, however that happens."""
    import trio

    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        async for _ in stream:
            pass
    scope.cancel()


def load(file: Path | None, flags: dict[str, Any]) -> Config:
    """The settings of this process. Raises ConfigError."""
    return Config.load(file, os.environ, {key: value for key, value in flags.items() if value != ()})


def greet(running: Running) -> None:
    """Say what runs where, and what to type next."""
    url = running.http_url

    def command(words: str) -> str:
        return command_line(url, words)

    rows = [
        (command("session start european-capitals"), "opens a session and prints its code"),
        (command("bots CODE --players 200"), "lets 200 bots play in it"),
        (command("watch CODE"), "shows its leaderboard"),
    ]
    width = max(len(words) for words, _ in rows)
    click.echo("Fanfare is up. Ctrl-C ends it.")
    click.echo(f"  Play       {url}")
    # The part after # stays in the browser: no server and no proxy reads it.
    key = "" if running.author_key is None else f"#key={running.author_key}"
    click.echo(f"  Host       {url}/host{key}")
    click.echo(f"  Author     {url}/author{key}")
    click.echo(f"  HTTP API   {url}  (described at {url}/openapi.json)")
    if running.ws_url:
        click.echo(f"  WebSocket  {running.ws_url}  (docs/protocol.md)")
    click.echo("In another terminal:")
    if running.author_key is not None and author_key_for(url) != running.author_key:
        click.echo(f"  export FANFARE_AUTHOR_KEY={running.author_key}")
    for words, meaning in rows:
        click.echo(f"  {words.ljust(width)}  {meaning}")
