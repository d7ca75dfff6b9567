from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from server.cli.main import main
from tests.cli.fake_server import FakeServer

Fanfare = Callable[..., Result]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer().running() as fake:
        yield fake


@pytest.fixture
def fanfare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fanfare:
    """Runs a command in an empty directory and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("FANFARE_"):
            monkeypatch.delenv(name)

    def run(*words: str, **options: object) -> Result:
        return CliRunner().invoke(main, words, **options)  # type: ignore[arg-type]  # passed on as they are

    return run
