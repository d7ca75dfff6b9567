"""Microsoft's client in Chromium, on a page of another origin."""

from __future__ import annotations

from functools import partial
from typing import Any

from playwright.sync_api import Page

from tests.e2e.node import Node
from tests.signalr.clients import WAYS
from tests.web.chromium import Chromium, Visit
from tests.web.leading import Session, opened

CONNECT = "([...how]) => connect(...how)"


def tried(page: Page, *how: Any) -> Any:
    """What a connection comes to, or why it came to nothing."""
    return page.evaluate("([...how]) => connect(...how).catch((error) => error.message)", list(how))


async def test_a_page_of_another_origin_plays(chromium: Chromium, node: Node, app_port: int) -> None:
    url = f"http://127.0.0.1:{node.ports[1]}/hub"

    def play(session: Session, visit: Visit) -> None:
        # The client ends its event stream and posts its Close at once: that may come too late.
        visit.allow(r"status of 404 .*/hub\?id=")
        page = visit.page()
        asked: list[str] = []
        page.on("websocket", lambda websocket: asked.append(websocket.url))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{app_port}/page.html")
        code = session.code
        names = [f"{transport} {protocol}" for transport, protocol in WAYS]
        for name, way in zip(names, WAYS, strict=True):
            joined = page.evaluate(CONNECT, [name, url, *way, None, "Join", {"code": code, "name": name}])
            assert joined["name"] == name
            # Once more, as who the token of the connection says.
            page.evaluate("(name) => hubs[name].stop()", name)
            again = page.evaluate(CONNECT, [name, url, *way, joined["token"], "Join", {"code": code}])
            assert (again["player"], again["name"]) == (joined["player"], name)
        # Browsers cannot set headers of WebSockets and event streams, but those of other requests.
        shown = [each for each in asked if "access_token=" in each]
        assert [each.partition(":")[0] for each in shown] == ["ws", "ws", "http"]
        visit.run(session.lead, "start")
        for name in names:
            assert page.evaluate("(name) => expect(name, 'question')", name)["number"] == 1
            ack = page.evaluate("(name) => hubs[name].invoke('Answer', 1, 1)", name)
            assert ack["status"] == "accepted"
        for name in names:
            assert page.evaluate("(name) => expect(name, 'result')", name)["correct"] is True
        visit.run(session.lead, "finish")
        for name in names:
            assert page.evaluate("(name) => expect(name, 'finished')", name)["you"]["score"] > 0

    async with opened(node.url, "single", author_key=node.author_key) as session:
        await chromium.run(partial(play, session))
        assert [await session.answers(f"{transport} {protocol}") for transport, protocol in WAYS] == [1] * 5


async def test_a_page_of_an_origin_that_may_not_is_turned_away(
    chromium: Chromium, node: Node, app_port: int
) -> None:
    def come(visit: Visit) -> None:
        visit.allow("blocked by CORS policy", "ERR_FAILED", "403")
        page = visit.page()
        page.goto(f"http://localhost:{app_port}/page.html")
        url = f"http://127.0.0.1:{node.ports[1]}/hub"
        for transport in ("WebSockets", "ServerSentEvents", "LongPolling"):
            why = tried(page, transport, url, transport, "json", None, "Watch", {"code": "000000"})
            assert "Failed to complete negotiation" in why

    await chromium.run(come)
