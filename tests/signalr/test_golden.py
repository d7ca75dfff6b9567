"""Recorded messages of every type: the hub reads and writes them as Microsoft's library does."""

from __future__ import annotations

from copy import deepcopy

import pytest

from server.wire.hub import PROTOCOLS, HubMessage, Type, read_handshake
from tests.signalr.golden import CONVERSATIONS, Entry, by_library, recorded, said

FILES = recorded()
ENTRIES = [(name, entry) for name, entries in FILES.items() for entry in entries]


def data_of(entry: Entry, protocol: str) -> bytes:
    words = str(entry[protocol])
    return words.encode() if protocol == "json" or "type" not in entry["message"] else bytes.fromhex(words)


def test_there_is_a_file_for_every_type() -> None:
    assert FILES.keys() == CONVERSATIONS.keys() == {each.name.lower() for each in Type}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("name", "entry"), [each for each in ENTRIES if each[1]["from"] == "client"])
def test_what_the_library_writes_is_read(name: str, entry: Entry, protocol: str) -> None:
    message, data = entry["message"], data_of(entry, protocol)
    if name == "handshake":
        assert read_handshake(data[:-1]) is PROTOCOLS[protocol]
        return
    records, rest = PROTOCOLS[protocol].split(data + data[:1])
    assert (len(records), rest) == (1, data[:1])
    read = PROTOCOLS[protocol].read(records[0])
    if message["type"] in (Type.INVOCATION, Type.STREAM_INVOCATION):
        call = (message["target"], message["arguments"], message.get("invocationId"))
        assert read == HubMessage(message["type"], *call)
    else:
        assert read == HubMessage(message["type"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("name", "entry"), [each for each in ENTRIES if each[1]["from"] == "server"])
def test_what_the_hub_writes_is_what_was_recorded(name: str, entry: Entry, protocol: str) -> None:
    assert said(entry["message"], protocol) == entry[protocol]


def test_the_library_writes_and_reads_what_was_recorded() -> None:
    for name, entries in by_library(deepcopy(FILES)).items():
        for entry, before in zip(entries, FILES[name], strict=True):
            for protocol in PROTOCOLS:
                assert entry[protocol] == before[protocol]
                if entry["from"] == "server":
                    assert entry[f"{protocol}_read"] == entry["message"]
