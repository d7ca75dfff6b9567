"""Users of an app, at a node as it is run: what they score, who leads, and that they can leave."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import jwt
import trio

from tests.e2e.node import PATIENCE_S, fanfare, running_node
from tests.identities import SECRET
from tests.settings import AT_ONCE

QUIZ = {"title": "One", "questions": [{"type": "true_false", "text": "True?", "correct": True}]}


def token(user: str) -> str:
    return jwt.encode({"sub": user, "name": user.title(), "exp": int(time.time()) + 600}, SECRET, "HS256")


async def test_users_get_scores_and_ranks_and_can_leave() -> None:
    with tempfile.TemporaryDirectory(prefix="fanfare-") as path:
        settings = Path(path) / "node.toml"
        settings.write_text(f'identity = "optional"\nidentity_secret = "{SECRET}"\n', "utf-8")
        data_dir = Path(path) / "data"
        async with (
            running_node(data_dir, "--config", str(settings)) as (node, api),
            httpx.AsyncClient(base_url=node.url) as http,
        ):

            async def get(path: str, user: str) -> Any:
                found = await http.get(path, headers={"Authorization": f"Bearer {token(user)}"})
                assert found.status_code == 200, found.text
                return found.json()

            await api.add_quiz(QUIZ, "one")
            made = await api.create_session("one", dict(AT_ONCE))
            url = f"/api/sessions/{made['code']}"
            players = {}
            for user in ("ann", "bob"):
                joined = await http.post(f"{url}/players", json={"identity": token(user)})
                assert joined.status_code == 201, joined.text
                players[user] = joined.json()
            await http.post(f"{url}/players", json={"name": "A guest"})
            await api.host(made["code"], made["host_token"], "1", "start")
            await api.answer(made["code"], players["bob"]["token"], "a", 1, True)
            await api.answer(made["code"], players["ann"]["token"], "a", 1, False)
            await api.host(made["code"], made["host_token"], "2", "finish")

            board: dict[str, Any] = {"top": []}
            with trio.fail_after(PATIENCE_S):
                while len(board["top"]) < 2:
                    board = await get("/api/leaderboards/one?period=day&around=me", "ann")
                    await trio.sleep(0.1)
            assert [(line["rank"], line["name"], line["me"]) for line in board["top"]] == [
                (1, "Bob", False),
                (2, "Ann", True),
            ]
            assert board["around"] == board["top"]
            scores = await get("/api/users/me/scores", "bob")
            assert (scores["totals"]["plays"], scores["totals"]["days"]) == (1, 1)
            assert (scores["scores"][0]["rank"], scores["scores"][0]["players"]) == (1, 3)

            erased = await http.delete("/api/users/me", headers={"Authorization": f"Bearer {token('bob')}"})
            assert (erased.status_code, erased.json()["sessions"]) == (200, 1)
            board = await get("/api/leaderboards/all", "ann")
            assert [line["name"] for line in board["top"]] == ["Ann"]
            assert "Bob" not in str(await api.results(made["code"]))
            assert await node.stop() == 0
            done = await fanfare("audit", made["code"], "--data-dir", str(data_dir), forked=True)
            assert done == (0, "1 session audited: no difference.\n")
            code, said = await fanfare("scores", "audit", "--data-dir", str(data_dir), forked=True)
            assert (code, said) == (0, "6 lines of leaderboards compared: 0 are not what the scores say.\n")


async def test_the_scores_of_a_user_whom_a_host_has_removed_are_erased_too() -> None:
    """Also while the session runs, from which the user would else be back; and nothing brings them again."""
    with tempfile.TemporaryDirectory(prefix="fanfare-") as path:
        settings = Path(path) / "node.toml"
        settings.write_text(f'identity = "optional"\nidentity_secret = "{SECRET}"\n', "utf-8")
        async with (
            running_node(Path(path) / "data", "--config", str(settings)) as (node, api),
            httpx.AsyncClient(base_url=node.url, headers={"Authorization": f"Bearer {token('eve')}"}) as http,
        ):

            async def plays() -> int:
                return int((await http.get("/api/users/me/scores")).json()["totals"]["plays"])

            await api.add_quiz(QUIZ, "one")
            over, removed_from, running = [
                await api.create_session("one", {"pace": "self"}) for _ in range(3)
            ]
            for made in (over, removed_from, running):
                url = f"/api/sessions/{made['code']}"
                assert (await http.post(f"{url}/players", json={})).status_code == 201
                assert (await http.post(f"{url}/next")).status_code == 200
                answer = {"id": "a", "question": 1, "choice": True}
                assert (await http.post(f"{url}/answers", json=answer)).status_code == 200
            with trio.fail_after(PATIENCE_S):
                while await plays() < 3:  # noqa: ASYNC110 - a node in a process of its own
                    await trio.sleep(0.1)
            for made in (removed_from, running):
                await api.host(made["code"], made["host_token"], "kick", "kick", player=1)
            for made in (over, removed_from):
                await api.host(made["code"], made["host_token"], "end", "finish")
            with trio.fail_after(PATIENCE_S):
                while await plays() > 1:  # noqa: ASYNC110 - as above
                    await trio.sleep(0.1)

            refused = await http.delete("/api/users/me")
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "kicked")
            assert await plays() == 0
            assert (await http.get("/api/leaderboards/all")).json()["top"] == []
            await api.host(running["code"], running["host_token"], "end", "finish")
            with trio.fail_after(PATIENCE_S):
                while (gone := await http.delete("/api/users/me")).status_code != 200:  # noqa: ASYNC110 - so
                    await trio.sleep(0.1)
            assert gone.json()["sessions"] == 1
            assert await plays() == 0
            assert (await http.get("/api/leaderboards/all")).json()["top"] == []
