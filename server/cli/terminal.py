"""Shared by all commands: how they run, how they fail, and the address of the server.

The command modules import click and this one; heavy modules are imported where they are used, so that
`--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from server.config.kinds import url as url_kind

if TYPE_CHECKING:
    from rich.console import Console

    from loadtest.client.api import Api

DEFAULT_URL = "http://127.0.0.1:5001"
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

PIPE_COLUMNS = 200

F = TypeVar("F", bound=Callable[..., Any])


def run(main: Callable[[], Awaitable[int]], *, on_signal: int = INTERRUPTED) -> None:
    """Run an async command to its end, or until SIGINT or SIGTERM cancels it.

    Ends the process with what `main` returns, or with `on_signal`. Whatever a person can do something about
    becomes one line on stderr and exit code 1. All else raises, and what lies in groups is shown one by one
    before: Python shows nothing that is as deep in them as the parts of a node are.
    """
    import trio

    try:
        code = trio.run(_until_signal, main, on_signal)
    except Exception as exc:
        failure = explained(sole(exc))
        if failure is None:
            if isinstance(exc, BaseExceptionGroup):
                for each in leaves(exc):
                    traceback.print_exception(each)
            raise
        raise failure from exc
    sys.exit(code)


async def _until_signal(main: Callable[[], Awaitable[int]], on_signal: int) -> int:
    import trio

    code = on_signal
    async with trio.open_nursery() as nursery:

        async def wait_for_signal(task_status: trio.TaskStatus[None]) -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                async for _ in signals:
                    nursery.cancel_scope.cancel()

        await nursery.start(wait_for_signal)
        code = await main()
        nursery.cancel_scope.cancel()
    return code


def leaves(exc: BaseException) -> list[BaseException]:
    """The exceptions in a group and in the groups within; or just the exception."""
    if not isinstance(exc, BaseExceptionGroup):
        return [exc]
    return [leaf for each in exc.exceptions for leaf in leaves(each)]


def sole(exc: BaseException) -> BaseException:
    """The only exception within a group; else the exception as it is."""
    found = leaves(exc)
    return found[0] if len(found) == 1 else exc


def explained(exc: BaseException) -> click.ClickException | None:
    """One line for a person, if it is something that a person can do something about."""
    from loadtest.client.api import ApiRefused, ApiUnreachable
    from server.config.config import ConfigError
    from server.quizfile import QuizFileError

    match exc:
        case click.ClickException():
            return exc
        case ApiUnreachable():
            return click.ClickException(
                f"No server answers at {exc.url} ({exc.why}). Start one with `fanfare serve`, "
                "or name another with --url or FANFARE_URL."
            )
        case ApiRefused(code="token_missing" | "token_invalid"):
            return click.ClickException(
                f"{exc}. Authors set FANFARE_AUTHOR_KEY, or FANFARE_DATA_DIR to the data directory of a node "
                "on this machine."
            )
        case ApiRefused():
            return click.ClickException(f"{exc}.")
        case ConfigError() | QuizFileError():
            return click.ClickException(str(exc))
    return None


def session_argument(name: str = "code", **how: Any) -> Callable[[F], F]:
    """The argument that names a session, as people type it or paste it from a link."""

    def read(_ctx: click.Context, _param: click.Parameter, typed: str | None) -> str | None:
        from server.text_input import session_key_of

        return typed and session_key_of(typed)

    return click.argument(name, callback=read, **how)


def _checked_url(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    kind = url_kind("http", "https")
    try:
        return str(kind.read(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not allowed; {kind.allowed} is") from None


def server_option(command: F) -> F:
    """Adds `--url`."""
    return click.option(
        "--url",
        envvar="FANFARE_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        callback=_checked_url,
        help="Address of the server's HTTP API.",
    )(command)


def yes_option(command: F) -> F:
    """Adds `--yes`, for `sure`."""
    return click.option("--yes", is_flag=True, help="Do not ask first.")(command)


def sure(question: str, *, yes: bool) -> None:
    """Ask before something goes for good. Raises click.Abort if it is to stay."""
    if not yes:
        click.confirm(question, abort=True)


def api_at(url: str) -> Api:
    """The server's API, with the author's key if there is one to be found."""
    from loadtest.client.api import Api

    return Api(url, author_key=author_key_for(url))


def author_key_for(url: str) -> str | None:
    """The author key: that of the environment; or, for a node on this machine, that of fanfare.toml or the
    one that it has made in its data directory. No other machine is shown those."""
    from server.config.config import Config, ConfigError
    from server.security.tokens import author_key_in

    if key := os.environ.get("FANFARE_AUTHOR_KEY"):
        return key
    if not _is_this_machine(urlsplit(url).hostname or ""):
        return None
    try:
        config = Config.load(None, os.environ, {})
    except ConfigError:
        return None
    return config.author_key or author_key_in(config.data_dir)


def _is_this_machine(host: str) -> bool:
    """A socket can be bound to an address of this machine alone."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def output() -> Console:
    """Where tables and pictures go. Into a pipe or a file, lines are not broken for a terminal's sake."""
    from rich.console import Console

    made = Console(highlight=False)
    if not made.is_terminal:
        made.width = PIPE_COLUMNS
    return made


def command_line(url: str, words: str) -> str:
    """A command to type next, for this server."""
    return f"{program()} {words}" if url == DEFAULT_URL else f"{program()} {words} --url {url}"


def program() -> str:
    """This program as it can be typed here: by its name if that finds it, else by its path."""
    script = Path(sys.argv[0])
    if script.name != "fanfare" or shutil.which("fanfare") == str(script.absolute()):
        return "fanfare"
    below_here = script.absolute().is_relative_to(Path.cwd())
    return str(script.absolute().relative_to(Path.cwd()) if below_here else script.absolute())


def printable(text: object) -> str:
    """Text from the network without anything that a terminal would obey."""
    return "".join(each if each.isprintable() else " " for each in str(text))
