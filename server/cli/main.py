"""The command `fanfare`. Each subcommand is loaded only when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version

import click

_COMMANDS: Mapping[str, str] = {
    "serve": "server.cli.operate.serve",
    "demo": "server.cli.play.demo",
    "cluster": "server.cli.cluster.command",
    "quiz": "server.cli.play.quiz",
    "session": "server.cli.play.session",
    "bots": "server.cli.play.bots",
    "watch": "server.cli.play.watch",
    "load": "server.cli.load.command",
    "chaos": "server.cli.chaos.command",
    "leaderboard": "server.cli.play.leaderboard",
    "users": "server.cli.play.leaderboard",
    "audit": "server.cli.operate.audit",
    "rescore": "server.cli.operate.rescore",
    "scores": "server.cli.operate.scores",
    "db": "server.cli.operate.db",
    "top": "server.cli.operate.top",
    "doctor": "server.cli.operate.doctor",
    "spool": "server.cli.operate.spool",
}
"""In the order of the help page. Each module defines the command under that name."""


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(import_module(_COMMANDS[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(version("fanfare"), message="fanfare %(version)s")
def main() -> None:
    """Live quizzes in real time.

    Begin with `fanfare demo`: it plays a whole session with 200 bots. Or run `fanfare serve`, which says what
    to type next.
    """


if __name__ == "__main__":
    main(prog_name="fanfare")
