"""Commands that ask a server and print: what they send, what they say, and how they fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from msgspec import to_builtins

from server.cli.operate.top import WORDS, picture, sparks
from server.cli.terminal import author_key_for
from server.http.examples import HEALTH_REPORT_DOWN, LIVE
from server.security.tokens import author_key_in, load_author_key
from server.wire.api.live import Kind
from tests.cli.conftest import Fanfare
from tests.cli.fake_server import FakeServer
from tests.identities import key_set, public_jwk

QUIZ = """\
title: Two questions
questions:
  - type: single
    text: Which is a fruit?
    choices: [pear, chair]
    correct: pear
  - type: numeric
    text: How many days has a week?
    correct: 7
"""

STORED_QUIZ = {
    "id": "two",
    "version": 3,
    "title": "Two questions",
    "questions": 5,
    "created_at": 0,
    "quiz": {
        "title": "Two\x1b[31m questions",
        "description": "Short.",
        "questions": [
            {"type": "single", "text": "Fruit?", "choices": ["pear", "chair"], "correct": "pear"},
            {"type": "multiple", "text": "Even?", "choices": ["1", "2", "4"], "correct": ["2", "4"]},
            {"type": "true_false", "text": "Wet?", "correct": True},
            {"type": "text", "text": "Type it.", "accept": ["honey", "Honig"]},
            {"type": "text", "text": "Spell it.", "accept": ["mañana"], "match": "spelling"},
            {"type": "numeric", "text": "Days?", "correct": 7, "tolerance": 0.5},
        ],
    },
}
for each in STORED_QUIZ["quiz"]["questions"]:  # type: ignore[index]  # a literal
    each |= {"time_limit_s": 20, "points": 1000}

OPENED = {
    "session_id": "0b0e7a8e-0000-4000-8000-000000000000",
    "code": "123456",
    "quiz_id": "two",
    "quiz_version": 1,
    "host_token": "host.token",
    "ws_url": "ws://127.0.0.1:1/ws",
}


# -- help and failures -------------------------------------------------------------------------------


def test_help_names_every_command(fanfare: Fanfare) -> None:
    result = fanfare("--help")
    assert result.exit_code == 0
    for command in ("serve", "demo", "quiz", "session", "bots", "watch", "doctor"):
        assert f"\n  {command} " in result.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["serve"],
        ["demo"],
        ["quiz", "add"],
        ["quiz", "check"],
        ["session", "start"],
        ["session", "host"],
        ["session", "results"],
        ["bots"],
        ["watch"],
        ["doctor"],
    ],
)
def test_every_command_explains_itself(fanfare: Fanfare, words: list[str]) -> None:
    result = fanfare(*words, "--help")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 5


def test_an_unknown_command_is_a_usage_error(fanfare: Fanfare) -> None:
    assert fanfare("sing").exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        ["quiz", "list"],
        ["quiz", "show", "two"],
        ["session", "start", "two"],
        ["session", "list"],
        ["session", "results", "123456"],
        ["bots", "123456"],
        ["watch", "123456"],
    ],
)
def test_without_a_server_one_sentence_says_how_to_start_one(fanfare: Fanfare, words: list[str]) -> None:
    result = fanfare(*words, "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "No server answers at http://127.0.0.1:1" in result.stderr
    assert "fanfare serve" in result.stderr


def test_the_servers_own_words_reach_the_person(fanfare: Fanfare, server: FakeServer) -> None:
    server.refuses("GET /api/sessions/999999", 404, "session_not_found", "No session has this code.")
    result = fanfare("watch", "999999", "--url", server.url)
    assert result.exit_code == 1
    assert result.stderr == "Error: No session has this code (session_not_found).\n"


def test_a_request_without_the_author_key_is_told_about_it(fanfare: Fanfare, server: FakeServer) -> None:
    server.refuses("POST /api/sessions", 401, "token_missing", "This needs Authorization.")
    result = fanfare("session", "start", "two", "--url", server.url)
    assert "FANFARE_AUTHOR_KEY" in result.stderr


def test_the_key_of_a_node_on_this_machine_is_found_in_its_data_directory(
    fanfare: Fanfare, server: FakeServer, tmp_path: Path
) -> None:
    server.says("GET /api/sessions?limit=20", {"sessions": []})
    ask = ("session", "list", "--url", server.url)
    load_author_key(None, None, tmp_path / "data")  # where a node has it that was started here
    elsewhere = load_author_key(None, None, tmp_path / "elsewhere")
    fanfare(*ask)
    fanfare(*ask, env={"FANFARE_DATA_DIR": str(tmp_path / "elsewhere")})
    fanfare(*ask, env={"FANFARE_AUTHOR_KEY": "the-key"})
    Path("fanfare.toml").write_text('author_key = "configured"\n')
    fanfare(*ask)
    keys = [token for _, _, token, _ in server.heard]
    assert keys == [author_key_in(tmp_path / "data"), elsewhere, "the-key", "configured"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:5001", True),
        ("http://localhost:5001", True),
        ("http://192.0.2.1:5001", False),
        ("https://quiz.example.invalid", False),
    ],
)
def test_no_other_machine_is_shown_the_key_of_this_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, shown: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FANFARE_AUTHOR_KEY", raising=False)
    key = load_author_key(None, None, tmp_path / "data")
    assert author_key_for(url) == (key if shown else None)


def test_a_proxys_error_page_is_told_by_its_status(fanfare: Fanfare, server: FakeServer) -> None:
    server.says("GET /api/quizzes", "<h1>Bad Gateway</h1>", 502)
    assert "http_502" in fanfare("quiz", "list", "--url", server.url).stderr


def test_the_address_comes_from_the_environment_too(fanfare: Fanfare, server: FakeServer) -> None:
    server.says("GET /api/quizzes", {"quizzes": []})
    result = fanfare("quiz", "list", env={"FANFARE_URL": server.url})
    assert result.exit_code == 0
    assert "fanfare quiz add" in result.stdout


def test_an_address_that_is_none_is_a_usage_error(fanfare: Fanfare) -> None:
    result = fanfare("quiz", "list", "--url", "localhost:5001")
    assert result.exit_code == 2
    assert "an address like https://" in result.stderr


# -- quiz --------------------------------------------------------------------------------------------


def test_quiz_add_sends_the_file_under_its_name(fanfare: Fanfare, server: FakeServer) -> None:
    Path("two.yaml").write_text(QUIZ, encoding="utf-8")
    server.says("POST /api/quizzes?id=two", STORED_QUIZ, 201)
    result = fanfare(
        "quiz", "add", "two.yaml", "--url", server.url, env={"FANFARE_AUTHOR_KEY": "key-of-author"}
    )
    assert result.exit_code == 0
    assert "two (version 3) is stored" in result.stdout
    ((_, _, token, body),) = server.heard
    assert token == "key-of-author"
    assert body["questions"][1] == {"type": "numeric", "text": "How many days has a week?", "correct": 7}


def test_quiz_add_says_when_nothing_has_changed(fanfare: Fanfare, server: FakeServer) -> None:
    Path("two.yaml").write_text(QUIZ, encoding="utf-8")
    server.says("POST /api/quizzes?id=another", STORED_QUIZ)
    result = fanfare("quiz", "add", "two.yaml", "--id", "another", "--url", server.url)
    assert "unchanged" in result.stdout


def test_a_bad_file_is_not_sent(fanfare: Fanfare, server: FakeServer) -> None:
    Path("bad.yaml").write_text("title: X\nquestions:\n  - type: single\n", encoding="utf-8")
    result = fanfare("quiz", "add", "bad.yaml", "--url", server.url)
    assert result.exit_code == 1
    assert "bad.yaml:3" in result.stderr
    assert server.heard == []


def test_quiz_list_is_a_table(fanfare: Fanfare, server: FakeServer) -> None:
    quiz = {"id": "two", "version": 3, "title": "Two questions", "language": "en", "questions": 2}
    server.says("GET /api/quizzes", {"quizzes": [quiz]})
    lines = fanfare("quiz", "list", "--url", server.url).stdout.splitlines()
    assert lines[0].split() == ["Id", "Title", "Language", "Questions", "Version"]
    assert lines[1].split() == ["two", "Two", "questions", "en", "2", "3"]


def test_quiz_show_marks_the_right_answers_and_obeys_no_escapes(fanfare: Fanfare, server: FakeServer) -> None:
    server.says("GET /api/quizzes/two", STORED_QUIZ)
    result = fanfare("quiz", "show", "two", "--url", server.url)
    assert "\x1b" not in result.stdout
    for line in (
        "* pear",
        "- chair",
        "* 4",
        "* true",
        "* Honig",
        "* mañana (spelling)",
        "* 7 (plus or minus 0.5)",
    ):
        assert f"   {line}\n" in result.stdout


def test_a_quiz_is_deleted_when_one_is_sure(fanfare: Fanfare, server: FakeServer) -> None:
    server.says("GET /api/quizzes/two", STORED_QUIZ)
    server.says("DELETE /api/quizzes/two", {"id": "two"})
    words = ["quiz", "delete", "two", "--url", server.url]
    assert fanfare(*words, input="n\n").exit_code == 1
    assert [method for method, *_ in server.heard] == ["GET"]
    assert "with all its versions" in fanfare(*words, input="y\n").stdout
    assert fanfare(*words, "--yes").stdout.endswith("is deleted.\n")
    assert [method for method, *_ in server.heard].count("DELETE") == 2


def test_leaderboards_of_users_are_shown_and_users_erased(fanfare: Fanfare, server: FakeServer) -> None:
    line = {"rank": 1, "name": "Ann", "user_id": "u/1", "score": 1934, "elapsed_ms": 4200}
    deep = {**line, "rank": None, "name": "Bob"}
    server.says("GET /api/leaderboards/all?period=all&top=10", {"top": []})
    server.says("GET /api/leaderboards/capitals?period=week&top=2&date=2026-11-29", {"top": [line, deep]})
    server.says("DELETE /api/users/u%2F1", {"user_id": "u/1", "sessions": 3})
    at = ["--url", server.url]
    assert fanfare("leaderboard", *at).stdout == "Nobody is in it.\n"
    words = ["leaderboard", "capitals", "--period", "week", "--date", "2026-11-29", "--top", "2"]
    shown = fanfare(*words, *at).stdout
    assert [row.split() for row in shown.splitlines()[1:]] == [
        ["1", "Ann", "u/1", "1,934", "4.2"],
        ["Bob", "u/1", "1,934", "4.2"],
    ]
    assert fanfare("users", "erase", "u/1", *at, input="n\n").exit_code == 1
    assert "names in 3 sessions" in fanfare("users", "erase", "u/1", "--yes", *at).stdout


def test_a_session_or_a_name_in_it_goes_by_its_id(fanfare: Fanfare, server: FakeServer) -> None:
    """A code may be another session's by the time that somebody is sure."""
    found = {"session_id": "the-id", "code": "123456", "created_at": 0, "state": {"title": "Two questions"}}
    server.says("GET /api/sessions/123456", found)
    server.says("DELETE /api/sessions/the-id", {"session_id": "the-id", "code": "123456"})
    server.says(
        "DELETE /api/sessions/the-id/players/7", {"session_id": "the-id", "player_id": 7, "name": "#7"}
    )
    more = ["--url", server.url, "--token", "of-the-host"]
    assert fanfare("session", "delete", "123456", *more, input="n\n").exit_code == 1
    assert fanfare("session", "delete", "123456", "--yes", *more).stdout.startswith(
        "Deleted: session 123456 (Two"
    )
    assert "called #7 now" in fanfare("session", "forget", "123456", "7", "--yes", *more).stdout
    gone = [(path, token) for method, path, token, _ in server.heard if method == "DELETE"]
    assert gone == [
        ("/api/sessions/the-id", "of-the-host"),
        ("/api/sessions/the-id/players/7", "of-the-host"),
    ]


