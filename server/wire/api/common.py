"""What all types of the HTTP API share.

How to think about these types: each is the list of fields that a reader knows (`server/wire/bodies.py` and
`server/http/requests.py` take it from the type), the answer that a view builds, and a schema in the generated
`openapi.json`. Whether a value is good is judged where the rule lives: in the domain and in
`server/wire/protocol.py`, whose constants are the bounds here.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from server.wire import protocol

CODE_PATTERN = "^[0-9]{6}$"
KEY_PATTERN = "^([0-9]{6}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$"

PlayerNumber = Annotated[int, Meta(ge=1)]
Id = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=protocol.ID_CHARS_MAX,
        description="The client's own mark on a request; the reply carries it.",
    ),
]
Milliseconds = Annotated[int, Meta(description="Milliseconds since the epoch.")]
Code = Annotated[str, Meta(pattern=CODE_PATTERN, description="Of the session: what players type.")]
OwnerId = Annotated[
    str | None,
    Meta(description="The author who made it; null for what was made with the author key."),
]
NextPage = Annotated[str | None, Meta(description="`cursor` of the next page; null on the last.")]
WsUrl = Annotated[str, Meta(description="Where clients of the session open their WebSocket.")]
PlayUrl = Annotated[
    str,
    Meta(
        description="Base address where answers and event streams cost the node least; without a slash at "
        "its end."
    ),
]


class Body(Struct, forbid_unknown_fields=True):
    """Base of everything that goes in or out as a JSON object."""


class ErrorDetail(Body):
    """Why a request was refused."""

    code: Annotated[str, Meta(description="Stable and machine-readable; docs/protocol.md lists them.")]
    message: Annotated[str, Meta(description="One sentence for a person.")]
    path: Annotated[str | UnsetType, Meta(description="The field it is about.")] = UNSET


class Error(Body):
    """A refusal."""

    error: ErrorDetail
