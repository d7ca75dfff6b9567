"""What the commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.cli.terminal import command_line, program


def test_the_program_is_named_as_it_can_be_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / ".venv" / "bin" / "fanfare"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(script)])
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(tmp_path)
    assert program() == ".venv/bin/fanfare"
    assert (
        command_line("http://127.0.0.1:9", "watch 1") == ".venv/bin/fanfare watch 1 --url http://127.0.0.1:9"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert program() == str(script)
    monkeypatch.setenv("PATH", str(script.parent))
    assert program() == "fanfare"
    monkeypatch.setattr("sys.argv", ["server/cli/main.py"])
    assert program() == "fanfare"
