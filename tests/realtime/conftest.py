from __future__ import annotations

import pytest

from server.realtime import transport


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that do not answer are given up soon."""
    monkeypatch.setattr(transport, "PARTING_S", 0.3)
    monkeypatch.setattr(transport, "SHUTDOWN_S", 0.6)
