"""Writing and reading quizzes over HTTP."""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import trio
from trio.testing import MockClock

from server import quizfile
from server.quizfile import LoadedQuiz, QuizFileError, parse
from tests.http.edge import LOOPBACK, OUTSIDE, QUIZ, Edge, edge


async def test_a_quiz_is_written_listed_and_read() -> None:
    async with edge() as e:
        made = await e.post("/api/quizzes", QUIZ)
        assert made.status == 201
        assert made.json["version"] == 1
        quiz_id = made.json["id"]
        assert made.headers["Location"] == f"/api/quizzes/{quiz_id}?version=1"
        listed = (await e.get("/api/quizzes")).json["quizzes"]
        assert [(quiz["id"], quiz["title"], quiz["questions"]) for quiz in listed] == [
            (quiz_id, "Capitals", 2)
        ]
        read = await e.get(made.headers["Location"])
        assert read.json["quiz"]["questions"][0]["correct"] == "right"


async def test_the_list_has_no_answers_and_is_for_authors() -> None:
    async with edge(author_key="the-author-key") as e:
        await e.post("/api/quizzes", QUIZ, token="the-author-key")
        listed = await e.get("/api/quizzes", token="the-author-key", peer=OUTSIDE)
        assert listed.status == 200
        assert b"right" not in listed.body
        assert (await e.get("/api/quizzes", peer=OUTSIDE)).error == "token_missing"
        assert (await e.get("/api/quizzes", token="a-guess", peer=OUTSIDE)).error == "token_invalid"


async def test_writing_under_an_id_makes_versions_and_an_equal_quiz_changes_nothing() -> None:
    async with edge() as e:
        first = await e.post("/api/quizzes?id=caps", QUIZ)
        again = await e.post("/api/quizzes?id=caps", QUIZ)
        changed = await e.post("/api/quizzes?id=caps", QUIZ | {"title": "More capitals"})
        assert [(r.status, r.json["version"]) for r in (first, again, changed)] == [
            (201, 1),
            (200, 1),
            (201, 2),
        ]
        assert (await e.get("/api/quizzes/caps")).json["title"] == "More capitals"
        assert (await e.get("/api/quizzes/caps?version=1")).json["title"] == "Capitals"


@pytest.mark.parametrize(
    "address", ["/api/quizzes/nobody", "/api/quizzes/caps?version=7", "/api/quizzes/%00", "/api/quizzes/a%0A"]
)
async def test_a_quiz_that_is_not_there(address: str) -> None:
    async with edge() as e:
        await e.post("/api/quizzes?id=caps", QUIZ)
        missing = await e.get(address)
        assert (missing.status, missing.error) == (404, "quiz_not_found")


@pytest.mark.parametrize(
    ("quiz", "code", "path"),
    [
        ([], "invalid_quiz", None),
        ({}, "missing_field", "title"),
        (QUIZ | {"tittle": 1}, "unknown_field", "tittle"),
        (QUIZ | {"title": 7}, "bad_field", "title"),
        (QUIZ | {"questions": [QUIZ["questions"][0] | {"correct": "no"}]}, None, "questions[0].correct"),
        (QUIZ | {"questions": [QUIZ["questions"][0]] * 201}, "too_many_questions", "questions"),
    ],
)
async def test_a_quiz_that_cannot_be_built_is_refused_by_field(
    quiz: Any, code: str | None, path: str | None
) -> None:
    async with edge() as e:
        refused = await e.post("/api/quizzes", quiz)
        assert refused.status == 400
        assert code is None or refused.error == code
        assert refused.path == path


async def test_bodies_that_are_no_json_object() -> None:
    async with edge(body_bytes_max=2048) as e:
        broken = await e.post("/api/quizzes", data=b'{"title": ')
        assert (broken.status, broken.error) == (400, "bad_json")
        deep = await e.post("/api/quizzes", data=b"[" * 2000)
        assert (deep.status, deep.error) == (400, "bad_json")
        not_utf8 = await e.post("/api/quizzes", data=b'{"title": "\xff"}')
        assert (not_utf8.status, not_utf8.error) == (400, "bad_json")
        empty = await e.post("/api/quizzes", data=b"")
        assert (empty.status, empty.error) == (400, "bad_json")
        form = await e.post("/api/quizzes", data=b"title=x", headers={"Content-Type": "text/plain"})
        assert (form.status, form.error) == (415, "unsupported_media_type")
        undeclared = await e.post("/api/quizzes")
        assert (undeclared.status, undeclared.error) == (415, "unsupported_media_type")
        long = await e.post("/api/quizzes", data=b" " * 2049)
        assert (long.status, long.error) == (413, "too_large")


