"""`fanfare session`: opening, leading and reading sessions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from server.cli.terminal import (
    DEFAULT_URL,
    api_at,
    command_line,
    output,
    printable,
    program,
    run,
    server_option,
    session_argument,
    sure,
    yes_option,
)

DEFAULT_LOBBY_S = 20.0

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def session() -> None:
    """Open, lead and list sessions; read their results."""


@session.command()
@click.argument("quiz_id", metavar="QUIZ")
@click.option(
    "--pace",
    type=click.Choice(["auto", "host", "self"]),
    default="auto",
    show_default=True,
    help="auto: the clock leads. host: you do, from this terminal. self: every player goes alone, until the "
    "session closes.",
)
@click.option(
    "--open-for",
    "open_for_h",
    type=click.FloatRange(1 / 60, 2_160),
    help="Pace self: hours until the session closes.  [default: never, until the host ends it]",
)
@click.option(
    "--untimed",
    is_flag=True,
    help="Pace self: answers may come at any time, and count as in the last moment.",
)
@click.option(
    "--tell",
    type=click.Choice(["each", "end", "deadline", "never"]),
    help="Pace self: when players learn what is right: after each answer, at their own end, when the session "
    "closes, or never.  [default: each]",
)
@click.option(
    "--attempts",
    type=click.IntRange(1, 100),
    help="Pace self: how often a player may go through the quiz; the best attempt counts.  [default: 1]",
)
@click.option(
    "--shuffle-questions/--no-shuffle-questions",
    default=None,
    help="Pace self: whether each player gets the questions in an order of their own.  [default: no]",
)
@click.option(
    "--lobby",
    "lobby_s",
    type=click.FloatRange(0, 86_400),
    help=f"Pace auto: seconds until it starts by itself.  [default: {DEFAULT_LOBBY_S:g}]",
)
@click.option(
    "--reveal",
    "reveal_s",
    type=click.FloatRange(0, 600),
    help="Seconds for which a closed question is shown before the next opens by itself.  [default: 5]",
)
@click.option("--player-limit", type=click.IntRange(1, 200_000), help="Players at a time.  [default: 10000]")
@click.option(
    "--get-ready",
    "get_ready_s",
    type=click.FloatRange(0, 10),
    help="Seconds between the moment at which a question is shown and the one at which its clock starts.  "
    "[default: 3]",
)
@click.option(
    "--reading",
    "reading_s",
    type=click.FloatRange(0, 60),
    help="Seconds more to read the question in, before its choices are shown.  [default: 0]",
)
@click.option(
    "--early-close/--no-early-close",
    default=True,
    show_default=True,
    help="Whether a question closes as soon as everyone who is connected has answered.",
)
@click.option(
    "--board",
    type=click.Choice(["at_close", "live"]),
    help="When scores and ranks move: at the close of each question, or while players answer, which may tell "
    "them what is right.  [default: at_close]",
)
@click.option(
    "--scoring",
    type=click.Choice(["speed", "flat"]),
    help="What a right answer earns, whatever the quiz says.  [default: as the quiz has it]",
)
@click.option(
    "--streak/--no-streak",
    default=None,
    help="Whether right answers in a row earn a bonus.  [default: as the quiz has it]",
)
@click.option(
    "--host-away",
    "host_away_s",
    type=click.IntRange(5, 3_600),
    help="Pace host: seconds without a host after which the session goes on by itself.  [default: never]",
)
@click.option(
    "--names",
    type=click.Choice(["chosen", "given"]),
    help="chosen: players choose their names. given: the node names them.  [default: chosen]",
)
@click.option(
    "--approval/--no-approval",
    default=False,
    show_default=True,
    help="Whether players wait until the host lets them in.",
)
@click.option(
    "--late-join",
    type=click.Choice(["current", "next", "refused"]),
    help="Whether players who come while a question is open answer it, watch until the next one, or are "
    "turned away once the session has started.  [default: current]",
)
@click.option(
    "--extra-time-max",
    type=click.IntRange(1, 4),
    help="The greatest factor of extra time that a player gets; 1 gives none.  [default: 4]",
)
@click.option(
    "--shuffle-choices/--no-shuffle-choices",
    default=None,
    help="Whether each player sees the choices of a question in an order of their own.  [default: no]",
)
@click.option(
    "--name-filter/--no-name-filter",
    default=None,
    help="Whether swearwords, and names like Host, are refused to players.  [default: they are]",
)
@click.option(
    "--results-public/--results-private",
    default=None,
    help="Who may see how it came out: whoever knows the code, or only who was there.  [default: private]",
)
@server_option
def start(
    quiz_id: str,
    pace: str,
    open_for_h: float | None,
    untimed: bool,
    attempts: int | None,
    tell: str | None,
    shuffle_questions: bool | None,
    lobby_s: float | None,
    reveal_s: float | None,
    player_limit: int | None,
    get_ready_s: float | None,
    reading_s: float | None,
    early_close: bool,
    board: str | None,
    scoring: str | None,
    streak: bool | None,
    host_away_s: int | None,
    names: str | None,
    name_filter: bool | None,
    results_public: bool | None,
    approval: bool,
    late_join: str | None,
    extra_time_max: int | None,
    shuffle_choices: bool | None,
    url: str,
) -> None:
    """Open a session of the quiz QUIZ and print its code.

    With `--pace host` this terminal leads it: Enter goes on, p pauses, l locks, s skips, f finishes; d has
    players wait until you let them in, with a, or turn them away, with r.
    """
    given = {
        "player_limit": player_limit,
        "get_ready_ms": None if get_ready_s is None else round(1000 * get_ready_s),
        "reading_ms": None if reading_s is None else round(1000 * reading_s),
        "board": board,
        "scoring": scoring,
        "streak": streak,
        "host_away_s": host_away_s,
        "names": names,
        "name_filter": name_filter,
        "results_public": results_public,
        "approval": approval or None,
        "late_join": late_join,
        "extra_time_max": extra_time_max,
        "shuffle_choices": shuffle_choices,
        "open_ms": None if open_for_h is None else round(3_600_000 * open_for_h),
        "untimed": untimed or None,
        "reveal": tell,
        "attempts": attempts,
        "shuffle_questions": shuffle_questions,
    }
    settings: dict[str, Any] = {"pace": pace, "early_close": early_close}
    settings |= {name: value for name, value in given.items() if value is not None}
    if pace == "auto":
        settings["lobby_ms"] = round(1000 * (DEFAULT_LOBBY_S if lobby_s is None else lobby_s))
        if host_away_s is not None:
            raise click.UsageError("--host-away belongs to --pace host.")
    elif lobby_s is not None:
        raise click.UsageError("--lobby belongs to --pace auto.")
    elif reveal_s is not None and (pace == "self" or host_away_s is None):
        raise click.UsageError("--reveal belongs to --pace auto, or to --host-away.")
    own = (open_for_h, untimed or None, tell, attempts, shuffle_questions or None)
    if pace != "self" and any(value is not None for value in own):
        raise click.UsageError(
            "--open-for, --untimed, --tell, --attempts and --shuffle-questions belong to --pace self."
        )
    if reveal_s is not None:
        settings["reveal_ms"] = round(1000 * reveal_s)

    async def main() -> int:
        async with api_at(url) as api:
            opened = await api.create_session(quiz_id, settings)
        code, token = opened["code"], opened["host_token"]
        click.echo(f"Session {code} of {printable(opened['quiz_id'])} is open. Players join with this code.")
        click.echo(f"  {command_line(url, f'bots {code} --players 200 --quiz {quiz_id}')}")
        click.echo(f"  {command_line(url, f'watch {code}')}")
        if pace == "host":
            return await _lead(url, code, token, opened["ws_url"])
        if pace == "self":
            click.echo("Every player may begin at any time. To see how far they are, and to close it:")
            click.echo(f"  {_host_line(url, code, token)}")
            return 0
        click.echo(f"It starts by itself in {settings['lobby_ms'] / 1000:g} s. To lead it nevertheless:")
        click.echo(f"  {_host_line(url, code, token)}")
        return 0

    run(main)


@session.command()
@click.argument("code")
@click.option(
    "--token",
    envvar="FANFARE_HOST_TOKEN",
    show_envvar=True,
    help="The host's token, as `session start` prints it.  [default: a fresh one, by the author key]",
)
@yes_option
@server_option
def host(code: str, token: str | None, yes: bool, url: str) -> None:
    """Lead the session CODE from this terminal.

    Without a token this takes the session over: whoever leads it now does so no longer.
    """

    async def main() -> int:
        async with api_at(url) as api:
            page = await api.session(code)
            led_by = token
            if led_by is None:
                sure(f"Take session {page['code']} over from whoever leads it now?", yes=yes)
                led_by = (await api.take_over(page["session_id"]))["host_token"]
        return await _lead(url, page["code"], led_by, page["ws_url"])

    run(main)


async def _lead(url: str, code: str, token: str, ws_url: str) -> int:
    from server.cli.play.host_console import lead

    ended = await lead(ws_url, code, token)
    if ended == "finished":
        click.echo("Results:")
        click.echo(f"  {_host_line(url, code, token, 'results')}")
        return 0
    if ended == "left":
        click.echo("The session goes on without you. To come back:")
        click.echo(f"  {_host_line(url, code, token)}")
        return 0
    raise click.ClickException(f"The session cannot be led any longer: {ended}.")


def _host_line(url: str, code: str, token: str, what: str = "host") -> str:
    variables = f"FANFARE_HOST_TOKEN={token}" + ("" if url == DEFAULT_URL else f" FANFARE_URL={url}")
    return f"{variables} {program()} session {what} {code}"


@session.command(name="list")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many.")
@click.option("--title", help="Only those with this text in the title of the quiz.")
@click.option("--owner", help="Only what this author made: `me`, or an id.  [default: all that may be read]")
@server_option
def list_sessions(limit: int, title: str | None, owner: str | None, url: str) -> None:
    """List the sessions that were opened last."""

    async def main() -> int:
        from rich.table import Table
        from rich.text import Text

        async with api_at(url) as api:
            sessions = await api.sessions(limit, title, owner)
        if not sessions and (title or owner):
            click.echo("There are no such sessions.")
            return 0
        if not sessions:
            click.echo("There are no sessions. Open one with `fanfare session start QUIZ`.")
            return 0
        table = Table("Code", "Quiz", box=None)
        table.add_column("Players", justify="right")
        table.add_column("Opened")
        table.add_column("State")
        for each in sessions:
            state = "running" if each["finished_at"] is None else "finished"
            cells = (each["code"], each["title"], each["players"], _at(each["created_at"]), state)
            table.add_row(*(Text(printable(cell)) for cell in cells))
        output().print(table)
        return 0

    run(main)


@session.command()
@session_argument()
@click.option("--csv", "form", flag_value="csv", help="As CSV.")
@click.option("--json", "form", flag_value="json", help="As JSON.")
@click.option(
    "--token",
    envvar="FANFARE_HOST_TOKEN",
    show_envvar=True,
    help="The host's token or, once it is over, that of anybody who was there.  [default: the author key]",
)
@server_option
def results(code: str, form: str | None, token: str | None, url: str) -> None:
    """Print the results of the session CODE.

    Authors and the host may see them at any time, whoever played once it is over.
    """

    async def main() -> int:
        async with api_at(url) as api:
            if form == "csv":
                click.echo(await api.results_csv(code, token), nl=False)
                return 0
            found = await api.results(code, token)
        if form == "json":
            import orjson

            click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
            return 0
        _print_results(found)
        return 0

    run(main)


def _token_option(command: F) -> F:
    named = "The host's.  [default: the author key]"
    return click.option("--token", envvar="FANFARE_HOST_TOKEN", show_envvar=True, help=named)(command)


@session.command()
@session_argument("key", metavar="CODE|ID")
@_token_option
@yes_option
@server_option
def delete(key: str, token: str | None, yes: bool, url: str) -> None:
    """Delete a session that is over, with its players, answers and results.

    A code means the session that had it last.
    """

    async def main() -> int:
        async with api_at(url) as api:
            found = await api.session(key)
            about = (
                f"session {found['code']} ({printable(found['state']['title'])}, {_at(found['created_at'])})"
            )
            sure(f"Delete {about} with all that is stored of it?", yes=yes)
            await api.delete_session(found["session_id"], token)
        click.echo(f"Deleted: {about}.")
        return 0

    run(main)


@session.command()
@session_argument("key", metavar="CODE|ID")
@click.argument("player", type=click.IntRange(1))
@_token_option
@yes_option
@server_option
def forget(key: str, player: int, token: str | None, yes: bool, url: str) -> None:
    """Erase the name of the player with the number PLAYER, which the results show with --json.

    Answers and scores stay, under a neutral name; nobody comes back as this player.
    """

    async def main() -> int:
        async with api_at(url) as api:
            found = await api.session(key)
            sure(f"Erase the name of player {player} in session {found['code']}?", yes=yes)
            erased = await api.erase_player(found["session_id"], player, token)
        click.echo(f"Player {player} of session {found['code']} is called {erased['name']} now.")
        return 0

    run(main)


def _print_results(found: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    for column in ("Rank", "Name", "Score", "Right", "Answered", "Seconds"):
        table.add_column(column, justify="left" if column == "Name" else "right")
    for row in found["players"]:
        table.add_row(
            str(row["rank"]),
            Text(printable(row["name"])),
            f"{row['score']:,}",
            str(row["correct"]),
            str(row["answered"]),
            f"{row['elapsed_ms'] / 1000:.1f}",
        )
    output().print(table)
    if not found["final"]:
        click.echo("The session still runs.")


def _at(created_at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created_at_ms / 1000))