def test_a_session_is_named_as_people_type_or_paste_its_code(fanfare: Fanfare, server: FakeServer) -> None:
    found = {"session_id": "the-id", "code": "123456", "created_at": 0, "state": {"title": "T"}}
    server.says("GET /api/sessions/123456", found)
    server.says("DELETE /api/sessions/the-id", {"session_id": "the-id", "code": "123456"})
    for typed in ("123 456", "\u0661\u0662\u0663\u0664\u0665\u0666", "http://10.0.0.10:5001/?code=123456"):
        result = fanfare("session", "delete", typed, "--yes", "--url", server.url)
        assert result.stdout.startswith("Deleted: session 123456"), typed


def test_quiz_check_needs_no_server_and_names_everything(fanfare: Fanfare) -> None:
    Path("good.yaml").write_text(QUIZ, encoding="utf-8")
    assert "good.yaml is fine: Two questions, 2 questions." in fanfare("quiz", "check", "good.yaml").stdout
    bad = QUIZ.replace("correct: pear", "correct: peach").replace("correct: 7", "correct: seven")
    Path("bad.yaml").write_text(bad, encoding="utf-8")
    result = fanfare("quiz", "check", "bad.yaml")
    assert result.exit_code == 1
    assert "bad.yaml:6: questions[0].correct" in result.stderr
    assert "bad.yaml:9: questions[1].correct" in result.stderr
    assert "2 problems in bad.yaml" in result.stderr


