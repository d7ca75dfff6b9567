"""A session to play in, led from outside its pages."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Page, expect

from loadtest.client.api import Api
from tests.settings import AT_ONCE
from tests.web.chromium import Visit

LOST = (
    r"ERR_CONNECTION_(REFUSED|RESET)",
    r"ERR_INTERNET_DISCONNECTED",
    r"ERR_EMPTY_RESPONSE",
    r"ERR_ABORTED",
)

QUESTIONS: Mapping[str, Mapping[str, Any]] = {
    "single": {
        "type": "single",
        "text": "What is the capital of Portugal?",
        "choices": ["Porto", "Lisbon", "Coimbra", "Braga"],
        "correct": "Lisbon",
    },
    "multiple": {
        "type": "multiple",
        "text": "Which two of these numbers are even?",
        "choices": ["7", "8", "15", "22"],
        "correct": ["8", "22"],
    },
    "true_false": {"type": "true_false", "text": "A spider has eight legs.", "correct": True},
    "text": {"type": "text", "text": "Type the sweet food that bees make.", "accept": ["honey"]},
    "numeric": {
        "type": "numeric",
        "text": "How many minutes are there in an hour and a half?",
        "correct": 90,
        "tolerance": 0.5,
    },
}
"""One of each type, by its type."""


def quiz_of(*types: str, limit_s: float = 120) -> dict[str, object]:
    """With a limit that no test reaches, unless it says otherwise."""
    return {
        "title": "Of everything",
        "questions": [{**QUESTIONS[each], "time_limit_s": limit_s} for each in types],
    }


@dataclass(frozen=True)
class Session:
    """One that was opened, and the token that leads it."""

    api: Api
    code: str
    session_id: str
    token: str

    async def lead(self, do: str, **more: object) -> None:
        await self.api.host(self.code, self.token, do, do, **more)

    async def answers(self, player: str) -> int:
        """How many answers of this player are stored."""
        found = await self.api.results(self.session_id, self.token)
        return next(int(each["answered"]) for each in found["players"] if each["name"] == player)


@asynccontextmanager
async def opened(
    url: str, *types: str, author_key: str, limit_s: float = 120, **settings: object
) -> AsyncIterator[Session]:
    """A session of a quiz with questions of these types."""
    async with Api(url, author_key=author_key) as api:
        stored, _ = await api.add_quiz(quiz_of(*types, limit_s=limit_s))
        made = await api.create_session(stored["id"], {**AT_ONCE, **settings})
        yield Session(api, made["code"], made["session_id"], made["host_token"])


def hears(page: Page) -> None:
    """Wait until a host's page takes a press again: some time after the last one and after each change."""
    expect(page.locator("body[data-deaf]")).to_have_count(0)


def press(page: Page, button: str) -> None:
    """Press a host's button, by its selector, as somebody does who looks first."""
    expect(page.locator(button)).to_be_visible()
    hears(page)
    page.locator(button).click()


def join(visit: Visit, url: str, code: str, name: str | None, **how: Any) -> Page:
    """A page in which somebody has joined."""
    page = visit.page(**how)
    page.goto(f"{url}/?code={code}")
    expect(page.locator("#told")).not_to_be_empty()
    if name is not None:
        page.locator("#name").fill(name)
    page.locator("#join button").click()
    expect(page.locator("body")).to_have_attribute("data-phase", re.compile("lobby|question"))
    return page