@pytest.mark.parametrize(
    ("address", "code", "path"),
    [
        ("/api/quizzes?di=caps", "unknown_field", "di"),
        ("/api/quizzes?id=", "bad_field", "id"),
        (f"/api/quizzes?id={'x' * 101}", "bad_field", "id"),
        ("/api/quizzes?id=a%00b", "bad_field", "id"),
        ("/api/quizzes?id=a%0Ab", "bad_field", "id"),
        ("/api/quizzes?id=%20a", "bad_field", "id"),
        ("/api/quizzes?id=a/b", "bad_field", "id"),
        ("/api/quizzes?id=..", "bad_field", "id"),
        ("/api/quizzes?id=a&id=b", "bad_field", "id"),
    ],
)
async def test_query_strings_are_read_narrowly(address: str, code: str, path: str) -> None:
    async with edge() as e:
        refused = await e.post(address, QUIZ)
        assert (refused.status, refused.error, refused.path) == (400, code, path)
        assert (await e.get("/api/quizzes")).json["quizzes"] == []


@pytest.mark.parametrize("quiz_id", ["Länder & Leute", "a.b", "クイズ", "x" * 100])
async def test_ids_are_what_authors_like(quiz_id: str) -> None:
    async with edge() as e:
        made = await e.post(f"/api/quizzes?id={quote(quiz_id, safe='')}", QUIZ)
        assert (made.status, made.json["id"]) == (201, quiz_id)
        assert (await e.get(made.headers["Location"])).json["id"] == quiz_id
        opened = await e.post("/api/sessions", {"quiz_id": quiz_id})
        assert opened.status == 201


@pytest.mark.parametrize("version", ["0", "-1", "x", "1.5", "%D9%A3", "9" * 30, ""])
async def test_versions_are_whole_numbers(version: str) -> None:
    async with edge() as e:
        refused = await e.get(f"/api/quizzes/caps?version={version}")
        assert (refused.status, refused.error, refused.path) == (400, "bad_field", "version")


FILE = """
title: Capitals
questions:
  - type: single
    text: Capital of Portugal?
    choices: [Lisbon, Porto]
    correct: Lisbon
"""


async def checked(e: Edge, text: str, content_type: str = "application/yaml") -> Any:
    reply = await e.post("/api/quizzes/check", data=text.encode(), headers={"Content-Type": content_type})
    assert reply.status == 200, reply.body
    return reply.json


@pytest.mark.parametrize("content_type", ["application/yaml", "text/yaml; charset=utf-8", "application/json"])
async def test_a_file_is_checked_and_read_without_being_stored(content_type: str) -> None:
    async with edge() as e:
        text = FILE if "yaml" in content_type else orjson.dumps(QUIZ).decode()
        found = await checked(e, text, content_type)
        assert (found["draft"], found["problems"]) == (None, [])
        assert found["quiz"]["title"] == "Capitals"
        assert (await e.get("/api/quizzes")).json["quizzes"] == []
        made = await e.post("/api/quizzes?id=caps", found["quiz"])
        assert (await e.get(made.headers["Location"])).json["quiz"] == found["quiz"]


