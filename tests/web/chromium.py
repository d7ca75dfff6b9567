"""A real Chromium, and what a test does with it.

A script is an ordinary function: it gets a `Visit`, opens pages and uses Playwright's synchronous API. It
runs in the one thread that may talk to the browser, while trio goes on in its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import psutil
import trio
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    Request,
    ViewportSize,
    sync_playwright,
)

T = TypeVar("T")
Size = Literal["phone", "desktop"]
Scheme = Literal["light", "dark"]

ACTION_MS = 10_000
"""How long Playwright waits for whatever a script asks it for."""

SCRIPT_S = 60.0
"""How long a script may take, unless its test says otherwise."""

SIZES: Mapping[Size, ViewportSize] = {
    "phone": {"width": 390, "height": 844},
    "desktop": {"width": 1440, "height": 900},
}

LOOPBACK = ("127.0.0.1", "localhost")
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Nothing is asked of any other machine: no other name is found.
    "--host-resolver-rules=MAP * ~NOTFOUND" + "".join(f", EXCLUDE {host}" for host in LOOPBACK),
]
NO_WEBSOCKETS = [
    # Of what is not TLS, Chromium takes WebSockets alone to the proxy for TLS: here, to a closed port.
    "--proxy-server=https=127.0.0.1:9",
    "--proxy-bypass-list=<-loopback>",
]

TELL_VIOLATIONS = """addEventListener("securitypolicyviolation", (event) => console.error(
    `Content-Security-Policy: ${event.effectiveDirective} forbids ${event.blockedURI} ${event.sample}`));"""
"""Chromium's own words on the console differ, and do not always say what they are about."""


class Visit:
    """The pages of one script, and what went wrong in them.

    What a page complains about fails the test, unless it was `allow`ed: errors and warnings on the console,
    violations of the Content-Security-Policy, errors that no code of the page caught, requests that failed,
    requests to other machines. Chromium asks for /favicon.ico where a page names no icon.
    """

    def __init__(self, browser: Callable[[bool], Browser], token: trio.lowlevel.TrioToken) -> None:
        self._browser = browser
        self._token = token
        self._allowed: list[str] = []
        self._complaints: list[str] = []
        self._contexts: list[BrowserContext] = []

    def page(
        self,
        *,
        size: Size = "phone",
        scheme: Scheme = "light",
        reduced_motion: bool = True,
        lang: str = "en-GB",
        websockets: bool = True,
        certificates: bool = True,
    ) -> Page:
        """An empty page in a browser profile of its own. For another one beside it in the same profile, say
        `page.context.new_page()`; to cut it off from the network, `page.context.set_offline(True)`: open
        WebSockets then fall silent, new ones fail.

        Args:
            reduced_motion: the person wants little to move. Without a graphics card animations cost a
                fifth of a test, so the rule is that they are off; False where they matter.
            websockets: False for a network in which HTTP works and no WebSocket can be opened.
            certificates: False to believe whoever has one, whatever it says.
        """
        context = self._browser(websockets).new_context(
            viewport=SIZES[size],
            device_scale_factor=2 if size == "phone" else 1,
            is_mobile=size == "phone",
            has_touch=size == "phone",
            color_scheme=scheme,
            reduced_motion="reduce" if reduced_motion else "no-preference",
            locale=lang,
            ignore_https_errors=not certificates,
        )
        context.set_default_timeout(ACTION_MS)
        context.add_init_script(TELL_VIOLATIONS)
        context.on("console", self._said)
        context.on("weberror", lambda error: self._complain(f"not caught: {error.error}"))
        context.on("request", self._asked)
        context.on("requestfailed", self._failed)
        self._contexts.append(context)
        return context.new_page()

    def allow(self, *patterns: str) -> None:
        """Complaints in which one of these regular expressions is found are part of the test."""
        self._allowed += patterns

    def run(self, call: Callable[..., Awaitable[T]], *args: object) -> T:
        """Call an async function in trio, where the test runs, and wait for what it returns. Meanwhile the
        pages go on, but nothing of them is heard."""
        return trio.from_thread.run(call, *args, trio_token=self._token)

    @property
    def complaints(self) -> list[str]:
        """What went wrong so far and was not allowed."""
        return [
            complaint
            for complaint in self._complaints
            if not any(re.search(pattern, complaint) for pattern in self._allowed)
        ]

    def leave(self) -> None:
        """Close all pages."""
        for context in self._contexts:
            context.close()

    def keep_pictures(self, name: str) -> None:
        """Of every page as it is now."""
        pages = [page for context in self._contexts for page in context.pages]
        for number, page in enumerate(pages, 1):
            screenshot(page, f"{name}-{number}")

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            self._complain(f"{message.type} on the console: {message.text} ({message.location['url']})")

    def _asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https") and parts.hostname not in LOOPBACK:
            self._complain(f"asks another machine: {request.url}")

    def _failed(self, request: Request) -> None:
        # Aborted are those that a page calls off, and those of a page that is left.
        if request.failure != "net::ERR_ABORTED":
            self._complain(f"failed: {request.method} {request.url}: {request.failure}")

    def _complain(self, complaint: str) -> None:
        self._complaints.append(complaint)