def test_a_missing_file_is_named(fanfare: Fanfare) -> None:
    assert "none.yaml" in fanfare("quiz", "check", "none.yaml").stderr


# -- session -----------------------------------------------------------------------------------------


def test_a_session_of_pace_auto_starts_by_itself(fanfare: Fanfare, server: FakeServer) -> None:
    server.says("POST /api/sessions", OPENED, 201)
    words = ["--lobby", "2.5", "--reveal", "1", "--player-limit", "7", "--no-early-close"]
    words += ["--get-ready", "1.5", "--reading", "4"]
    result = fanfare("session", "start", "two", *words, "--url", server.url)
    assert result.exit_code == 0
    assert "Session 123456" in result.stdout
    assert f"fanfare bots 123456 --players 200 --quiz two --url {server.url}" in result.stdout
    assert "FANFARE_HOST_TOKEN=host.token" in result.stdout
    assert server.heard[0][3] == {
        "quiz_id": "two",
        "pace": "auto",
        "early_close": False,
        "lobby_ms": 2500,
        "get_ready_ms": 1500,
        "reading_ms": 4000,
        "reveal_ms": 1000,
        "player_limit": 7,
    }


def test_a_session_of_pace_host_may_go_on_without_one(
    fanfare: Fanfare, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def led(*_: object) -> str:
        return "left"

    monkeypatch.setattr("server.cli.play.host_console.lead", led)
    server.says("POST /api/sessions", OPENED, 201)
    words = ["--pace", "host", "--host-away", "60", "--reveal", "8", "--names", "given"]
    words += ["--scoring", "flat", "--no-streak"]
    result = fanfare("session", "start", "two", *words, "--url", server.url)
    assert result.exit_code == 0
    assert server.heard[0][3] == {
        "quiz_id": "two",
        "pace": "host",
        "early_close": True,
        "host_away_s": 60,
        "reveal_ms": 8000,
        "names": "given",
        "scoring": "flat",
        "streak": False,
    }


@pytest.mark.parametrize("words", [["--host-away", "60"], ["--pace", "host", "--reveal", "3"]])
def test_options_that_the_pace_does_not_have_are_refused(fanfare: Fanfare, words: list[str]) -> None:
    assert fanfare("session", "start", "two", *words).exit_code == 2


def test_an_author_without_the_hosts_token_takes_the_session_over(
    fanfare: Fanfare, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    leads: list[tuple[object, ...]] = []

    async def lead(*how: object) -> str:
        leads.append(how)
        return "left"

    monkeypatch.setattr("server.cli.play.host_console.lead", lead)
    monkeypatch.setenv("FANFARE_AUTHOR_KEY", "of-an-author")
    taking = f"/api/sessions/{OPENED['session_id']}/host-token"
    server.says("GET /api/sessions/123456", OPENED)
    server.says(f"POST {taking}", OPENED | {"host_token": "a.fresh-one"}, 201)
    asked = fanfare("session", "host", "123456", "--url", server.url)
    assert asked.exit_code != 0, "there is nobody to say yes"
    assert [path for _, path, _, _ in server.heard] == ["/api/sessions/123456"]
    result = fanfare("session", "host", "123456", "--yes", "--url", server.url)
    assert result.exit_code == 0
    assert server.heard[-1][:3] == ("POST", taking, "of-an-author")
    assert leads == [(OPENED["ws_url"], "123456", "a.fresh-one")]
    assert "FANFARE_HOST_TOKEN=a.fresh-one" in result.stdout
    server.heard.clear()
    assert fanfare("session", "host", "123456", "--token", "mine", "--url", server.url).exit_code == 0
    assert [path for _, path, _, _ in server.heard] == ["/api/sessions/123456"], "which has a token"
    assert leads[-1][-1] == "mine"


def test_the_lobby_lasts_twenty_seconds_unless_told(fanfare: Fanfare, server: FakeServer) -> None:
    server.says("POST /api/sessions", OPENED, 201)
    fanfare("session", "start", "two", "--url", server.url)
    assert server.heard[0][3]["lobby_ms"] == 20_000


def test_a_host_has_no_lobby_to_time(fanfare: Fanfare) -> None:
    assert fanfare("session", "start", "two", "--pace", "host", "--lobby", "3").exit_code == 2


def test_session_list_is_a_table(fanfare: Fanfare, server: FakeServer) -> None:
    one = {"code": "123456", "title": "Two", "players": 4, "created_at": 0, "finished_at": None}
    server.says("GET /api/sessions?limit=20", {"sessions": [one, one | {"finished_at": 1}]})
    lines = fanfare("session", "list", "--url", server.url).stdout.splitlines()
    assert lines[1].startswith(" 123456  Two")
    assert lines[1].rstrip().endswith("running")
    assert lines[2].rstrip().endswith("finished")


RESULTS = {
    "session_id": "s",
    "code": "123456",
    "final": False,
    "players": [
        {
            "rank": 1,
            "player": 2,
            "name": "Ada",
            "score": 1950,
            "correct": 2,
            "answered": 2,
            "elapsed_ms": 2140,
        }
    ],
}


def test_results_come_as_table_json_or_csv(fanfare: Fanfare, server: FakeServer) -> None:
    csv = "rank,player,name,score,correct,answered,elapsed_ms\r\n1,2,Ada,1950,2,2,2140\r\n"
    server.says("GET /api/sessions/123456/results.json", RESULTS)
    server.says("GET /api/sessions/123456/results.csv?bom=false", csv)
    words = ["session", "results", "123456", "--url", server.url]
    table = fanfare(*words).stdout
    assert table.splitlines()[1].split() == ["1", "Ada", "1,950", "2", "2", "2.1"]
    assert "still runs" in table
    assert json.loads(fanfare(*words, "--json").stdout) == RESULTS
    assert fanfare(*words, "--csv").stdout_bytes == csv.encode()


def test_watching_a_finished_session_shows_its_podium(fanfare: Fanfare, server: FakeServer) -> None:
    top = [{"rank": 1, "id": 2, "name": "Ada", "score": 1950}]
    state = {
        "phase": "finished",
        "locked": True,
        "title": "Two questions",
        "number": 2,
        "of": 2,
        "players": 1,
        "answered": 0,
        "question": None,
        "reveal": None,
        "leaderboard": {"top": top, "players": 1, "answered": 0},
        "podium": top,
        "you": None,
    }
    server.says("GET /api/sessions/123456", {"code": "123456", "ws_url": "ws://x/ws", "state": state})
    result = fanfare("watch", "123456", "--url", server.url)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1:] == ["Podium", "    1. Ada                          1,950"]
    assert "is over" in fanfare("bots", "123456", "--url", server.url).stderr


# -- serve and doctor --------------------------------------------------------------------------------


def test_serve_refuses_a_wrong_setting_in_one_line(fanfare: Fanfare) -> None:
    result = fanfare("serve", "--http-port", "http")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: http_port (--http-port): 'http' is not allowed; a whole number from 0 to 65535 is\n"
    )
    assert "FANFARE_HTTP_PROT" in fanfare("serve", env={"FANFARE_HTTP_PROT": "1"}).stderr


