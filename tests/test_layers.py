"""The architecture as a failing test: imports point down only, and some have one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ALLOWED = {
    "engine.domain": ("engine.domain",),
    "engine.ports": ("engine.domain",),
    "engine.actors": ("engine.actors", "engine.ports", "engine.domain"),
    "engine.storage": ("engine.storage", "engine.ports", "engine.domain"),
    "server": ("server", "engine", "loadtest"),
    "loadtest": ("loadtest",),
}
"""Of our own packages, which each layer may import. The longest matching name counts."""

ONE_PLACE = {
    "asyncpg": {"engine/storage/postgres.py"},
    "trio_asyncio": {"engine/storage/aio.py"},
    "hypercorn": {"server/http/serving.py"},
}

IMPURE = {
    "asyncio",
    "datetime",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "threading",
    "time",
    "trio",
    "uuid",
}
"""What the domain has no use for: I/O, clocks, chance, concurrency."""

MODULES = sorted(
    path for package in ("engine", "server", "loadtest") for path in (ROOT / package).rglob("*.py")
)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """The modules that a module imports, wherever in its text."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield node.module or ""


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def layer_of(module: str) -> tuple[str, ...] | None:
    return next((ALLOWED[name] for name in sorted(ALLOWED, reverse=True) if within(module, name)), None)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    allowed = layer_of(name_of(path))
    ours = {
        module
        for module in imports(path)
        if within(module, "engine") or module.startswith(("server", "loadtest"))
    }
    if allowed is None:
        assert name_of(path) == "engine"
        assert not ours
    else:
        assert {module for module in ours if not any(within(module, name) for name in allowed)} == set()


@pytest.mark.parametrize(
    "path", [path for path in MODULES if within(name_of(path), "engine.domain")], ids=name_of
)
def test_the_domain_is_pure(path: Path) -> None:
    assert {module.partition(".")[0] for module in imports(path)} & IMPURE == set()


@pytest.mark.parametrize("library", ONE_PLACE)
def test_some_libraries_have_one_place(library: str) -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for path in MODULES
        if any(within(m, library) for m in imports(path))
    }
    assert users == ONE_PLACE[library]


def test_only_the_command_line_of_the_server_plays_itself() -> None:
    users = [
        name_of(p)
        for p in MODULES
        if within(name_of(p), "server") and any(within(m, "loadtest") for m in imports(p))
    ]
    assert [name for name in users if not within(name, "server.cli")] == []
