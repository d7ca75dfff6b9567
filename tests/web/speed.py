"""What a page costs: bytes, and moments in which it does not answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page


@contextmanager
def bytes_over_the_wire(page: Page) -> Iterator[Counter[str]]:
    """What the page fetches inside the block: bytes by path, as they were sent, heads included. A response
    counts once it is complete; WebSockets and event streams do not."""
    counted: Counter[str] = Counter()
    paths: dict[str, str] = {}

    def asked(event: dict[str, Any]) -> None:
        paths[event["requestId"]] = urlsplit(event["request"]["url"]).path

    def loaded(event: dict[str, Any]) -> None:
        counted[paths[event["requestId"]]] += int(event["encodedDataLength"])

    session = page.context.new_cdp_session(page)
    session.on("Network.requestWillBeSent", asked)
    session.on("Network.loadingFinished", loaded)
    session.send("Network.enable")
    yield counted
    session.detach()


def interactive_ms(page: Page) -> float:
    """Milliseconds from the start of the navigation until the page was painted, had run its modules, and had
    ended the last of its long tasks until now."""
    return float(
        page.evaluate(
            """async () => {
                const [navigation] = performance.getEntriesByType("navigation");
                const [paint] = performance.getEntriesByName("first-contentful-paint");
                const tasks = await new Promise((resolve) => {
                    const observer = new PerformanceObserver((list) => resolve(list.getEntries()));
                    observer.observe({type: "longtask", buffered: true});
                    setTimeout(resolve, 100, []);
                });
                const ends = tasks.map((task) => task.startTime + task.duration);
                return Math.max(navigation.domContentLoadedEventEnd, paint?.startTime ?? 0, ...ends);
            }"""
        )
    )


@dataclass(frozen=True)
class Pace:
    """How smoothly a page ran: how long its long tasks took, and the times between its frames."""

    long_tasks_ms: list[float]
    frames_ms: list[float]

    @property
    def frames_per_s(self) -> float:
        return 1000 * len(self.frames_ms) / sum(self.frames_ms)


def pace(page: Page, during: Callable[[], object]) -> Pace:
    """How smoothly the page runs while something is done, which should take several frames."""
    page.evaluate(
        """() => {
            const seen = window.testPace = {tasks: [], frames: [], on: true};
            seen.observer = new PerformanceObserver((list) => seen.tasks.push(...list.getEntries()));
            seen.observer.observe({type: "longtask"});
            const frame = (now) => {
                seen.frames.push(now);
                if (seen.on) requestAnimationFrame(frame);
            };
            requestAnimationFrame(frame);
        }"""
    )
    during()
    tasks, frames = page.evaluate(
        """async () => {
            const seen = window.testPace;
            await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
            seen.on = false;
            seen.tasks.push(...seen.observer.takeRecords());
            seen.observer.disconnect();
            return [seen.tasks.map((task) => task.duration), seen.frames];
        }"""
    )
    return Pace(tasks, [after - before for before, after in pairwise(frames)])
