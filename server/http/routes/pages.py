"""The web pages, and what they need."""

from __future__ import annotations

from collections.abc import Callable

from server.http.openapi import Gives, Operation, View
from server.http.pages import NEARBY
from server.http.routes.route import Route, Views
from server.wire.api import queries

PAGE = Gives(200, "A page.", media_types={"text/html": "string"})
UNCHANGED = Gives(304, "The browser has it.")
FORWARD = Gives(
    302,
    "The address of the page.",
    media_types={"text/plain": "string"},
    headers={"Location": "The address of the page."},
)
FILE = Gives(
    200,
    "The file. Kept for a year under the digest that this release has, and not under another.",
    media_types={
        "text/css": "string",
        "text/javascript": "string",
        "application/json": "object",
        "image/svg+xml": "string",
        "application/manifest+json": "string",
    },
)


def _page(path: str, name: str, of: str, view: Callable[[Views], View]) -> Route:
    operation = Operation(name, of, "pages", query=queries.PageQuery, gives=(PAGE, UNCHANGED))
    return Route("GET", path, view, operation)


_NEARBY = {
    "/play": ("playNearby", "The page of a player"),
    "/join": ("joinNearby", "The page of a player"),
    "/host/": ("hostNearby", "The page of a host"),
    "/screen/": ("screenNearby", "The page for the big screen"),
    "/author/": ("authorNearby", "The page of an author"),
    "/ops/": ("opsNearby", "The page of an operator"),
}

PAGES = (
    _page("/", "playPage", "The page of a player", lambda views: views.pages.play),
    _page("/host", "hostPage", "The page of a host", lambda views: views.pages.host),
    _page("/screen", "screenPage", "The page of the big screen", lambda views: views.pages.screen),
    _page("/author", "authorPage", "The page of an author", lambda views: views.pages.author),
    _page("/ops", "opsPage", "The page of an operator", lambda views: views.pages.ops),
    _page("/login/failed", "signInFailedPage", "The page that says why", lambda views: views.pages.login),
    *(
        Route(
            "GET",
            path,
            lambda views: views.pages.elsewhere,
            Operation(*_NEARBY[path], "pages", gives=(FORWARD,)),
        )
        for path in NEARBY
    ),
    Route(
        "GET",
        "/{code}",
        lambda views: views.pages.by_code,
        Operation(
            "joinByCode",
            "The page of a player who has a code",
            "pages",
            gives=(FORWARD,),
        ),
    ),
    Route(
        "GET",
        "/qr.svg",
        lambda views: views.qr.show,
        Operation(
            "qrCode",
            "The address at which a session is joined, as a QR code",
            "pages",
            query=queries.QrQuery,
            gives=(
                Gives(
                    200,
                    "Black on white. It may be kept for an hour.",
                    media_types={"image/svg+xml": "string"},
                ),
            ),
            codes=("bad_message",),
        ),
    ),
    Route(
        "GET",
        "/assets/{digest}/{name}",
        lambda views: views.pages.asset,
        Operation(
            "asset",
            "A file that the pages need",
            "pages",
            gives=(FILE, UNCHANGED),
        ),
    ),
    Route(
        "GET",
        "/assets/{digest}/{folder}/{name}",
        lambda views: views.pages.asset,
        Operation(
            "assetInFolder",
            "A file that the pages need, in a folder",
            "pages",
            gives=(FILE, UNCHANGED),
        ),
    ),
)
