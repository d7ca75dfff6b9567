"""The AsyncAPI document, which describes the WebSocket: made from the types of its messages.

How to think about it: the document speaks of the node. It *receives* what clients ask, each with the messages
that may be the reply, and *sends* what it has to tell, by whom it is for. Close codes are an extension, since
AsyncAPI has no place for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import msgspec

from engine.actors.close_reasons import CloseReason
from server.wire.api import realtime as types
from server.wire.api.common import Body
from server.wire.protocol import SUBPROTOCOL

Document = dict[str, Any]
Type = type[Body]

_REF = "#/components/schemas/{name}"
_CHANNEL = "#/channels/session"

INFO: Mapping[str, object] = {
    "title": "Fanfare over a WebSocket",
    "version": "1",
    "description": "Live quizzes: play, lead and watch. Text frames, one JSON object each, at most 4 KiB "
    "from the client; `t` is the type. Times are whole milliseconds; questions and players count from 1. "
    "docs/protocol.md has the rules, docs/conversations.md whole conversations, and openapi.json what is "
    "asked by HTTP.",
    "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
}


@dataclass(frozen=True, slots=True)
class Said:
    """What a client may say: one message, in these forms, and what may be the reply."""

    forms: tuple[Type, ...]
    summary: str
    replies: tuple[Type, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What the node tells by itself, and to whom."""

    messages: tuple[Type, ...]
    summary: str


SAID: Mapping[str, Said] = {
    "join": Said(
        (types.JoinAsPlayer, types.JoinAsUser, types.JoinAgain, types.JoinToWatch),
        "Takes a seat in a session, or comes back to it. The first message of a connection.",
        (types.Joined, types.Waiting, types.Moved, types.Error),
    ),
    "answer": Said((types.Answer,), "Answers a question.", (types.Ack, types.Error)),
    "next": Said(
        (types.Next,),
        "Asks for the next question, where players go at their own pace.",
        (types.Question, types.DoneAll, types.Error),
    ),
    "host": Said(
        (
            types.HostMoves,
            types.HostHolds,
            types.HostSwitches,
            types.HostDecides,
            types.HostRemoves,
            types.HostGivesTime,
            types.HostExtends,
        ),
        "A command of the host.",
        (types.Done, types.Error),
    ),
    "ping": Said((types.Ping,), "Asks for the server's clock.", (types.Pong,)),
    "leave": Said((types.Leave,), "Ends the connection."),
}

TOLD: Mapping[str, Told] = {
    "tellAll": Told(
        (
            types.Question,
            types.Progress,
            types.Revealed,
            types.Leaderboard,
            types.StateChange,
            types.Finished,
            types.Moved,
        ),
        "What everybody in the session is told.",
    ),
    "tellPlayer": Told((types.Result, types.ExtraTime), "What one player is told."),
    "tellHost": Told((types.Roster, types.WaitingList, types.Health), "What the host alone is told."),
    "refuse": Told((types.Error,), "What was said is no message of this protocol."),
}

HEARD: tuple[Type, ...] = tuple(
    dict.fromkeys(
        [body for said in SAID.values() for body in said.replies]
        + [body for told in TOLD.values() for body in told.messages]
    )
)
"""Every message from the server."""


def document(ws_url: str) -> Document:
    """The whole of it. Args: ws_url: where clients open their WebSocket; empty on a node that takes none."""
    made = _everywhere()
    if not ws_url:
        return made
    url = urlsplit(ws_url)
    before, _, last = url.path.rpartition("/")
    server = {"host": url.netloc, "protocol": url.scheme, **({"pathname": before} if before else {})}
    channel = {**made["channels"]["session"], "address": f"/{last}"}
    return {**made, "servers": {"node": server}, "channels": {"session": channel}}


@cache
def _everywhere() -> Document:
    """What is the same at every node."""
    forms = [form for said in SAID.values() for form in said.forms]
    schemas, components = msgspec.json.schema_components([*forms, *HEARD], ref_template=_REF)
    by_type = dict(zip([*forms, *HEARD], schemas, strict=True))
    messages = {
        **{name: _message(name, [by_type[form] for form in said.forms]) for name, said in SAID.items()},
        **{name_of(body): _message(name_of(body), [by_type[body]]) for body in HEARD},
    }
    channel = {
        "address": "/ws",
        "description": f"One seat in one session. The subprotocol is `{SUBPROTOCOL}`.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"ws": {"method": "GET", "headers": _HEADERS, "bindingVersion": "0.1.0"}},
        "x-close-codes": [
            {
                "code": each.code,
                "reason": each.reason,
                "reconnect": str(each.reconnect),
                "description": each.sentence,
            }
            for each in CloseReason
        ],
    }
    return {
        "asyncapi": "3.0.0",
        "info": dict(INFO),
        "defaultContentType": "application/json",
        "channels": {"session": channel},
        "operations": {
            **{name: _receives(name, said) for name, said in SAID.items()},
            **{name: _sends(told) for name, told in TOLD.items()},
        },
        "components": {"messages": messages, "schemas": components},
    }


_HEADERS = {"type": "object", "properties": {"Sec-WebSocket-Protocol": {"const": SUBPROTOCOL}}}


def name_of(body: Type) -> str:
    """`t` of a message."""
    return str(body.__struct_config__.tag)


def _message(name: str, forms: Sequence[Document]) -> Document:
    return {"name": name, "payload": forms[0] if len(forms) == 1 else {"oneOf": list(forms)}}


def _refs(names: Sequence[str]) -> list[Document]:
    return [{"$ref": f"{_CHANNEL}/messages/{name}"} for name in names]


def _receives(name: str, said: Said) -> Document:
    made: Document = {
        "action": "receive",
        "channel": {"$ref": _CHANNEL},
        "summary": said.summary,
        "messages": _refs([name]),
    }
    if said.replies:
        replies = _refs([name_of(body) for body in said.replies])
        made["reply"] = {"channel": {"$ref": _CHANNEL}, "messages": replies}
    return made


def _sends(told: Told) -> Document:
    return {
        "action": "send",
        "channel": {"$ref": _CHANNEL},
        "summary": told.summary,
        "messages": _refs([name_of(body) for body in told.messages]),
    }
