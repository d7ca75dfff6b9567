"""Tokens and the key that signs them."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import URLSafeTimedSerializer

from server.security import tokens as token_module
from server.security.tokens import (
    AUTHOR_KEY_FILE,
    SECRET_FILE,
    Grant,
    SecretError,
    TokenError,
    Tokens,
    author_key_in,
    load_author_key,
    load_secret,
)

SECRET = b"a secret of enough bytes"
NOW_MS = 1_800_000_000_000


class SetClock:
    """A clock that a test sets."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        return self.at_ms


def code_of(tokens: Tokens, token: str) -> str:
    with pytest.raises(TokenError) as caught:
        tokens.read(token)
    assert str(caught.value).endswith(".")
    return caught.value.code


def test_a_token_says_whose_it_is() -> None:
    tokens = Tokens(SECRET, 3600, SetClock())
    assert tokens.read(tokens.issue("s-1", "player", 7)) == Grant("s-1", "player", 7)
    assert tokens.read(tokens.issue("s-1", "host", None)) == Grant("s-1", "host", None)
    assert tokens.read(tokens.issue("s-1", "host", None, 2)) == Grant("s-1", "host", None, 2)
    assert tokens.read(tokens.issue("s-1", "player", 7, 2)) == Grant("s-1", "player", 7)


def test_a_token_is_short_and_safe_in_a_url() -> None:
    token = Tokens(SECRET, 3600, SetClock()).issue("3f0c9a52e0f14f1c", "player", 99_999)
    assert len(token) < 120
    assert token.replace("-", "").replace("_", "").replace(".", "").isalnum()


def test_a_token_expires_by_the_given_clock() -> None:
    clock = SetClock()
    tokens = Tokens(SECRET, 3600, clock)
    token = tokens.issue("s-1", "player", 7)
    clock.at_ms += 3_600_000
    assert tokens.read(token).player == 7
    clock.at_ms += 1_000
    assert code_of(tokens, token) == "token_expired"


def test_only_so_many_good_tokens_are_remembered_and_all_stay_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_module, "KNOWN_MAX", 3)
    clock = SetClock()
    tokens = Tokens(SECRET, 3600, clock)
    issued = [tokens.issue("s-1", "player", n) for n in range(1, 6)]
    for _ in range(2):
        assert [tokens.read(token).player for token in issued] == [1, 2, 3, 4, 5]
    assert len(tokens._known) == 3
    clock.at_ms += 3_601_000
    assert {code_of(tokens, token) for token in issued} == {"token_expired"}


@pytest.mark.parametrize("ahead_s", [1, 59, 61, 600, 3600])
def test_a_token_from_a_node_whose_clock_is_ahead_is_good(ahead_s: int) -> None:
    token = Tokens(SECRET, 3600, SetClock(NOW_MS + 1000 * ahead_s)).issue("s-1", "player", 7)
    assert Tokens(SECRET, 3600, SetClock()).read(token).player == 7


@pytest.mark.parametrize("known", [True, False])
def test_a_token_stays_good_when_the_clock_is_set_back_and_expires_by_it(known: bool) -> None:
    clock = SetClock()
    tokens = Tokens(SECRET, 3600, clock)
    token = tokens.issue("s-1", "player", 7)
    if known:
        tokens.read(token)
    clock.at_ms -= 1_800_000
    assert tokens.read(token).player == 7
    clock.at_ms = NOW_MS + 3_601_000
    assert code_of(tokens, token) == "token_expired"


def test_a_token_from_further_ahead_than_tokens_live_is_invalid() -> None:
    token = Tokens(SECRET, 3600, SetClock(NOW_MS + 3_602_000)).issue("s-1", "player", 7)
    assert code_of(Tokens(SECRET, 3600, SetClock()), token) == "token_invalid"


def test_a_token_signed_with_another_key_is_invalid_however_old() -> None:
    token = Tokens(b"somebody else's secret", 3600, SetClock(0)).issue("s-1", "host", None)
    assert code_of(Tokens(SECRET, 3600, SetClock()), token) == "token_invalid"


