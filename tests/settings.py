"""Settings of sessions in tests."""

from __future__ import annotations

from typing import Any, Final

from engine.domain.settings import Settings

AT_ONCE: Final = {"get_ready_ms": 0}
"""Questions take answers as soon as they are shown. Whoever tests the time to get ready says so."""


def at_once(**settings: Any) -> Settings:
    return Settings(**{**AT_ONCE, **settings})
