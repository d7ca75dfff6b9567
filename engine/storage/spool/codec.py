"""Facts as the spool keeps them: by kind and field, whatever the tables look like when they are replayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from operator import attrgetter
from typing import Any, get_args

import orjson

from engine.domain import facts as f
from engine.storage.journal.rows import choice_from_json, choice_to_json

_KINDS: dict[str, type[f.Fact]] = {kind.__name__: kind for kind in get_args(f.Fact)}
_VALUES = {
    kind: attrgetter(*(each.name for each in fields(kind) if each.name != "choice"))
    for kind in _KINDS.values()
}


_DEFAULTS = {
    kind: [each.default for each in fields(kind) if each.default is not MISSING] for kind in _KINDS.values()
}
"""Of the last fields of a kind. Fields at the end that have their defaults are left out, so an earlier
release, which does not know the youngest of them, can read the record."""


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """Some facts of one session, made under one epoch, in the order of `seq`."""

    session_id: str
    epoch: int
    facts: Sequence[f.Fact]


def encode(batch: Sequence[SessionFacts]) -> bytes:
    """Facts that `FactRows` takes, of any sessions."""
    return orjson.dumps([[each.session_id, each.epoch, encode_facts(each.facts)] for each in batch])


def decode(payload: bytes) -> list[SessionFacts]:
    """What `encode` was given."""
    return [
        SessionFacts(session_id, epoch, decode_facts(facts))
        for session_id, epoch, facts in orjson.loads(payload)
    ]


def encode_facts(facts: Sequence[f.Fact]) -> list[list[Any]]:
    """As JSON has it."""
    return [_encode(fact) for fact in facts]


def decode_facts(data: Sequence[Sequence[Any]]) -> list[f.Fact]:
    """What `encode_facts` was given. Raises KeyError for a kind that this release does not know."""
    return [_decode(kind, values) for kind, *values in data]


def _encode(fact: f.Fact) -> list[Any]:
    kind = type(fact)
    encoded: list[Any] = [kind.__name__, *_VALUES[kind](fact)]
    for default in reversed(_DEFAULTS[kind]):
        if encoded[-1] != default:
            break
        encoded.pop()
    if isinstance(fact, f.AnswerAccepted | f.AnswerMerged):
        encoded.append(choice_to_json(fact.choice))
    return encoded


def _decode(name: str, values: list[Any]) -> f.Fact:
    kind = _KINDS[name]
    names = [each.name for each in fields(kind) if each.name != "choice"]
    named = dict(zip(names, values, strict=False))
    if len(values) > len(names):
        named["choice"] = choice_from_json(values[-1])
    return kind(**named)