class Chromium:
    """Starts with the first script and runs until `close`; after a `kill` the next script starts another."""

    def __init__(self, executable: str) -> None:
        self._executable = executable
        self._thread = ThreadPoolExecutor(1, "chromium")
        self._stack = ExitStack()
        self._playwright: Playwright | None = None
        self._browsers: dict[bool, Browser] = {}

    async def run(self, script: Callable[[Visit], T], *, within_s: float = SCRIPT_S) -> T:
        """Run a script, and return what it returns.

        When it takes too long or the test is cancelled, Chromium is killed; then whatever the script waits
        for in it fails, and so the script ends.

        Raises:
            AssertionError: something went wrong in a page.
            trio.TooSlowError: the script took longer than `within_s`; its cause says where it was.
        """
        token = trio.lowlevel.current_trio_token()
        ended = trio.Event()
        future = self._thread.submit(self._play, script, token)
        future.add_done_callback(lambda _: token.run_sync_soon(ended.set))
        with trio.move_on_after(within_s) as patience:
            try:
                await ended.wait()
            finally:
                while not ended.is_set():
                    self.kill()  # and again, for it may be starting just now
                    with trio.move_on_after(1, shield=True):
                        await ended.wait()
        if patience.cancelled_caught:
            raise trio.TooSlowError(f"the script took longer than {within_s:g} s") from future.exception()
        return future.result()

    def close(self) -> None:
        self._thread.submit(self._stack.close).result()
        self._thread.shutdown()

    def kill(self) -> None:
        """Nothing of Chromium is left. May be called from any thread."""
        for process in self.processes:
            with suppress(psutil.Error):
                process.kill()

    @property
    def processes(self) -> list[psutil.Process]:
        """Those of Chromium: whatever Playwright's driver has started, which is a child of this process."""
        found = []
        with suppress(psutil.Error):
            for process in psutil.Process().children():
                with suppress(psutil.Error):
                    if "run-driver" in process.cmdline():
                        found += process.children(recursive=True)
        return found

    # -- in the thread ----------------------------------------------------------------------------

    def _play(self, script: Callable[[Visit], T], token: trio.lowlevel.TrioToken) -> T:
        visit = Visit(self._browser, token)
        try:
            returned = script(visit)
        except BaseException as exc:
            for complaint in visit.complaints:
                exc.add_note(f"In a page: {complaint}")
            with suppress(Exception):
                test = os.environ.get("PYTEST_CURRENT_TEST", "")
                visit.keep_pictures("failed-" + re.sub(r"\W+", "-", test))
            with suppress(Exception):
                visit.leave()
            raise
        visit.leave()
        assert not visit.complaints, "\n".join(["In a page:", *visit.complaints])
        return returned

    def _browser(self, websockets: bool) -> Browser:
        found = self._browsers.get(websockets)
        if found is not None and found.is_connected():
            return found
        if self._playwright is None:
            self._playwright = self._stack.enter_context(sync_playwright())
        self._browsers[websockets] = self._stack.enter_context(
            self._playwright.chromium.launch(
                executable_path=self._executable,
                args=FLAGS if websockets else FLAGS + NO_WEBSOCKETS,
                timeout=SCRIPT_S * 1000,
            )
        )
        return self._browsers[websockets]


SETTLED = """() => Promise.all(document.getAnimations()
    .filter((each) => each.effect.getComputedTiming().endTime < 3000)
    .map((each) => each.finished.catch(() => 0)))"""


def settle(page: Page) -> None:
    """Wait for what fades or moves in. Countdowns and what never ends are not waited for."""
    page.evaluate(SETTLED)


def screenshot(page: Page, name: str) -> None:
    """A picture of the whole page: `name`.png in the directory that $SCREENSHOTS names, if it names one."""
    directory = os.environ.get("SCREENSHOTS")
    if directory:
        settle(page)
        page.screenshot(path=Path(directory) / f"{name}.png", full_page=True)
