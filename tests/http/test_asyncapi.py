"""The document that describes the WebSocket is valid, and agrees with what the node takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from engine.actors.close_reasons import CloseReason
from server.wire import asyncapi
from server.wire.asyncapi import SAID, document, name_of
from server.wire.protocol import HOST_COMMANDS, ProtocolError, parse
from tests.http.edge import edge
from tests.messages import PLAY_URL, WS_URL, check_said
from tests.npm import npm

SPECIFICATION = "@asyncapi/specs@6.11.1"

DOCUMENT = document(WS_URL, PLAY_URL)
ALONE = document("", PLAY_URL)
"""Of a node that takes no WebSockets."""

SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


def test_the_document_is_valid(tmp_path: Path) -> None:
    """By the schema of AsyncAPI 3.0 itself."""
    (tmp_path / "package.json").write_text('{"private": true}')
    npm("install", SPECIFICATION, cwd=tmp_path)
    schema = tmp_path / "node_modules" / "@asyncapi" / "specs" / "schemas" / f"{DOCUMENT['asyncapi']}.json"
    validator = Draft7Validator(json.loads(schema.read_text()))
    for made in (DOCUMENT, document("wss://quiz.example/node-1/ws", "https://quiz.example/x"), ALONE):
        assert [error.message for error in validator.iter_errors(made)] == []
    assert list(validator.iter_errors({**DOCUMENT, "operation": {}}))


def test_it_leads_to_where_the_websocket_is_and_to_the_event_stream() -> None:
    made = document("wss://quiz.example/node-1/ws", "https://quiz.example/x")
    assert made["servers"] == {
        "node": {"host": "quiz.example", "protocol": "wss", "pathname": "/node-1"},
        "http": {"host": "quiz.example", "protocol": "https", "pathname": "/x"},
    }
    session, events = made["channels"]["session"], made["channels"]["events"]
    assert (session["address"], session["servers"]) == ("/ws", [{"$ref": "#/servers/node"}])
    assert events["address"] == "/api/sessions/{key}/events"
    assert events["servers"] == [{"$ref": "#/servers/http"}]
    assert set(ALONE["servers"]) == {"http"}


async def test_it_is_made_at_the_start_and_not_for_its_first_reader() -> None:
    asyncapi._everywhere.cache_clear()
    async with edge() as e:
        assert asyncapi._everywhere.cache_info().misses == 1
        await e.get("/asyncapi.json")
        assert asyncapi._everywhere.cache_info().misses == 1


async def test_it_is_served() -> None:
    async with edge() as e:
        served = (await e.get("/asyncapi.json")).json
    assert served["servers"]["node"]["protocol"] == "ws"
    assert served["servers"]["http"]["protocol"] == "http"
    assert served["components"] == json.loads(json.dumps(DOCUMENT["components"]))


def references(part: object) -> Iterator[str]:
    yield from re.findall(r"'\$ref': '([^']+)'", str(part))


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    used = set(references(DOCUMENT))
    for reference in used:
        found = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    components = DOCUMENT["components"]
    defined = {f"#/components/{kind}/{name}" for kind in ("schemas", "messages") for name in components[kind]}
    assert defined <= used


def test_every_message_is_in_an_operation() -> None:
    told = {
        reference.rpartition("/")[2]
        for reference in references(DOCUMENT["operations"])
        if "/messages/" in reference
    }
    assert told == set(DOCUMENT["components"]["messages"])


def test_an_event_stream_says_what_no_websocket_does_and_leaves_out_the_replies() -> None:
    channels = {name: set(channel["messages"]) for name, channel in DOCUMENT["channels"].items()}
    assert channels["events"] - channels["session"] == {"alive", "close"}
    replies = {name_of(body) for said in SAID.values() for body in said.replies}
    assert channels["session"] - channels["events"] == (replies | set(SAID)) - {"joined", "question"}


def test_every_message_has_examples_in_each_of_its_forms() -> None:
    for name, message in DOCUMENT["components"]["messages"].items():
        validator = Draft7Validator({"components": DOCUMENT["components"], **message["payload"]})
        payloads = [example["payload"] for example in message["examples"]]
        for payload in payloads:
            assert payload["t"] == name
            assert [error.message for error in validator.iter_errors(payload)] == []
            if name in SAID:
                parse(json.dumps(payload))
        for form in message["payload"].get("oneOf", [message["payload"]]):
            one = Draft7Validator({"components": DOCUMENT["components"], **form})
            assert any(one.is_valid(payload) for payload in payloads), form


def test_every_member_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    words = set(re.findall(r"\w+", page))
    members = {name for schema in SCHEMAS.values() for name in schema.get("properties", {})}
    assert members <= words


def test_it_has_every_way_a_connection_ends() -> None:
    told = DOCUMENT["channels"]["session"]["x-close-codes"]
    assert {(each["code"], each["reason"]) for each in told} == {
        (each.code, each.reason) for each in CloseReason
    }


# -- what clients say ------------------------------------------------------------------------------


FORMS = [form for said in SAID.values() for form in said.forms]
EXAMPLES = {
    "attempt": 2,
    "code": "123456",
    "name": "Ada",
    "ticket": "12345678",
    "former": "T",
    "token": "T",
    "identity": "J",
    "role": "spectator",
    "epoch": 3,
    "offset": 0,
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "id": "a",
    "question": 1,
    "choice": [0, 2],
    "expect": {"number": 0, "phase": "lobby"},
    "on": True,
    "player": 7,
    "factor": 1.5,
    "closes_at": 9,
    "at": 1.5,
}


def examples(name: str) -> Iterator[dict[str, Any]]:
    """With all members, for each word that there is for one, and with those alone that have to be there."""
    schema = SCHEMAS[name]
    words = schema["properties"].get("do", {}).get("enum", [None])
    for word in words:
        fixed = {"t": schema["properties"]["t"]["enum"][0], **({} if word is None else {"do": word})}
        whole = {member: fixed.get(member, EXAMPLES.get(member)) for member in schema["properties"]}
        yield whole
        yield {member: whole[member] for member in schema["required"]}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_what_a_client_may_say_is_what_the_node_reads(form: type) -> None:
    required = set(SCHEMAS[form.__name__]["required"])
    for message in examples(form.__name__):
        parse(json.dumps(message))
        check_said(message)
        for wrong in [
            {**message, "unknown": 1},
            *({name: value for name, value in message.items() if name != gone} for gone in required),
        ]:
            if wrong in HALVES:
                continue
            with pytest.raises(ProtocolError):
                parse(json.dumps(wrong))
            with pytest.raises((ValueError, AssertionError, KeyError)):
                check_said(wrong)


HALVES = [
    {name: EXAMPLES[name] if name != "t" else "join" for name in names}
    for names in (
        ("t", "code"),
        ("t", "code", "epoch", "offset"),
    )
]
"""What is a message too: of a new player in a session with given names."""


def test_it_has_all_that_a_client_may_say() -> None:
    with pytest.raises(ProtocolError) as refused:
        parse('{"t": "?"}')
    assert refused.value.message.endswith(f"known: {', '.join(SAID)}.")
    told = [
        word for form in FORMS for word in SCHEMAS[form.__name__]["properties"].get("do", {}).get("enum", [])
    ]
    assert sorted(told) == sorted(HOST_COMMANDS)
