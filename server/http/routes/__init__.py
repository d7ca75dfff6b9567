"""Every route of the API port, once: quart calls its view, and `openapi.json` describes it."""

from __future__ import annotations

from server.http.routes.operations import OPERATIONS
from server.http.routes.pages import PAGES
from server.http.routes.playing import PLAYING, RESULTS
from server.http.routes.quizzes import QUIZZES
from server.http.routes.route import Route
from server.http.routes.scores import SCORES
from server.http.routes.sessions import SESSIONS
from server.http.routes.signing_in import SIGNING_IN

ROUTES: tuple[Route, ...] = (
    *QUIZZES,
    *SESSIONS,
    *PLAYING,
    *RESULTS,
    *SCORES,
    *OPERATIONS,
    *SIGNING_IN,
    *PAGES,
)
