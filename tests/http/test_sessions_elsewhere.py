"""Sessions that another node had until lately."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.actors import messages
from engine.actors.commands import Command, Look
from engine.actors.refusals import SessionFinished
from engine.domain.session import Settings
from engine.ports import SessionRecord
from server.http.sessions import Sessions
from server.wire.errors import ApiError

ID = "01a2102a-43cd-79c2-b626-7cccb0c7005c"
RECORD = SessionRecord(ID, "566697", "quiz", 1, Settings(), 0, finished_at=1)


class Elsewhere:
    """A session on a node that answers with this error code."""

    session_id = ID
    record = RECORD

    def __init__(self, code: str) -> None:
        self._code = code

    def send(self, command: Command) -> None:
        command.reply.push(messages.error(self._code, "Not here."))


def sessions() -> Sessions:
    """Of a node to which the store says that the session is over."""

    async def get(key: str) -> Any:
        raise SessionFinished(RECORD)

    return Sessions(cast(Any, SimpleNamespace(get=get)), cast(Any, None), cast(Any, None))


async def test_a_session_that_has_left_memory_meanwhile_is_its_record() -> None:
    assert await sessions().look(cast(Any, Elsewhere("session_finished")), Look) is RECORD
    assert await sessions().look(RECORD, Look) is RECORD


async def test_other_refusals_stay_what_they_are() -> None:
    with pytest.raises(ApiError) as caught:
        await sessions().look(cast(Any, Elsewhere("busy")), Look)
    assert caught.value.code == "busy"
