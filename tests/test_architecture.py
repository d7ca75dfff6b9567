"""Imports point down only. Every import statement is read, wherever it stands in a file.

    server -> shards, storage -> actors -> domain; ports may be imported by all above the domain.

Shards and storage do not know each other, and the load generator knows the server by the wire alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# How to think about this: a module belongs to the layer with the longest name that it begins with, and
# may import from the layers listed there, its own included only if it is listed.
LAYERS: dict[str, tuple[str, ...]] = {
    "engine": (),
    "engine.aio": (),
    "engine.beats": (),
    "engine.boundary": (),
    "engine.latency": (),
    "engine.domain": ("engine.domain",),
    "engine.ports": ("engine.domain",),
    "engine.scores": (),
    "engine.trace": (),
    "engine.actors": (
        "engine.beats",
        "engine.boundary",
        "engine.domain",
        "engine.latency",
        "engine.ports",
        "engine.trace",
        "engine.actors",
    ),
    "engine.storage": (
        "engine.latency",
        "engine.aio",
        "engine.beats",
        "engine.boundary",
        "engine.domain",
        "engine.ports",
        "engine.scores",
        "engine.actors",
        "engine.storage",
        "engine.lease",
    ),
    "engine.shards": (
        "engine.aio",
        "engine.boundary",
        "engine.domain",
        "engine.latency",
        "engine.ports",
        "engine.scores",
        "engine.trace",
        "engine.actors",
        "engine.shards",
        "engine.lease",
    ),
    "engine.lease": (),
    "engine.websocket": (),
    "server": ("engine", "server"),
    # The command line drives bots, a host and a screen, and those are clients: they live where clients live.
    "server.cli": ("engine", "server", "loadtest"),
    # The one exception: frames are bytes without a socket, and the server that is measured reads the same.
    "loadtest": ("loadtest", "engine.websocket", "fanfare_client"),
    # It installs without the server, and knows it by the wire alone.
    "fanfare_client": ("fanfare_client",),
}
OURS = ("engine", "server", "loadtest", "fanfare_client", "bench", "tests")

# Pure rules need no more of the world than this: no clock, no randomness, no files, no loop.
PURE = set(
    """__future__ abc array bisect collections contextlib dataclasses decimal enum fractions functools
    hashlib itertools math operator re sortedcontainers string types typing unicodedata""".split()  # noqa: SIM905  # words read better
)
# Beyond the domain: what every node must compute alike.
PURE_SHARDS = ("engine/shards/membership.py", "engine/shards/ring.py")
PURE_FOR_SHARDS = PURE | {"heapq", "struct"}
DYNAMIC_IMPORTS = {"import_module", "__import__"}
IMPURE_BUILTINS = frozenset({"open", "print", "input", "exec", "eval", "breakpoint"})

# Neither network nor SQL, and trio alone as the loop.
NOT_FOR_ACTORS = set(
    """asyncio asyncpg http httpx hypercorn quart quart_trio redis requests socket socketserver sqlite3 ssl
    subprocess threading trio_websocket urllib""".split()  # noqa: SIM905  # words read better
)

ONE_PLACE = {
    "asyncpg": "engine/storage/postgres.py",
    "hypercorn": "server/http/http1.py",
    "redis": "engine/shards/redis.py",
}


def modules() -> Iterator[tuple[str, str]]:
    """Every file of ours: its path from the root, and what it says."""
    for package in ("engine", "server", "loadtest", "fanfare_client"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def layer_of(name: str) -> str:
    return max((layer for layer in LAYERS if within(name, layer)), key=len)


def imports(path: str, tree: ast.AST) -> Iterator[str]:
    """What is imported, as full names; ``from a import b`` is ``a.b``, a module or a name in one."""
    package = module_name(path).split(".")
    if not path.endswith("/__init__.py"):
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def violations(path: str, source: str) -> list[str]:
    """What a file imports, or does, that its layer must not."""
    tree = ast.parse(source, path)
    layer = layer_of(module_name(path))
    found = []
    for name in imports(path, tree):
        top = name.split(".")[0]
        if top in OURS:
            allowed = any(within(name, target) for target in LAYERS[layer])
        elif layer == "engine.domain":
            allowed = top in PURE
        elif path in PURE_SHARDS:
            allowed = top in PURE_FOR_SHARDS
        elif layer == "engine.actors":
            allowed = top not in NOT_FOR_ACTORS
        else:
            allowed = True
        if not allowed or ONE_PLACE.get(top, path) != path:
            found.append(f"{path} imports {name}")
    return found + list(deeds(path, layer, tree))


def deeds(path: str, layer: str, tree: ast.AST) -> Iterator[str]:
    """What goes around import statements, and what a pure layer must not do."""
    for node in ast.walk(tree):
        name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
        if name in DYNAMIC_IMPORTS and layer != "server.cli":
            yield f"{path} uses {name}"
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name) and node.exc.id.isupper():
            # Each raise adds to the traceback of the one exception, and to what that keeps in memory.
            yield f"{path} raises the constant {node.exc.id}"
        if layer == "engine.domain" or path in PURE_SHARDS:
            if isinstance(node, ast.Name) and node.id in IMPURE_BUILTINS:
                yield f"{path} uses {node.id}"
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
                yield f"{path} is asynchronous"


def test_imports_point_down_only() -> None:
    found = [violation for path, source in modules() for violation in violations(path, source)]
    assert not found, "\n".join(found)


def test_what_has_one_place_is_imported_there() -> None:
    for package, path in ONE_PLACE.items():
        if (ROOT / path).exists():
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            assert any(within(name, package) for name in imports(path, tree)), (
                f"{path} no longer imports {package}"
            )


def test_every_layer_was_read() -> None:
    read = {layer_of(module_name(path)) for path, _ in modules()}
    assert read >= {"engine.domain", "engine.ports", "engine.actors", "server", "loadtest"}


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("engine/domain/quiz.py", "import trio"),
        ("server/http/sessions.py", "def f():\n    raise NO_SESSION from None"),
        ("engine/domain/quiz.py", "import time"),
        ("engine/domain/quiz.py", "from random import choice"),
        ("engine/domain/quiz.py", "def f():\n    from datetime import datetime"),
        ("engine/domain/quiz.py", "from engine import ports"),
        ("engine/domain/quiz.py", "from engine.ports import Journal"),
        ("engine/domain/quiz.py", "from .. import ports"),
        ("engine/domain/quiz.py", "async def f(): ..."),
        ("engine/domain/quiz.py", "def f(): open('x')"),
        ("engine/ports.py", "from engine.actors.actor import SessionActor"),
        ("engine/actors/actor.py", "from engine.storage.catalog import PostgresCatalog"),
        ("engine/actors/actor.py", "import engine.storage"),
        ("engine/actors/actor.py", "from ..storage import catalog"),
        ("engine/actors/actor.py", "from server.config.config import Config"),
        ("engine/actors/actor.py", "import socket"),
        ("engine/actors/actor.py", "import asyncio"),
        ("engine/actors/actor.py", "from engine.aio import call"),
        ("engine/aio.py", "from engine.storage import postgres"),
        ("engine/actors/__init__.py", "from ..shards import ring"),
        ("engine/storage/catalog.py", "from engine.shards.ring import Ring"),
        ("engine/storage/catalog.py", "if TYPE_CHECKING:\n    from engine.shards.ring import Ring"),
        ("engine/storage/catalog.py", "import asyncpg"),
        ("engine/shards/ring.py", "from engine.storage import postgres"),
        ("engine/shards/ring.py", "import random"),
        ("engine/shards/ring.py", "async def f(): ..."),
        ("engine/shards/bus.py", "import redis.asyncio"),
        ("server/node.py", "from asyncpg import Connection"),
        ("server/node.py", "from loadtest.client.player import PlayerClient"),
        ("server/node.py", "from tests.fakes import MemoryJournal"),
        ("server/node.py", "__import__('redis')"),
        ("engine/domain/quiz.py", "importlib.import_module('trio')"),
        ("loadtest/bots/bot.py", "from engine.actors.close_reasons import Ending"),
        ("loadtest/bots/bot.py", "from server import quizfile"),
        ("fanfare_client/core.py", "from loadtest.client.api import Api"),
        ("fanfare_client/socket.py", "from engine import websocket"),
        ("engine/__init__.py", "from engine.domain import quiz"),
    ],
)
def test_a_wrong_direction_is_found(path: str, source: str) -> None:
    assert violations(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "engine/domain/session.py",
            "from engine.domain.quiz import Quiz\nfrom . import facts\nimport collections.abc",
        ),
        ("engine/ports.py", "from engine.domain.quiz import Quiz"),
        (
            "engine/actors/actor.py",
            "import trio\nfrom engine import ports\nfrom engine.actors import mailbox",
        ),
        ("engine/storage/postgres.py", "import asyncpg\nfrom engine.aio import call"),
        ("engine/aio.py", "import asyncio"),
        ("engine/shards/redis.py", "from redis.asyncio import Redis"),
        ("server/node.py", "from engine.storage import postgres\nfrom engine.shards import ring"),
        ("server/cli/play/demo.py", "from loadtest.bots.bot import Crowd"),
        ("loadtest/bots/bot.py", "import trio\nfrom loadtest.client.player import PlayerClient"),
        ("loadtest/swarm/connection.py", "from engine import websocket"),
    ],
)
def test_a_right_direction_is_not(path: str, source: str) -> None:
    assert violations(path, source) == []
