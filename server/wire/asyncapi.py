"""The AsyncAPI document, which describes the WebSocket and the event stream: made from the types of their
messages.

How to think about it: the document speaks of the node. It *receives* what clients ask, each with the
messages that may be the reply, and *sends* what it has to tell, by whom it is for. A stream carries the
latter, and what a WebSocket says in other ways. Close codes are an extension, since AsyncAPI has no place for
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import msgspec

from engine.actors.close_reasons import CloseReason
from server.wire.api import host_commands
from server.wire.api import realtime as types
from server.wire.api.common import Body
from server.wire.api.realtime_examples import EXAMPLES
from server.wire.protocol import SUBPROTOCOL

Document = dict[str, Any]
Type = type[Body]

_REF = "#/components/schemas/{name}"
_CHANNEL = "#/channels/{name}"
_SESSION, _EVENTS = "session", "events"

INFO: Mapping[str, object] = {
    "title": "Fanfare over a WebSocket or an event stream",
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
            host_commands.HostMoves,
            host_commands.HostHolds,
            host_commands.HostSwitches,
            host_commands.HostDecides,
            host_commands.HostRemoves,
            host_commands.HostGivesTime,
            host_commands.HostExtends,
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
"""Every message from the server over a WebSocket."""

STREAM_ALONE: tuple[Type, ...] = (types.Alive, types.Close)
STREAMED: tuple[Type, ...] = (
    types.Joined,
    *(body for told in TOLD.values() for body in told.messages if body not in (types.Moved, types.Error)),
    *STREAM_ALONE,
)
"""Every event. What refuses a stream is an HTTP error, and a session of another node is relayed."""


def document(ws_url: str, play_url: str) -> Document:
    """The whole of it.

    Args:
        ws_url: where clients open their WebSocket; empty on a node that takes none.
        play_url: the base address of event streams.
    """
    made = _everywhere()
    servers = {"http": _server(play_url)}
    channels = {**made["channels"], _EVENTS: {**made["channels"][_EVENTS], "servers": _at("http")}}
    if ws_url:
        before, _, last = ws_url.rpartition("/")
        servers["node"] = _server(before)
        channels[_SESSION] = {**channels[_SESSION], "address": f"/{last}", "servers": _at("node")}
    return {**made, "servers": servers, "channels": channels}


def prepare() -> None:
    """Make what takes long, once."""
    _everywhere()


def _server(url: str) -> Document:
    parts = urlsplit(url)
    path = {"pathname": parts.path} if parts.path else {}
    return {"host": parts.netloc, "protocol": parts.scheme, **path}


def _at(server: str) -> list[Document]:
    return [{"$ref": f"#/servers/{server}"}]


@cache
def _everywhere() -> Document:
    """What is the same at every node."""
    forms = [form for said in SAID.values() for form in said.forms]
    heard = [*HEARD, *STREAM_ALONE]
    schemas, components = msgspec.json.schema_components([*forms, *heard], ref_template=_REF)
    by_type = dict(zip([*forms, *heard], schemas, strict=True))
    messages = {
        **{name: _message(name, said.forms, by_type) for name, said in SAID.items()},
        **{name_of(body): _message(name_of(body), [body], by_type) for body in heard},
    }
    channel = {
        "address": "/ws",
        "description": f"One seat in one session. The subprotocol is `{SUBPROTOCOL}`.",
        "messages": _components([*SAID, *map(name_of, HEARD)]),
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
    events = {
        "address": "/api/sessions/{key}/events",
        "description": "The half from the server, as Server-Sent Events: `event` is the type, `data` the "
        "message. What clients say goes over HTTP beside it, and so do the replies.",
        "parameters": {"key": {"description": "The code of the session, or its id."}},
        "messages": _components(map(name_of, STREAMED)),
        "bindings": {"http": {"bindingVersion": "0.3.0"}},
    }
    return {
        "asyncapi": "3.0.0",
        "info": dict(INFO),
        "defaultContentType": "application/json",
        "channels": {_SESSION: channel, _EVENTS: events},
        "operations": {
            **{name: _receives(name, said) for name, said in SAID.items()},
            **{name: _sends(told) for name, told in TOLD.items()},
            "stream": _sends(Told(STREAMED, "What a seat hears on an event stream."), _EVENTS),
        },
        "components": {"messages": messages, "schemas": components},
    }


_HEADERS = {"type": "object", "properties": {"Sec-WebSocket-Protocol": {"const": SUBPROTOCOL}}}


def name_of(body: Type) -> str:
    """`t` of a message."""
    return str(body.__struct_config__.tag)


def _message(name: str, forms: Sequence[Type], schemas: Mapping[Type, Document]) -> Document:
    payloads = [schemas[form] for form in forms]
    return {
        "name": name,
        "payload": payloads[0] if len(payloads) == 1 else {"oneOf": payloads},
        "examples": [
            {"payload": msgspec.to_builtins(example)} for form in forms for example in EXAMPLES[form]
        ],
    }


def _components(names: Iterable[str]) -> Document:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _channel(name: str) -> Document:
    return {"$ref": _CHANNEL.format(name=name)}


def _refs(names: Iterable[str], channel: str = _SESSION) -> list[Document]:
    return [{"$ref": f"{_CHANNEL.format(name=channel)}/messages/{name}"} for name in names]


def _receives(name: str, said: Said) -> Document:
    made: Document = {
        "action": "receive",
        "channel": _channel(_SESSION),
        "summary": said.summary,
        "messages": _refs([name]),
    }
    if said.replies:
        made["reply"] = {"channel": _channel(_SESSION), "messages": _refs(map(name_of, said.replies))}
    return made


def _sends(told: Told, channel: str = _SESSION) -> Document:
    return {
        "action": "send",
        "channel": _channel(channel),
        "summary": told.summary,
        "messages": _refs(map(name_of, told.messages), channel),
    }
