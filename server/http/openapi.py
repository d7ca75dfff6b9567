"""The OpenAPI document, made from the table of routes and the types of their bodies.

How to think about it: a `Route` says everything once: where quart is to find the view, and what a client has
to know. Schemas come from the types, parameters from the path and the type of the query string, and the
refusals of a route from what it takes; only codes that follow from none of these are written beside it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from server.http.responses import Answer
from server.wire.api import queries
from server.wire.api.common import Body, Error, ErrorDetail
from server.wire.api.queries import Query
from server.wire.errors import RETRY_AFTER_S, STATUS

View = Callable[..., Awaitable[Answer]]
Who = Literal["author", "host", "player", "user", "all"]
Schema = dict[str, Any]

JSON = "application/json"
_REF = "#/components/schemas/{name}"


@dataclass(frozen=True, slots=True)
class Link:
    """What may be done next with what a response says.

    Args:
        operation: the id of that operation.
        parameters: its parameters, as runtime expressions such as `$response.body#/id`.
    """

    operation: str
    description: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Takes:
    """The body of a request.

    Args:
        body: its type; None for any JSON.
        example: a body that the node takes.
        other_types: media types beside JSON, as text.
        quiz: whether it may be as large as a quiz.
    """

    body: type[msgspec.Struct] | None
    example: Body
    description: str | None = None
    other_types: tuple[str, ...] = ()
    quiz: bool = False


@dataclass(frozen=True, slots=True)
class Gives:
    """A response that is no refusal.

    Args:
        body: the type of a JSON body; None for a body of one of `media_types`, or for none at all.
        headers: the names of headers and what they say.
    """

    status: int
    description: str
    body: type[msgspec.Struct] | None = None
    example: msgspec.Struct | None = None
    media_types: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """What a client has to know of a route.

    Args:
        who: who may ask; empty where nobody is asked for a token.
        codes: refusals that follow neither from the path nor from the query, the body, or `who`.
        path: types of those parts of the path that mean something of their own here.
        on_realtime_port: whether the realtime port takes the same requests.
    """

    id: str
    summary: str
    tag: str
    gives: tuple[Gives, ...]
    who: tuple[Who, ...] = ()
    description: str | None = None
    query: type[Query] | None = None
    takes: Takes | None = None
    codes: tuple[str, ...] = ()
    headers: Mapping[str, str] | None = None
    path: Mapping[str, object] | None = None
    on_realtime_port: bool = False


# -- what routes have in common --------------------------------------------------------------------

PATH_TYPES: Mapping[str, object] = {
    "key": queries.SessionKey,
    "quiz_id": queries.QuizId,
    "number": queries.PlayerNumber,
    "code": queries.TypedCode,
    "user_id": queries.UserId,
    "digest": queries.Digest,
    "folder": queries.Folder,
    "name": queries.FileName,
}

SCHEMES: Mapping[Who, str] = {
    "author": "authorKey",
    "host": "hostToken",
    "player": "playerToken",
    "user": "identityToken",
}

_BEARER = {"type": "http", "scheme": "bearer"}
SECURITY_SCHEMES: Schema = {
    "authorKey": {
        **_BEARER,
        "description": "The configured author_key, or the one that the node has made in its data directory "
        "and prints at its start.",
    },
    "hostToken": {**_BEARER, "description": "host_token of POST /api/sessions."},
    "playerToken": {**_BEARER, "description": "token of POST /api/sessions/{key}/players."},
    "identityToken": {
        **_BEARER,
        "description": "A token by which the app that embeds this says which of its users it is.",
    },
}

INFO: Mapping[str, str] = {
    "title": "Fanfare",
    "version": "1",
    "summary": "Live quizzes: write them, open sessions, play, lead, and read the results.",
    "description": 'Times are milliseconds since the epoch. Errors are `{"error": {"code", "message", '
    '"path"?}}`; docs/protocol.md lists the codes. Unknown fields are refused by name. '
    "Every request may bring `traceparent` and `X-Request-Id`; the latter, or a new one, is in the response.",
}

TAGS: Mapping[str, str] = {
    "quizzes": "Writing quizzes. For authors.",
    "sessions": "Opening sessions, finding them, taking them over, deleting them.",
    "playing": "Joining, answering, leading and watching.",
    "results": "How a session came out.",
    "users": "Leaderboards over sessions, and what a user has scored.",
    "operations": "For those who run a node.",
    "pages": "The web pages and what they need.",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """What refusals with one status have in common."""

    name: str
    description: str
    example: ErrorDetail


REFUSALS: Mapping[int, Refusal] = {
    400: Refusal(
        "BadRequest",
        "The request is malformed; `path` names the field.",
        ErrorDetail("bad_field", "quiz_id is text.", "quiz_id"),
    ),
    401: Refusal(
        "Unauthorized",
        "No token, a forged one, an old one, or one for something else.",
        ErrorDetail("token_missing", "This needs Authorization: Bearer <token>."),
    ),
    403: Refusal(
        "Forbidden",
        "This token, origin or address may not do this.",
        ErrorDetail("not_host", "Only the host may do this."),
    ),
    404: Refusal(
        "NotFound",
        "No such session, quiz, player or node.",
        ErrorDetail("session_not_found", "No session has this code."),
    ),
    408: Refusal(
        "Timeout",
        "The body did not come in time.",
        ErrorDetail("request_timeout", "The body did not come in time."),
    ),
    409: Refusal(
        "Conflict",
        "The session, or the cluster, is not in a state for this.",
        ErrorDetail("session_finished", "This session is over."),
    ),
    413: Refusal(
        "TooLarge",
        "The body is too large.",
        ErrorDetail("too_large", "The body is larger than 4096 bytes."),
    ),
    415: Refusal(
        "NotJson",
        "The body is not declared as JSON.",
        ErrorDetail("unsupported_media_type", "Send JSON, with Content-Type: application/json."),
    ),
    429: Refusal(
        "TooMany",
        "Too many wrong codes or tokens from this address, or too many requests.",
        ErrorDetail("too_many_attempts", "Too many wrong codes or tokens from this address. Wait a minute."),
    ),
    500: Refusal(
        "Internal",
        "A fault of the node; it is logged there.",
        ErrorDetail("internal", "Something went wrong here; it has been logged."),
    ),
    503: Refusal(
        "Busy",
        "A queue is full, the database is away, or the session is out of service. Asking again is safe.",
        ErrorDetail("busy", "A queue is full or the database is away. Try again in a moment."),
    ),
}

TOKEN_CODES = ("token_missing", "token_invalid", "token_expired", "too_many_attempts")
KEY_CODES = ("session_not_found", "session_unavailable", "too_many_attempts")
QUERY_CODES = ("unknown_field", "bad_field")
BODY_CODES = (
    *("bad_json", "bad_message", "unknown_field", "missing_field", "bad_field"),
    *("too_large", "unsupported_media_type", "request_timeout"),
)


def codes_of(method: str, path: str, operation: Operation) -> frozenset[str]:
    """Every code with which a request may be refused."""
    codes = set(operation.codes)
    if path.startswith(("/api/", "/hub/")):
        codes |= {"internal", "busy", "bad_message"}
        if method != "GET":
            codes.add("origin_refused")
    if operation.who not in ((), ("all",)):
        codes.update(TOKEN_CODES)
    if "author" in operation.who:
        codes.add("not_owner")
    if "{" in path:
        codes.add("not_found")  # a part with a slash in it is no part
    if "{key}" in path:
        codes.update(KEY_CODES)
    if operation.query is not None and operation.query.__struct_config__.forbid_unknown_fields:
        codes.update(QUERY_CODES)
        if _required(operation.query):
            codes.add("missing_field")
    if operation.takes is not None:
        codes.update(BODY_CODES)
    return frozenset(codes)


# -- the document ----------------------------------------------------------------------------------


def document(routes: Sequence[tuple[str, str, Operation]], play_url: str) -> Schema:
    """The whole of it.

    Args:
        routes: (method, path, operation), where a path has its parameters in braces.
        play_url: base address of the port where answers and event streams cost least.
    """
    made = _Document(routes, play_url)
    paths: dict[str, Schema] = {}
    for method, path, operation in routes:
        paths.setdefault(path, {})[method.lower()] = made.operation(method, path, operation)
    return {
        "openapi": "3.1.0",
        "info": dict(INFO),
        "servers": [{"url": "/", "description": "The API port of this node."}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": made.components(),
    }


class _Document:
    def __init__(self, routes: Sequence[tuple[str, str, Operation]], play_url: str) -> None:
        self._play_url = play_url
        bodies = {Error: None} | {body: None for _, _, each in routes for body in _bodies(each)}
        schemas, self._schemas = msgspec.json.schema_components(list(bodies), ref_template=_REF)
        self._by_type = dict(zip(bodies, schemas, strict=True))
        used = Counter(
            msgspec.json.encode(parameter, order="deterministic")
            for _, path, each in routes
            for parameter in _parameters(path, each)
        )
        self._shared: dict[bytes, str] = {}
        self._parameters: dict[str, Schema] = {}
        for encoded, count in used.items():
            parameter = msgspec.json.decode(encoded)
            name = "".join(part.capitalize() for part in re.split(r"[-_]", parameter["name"]))
            if count > 1 and name not in self._parameters:
                self._shared[encoded] = name
                self._parameters[name] = parameter
        self._refused: set[int] = set()

    def operation(self, method: str, path: str, operation: Operation) -> Schema:
        made: Schema = {
            "operationId": operation.id,
            "summary": operation.summary,
            "tags": [operation.tag],
        }
        if operation.description is not None:
            made["description"] = operation.description
        if operation.on_realtime_port and self._play_url:
            made["servers"] = [
                {"url": "/", "description": "The API port of this node."},
                {
                    "url": self._play_url,
                    "description": "The realtime port of this node, at a fraction of the cost. `play_url` "
                    "of a session is that of the node that runs it.",
                },
            ]
        if operation.who:
            made["security"] = [{SCHEMES[who]: []} if who in SCHEMES else {} for who in operation.who]
        if parameters := [self._parameter(each) for each in _parameters(path, operation)]:
            made["parameters"] = parameters
        if operation.takes is not None:
            made["requestBody"] = self._request_body(operation.takes)
        made["responses"] = {
            **{str(gives.status): self._response(gives) for gives in operation.gives},
            **self._refusals(codes_of(method, path, operation)),
        }
        return made

    def components(self) -> Schema:
        """To be called last: it has what the operations refer to."""
        return {
            "schemas": self._schemas,
            "parameters": self._parameters,
            "responses": {
                refusal.name: self._refusal(status, refusal)
                for status, refusal in REFUSALS.items()
                if status in self._refused
            },
            "securitySchemes": SECURITY_SCHEMES,
        }

    def _parameter(self, parameter: Schema) -> Schema:
        shared = self._shared.get(msgspec.json.encode(parameter, order="deterministic"))
        return parameter if shared is None else {"$ref": f"#/components/parameters/{shared}"}

    def _request_body(self, takes: Takes) -> Schema:
        schema = {} if takes.body is None else self._by_type[takes.body]
        content = {JSON: {"schema": schema, "example": _plain(takes.example)}}
        for media_type in takes.other_types:
            content[media_type] = {"schema": {"type": "string"}}
        made: Schema = {"required": True, "content": content}
        if takes.description is not None:
            made["description"] = takes.description
        return made

    def _response(self, gives: Gives) -> Schema:
        made: Schema = {"description": gives.description}
        if gives.headers:
            made["headers"] = _headers(gives.headers)
        if gives.body is not None:
            content: Schema = {"schema": self._by_type[gives.body]}
            if gives.example is not None:
                content["example"] = _plain(gives.example)
            made["content"] = {JSON: content}
        elif gives.media_types is not None:
            made["content"] = {
                media_type: {"schema": {"type": kind}} for media_type, kind in gives.media_types.items()
            }
        if gives.links:
            made["links"] = {
                link.operation: {
                    "operationId": link.operation,
                    "description": link.description,
                    "parameters": dict(link.parameters),
                }
                for link in gives.links
            }
        return made

    def _refusals(self, codes: Iterable[str]) -> Schema:
        by_status: dict[int, list[str]] = {}
        for code in sorted(codes):
            by_status.setdefault(STATUS.get(code, 400), []).append(code)
        self._refused |= by_status.keys()
        return {
            str(status): {
                "$ref": f"#/components/responses/{REFUSALS[status].name}",
                "description": f"{REFUSALS[status].description} "
                f"Codes: {', '.join(f'`{code}`' for code in by_status[status])}.",
            }
            for status in sorted(by_status)
        }

    def _refusal(self, status: int, refusal: Refusal) -> Schema:
        headers = {}
        if status in RETRY_AFTER_S:
            headers["Retry-After"] = "Seconds."
        if status == 401:
            headers["WWW-Authenticate"] = "That a bearer token is wanted."
        made: Schema = {
            "description": refusal.description,
            "content": {JSON: {"schema": self._by_type[Error], "example": _plain(Error(refusal.example))}},
        }
        return made | {"headers": _headers(headers)} if headers else made


def _bodies(operation: Operation) -> Iterable[type[msgspec.Struct]]:
    if operation.takes is not None and operation.takes.body is not None:
        yield operation.takes.body
    for gives in operation.gives:
        if gives.body is not None:
            yield gives.body


def _headers(headers: Mapping[str, str]) -> Schema:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}


def _plain(example: msgspec.Struct) -> object:
    return msgspec.to_builtins(example)


# -- parameters ------------------------------------------------------------------------------------


def _parameters(path: str, operation: Operation) -> Iterable[Schema]:
    own = operation.path or {}
    for name in re.findall(r"\{(\w+)\}", path):
        yield _parameter(name, "path", msgspec.json.schema(own.get(name, PATH_TYPES[name])), required=True)
    if operation.query is not None:
        required = _required(operation.query)
        for name, schema in _fields(operation.query).items():
            yield _parameter(name, "query", _not_null(schema), required=name in required)
    for name, text in (operation.headers or {}).items():
        yield _parameter(name, "header", {"type": "string", "description": text}, required=False)


def _parameter(name: str, where: str, schema: Mapping[str, Any], *, required: bool) -> Schema:
    schema = dict(schema)
    made: Schema = {"name": name, "in": where, "required": required}
    if text := schema.pop("description", None):
        made["description"] = text
    return made | {"schema": schema}


def _struct(query: type[Query]) -> Schema:
    schema = msgspec.json.schema(query)
    found: Schema = schema["$defs"][query.__name__]
    return found


def _fields(query: type[Query]) -> Mapping[str, Schema]:
    fields: Mapping[str, Schema] = _struct(query)["properties"]
    return fields


def _required(query: type[Query]) -> Sequence[str]:
    required: Sequence[str] = _struct(query)["required"]
    return required


def _not_null(schema: Schema) -> Schema:
    """A query string leaves out what is null in the type."""
    if "anyOf" not in schema:
        return schema
    (kind,) = (each for each in schema["anyOf"] if each != {"type": "null"})
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return {**rest, **kind}
