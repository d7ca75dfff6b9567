"""What tests of the storage begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.storage.postgres import Database
from tests.storage.gate import Gate
from tests.storage.world import Away, World, world_in


@pytest.fixture
async def world(database: Database) -> World:
    return await world_in(database)


@pytest.fixture
async def away(world: World, database_dsn: str, tmp_path: Path) -> AsyncIterator[Away]:
    """The database behind a gate."""
    gate = Gate(database_dsn)
    async with gate.standing(), Database.open(gate.dsn) as behind:
        yield Away(world, gate, tmp_path, behind)