def test_serve_help_has_every_setting_and_no_secret(fanfare: Fanfare) -> None:
    from server.config.config import settings

    result = fanfare("serve", "--help", env={"FANFARE_SECRET": "hunter2hunter2hunter2"})
    for setting in settings():
        assert setting.option in result.stdout
    assert "hunter2" not in result.stdout


def test_doctor_shows_settings_with_their_sources_and_what_is_wrong(fanfare: Fanfare) -> None:
    Path("fanfare.toml").write_text("tick_ms = 100\n", encoding="utf-8")
    environ = {"FANFARE_SECRET": "hunter2hunter2hunter2", "FANFARE_HTTP_PORT": "1"}
    result = fanfare("doctor", env=environ)
    assert result.exit_code == 1
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.split()}
    assert rows["tick_ms"] == ["100", "fanfare.toml"]
    assert rows["secret"] == ["(set)", "FANFARE_SECRET"]
    assert rows["host"] == ["127.0.0.1", "default"]
    assert "hunter2" not in result.stdout
    assert rows["failed"][:2] == ["HTTP", "API"]
    assert "will be created" in result.stdout


def test_doctor_tells_what_does_not_answer_behind_the_api(fanfare: Fanfare, server: FakeServer) -> None:
    server.says("GET /healthz", {"status": "alive", "version": "1", "ws_url": "ws://127.0.0.1:1/ws"})
    server.says("GET /readyz", {"ready": False, "reasons": ["the database cannot be reached"]}, 503)
    server.says("GET /health", to_builtins(HEALTH_REPORT_DOWN), 503)
    result = fanfare("doctor", "--url", server.url)
    assert result.exit_code == 1
    findings = [line.split()[:2] for line in result.stdout.splitlines()]
    assert ["ok", "HTTP"] in findings
    assert ["failed", "ready"] in findings
    assert ["failed", "postgresql"] in findings
    assert "Answers are refused as busy" in result.stdout
    assert ["failed", "WebSocket"] in findings


