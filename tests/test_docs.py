"""The documentation says what the program does."""

from __future__ import annotations

import re
import shlex
import tomllib
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from engine.domain.quiz import Quiz
from server.cli.main import main as cli
from server.config.config import Setting, settings
from server.http.metrics import TABLES
from server.http.metrics.row import GAUGE
from server.quizfile import QuizFileError, parse
from tests import metrics_page

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def default(setting: Setting) -> str:
    value = setting.default
    if value in (None, ()):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("setting", settings(), ids=lambda setting: setting.key)
def test_every_setting_is_in_the_table(setting: Setting) -> None:
    row = f"| `{setting.key}` | {default(setting)} | {setting.allowed} | {setting.doc} |"
    assert row.replace("|  |", "| |") in page("docs/operations.md").splitlines()


def test_the_table_of_settings_has_no_others() -> None:
    table = page("docs/operations.md").partition("| setting |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == {setting.key for setting in settings()}


def test_the_table_of_bounds_has_the_defaults() -> None:
    by_key = {setting.key: setting.default for setting in settings()}
    rows = [line for line in page("docs/architecture.md").splitlines() if line.startswith("| ")]
    checked = 0
    for row in rows:
        for key in re.findall(r"`(\w+)`", row.split("|")[2]):
            if key in by_key:
                assert f"{int(by_key[key]):,}" in row.split("|")[3], row
                checked += 1
    assert checked > 10


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_files_that_are_named_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:engine|server|loadtest|bench|tests|deploy|docs)/[\w/.-]*)`", text))
    missing = {path for path in named if not (ROOT / path).exists()}
    assert not missing


def test_there_is_one_version() -> None:
    project = tomllib.loads(page("pyproject.toml"))["project"]["version"]
    newest = re.search(r"^## \[(\S+)\] - \d{4}-\d{2}-\d{2}$", page("CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == project == version("fanfare")


def test_the_metrics_that_are_named_exist() -> None:
    named = set(re.findall(r"`(fanfare_\w+)`", page("docs/operations.md")))
    tables = (ROOT / "server/http/metrics").glob("*.py")
    source = "".join(path.read_text(encoding="utf-8") for path in tables)
    assert named
    assert [name for name in named if f'"{name.removesuffix("_total")}"' not in source] == []


def test_the_page_about_metrics_is_that_of_their_tables() -> None:
    assert page("docs/metrics.md") == metrics_page.text()


def test_every_metric_says_what_to_do_and_how_nodes_are_added_up() -> None:
    for row in (row for table in TABLES.values() for row in table):
        assert row.advice.endswith("."), row.name
        assert len(row.advice) < 130, row.name
        assert (row.over_nodes is not None) == (row.make is GAUGE), row.name
        assert "|" not in row.help + row.advice, row.name


def commands() -> list[str]:
    """Every line with a command of ours in a block of code."""
    indented = re.compile(r"^ {4}(fanfare .*)$", re.MULTILINE)
    return sorted({line for path in PAGES for line in indented.findall(path.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("line", commands())
def test_the_commands_that_are_shown_exist(line: str) -> None:
    words = shlex.split(line)[1:]
    context = click.Context(cli)
    command: click.Command = cli
    while isinstance(command, click.Group):
        if command.invoke_without_command and words[:1] != [] and words[0].startswith("-"):
            break
        found = command.get_command(context, words.pop(0))
        assert found is not None
        command = found
    options = {option for param in command.params for option in param.opts}
    assert {word for word in words if word.startswith("-")} <= options


def test_there_are_commands_to_look_at() -> None:
    assert len(commands()) >= 5


def test_the_examples_of_quizzes_are_valid() -> None:
    whole, *questions = re.findall(r"```yaml\n(.*?)```", page("docs/quizzes.md"), re.DOTALL)
    quiz = parse(whole + "".join(questions), "docs.yaml").quiz
    assert {question.type for question in quiz.questions} == {
        "single",
        "multiple",
        "true_false",
        "text",
        "numeric",
    }
    for example in re.findall(r"```yaml\n(.*?)```", page("README.md"), re.DOTALL):
        parse(example, "readme.yaml")


def test_every_error_code_of_quizzes_is_listed_and_no_other() -> None:
    question = {"type": "single", "text": "q", "choices": ["a", "b"], "correct": "a"}
    good: dict[str, object] = {"title": "t", "questions": [question]}
    wrong: list[object] = [
        None,
        {"title": "t"},
        good | {"colour": 1},
        good | {"title": 1},
        good | {"questions": []},
        good | {"questions": [question] * 201},
        good | {"questions": [question | {"choices": ["a", "a"]}]},
        good | {"questions": [question | {"correct": "c"}]},
    ]
    codes = [error.code for data in wrong for error in Quiz.problems(data)]
    for text in ("title: a\ntitle: b\n", "title: [", "- " * 9, "x" * 2_000_000):
        with pytest.raises(QuizFileError) as caught:
            parse(text, "quiz.yaml")
        codes += [problem.code for problem in caught.value.problems]
    listed = page("docs/quizzes.md").partition("## Error codes")[2]
    assert set(re.findall(r"^\| `(\w+)`", listed, re.MULTILINE)) == {*codes, "unreadable"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_within_the_project_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            file = path.parent / name if name else path
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


def anchors(path: Path) -> set[str]:
    """The anchors of the headings of a page."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.strip().lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_modules_and_targets_that_are_run_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for module, names in re.findall(r"python -m ((?:bench|tests)[\w.]*)((?: [a-z_]+)*)", text):
        file = ROOT / module.replace(".", "/")
        assert file.with_suffix(".py").exists() or (file / "__main__.py").exists(), module
        for name in names.split() if module == "bench" else ():
            assert (ROOT / "bench" / f"{name}.py").exists(), name
    targets = set(re.findall(r"^([\w-]+):", page("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^    )make ([a-z][\w-]*)", text, re.MULTILINE)) <= targets


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs/decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
