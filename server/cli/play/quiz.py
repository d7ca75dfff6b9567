"""`fanfare quiz`: what can be played."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from server.cli.terminal import api_at, output, printable, run, server_option, sure, yes_option

quiz_file = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def quiz() -> None:
    """Write, check and list quizzes."""


@quiz.command()
@quiz_file
@click.option("--id", "quiz_id", help="Id of the quiz.  [default: the file's name without its ending]")
@server_option
def add(file: Path, quiz_id: str | None, url: str) -> None:
    """Store the quiz in FILE (YAML or JSON) on the server.

    Under an id that exists, a changed quiz becomes its next version; running sessions keep theirs.
    """

    async def main() -> int:
        from server.quizfile import load

        loaded = load(file)
        async with api_at(url) as api:
            stored, new = await api.add_quiz(loaded.data, quiz_id or loaded.id)
        state = "stored" if new else "unchanged"
        click.echo(
            f"{stored['id']} (version {stored['version']}) is {state}: {printable(stored['title'])}, "
            f"{_count(stored['questions'], 'question')}."
        )
        return 0

    run(main)


@quiz.command(name="list")
@click.option("--title", help="Only those with this text in the title of the quiz.")
@click.option("--owner", help="Only what this author made: `me`, or an id.  [default: all that may be read]")
@server_option
def list_quizzes(title: str | None, owner: str | None, url: str) -> None:
    """List the quizzes of the server."""

    async def main() -> int:
        from rich.table import Table
        from rich.text import Text

        async with api_at(url) as api:
            quizzes = await api.quizzes(title, owner)
        if not quizzes and (title or owner):
            click.echo("There are no such quizzes.")
            return 0
        if not quizzes:
            click.echo("There are no quizzes. Add one with `fanfare quiz add FILE`.")
            return 0
        table = Table("Id", "Title", "Language", box=None)
        table.add_column("Questions", justify="right")
        table.add_column("Version", justify="right")
        for each in quizzes:
            cells = (each["id"], each["title"], each["language"], each["questions"], each["version"])
            table.add_row(*(Text(printable(cell)) for cell in cells))
        output().print(table)
        return 0

    run(main)


@quiz.command()
@click.argument("quiz_id", metavar="QUIZ")
@server_option
def show(quiz_id: str, url: str) -> None:
    """Show the quiz QUIZ with its right answers."""

    async def main() -> int:
        async with api_at(url) as api:
            stored = await api.quiz(quiz_id)
        data = stored["quiz"]
        click.echo(f"{printable(data['title'])}  ({stored['id']}, version {stored['version']})")
        if data.get("description"):
            click.echo(printable(data["description"]))
        for number, question in enumerate(data["questions"], 1):
            click.echo("")
            click.echo(
                f"{number}. {printable(question['text'])}  "
                f"[{question['type']}, {question['time_limit_s']:g} s, {question['points']} points]"
            )
            for line in _answer_lines(question):
                click.echo(f"   {printable(line)}")
        return 0

    run(main)


@quiz.command()
@click.argument("quiz_id", metavar="QUIZ")
@yes_option
@server_option
def delete(quiz_id: str, yes: bool, url: str) -> None:
    """Delete the quiz QUIZ: no session of it begins any more.

    Sessions that use it go on, and keep what they use of it until they are deleted themselves.
    """

    async def main() -> int:
        async with api_at(url) as api:
            found = await api.quiz(quiz_id)
            title = printable(found["quiz"]["title"])
            sure(f"Delete {title} ({printable(found['id'])}) with all its versions?", yes=yes)
            await api.delete_quiz(quiz_id)
        click.echo(f"{title} is deleted.")
        return 0

    run(main)


@quiz.command()
@quiz_file
def check(file: Path) -> None:
    """Check the quiz in FILE without a server: names the line and the field of everything that is wrong."""
    from server.quizfile import QuizFileError, load

    try:
        loaded = load(file)
    except QuizFileError as exc:
        for problem in exc.problems:
            click.echo(str(problem), err=True)
        raise click.ClickException(f"{_count(len(exc.problems), 'problem')} in {file}.") from None
    click.echo(
        f"{file} is fine: {printable(loaded.quiz.title)}, {_count(len(loaded.quiz.questions), 'question')}."
    )


def _answer_lines(question: dict[str, Any]) -> list[str]:
    match question["type"]:
        case "single":
            return [f"{'*' if each == question['correct'] else '-'} {each}" for each in question["choices"]]
        case "multiple":
            return [f"{'*' if each in question['correct'] else '-'} {each}" for each in question["choices"]]
        case "true_false":
            return ["* true" if question["correct"] else "* false"]
        case "text":
            match = question.get("match", "loose")  # from a server of before, nothing
            return [f"* {each}" + ("" if match == "loose" else f" ({match})") for each in question["accept"]]
        case _:
            tolerance = question["tolerance"]
            return [f"* {question['correct']}" + (f" (plus or minus {tolerance})" if tolerance else "")]


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
