"""The page on which quizzes are written, in a real browser against a real node."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from playwright.sync_api import Page, expect

from loadtest.client.api import Api
from tests.e2e.node import Node, running_node
from tests.web.accessibility import fits, no_violations
from tests.web.chromium import Chromium, Visit, screenshot
from tests.web.leading import QUESTIONS, join, press
from tests.web.test_quiz import TYPES, answer, code_of


def fields(page: Page, number: int) -> Page:
    """Those of a question, whatever its number."""
    return page.locator("#questions > li").nth(number - 1)  # type: ignore[return-value]  # enough of one


def write(page: Page, number: int, kind: str) -> None:
    """A question of this type, as its author would: the first one is there already."""
    known = QUESTIONS[kind]
    question = fields(page, number)
    if number == 1:
        question.get_by_label("Type").select_option(kind)
    else:
        page.locator(f"#editor button[data-do=add][value={kind}]").click()
    question.get_by_label("Question", exact=True).fill(known["text"])
    match kind:
        case "single" | "multiple":
            for place, text in enumerate(known["choices"]):
                question.locator("[name=choices]").nth(place).fill(text)
                if text in [known["correct"], *known["correct"]]:
                    question.locator(".tick-box input:visible").nth(place).check()
        case "true_false":
            question.locator(".truth", has_text="True").click()
        case "text":
            question.locator("[name=accept]").first.fill("honey")
        case "numeric":
            question.locator("[name=correct][data-number]").fill("90")
            question.locator("[name=tolerance]").fill("0.5")


async def test_an_author_makes_a_quiz_and_it_is_played(chromium: Chromium, shared_node: Node) -> None:
    def make(visit: Visit) -> None:
        url = shared_node.url
        page = visit.page(size="desktop")
        page.goto(shared_node.as_author("/author"))
        expect(page.locator("#quizzes li").first).to_be_visible()
        no_violations(page)
        fits(page)
        page.locator("#new").click()
        page.get_by_label("Title").fill("Made by hand")
        for number, kind in enumerate(TYPES, start=1):
            write(page, number, kind)
        expect(page.locator("#state")).to_have_text("Unsaved changes")
        no_violations(page)
        fits(page)
        page.locator("#save").click()
        expect(page.locator("#state")).to_have_text("Saved as version 1")
        page.reload()
        expect(page.locator("#questions > li")).to_have_count(5)
        expect(page.get_by_label("Title")).to_have_value("Made by hand")
        page.goto(f"{url}/author")
        page.locator("#quizzes li", has_text="Made by hand").get_by_role("link", name="Host").click()
        page.locator("#open").click()
        expect(page.locator("#start")).to_be_visible()
        player = join(visit, url, code_of(page), "Ada")
        press(page, "#start")
        for kind in TYPES:
            answer(player, kind, right=True)
            expect(player.locator(".verdict h1")).to_have_text("Correct!")
            press(page, "#next")
        expect(player.locator(".place")).to_have_text("1")

    await chromium.run(make, within_s=120)
    async with Api(shared_node.url, author_key=shared_node.author_key) as api:
        stored = (await api.quiz("made-by-hand"))["quiz"]
    assert [question["type"] for question in stored["questions"]] == list(TYPES)
    for question in stored["questions"]:
        known = QUESTIONS[question["type"]]
        assert {name: question[name] for name in known} == known


async def test_errors_stand_beside_their_fields_until_they_are_mended(
    chromium: Chromium, shared_node: Node
) -> None:
    def make(visit: Visit) -> None:
        page = visit.page()
        page.goto(shared_node.as_author("/author?new=1"))
        question = fields(page, 1)
        question.get_by_label("Question", exact=True).fill("Which?")
        for place in range(2):
            question.locator("[name=choices]").nth(place).fill("the same")
        page.locator("#save").click()
        title = page.get_by_label("Title")
        expect(title).to_have_attribute("aria-invalid", "true")
        expect(title).to_be_focused()
        told = page.locator(f"#{title.get_attribute('aria-describedby')}")
        expect(told).not_to_be_empty()
        twice = question.locator("[name=choices]").nth(1)
        expect(twice).to_have_attribute("aria-invalid", "true")
        no_violations(page)
        screenshot(page, "author-errors")
        title.fill("Mended")
        twice.fill("another")
        question.locator(".tick-box input:visible").first.click()
        expect(page.locator("[aria-invalid=true]")).to_have_count(0)
        page.locator("#save").click()
        expect(page.locator("#state")).to_have_text("Saved as version 1")
        question.get_by_label("Question", exact=True).fill("Which one?")
        page.locator("#save").click()
        expect(page.locator("#state")).to_have_text("Saved as version 2")
        page.locator("#versions-open").click()
        expect(page.locator("#past li")).to_have_count(2)
        no_violations(page)
        page.locator("#past li").nth(1).get_by_role("link").click()
        expect(fields(page, 1).locator(".said")).to_have_text("Which?")
        page.locator("#save").click()
        expect(page.locator("#state")).to_have_text("Saved as version 3")

    await chromium.run(make, within_s=120)


async def test_a_file_is_imported_even_if_it_is_broken(
    chromium: Chromium, shared_node: Node, tmp_path: Path
) -> None:
    broken = tmp_path / "capitals.yaml"
    broken.write_text(
        "title: Capitals\nquestions:\n  - type: single\n    text: Of Portugal?\n"
        "    choices: [Porto, Lisbon]\n    correct: Lisboa\n"
    )

    def bring(visit: Visit) -> None:
        page = visit.page(size="desktop", scheme="dark")
        page.goto(shared_node.as_author("/author"))
        page.locator("#file").set_input_files(broken)
        expect(page.get_by_label("Title")).to_have_value("Capitals")
        expect(fields(page, 1).locator("[name=choices]").nth(1)).to_have_value("Lisbon")
        expect(fields(page, 1).locator(".told")).to_have_count(1)
        fields(page, 1).locator(".tick-box input:visible").nth(1).click()
        page.locator("#save").click()
        expect(page.locator("#state")).to_have_text("Saved as version 1")
        no_violations(page)

    await chromium.run(bring)


async def test_where_a_key_is_needed_it_is_asked_for(chromium: Chromium, short_tmp_path: Path) -> None:
    def make(node: Node, visit: Visit) -> None:
        visit.allow("status of 40[13]")
        page = visit.page()
        page.goto(f"{node.url}/author?new=1")
        dialog = page.locator("#key")
        expect(dialog).to_be_visible()
        no_violations(page)
        page.keyboard.press("Escape")
        expect(page.locator("#alert")).to_have_text("This needs the author key.")
        page.reload()
        dialog.locator("input").fill("wrong")
        dialog.get_by_role("button").first.click()
        expect(dialog.get_by_role("alert")).not_to_be_empty()
        dialog.locator("input").fill("a-key-of-authors")
        dialog.get_by_role("button").first.click()
        page.get_by_label("Title").fill("With a key")
        write(page, 1, "true_false")
        page.locator("#save").click()
        expect(page.locator("#state")).to_have_text("Saved as version 1")
        page.goto(f"{node.url}/host?quiz=with-a-key")
        page.locator("#open").click()
        expect(page.locator("#start")).to_be_visible()

    options = ("--no-samples", "--author-key", "a-key-of-authors")
    async with running_node(short_tmp_path / "keyed", *options) as (node, _):
        await chromium.run(partial(make, node))


async def test_the_link_that_the_node_prints_brings_the_key_along(
    chromium: Chromium, shared_node: Node
) -> None:
    def follow(visit: Visit) -> None:
        visit.allow("status of 401")
        page = visit.page()
        page.goto(f"{shared_node.url}/author")
        expect(page.locator("#key")).to_be_visible()
        page.goto(shared_node.as_author("/author"))  # no other page: only the part after # differs
        expect(page.locator("#quizzes li").first).to_be_visible()
        expect(page.locator("#key")).to_be_hidden()
        assert page.url == f"{shared_node.url}/author"
        another = page.context.new_page()  # the browser keeps it
        another.goto(f"{shared_node.url}/host")
        another.locator("#open").click()
        expect(another.locator("#start")).to_be_visible()

    await chromium.run(follow)
