"""The configuration: where a setting comes from, and how a wrong one is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.config.config import Config, ConfigError, Setting, resolve, setting
from server.config.config import settings as all_settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No fanfare.toml of the checkout counts here."""
    monkeypatch.chdir(tmp_path)


def refused(environ: dict[str, str] | None = None, **flags: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        Config.load(None, environ or {}, flags)
    return caught.value


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(text, encoding="utf-8")
    return path


# -- sources -----------------------------------------------------------------------------------------


def test_without_anything_the_defaults_hold() -> None:
    config = Config.load(None, {"PATH": "/bin"}, {})
    assert config == Config()
    assert (config.http_port, config.realtime_port, config.data_dir) == (5001, 5002, Path("data"))
    assert set(resolve(None, {}, {}).sources.values()) == {"default"}


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    file = written(tmp_path, "tick_ms = 100\nhistory_max = 10\nhost = 'a.example'\n")
    environ = {"FANFARE_TICK_MS": "200", "FANFARE_HISTORY_MAX": "20"}
    resolved = resolve(file, environ, {"tick_ms": "300", "sessions_max": None})
    config = resolved.config
    assert (config.tick_ms, config.history_max, config.host) == (300, 20, "a.example")
    assert resolved.file == file
    found = [resolved.sources[key] for key in ("tick_ms", "history_max", "host", "sessions_max")]
    assert found == ["flag", "environment", "file", "default"]


def test_fanfare_toml_of_the_working_directory_is_read_if_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "fanfare.toml").write_text("http_port = 8080\n", encoding="utf-8")
    assert Config.load(None, {}, {}).http_port == 8080


def test_an_empty_variable_counts_as_not_given() -> None:
    assert Config.load(None, {"FANFARE_SECRET": "", "FANFARE_HTTP_PORT": ""}, {}) == Config()


def test_variables_of_the_client_commands_are_passed_over() -> None:
    Config.load(None, {"FANFARE_URL": "http://x", "FANFARE_HOST_TOKEN": "t"}, {})


# -- refusals ----------------------------------------------------------------------------------------


def test_an_unknown_variable_is_refused_with_the_known_ones_and_a_guess() -> None:
    error = refused({"FANFARE_HTTP_PROT": "1"})
    assert str(error).startswith("FANFARE_HTTP_PROT (the environment): is not a setting; did you mean")
    assert "FANFARE_HTTP_PORT?" in str(error)
    assert all(each.variable in str(error) for each in all_settings())


def test_an_unknown_key_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ticks_ms .*node\.toml.*did you mean tick_ms\?"):
        Config.load(written(tmp_path, "ticks_ms = 1\n"), {}, {})


def test_an_unknown_flag_is_refused() -> None:
    assert refused(colour="red").key == "colour"


