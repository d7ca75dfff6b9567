"""Lines of the log: for people, for machines, and not more of them than a disk can take."""

from __future__ import annotations

import json
import logging
import sys

from engine.trace import Trace, current
from server.runtime.logs import BURST, WINDOW_S, EventLimit, JsonFormatter, OfRequest, TextFormatter
from server.runtime.request_ids import current_id


def record(text: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("server.x", logging.WARNING, "x.py", 1, text, args, None)
    made.created = 1_700_000_000.25
    vars(made).update(extra)
    return made


def test_a_line_of_json_has_its_fields_and_nothing_that_was_not_asked_for() -> None:
    slow = record("took %d ms", 700, session="s", player=3, trace_id="ab" * 16, token="secret")
    line = JsonFormatter("node-1").format(slow)
    assert "\n" not in line
    assert json.loads(line) == {
        "at": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "server.x",
        "node": "node-1",
        "message": "took 700 ms",
        "session": "s",
        "player": 3,
        "trace_id": "ab" * 16,
    }


def test_what_a_message_names_is_a_field() -> None:
    lines = [
        record("%d facts of session %s wait, as player %d has said: 100 %% of %.1f MB", 4, "s-1", 7, 2.0),
        record("%s: session %s, player %d, question %d", "late", "s-2", 8, 3, session="s-3"),
        record("2 of %d sessions %s", 3, "moved"),
        record("session %(name)s", {"name": "s-4"}),
    ]
    fields = [json.loads(JsonFormatter("n").format(each)) for each in lines]
    assert [
        {name: value for name, value in each.items() if name in ("session", "player", "question")}
        for each in fields
    ] == [
        {"session": "s-1", "player": 7},
        {"session": "s-3", "player": 8, "question": 3},
        {},
        {},
    ]


def test_a_traceback_stays_on_its_line() -> None:
    try:
        int("broken")
    except ValueError:
        failed = record("crashed")
        failed.exc_info = sys.exc_info()
    line = JsonFormatter("n").format(failed)
    assert "\n" not in line
    assert "ValueError: invalid literal" in json.loads(line)["traceback"]


def test_an_event_that_comes_too_often_is_left_out_and_counted() -> None:
    now_s = 0.0
    limit = EventLimit(lambda: now_s)
    passed = [limit.filter(record("refused %s", n)) for n in range(3 * BURST)]
    assert passed == [True] * BURST + [False] * 2 * BURST
    assert limit.filter(record("another event"))
    now_s = WINDOW_S
    again = record("refused %s", 1)
    assert limit.filter(again)
    assert json.loads(JsonFormatter("n").format(again))["left_out"] == 2 * BURST
    assert TextFormatter().format(again).endswith("refused 1 (100 more of these were left out)")
    assert not hasattr(record("refused %s", 2), "left_out")


def test_a_line_names_the_request_and_the_trace_that_it_is_about() -> None:
    id_before, trace_before = current_id.set("r-1"), current.set(Trace("ab" * 16, "cd" * 8))
    try:
        lines = [record("hm"), record("slow", trace_id="ef" * 16)]
        assert all(OfRequest().filter(each) for each in lines)
    finally:
        current_id.reset(id_before)
        current.reset(trace_before)
    plain, named = (json.loads(JsonFormatter("node-1").format(each)) for each in lines)
    assert (plain["request_id"], plain["trace_id"]) == ("r-1", "ab" * 16)
    assert named["trace_id"] == "ef" * 16, "a record that says its own keeps it"
    assert TextFormatter().format(lines[0]).endswith("hm (request r-1)")
    own = record("late", request_id="r-2")
    before = current_id.set("r-1")
    assert OfRequest().filter(own)
    current_id.reset(before)
    assert json.loads(JsonFormatter("n").format(own))["request_id"] == "r-2", "it may be about another one"
    outside = record("hm")
    assert OfRequest().filter(outside)
    assert "request_id" not in vars(outside)
