"""The conversations that the documentation shows are those that clients have."""

from __future__ import annotations

import pytest

from tests.e2e.conversations import PAGE, read, recorded, shape
from tests.messages import check_heard, check_said


async def test_the_conversations_of_the_documentation_are_had() -> None:
    shown = read(PAGE.read_text(encoding="utf-8"))
    async with recorded() as had:
        assert set(shown) == set(had)
        for name, lines in had.items():
            assert shape(shown[name]) == shape(lines), name
            for direction, message in lines:
                if direction == "<":
                    check_heard(message)
                elif direction == ">":
                    check_said(message)


@pytest.mark.parametrize("kind", ["result", "ack", "progress", "waiting", "roster", "health", "moved"])
def test_messages_are_shown_or_said_to_be_missing(kind: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f'"t":"{kind}"' in page or f"`{kind}`" in page