@pytest.mark.parametrize("text", ["http_port = \n", "[server]\nhttp_port = 1\n"])
def test_a_file_that_is_not_as_it_should_be_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"node\.toml"):
        Config.load(written(tmp_path, text), {}, {})


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Config.load(tmp_path / "none.toml", {}, {})


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not TOML"):
        Config.load(path, {}, {})


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("HTTP_PORT", "65536", "a whole number from 0 to 65535"),
        ("HTTP_PORT", "-1", "a whole number from 0 to 65535"),
        ("HTTP_PORT", "http", "a whole number from 0 to 65535"),
        ("HTTP_PORT", "80.0", "a whole number from 0 to 65535"),
        ("SESSIONS_MAX", "0", "a whole number from 1 to 1000000"),
        ("SEND_TIMEOUT_S", "nan", "a number from 0.1 to 600"),
        ("SEND_TIMEOUT_S", "inf", "a number from 0.1 to 600"),
        ("LOG_LEVEL", "loud", "one of debug, info, warning, error, critical"),
        ("SAMPLES", "maybe", "true or false"),
        ("HOST", "two words", "a host name or an IP address"),
        ("NODE", "a/b", "a name of at most 64 letters"),
        ("PUBLIC_URL", "quiz.example", "an address like https://quiz.example"),
        ("PUBLIC_URL", "ftp://quiz.example", "an address like https://quiz.example"),
        ("PUBLIC_URL", "https://quiz.example/?a=1", "without query"),
        ("PUBLIC_URL", "https://quiz.example:99999", "an address like"),
        ("PUBLIC_WS_URL", "https://quiz.example", "an address like wss://quiz.example"),
        ("DATABASE_URL", "mysql://db/x", "an address like postgresql://"),
        ("DATABASE_URL", "postgresql:///nowhere", "an address like postgresql://"),
        ("DATABASE_URL", "postgresql://db:port/x", "an address like postgresql://"),
        ("ALLOWED_ORIGINS", "https://a.example/path", "a list of origins"),
        ("ALLOWED_ORIGINS", "a.example", "a list of origins"),
        ("SECRET", "short", "a key of 16 to 512 printable ASCII characters"),
        ("AUTHOR_KEY", "with space", "a key of 8 to 512 printable ASCII characters"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_key_source_and_rule(
    variable: str, value: str, allowed: str
) -> None:
    error = refused({f"FANFARE_{variable}": value})
    assert error.key == variable.lower()
    assert error.source == f"FANFARE_{variable}"
    assert allowed in error.problem


def test_a_flag_is_named_as_it_was_typed() -> None:
    assert str(refused(http_port="x")).startswith("http_port (--http-port): 'x' is not allowed")


@pytest.mark.parametrize("text", ["http_port = true\n", "http_port = 80.5\n", "samples = 1\n", "host = 5\n"])
def test_types_of_the_file_are_taken_as_they_are(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="is not allowed"):
        Config.load(written(tmp_path, text), {}, {})


def test_the_transport_is_chosen_by_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    tls = {"FANFARE_TLS_CERT": "cert.pem", "FANFARE_TLS_KEY": "key.pem"}
    reactor = {"FANFARE_TRANSPORT": "reactor"}
    monkeypatch.setattr("server.config.config._ON_LINUX", True)
    assert Config.load(None, {}, {}).carrier == "reactor"
    assert Config.load(None, tls, {}).carrier == "trio-websocket"
    assert Config.load(None, {}, {"transport": "trio-websocket"}).carrier == "trio-websocket"
    assert "transport (with tls_cert): the reactor has no TLS" in str(refused(tls | reactor))
    monkeypatch.setattr("server.config.config._ON_LINUX", False)
    assert Config.load(None, {}, {}).carrier == "trio-websocket"
    assert "the reactor needs Linux" in str(refused(reactor))


def test_tls_needs_both_files() -> None:
    assert "tls_key (with tls_cert): is missing" in str(refused({"FANFARE_TLS_CERT": "cert.pem"}))
    assert "tls_cert (with tls_key): is missing" in str(refused({"FANFARE_TLS_KEY": "key.pem"}))


def test_two_listeners_need_two_ports() -> None:
    assert "both are 5002" in str(refused({"FANFARE_HTTP_PORT": "5002"}))
    Config.load(None, {}, {"http_port": 0, "realtime_port": 0})


def test_the_tick_does_not_rise_to_less_than_it_is() -> None:
    assert "tick_max_ms (with tick_ms): 400 is less than" in str(
        refused({"FANFARE_TICK_MS": "500", "FANFARE_TICK_MAX_MS": "400"})
    )
    for tick_ms in (20, 10_000):
        assert Config(tick_ms=tick_ms).tick_max_ms == 10_000
    assert Config(tick_ms=500, tick_max_ms=500).tick_max_ms == 500


def test_built_in_a_program_it_is_checked_the_same() -> None:
    with pytest.raises(ConfigError, match=r"tick_ms \(the program\)"):
        Config(tick_ms=0)
    assert Config(data_dir="somewhere").data_dir == Path("somewhere")  # type: ignore[arg-type]  # what is read


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().tick_ms = 5  # type: ignore[misc]  # that it cannot be set is the point


# -- values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("SESSIONS_MAX", "20_000", 20_000),
        ("SEND_TIMEOUT_S", "2", 2.0),
        ("LOG_LEVEL", "DEBUG", "debug"),
        ("SAMPLES", "No", False),
        ("SAMPLES", "1", True),
        ("HOST", "::1", "::1"),
        ("PUBLIC_URL", "https://quiz.example/live/", "https://quiz.example/live"),
        ("DATABASE_URL", "postgresql://u:p@db:5432/x", "postgresql://u:p@db:5432/x"),
        ("DATABASE_URL", "postgresql://u@/x?host=/run/pg", "postgresql://u@/x?host=/run/pg"),
        (
            "ALLOWED_ORIGINS",
            "https://A.example, http://b.example:8080,https://a.example",
            ("https://a.example", "http://b.example:8080"),
        ),
    ],
)
def test_values_are_converted(variable: str, value: str, expected: object) -> None:
    config = Config.load(None, {f"FANFARE_{variable}": value}, {})
    assert getattr(config, variable.lower()) == expected


def test_lists_come_from_the_file_and_from_repeated_flags(tmp_path: Path) -> None:
    file = written(tmp_path, 'allowed_origins = ["https://a.example"]\n')
    assert Config.load(file, {}, {}).allowed_origins == ("https://a.example",)
    flags = {"allowed_origins": ("https://b.example", "https://c.example")}
    assert Config.load(None, {}, flags).allowed_origins == ("https://b.example", "https://c.example")


NEED_OTHERS = {"realtime_port", "tls_cert", "tls_key", "oidc_issuer", "oidc_client_id"}
"""Settings that another setting calls for, or that must differ from it."""

any_setting = st.sampled_from(all_settings())


