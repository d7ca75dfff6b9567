"""`fanfare rescore`: another key for a question, after the session."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.cli.operate.database import configured, database_options, now_ms, opened
from server.cli.terminal import output, printable, run, session_argument
from server.text_input import doubt_of, numbers_of

if TYPE_CHECKING:
    from engine.domain.answer_keys import Key
    from engine.domain.leaderboard import Entry
    from engine.domain.quiz import Question
    from engine.domain.rescoring import Rescore
    from engine.ports import SessionRecord

SHOWN_MAX = 50
"""Players in the table of what changes."""


@click.command()
@session_argument("key", metavar="SESSION")
@click.option("--question", type=click.IntRange(1), required=True, help="Number of the question, from 1.")
@click.option(
    "--correct",
    "words",
    multiple=True,
    required=True,
    help="What is right: the text of a choice, true or false, a number, an accepted spelling; once for each "
    "right choice or spelling. Or JSON, as in a quiz file.",
)
@click.option("--reason", default="", help="Why, for those who read the history.")
@click.option("--by", help="Who corrects it.  [default: the user of this terminal]")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_options
def rescore(
    key: str,
    question: int,
    words: tuple[str, ...],
    reason: str,
    by: str | None,
    dry_run: bool,
    yes: bool,
    database_url: str | None,
    data_dir: str | None,
    file: Path | None,
) -> None:
    """Correct the key of a question of the session SESSION (its id or code), which is over.

    The points of that question, and of streaks that reach over it, are worked out again. Results show the new
    scores from then on. The answers stay as they were stored, and so does the quiz: correct it too, with
    `fanfare quiz add`, before it is played again. Correcting back undoes it.

    \b
    fanfare rescore 415026 --question 3 --correct Lisbon
    fanfare rescore 415026 --question 4 --correct 8 --correct 22
    fanfare rescore 415026 --question 5 --correct '{"correct": 8849, "tolerance": 100}'
    """

    async def main() -> int:
        from engine.domain.audit import audit
        from engine.domain.errors import DomainError
        from engine.domain.rescoring import rescore as work_out
        from engine.ports import SessionNotFound
        from engine.storage.catalog import PostgresCatalog
        from engine.storage.corrections import CorrectedMeanwhile, Corrections, NotFinished
        from engine.storage.sessions import PostgresSessionStore

        async with opened(configured(database_url, data_dir, file)) as database:
            catalog = PostgresCatalog(database, now_ms)
            corrections = Corrections(database, catalog)
            try:
                found = await PostgresSessionStore(database, catalog).find(key)
                record, evidence, names = await corrections.evidence(found.id)
            except SessionNotFound:
                raise click.ClickException(f"No session has the id or code {printable(key)}.") from None
            if record.finished_at is None:
                raise click.ClickException(_still_runs(record))
            if differences := audit(evidence):
                raise click.ClickException(
                    f"{len(differences)} things that are stored are not as the rules have them, so nothing "
                    f"is built on them: see `fanfare audit {record.id}`."
                )
            try:
                questions = evidence.quiz.questions
                new_key = read_key(questions[question - 1], words) if question <= len(questions) else {}
                worked_out = work_out(
                    evidence.quiz,
                    evidence.facts,
                    evidence.corrections,
                    question,
                    new_key,
                    by=getpass.getuser() if by is None else by,
                    reason=reason,
                    at=now_ms(),
                )
            except DomainError as error:
                raise click.ClickException(f"{error}.") from None
            _print(record, questions[question - 1], worked_out, names)
            if dry_run:
                click.echo("Nothing was stored.")
                return 0
            if not yes:
                click.confirm("Store this correction?", abort=True)
            try:
                await corrections.correct(record.id, worked_out)
            except NotFinished:
                raise click.ClickException(_still_runs(record)) from None
            except CorrectedMeanwhile:
                raise click.ClickException(
                    "Somebody else corrected the session meanwhile; nothing was stored. Look at it again."
                ) from None
        click.echo(f"Stored as correction {worked_out.correction.number} of the session.")
        return 0

    run(main)


def read_key(question: Question, words: Sequence[str]) -> Key:
    """A key as it is typed. The domain decides its meaning, and finds most of the mistakes in it.

    A choice or a spelling is given as its text. JSON is understood wherever it cannot be such a text: a list
    for several choices or spellings, a string, an object with the fields of a quiz file.
    """
    kind = question.type
    choices = getattr(question, "choices", ())
    if len(words) == 1 and words[0] not in choices and isinstance(fields := _json(words[0]), Mapping):
        return dict(fields)
    if kind == "text":
        return {"accept": _several(words)}
    if kind == "multiple":
        return {"correct": list(words) if all(each in choices for each in words) else _several(words)}
    if len(words) > 1:
        raise click.UsageError("--correct may be given once: one thing is right in this question.")
    if kind == "single":
        decoded = words[0] if words[0] in choices else _json(words[0])
        return {"correct": decoded if isinstance(decoded, str) else words[0]}
    # A boolean or a number is JSON, a number also what people write; anything else is refused by its name.
    decoded = _json(words[0])
    if decoded is None and kind == "numeric":
        if doubt := doubt_of(words[0]):
            raise click.UsageError(f"--correct: {doubt}.")
        decoded = next(iter(numbers_of(words[0])), None)
    return {"correct": words[0] if decoded is None else decoded}


def _several(words: Sequence[str]) -> list[Any]:
    if len(words) == 1:
        # Bare numbers are taken as they are written, like in a quiz file.
        listed = _json(words[0], numbers=str)
        if isinstance(listed, list):
            return listed
    return list(words)


def _json(text: str, numbers: Any = None) -> Any:
    """None when it is none."""
    try:
        return json.loads(text, parse_int=numbers, parse_float=numbers)
    except ValueError:
        return None


def _still_runs(record: SessionRecord) -> str:
    return (
        f"The session {record.code} still runs, and its players see its scores. Let it end, or end it, and "
        "correct it then."
    )


def _print(record: SessionRecord, question: Question, done: Rescore, names: Mapping[int, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    correction = done.correction
    click.echo(f"Session {record.code}, question {correction.question}: {printable(question.text)}")
    click.echo(f"  was right:  {_shown(correction.old_key)}")
    click.echo(f"  is right:   {_shown(correction.new_key)}")
    before = {entry.player: entry for entry in done.before}
    changes = [
        (before[entry.player], entry) for entry in done.after if _seen(before[entry.player]) != _seen(entry)
    ]
    ranks = sum(old.rank != new.rank for old, new in changes)
    click.echo(f"{len(changes):,} of {len(done.after):,} players change, {ranks:,} of them in rank.")
    table = Table(box=None)
    for column in ("Rank", "was", "Score", "was"):
        table.add_column(column, justify="right")
    table.add_column("Name")
    for old, new in changes[:SHOWN_MAX]:
        cells = (str(new.rank), str(old.rank), f"{new.score:,}", f"{old.score:,}")
        table.add_row(*cells, Text(printable(names[new.player])))
    if changes:
        output().print(table)
    if len(changes) > SHOWN_MAX:
        click.echo(f"and {len(changes) - SHOWN_MAX:,} more.")


def _seen(entry: Entry) -> tuple[int, int]:
    return entry.rank, entry.score


def _shown(key: Key) -> str:
    return ", ".join(
        f"{name} {printable(json.dumps(value, ensure_ascii=False))}" for name, value in key.items()
    )
