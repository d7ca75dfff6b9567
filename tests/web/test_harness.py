"""The browser that the other tests here rely on: it notices what goes wrong in a page."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import trio
import trio.lowlevel
from playwright.sync_api import Error, Page
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from tests import apt
from tests.e2e.node import Node
from tests.web import install_chromium
from tests.web.accessibility import no_violations
from tests.web.chromium import Chromium, Visit, screenshot
from tests.web.speed import bytes_over_the_wire, interactive_ms, pace

HTML = """<!doctype html><html lang="en"><head><meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,"><title>A page</title></head>
<body><main><h1>Hello</h1>{}</main></body></html>"""

SCRIPT = "/script.js"
WITH_SCRIPT = HTML.format(f'<button>Press</button><script type="module" src="{SCRIPT}"></script>')
POLICY = "default-src 'self'; img-src 'self' data:; connect-src *"

CONNECT = """(url) => new Promise((resolve) => {
    const socket = new WebSocket(url);
    socket.onopen = () => resolve("open");
    socket.onclose = (event) => resolve(event.code);
})"""


class Site(ThreadingHTTPServer):
    """What is at which path; all under one Content-Security-Policy."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.pages = {"/": HTML.format("")}
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Site)
        body = self.server.pages.get(self.path)
        self.send_response(404 if body is None else 200)
        kind = "text/javascript" if self.path.endswith(".js") else "text/html"
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write((body or "").encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        served.shutdown()
        thread.join()


WRONG = {
    "console.error('oh dear')": "oh dear",
    "console.warn('careful')": "careful",
    "missing()": "missing is not defined",
    "Promise.reject(new Error('unhandled'))": "unhandled",
    "fetch('/nowhere')": "/nowhere",
    "fetch('http://127.0.0.1:9/').catch(() => 0)": "http://127.0.0.1:9/",
    "fetch('http://example.com/').catch(() => 0)": "asks another machine: http://example.com/",
    "new WebSocket('ws://127.0.0.1:9/')": "ws://127.0.0.1:9/",
    "eval('1')": "Content-Security-Policy: script-src forbids eval",
}
"""What a page may do wrong, and what is said about it."""


async def test_what_goes_wrong_in_a_page_fails_the_test(chromium: Chromium, site: Site) -> None:
    body = "<p style='color: red'>Red</p><script>1</script>" + WITH_SCRIPT
    site.pages |= {"/": body, SCRIPT: "".join(f"setTimeout(() => {deed});\n" for deed in WRONG)}

    def look(visit: Visit) -> None:
        visit.page().goto(site.url, wait_until="networkidle")

    with pytest.raises(AssertionError) as caught:
        await chromium.run(look)
    said = str(caught.value)
    assert [complaint for complaint in WRONG.values() if complaint not in said] == []
    assert "Content-Security-Policy: style-src-attr forbids inline" in said
    assert "Content-Security-Policy: script-src-elem forbids inline" in said

    def allowing(visit: Visit) -> None:
        visit.allow("oh dear", "http://127.0.0.1:9/")
        look(visit)

    with pytest.raises(AssertionError) as caught:
        await chromium.run(allowing)
    assert "oh dear" not in str(caught.value)
    assert "careful" in str(caught.value)

    def allowing_all(visit: Visit) -> None:
        visit.allow("")
        look(visit)

    await chromium.run(allowing_all)


async def test_a_script_that_fails_says_what_the_page_complained_of(
    chromium: Chromium, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCREENSHOTS", str(tmp_path))
    site.pages |= {"/": WITH_SCRIPT, SCRIPT: "console.error('oh dear')"}

    def script(visit: Visit) -> None:
        page = visit.page()
        page.goto(site.url)
        page.get_by_text("Goodbye").click(timeout=10)

    with pytest.raises(Error, match="Timeout 10ms") as caught:
        await chromium.run(script)
    assert "oh dear" in "".join(caught.value.__notes__)
    (picture,) = await trio.Path(tmp_path).iterdir()
    assert picture.name.startswith("failed-tests-web-test_harness")


async def test_a_page_is_as_it_was_asked_for(
    chromium: Chromium, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen(page: Page) -> list[object]:
        page.goto(site.url)
        found: list[object] = page.evaluate(
            """() => [innerWidth, innerHeight, navigator.language, navigator.maxTouchPoints > 0,
                matchMedia("(prefers-color-scheme: dark)").matches,
                matchMedia("(prefers-reduced-motion)").matches]"""
        )
        return found

    def script(visit: Visit) -> None:
        assert seen(visit.page(reduced_motion=False)) == [390, 844, "en-GB", True, False, False]
        page = visit.page(size="desktop", scheme="dark", lang="de")
        assert seen(page) == [1440, 900, "de", False, True, True]
        screenshot(page, "nowhere")
        monkeypatch.setenv("SCREENSHOTS", str(tmp_path))
        screenshot(page, "a-page")

    await chromium.run(script)
    assert [picture.name for picture in await trio.Path(tmp_path).iterdir()] == ["a-page.png"]


async def test_websockets_can_be_blocked_and_cut_off(chromium: Chromium, site: Site) -> None:
    async def accept(request: WebSocketRequest) -> None:
        socket = await request.accept()
        with pytest.raises(ConnectionClosed):
            await socket.get_message()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, accept, "127.0.0.1", 0, None)
        address = f"ws://127.0.0.1:{server.port}/"

        def script(visit: Visit) -> None:
            visit.allow(f"WebSocket connection to '{address}' failed")
            page = visit.page()
            page.goto(site.url)
            assert page.evaluate(CONNECT, address) == "open"
            page.context.set_offline(True)
            assert page.evaluate(CONNECT, address) == 1006
            blocked = visit.page(websockets=False)
            blocked.goto(site.url)
            assert blocked.evaluate(CONNECT, address) == 1006
            assert blocked.evaluate("fetch('/').then((response) => response.status)") == 200

        await chromium.run(script)
        nursery.cancel_scope.cancel()


async def test_what_is_not_accessible_is_found(chromium: Chromium, site: Site) -> None:
    site.pages["/bad"] = HTML.format('<img src="/"><h4>Too deep</h4>')

    def script(visit: Visit) -> None:
        page = visit.page()
        page.goto(site.url)
        no_violations(page)
        page.goto(site.url + "/bad")
        with pytest.raises(AssertionError, match=r"image-alt .critical. at img: Fix any") as caught:
            no_violations(page)
        assert "heading-order" in str(caught.value)

    await chromium.run(script)


async def test_what_a_page_costs(chromium: Chromium, site: Site) -> None:
    busy = "const begun = performance.now(); while (performance.now() < begun + 120);"
    script_file = f"document.querySelector('button').onclick = () => {{ {busy} }};" + " " * 20_000
    site.pages |= {"/": WITH_SCRIPT, SCRIPT: script_file}

    def script(visit: Visit) -> None:
        page = visit.page()
        with bytes_over_the_wire(page) as fetched:
            page.goto(site.url, wait_until="networkidle")
        assert set(fetched) == {"/", SCRIPT}
        assert 0 < fetched[SCRIPT] - len(script_file) < 500

        before = interactive_ms(page)
        assert 0 < before < 10_000
        quiet = pace(page, lambda: page.wait_for_timeout(300))
        assert quiet.frames_per_s > 5
        pressed = pace(page, page.get_by_role("button").click)
        assert max(pressed.long_tasks_ms) >= 120
        assert max(pressed.frames_ms) >= 60
        assert interactive_ms(page) > before + 120

    await chromium.run(script)


async def test_a_script_calls_back_into_trio(chromium: Chromium) -> None:
    async def add(one: int, other: int) -> int:
        await trio.lowlevel.checkpoint()
        return one + other

    async def refuse() -> None:
        raise ValueError("no")

    def script(visit: Visit) -> str:
        assert visit.run(add, 1, 2) == 3
        with pytest.raises(ValueError, match="no"):
            visit.run(refuse)
        return "returned"

    assert await chromium.run(script) == "returned"


async def test_a_script_that_hangs_is_ended_and_the_next_one_runs(chromium: Chromium) -> None:
    begun = trio.Event()

    async def tell() -> None:
        begun.set()

    def hang(visit: Visit) -> None:
        page = visit.page()
        visit.run(tell)
        page.evaluate("new Promise(() => 0)")

    with pytest.raises(trio.TooSlowError, match="longer than 1 s") as caught:
        await chromium.run(hang, within_s=1)
    assert isinstance(caught.value.__cause__, Error)

    begun = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(chromium.run, hang)
        await begun.wait()
        running = chromium.processes
        assert running
        nursery.cancel_scope.cancel()
    assert psutil.wait_procs(running, timeout=10)[1] == []

    await chromium.run(lambda visit: visit.page().close())
    assert chromium.processes


async def test_the_pages_of_a_node(chromium: Chromium, shared_node: Node) -> None:
    def script(visit: Visit) -> None:
        page = visit.page()
        page.goto(shared_node.url)
        assert page.title() == "Fanfare"

    await chromium.run(script)


def test_a_browser_is_found_or_its_package_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    browser = tmp_path / "google-chrome"
    browser.write_text("#!/bin/sh\n")
    browser.chmod(0o755)
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install_chromium.executable() == str(browser)
    browser.unlink()
    assert install_chromium.executable() is None
    install_chromium.main()  # there is no apt-get on this path
    assert "install the package `chromium-headless-shell`" in capsys.readouterr().err
    monkeypatch.setenv("CHROMIUM", str(browser))
    install_chromium.main()
    assert f"CHROMIUM is '{browser}'" in capsys.readouterr().err


@pytest.mark.parametrize("there", [[], ["chromium"]])
@pytest.mark.parametrize("offered", [["chromium-headless-shell", "chromium"], ["chromium"], []])
def test_the_lighter_browser_is_installed_where_it_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: list[str], offered: list[str]
) -> None:
    def install(packages: Sequence[str]) -> None:
        browser, _ = packages
        asked.append(browser)
        if browser not in offered:
            raise subprocess.CalledProcessError(100, ["apt-get", "install", browser])
        (tmp_path / browser).touch(0o755)

    asked: list[str] = []
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(apt, "may_install", lambda: True)
    monkeypatch.setattr(apt, "install", install)
    for each in there:
        (tmp_path / each).touch(0o755)
    install_chromium.main()
    best = next(iter(offered + there), None)
    assert install_chromium.executable() == (None if best is None else str(tmp_path / best))
    if best != "chromium-headless-shell":
        assert asked == (["chromium-headless-shell"] if there else ["chromium-headless-shell", "chromium"])
    else:
        assert asked == [best]
    asked.clear()
    install_chromium.main()
    assert ("chromium-headless-shell" in asked) == (best != "chromium-headless-shell"), "by now it may be"
