"""The web pages, and the files that they are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable

import orjson
from quart import request
from werkzeug.exceptions import NotFound

from server.http.addresses import play_url, ws_url
from server.http.assets import DIGEST_CHARS, Assets, File
from server.http.responses import Answer, body_answer
from server.http.services import Services
from server.security.client_address import origin_of

PAGES = ("play", "host", "screen", "author", "ops", "login")
"""Every other template is a part of these: it stands where its name is in braces."""

NEARBY = ("/play", "/join", "/host/", "/screen/", "/author/", "/ops/")
"""What people type for a page."""

CODE_DIGITS = 6

DEFAULT_LANGUAGE = "en"

PAGE_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding, Accept-Language, Cookie, Origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src 'self'"
)
"""What a page may do, up to the other origins that it may talk to."""

ASSET_HEADERS: Mapping[str, str] = {"Vary": "Accept-Encoding, Origin"}
FOREVER = "public, max-age=31536000, immutable"


class Pages:
    """Reads all files when it is made; raises ValueError if one is missing that others need.

    Args:
        web: the folder with the files, by default that of this package.
    """

    def __init__(self, services: Services, web: Traversable | None = None) -> None:
        self._services = services
        self._assets = Assets(files("server").joinpath("web") if web is None else web)
        languages = self._assets.languages
        if DEFAULT_LANGUAGE not in languages:
            raise ValueError(f"texts/{DEFAULT_LANGUAGE}.json is not there")
        self._pages = {
            (page, language): File.of(f"{page}.html", _page(self._assets, page, language))
            for page in PAGES
            for language in languages
        }

    async def play(self) -> Answer:
        return self._page("play")

    async def host(self) -> Answer:
        return self._page("host")

    async def screen(self) -> Answer:
        return self._page("screen")

    async def author(self) -> Answer:
        return self._page("author")

    async def ops(self) -> Answer:
        return self._page("ops")

    async def login(self) -> Answer:
        return self._page("login")

    async def by_code(self, code: str) -> Answer:
        """The page that joins the session with the code in the path."""
        if not (len(code) == CODE_DIGITS and code.isdecimal()):
            raise NotFound
        return _forward(f"/?code={int(code):06}")

    async def elsewhere(self) -> Answer:
        """Redirect a mistyped address to its page. Browsers keep the part behind a `#`."""
        name = request.path.strip("/")
        query = request.query_string.decode("latin-1")
        return _forward(f"/{name if name in PAGES[1:] else ''}" + (f"?{query}" if query else ""))

    async def asset(self, digest: str, name: str, folder: str | None = None) -> Answer:
        """A file, under the digest of another release too: during a rolling restart a page may come from one
        node and its files from another. Such an answer is not cached."""
        file = self._assets.files.get(name if folder is None else f"{folder}/{name}")
        if file is None:
            raise NotFound
        kept = FOREVER if digest == self._assets.digest else "no-cache"
        return _file_answer(file, {**ASSET_HEADERS, "Cache-Control": kept})

    def _page(self, page: str) -> Answer:
        policy = " ".join([POLICY, *dict.fromkeys(_sources(self._services))])
        return _file_answer(
            self._pages[page, self._language()], {**PAGE_HEADERS, "Content-Security-Policy": policy}
        )

    def _language(self) -> str:
        """The language of the address, else the one that was chosen before, else the one that the browser
        prefers."""
        languages = self._assets.languages
        for chosen in (request.args.get("lang"), request.cookies.get("lang")):
            if chosen in languages:
                return str(chosen)
        for accepted, quality in request.accept_languages:
            language = accepted.partition("-")[0].lower()
            if quality and language in languages:
                return language
        return DEFAULT_LANGUAGE


def _page(assets: Assets, page: str, language: str) -> bytes:
    template, module = assets.templates.get(page), f"{page}.js"
    if template is None or module not in assets.files:
        raise ValueError(f"{page}.html and {page}.js must both be there")
    preload = [
        f'<link rel="modulepreload" href="{assets.address}/{name}">' for name in assets.needed_by(module)
    ]
    texts = f"{assets.address}/texts/{language}.json"
    preload.append(f'<link rel="preload" as="fetch" crossorigin href="{texts}">')
    values = {
        **{name: part for name, part in assets.templates.items() if name not in PAGES},
        "page": page,
        "assets": assets.address,
        "lang": language,
        "languages": "".join(_option(assets, each, chosen=each == language) for each in assets.languages),
        "preload": "\n".join(preload),
    }
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", value)
    return template.encode()


def _option(assets: Assets, language: str, *, chosen: bool) -> str:
    """To choose a language by, in its own words."""
    name = orjson.loads(assets.files[f"texts/{language}.json"].body).get("language", language)
    selected = " selected" if chosen else ""
    return f'<option value="{language}" lang="{language}"{selected}>{escape(name)}</option>'


def _sources(services: Services) -> Iterator[str]:
    """Where a page may connect to besides where it came from: this node's other ports, and the other nodes,
    which have the sessions that are not here."""
    for url in _urls(services):
        origin = origin_of(url)
        if origin is None:
            continue
        scheme, _, rest = origin.partition("://")
        if rest.startswith("["):
            # A policy cannot name an IPv6 address.
            rest = "*" + rest.rpartition("]")[2]
        yield f"{scheme}://{rest}"


def _urls(services: Services) -> Iterable[str]:
    yield ws_url(services, None)
    yield play_url(services, None)
    for member in services.members():
        yield member.ws_url
        yield member.play_url


def _forward(address: str) -> Answer:
    return body_answer(b"", "text/plain", 302, {"Location": address, "Cache-Control": "no-cache"})


def _file_answer(file: File, headers: Mapping[str, str]) -> Answer:
    """The file, or 304 if the browser has it already. A page with another Content-Security-Policy counts as
    another page."""
    rights = headers.get("Content-Security-Policy", "")
    etag = sha256(file.digest + rights.encode()).hexdigest()[:DIGEST_CHARS]
    # Weak, because it stands for the packed body too.
    sent = {**headers, "ETag": f'W/"{etag}"'}
    if request.if_none_match.contains_weak(etag):
        return body_answer(b"", file.content_type, 304, sent)
    if file.packed is None or not request.accept_encodings["gzip"]:
        return body_answer(file.body, file.content_type, headers=sent)
    return body_answer(file.packed, file.content_type, headers={**sent, "Content-Encoding": "gzip"})