def test_doctor_reads_the_keys_of_identities(fanfare: Fanfare) -> None:
    environ = {"FANFARE_IDENTITY": "optional", "FANFARE_IDENTITY_JWKS": "keys.json"}
    missing = fanfare("doctor", "--url", "http://127.0.0.1:1", env=environ).stdout
    assert "keys.json: No such file" in missing
    assert "identity_audience" in missing
    Path("keys.json").write_bytes(key_set(public_jwk("EdDSA"), public_jwk("RS256")))
    assert "keys: 2, for EdDSA, RS256" in fanfare("doctor", "--url", "http://127.0.0.1:1", env=environ).stdout


def test_doctor_refuses_a_data_directory_that_is_a_file(fanfare: Fanfare) -> None:
    Path("data").write_text("", encoding="utf-8")
    assert "is no directory" in fanfare("doctor", "--url", "http://127.0.0.1:1").stdout


def test_doctor_ends_at_a_configuration_that_cannot_be_read(fanfare: Fanfare) -> None:
    result = fanfare("doctor", env={"FANFARE_TICK_MS": "soon"})
    assert result.exit_code == 1
    assert "tick_ms (FANFARE_TICK_MS)" in result.stderr


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"FANFARE_PUBLIC_URL": "https://quiz.example"}, True),
        (
            {"FANFARE_PUBLIC_URL": "https://quiz.example", "FANFARE_PUBLIC_WS_URL": "ws://quiz.example/ws"},
            True,
        ),
        (
            {"FANFARE_PUBLIC_URL": "https://quiz.example", "FANFARE_PUBLIC_WS_URL": "wss://quiz.example/ws"},
            False,
        ),
        ({"FANFARE_PUBLIC_URL": "http://quiz.example"}, False),
        ({}, False),
    ],
)
def test_doctor_warns_of_pages_by_tls_and_websockets_without(
    fanfare: Fanfare, settings: dict[str, str], warned: bool
) -> None:
    told = fanfare("doctor", "--url", "http://127.0.0.1:1", env=settings).stdout
    assert ("a page that comes by TLS" in " ".join(told.split())) == warned


