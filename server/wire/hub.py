"""The hub protocol of SignalR: what its clients say, and the messages of `fanfare.v1` as invocations.

Pure: no socket, no clock. The format is that of `HubProtocol.md` in dotnet/aspnetcore, JSON and MessagePack.

How to think about it: a hub protocol is a dialect of the same frames. A message for many becomes one
invocation, `{"type":1,"target":t,"arguments":[message]}`, whose bytes all hub clients of one protocol share.
The few messages that belong to the hub alone (the answer to a handshake, a completion, a ping, a close) are
frames as well; their `t` is a `Type`, where that of a wire message is text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec
import orjson

from engine.actors.close_reasons import CloseReason, Reconnect
from engine.actors.delivery.frame import Dialect, Frame, Message

SEPARATOR = b"\x1e"
"""Ends every JSON record, and cannot occur in one."""

LENGTH_BYTES_MAX = 5
"""Of the length in front of a MessagePack record."""


class Type(IntEnum):
    """The types of hub messages. HANDSHAKE has no number on the wire."""

    HANDSHAKE = 0
    INVOCATION = 1
    STREAM_ITEM = 2
    COMPLETION = 3
    STREAM_INVOCATION = 4
    CANCEL_INVOCATION = 5
    PING = 6
    CLOSE = 7
    ACK = 8
    SEQUENCE = 9


class HubProtocolError(Exception):
    """The client broke the hub protocol; its connection cannot go on. One sentence."""


class HubMessage(NamedTuple):
    """What a client said. `target` and `arguments` are those of a call; `invocation` is the id by which the
    client waits for the completion, None if it does not."""

    type: int
    target: str = ""
    arguments: Sequence[object] = ()
    invocation: str | None = None


@dataclass(frozen=True, slots=True)
class HubProtocol:
    """One encoding of hub messages.

    Attributes:
        name: as in the handshake.
        binary: whether it needs binary frames.
        encode: a dialect: a message, or one of the hub's own, as one record.
        split: the whole records in received bytes, and what is left of them. Raises HubProtocolError.
        read: a record as a message. Raises HubProtocolError.
    """

    name: str
    binary: bool
    encode: Dialect
    split: Callable[[bytes], tuple[list[bytes], bytes]]
    read: Callable[[bytes], HubMessage]


# -- the hub's own messages --------------------------------------------------------------------------

SHAKEN = Frame({"t": Type.HANDSHAKE})
"""The answer to a good handshake, JSON whatever was agreed on."""

PING = Frame({"t": Type.PING})


def completion(invocation: str, result: Message | None) -> Frame:
    """The end of a call. `result` is None for a call that returns nothing."""
    body: dict[str, object] = {"t": Type.COMPLETION, "invocationId": invocation}
    return Frame(body if result is None else {**body, "result": result})


def failure(invocation: str, code: str, sentence: str) -> Frame:
    """The end of a call that was refused."""
    return Frame({"t": Type.COMPLETION, "invocationId": invocation, "error": f"{code}: {sentence}"})


def closing(close_reason: CloseReason) -> Frame:
    """The last message of a connection. The client comes back by itself where the reason lets it."""
    body: dict[str, object] = {"t": Type.CLOSE}
    if close_reason is CloseReason.BAD_FRAME:
        body["error"] = "bad_frame: this is not the hub protocol"
    elif close_reason is not CloseReason.LEFT:
        body["error"] = f"{close_reason.reason}: {close_reason.sentence}"
    if close_reason.reconnect is not Reconnect.NO:
        body["allowReconnect"] = True
    return Frame(body)


# -- handshake ---------------------------------------------------------------------------------------


def read_handshake(record: bytes) -> HubProtocol:
    """The protocol that a client asks for. Raises HubProtocolError."""
    try:
        asked = orjson.loads(record)
    except orjson.JSONDecodeError:
        raise HubProtocolError("The first message is no handshake.") from None
    if type(asked) is not dict or type(asked.get("protocol")) is not str:
        raise HubProtocolError("The first message is no handshake.")
    protocol = PROTOCOLS.get(asked["protocol"])
    if protocol is None:
        raise HubProtocolError(f"The protocol is one of: {', '.join(PROTOCOLS)}.")
    if asked.get("version") not in (1, 2):
        raise HubProtocolError("The version is 1.")
    return protocol


def handshake_refused(sentence: str) -> bytes:
    return orjson.dumps({"error": sentence}) + SEPARATOR


# -- JSON --------------------------------------------------------------------------------------------


def encode_json(message: Message) -> bytes:
    """Dialect: one record of the JSON hub protocol."""
    kind = message["t"]
    if kind is Type.HANDSHAKE:
        return b"{}" + SEPARATOR
    if isinstance(kind, Type):
        own = {"type": kind, **message}
        del own["t"]
        return orjson.dumps(own) + SEPARATOR
    return b'{"type":1,"target":%b,"arguments":[%b]}\x1e' % (orjson.dumps(kind), orjson.dumps(message))


def split_json(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole records, and the begin of the next one."""
    *records, rest = data.split(SEPARATOR)
    return records, rest


