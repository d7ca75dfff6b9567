"""What all connections of one realtime port share."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

from engine import websocket
from engine.actors.delivery.frame import Dialect, Frame, Message
from engine.actors.reads import STAMP, Reads
from server.config.config import Config
from server.realtime.conversation import ConversationDeps
from server.realtime.reactor.loop import Loop
from server.realtime.transport import Tally
from server.security.authentication import Guard
from server.security.limits import ArrivalRate, ConnectionCount, MessageRate
from server.wire.hub import encode_json, encode_msgpack
from server.wire.protocol import encode
from server.wire.sse import EventDialect

READ_BYTES = 4096
"""What one call takes: a full read of the smallest frames must not take long."""


STAMP_SPACE = socket.CMSG_SPACE(STAMP.size)


class Encoder:
    """Frames as the bytes of one dialect. The newest stays at hand: in a fan-out, thousands are pushed the
    same in a row, and a comparison of identities is all that they cost then."""

    __slots__ = ("__weakref__", "data", "dialect", "frame")

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.frame: Frame | None = None
        """The last frame that was encoded."""
        self.data = b""
        """Its bytes."""

    def encode(self, frame: Frame) -> bytes:
        """Whatever the dialect raises passes through."""
        data = frame.encoded(self.dialect)
        self.frame, self.data = frame, data
        return data


def text_frame(message: Message) -> bytes:
    """The dialect of a WebSocket: JSON with the head of its frame, ready for any number of sockets."""
    return websocket.encode_text_frame(encode(message))


def hub_text_frame(message: Message) -> bytes:
    """The dialect of a WebSocket of the hub that speaks JSON."""
    return websocket.encode_text_frame(encode_json(message))


def hub_binary_frame(message: Message) -> bytes:
    """The dialect of a WebSocket of the hub that speaks MessagePack."""
    return websocket.encode_frame(websocket.BINARY, encode_msgpack(message))


def hub_event(message: Message) -> bytes:
    """The dialect of an event stream of the hub."""
    return b"data: %b\n\n" % encode_json(message)


class HubChannel(Protocol):
    """A client of the hub that sends by requests."""

    def hear(self, data: bytes) -> None:
        """Take what the client has sent."""

    def stop(self) -> None:
        """The node is going down: tell the client, and end."""


def receive(client: socket.socket, reads: Reads) -> bytes | None:
    """Received bytes: None if there are none yet, empty once none will follow, whichever side ended it."""
    try:
        # As fast as `recv`, and the kernel says since when it has had them.
        data, reads.stamp, _, _ = client.recvmsg(READ_BYTES, STAMP_SPACE)
        reads.source = client
        return data
    except BlockingIOError:
        return None
    except OSError:
        return b""


@dataclass(slots=True)
class Port:
    """`rng` spreads the pings, so that the clients of one start do not answer in step. `count` is of all
    connections by address, from their acceptance until their socket is closed; `streams` of the event streams
    among them; `arrivals` says how fast new ones may come from an address. `connections_max`: how many
    there is room for."""

    deps: ConversationDeps
    config: Config
    tally: Tally
    rng: random.Random
    loop: Loop
    guard: Guard
    count: ConnectionCount
    streams: ConnectionCount
    arrivals: ArrivalRate
    rate: MessageRate
    connections_max: int
    text: Encoder = field(default_factory=partial(Encoder, text_frame))
    hub_text: Encoder = field(default_factory=partial(Encoder, hub_text_frame))
    hub_binary: Encoder = field(default_factory=partial(Encoder, hub_binary_frame))
    hub_events: Encoder = field(default_factory=partial(Encoder, hub_event))
    hub_channels: dict[str, HubChannel] = field(default_factory=dict)
    """Clients of the hub without a WebSocket, by their connection token."""
    _events: WeakValueDictionary[int, Encoder] = field(default_factory=WeakValueDictionary)

    def events(self, epoch: int) -> Encoder:
        """For the event streams of an epoch, who keep it."""
        encoder = self._events.get(epoch)
        if encoder is None:
            encoder = self._events[epoch] = Encoder(EventDialect(epoch))
        return encoder

    def release(self, client: socket.socket, address: str | None) -> None:
        """Close the socket of a connection, and give back its place in the count, if it had one. Nothing
        happens if it is closed already, and so counted off."""
        if client.fileno() < 0:
            return
        self.loop.remove(client.fileno())
        client.close()
        self.tally.connections -= 1
        if address is not None:
            self.count.leave(address)
