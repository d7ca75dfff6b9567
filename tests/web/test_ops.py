"""The page of operators: what happens just now on all nodes."""

from __future__ import annotations

import math
from functools import partial

from msgspec.structs import replace
from playwright.sync_api import Route, expect

from server.http.examples import LIVE
from server.http.live import event_of
from server.runtime.history import SAMPLES_MAX
from server.wire.api.live import LiveComponent, LiveEvent, LiveNode, LiveSample, LiveView
from tests.e2e.node import Node
from tests.web.accessibility import fits, no_violations
from tests.web.chromium import Chromium, Visit, screenshot
from tests.web.leading import Session, opened

NOW = LIVE.at


def samples(peak: float) -> list[LiveSample]:
    """A quarter of an hour, with a while in which nobody answered."""
    made = []
    for number in range(SAMPLES_MAX):
        answers = max(0.0, peak * (1 + math.sin(number / 9)) - peak / 4)
        took = 2 + answers / peak * 9 + (340 if 120 < number < 126 else 0) if answers else None
        made.append(
            replace(
                LIVE.nodes[0].samples[0],
                at=NOW - 5_000 * (SAMPLES_MAX - 1 - number),
                answers_per_s=answers,
                p50_ms=took and took / 3,
                p99_ms=took,
                busy=min(1.0, 0.05 + answers / peak / 4),
            )
        )
    return made


def crafted() -> LiveView:
    """Three nodes: one well, one without PostgreSQL, one silent."""
    (beat,), (own,) = LIVE.cluster.nodes, LIVE.nodes
    names = ("node-1", "node-2", "node-3")
    well = replace(
        own,
        components=[LiveComponent(each, "ok", NOW - 900_000) for each in ("postgresql", "redis", "spool")],
        failed=[replace(own.slowest[0], outcome="busy", question=2, commit_ended_ms=None, spooled=False)],
        samples=samples(60),
        events=[*own.events, LiveEvent(NOW - 40_000, "component", about="redis", state="degraded")],
    )
    away: LiveNode = replace(
        well,
        name="node-2",
        degraded=["facts go by way of the spool, which holds 512"],
        components=[
            LiveComponent("postgresql", "degraded", NOW - 30_000, "Answers are acknowledged from the spool."),
            LiveComponent("spool", "degraded", NOW - 30_000, "It holds 512 facts."),
        ],
        sessions=[replace(own.sessions[0], code="731244", phase="lobby", backlog=3, saved=False)],
        samples=samples(25),
        events=[LiveEvent(NOW - 30_000, "component", about="postgresql", state="degraded")],
    )
    cluster = replace(LIVE.cluster, nodes=[replace(beat, name=name) for name in names])
    return replace(LIVE, cluster=cluster, nodes=[well, away], silent=["node-3"])


async def test_operators_see_all_nodes_and_what_is_not_well(chromium: Chromium, shared_node: Node) -> None:
    def look(session: Session, visit: Visit) -> None:
        visit.allow(r"\b401\b")
        host = visit.page(size="desktop")
        host.goto(f"{shared_node.url}/host?code={session.code}#{session.token}")
        page = visit.page(size="desktop")
        page.goto(f"{shared_node.url}/ops")
        page.get_by_label("Key", exact=True).fill(shared_node.author_key)
        page.get_by_role("button", name="Go on").click()
        # The real node, with the session that runs there.
        expect(page.locator("#well")).not_to_be_empty(timeout=30_000)
        expect(page.locator("#nodes h3")).to_have_count(1, timeout=30_000)
        expect(page.locator("#sessions")).to_contain_text(session.code, timeout=30_000)
        expect(page.locator("#events")).to_contain_text("started", timeout=30_000)
        card = page.locator("#nodes > li").element_handle()
        assert card is not None
        card.evaluate("(card) => { card.kept = true; }")
        before = page.locator("#at").inner_text()
        expect(page.locator("#at")).not_to_have_text(before, timeout=30_000)
        assert page.locator("#nodes > li").evaluate("(card) => card.kept"), "what stays is not made anew"
        expect(page.locator("#banner")).to_be_empty()

        def say(route: Route) -> None:
            body = event_of(crafted()).decode()
            route.fulfill(status=200, content_type="text/event-stream", body=body)

        # The host has heard how the session is.
        expect(host.locator("#saved")).to_have_text("All answers are saved.", timeout=30_000)
        no_violations(host)
        screenshot(host, "host-health")

        # What a node of three says that has seen better days.
        page.route("**/api/ops/events", say)
        page.reload()
        expect(page.locator("#nodes h3")).to_have_text(["node-1", "node-2", "node-3"])
        expect(page.locator("#well")).to_have_text("Something does not work")
        expect(page.locator("#troubles li")).to_have_text(
            [
                "node-2, PostgreSQL: Answers are acknowledged from the spool.",
                "node-2, Spool: It holds 512 facts.",
                "node-3 does not answer.",
            ]
        )
        expect(page.locator("#nodes > li").nth(2).locator(".chip").first).to_have_text("silent")
        plot = page.get_by_role("img", name="node-2, answers acknowledged a second over the last 15 minutes")
        expect(plot).to_be_visible()
        slow = page.locator("#slow li").first
        expect(slow).to_contain_text("703 ms")
        expect(slow.locator(".legend")).to_contain_text("commit 700 ms")
        widths = slow.locator(".bar span").evaluate_all("(parts) => parts.map((each) => each.offsetWidth)")
        assert max(widths) > 0.9 * sum(widths), "the commit took it"
        expect(page.locator("#failed li").first).to_contain_text("busy")
        expect(page.locator("#events li").first).to_contain_text("PostgreSQL: degraded")
        expect(page.locator("#sessions tr")).to_have_count(2)
        no_violations(page)
        fits(page)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            screenshot(page, f"ops-{scheme}")
        page.set_viewport_size({"width": 360, "height": 780})
        no_violations(page)
        screenshot(page, "ops-narrow")

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        # The page has the largest sessions, and other tests have left some on this node.
        for number in range(10):
            await session.api.join(session.code, f"Ada {number}")
        await chromium.run(partial(look, session))