def read_json(record: bytes) -> HubMessage:
    """One record. Unknown members are passed over. Raises HubProtocolError."""
    try:
        data = orjson.loads(record)
    except orjson.JSONDecodeError:
        raise HubProtocolError("This is not JSON.") from None
    if type(data) is not dict or type(data.get("type")) is not int:
        raise HubProtocolError("A hub message is an object with a type.")
    kind = data["type"]
    if kind not in _CALLS:
        return HubMessage(kind)
    return _call(kind, data.get("invocationId"), data.get("target"), data.get("arguments"))


# -- MessagePack -------------------------------------------------------------------------------------


def encode_msgpack(message: Message) -> bytes:
    """Dialect: one record of the MessagePack hub protocol, its length in front."""
    kind = message["t"]
    if kind is Type.HANDSHAKE:
        return encode_json(message)
    body: list[object]
    if kind is Type.COMPLETION:
        body = [kind, {}, message["invocationId"], *_outcome(message)]
    elif kind is Type.CLOSE:
        body = [kind, message.get("error"), message.get("allowReconnect", False)]
    elif isinstance(kind, Type):
        body = [kind]
    else:
        body = [Type.INVOCATION, {}, None, kind, [message], []]
    data = msgspec.msgpack.encode(body)
    return _length(len(data)) + data


def _outcome(completion: Message) -> tuple[object, ...]:
    if "error" in completion:
        return 1, completion["error"]
    return (3, completion["result"]) if "result" in completion else (2,)


def split_msgpack(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole records, and the begin of the next one. Raises HubProtocolError."""
    records: list[bytes] = []
    at = 0
    while True:
        length, start = 0, at
        while True:
            if start == len(data):
                return records, data[at:]
            if start - at == LENGTH_BYTES_MAX:
                raise HubProtocolError("The length of a message is too long.")
            byte = data[start]
            length |= (byte & 0x7F) << 7 * (start - at)
            start += 1
            if byte < 0x80:
                break
        if start + length > len(data):
            return records, data[at:]
        records.append(data[start : start + length])
        at = start + length


def read_msgpack(record: bytes) -> HubMessage:
    """One record. Raises HubProtocolError."""
    try:
        data = msgspec.msgpack.decode(record, type=list)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise HubProtocolError("This is not MessagePack.") from None
    if not data or type(data[0]) is not int:
        raise HubProtocolError("A hub message is a list with a type.")
    kind = data[0]
    if kind not in _CALLS:
        return HubMessage(kind)
    if len(data) < 5:
        raise HubProtocolError("A call has five members.")
    try:
        # Arguments are JSON's, as everywhere: no bytes, no extensions, names are text.
        arguments = orjson.loads(orjson.dumps(data[4]))
    except (orjson.JSONEncodeError, RecursionError):
        raise HubProtocolError("Arguments are what JSON can say.") from None
    return _call(kind, data[2], data[3], arguments)


def _length(size: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    head = bytearray()
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)


_CALLS = (Type.INVOCATION, Type.STREAM_INVOCATION)


def _call(kind: int, invocation: object, target: object, arguments: object) -> HubMessage:
    if type(target) is not str or type(arguments) is not list:
        raise HubProtocolError("A call has a target and arguments.")
    if invocation is not None and type(invocation) is not str:
        raise HubProtocolError("invocationId is text.")
    if kind == Type.STREAM_INVOCATION and invocation is None:
        raise HubProtocolError("A stream has an invocationId.")
    return HubMessage(kind, target, arguments, invocation)


JSON = HubProtocol("json", binary=False, encode=encode_json, split=split_json, read=read_json)
MESSAGEPACK = HubProtocol(
    "messagepack", binary=True, encode=encode_msgpack, split=split_msgpack, read=read_msgpack
)
PROTOCOLS: Mapping[str, HubProtocol] = {each.name: each for each in (JSON, MESSAGEPACK)}


# -- negotiation -------------------------------------------------------------------------------------


def version_of(query: str) -> int:
    """The version of negotiation that a client asks for, as far as it is known here: 0 or 1."""
    asked = dict(parse_qsl(query)).get("negotiateVersion", "0")
    return 1 if asked.isdecimal() and int(asked[:4]) > 0 else 0


NO_TOKEN = "anonymous"
"""The access token of a redirect for a client that has shown none."""


def redirect(url: str, access_token: str | None) -> dict[str, Any]:
    """The answer to a negotiation that is to go on elsewhere. Some clients take none without a token."""
    return {"url": url, "accessToken": access_token or NO_TOKEN}


def negotiated(
    version: int, connection_id: str, connection_token: str, transports: Sequence[str]
) -> dict[str, Any]:
    """The answer to a negotiation of version 0 or 1. With version 0 the id is what the client connects by."""
    available = [{"transport": each, "transferFormats": list(TRANSFER_FORMATS[each])} for each in transports]
    if version == 0:
        return {
            "negotiateVersion": 0,
            "connectionId": connection_token,
            "availableTransports": available,
        }
    return {
        "negotiateVersion": 1,
        "connectionId": connection_id,
        "connectionToken": connection_token,
        "availableTransports": available,
    }


TRANSFER_FORMATS: Mapping[str, Sequence[str]] = {
    "WebSockets": ("Text", "Binary"),
    "ServerSentEvents": ("Text",),
    "LongPolling": ("Text", "Binary"),
}
