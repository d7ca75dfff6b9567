"""A row that no release could have written as a quiz is listed like any other, and costs nobody the list."""

from __future__ import annotations

import json

import pytest

from engine.storage.catalog import PostgresCatalog
from engine.storage.postgres import Database
from tests.storage.making import AT, EVERY_KIND


@pytest.mark.parametrize(
    "definition", [2, "a", None, [], {}, {"questions": None}, {"questions": {"a": 1}}], ids=repr
)
async def test_a_quiz_without_a_list_of_questions_is_listed_with_none(
    database: Database, definition: object
) -> None:
    catalog = PostgresCatalog(database, lambda: AT)
    good = await catalog.add(EVERY_KIND, "good")
    await catalog.add(EVERY_KIND, "odd")
    await database.execute(
        "UPDATE quizzes SET definition = $1::text::jsonb WHERE id = 'odd'", json.dumps(definition)
    )
    listed = {each.id: each.questions for each in await catalog.page(9)}
    assert listed == {"good": len(good.quiz.questions), "odd": 0}
    assert [each.questions for each in await catalog.versions("odd", 5)] == [0]