@given(each=any_setting, text=st.text(max_size=30))
@example(each=setting("data_dir"), text="~nobody-by-this-name/data")
@settings(max_examples=200)
def test_whatever_is_typed_is_either_a_value_or_a_config_error(each: Setting, text: str) -> None:
    try:
        Config.load(None, {each.variable: text}, {})
    except ConfigError as exc:
        assert exc.key in {each.key, *NEED_OTHERS}  # noqa: PT017 - a value is fine too


@given(
    each=any_setting,
    raw=st.integers() | st.floats() | st.booleans() | st.none() | st.lists(st.text(max_size=3)),
)
@settings(max_examples=200)
def test_whatever_a_file_holds_is_either_a_value_or_a_config_error(each: Setting, raw: Any) -> None:
    try:
        config = Config(**{each.key: raw})
    except ConfigError:
        return
    assert hash(getattr(config, each.key)) is not None


# -- secrets and documentation -----------------------------------------------------------------------


SECRETS: dict[str, str] = {
    "FANFARE_SECRET": "hunter2hunter2hunter2",
    "FANFARE_AUTHOR_KEY": "correct-horse-battery",
    "FANFARE_DATABASE_URL": "postgresql://user:tr0ub4dor@db.example/quiz?sslpassword=s3same",
}


def test_secrets_are_shown_nowhere() -> None:
    config = Config.load(None, SECRETS, {})
    shown = repr(config) + "".join(config.shown(each.key) for each in all_settings())
    for secret in ("hunter2", "horse", "tr0ub4dor", "s3same"):
        assert secret not in shown
    assert config.shown("database_url") == "postgresql://user:***@db.example/quiz?sslpassword=***"
    assert config.shown("secret") == "(set)"


@pytest.mark.parametrize("variable", list(SECRETS))
def test_a_refused_secret_is_not_repeated(variable: str) -> None:
    assert "p4ss word" not in str(refused({variable: "p4ss word"}))


def test_other_values_are_shown_for_people() -> None:
    config = Config.load(None, {"FANFARE_ALLOWED_ORIGINS": "https://a.example"}, {})
    shown = [
        config.shown(key) for key in ("allowed_origins", "samples", "send_timeout_s", "node", "http_port")
    ]
    assert shown == ["https://a.example", "yes", "10", "-", "5001"]


def test_every_setting_is_documented() -> None:
    for each in all_settings():
        assert each.doc
        assert each.doc[0].islower() or each.doc.startswith("WebSocket")
        assert not each.doc.endswith(".")
        assert each.variable == f"FANFARE_{each.key.upper()}"
        assert each.option == f"--{each.key.replace('_', '-')}"
    secrets = {"secret", "author_key", "database_url", "redis_url", "identity_secret"}
    assert {each.key for each in all_settings() if each.secret} == secrets
    assert setting("tick_ms").allowed == "a whole number from 20 to 10000"


IDENTITY = {"identity": "optional", "identity_secret": "x" * 32}


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        ({"identity": "optional"}, "identity"),
        ({"identity_secret": "x" * 32}, "identity_secret"),
        ({"identity_jwks": "keys.json"}, "identity_jwks"),
        ({"identity_audience": "fanfare"}, "identity_audience"),
        (IDENTITY | {"identity_secret": "x" * 31}, "identity_secret"),
        (IDENTITY | {"identity_jwks": "http://app.example/keys"}, "identity_jwks"),
        (IDENTITY | {"identity_jwks": "https://u:p@app.example/keys"}, "identity_jwks"),
        (IDENTITY | {"identity_jwks": "ftp://app.example/keys"}, "identity_jwks"),
    ],
)
def test_identities_need_keys_and_keys_come_by_tls(flags: dict[str, str], key: str) -> None:
    assert refused(**flags).key == key


def test_keys_of_identities_come_from_an_address_or_a_file() -> None:
    for source in ("https://app.example/keys?v=1", "http://127.0.0.1:8000/keys", "/etc/fanfare/keys.json"):
        assert Config.load(None, {}, IDENTITY | {"identity_jwks": source}).identity_jwks == source


# -- a node among others -----------------------------------------------------------------------------

SHARED = {
    "redis_url": "redis://localhost",
    "database_url": "postgresql://fanfare@localhost/fanfare",
    "secret": "known-to-every-node",
}


def test_what_the_nodes_of_a_cluster_share_is_enough() -> None:
    assert Config.load(None, {}, SHARED | {"role": "api"}).role == "api"


@pytest.mark.parametrize("missing", ["database_url", "secret"])
def test_a_node_among_others_needs_what_they_share(missing: str) -> None:
    error = refused(**{name: value for name, value in SHARED.items() if name != missing})
    assert error.key == missing
    assert "with redis_url" in str(error)
    assert "share one" in str(error)


@pytest.mark.parametrize("role", ["api", "realtime"])
def test_a_node_that_is_alone_has_every_role(role: str) -> None:
    error = refused(role=role)
    assert error.key == "role"
    assert "without redis_url" in str(error)
