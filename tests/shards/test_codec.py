"""What is said on a link means the same on its other side, and nonsense is refused."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.actors import commands
from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame
from engine.shards.clock_offset import arrived, departing
from engine.shards.link import codec
from engine.trace import Trace


class Nobody:
    def push(self, frame: Frame) -> None: ...

    def close(self, close_reason: CloseReason) -> None: ...


HERE, THERE = Nobody(), Nobody()

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
WHOLE = st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ROLES = st.sampled_from(["player", "host", "spectator"])
OF_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "Sequence[SeatKey] | None": st.none() | st.lists(WHOLE | st.just("host"), max_size=5),
    "object": JSON,
    "int": WHOLE,
    "SeatKey": WHOLE | st.just("host"),
    "int | None": st.none() | WHOLE,
    "str": TEXT,
    "str | None": st.none() | TEXT,
    "bool": st.booleans(),
    "bool | None": st.none() | st.booleans(),
    "Role": ROLES,
    "Trace | None": st.none()
    | st.builds(
        Trace,
        trace_id=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
        parent_id=st.none() | st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
        sampled=st.booleans(),
    ),
    "UserId | None": st.none() | st.text(min_size=1, max_size=128),
    "Identity | None": st.none()
    | st.builds(
        commands.Identity,
        user_id=st.text(min_size=1, max_size=128),
        name=st.none() | TEXT,
        locale=st.none() | TEXT,
        extra_time=st.sampled_from((None, "untimed", 1.0, 1.5, 4.0)),
    ),
}
TRAVEL: tuple[type[commands.Command], ...] = (
    commands.Join,
    commands.Rejoin,
    commands.Watch,
    commands.Look,
    commands.SubscribeNode,
    commands.ListPlayers,
    commands.Flushed,
    commands.Left,
    commands.Answer,
    commands.Next,
    commands.Host,
    commands.TakeOver,
    commands.Detach,
    commands.Erase,
)


def made(kind: type[commands.Command]) -> st.SearchStrategy[Any]:
    """Any command of a kind: its fields as they are declared."""
    return st.builds(
        kind,
        reply=st.just(HERE),
        **{each.name: OF_TYPE[str(each.type)] for each in fields(kind) if each.name != "reply"},
    )


ANY = st.one_of([made(kind) for kind in TRAVEL])


def there(command: commands.Command) -> commands.Command:
    """What arrives."""
    kind, number, session_id, data = orjson.loads(codec.command_entry(7, "a session", command))
    assert (kind, number, session_id) == (codec.COMMAND, 7, "a session")
    return codec.command_from_json(data, THERE)


@given(ANY)
def test_a_command_is_the_same_on_the_other_side_but_for_its_reply(command: Any) -> None:
    expected = replace(command, reply=THERE)
    if hasattr(command, "may_move"):
        expected = replace(expected, may_move=False)
    assert there(command) == expected


@given(JSON)
def test_nonsense_is_refused(data: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any sentence
        codec.command_from_json(data, THERE)


@given(ANY, st.data())
def test_a_command_with_one_member_wrong_is_refused(command: Any, data: st.DataObject) -> None:
    given = codec.command_to_json(command)
    names = [
        each.name
        for each in fields(command)
        if each.name not in ("reply", "may_move") and each.type != "object"
    ]
    if names:
        given[data.draw(st.sampled_from(names))] = data.draw(
            st.floats(0, 1) | st.lists(st.none(), min_size=1)
        )
        with pytest.raises(ValueError, match="is not"):
            codec.command_from_json(given, THERE)


RELEASED: list[tuple[commands.Command, bytes]] = [
    (
        commands.Join(HERE, "Ann", -3, may_move=True, relay="r", address="a", ticket="t"),
        b'{"t":"join","name":"Ann","at":-3,"attach":true,"relay":"r","address":"a","ticket":"t"}',
    ),
    (
        commands.Join(HERE, None, 0, identity=commands.Identity("u", extra_time=1.5), epoch=2, offset=7),
        b'{"t":"join","at":0,"attach":true,"identity":{"user_id":"u","name":null,"locale":null,"extra_time":1.5},'
        b'"epoch":2,"offset":7}',
    ),
    (commands.Join(HERE, None, 0, attach=False), b'{"t":"join","at":0,"attach":false}'),
    (
        commands.Rejoin(HERE, "host", None, "123456", 2, 7, relay="r", generation=1),
        b'{"t":"rejoin","role":"host","code":"123456","epoch":2,"offset":7,"relay":"r","generation":1}',
    ),
    (commands.Watch(HERE, 2, 7), b'{"t":"watch","epoch":2,"offset":7}'),
    (commands.Look(HERE, top=10), b'{"t":"look","role":"spectator","top":10}'),
    (commands.ListPlayers(HERE, 0, 50), b'{"t":"listplayers","after":0,"limit":50,"removed":false}'),
    (
        commands.SubscribeNode(HERE, "n", 2, 7, [3, "host"]),
        b'{"t":"subscribenode","node":"n","epoch":2,"offset":7,"seats":[3,"host"]}',
    ),
    (commands.Flushed(HERE, "n", 4), b'{"t":"flushed","node":"n","number":4}'),
    (commands.Left(HERE, "n", "host"), b'{"t":"left","node":"n","key":"host"}'),
    (
        commands.Answer(HERE, 3, "a1", 2, [0, 1], -12, "123456"),
        b'{"t":"answer","player":3,"id":"a1","question":2,"choice":[0,1],"at":-12,"code":"123456"}',
    ),
    (
        commands.Next(HERE, 3, "n1", "123456"),
        b'{"t":"next","player":3,"id":"n1","code":"123456"}',
    ),
    (
        commands.Host(HERE, None, "lock", on=True, seen_number=2, seen_phase="question", generation=1),
        b'{"t":"host","do":"lock","on":true,"seen_number":2,"seen_phase":"question","generation":1}',
    ),
    (commands.TakeOver(HERE), b'{"t":"takeover"}'),
    (commands.Detach(HERE), b'{"t":"detach"}'),
    (commands.Erase(HERE, 5), b'{"t":"erase","player":5}'),
]
"""Commands as releases have sent them, which nodes of two releases must agree on."""


@pytest.mark.parametrize(("command", "released"), RELEASED, ids=lambda each: type(each).__name__)
def test_a_command_has_the_bytes_that_releases_have_sent(command: Any, released: bytes) -> None:
    entry = b'["c",7,"a session",%b]' % released
    assert codec.command_entry(7, "a session", command) == entry
    assert there(command) == replace(
        command, reply=THERE, **({"may_move": False} if hasattr(command, "may_move") else {})
    )


def test_the_moment_of_an_answer_alone_changes_on_the_way() -> None:
    """Members that are added to it travel too."""
    trace = Trace("0" * 32, None, True)
    answer = commands.Answer(HERE, 3, "a1", 2, [0], 1_000, "123456", 5, trace, "ada", "r1", 2)
    assert all(getattr(answer, each.name) != each.default for each in fields(answer))
    assert departing(answer, THERE, 1_012) == replace(answer, reply=THERE, at=-12)
    assert arrived(departing(answer, THERE, 1_012), 7_000) == replace(answer, reply=THERE, at=6_988)


def test_every_command_but_a_merge_travels() -> None:
    assert {type(command) for command, _ in RELEASED} == set(TRAVEL)
    assert {*TRAVEL, commands.Merge} == set(get_args(commands.Command))


@pytest.mark.parametrize("key", ["guest", "host ", "host\n", "", None, True, 1.5])
def test_a_seat_is_a_player_or_the_host(key: object) -> None:
    for data in (
        {"t": "left", "node": "n", "key": key},
        {"t": "subscribenode", "node": "n", "seats": [1, key]},
    ):
        with pytest.raises(ValueError, match="is not a"):
            codec.command_from_json(data, THERE)


def test_members_that_are_not_known_are_passed_over() -> None:
    assert codec.command_from_json(
        {"t": "subscribenode", "node": "n", "shade": "blue"}, THERE
    ) == commands.SubscribeNode(THERE, "n")


def test_what_is_missing_and_has_no_default_is_refused() -> None:
    for kind in TRAVEL:
        word = kind.__name__.lower()
        if kind in (commands.Watch, commands.Look, commands.TakeOver, commands.Detach, commands.Erase):
            assert codec.command_from_json({"t": word}, THERE) == kind(THERE)  # type: ignore[call-arg]  # these need no more
        else:
            with pytest.raises(ValueError, match="missing required field"):
                codec.command_from_json({"t": word}, THERE)


def test_a_merge_does_not_travel() -> None:
    with pytest.raises(ValueError, match="stays"):
        codec.command_entry(1, "s", commands.Merge(HERE, []))


@pytest.mark.parametrize("choice", [2**64, {1: 2}, object(), "\ud800", "x" * codec.ENTRY_BYTES_MAX])
def test_what_a_link_cannot_hold_is_refused_before_it_is_sent(choice: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any sentence
        codec.command_entry(1, "s", commands.Answer(HERE, 1, None, 1, choice, 0))


def test_only_a_relay_keeps_listening() -> None:
    listening = {kind for kind in TRAVEL if codec.keeps_listening(_least(kind))}
    assert listening == {commands.SubscribeNode}


def _least(kind: type[commands.Command]) -> commands.Command:
    needed = {"name": "n", "at": 0, "role": "host", "node": "n", "player": 1, "id": "i", "question": 1}
    needed |= {"choice": 0, "do": "next", "number": 1, "after": 0, "limit": 1, "key": 1}
    return kind(HERE, **{each.name: needed[each.name] for each in fields(kind) if each.name in needed})


@given(st.dictionaries(TEXT, JSON, max_size=4), TEXT)
def test_a_frame_arrives_with_its_message(rest: dict[str, object], kind: str) -> None:
    message = {**rest, "t": kind}
    entry = orjson.loads(codec.frame_entry(3, Frame(message)))
    assert entry[:2] == [codec.FRAME, 3]
    assert codec.frame_from_json(entry[2]).message == message


def test_a_broadcast_is_encoded_once_for_all_links(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []

    def encode(message: Any) -> bytes:
        encoded.append(message)
        return orjson.dumps(message)

    monkeypatch.setattr(codec, "encode", encode)
    frame = Frame({"t": "question", "number": 1})
    entries = {codec.frame_entry(number, frame) for number in range(7)}
    assert (len(entries), len(encoded)) == (7, 1)


def test_a_frame_that_is_not_json_or_too_large_is_refused() -> None:
    for value in (object(), "x" * codec.ENTRY_BYTES_MAX):
        with pytest.raises(ValueError):  # noqa: PT011 - any sentence
            codec.frame_entry(1, Frame({"t": "state", "value": value}))


@pytest.mark.parametrize("close_reason", CloseReason)
def test_an_ending_is_the_same_on_the_other_side(close_reason: CloseReason) -> None:
    assert codec.close_reason_from_json(orjson.loads(codec.end_entry(1, close_reason))[2]) is close_reason


def test_an_ending_of_a_newer_node_lets_the_client_come_back() -> None:
    assert codec.close_reason_from_json(4099) is CloseReason.FAILED


@pytest.mark.parametrize(
    ("read", "data"),
    [
        (codec.frame_from_json, []),
        (codec.frame_from_json, {"no": "type"}),
        (codec.close_reason_from_json, "left"),
        (codec.answer_from_json, None),
    ],
)
def test_what_is_no_frame_ending_or_answer_is_refused(read: Any, data: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any sentence
        read(data)
