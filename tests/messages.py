"""Every message is held against `asyncapi.json`: what clients hear in tests, and what they say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import orjson
from jsonschema_rs import Draft7Validator

from server.wire.asyncapi import HEARD, SAID, STREAMED, document, name_of

WS_URL = "ws://127.0.0.1:5002/ws"
PLAY_URL = "http://127.0.0.1:5002"


@cache
def schema(*names: str) -> dict[str, Any]:
    """Of any message with one of these names, with all that it refers to."""
    made = document(WS_URL, PLAY_URL)
    messages = made["components"]["messages"]
    return {"oneOf": [messages[name]["payload"] for name in names], "components": made["components"]}


@cache
def _validator(names: tuple[str, ...]) -> Draft7Validator:
    return Draft7Validator(schema(*names))


SAID_NAMES = frozenset(SAID)
HEARD_NAMES = frozenset(map(name_of, HEARD))
STREAMED_NAMES = frozenset(map(name_of, STREAMED))


def check_heard(message: Mapping[str, Any]) -> None:
    """Fails on a message that the document does not have, or has with other members."""
    _check(message, HEARD_NAMES)


def check_streamed(message: Mapping[str, Any]) -> None:
    """The same of an event of a session's stream."""
    _check(message, STREAMED_NAMES)


def check_said(message: Mapping[str, Any]) -> None:
    _check(message, SAID_NAMES)


def _check(message: Mapping[str, Any], names: Iterable[str]) -> None:
    assert message["t"] in names, f"asyncapi.json has no message {message['t']}"
    _validator((message["t"],)).validate(orjson.loads(orjson.dumps(message)))
