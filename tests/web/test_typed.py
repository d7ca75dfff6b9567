"""What people type into the pages: numbers as they write them, codes, and text that has to be right."""

from __future__ import annotations

import sys
import unicodedata
from functools import partial
from typing import Any

from playwright.sync_api import expect

from loadtest.client.api import Api
from tests.e2e.node import Node
from tests.typed.test_numbers import CODES, ROWS, said
from tests.web.accessibility import fits, no_violations
from tests.web.chromium import Chromium, Visit, screenshot
from tests.web.leading import Session, join

QUIZ: dict[str, Any] = {
    "title": "Typed",
    "language": "en",
    "questions": [
        {"type": "numeric", "text": "How high is Mount Everest, in metres?", "correct": 8849},
        {"type": "numeric", "text": "At how many degrees are °C and °F the same?", "correct": -40},
        {"type": "text", "text": "Tomorrow, in Spanish?", "accept": ["mañana"], "match": "spelling"},
    ],
}


async def test_the_pages_read_numbers_digits_and_codes_as_the_tables_say(
    chromium: Chromium, shared_node: Node
) -> None:
    digits = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Nd"]

    def read(visit: Visit) -> None:
        page = visit.page()
        page.goto(shared_node.url)
        numbers, values, codes = page.evaluate(
            """async ([rows, digits, codes]) => {
                const { href } = document.querySelector("link[href$='lib/typed.js']");
                const { numbersOf, codeOf } = await import(href);
                return [
                    rows.map(([typed, languages]) => numbersOf(typed, languages)),
                    digits.map((digit) => numbersOf(digit, ["en"])[0]),
                    codes.map(codeOf),
                ];
            }""",
            [[row[:2] for row in ROWS], digits, [row[0] for row in CODES]],
        )
        assert [
            (typed, languages, said(found), why)
            for (typed, languages, page, _, why), found in zip(ROWS, numbers, strict=True)
            if said(found) != page
        ] == []
        assert values == [unicodedata.decimal(digit) for digit in digits]
        assert set(codes) == {"123456"}

    await chromium.run(read)


async def test_a_number_that_may_be_two_is_asked_about_and_never_guessed(
    chromium: Chromium, shared_node: Node
) -> None:
    def play(session: Session, visit: Visit) -> None:
        url = shared_node.url
        ada = join(visit, url, session.code, "Ada", lang="de-DE")
        bob = join(visit, url, session.code, "Bob", lang="en-US")
        screen = visit.page(size="desktop")
        screen.goto(f"{url}/screen?code={session.code}")
        visit.run(session.lead, "start")
        field = ada.locator("#answer")
        expect(field).to_have_attribute("inputmode", "decimal")
        field.fill("8.849")
        for _ in range(2):  # whoever presses again has not answered either
            field.press("Enter")
            expect(ada.locator("#mistyped")).to_have_text("Meinst du 8849 oder 8,849?")
        expect(ada.locator("#readings button")).to_have_text(["8849", "8,849"])
        no_violations(ada)
        fits(ada)
        screenshot(ada, "play-which-number")
        assert visit.run(session.answers, "Ada") == 0
        field.press_sequentially("5")
        expect(ada.locator("#readings button")).to_have_count(0)
        field.press("Backspace")
        field.press("Enter")
        ada.locator("#readings button").first.click()
        expect(ada.locator("#state")).to_have_text("Gespeichert")
        expect(field).to_have_value("8.849")
        bob.locator("#answer").fill("8,849")
        bob.locator("#send").click()
        expect(bob.locator("#state")).to_have_text("Saved")
        visit.run(session.lead, "close")
        for page, shown in ((ada, "8.849"), (bob, "8,849")):
            expect(page.locator(".verdict.right")).to_be_visible()
            expect(page.locator("#right")).to_have_text(shown)
        expect(screen.locator("#right")).to_have_text("Correct answer: 8,849")

        visit.run(session.lead, "next")
        expect(field).to_be_enabled()
        field.press_sequentially("40")
        sign = ada.get_by_role("button", name="Vorzeichen wechseln")
        for expected in ("-40", "40", "-40"):
            sign.click()
            expect(field).to_have_value(expected)
            expect(field).to_be_focused()  # the keyboard of a phone stays
        no_violations(ada)
        field.press("Enter")
        bob.locator("#answer").fill("\u2212\u0664\u0660")
        bob.locator("#send").click()
        visit.run(session.lead, "close")
        for page in (ada, bob):
            expect(page.locator(".verdict.right")).to_be_visible()

        visit.run(session.lead, "next")
        expect(bob.locator("#match")).to_have_text("Accents, hyphens and apostrophes count.")
        expect(sign).to_be_hidden()
        no_violations(bob)
        screenshot(bob, "play-spelling")
        field.fill("Mañana.")
        field.press("Enter")
        bob.locator("#answer").fill("manana")
        bob.locator("#send").click()
        visit.run(session.lead, "close")
        expect(ada.locator(".verdict.right")).to_be_visible()
        expect(bob.locator(".verdict.wrong")).to_be_visible()

    async with Api(shared_node.url, author_key=shared_node.author_key) as api:
        stored, _ = await api.add_quiz(QUIZ)
        made = await api.create_session(stored["id"], {"get_ready_ms": 0, "early_close": False})
        session = Session(api, made["code"], made["session_id"], made["host_token"])
        await chromium.run(partial(play, session), within_s=120)


