"""What clients say: every message read, every other frame refused with the right code, and nothing worse."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.wire.protocol import (
    EXPECTING,
    HOST_COMMANDS,
    Answer,
    Host,
    Join,
    Leave,
    Message,
    Next,
    Ping,
    ProtocolError,
    encode,
    parse,
)


def refused(raw: str | bytes | dict[str, Any]) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        parse(json.dumps(raw) if isinstance(raw, dict) else raw)
    assert str(caught.value).endswith(".")
    return caught.value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"t": "join", "code": "012345", "name": "Ada"}, Join("012345", name="Ada")),
        ({"t": "join", "code": "012345", "name": None}, Join("012345", name="")),
        ({"t": "join", "code": "012345"}, Join("012345", name=None)),
        ({"t": "join", "code": "012345", "token": "x.y"}, Join("012345", token="x.y")),
        (
            {"t": "join", "code": "012345", "token": "x.y", "epoch": 2, "offset": 0},
            Join("012345", token="x.y", epoch=2, offset=0),
        ),
        ({"t": "join", "code": "012345", "role": "spectator"}, Join("012345", watch=True)),
        (
            {"t": "join", "code": "012345", "role": "spectator", "epoch": 1, "offset": 9},
            Join("012345", watch=True, epoch=1, offset=9),
        ),
        ({"t": "answer", "id": "a", "question": 1, "choice": 0}, Answer("a", 1, 0)),
        ({"t": "answer", "id": "a" * 64, "question": 200, "choice": [0, 2]}, Answer("a" * 64, 200, [0, 2])),
        ({"t": "answer", "id": "a", "question": 1, "choice": None}, Answer("a", 1, None)),
        ({"t": "answer", "id": "a", "question": 1, "choice": {"x": [1]}}, Answer("a", 1, {"x": [1]})),
        *[
            ({"t": "host", "id": "h", "do": do}, Host("h", do))
            for do in HOST_COMMANDS
            if do not in ("kick", "readmit", "extra_time", "lock", "approval", "extend")
        ],
        *[
            (
                {"t": "host", "id": "h", "do": do, "expect": {"number": 0, "phase": "lobby"}},
                Host("h", do, seen_number=0, seen_phase="lobby"),
            )
            for do in EXPECTING
        ],
        ({"t": "host", "id": "h", "do": "extend", "closes_at": 9}, Host("h", "extend", closes_at=9)),
        ({"t": "next"}, Next()),
        ({"t": "next", "id": "n"}, Next("n")),
        ({"t": "next", "attempt": 2}, Next(attempt=2)),
        (
            {"t": "answer", "id": "a", "question": 1, "choice": 0, "attempt": 3},
            Answer("a", 1, 0, attempt=3),
        ),
        ({"t": "host", "id": "h", "do": "kick", "player": 7}, Host("h", "kick", player=7)),
        ({"t": "host", "id": "h", "do": "readmit", "player": 7}, Host("h", "readmit", player=7)),
        *[
            (
                {"t": "host", "id": "h", "do": "extra_time", "player": 7, "factor": factor},
                Host("h", "extra_time", player=7, percent=percent),
            )
            for factor, percent in ((1, 100), (1.5, 150), (4, 400), ("untimed", 0))
        ],
        ({"t": "host", "id": "h", "do": "lock", "on": False}, Host("h", "lock", on=False)),
        ({"t": "host", "id": "h", "do": "approval", "on": True}, Host("h", "approval", on=True)),
        ({"t": "host", "id": "h", "do": "admit", "player": 3}, Host("h", "admit", player=3)),
        ({"t": "host", "id": "h", "do": "refuse", "player": 3}, Host("h", "refuse", player=3)),
        (
            {"t": "join", "code": "012345", "name": "A", "ticket": "12345678"},
            Join("012345", "A", ticket="12345678"),
        ),
        ({"t": "join", "code": "012345", "name": "A", "former": "x.y"}, Join("012345", "A", former="x.y")),
        ({"t": "ping", "at": 17}, Ping(17)),
        ({"t": "ping", "at": -0.5}, Ping(-0.5)),
        ({"t": "leave"}, Leave()),
    ],
)
def test_every_message_is_read_from_text_and_from_bytes(data: dict[str, Any], message: Message) -> None:
    assert parse(json.dumps(data)) == message
    assert parse(json.dumps(data).encode()) == message


@pytest.mark.parametrize(
    "raw",
    [
        *("", "{", "nonsense", "NaN", "{'t':'leave'}", '{"t":"leave",}', '{"t":"leave"}x', "\x00"),
        *('{"t":"ping","at":Infinity}', '{"t":"ping","at":1e999}', '"\\ud800"', "\ud800", b"\xff\xfe"),
        *("[" * 100_000, '{"a":' * 100_000),
    ],
    ids=lambda raw: repr(raw[:12]),
)
def test_what_is_not_json_is_bad_json(raw: str | bytes) -> None:
    error = refused(raw)
    assert (error.code, error.path, error.id) == ("bad_json", None, None)


@pytest.mark.parametrize("raw", ["[]", "1", '"leave"', "null", "true", '[{"t":"leave"}]'])
def test_json_that_is_no_object_is_a_bad_message(raw: str) -> None:
    assert refused(raw).code == "bad_message"


@pytest.mark.parametrize(
    ("data", "code", "path"),
    [
        ({}, "missing_field", "t"),
        ({"type": "join"}, "missing_field", "t"),
        ({"t": None}, "bad_field", "t"),
        ({"t": ["join"]}, "bad_field", "t"),
        ({"t": "Join"}, "unknown_type", "t"),
        ({"t": "joined"}, "unknown_type", "t"),
        ({"t": ""}, "unknown_type", "t"),
        ({"t": "join"}, "missing_field", "code"),
        ({"t": "join", "name": "Ada"}, "missing_field", "code"),
        ({"t": "join", "code": "123456", "nmae": "Ada"}, "unknown_field", "nmae"),
        ({"t": "join", "code": "123456", "name": "Ada", "token": "x"}, "unknown_field", "name"),
        ({"t": "join", "code": "123456", "name": "Ada", "epoch": 1}, "unknown_field", "epoch"),
        ({"t": "join", "code": "123456", "name": "Ada", "role": "spectator"}, "unknown_field", "name"),
        ({"t": "join", "code": 123456, "name": "Ada"}, "bad_field", "code"),
        ({"t": "join", "code": "12345", "name": "Ada"}, "bad_field", "code"),
        ({"t": "join", "code": "١٢٣٤٥٦", "name": "Ada"}, "bad_field", "code"),
        ({"t": "join", "code": "12345x", "name": "Ada"}, "bad_field", "code"),
        ({"t": "join", "code": "123456", "role": "host"}, "bad_field", "role"),
        ({"t": "join", "code": "123456", "role": None}, "bad_field", "role"),
        ({"t": "join", "code": "123456", "token": ""}, "bad_field", "token"),
        ({"t": "join", "code": "123456", "token": "x" * 513}, "bad_field", "token"),
        ({"t": "join", "code": "123456", "token": None}, "bad_field", "token"),
        ({"t": "join", "code": "123456", "token": "x", "epoch": -1}, "bad_field", "epoch"),
        ({"t": "join", "code": "123456", "token": "x", "offset": 1.0}, "bad_field", "offset"),
        ({"t": "join", "code": "123456", "token": "x", "offset": None}, "bad_field", "offset"),
        ({"t": "join", "code": "123456", "role": "spectator", "epoch": True}, "bad_field", "epoch"),
        ({"t": "answer"}, "missing_field", "id"),
        ({"t": "answer", "id": "a", "question": 1}, "missing_field", "choice"),
        ({"t": "answer", "id": "a", "choice": 1}, "missing_field", "question"),
        ({"t": "answer", "question": 1, "choice": 1}, "missing_field", "id"),
        ({"t": "answer", "id": "a", "question": 1, "choice": 0, "at": 5}, "unknown_field", "at"),
        ({"t": "answer", "id": "a", "question": 1, "chioce": 0}, "unknown_field", "chioce"),
        ({"t": "answer", "di": "a", "question": 1, "choice": 0}, "unknown_field", "di"),
        ({"t": "answer", "id": "a", "qestion": 1, "choice": 0}, "unknown_field", "qestion"),
        ({"t": "answer", "id": "", "question": 1, "choice": 0}, "bad_field", "id"),
        ({"t": "answer", "id": "a" * 65, "question": 1, "choice": 0}, "bad_field", "id"),
        ({"t": "answer", "id": 5, "question": 1, "choice": 0}, "bad_field", "id"),
        ({"t": "answer", "id": "a", "question": 0, "choice": 0}, "bad_field", "question"),
        ({"t": "answer", "id": "a", "question": True, "choice": 0}, "bad_field", "question"),
        ({"t": "answer", "id": "a", "question": 1.0, "choice": 0}, "bad_field", "question"),
        ({"t": "answer", "id": "a", "question": 10**30, "choice": 0}, "bad_field", "question"),
        ({"t": "answer", "id": "a", "question": "1", "choice": 0}, "bad_field", "question"),
        ({"t": "host", "id": "h"}, "missing_field", "do"),
        ({"t": "host", "do": "start"}, "missing_field", "id"),
        ({"t": "host", "id": "h", "do": "stop"}, "bad_field", "do"),
        ({"t": "host", "id": "h", "do": ["start"]}, "bad_field", "do"),
        ({"t": "host", "id": "h", "do": "start", "player": 1}, "unknown_field", "player"),
        *[
            (
                {"t": "host", "id": "h", "do": "extra_time", "player": 1, "factor": factor},
                "bad_field",
                "factor",
            )
            for factor in (0, 0.99, 4.01, True, "2", None, [2])
        ],
        ({"t": "host", "id": "h", "do": "kick"}, "missing_field", "player"),
        ({"t": "host", "id": "h", "do": "kick", "player": "Ada"}, "bad_field", "player"),
        ({"t": "host", "id": "h", "do": "kick", "player": 1, "on": True}, "unknown_field", "on"),
        *[
            ({"t": "host", "id": "h", "do": "next", "expect": expect}, code, path)
            for expect, code, path in [
                (None, "bad_field", "expect"),
                ([1, "reveal"], "bad_field", "expect"),
                ({}, "bad_field", "expect.number"),
                ({"number": 1}, "bad_field", "expect.phase"),
                ({"number": -1, "phase": "reveal"}, "bad_field", "expect.number"),
                ({"number": True, "phase": "reveal"}, "bad_field", "expect.number"),
                ({"number": 1, "phase": "closed"}, "bad_field", "expect.phase"),
                ({"number": 1, "phase": ["reveal"]}, "bad_field", "expect.phase"),
                ({"number": 1, "phase": "reveal", "of": 3}, "unknown_field", "expect.of"),
            ]
        ],
        (
            {"t": "host", "id": "h", "do": "pause", "expect": {"number": 1, "phase": "reveal"}},
            "unknown_field",
            "expect",
        ),
        ({"t": "next", "attempt": 0}, "bad_field", "attempt"),
        ({"t": "next", "attempt": "2"}, "bad_field", "attempt"),
        ({"t": "answer", "id": "a", "question": 1, "choice": 0, "attempt": None}, "bad_field", "attempt"),
        ({"t": "host", "id": "h", "do": "lock"}, "missing_field", "on"),
        ({"t": "host", "id": "h", "do": "approval"}, "missing_field", "on"),
        ({"t": "host", "id": "h", "do": "admit", "player": 0}, "bad_field", "player"),
        ({"t": "join", "code": "012345", "name": "A", "ticket": "short"}, "bad_field", "ticket"),
        ({"t": "join", "code": "012345", "name": "A", "ticket": "x" * 65}, "bad_field", "ticket"),
        ({"t": "join", "code": "012345", "name": "A", "ticket": None}, "bad_field", "ticket"),
        ({"t": "join", "code": "012345", "name": "A", "former": None}, "bad_field", "former"),
        ({"t": "join", "code": "012345", "name": "A", "former": ""}, "bad_field", "former"),
        ({"t": "join", "code": "012345", "name": "A", "former": "x" * 513}, "bad_field", "former"),
        ({"t": "join", "code": "012345", "token": "x.y", "former": "x.y"}, "unknown_field", "former"),
        ({"t": "host", "id": "h", "do": "lock", "on": 1}, "bad_field", "on"),
        ({"t": "ping"}, "missing_field", "at"),
        ({"t": "ping", "at": "now"}, "bad_field", "at"),
        ({"t": "ping", "at": True}, "bad_field", "at"),
        ({"t": "ping", "at": 1, "id": "x"}, "unknown_field", "id"),
        ({"t": "leave", "why": "bored"}, "unknown_field", "why"),
    ],
)
def test_a_wrong_member_is_named(data: dict[str, Any], code: str, path: str) -> None:
    error = refused(data)
    assert (error.code, error.path) == (code, path)


def test_an_unknown_member_is_told_which_are_known() -> None:
    error = refused({"t": "answer", "id": "a-1", "question": 1, "chioce": 0})
    assert (
        error.message
        == "chioce is not a member of this message; known: id, question, choice, attempt, traceparent."
    )
    assert refused({"t": "leave", "x": 1}).message.endswith("known: none.")


def test_an_unknown_type_is_told_which_are_known() -> None:
    assert refused({"t": "jion"}).message == (
        "jion is not a type of message; known: join, answer, next, host, ping, leave."
    )


def test_the_error_carries_the_id_when_it_can_be_read() -> None:
    assert refused({"t": "answer", "id": "a-1", "question": 0, "choice": 0}).id == "a-1"
    assert refused({"t": "nonsense", "id": "n-1"}).id == "n-1"
    assert refused({"t": "answer", "id": ["a-1"], "question": 1, "choice": 0}).id is None
    assert refused({"t": "answer", "id": "a" * 65, "question": 1, "choice": 0}).id is None


def test_a_client_s_own_words_are_repeated_in_part_only() -> None:
    error = refused({"t": "leave", "x" * 4000: 1})
    assert error.path == "x" * 64
    assert len(error.message) < 200
    assert len(refused({"t": "x" * 4000}).message) < 200


def test_of_members_given_twice_the_last_counts() -> None:
    assert parse('{"t":"leave","t":"ping","at":1,"at":2}') == Ping(2)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
members = st.sampled_from(
    [
        "t",
        "id",
        "code",
        "name",
        "token",
        "role",
        "epoch",
        "offset",
        "question",
        "choice",
        "do",
        "on",
        "player",
        "at",
    ]
)
near_messages = st.fixed_dictionaries(
    {"t": st.sampled_from(["join", "answer", "host", "ping", "leave"]) | values},
    optional={
        "id": st.just("a") | values,
        "code": st.just("123456") | values,
        "do": st.sampled_from(HOST_COMMANDS) | values,
        "role": st.just("spectator") | values,
        "question": st.integers(0, 3) | values,
        "choice": values,
        "at": values,
        "name": values,
        "token": values,
        "player": values,
        "on": values,
        "expect": st.fixed_dictionaries({"number": st.integers(0, 3), "phase": values}) | values,
    },
)


def parses_or_refuses(raw: str | bytes) -> None:
    try:
        message = parse(raw)
    except ProtocolError as error:
        encode(
            {"t": "error", "code": error.code, "message": error.message, "path": error.path, "id": error.id}
        )
    else:
        assert isinstance(message, Message)


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_being_refused(raw: bytes) -> None:
    parses_or_refuses(raw)


@given(st.text(st.characters(), max_size=200))
def test_no_text_does_worse_than_being_refused(raw: str) -> None:
    parses_or_refuses(raw)


@settings(max_examples=300)
@given(near_messages | st.dictionaries(members | st.text(max_size=6), values, max_size=6))
def test_no_object_does_worse_than_being_refused(data: dict[str, Any]) -> None:
    parses_or_refuses(json.dumps(data))


@settings(max_examples=500)
@given(st.data())
def test_no_damaged_message_does_worse_than_being_refused(data: st.DataObject) -> None:
    raw = bytearray(b'{"t":"answer","id":"a-17","question":3,"choice":[0,2]}')
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    parses_or_refuses(bytes(raw))


def test_what_is_encoded_is_json_in_utf_8() -> None:
    message = {"t": "error", "code": "name_taken", "message": "„Zoë“ 🎺"}
    assert orjson.loads(encode(message)) == message
    assert "🎺".encode() in encode(message)
