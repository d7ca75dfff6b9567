"""Commands that work on a database: db, audit and rescore, on a real one."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from click import UsageError

from engine.aio import open_asyncio
from engine.domain.quiz import Quiz
from engine.storage.embedded import EmbeddedPostgres, NotRunning, dsn
from engine.storage.migrations import migrate
from engine.storage.postgres import Database
from engine.storage.scoring import Scoring
from server.cli.operate.rescore import read_key
from tests.cli.conftest import Fanfare
from tests.conftest import fresh_database
from tests.storage.making import AT, results_of
from tests.storage.test_corrections import Books

T = TypeVar("T")


def on(address: str, work: Callable[[Database], Coroutine[Any, Any, T]]) -> T:
    async def main() -> T:
        async with open_asyncio(), Database.open(address) as database:
            return await work(database)

    return trio.run(main)


@pytest.fixture
def address(postgres_dsn: str) -> str:
    """Of a database with its tables."""

    async def main() -> str:
        async with open_asyncio(), fresh_database(postgres_dsn) as (_, address):
            return address

    return trio.run(main)


@pytest.fixture
def played(address: str) -> str:
    """The code of a session that is over."""
    return on(address, lambda database: Books(database).played()).code


def scores(address: str, code: str) -> dict[int, int]:
    async def work(database: Database) -> dict[int, int]:
        store = Books(database).store
        return {each.player: each.score for each in await results_of(store, (await store.find(code)).id)}

    return on(address, work)


# -- audit -------------------------------------------------------------------------------------------


def test_a_session_that_agrees(fanfare: Fanfare, address: str, played: str) -> None:
    result = fanfare("audit", played, "--database-url", address)
    assert (result.exit_code, result.stdout) == (0, "1 session audited: no difference.\n")
    result = fanfare("audit", "--all", "--json", "--database-url", address)
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"audited": 1, "differing": []})


def test_differences_are_shown_and_the_exit_code_says_so(fanfare: Fanfare, address: str, played: str) -> None:
    on(address, lambda database: database.execute("UPDATE answers SET points = 7 WHERE question = 1"))
    result = fanfare("audit", played, "--database-url", address)
    assert result.exit_code == 1
    assert "points by the rule of the quiz" in result.stdout
    assert "1 session audited: 1 with differences." in result.stdout
    result = fanfare("audit", played, "--json", env={"FANFARE_DATABASE_URL": address})
    assert result.exit_code == 1
    [session] = json.loads(result.stdout)["differing"]
    assert session["code"] == played
    assert {each["kind"] for each in session["differences"]} == {"points", "standing"}
    assert session["differences"][0]["stored"] == 7


def test_all_sessions_since_a_day(fanfare: Fanfare, address: str, played: str) -> None:
    day_ms = 86_400_000
    on(address, lambda database: Books(database).played(at=AT - 40 * day_ms))
    on(address, lambda database: Books(database).played(finished=False, at=AT + day_ms))
    for since, count in (("2026-01-01", 3), ("2026-09-21", 2), ("2026-09-22T00:00:00", 1), ("2027-01-01", 0)):
        result = fanfare("audit", "--all", "--since", since, "--json", "--database-url", address)
        assert json.loads(result.stdout)["audited"] == count


def test_a_running_session_is_audited_as_far_as_it_goes(fanfare: Fanfare, address: str) -> None:
    code = on(address, lambda database: Books(database).played(finished=False)).code
    result = fanfare("audit", code, "--database-url", address)
    assert result.exit_code == 0
    assert "still runs" in result.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["audit"], "Name a session, or use --all."),
        (["audit", "123456", "--all"], "Name a session, or use --all."),
        (["audit", "123456", "--since", "2026-01-01"], "--since belongs to --all."),
        (["scores", "rebuild"], "Name a session, or use --all."),
        (["scores", "rebuild", "123456", "--since", "2026-01-01"], "--since and --after belong to --all."),
        (["scores", "rebuild", "--all", "--after", "me"], "--after is the id of a session."),
    ],
)
def test_what_cannot_be_meant(fanfare: Fanfare, words: list[str], sentence: str) -> None:
    result = fanfare(*words)
    assert result.exit_code == 2
    assert sentence in result.stderr


@pytest.mark.parametrize(
    "words", [["audit", "999999"], ["rescore", "no-id", "--question", "1", "--correct", "a"]]
)
def test_a_session_that_is_not_there(fanfare: Fanfare, address: str, words: list[str]) -> None:
    result = fanfare(*words, "--database-url", address)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"No session has the id or code {words[1]}." in result.stderr


# -- scores of users ---------------------------------------------------------------------------------


async def settle(database: Database) -> None:
    await Scoring(database, rule="best", zone="UTC").settle()


def test_scores_of_users_are_compared_and_made_anew(fanfare: Fanfare, address: str, played: str) -> None:
    on(address, lambda database: database.execute("UPDATE players SET user_id = 'user ' || player"))
    at = ["--database-url", address]
    waits = fanfare("scores", "audit", *at)
    assert (waits.exit_code, "wait for a node" in waits.stderr) == (1, True)
    on(address, settle)
    assert fanfare("scores", "audit", *at).stdout.endswith("compared: 0 are not what the scores say.\n")
    assert fanfare("audit", played, *at).exit_code == 0

    on(address, lambda database: database.execute("UPDATE user_scores SET score = 7"))
    wrong = fanfare("audit", played, "--json", *at)
    assert wrong.exit_code == 1
    [session] = json.loads(wrong.stdout)["differing"]
    assert {each["kind"] for each in session["differences"]} == {"user_score"}
    for words in (["--all"], ["--all", "--since", "2026-01-01"], [played]):
        on(address, lambda database: database.execute("UPDATE user_scores SET score = 7"))
        done = fanfare("scores", "rebuild", *words, *at)
        assert (done.exit_code, "made anew" in done.stdout) == (0, True)
        assert fanfare("audit", played, *at).exit_code == 0
    on(address, settle)
    on(address, lambda database: database.execute("UPDATE leaderboard_entries SET score = 7"))
    assert fanfare("scores", "audit", *at).exit_code == 1


# -- rescore -----------------------------------------------------------------------------------------


def test_a_correction_is_shown_asked_for_and_stored(fanfare: Fanfare, address: str, played: str) -> None:
    words = ["rescore", played, "--question", "1", "--correct", "a", "--database-url", address]
    before = scores(address, played)

    result = fanfare(*words, "--dry-run")
    assert result.exit_code == 0
    assert 'was right:  correct "b"' in result.stdout
    assert 'is right:   correct "a"' in result.stdout
    assert "Nothing was stored." in result.stdout
    assert scores(address, played) == before

    assert fanfare(*words, input="n\n").exit_code == 1
    assert scores(address, played) == before

    result = fanfare(*words, "--reason", "a typo", "--by", "Ann", input="y\n")
    assert result.exit_code == 0
    assert "Stored as correction 1 of the session." in result.stdout
    after = scores(address, played)
    assert after != before
    rows = on(address, lambda database: database.fetch("SELECT by, reason, question FROM corrections"))
    assert [tuple(row) for row in rows] == [("Ann", "a typo", 1)]
    assert fanfare("audit", played, "--database-url", address).exit_code == 0

    result = fanfare(*words, "--yes")
    assert result.exit_code == 1
    assert "this is the key of question 1 already" in result.stderr

    assert fanfare(*words[:5], "b", "--yes", "--database-url", address).exit_code == 0
    assert scores(address, played) == before
    assert fanfare("audit", played, "--database-url", address).exit_code == 0


@pytest.mark.parametrize(
    ("question", "words", "sentence"),
    [
        ("1", ["c"], "'c' is not one of the choices"),
        ("1", ["a", "b"], "may be given once"),
        ("3", ["maybe"], "must be true or false"),
        ("5", ["many"], "must be a number"),
        ("8", ["a"], "the quiz has questions 1 to 7, not 8"),
        ("5", ['{"right": 3}'], "'right' is not a field here; known are: correct, tolerance"),
    ],
)
def test_keys_that_cannot_be(
    fanfare: Fanfare, address: str, played: str, question: str, words: list[str], sentence: str
) -> None:
    options = [each for word in words for each in ("--correct", word)]
    result = fanfare("rescore", played, "--question", question, *options, "--yes", "--database-url", address)
    assert result.exit_code != 0
    assert sentence in result.stderr
    assert on(address, lambda database: database.fetch("SELECT FROM corrections")) == []


def test_a_session_that_runs_is_not_corrected(fanfare: Fanfare, address: str) -> None:
    code = on(address, lambda database: Books(database).played(finished=False)).code
    result = fanfare("rescore", code, "--question", "1", "--correct", "a", "--yes", "--database-url", address)
    assert result.exit_code == 1
    assert f"The session {code} still runs" in result.stderr


def test_nothing_is_built_on_books_that_do_not_agree(fanfare: Fanfare, address: str, played: str) -> None:
    on(address, lambda database: database.execute("UPDATE answers SET points = 7 WHERE question = 1"))
    result = fanfare(
        "rescore", played, "--question", "1", "--correct", "a", "--yes", "--database-url", address
    )
    assert result.exit_code == 1
    assert "see `fanfare audit" in result.stderr


def test_every_way_to_say_a_key() -> None:
    questions = Quiz.parse(
        {
            "title": "x",
            "questions": [
                {"type": "single", "text": "1", "choices": ["a", "7", '"b"', '{"a": 1}'], "correct": "a"},
                {"type": "multiple", "text": "2", "choices": ["8", "22", "[8]"], "correct": ["8"]},
                {"type": "true_false", "text": "3", "correct": True},
                {"type": "text", "text": "4", "accept": ["x"]},
                {"type": "numeric", "text": "5", "correct": 1},
            ],
        }
    ).questions
    for number, words, key in (
        (1, ["7"], {"correct": "7"}),
        (1, ['"b"'], {"correct": '"b"'}),
        (1, ['"a"'], {"correct": "a"}),
        (1, ['{"a": 1}'], {"correct": '{"a": 1}'}),
        (2, ["8", "22"], {"correct": ["8", "22"]}),
        (2, ["[8, 22]"], {"correct": ["8", "22"]}),
        (2, ["[8]"], {"correct": ["[8]"]}),
        (2, ['["8"]'], {"correct": ["8"]}),
        (3, ["false"], {"correct": False}),
        (4, ["Kyiv", "Kiev"], {"accept": ["Kyiv", "Kiev"]}),
        (4, ["007"], {"accept": ["007"]}),
        (4, ['["Kyiv"]'], {"accept": ["Kyiv"]}),
        (5, ["-2.5"], {"correct": -2.5}),
        (5, ["8,849.5"], {"correct": 8849.5}),
        (5, ["٨٨٤٩"], {"correct": 8849}),
        (5, ["ten"], {"correct": "ten"}),
        (5, ['{"tolerance": 3}'], {"tolerance": 3}),
    ):
        assert read_key(questions[number - 1], words) == key
    with pytest.raises(UsageError, match=r"'8,849' may be 8849 or 8\.849"):
        read_key(questions[4], ["8,849"])


# -- db ----------------------------------------------------------------------------------------------


def test_status_and_maintenance(fanfare: Fanfare, address: str, played: str) -> None:
    result = fanfare("db", "status", "--database-url", address)
    assert result.exit_code == 1
    assert "There is no partition for new sessions" in result.stdout
    weekly = {"FANFARE_DATABASE_URL": address, "FANFARE_PARTITION_DAYS": "7"}
    result = fanfare("db", "maintain", env=weekly)
    assert result.exit_code == 0
    assert result.stdout.startswith("Made: 20")
    result = fanfare("db", "status", "--database-url", address)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"Schema version {len(migrate.STEPS)}; this release has {len(migrate.STEPS)}."
    assert [line.split()[0] for line in lines[2:4]] == ["past", "default"]
    assert "Retention: off." in lines
    result = fanfare("db", "maintain", env=weekly)
    assert result.stdout == "Made: none, there are enough.\nDropped: none.\n"


@pytest.fixture
def old_address(postgres_dsn: str) -> str:
    async def main() -> str:
        async with open_asyncio(), fresh_database(postgres_dsn, tables=False) as (database, address):
            await migrate.apply(database, migrate.STEPS[:1])
            return address

    return trio.run(main)


def test_an_old_schema_is_brought_up_to_date(fanfare: Fanfare, old_address: str) -> None:
    for words in (["audit", "--all"], ["db", "maintain"]):
        result = fanfare(*words, "--database-url", old_address)
        assert result.exit_code == 1
        assert "fanfare db migrate" in result.stderr
    assert fanfare("db", "status", "--database-url", old_address).exit_code == 1
    newest = len(migrate.STEPS)
    result = fanfare("db", "migrate", "--database-url", old_address)
    assert result.stdout == f"The schema went from version 1 to {newest}.\n"
    assert "already" in fanfare("db", "migrate", "--database-url", old_address).stdout
    assert fanfare("audit", "--all", "--database-url", old_address).exit_code == 0


def test_a_database_that_is_away(fanfare: Fanfare) -> None:
    result = fanfare("db", "status", "--database-url", "postgresql://nobody@127.0.0.1:1/none")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "PostgreSQL:" in result.stderr


# -- the embedded database ---------------------------------------------------------------------------


@pytest.fixture
def data_dir(short_tmp_path: Path) -> Path:
    return short_tmp_path / "audited"


def test_the_embedded_database_is_used_whether_it_runs_or_not(fanfare: Fanfare, data_dir: Path) -> None:
    result = fanfare("audit", "--all", "--data-dir", str(data_dir))
    assert result.exit_code == 1
    assert f"there is no database in {data_dir}" in result.stderr
    assert not data_dir.exists()

    server = EmbeddedPostgres(data_dir)

    async def play(database: Database) -> str:
        await migrate.apply(database)
        return (await Books(database).played()).code

    code = on(server.start(), play)
    words = ["audit", code, "--data-dir", str(data_dir)]
    assert fanfare(*words, env={"FANFARE_DATABASE_URL": "postgresql://127.0.0.1:1/none"}).exit_code == 0
    server.stop()
    assert fanfare(*words).exit_code == 0
    with pytest.raises(NotRunning):
        dsn(data_dir)
