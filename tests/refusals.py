"""What is refused, and how, whichever way it comes in: one table for every door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.identities import NOW_S, made_up, signed

Row = tuple[Any, int, str, str | None]
"""A body, the status over HTTP, the code, and the path of the field."""

JOINS: list[Row] = [
    ({}, 400, "missing_field", "name"),
    ({"name": "Ada", "colour": 1}, 400, "unknown_field", "colour"),
    ({"name": 7}, 400, "name_invalid", None),
    ({"name": None}, 400, "name_invalid", None),
    ({"name": ""}, 400, "name_invalid", None),
    ({"name": "x" * 40}, 400, "name_too_long", None),
    ({"name": "ÁDA"}, 409, "name_taken", None),
    ([1], 400, "bad_message", None),
    ({"name": "x" * 5000}, 413, "too_large", None),
]

ANSWERS: list[Row] = [
    ({"id": "a", "question": 1}, 400, "missing_field", "choice"),
    ({"id": "a", "question": 1, "choice": 0, "t": "answer"}, 400, "unknown_field", "t"),
    ({"id": 1, "question": 1, "choice": 0}, 400, "bad_field", "id"),
    ({"id": "x" * 65, "question": 1, "choice": 0}, 400, "bad_field", "id"),
    ({"id": "a", "question": "1", "choice": 0}, 400, "bad_field", "question"),
    ({"id": "a", "question": True, "choice": 0}, 400, "bad_field", "question"),
    ({"id": "a", "question": 1, "choice": 3}, 400, "bad_choice", "choice"),
    ({"id": "a", "question": 1, "choice": "right"}, 400, "bad_choice", "choice"),
    ({"id": "a", "question": 2, "choice": 0}, 409, "wrong_question", None),
    ({"id": "a", "question": 1, "choice": "x" * 5000}, 413, "too_large", None),
    ({}, 400, "missing_field", "id"),
    ([1], 400, "bad_message", None),
    ({"id": "a", "question": 1, "choice": 0, "at": 5}, 400, "unknown_field", "at"),
    ({"id": "a", "question": 1, "chioce": 0}, 400, "unknown_field", "chioce"),
    ({"id": "", "question": 1, "choice": 0}, 400, "bad_field", "id"),
    ({"id": "a", "question": 1, "choice": 9}, 400, "bad_choice", "choice"),
]

HOSTS: list[Row] = [
    ({}, 400, "missing_field", "do"),
    ({"do": "dance"}, 400, "bad_field", "do"),
    ({"do": 7}, 400, "bad_field", "do"),
    ({"do": "kick"}, 400, "missing_field", "player"),
    ({"do": "kick", "player": "1"}, 400, "bad_field", "player"),
    ({"do": "readmit"}, 400, "missing_field", "player"),
    ({"do": "readmit", "player": 9}, 404, "player_not_found", None),
    ({"do": "kick", "player": 9}, 404, "player_not_found", None),
    ({"do": "lock"}, 400, "missing_field", "on"),
    ({"do": "lock", "on": 1}, 400, "bad_field", "on"),
    ({"do": "approval"}, 400, "missing_field", "on"),
    ({"do": "admit", "player": "x"}, 400, "bad_field", "player"),
    ({"do": "start", "on": True}, 400, "unknown_field", "on"),
    ({"do": "start", "id": ""}, 400, "bad_field", "id"),
    ({"do": "resume"}, 409, "illegal_move", None),
]

IDENTITIES: list[tuple[Callable[[], str], int, str]] = [
    (lambda: "eyJ.e30.x", 401, "identity_invalid"),
    (lambda: made_up({"alg": "none"}), 401, "identity_algorithm"),
    (lambda: made_up({"alg": "HS256"}, bytes(32)), 401, "identity_invalid"),
    (lambda: signed(algorithm="RS256"), 401, "identity_algorithm"),
    (lambda: signed(exp=NOW_S - 31), 401, "identity_expired"),
    (lambda: signed(iss="https://evil.example"), 401, "identity_issuer"),
    (lambda: signed(aud="another app"), 401, "identity_audience"),
    (lambda: "eyJ." + "x" * 2_048 + ".x", 400, "bad_field"),
]
"""Identity tokens, by whichever door they come. Over HTTP also as the bearer, but for the last."""

TYPED = {"id": "a", "question": 1, "choice": 0, "t": "answer"}
"""Refused over HTTP alone: a message over a WebSocket has its type."""

HTTP_ONLY = ("too_large",)
"""Codes. Over a WebSocket the connection ends instead, as test_transport.py has it."""
