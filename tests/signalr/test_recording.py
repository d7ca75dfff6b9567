"""What Microsoft's library and a node say to each other is what they said when it was recorded."""

from __future__ import annotations

import json

import msgspec
import pytest

from server.realtime import hub as hub_of_node
from server.wire.hub import PROTOCOLS, HubMessage, Type
from tests.signalr.recording import Entry, had, recorded

NEVER_SAID = {"ack", "sequence"}
"""The library says these only to a node that has offered a stateful reconnect; `golden` has them."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_conversation_is_had_as_it_was_recorded(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_of_node, "PING_INTERVAL_S", 0.3)
    found, before = await had(protocol), recorded(protocol)
    assert found.keys() == before.keys() == {each.name.lower() for each in Type} - NEVER_SAID
    for name, entries in found.items():
        assert json.dumps(entries) == json.dumps(before[name]), name  # the order of members counts


def test_both_protocols_say_the_same_in_the_same_order() -> None:
    one, other = recorded("json"), recorded("messagepack")
    for name in one:
        assert [each["from"] for each in one[name]] == [each["from"] for each in other[name]], name


CLIENT = [
    (protocol, name, entry)
    for protocol in PROTOCOLS
    for name, entries in recorded(protocol).items()
    for entry in entries
    if entry["from"] == "client" and name != "handshake"
]


@pytest.mark.parametrize(("protocol", "name", "entry"), CLIENT)
def test_what_the_library_said_is_read(protocol: str, name: str, entry: Entry) -> None:
    message = entry["message"]
    is_json = protocol == "json"
    data = json.dumps(message).encode() if is_json else msgspec.msgpack.encode(message)
    read = PROTOCOLS[protocol].read(data)
    assert read.type == Type[name.upper()]
    if name in ("invocation", "stream_invocation"):
        said = (
            (message["target"], message["arguments"], message.get("invocationId"))
            if is_json
            else (message[3], message[4], message[2])
        )
        assert read == HubMessage(read.type, *said)
