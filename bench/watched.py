"""How a node is watched while it is measured: by a Prometheus, by a collector of traces, or by neither."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from urllib.request import urlopen

from bench.child import child

SCRAPE_EVERY_S = 1.0
"""Fifteen times as often as Prometheus does by default."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Args: scraped: its metrics are read. ratio: the share of requests that are traced; None: no collector
    is named, and nothing is traced."""

    scraped: bool = False
    ratio: float | None = None


NOT_AT_ALL = Watch()

WATCHES: Mapping[str, Watch] = {
    "off": NOT_AT_ALL,
    "metrics": Watch(scraped=True),
    "traced 1 %": Watch(scraped=True, ratio=0.01),
    "traced 100 %": Watch(scraped=True, ratio=1.0),
}


@contextmanager
def environment(watch: Watch) -> Iterator[dict[str, str]]:
    """What the node's environment says of it; during the block the collector is there."""
    if watch.ratio is None:
        yield {}
        return
    with child(_collect) as (control, _):
        yield {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{control.recv()}",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": str(watch.ratio),
        }


@contextmanager
def scraped(watch: Watch, url: str) -> Iterator[None]:
    """During the block a process beside reads the metrics of the node at this address."""
    with ExitStack() as stack:
        if watch.scraped:
            stack.enter_context(child(_scrape, f"{url}/metrics"))
        yield


def _scrape(url: str, control: Connection) -> None:
    while not control.poll(SCRAPE_EVERY_S):
        with urlopen(url) as response:
            response.read()


def _collect(control: Connection) -> None:
    """A collector that reads and takes everything, until the other end is closed."""

    class Taker(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Taker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        control.send(server.server_address[1])
        control.poll(None)
        server.shutdown()
