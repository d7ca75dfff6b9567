from __future__ import annotations

from loadtest.runs.spread import Spreads


def test_the_last_of_all_generators_counts_and_the_slowest_session() -> None:
    spreads = Spreads()
    spreads.take({"session": 0, "answered_at": 18.0, "spreads": [[1, 10.0, 10.5, 3], [0, 20.0, 20.2, 3]]})
    spreads.take({"session": 0, "answered_at": 19.0, "spreads": [[1, 10.25, 10.75, 2], [0, 20.1, 20.5, 2]]})
    spreads.take({"session": 1, "answered_at": None, "spreads": [[1, 50.0, 50.1, 1], [2, 70.0, 70.0, 1]]})
    assert spreads.questions() == [
        {"question": 1, "players": 6, "ms": 750.0},
        {"question": 2, "players": 1, "ms": 0.0},
    ]
    assert spreads.end() == {"players": 5, "ms": 500.0, "after_last_answer_ms": 1500.0}


def test_of_what_nobody_heard_there_is_nothing_to_tell() -> None:
    spreads = Spreads()
    spreads.take({"session": 0, "answered_at": None, "spreads": []})
    assert spreads.questions() == []
    assert spreads.end() is None
