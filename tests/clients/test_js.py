"""The JavaScript client: its size, its types, and quizzes played in Node by the package that npm packs."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
import trio

from tests.e2e.node import Node
from tests.npm import CLIENT, ROOT, node_version, program
from tests.web.leading import Session, opened

PACKED_BYTES_MAX = 9_000
"""A little more than it has."""
PATIENCE_S = 60.0

WAYS = ("websocket", "events")


def switches(way: str) -> list[str]:
    """What makes Node have WebSockets, or none: it has them since 22, and behind a switch since 20.10."""
    if way == "websocket":
        return ["--experimental-websocket"] if (20, 10) <= node_version() < (22, 0) else []
    return ["--no-experimental-websocket"] if node_version() >= (22, 0) else []


TSCONFIG = {
    "compilerOptions": {
        "strict": True,
        "noEmit": True,
        "allowJs": True,
        "checkJs": True,
        "target": "es2022",
        "module": "nodenext",
        "lib": ["es2023", "dom", "dom.iterable"],
        "types": [],
    },
    "include": ["*.mjs", "*.ts", "board.js"],
}

NODE_TYPES = """declare module "node:readline" { export function createInterface(options: any): any }
declare const process: { argv: string[], stdin: any };"""
"""All that the examples take of Node."""

TYPED = """import { connect, FanfareError, type Ack } from "fanfare-client";
const game = connect({ code: "123456", name: "Ada" });
const off: () => void = game.on("question", ({ number, choices }) => { number.toFixed(); choices?.join(); });
game.on("message", (message) => { if (message.t === "result") message.around[0].rank.toFixed(); });
const ack: Promise<Ack> = game.answer(1, [0, 2]);
game.host("kick", { player: 3 }).catch((error: FanfareError) => error.code);
// @ts-expect-error there is no such event
game.on("questions", () => {});
// @ts-expect-error nor such a command
game.host("begin");
// @ts-expect-error a session has a code
connect({ name: "Ada" });
"""


def test_the_module_is_small_and_needs_nothing() -> None:
    assert len(gzip.compress((CLIENT / "fanfare.js").read_bytes(), 9)) < PACKED_BYTES_MAX
    assert "dependencies" not in json.loads((CLIENT / "package.json").read_text())


def test_the_wheel_of_the_server_has_the_module_for_its_pages(tmp_path: Path) -> None:
    """In the source tree the pages have it by a link."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as packed:
        assert packed.read("server/web/lib/fanfare.js") == (CLIENT / "fanfare.js").read_bytes()


def test_module_examples_and_uses_have_the_types_that_are_declared(project: Path) -> None:
    (project / "typed.ts").write_text(TYPED)
    (project / "node.d.ts").write_text(NODE_TYPES)
    (project / "tsconfig.json").write_text(json.dumps(TSCONFIG))
    compiler = [program("node"), project / "node_modules" / "typescript" / "bin" / "tsc"]
    for config in (CLIENT, project):
        done = subprocess.run([*compiler, "-p", config], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


async def run(project: Path, way: str, script: str, *words: str, given: bytes = b"") -> str:
    """What a script prints until it ends, well."""
    done = await trio.run_process(
        [program("node"), *switches(way), script, *words],
        cwd=project,
        stdin=given,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


@pytest.mark.parametrize("way", WAYS)
async def test_host_players_and_bots_play_a_quiz_in_node(project: Path, client_node: Node, way: str) -> None:
    said: dict[str, str] = {}

    async def play(session: Session, script: str, *words: str, given: bytes = b"") -> None:
        said[script] = await run(project, way, script, client_node.url, session.code, *words, given=given)

    async with opened(client_node.url, "single", "true_false", author_key=client_node.author_key) as session:
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(play, session, "host.mjs", session.token, "3", "0")
                nursery.start_soon(play, session, "bot.mjs", "3")
        assert await session.answers("Bot 1") == await session.answers("Bot 3") == 2
    assert "The answer: 1\n" in said["host.mjs"]
    assert "The end (left)." in said["host.mjs"]
    assert said["bot.mjs"].count("place") == 3


async def test_a_player_plays_in_a_terminal(project: Path, client_node: Node) -> None:
    async with opened(client_node.url, "single", author_key=client_node.author_key) as session:
        words = [program("node"), *switches("websocket"), "player.mjs", client_node.url, session.code, "Ada"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = await trio.lowlevel.open_process(words, cwd=project, **pipes)
        assert process.stdin is not None
        assert process.stdout is not None
        said = ""

        async def until(text: str) -> None:
            nonlocal said
            while text not in said:
                data = await process.stdout.receive_some()
                assert data, said
                said += data.decode()

        with trio.fail_after(PATIENCE_S):
            await until("You are Ada.")
            await session.lead("start")
            await until("1: Lisbon")
            await process.stdin.send_all(b"1\n")
            await until("Right: ")
            await session.lead("next")
            await until("The end (left).")
            assert await process.wait() == 0
        assert await session.answers("Ada") == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_bot_plays_at_its_own_pace_in_node(project: Path, client_node: Node, way: str) -> None:
    async with opened(
        client_node.url, "multiple", "numeric", author_key=client_node.author_key, pace="self"
    ) as session:
        with trio.fail_after(PATIENCE_S):
            assert (
                await run(project, way, "bot.mjs", client_node.url, session.code)
                == "Bot 1 is through\nBot 1: left\n"
            )
        assert await session.answers("Bot 1") == 2


async def test_a_refusal_ends_it_with_its_code(project: Path, client_node: Node) -> None:
    with trio.fail_after(PATIENCE_S):
        assert "The end (session_not_found)." in await run(
            project, "websocket", "host.mjs", client_node.url, "999999", "no token"
        )