async def test_problems_are_those_of_the_command_line_with_as_much_as_could_be_read() -> None:
    wrong = FILE.replace("correct: Lisbon", "correct: Madrid\n    points: 99999999999999999999").replace(
        "title: Capitals", "title: 1989\ntittle: Capitals"
    )
    async with edge() as e:
        found = await checked(e, wrong)
    with pytest.raises(QuizFileError) as caught:
        parse(wrong, "capitals.yaml")
    assert found["problems"] == [
        {"code": each.code, "message": each.message, "path": each.path, "line": each.line}
        for each in caught.value.problems
    ]
    assert [(each["path"], each["line"]) for each in found["problems"]] == [
        ("tittle", 3),
        ("questions[0].points", 9),
        ("questions[0].correct", 8),
    ]
    assert found["quiz"] is None
    assert found["draft"]["title"] == "1989"
    assert found["draft"]["questions"][0] == {
        "type": "single",
        "text": "Capital of Portugal?",
        "choices": ["Lisbon", "Porto"],
        "correct": "Madrid",
        "points": 1e20,
    }


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("title: [", "bad_yaml", 1),
        ("title: a\ntitle: b\n", "duplicate_field", 2),
        ("", "bad_yaml", None),
        ("[1, 2]", "bad_yaml", 1),
    ],
)
async def test_what_cannot_be_read_leaves_nothing_to_start_from(
    text: str, code: str, line: int | None
) -> None:
    async with edge() as e:
        found = await checked(e, text)
        assert (found["quiz"], found["draft"]) == (None, None)
        assert [(each["code"], each["line"]) for each in found["problems"]] == [(code, line)]


async def test_checking_is_for_authors_and_takes_files_alone() -> None:
    async with edge(body_bytes_max=2048) as e:
        assert (await e.post("/api/quizzes/check", QUIZ, peer=OUTSIDE)).error == "token_missing"
        form = await e.post("/api/quizzes/check", data=b"title: x", headers={"Content-Type": "text/plain"})
        assert (form.status, form.error) == (415, "unsupported_media_type")
        assert (await e.post("/api/quizzes/check?id=caps", QUIZ)).error == "unknown_field"
        assert (await e.post("/api/quizzes/check", data=b" " * 2049)).status == 413
        # YAML is for the check alone.
        yaml = await e.post("/api/quizzes", data=FILE.encode(), headers={"Content-Type": "text/yaml"})
        assert yaml.status == 415


async def test_the_loop_goes_on_while_a_long_file_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    began, over = threading.Event(), threading.Event()

    def slow(text: bytes, name: str) -> LoadedQuiz:
        began.set()
        assert over.wait(10)
        return parse(text, name)

    monkeypatch.setattr(quizfile, "parse", slow)
    async with edge() as e, trio.open_nursery() as nursery:
        nursery.start_soon(checked, e, FILE)
        await trio.to_thread.run_sync(began.wait, 10)
        assert (await e.get("/healthz")).status == 200
        over.set()


async def test_the_versions_of_a_quiz_are_listed_for_authors() -> None:
    async with edge() as e:
        for title in ("Capitals", "More capitals", "Most capitals"):
            await e.post("/api/quizzes?id=caps", QUIZ | {"title": title})
        listed = (await e.get("/api/quizzes/caps/versions")).json["versions"]
        assert [(each["version"], each["title"], each["questions"]) for each in listed] == [
            (3, "Most capitals", 2),
            (2, "More capitals", 2),
            (1, "Capitals", 2),
        ]
        newest = (await e.get("/api/quizzes/caps/versions?limit=1")).json["versions"]
        assert newest == listed[:1]
        assert (await e.get("/api/quizzes/nobody/versions")).error == "quiz_not_found"
        assert (await e.get("/api/quizzes/a%00b/versions")).error == "quiz_not_found"
        assert (await e.get("/api/quizzes/caps/versions?limit=201")).error == "bad_field"
        assert (await e.get("/api/quizzes/caps/versions", peer=OUTSIDE)).error == "token_missing"


async def test_a_quiz_may_be_called_check() -> None:
    async with edge() as e:
        await e.post("/api/quizzes?id=check", QUIZ)
        client = e.app.test_client()
        read = await client.get(
            "/api/quizzes/check",
            headers={"Authorization": f"Bearer {e.author_key}"},
            scope_base={"client": LOOPBACK},
        )
        assert (await read.get_json())["title"] == "Capitals"


async def test_a_database_that_is_away_is_busy(mock_clock: MockClock) -> None:
    async with edge() as e:
        e.catalog.available = False
        for reply in (await e.post("/api/quizzes", QUIZ), await e.get("/api/quizzes")):
            assert (reply.status, reply.error) == (503, "busy")
            assert reply.headers["Retry-After"] == "1"
