"""How HTTP requests are turned down, on whichever port: one shape, and one table from codes to statuses."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from engine.actors.delivery.frame import Frame

STATUS: Mapping[str, int] = {
    "bad_json": 400,
    "bad_message": 400,
    "unknown_type": 400,
    "unknown_field": 400,
    "missing_field": 400,
    "bad_field": 400,
    "too_large": 413,
    "not_player": 403,
    "not_host": 403,
    "not_owner": 403,
    "not_admin": 403,
    "not_author": 403,
    "session_not_found": 404,
    "quiz_not_found": 404,
    "player_not_found": 404,
    "session_finished": 409,
    "session_full": 409,
    "session_locked": 409,
    "session_started": 409,
    "not_admitted": 403,
    "address_full": 409,
    "session_unavailable": 503,
    "session_running": 409,
    "name_invalid": 400,
    "name_too_long": 400,
    "name_taken": 409,
    "name_refused": 400,
    "token_missing": 401,
    "token_invalid": 401,
    "token_expired": 401,
    "identity_required": 401,
    "identity_off": 400,
    "identity_invalid": 401,
    "identity_algorithm": 401,
    "identity_expired": 401,
    "identity_issuer": 401,
    "identity_audience": 401,
    "identity_unavailable": 503,
    "kicked": 403,
    "token_replaced": 403,
    "wrong_question": 409,
    "question_closed": 409,
    "not_open_yet": 409,
    "late": 409,
    "joined_late": 409,
    "paused": 409,
    "bad_choice": 400,
    "illegal_move": 409,
    "busy": 503,
    "rate_limited": 429,
    "too_many_attempts": 429,
    "too_many_connections": 429,
    "origin_refused": 403,
    # Spoken here only.
    "node_not_found": 404,
    "last_node": 409,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "unsupported_media_type": 415,
    "internal": 500,
}
"""docs/protocol.md has the same in words. Any other code is that of a quiz that cannot be built: 400."""

RETRY_AFTER_S = {429: 10, 503: 1}


class ApiError(Exception):
    """The refusal of a request. Make a new one each time: an exception that is raised again keeps the frames
    of every raise.

    Args:
        code: one of docs/protocol.md; it fixes the status.
        message: one sentence for a person.
        path: the field, where there is one.
    """

    def __init__(self, code: str, message: str, path: str | None = None) -> None:
        super().__init__(code, message, path)
        self.code = code
        self.message = message
        self.path = path

    @property
    def status(self) -> int:
        return STATUS.get(self.code, 400)

    @property
    def headers(self) -> dict[str, str]:
        """Those that the status calls for."""
        headers = {}
        if self.status in RETRY_AFTER_S:
            headers["Retry-After"] = str(RETRY_AFTER_S[self.status])
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="fanfare"'
        return headers

    @property
    def body(self) -> bytes:
        """JSON."""
        error = {"code": self.code, "message": self.message}
        if self.path is not None:
            error["path"] = self.path
        return orjson.dumps({"error": error})


def busy() -> ApiError:
    return ApiError("busy", "A queue is full or the database is away. Try again in a moment.")


def internal() -> ApiError:
    return ApiError("internal", "Something went wrong here; it has been logged.")


def method_not_allowed(allowed: str) -> ApiError:
    """Args: allowed: the methods, as the header `Allow` has them."""
    return ApiError("method_not_allowed", f"This address takes {allowed} only.")


def too_many_attempts() -> ApiError:
    return ApiError("too_many_attempts", "Too many wrong codes or tokens from this address. Wait a minute.")


def rate_limited() -> ApiError:
    return ApiError("rate_limited", "Too many requests; slow down.")


def unreadable() -> ApiError:
    return ApiError(
        "session_unavailable",
        "What is stored here is nothing that this node can read. A node of another release may.",
    )


def too_many_streams() -> ApiError:
    return ApiError(
        "too_many_connections",
        "This address has as many event streams as it may. Close some, or try again later.",
    )


def refused(frame: Frame) -> ApiError:
    """The error that an `error` message stands for."""
    message = frame.message
    path = message.get("path")
    return ApiError(str(message["code"]), str(message["message"]), None if path is None else str(path))
