"""What a route is: a view for quart, and all that a client has to know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from server.http.cluster import ClusterView
from server.http.erasing import Erasing
from server.http.events import Events
from server.http.lifecycle import Lifecycle
from server.http.live import Live
from server.http.openapi import Operation, View, codes_of
from server.http.operations import Operations
from server.http.pages import Pages
from server.http.playing import Playing
from server.http.qr import QrCode
from server.http.quizzes import Quizzes
from server.http.results import Results
from server.http.scores import ScoresView
from server.http.signing_in import SigningIn

LOCATION = {"Location": "Where it can be read."}
PLAYER_CODES = ("player_not_found", "kicked")
IDENTITY_CODES = (
    *("identity_off", "identity_invalid", "identity_algorithm", "identity_expired", "identity_issuer"),
    *("identity_audience", "identity_unavailable"),
)
OVER_CODES = ("token_missing", "token_invalid", "token_expired", *PLAYER_CODES, "token_replaced")
"""Routes on which only participants see the standing of a session that is over."""

OF_SESSION = {"key": "$response.body#/session_id"}


@dataclass(frozen=True, slots=True)
class Views:
    """What answers requests."""

    quizzes: Quizzes
    lifecycle: Lifecycle
    erasing: Erasing
    playing: Playing
    events: Events
    results: Results
    scores: ScoresView
    cluster: ClusterView
    live: Live
    pages: Pages
    qr: QrCode
    operations: Operations
    signing_in: SigningIn


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    Args:
        path: with its parameters in braces.
        view: picks what answers it.
    """

    method: str
    path: str
    view: Callable[[Views], View]
    operation: Operation

    @property
    def rule(self) -> str:
        """The path as quart has it."""
        return self.path.replace("{", "<").replace("}", ">")

    @property
    def codes(self) -> frozenset[str]:
        """Every code with which a request may be refused."""
        return codes_of(self.method, self.path, self.operation)
