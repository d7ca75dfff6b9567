"""The final standing as JSON and CSV."""

from __future__ import annotations

import csv
import io

import pytest
from trio.testing import MockClock

from engine.ports import PlayerResult
from server.http.results import as_csv
from tests.http.edge import OUTSIDE, QUIZ, Edge, Played, edge


async def played(e: Edge) -> Played:
    session = await e.session()
    ada, ben = await session.join("Ada"), await session.join("Ben")
    await session.do("start")
    await session.answer(ada, 0)
    await session.answer(ben, 1)
    return session


async def test_results_are_for_host_and_author_until_the_end() -> None:
    async with edge(author_key="the-author-key") as e:
        quiz = await e.post("/api/quizzes", QUIZ, token="the-author-key")
        opened = await e.post("/api/sessions", {"quiz_id": quiz.json["id"]}, token="the-author-key")
        session = Played(e, opened.json)
        ada = await session.join("Ada")
        other = await e.post("/api/sessions", {"quiz_id": quiz.json["id"]}, token="the-author-key")
        for suffix in ("", ".json", ".csv"):
            url = f"{session.url}/results{suffix}"
            assert (await e.get(url)).error == "token_missing"
            assert (await e.get(url, token="forged")).error == "token_invalid"
            assert (await e.get(url, token=ada["token"])).error == "not_host"
            assert (await e.get(url, token=other.json["host_token"])).error == "token_invalid"
            assert (await e.get(url, token=session.host_token)).status == 200
            assert (await e.get(url, token="the-author-key")).status == 200
        await session.do("finish")
        assert (await e.get(f"{session.url}/results", peer=OUTSIDE)).status == 200


async def test_results_say_whether_they_are_final() -> None:
    async with edge() as e:
        session = await played(e)
        assert (await e.get(f"{session.url}/results")).json["final"] is False
        await session.do("finish")
        assert (await e.get(f"{session.url}/results")).json["final"] is True


async def test_files_are_offered_for_download(mock_clock: MockClock) -> None:
    async with edge() as e:
        session = await played(e)
        await session.do("finish")
        shown = await e.get(f"{session.url}/results")
        as_json = await e.get(f"{session.url}/results.json")
        assert as_json.json == shown.json
        assert as_json.headers["Content-Disposition"] == f'attachment; filename="fanfare-{session.code}.json"'
        as_file = await e.get(f"{session.url}/results.csv")
        assert as_file.headers["Content-Type"].startswith("text/csv; charset=utf-8")
        assert as_file.body.decode() == (
            "rank,player,name,score,correct,answered,elapsed_ms\r\n1,1,Ada,1000,1,1,0\r\n2,2,Ben,0,0,1,0\r\n"
        )
        mock_clock.autojump_threshold = 0
        await session.leave_memory()
        assert (await e.get(f"{session.url}/results.csv")).body == as_file.body


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\uff1d1", '=HYPERLINK("http://x","y")']
)
def test_no_name_becomes_a_formula(name: str) -> None:
    rows = list(csv.reader(io.StringIO(as_csv([PlayerResult(1, 1, name, 0, 0, 0, 0)]), newline="")))
    assert rows[1][2] == f"'{name}"


@pytest.mark.parametrize("name", ["Ada", 'a "quoted", name', "two\nlines", "Zoë 🎺", "a=b"])
def test_any_other_name_comes_back_as_it_was(name: str) -> None:
    rows = list(csv.reader(io.StringIO(as_csv([PlayerResult(1, 1, name, 2, 3, 4, 5)]), newline="")))
    assert rows[1] == ["1", "1", name, "2", "3", "4", "5"]


async def test_results_of_a_database_that_is_away() -> None:
    async with edge() as e:
        session = await played(e)
        await session.do("finish")
        e.store.available = False
        away = await e.get(f"{session.url}/results")
        assert (away.status, away.error) == (503, "busy")
