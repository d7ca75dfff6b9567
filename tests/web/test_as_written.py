"""Questions of every direction, and code, are shown as they were written: on all pages, in a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from loadtest.client.api import Api
from tests.e2e.node import Node
from tests.settings import AT_ONCE
from tests.web.accessibility import fits, is_seen_whole, no_violations
from tests.web.chromium import Chromium, Visit, screenshot
from tests.web.leading import Session, join

CODE = "What does this print?\n\nfor n in range(2):\n    if n:\n        print(n,   'times')"

QUIZZES: dict[str, dict[str, Any]] = {
    "he": {
        "title": "בירות העולם (2024)",
        "language": "he",
        "questions": [
            {
                "type": "single",
                "text": "מהי בירת פורטוגל?\nבחרו תשובה אחת (ורק אחת!)",  # noqa: RUF001  # Hebrew
                "choices": ["ליסבון", "פורטו (Porto)", "1147", "קוימברה, בערך"],
                "correct": "ליסבון",
            }
        ],
    },
    "ar": {
        "title": "عواصم العالم",
        "language": "ar",
        "questions": [
            {
                "type": "multiple",
                "text": "ما هي المدن التي تقع في البرتغال؟",
                "choices": ["لشبونة", "مدريد", "بورتو (Porto)", "+351"],
                "correct": ["لشبونة", "بورتو (Porto)"],
            }
        ],
    },
    "en": {
        "title": "Code",
        "language": "en",
        "questions": [
            {
                "type": "single",
                "text": CODE,
                "choices": ["1   times", "if 1:\n    times", "0 times", "שגיאה"],
                "correct": "1   times",
            }
        ],
    },
}
WIDTHS = (390, 1280)
NAMES = {"he": "נועה (2)", "ar": "ليلى", "en": "Ada"}


@asynccontextmanager
async def opened(node: Node, language: str) -> AsyncIterator[Session]:
    async with Api(node.url, author_key=node.author_key) as api:
        quiz = QUIZZES[language]
        questions = [question | {"time_limit_s": 120} for question in quiz["questions"]]
        stored, _ = await api.add_quiz(quiz | {"questions": questions}, f"written-{language}")
        made = await api.create_session(stored["id"], {**AT_ONCE, "early_close": False})
        yield Session(api, made["code"], made["session_id"], made["host_token"])


def direction(each: Locator) -> str:
    return str(each.evaluate("(each) => getComputedStyle(each).direction"))


def is_as_written(page: Page, question: str, choices: str, language: str) -> None:
    """The question and its choices are in the language and direction of what they say, to the last blank."""
    quiz = QUIZZES[language]
    asked = quiz["questions"][0]
    way = "ltr" if language == "en" else "rtl"
    text = page.locator(question)
    assert text.inner_text() == asked["text"]
    assert direction(text) == way
    grid = page.locator(choices)
    assert direction(grid) == way
    for each in (text, grid):
        assert each.evaluate("(each) => each.closest('[lang]').lang") == language
    shown = grid.locator(".text")
    assert [each.inner_text() for each in shown.all()] == asked["choices"]
    for each in shown.all():
        # The mark stands where the text begins.
        mark, words = each.locator("xpath=preceding-sibling::*[1]").bounding_box(), each.bounding_box()
        assert mark is not None
        assert words is not None
        gap = (
            words["x"] - mark["x"] - mark["width"]
            if way == "ltr"
            else mark["x"] - words["x"] - words["width"]
        )
        assert 0 < gap < 60


@pytest.mark.parametrize("language", QUIZZES)
async def test_a_question_is_shown_as_it_was_written(
    chromium: Chromium, shared_node: Node, language: str
) -> None:
    title = QUIZZES[language]["title"]

    def play(session: Session, visit: Visit) -> None:
        url = shared_node.url
        for width in WIDTHS:
            author = visit.page(size="phone" if width == 390 else "desktop", reduced_motion=True)
            author.set_viewport_size({"width": width, "height": 844})
            author.goto(shared_node.as_author(f"/author?quiz=written-{language}"))
            author.locator("#questions summary").click()
            field = author.locator("#questions textarea[name=text]")
            assert field.input_value() == QUIZZES[language]["questions"][0]["text"]
            assert direction(field) == ("ltr" if language == "en" else "rtl")
            assert field.get_attribute("lang") == language
            kept = [each.input_value() for each in author.locator("[name=choices]").all()]
            assert kept[:4] == QUIZZES[language]["questions"][0]["choices"]
            screenshot(author, f"written-{language}-author-{width}")
            no_violations(author)
            author.get_by_role("button", name="Preview").last.click()
            is_as_written(author, "#preview-text", "#grid", language)
            screenshot(author, f"written-{language}-preview-{width}")
            author.close()
        pages = {}
        for width in WIDTHS:
            size: Any = "phone" if width == 390 else "desktop"
            name = NAMES[language] + (" II" if width == 1280 else "")
            player = join(visit, url, session.code, name, size=size, reduced_motion=True)
            expect(player.locator("#title")).to_have_text(title)
            assert player.locator("#title").get_attribute("lang") == language
            pages["play", width] = player
            screen = visit.page(size=size, reduced_motion=True)
            screen.goto(f"{url}/screen?code={session.code}")
            pages["screen", width] = screen
        # There is one host at a time.
        leader = visit.page(size="desktop", reduced_motion=True)
        leader.goto(f"{url}/host?code={session.code}#{session.token}")
        for (_, width), page in pages.items():
            page.set_viewport_size({"width": width, "height": 844 if width == 390 else 720})
        for do, phase in (("start", "question"), ("close", "reveal")):
            visit.run(session.lead, do)
            for (kind, width), page in pages.items():
                expect(page.locator("body")).to_have_attribute("data-phase", phase)
                if kind == "play":
                    asked = ".asked:visible", "#choices" if do == "start" else "#bars"
                else:
                    asked = "#question", "#choices"
                is_as_written(page, *asked, language)
                screenshot(page, f"written-{language}-{kind}-{phase}-{width}")
                if width == 390:
                    no_violations(page)
            expect(leader.locator("body")).to_have_attribute("data-phase", phase)
            for width in WIDTHS:
                leader.set_viewport_size({"width": width, "height": 844})
                is_as_written(leader, "#question", "#choices", language)
                screenshot(leader, f"written-{language}-host-{phase}-{width}")
            is_seen_whole(pages["screen", 1280])
            fits(leader)
        visit.run(session.lead, "next")
        for (kind, width), page in pages.items():
            expect(page.locator("ff-podium .name").first).to_be_visible()
            screenshot(page, f"written-{language}-{kind}-finished-{width}")

    async with opened(shared_node, language) as session:
        await chromium.run(partial(play, session), within_s=120)
        async with Api(shared_node.url, author_key=shared_node.author_key) as api:
            stored = await api.quiz(f"written-{language}")
            assert stored["quiz"]["questions"][0]["choices"] == QUIZZES[language]["questions"][0]["choices"]


async def test_no_keyboard_corrects_codes_names_and_answers(chromium: Chromium, shared_node: Node) -> None:
    def look(visit: Visit) -> None:
        for path, fields in (("/", ("code", "name", "answer")), ("/screen", ("typed",))):
            page = visit.page()
            page.goto(shared_node.url + path)
            for field in fields:
                for what in ("autocorrect", "autocapitalize"):
                    assert page.locator(f"#{field}").get_attribute(what) == "off", (field, what)
                assert page.locator(f"#{field}").get_attribute("spellcheck") == "false", field

    await chromium.run(look)


async def test_a_name_in_a_sentence_keeps_its_direction(chromium: Chromium, shared_node: Node) -> None:
    """Without that, the full stop and the digits behind it would be taken for a part of it."""

    def play(session: Session, visit: Visit) -> None:
        page = join(visit, shared_node.url, session.code, NAMES["he"])
        expect(page.locator("#welcome")).to_have_text(f"You are in, \u2068{NAMES['he']}\u2069!")

    async with opened(shared_node, "he") as session:
        await chromium.run(partial(play, session))
