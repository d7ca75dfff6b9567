"""What the cache in front of the catalog may and may not answer by itself."""

from __future__ import annotations

import pytest
import trio

from engine import ports
from engine.domain.quiz import Quiz
from engine.storage.catalog import CachedCatalog
from tests.fakes import MemoryCatalog
from tests.storage.making import quiz_of


class Counting(MemoryCatalog):
    def __init__(self) -> None:
        super().__init__()
        self.gets = 0
        self.before_answer = lambda: None

    async def get(self, quiz_id: str, version: int | None = None) -> ports.StoredQuiz:
        self.gets += 1
        stored = await super().get(quiz_id, version)
        self.before_answer()
        return stored


async def edited(behind: MemoryCatalog) -> Quiz:
    """The newest version is now another one, by somebody else's hand."""
    quiz = quiz_of("Edited")
    await behind.add(quiz, "mine")
    return quiz


@pytest.fixture
async def behind() -> Counting:
    behind = Counting()
    await behind.add(quiz_of(), "mine")
    return behind


async def test_what_was_asked_for_is_kept(behind: Counting) -> None:
    catalog = CachedCatalog(behind)
    first = await catalog.get("mine")
    assert await catalog.get("mine") is first
    assert await catalog.get("mine", 1) is first
    assert behind.gets == 1


async def test_an_edit_elsewhere_is_seen_after_the_time_is_up(
    behind: Counting, autojump_clock: object
) -> None:
    catalog = CachedCatalog(behind, ttl_s=1800)
    await catalog.get("mine")
    quiz = await edited(behind)
    await trio.sleep(1799)
    assert (await catalog.get("mine")).version == 1
    await trio.sleep(1)
    assert (await catalog.get("mine")).quiz == quiz


async def test_an_edit_elsewhere_is_seen_after_invalidate(behind: Counting) -> None:
    catalog = CachedCatalog(behind)
    await catalog.get("mine")
    await edited(behind)
    catalog.invalidate("mine")
    assert (await catalog.get("mine")).version == 2
    assert (await catalog.get("mine", 1)).version == 1


async def test_a_look_up_under_way_does_not_bring_back_what_was_invalidated(behind: Counting) -> None:
    catalog = CachedCatalog(behind)
    behind.before_answer = lambda: catalog.invalidate("mine")
    assert (await catalog.get("mine")).version == 1
    behind.before_answer = lambda: None
    await edited(behind)
    assert (await catalog.get("mine")).version == 2


async def test_the_one_not_asked_for_longest_gives_way(behind: Counting) -> None:
    catalog = CachedCatalog(behind, quizzes_max=2)
    for name in ("a", "b", "c"):
        await behind.add(quiz_of(name), name)
    await catalog.get("a", 1)
    await catalog.get("b", 1)
    await catalog.get("a", 1)
    await catalog.get("c", 1)
    behind.gets = 0
    await catalog.get("a", 1)
    await catalog.get("c", 1)
    assert behind.gets == 0
    await catalog.get("b", 1)
    assert behind.gets == 1


async def test_what_is_not_there_is_not_kept(behind: Counting) -> None:
    catalog = CachedCatalog(behind)
    with pytest.raises(ports.QuizNotFound):
        await catalog.get("later")
    await behind.add(quiz_of(), "later")
    assert (await catalog.get("later")).version == 1


async def test_what_is_kept_is_found_while_postgres_is_away(behind: Counting) -> None:
    catalog = CachedCatalog(behind)
    stored = await catalog.get("mine", 1)
    behind.available = False
    assert await catalog.get("mine", 1) == stored
    with pytest.raises(ports.StorageUnavailable):
        await catalog.get("other")
