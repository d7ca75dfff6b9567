"""The Python client under asyncio and trio, over a WebSocket and by an event stream, against a real node."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import anyio
import pytest
import trio

from fanfare_client import Connection, FanfareError, connect, connection
from tests.e2e.node import Node
from tests.npm import ROOT
from tests.web.leading import opened

LOOPS = ("asyncio", "trio")
WAYS = {"websocket": True, "events": False}
PATIENCE_S = 30.0


async def until(game: Connection, kind: str) -> dict[str, object]:
    async for message in game:
        if message["t"] == kind:
            return message
    raise AssertionError(f"it ended without {kind}")


async def play(url: str, code: str, host_token: str, websocket: bool) -> None:
    with anyio.fail_after(PATIENCE_S):
        async with (
            connect(url, code, token=host_token, websocket=websocket) as host,
            connect(url, code, name="Ada", websocket=websocket) as ada,
            connect(url, code, role="spectator", websocket=websocket) as board,
        ):
            assert (ada.joined["role"], host.joined["role"], board.joined["role"]) == (
                "player", "host", "spectator",
            )  # fmt: skip
            assert (await host.host("start"))["phase"] == "question"
            question = await until(ada, "question")
            with pytest.raises(FanfareError) as refused:
                await ada.answer(1, 17)
            assert refused.value.code == "bad_choice"
            ack = await ada.answer(1, 1)
            assert (ack["t"], ack["status"]) == ("ack", "accepted")
            assert (await until(ada, "result"))["correct"] is True
            assert (await until(board, "reveal"))["correct"] == 1
            assert abs(ada.server_now() - float(str(question["now"]))) < PATIENCE_S * 1000
            await until(host, "reveal")
            await host.host("next")
            for game in (ada, board):
                assert (await until(game, "finished"))["podium"][0]["name"] == "Ada"  # type: ignore[index]
            token = ada.token
        with pytest.raises(FanfareError) as forged:
            async with connect(url, code, token=f"{token}x", websocket=websocket):
                pass
        assert forged.value.code == "token_invalid"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loop", LOOPS)
async def test_host_player_and_spectator_play_a_quiz(client_node: Node, loop: str, way: str) -> None:
    async with opened(client_node.url, "single", author_key=client_node.author_key) as session:

        def run() -> None:
            anyio.run(play, client_node.url, session.code, session.token, WAYS[way], backend=loop)

        await trio.to_thread.run_sync(run)
        assert await session.answers("Ada") == 1


async def play_twice(url: str, code: str, websocket: bool) -> None:
    with anyio.fail_after(PATIENCE_S):
        async with connect(url, code, name="Ada", websocket=websocket) as ada:
            assert (await ada.next())["attempt"] == 1
            await ada.answer(1, 0)
            assert (await ada.next())["t"] == "done_all"
            again = await ada.next(2)
            assert (again["number"], again["attempt"]) == (1, 2)
            token = ada.token
        async with connect(url, code, token=token, websocket=websocket) as ada:
            assert (await ada.next())["attempt"] == 2
            assert (await ada.answer(1, 1))["status"] == "accepted"
            end = await ada.next()
            assert (end["t"], end["attempt"], end["score"]) == ("done_all", 2, end["attempt_score"])


@pytest.mark.parametrize("way", WAYS)
async def test_a_player_goes_through_a_quiz_twice(client_node: Node, way: str) -> None:
    async with opened(
        client_node.url, "single", author_key=client_node.author_key, pace="self", attempts=2
    ) as session:

        def run() -> None:
            anyio.run(play_twice, client_node.url, session.code, WAYS[way])

        await trio.to_thread.run_sync(run)
        assert await session.answers("Ada") == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pace", ["host", "self"])
async def test_the_bot_plays_at_every_pace(client_node: Node, pace: str, way: str) -> None:
    """The example, under the one loop and the other."""
    switches = ["--trio"] if pace == "self" else []
    switches += [] if WAYS[way] else ["--no-websocket"]
    command = [sys.executable, ROOT / "examples" / "python" / "bot.py", client_node.url]
    async with opened(
        client_node.url, "single", author_key=client_node.author_key, pace=pace, early_close=False
    ) as session:
        with trio.fail_after(PATIENCE_S):
            process = await trio.lowlevel.open_process(
                [*command, session.code, "Ada", *switches], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            assert process.stdout is not None
            said = ""
            while "Ada is player 1" not in said:
                data = await process.stdout.receive_some()
                assert data, said
                said += data.decode()
            if pace == "host":
                for do in ("start", "close", "next"):
                    await session.lead(do)
            async for data in process.stdout:
                said += data.decode()
            assert await process.wait() == 0, said
        assert ("place 1" if pace == "host" else "is through") in said


def test_its_wheel_installs_without_the_server(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(build, cwd=ROOT / "clients" / "python", check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as packed:
        assert "fanfare_client/py.typed" in packed.namelist()
        packed.extractall(tmp_path / "site")
    modules = "import sys, fanfare_client; print(fanfare_client.__file__, *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", modules],
        env={"PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    file, *loaded = done.stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert not {"server", "engine", "loadtest"} & {name.partition(".")[0] for name in loaded}


async def test_authorities_are_loaded_once_and_for_https_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda **more: loaded.append(1) or load(**more))
    connection._authorities.cache_clear()
    for url, so_far in (
        ("http://quiz.example", 0),
        ("https://quiz.example", 1),
        ("https://other.example", 1),
    ):
        Connection(url, "123456", {"name": "Ada"}, websocket=True)
        assert len(loaded) == so_far
