"""What another release has stored is read, as long as it can be used at all."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain import questions, quiz
from engine.domain.answer_keys import Correction, corrected
from engine.domain.errors import DomainError
from engine.domain.quiz import Quiz
from engine.domain.settings import Settings
from tests.domain.making import ONE_OF_EACH, quiz_data, quiz_of
from tests.domain.test_quiz import JSON

SETTINGS = Settings(pace="auto", lobby_ms=5)


def test_a_setting_of_a_later_release_is_passed_over() -> None:
    document = SETTINGS.to_dict() | {"future": 1, "also": {"a": []}}
    assert Settings.stored(document) == SETTINGS
    with pytest.raises(DomainError):
        Settings.parse(document)


def test_a_setting_that_an_earlier_release_did_not_know_has_its_default() -> None:
    assert Settings.stored({"pace": "auto"}) == Settings(pace="auto", foldings=1, get_ready_ms=0)
    assert Settings.stored({}) == Settings(foldings=1, get_ready_ms=0)


def test_text_is_matched_as_it_was_when_the_session_was_opened() -> None:
    document = quiz_of({"type": "text", "text": "Typed?", "accept": ["Lisbon"]}).to_dict()
    for question in document["questions"]:  # type: ignore[attr-defined]
        del question["match"]  # as an earlier release has stored it
    quiz = Quiz.stored(document)
    judged = {
        settings.foldings: settings.applied_to(quiz).questions[0].judge("Lisbon.")
        for settings in (Settings.stored({}), Settings(), Settings.stored({"foldings": 99}))
    }
    assert judged == {1: False, 2: True, 99: True}


@pytest.mark.parametrize(
    ("name", "value"),
    [("player_limit", 10**9), ("reveal_ms", 1), ("lobby_ms", 10**12), ("host_away_s", 1)],
)
def test_settings_that_break_a_rule_of_today_stay_as_they_are(name: str, value: object) -> None:
    for pace in ("host", "auto"):
        settings = Settings.stored({"pace": pace, name: value})
        assert getattr(settings, name) == value
        assert Settings.stored(settings.to_dict()) == settings


@pytest.mark.parametrize(
    "document",
    [
        None,
        5,
        "host",
        [],
        {"pace": "of a later release"},
        {"player_limit": "many"},
        {"player_limit": None},
        {"player_limit": 2**64},
        {"reveal_ms": -(2**64)},
        {"early_close": 1},
        {"scoring": "of a later release"},
        {"streak": "yes"},
        {"names": 5},
    ],
)
def test_settings_that_cannot_be_used_are_an_error(document: object) -> None:
    with pytest.raises(DomainError):
        Settings.stored(document)


@given(JSON)
def test_any_json_that_is_stored_is_settings_or_an_error(data: object) -> None:
    try:
        settings = Settings.stored(data)
    except DomainError:
        return
    assert Settings.stored(settings.to_dict()) == settings
    orjson.dumps(settings.to_dict())


def test_fields_of_a_later_release_are_passed_over_in_a_quiz_too() -> None:
    good = quiz_of()
    document: Any = good.to_dict() | {"tags": ["new"]}
    document["scoring"] = {**document["scoring"], "bonus": 5}
    document["questions"] = [{**each, "picture": "new.png"} for each in document["questions"]]
    assert Quiz.stored(document) == good
    with pytest.raises(DomainError):
        Quiz.parse(document)


def test_a_rule_that_was_made_stricter_leaves_stored_quizzes_readable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = quiz_of(*ONE_OF_EACH, *ONE_OF_EACH, title="A title")
    for module, name, bound in (
        (quiz, "TITLE_MAX", 1),
        (quiz, "QUESTIONS_MAX", 1),
        (questions, "TEXT_MAX", 1),
        (questions, "CHOICES_MIN", 7),
        (questions, "CHOICES_MAX", 1),
        (questions, "CHOICE_MAX", 0),
        (questions, "SPELLINGS_MAX", 1),
        (questions, "SPELLING_MAX", 1),
        (questions, "TIME_LIMIT_MAX_S", 2),
        (questions, "POINTS_MAX", 1),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, bound)
            with pytest.raises(DomainError):
                Quiz.parse(good.to_dict())
            assert Quiz.stored(good.to_dict()) == good


def test_a_correction_of_a_stored_quiz_holds_whatever_the_rules_have_become(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = quiz_of()
    monkeypatch.setattr(questions, "CHOICES_MAX", 1)
    correction = Correction(1, 1, {"correct": "b"}, {"correct": "c"}, "", "", 0)
    assert corrected(good, [correction]).questions[0].correct == 2


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"title": "No questions"},
        quiz_data(questions=[]),
        quiz_data(questions=5),
        quiz_data({"type": "of a later release", "text": "?"}),
        quiz_data({"type": "single", "text": "?", "choices": "ab", "correct": "a"}),
        quiz_data({"type": "single", "text": "?", "choices": ["a", "b"], "correct": "c"}),
        quiz_data({"type": "single", "text": "?", "choices": [], "correct": "a"}),
        quiz_data({"type": "multiple", "text": "?", "choices": [], "correct": ["a"]}),
        quiz_data({"type": "numeric", "text": "?", "correct": "many"}),
        quiz_data(time_limit_s=3, scoring={"rule": "of a later release"}),
        quiz_data({"type": "true_false", "text": "?", "correct": True, "time_limit_s": 1e300}),
        quiz_data({"type": "true_false", "text": "?", "correct": True, "points": 2**64}),
        quiz_data(title="half a \ud83c"),
    ],
)
def test_a_quiz_that_cannot_be_used_is_an_error(document: object) -> None:
    with pytest.raises(DomainError):
        Quiz.stored(document)


_MEMBERS = (
    "title",
    "questions",
    "scoring",
    "type",
    "text",
    "choices",
    "correct",
    "accept",
    "time_limit_s",
    "x",
)


@given(
    st.lists(st.dictionaries(st.sampled_from(_MEMBERS), JSON, max_size=4), max_size=3),
    st.sampled_from(ONE_OF_EACH),
    st.dictionaries(st.sampled_from(_MEMBERS), JSON, max_size=2),
)
def test_any_json_that_is_stored_is_a_quiz_or_an_error(
    entries: list[dict[str, Any]], base: dict[str, Any], changes: dict[str, Any]
) -> None:
    try:
        read = Quiz.stored(quiz_data({**base, **changes}, *entries, **changes))
    except DomainError as error:
        str(error).encode()
        return
    assert Quiz.stored(read.to_dict()) == read
    orjson.dumps(read.to_dict())
