"""The HTTP API, put together: one table of routes, and what holds for every request."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache
from importlib.resources.abc import Traversable
from types import TracebackType
from typing import Any, cast

import orjson
import trio
from quart import Request, Response, g, request
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import HTTPException, NotFound

from engine.actors.refusals import NodeFull
from engine.boundary import Mistake
from engine.domain.errors import DomainError
from engine.ports import QuizNotFound, SessionNotFound, StorageUnavailable, Unreadable
from server.http.authorization import Access
from server.http.cluster import ClusterView
from server.http.erasing import Erasing
from server.http.events import Events, OpenStreams
from server.http.final_results import FinalResults
from server.http.lifecycle import Lifecycle
from server.http.live import Live, LiveFeed
from server.http.metrics import Metrics
from server.http.openapi import document
from server.http.operations import Operations
from server.http.pages import Pages
from server.http.playing import Playing
from server.http.qr import QrCode
from server.http.quizzes import Quizzes
from server.http.responses import EXIT_STACK, Answer, body_answer, error_answer
from server.http.results import Results
from server.http.routes import ROUTES
from server.http.routes.route import Views
from server.http.scores import ScoresView
from server.http.served_request import SERVED, ServedRequest
from server.http.services import Services
from server.http.sessions import Sessions
from server.http.signing_in import SigningIn
from server.http.sockets import HttpTally
from server.realtime.handshake import NEGOTIATE_PATH
from server.runtime.health import Health
from server.security.authentication import HUB_PREFLIGHT, PREFLIGHT_HEADERS
from server.wire.errors import ApiError, busy, internal, method_not_allowed, unreadable

BODY_TIMEOUT_S = 30

SMALL_BODY_BYTES_MAX = 4096
"""Bound of every body that is no quiz, unless a frame of the WebSocket may be larger."""

QUIZ_BODIES = frozenset(
    (route.method, route.path)
    for route in ROUTES
    if route.operation.takes is not None and route.operation.takes.quiz
)


class _Connection(TrioASGIHTTPConnection):
    """One request. Its exit stack is closed however the request ends: a client can leave between the answer
    of a view and the first byte of its body."""

    def _create_request_from_scope(self, send: Any) -> Request:
        """With the bound of its route: a longer body is refused by its Content-Length, and one without is
        kept no further than that."""
        request: Request = super()._create_request_from_scope(send)
        app = cast(Api, self.app)
        bytes_max = app.body_bytes_max(request.method, request.path)
        request.body = request.body_class(request.content_length, bytes_max)
        return request

    async def __call__(self, receive: Any, send: Any) -> None:
        app, scope = cast(Api, self.app), cast(dict[str, object], self.scope)
        served = ServedRequest(scope, app.tracing, app.now_ms)
        with served, ExitStack() as exits:
            scope[EXIT_STACK] = exits
            scope[SERVED] = served
            await super().__call__(receive, served.sending(send))


class Api(QuartTrio):
    """The application, its open event streams, and the counts of its port."""

    asgi_http_class = _Connection

    def __init__(self, services: Services) -> None:
        config = services.config
        super().__init__(__name__, static_folder=None)
        self._config = config
        self.boundary = services.boundary
        self.tracing = services.tracing
        self.now_ms = services.clock.now_ms
        self.streams = OpenStreams(config.event_streams_per_address_max)
        self.tally = HttpTally()
        self.live: LiveFeed
        self.health: Health

    def body_bytes_max(self, method: str, path: str) -> int:
        """Of a route, or of what is none."""
        if (method, path) in QUIZ_BODIES:
            return self._config.body_bytes_max
        return min(max(SMALL_BODY_BYTES_MAX, self._config.frame_bytes_max), self._config.body_bytes_max)

    def log_exception(
        self, exception_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None]
    ) -> None:
        """With the route alone: query strings can hold tokens."""
        error = exception_info[1]
        if isinstance(error, Exception):
            self.boundary.caught(error, f"{request.method} {request.url_rule}")


def create_app(services: Services, web: Traversable | None = None) -> Api:
    """The API of one node, and its pages. Keeps nothing outside of the object it returns.

    Args:
        web: the folder with the files of the pages, by default that of this package.
    """
    app = Api(services)
    app.config.update(
        BODY_TIMEOUT=BODY_TIMEOUT_S,
        # Each send is bounded by itself (serving.py).
        RESPONSE_TIMEOUT=None,
    )
    # Addresses are taken as they are: only what people type for a page is answered with a redirect.
    app.url_map.merge_slashes = False
    access = Access(services)
    views = _views(services, access, Pages(services, web), app)
    for route in ROUTES:
        app.add_url_rule(
            route.rule,
            f"{route.method} {route.rule}",
            route.view(views),
            methods=[route.method],
            provide_automatic_options=False,
        )
    _frame_requests(app, access)
    _answer_errors(app)
    return app


def _views(services: Services, access: Access, pages: Pages, app: Api) -> Views:
    streams, cluster = app.streams, ClusterView(services, access)
    app.health = Health(services)
    app.live = LiveFeed(services, cluster, app.health)
    if services.cluster is not None:
        services.cluster.live = app.live.told
    sessions = Sessions(services.directory, services.store, access)
    final_results = FinalResults(services)
    erasing = Erasing(services, access, sessions, final_results)
    metrics = Metrics(services, lambda: len(streams), app.tally, app.health)
    return Views(
        quizzes=Quizzes(services, access),
        lifecycle=Lifecycle(services, access, sessions, final_results),
        erasing=erasing,
        playing=Playing(services, access, sessions, final_results),
        events=Events(services, access, sessions, streams),
        results=Results(services, access, sessions, final_results),
        scores=ScoresView(services, access, erasing),
        cluster=cluster,
        live=Live(access, app.live, streams),
        pages=pages,
        qr=QrCode(services),
        operations=Operations(services, access, metrics, app.health, openapi_json(services.play_url)),
        signing_in=SigningIn(services, access),
    )


@cache
def openapi_json(play_url: str) -> bytes:
    """What describes the API of a node whose answers and event streams cost least at `play_url`."""
    routes = [(route.method, route.path, route.operation) for route in ROUTES]
    return orjson.dumps(document(routes, play_url))


def _frame_requests(app: Api, access: Access) -> None:
    """The checks before every view, and the headers of every answer."""

    @app.before_request
    async def begin() -> None:
        g.began_s = trio.current_time()

    @app.before_request
    async def take_the_path_as_it_is() -> None:
        # werkzeug takes the slashes in front for one. A proxy that keeps `/metrics` inside compares paths,
        # and the realtime port knows none with two slashes in front either.
        if str(cast(Mapping[str, object], request.scope)["path"]).startswith("//"):
            request.url_rule = None
            raise NotFound

    @app.before_request
    async def check_origin() -> Answer | None:
        access.refuse_foreign_origin()
        preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        return _preflight(request.path) if preflight else None

    @app.after_request
    async def add_headers(response: Response) -> Response:
        route = None
        if request.url_rule is not None:
            route = request.url_rule.rule.replace("<", "{").replace(">", "}")
            served = cast(Mapping[str, object], request.scope)[SERVED]
            cast(ServedRequest, served).route = route
        for name, value in access.headers().items():
            response.headers.setdefault(name, value)
        access.renew(response)
        if (began_s := g.pop("began_s", None)) is not None:
            app.tally.requests.answered(route, response.status_code, trio.current_time() - began_s)
        return response


def _preflight(path: str) -> Answer:
    headers = HUB_PREFLIGHT if path == NEGOTIATE_PATH else PREFLIGHT_HEADERS
    return body_answer(b"", "text/plain", 204, headers)


def _answer_errors(app: Api) -> None:
    @app.errorhandler(ApiError)
    async def turned_down(error: ApiError) -> Answer:
        return error_answer(error)

    @app.errorhandler(DomainError)
    async def not_valid(error: DomainError) -> Answer:
        return error_answer(ApiError(error.code, error.message, error.path))

    @app.errorhandler(StorageUnavailable)
    @app.errorhandler(NodeFull)
    @app.errorhandler(Mistake)
    async def overloaded(_: Exception) -> Answer:
        return error_answer(busy())

    @app.errorhandler(Unreadable)
    async def of_another_release(_: Unreadable) -> Answer:
        return error_answer(unreadable())

    @app.errorhandler(QuizNotFound)
    async def no_quiz(_: QuizNotFound) -> Answer:
        return error_answer(ApiError("quiz_not_found", "No quiz has this id and version."))

    @app.errorhandler(SessionNotFound)
    async def no_session(_: SessionNotFound) -> Answer:
        return error_answer(ApiError("session_not_found", "No session has this code."))

    @app.errorhandler(HTTPException)
    async def by_status(error: HTTPException) -> Answer:
        return _http_error(error)


def _http_error(error: HTTPException) -> Answer:
    """What quart and werkzeug raise themselves, a crash included."""
    match error.code:
        case 404:
            return error_answer(ApiError("not_found", "Nothing is here; /openapi.json lists what is."))
        case 405:
            allowed = ", ".join(sorted(set(getattr(error, "valid_methods", None) or ()) - {"HEAD"}))
            answer = error_answer(method_not_allowed(allowed))
            answer.headers["Allow"] = allowed
            return answer
        case 408:
            return error_answer(ApiError("request_timeout", "The body did not come in time."))
        case 413:
            return error_answer(ApiError("too_large", "The body is too large."))
        case code if code is not None and 400 <= code < 500:
            return error_answer(ApiError("bad_message", error.description or "The request is malformed."))
        case _:
            return error_answer(internal())