def test_a_token_for_another_purpose_is_invalid() -> None:
    token = URLSafeTimedSerializer(SECRET, salt="newsletter").dumps(["s-1", "host", None])
    assert code_of(Tokens(SECRET, 3600, SetClock()), token) == "token_invalid"


@pytest.mark.parametrize("place", range(10))
def test_a_changed_token_is_invalid(place: int) -> None:
    tokens = Tokens(SECRET, 3600, SetClock())
    token = tokens.issue("s-1", "player", 7)
    at = place * len(token) // 10
    forged = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
    assert code_of(tokens, forged) == "token_invalid"


@given(st.one_of(st.text(st.characters(), max_size=80), st.from_regex(r"[\w-]{0,9}(\.[\w-]{0,9}){0,4}")))
def test_no_text_does_worse_than_being_invalid(text: str) -> None:
    assert code_of(Tokens(SECRET, 3600, SetClock()), text) == "token_invalid"


def test_a_very_long_token_is_invalid() -> None:
    assert code_of(Tokens(SECRET, 3600, SetClock()), "A" * 1_000_000) == "token_invalid"


def test_a_lone_surrogate_is_invalid() -> None:
    assert code_of(Tokens(SECRET, 3600, SetClock()), "\ud800.a.b") == "token_invalid"


def test_the_configured_secret_comes_first_and_writes_nothing(tmp_path: Path) -> None:
    assert load_secret("configured, and long enough", tmp_path) == b"configured, and long enough"
    assert list(tmp_path.iterdir()) == []


def test_without_one_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    data_dir = tmp_path / "not" / "there"
    key = load_secret(None, data_dir)
    assert len(key) == 64
    assert load_secret(None, data_dir) == key
    file = data_dir / SECRET_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(data_dir.iterdir()) == [file]
    assert load_secret(None, tmp_path / "elsewhere") != key


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: load_secret(None, tmp_path), range(32)))
    assert len(keys) == 1


def test_a_key_file_that_is_no_key_is_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / SECRET_FILE).write_text("short\n")
    with pytest.raises(SecretError, match=r"token-secret: is too short.*Delete it"):
        load_secret(None, tmp_path)


def test_a_data_directory_that_is_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(SecretError, match="data"):
        load_secret(None, tmp_path / "data")


# -- the author key ----------------------------------------------------------------------------------


def test_the_configured_author_key_comes_first_and_writes_nothing(tmp_path: Path) -> None:
    assert load_author_key("configured", "a secret of the cluster", tmp_path) == "configured"
    assert list(tmp_path.iterdir()) == []
    assert author_key_in(tmp_path) is None


def test_without_one_an_author_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    data_dir = tmp_path / "not" / "there"
    key = load_author_key(None, None, data_dir)
    assert len(key) >= 32
    assert load_author_key(None, None, data_dir) == author_key_in(data_dir) == key
    file = data_dir / AUTHOR_KEY_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(data_dir.iterdir()) == [file]
    assert load_author_key(None, None, tmp_path / "elsewhere") != key


def test_the_nodes_of_a_cluster_agree_on_an_author_key_whatever_they_had_before(tmp_path: Path) -> None:
    alone = load_author_key(None, None, tmp_path / "a")
    keys = {load_author_key(None, "a secret of the cluster", tmp_path / name) for name in "ab"}
    assert len(keys) == 1
    assert keys == {author_key_in(tmp_path / "a"), author_key_in(tmp_path / "b")}
    assert keys.isdisjoint({alone, load_author_key(None, "another secret of one", tmp_path / "c")})
    assert stat.S_IMODE((tmp_path / "a" / AUTHOR_KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "a").iterdir()] == [AUTHOR_KEY_FILE]


@pytest.mark.parametrize("text", ["short", "", "not-ascii-\u00fc\u00fc"])
def test_an_author_key_file_that_is_no_key_is_refused_with_a_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / AUTHOR_KEY_FILE).write_text(text)
    with pytest.raises(SecretError, match=r"author-key: is no key.*Delete it"):
        load_author_key(None, None, tmp_path)
