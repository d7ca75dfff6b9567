"""Lists of quizzes and of sessions: page by page, by owner, by title."""

from __future__ import annotations

import pytest

from server.wire.cursors import cursor_of
from tests.http.edge import QUIZ, Edge, edge
from tests.settings import AT_ONCE

LISTS = ("quizzes", "sessions")


async def walk(e: Edge, what: str, query: str = "") -> list[list[str]]:
    """The ids on each page."""
    pages, cursor = [], ""
    while True:
        reply = await e.get(f"/api/{what}?limit=2{query}{cursor}")
        assert reply.status == 200, reply.body
        pages.append([each["id"] for each in reply.json[what]])
        if reply.json["next"] is None:
            return pages
        cursor = f"&cursor={reply.json['next']}"


async def test_quizzes_come_page_by_page_and_by_title() -> None:
    async with edge() as e:
        for quiz_id, title in (("e", "Ünits"), ("d", "B"), ("c", "B"), ("b", "A"), ("a", "More üNITS")):
            await e.post(f"/api/quizzes?id={quiz_id}", QUIZ | {"title": title})
        assert await walk(e, "quizzes") == [["b", "c"], ["d", "a"], ["e"]]
        assert await walk(e, "quizzes", "&title=%C3%9CNI") == [["a", "e"]]
        assert await walk(e, "quizzes", "&owner=me") == [["b", "c"], ["d", "a"], ["e"]]
        assert await walk(e, "quizzes", "&owner=ada") == [[]]
        whole = await e.get("/api/quizzes")
        assert (len(whole.json["quizzes"]), whole.json["next"]) == (5, None)


async def test_a_page_that_was_begun_goes_on_whatever_is_added_and_deleted() -> None:
    async with edge() as e:
        for title in "BDFH":
            await e.post(f"/api/quizzes?id={title}", QUIZ | {"title": title})
        first = await e.get("/api/quizzes?limit=2")
        assert [each["id"] for each in first.json["quizzes"]] == ["B", "D"]
        await e.post("/api/quizzes?id=A", QUIZ | {"title": "A"})
        await e.post("/api/quizzes?id=E", QUIZ | {"title": "E"})
        await e.call("DELETE", "/api/quizzes/D")
        then = await e.get(f"/api/quizzes?limit=9&cursor={first.json['next']}")
        assert [each["id"] for each in then.json["quizzes"]] == ["E", "F", "H"]


async def test_sessions_come_page_by_page_and_by_title_of_their_quiz() -> None:
    async with edge() as e:
        opened = []
        for title in ("Capitals", "Verbs", "Capitals"):
            quiz = (await e.post(f"/api/quizzes?id={title}", QUIZ | {"title": title})).json
            made = await e.post("/api/sessions", {"quiz_id": quiz["id"], **AT_ONCE})
            opened.append(made.json["session_id"])
        newest = sorted(opened, reverse=True)
        assert await walk(e, "sessions") == [newest[:2], newest[2:]]
        assert await walk(e, "sessions", "&title=VERB") == [[opened[1]]]
        assert await walk(e, "sessions", "&owner=ada") == [[]]
        assert {each["owner_id"] for each in (await e.get("/api/sessions")).json["sessions"]} == {None}


@pytest.mark.parametrize("what", LISTS)
@pytest.mark.parametrize(
    "query",
    [
        "cursor=x",
        "cursor=%C3%A4",
        "cursor=" + "A" * 2000,
        "cursor=" + cursor_of((1,)),
        "cursor=" + cursor_of((1, "a", "b")),
        "cursor=" + cursor_of((1, "no-id")),
        "cursor=" + cursor_of((None, None)),
        "cursor=" + cursor_of(("a\0", "a\0")),
        "cursor=" + cursor_of((10**22, "01a22535-38f0-7e05-b6fe-8187b6c92276")),
        "cursor=" + cursor_of((-1, "01a22535-38f0-7e05-b6fe-8187b6c92276")),
        "owner=%00",
        "owner=" + "a" * 129,
        "title=",
        "title=%00",
        "title=" + "a" * 121,
        "limit=0",
        "limit=201",
    ],
)
async def test_what_is_no_page_is_refused_by_name(what: str, query: str) -> None:
    async with edge() as e:
        refused = await e.get(f"/api/{what}?{query}")
        assert (refused.status, refused.error, refused.path) == (400, "bad_field", query.partition("=")[0])