async def test_a_code_is_typed_in_any_digits_or_pasted_as_a_link(
    chromium: Chromium, shared_node: Node
) -> None:
    def come(code: str, visit: Visit) -> None:
        page = visit.page()
        page.goto(shared_node.url)
        field, told = page.locator("#code"), page.locator("#told")
        arabic = "".join(chr(0x660 + int(digit)) for digit in code)
        for typed, shown in (
            (f"{code[:3]} {code[3:]}", None),
            (arabic, None),
            (f"http://192.168.100.200:5001/?code={code}", code),
        ):
            field.fill("")
            expect(told).to_be_empty()
            field.fill(typed)
            expect(told).to_have_text("Typed")
            expect(field).to_have_value(shown or typed)
        page.goto(f"{shared_node.url}/screen")
        page.locator("#typed").fill(arabic)
        page.locator("#typed").press("Enter")
        expect(page.locator("#title")).to_have_text("Typed")

    async with Api(shared_node.url, author_key=shared_node.author_key) as api:
        stored, _ = await api.add_quiz(QUIZ)
        made = await api.create_session(stored["id"], {"get_ready_ms": 0})
        await chromium.run(partial(come, made["code"]))


async def test_an_author_writes_numbers_and_says_how_much_has_to_be_right(
    chromium: Chromium, shared_node: Node
) -> None:
    def write(visit: Visit) -> None:
        page = visit.page(lang="de-DE", size="desktop")
        page.goto(shared_node.as_author("/author?new=1"))
        page.locator("[name=title]").fill("Zahlen und Texte")
        page.locator("[name=id]").fill("zahlen")
        page.locator("[name=type]:enabled").select_option("numeric")
        page.locator("textarea[name=text]").fill("Wie hoch?")
        right = page.locator("[name=correct][data-number]:enabled")
        tolerance = page.locator("[name=tolerance]:enabled")
        right.fill("8.849")
        tolerance.fill("0,5")
        tolerance.blur()
        told = page.locator(".field", has=right).locator(".told")
        expect(told).to_have_text("Meinst du 8849 oder 8,849?")
        no_violations(page)
        page.locator("#save").click()
        expect(right).to_be_focused()
        right.fill("-8.849,5")
        right.blur()
        expect(right).to_have_value("-8849,5")
        expect(told).to_have_count(0)
        page.locator("button[data-do=add][value=text]").click()
        text = page.locator("#questions > li").nth(1)
        text.locator("textarea[name=text]").fill("Morgen, auf Spanisch?")
        text.locator("[name=accept]").first.fill("mañana")
        text.locator("[name=match]").select_option("spelling")
        no_violations(page)
        page.locator("#save").click()
        expect(page.locator("#state")).to_have_text("Als Version 1 gespeichert")
        page.reload()
        expect(page.locator("#questions > li").nth(1).locator("[name=match]")).to_have_value("spelling")
        expect(right).to_have_value("-8849,5")
        page.locator("#questions > li").first.locator("summary").click()
        page.locator("button[data-do=preview]").first.click()
        expect(page.locator("#solution")).to_have_text("-8.849,5 ± 0,5")

    await chromium.run(write)
    async with Api(shared_node.url, author_key=shared_node.author_key) as api:
        number, text = (await api.quiz("zahlen"))["quiz"]["questions"]
    assert (number["correct"], number["tolerance"]) == (-8849.5, 0.5)
    assert text["match"] == "spelling"