# -- what happens just now ---------------------------------------------------------------------------


def test_top_shows_nodes_sessions_and_where_the_time_of_slow_answers_went(
    fanfare: Fanfare, server: FakeServer
) -> None:
    live = to_builtins(LIVE)
    own, silent = live["nodes"][0], "node-2"
    moment = own["at"]
    own["components"] = [
        {"name": name, "state": state, "since": moment, "detail": detail}
        for name, state, detail in (
            ("postgresql", "ok", ""),
            ("spool", "degraded", "facts go by way of the\x1b[31m spool"),
            ("certificate", "down", "it has ended: Browsers do not connect."),
        )
    ]
    live["silent"] = [silent]
    server.says("GET /api/ops", live)
    result = fanfare("top", "--once", "--url", server.url, env={"FANFARE_AUTHOR_KEY": "the-key"})
    assert result.exit_code == 0, result.output
    assert server.heard == [("GET", "/api/ops", "the-key", None)]
    session, slow = own["sessions"][0], own["slowest"][0]
    commit_ms = slow["commit_ended_ms"] - slow["commit_started_ms"]
    for shown in (
        "node-1: spool is degraded: facts go by way of the [31m spool",
        "node-1: certificate is down: it has ended: Browsers do not connect.",
        "node-1  postgresql ok, spool degraded, certificate down",
        f"{silent} does not answer",
        f"{own['acks']:,} answers acknowledged, {own['samples'][-1]['answers_per_s']:.0f}/s",
        session["session_id"],
        f"player {slow['player']}, ",
        f"{slow['acked_ms']:,} ms",
        f"commit {commit_ms:,}",
        "sessions taken over from a node that was gone: 2",
    ):
        assert shown in result.stdout


