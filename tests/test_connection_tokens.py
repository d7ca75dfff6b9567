"""The ids of hub connections."""

from __future__ import annotations

import pytest

from server.security import connection_tokens
from server.security.connection_tokens import LIFE_S, ConnectionTokens

START_MS = 1_790_000_000_000


class Clock:
    def __init__(self, ahead_s: int = 0) -> None:
        self.now = START_MS + 1000 * ahead_s

    def now_ms(self) -> int:
        return self.now

    def go(self, seconds: int) -> None:
        self.now += 1000 * seconds


def test_a_token_opens_one_connection_at_a_node() -> None:
    clock = Clock()
    here, there = ConnectionTokens(b"secret", clock.now_ms), ConnectionTokens(b"secret", clock.now_ms)
    token = here.issue().connection_token
    assert here.knows(token)
    assert there.knows(token)
    there.spend(token)
    assert not there.knows(token)
    assert there.knows(here.issue().connection_token)
    assert not ConnectionTokens(b"other", clock.now_ms).knows(token)
    assert not here.knows(token[:-1])
    assert not here.knows("x" + token)


def test_a_used_token_never_comes_back_whatever_the_clock_of_its_node_was() -> None:
    for ahead_s in (-LIFE_S, 0, LIFE_S):
        clock = Clock()
        token = ConnectionTokens(b"secret", Clock(ahead_s).now_ms).issue().connection_token
        here, other = ConnectionTokens(b"secret", clock.now_ms), ConnectionTokens(b"secret", clock.now_ms)
        assert here.knows(token)
        here.spend(token)
        for _ in range(3 * LIFE_S):
            clock.go(1)
            here.spend(here.issue().connection_token)
            assert not here.knows(token)
        assert not other.knows(token), "too old"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_tokens, "SPENT_MAX", 3)
    clock = Clock()
    tokens = ConnectionTokens(b"secret", clock.now_ms)
    used = [tokens.issue().connection_token for _ in range(5)]
    for token in used:
        tokens.spend(token)
    assert [tokens.knows(token) for token in used] == [True, True, False, False, False]
    clock.go(2 * LIFE_S + 1)
    tokens.spend(tokens.issue().connection_token)
    assert len(tokens._spent) == 1