def test_top_prints_the_reply_as_json_and_says_who_may_not(fanfare: Fanfare, server: FakeServer) -> None:
    live = to_builtins(LIVE)
    server.says("GET /api/ops", live)
    assert json.loads(fanfare("top", "--json", "--url", server.url).stdout) == live


def test_top_says_of_a_node_that_drains_what_it_does() -> None:
    from rich.console import Console

    now = to_builtins(LIVE)
    now["cluster"]["nodes"][0]["state"] = "draining"
    console = Console(width=200)
    with console.capture() as captured:
        console.print(picture(now))
    text = captured.get()
    assert f"{now['cluster']['nodes'][0]['name']} is draining: its sessions go to the other nodes" in text
    assert "cannot take work" not in text
    assert "All is well" not in text


def test_top_says_that_all_is_well() -> None:
    from rich.console import Console

    now = to_builtins(LIVE)
    now["silent"] = []
    for node in now["nodes"]:
        node["reasons"], node["components"] = [], [each | {"state": "ok"} for each in node["components"]]
    console = Console(width=200)
    with console.capture() as captured:
        console.print(picture(now))
    assert "All is well" in captured.get()


def test_top_has_a_word_for_every_event() -> None:
    assert set(WORDS) == set(get_args(Kind))


@pytest.mark.parametrize(
    ("values", "line"), [([], ""), ([0], "▁"), ([7] * 6, "█"), ([1, 0, 0, 0, 0, 0, 0, 8], "▂█")]
)
def test_a_line_of_bars_has_its_peaks(values: list[float], line: str) -> None:
    assert sparks(values) == line
