from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.errors import DomainError
from engine.domain.quiz import Quiz
from engine.domain.session import Settings
from tests.domain.making import ONE_OF_EACH, quiz_data, singles

SINGLE, MULTIPLE, TRUE_FALSE, TYPED, NUMERIC = ONE_OF_EACH
GONE = object()
"""Stands for a field that is left out."""


def changed(question: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {name: value for name, value in {**question, **fields}.items() if value is not GONE}


def problem(data: object) -> tuple[str, str | None]:
    with pytest.raises(DomainError) as caught:
        Quiz.parse(data)
    assert caught.value.message
    first = Quiz.problems(data)[0]
    assert (first.code, first.path, first.message) == (
        caught.value.code,
        caught.value.path,
        caught.value.message,
    )
    return caught.value.code, caught.value.path


def test_what_is_left_out_has_its_default() -> None:
    quiz = Quiz.parse({"title": "T", "questions": [changed(SINGLE)]})
    assert (quiz.description, quiz.language) == ("", "en")
    assert (quiz.scoring.rule, quiz.scoring.streak) == ("speed", False)
    (question,) = quiz.questions
    assert (question.limit_ms, question.points) == (20_000, 1000)


def test_texts_are_composed_and_trimmed() -> None:
    quiz = Quiz.parse(
        quiz_data(changed(SINGLE, text=" Cafe\u0301?\r\nYes. ", choices=[" e\u0301 ", "b"], correct="\u00e9"))
    )
    assert quiz.questions[0].text == "Café?\nYes."
    assert quiz.questions[0].correct == 0


@pytest.mark.parametrize("data", [None, [], "quiz", 5, True, 1.5])
def test_a_quiz_is_a_mapping(data: object) -> None:
    assert problem(data) == ("invalid_quiz", None)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("title", GONE, "missing_field"),
        ("title", "", "bad_field"),
        ("title", " \n ", "bad_field"),
        ("title", "x" * 121, "bad_field"),
        ("title", "a\x00b", "bad_field"),
        ("title", "a\ud800b", "bad_field"),
        ("title", 5, "bad_field"),
        ("title", None, "bad_field"),
        ("description", "x" * 501, "bad_field"),
        ("description", [], "bad_field"),
        ("language", "", "bad_field"),
        ("language", "english please", "bad_field"),
        ("language", "e", "bad_field"),
        ("language", "en\n", None),
        ("language", False, "bad_field"),
        ("scoring", None, "bad_field"),
        ("scoring", "flat", "bad_field"),
        ("questions", GONE, "missing_field"),
        ("questions", None, "bad_field"),
        ("questions", {}, "bad_field"),
        ("questions", "many", "bad_field"),
        ("questions", [], "no_questions"),
        ("tittle", "x", "unknown_field"),
        ("\ud800", "x", "unknown_field"),
    ],
)
def test_fields_of_a_quiz(field: str, value: object, code: str | None) -> None:
    data = changed(quiz_data(), **{field: value})
    if code is None:
        assert Quiz.parse(data).to_dict()[field] == str(value).strip()
    else:
        path = "\\ud800" if field == "\ud800" else field
        assert problem(data) == (code, path)


@pytest.mark.parametrize(
    ("scoring", "code", "path"),
    [
        ({"rule": "fast"}, "bad_field", "scoring.rule"),
        ({"rule": ["flat"]}, "bad_field", "scoring.rule"),
        ({"streak": 1}, "bad_field", "scoring.streak"),
        ({"bonus": True}, "unknown_field", "scoring.bonus"),
    ],
)
def test_fields_of_scoring(scoring: object, code: str, path: str) -> None:
    assert problem(quiz_data(scoring=scoring)) == (code, path)


BAD_QUESTIONS: list[tuple[Any, str, str]] = [
    (None, "bad_field", ""),
    ([], "bad_field", ""),
    ("What?", "bad_field", ""),
    (changed(SINGLE, type=GONE), "missing_field", "type"),
    (changed(SINGLE, type="essay"), "bad_field", "type"),
    (changed(SINGLE, type=["single"]), "bad_field", "type"),
    (changed(SINGLE, text=GONE), "missing_field", "text"),
    (changed(SINGLE, text="x" * 301), "bad_field", "text"),
    (changed(SINGLE, hint="no"), "unknown_field", "hint"),
    (changed(SINGLE, tolerance=1), "unknown_field", "tolerance"),
    (changed(TRUE_FALSE, choices=["a", "b"]), "unknown_field", "choices"),
    *(
        (changed(SINGLE, time_limit_s=bad), "bad_field", "time_limit_s")
        for bad in (0, -1, 0.999, 600.001, 601)
    ),
    *((changed(SINGLE, time_limit_s=bad), "bad_field", "time_limit_s") for bad in (1.0005, "20", None, True)),
    *(
        (changed(SINGLE, time_limit_s=bad), "bad_field", "time_limit_s")
        for bad in (math.nan, math.inf, 10**400)
    ),
    *(
        (changed(SINGLE, points=bad), "bad_field", "points")
        for bad in (-1, 10_001, 1.5, "1", True, None, 10**5000)
    ),
    (changed(SINGLE, choices=GONE), "missing_field", "choices"),
    (changed(SINGLE, choices="ab"), "bad_field", "choices"),
    (changed(SINGLE, choices=["b"]), "bad_field", "choices"),
    (changed(SINGLE, choices=list("abcdefghi")), "bad_field", "choices"),
    (changed(SINGLE, choices=["a", 1989]), "bad_field", "choices[1]"),
    (changed(SINGLE, choices=["", "b"]), "bad_field", "choices[0]"),
    (changed(SINGLE, choices=["b", "x" * 121]), "bad_field", "choices[1]"),
    (changed(SINGLE, choices=["a", "b", "a"]), "duplicate_choice", "choices[2]"),
    (changed(SINGLE, choices=["b", " b "]), "duplicate_choice", "choices[1]"),
    (changed(SINGLE, correct=GONE), "no_right_answer", "correct"),
    (changed(SINGLE, correct=None), "no_right_answer", "correct"),
    (changed(SINGLE, correct="z"), "no_right_answer", "correct"),
    (changed(SINGLE, correct=""), "no_right_answer", "correct"),
    (changed(SINGLE, correct="b" * 1_000_000), "no_right_answer", "correct"),
    (changed(SINGLE, correct=1), "bad_field", "correct"),
    (changed(SINGLE, correct=["b"]), "bad_field", "correct"),
    (changed(MULTIPLE, correct=GONE), "no_right_answer", "correct"),
    (changed(MULTIPLE, correct=[]), "no_right_answer", "correct"),
    (changed(MULTIPLE, correct="a"), "bad_field", "correct"),
    (changed(MULTIPLE, correct=["a", "z"]), "no_right_answer", "correct[1]"),
    (changed(MULTIPLE, correct=["a", "b", "a"]), "duplicate_choice", "correct[2]"),
    (changed(MULTIPLE, correct=["a", 2]), "bad_field", "correct[1]"),
    (changed(MULTIPLE, correct=["a"] * 9), "bad_field", "correct"),
    (changed(TRUE_FALSE, correct=GONE), "no_right_answer", "correct"),
    (changed(TRUE_FALSE, correct="true"), "bad_field", "correct"),
    (changed(TRUE_FALSE, correct=1), "bad_field", "correct"),
    (changed(TYPED, accept=GONE), "no_right_answer", "accept"),
    (changed(TYPED, accept=[]), "no_right_answer", "accept"),
    (changed(TYPED, accept="Sampa"), "bad_field", "accept"),
    (changed(TYPED, accept=[str(n) for n in range(21)]), "bad_field", "accept"),
    (changed(TYPED, accept=["x" * 101]), "bad_field", "accept[0]"),
    (changed(TYPED, accept=["ok", 7]), "bad_field", "accept[1]"),
    (changed(TYPED, accept=["Sampa", "SÃMPA"]), "duplicate_choice", "accept[1]"),
    (changed(TYPED, accept=["\u0301"]), "bad_field", "accept[0]"),
    (changed(NUMERIC, correct=GONE), "no_right_answer", "correct"),
    *((changed(NUMERIC, correct=bad), "bad_field", "correct") for bad in ("1", True, [1], math.nan, 10**400)),
    *(
        (changed(NUMERIC, tolerance=bad), "bad_field", "tolerance")
        for bad in (-1, "1", None, False, math.inf)
    ),
]


@pytest.mark.parametrize(("question", "code", "path"), BAD_QUESTIONS)
def test_a_bad_question_is_refused_at_the_right_place(question: Any, code: str, path: str) -> None:
    full = f"questions[1].{path}" if path else "questions[1]"
    assert problem(quiz_data(SINGLE) | {"questions": [SINGLE, question]}) == (code, full)


@pytest.mark.parametrize("limit_s", [1, 600, 1.5, 2.125, 20.0, 599.999])
def test_time_limits_are_kept_to_the_millisecond(limit_s: float) -> None:
    quiz = Quiz.parse(quiz_data(changed(SINGLE, time_limit_s=limit_s)))
    assert quiz.questions[0].limit_ms == round(limit_s * 1000)
    assert quiz.to_dict()["questions"][0]["time_limit_s"] == limit_s  # type: ignore[index]


def test_200_questions_are_allowed() -> None:
    assert len(Quiz.parse(quiz_data(*singles(200))).questions) == 200


class Untouchable(dict[str, object]):
    """A question that nobody may look at."""

    def __getitem__(self, key: str) -> object:
        raise AssertionError("looked at")

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("looked at")


def test_fifty_thousand_questions_are_refused_unseen() -> None:
    data = quiz_data() | {"questions": [Untouchable()] * 50_000}
    assert problem(data) == ("too_many_questions", "questions")


def test_an_unknown_field_is_answered_with_the_known_ones() -> None:
    (only,) = Quiz.problems(quiz_data(tittle="x"))
    assert str(only) == (
        "tittle: 'tittle' is not a field here; known are: title, description, language, scoring, questions"
    )


def test_all_problems_are_listed_in_order() -> None:
    data = quiz_data(
        changed(SINGLE, choices=["a", "a"], correct="z", points=-1),
        changed(MULTIPLE, correct=["x", "y", "a"]),
        changed(TYPED, accept=["", "", "ok"]),
        title="",
        scoring={"rule": "?"},
    )
    assert [(error.code, error.path) for error in Quiz.problems(data)] == [
        ("bad_field", "title"),
        ("bad_field", "scoring.rule"),
        ("bad_field", "questions[0].points"),
        ("duplicate_choice", "questions[0].choices[1]"),
        ("no_right_answer", "questions[0].correct"),
        ("no_right_answer", "questions[1].correct[0]"),
        ("no_right_answer", "questions[1].correct[1]"),
        ("bad_field", "questions[2].accept[0]"),
        ("bad_field", "questions[2].accept[1]"),
    ]


def test_at_most_fifty_problems_are_listed() -> None:
    assert len(Quiz.problems(quiz_data() | {"questions": [None] * 200})) == 50
    assert Quiz.problems(quiz_data()) == []


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Z")), min_size=1, max_size=20)
WORDS = st.lists(st.text("abcdefgh é", min_size=1, max_size=6).filter(str.strip), min_size=2, max_size=8)


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["single", "multiple", "true_false", "text", "numeric"]))
    made: dict[str, Any] = {"type": kind, "text": draw(TEXT)}
    if draw(st.booleans()):
        made["time_limit_s"] = draw(st.integers(1_000, 600_000).map(lambda ms: ms / 1000))
    if draw(st.booleans()):
        made["points"] = draw(st.integers(0, 10_000))
    if kind in ("single", "multiple"):
        choices = list(dict.fromkeys(word.strip() for word in draw(WORDS)))
        made["choices"] = choices if len(choices) > 1 else ["a", "b"]
        right = st.sampled_from(made["choices"])
        made["correct"] = draw(right if kind == "single" else st.lists(right, min_size=1, unique=True))
    elif kind == "true_false":
        made["correct"] = draw(st.booleans())
    elif kind == "text":
        made["accept"] = draw(
            st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=5, unique=True)
        )
    else:
        finite = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
        made["correct"] = draw(finite)
        made["tolerance"] = draw(finite.map(abs))
    return made


QUIZZES = st.fixed_dictionaries(
    {"title": TEXT, "questions": st.lists(questions(), min_size=1, max_size=4)},
    optional={
        "description": st.just("") | TEXT,
        "language": st.sampled_from(["en", "pt-BR", "zh-Hant-TW"]),
        "scoring": st.fixed_dictionaries(
            {}, optional={"rule": st.sampled_from(["speed", "flat"]), "streak": st.booleans()}
        ),
    },
)


@given(QUIZZES)
def test_a_quiz_survives_its_document(data: dict[str, Any]) -> None:
    quiz = Quiz.parse(data)
    document = quiz.to_dict()
    assert Quiz.parse(document) == quiz
    assert Quiz.parse(json.loads(json.dumps(document))) == quiz
    assert Quiz.parse(document).to_dict() == document


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**4000)])
    | st.floats()
    | st.text(st.characters(codec=None), max_size=8)
    | st.sampled_from(["single", "text", "a", "b", "speed"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["title", "questions", "type", "text", "choices", "correct", "accept"])
            | st.text(max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def only_says_no(data: object) -> None:
    problems = Quiz.problems(data)
    for error in problems:
        str(error).encode()
        assert len(str(error)) < 500
    if problems:
        assert problem(data) == (problems[0].code, problems[0].path)
    else:
        assert Quiz.parse(Quiz.parse(data).to_dict()) == Quiz.parse(data)


@given(JSON)
def test_any_json_is_a_quiz_or_an_error(data: object) -> None:
    only_says_no(data)


@given(QUIZZES, JSON, st.data())
@settings(max_examples=200)
def test_a_quiz_with_anything_anywhere_is_a_quiz_or_an_error(
    quiz: Any, anything: object, data: st.DataObject
) -> None:
    node = quiz
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            node[key] = anything
            break
        node = node[key]
    only_says_no(quiz)


def test_keys_that_are_not_text_are_unknown_fields() -> None:
    data: dict[Any, Any] = {**quiz_data(), 5: "x"}
    assert problem(data) == ("unknown_field", "5")


# Settings


def test_settings_have_defaults() -> None:
    assert Settings.parse({}) == Settings()
    assert Settings().to_dict() == {
        "pace": "host",
        "player_limit": 10_000,
        "reveal_ms": 5_000,
        "lobby_ms": None,
        "board": "at_close",
        "get_ready_ms": 3_000,
        "reading_ms": 0,
        "early_close": True,
        "scoring": None,
        "streak": None,
        "host_away_s": None,
        "names": "chosen",
        "results_public": False,
        "name_filter": True,
        "approval": False,
        "shuffle_choices": False,
        "shuffle_questions": False,
        "identity": "optional",
        "late_join": "current",
        "extra_time_max": 4,
        "foldings": 2,
        "open_from": None,
        "open_ms": None,
        "untimed": False,
        "reveal": "each",
        "attempts": 1,
    }


@pytest.mark.parametrize(
    ("data", "code", "path"),
    [
        ([], "bad_field", "settings"),
        (None, "bad_field", "settings"),
        ({"pace": "quick"}, "bad_field", "settings.pace"),
        ({"pace": None}, "bad_field", "settings.pace"),
        ({"player_limit": 0}, "bad_field", "settings.player_limit"),
        ({"player_limit": 200_001}, "bad_field", "settings.player_limit"),
        ({"player_limit": True}, "bad_field", "settings.player_limit"),
        ({"reveal_ms": 99}, "bad_field", "settings.reveal_ms"),
        ({"reveal_ms": 1.5}, "bad_field", "settings.reveal_ms"),
        ({"lobby_ms": 5}, "bad_field", "settings.lobby_ms"),
        ({"get_ready_ms": 10_001}, "bad_field", "settings.get_ready_ms"),
        ({"reading_ms": -1}, "bad_field", "settings.reading_ms"),
        ({"pace": "auto", "lobby_ms": "5"}, "bad_field", "settings.lobby_ms"),
        ({"board": "never"}, "bad_field", "settings.board"),
        ({"early_close": 0}, "bad_field", "settings.early_close"),
        ({"scoring": "fast"}, "bad_field", "settings.scoring"),
        ({"streak": 1}, "bad_field", "settings.streak"),
        ({"host_away_s": 4}, "bad_field", "settings.host_away_s"),
        ({"host_away_s": 3_601}, "bad_field", "settings.host_away_s"),
        ({"pace": "auto", "host_away_s": 60}, "bad_field", "settings.host_away_s"),
        ({"names": "none"}, "bad_field", "settings.names"),
        ({"speed": 1}, "unknown_field", "settings.speed"),
    ],
)
def test_bad_settings(data: object, code: str, path: str) -> None:
    with pytest.raises(DomainError) as caught:
        Settings.parse(data, "settings")
    assert (caught.value.code, caught.value.path) == (code, path)


def test_settings_cannot_be_built_wrong_by_hand_either() -> None:
    with pytest.raises(DomainError) as caught:
        Settings(reveal_ms=-1)
    assert caught.value.path == "reveal_ms"


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "player_limit": st.integers(1, 200_000),
            "reveal_ms": st.integers(100, 600_000),
            "board": st.sampled_from(["at_close", "live"]),
            "early_close": st.booleans(),
            "scoring": st.sampled_from([None, "speed", "flat"]),
            "streak": st.sampled_from([None, True, False]),
            "names": st.sampled_from(["chosen", "given"]),
        },
    ),
    st.none() | st.integers(0, 86_400_000),
)
def test_settings_survive_their_document(data: dict[str, object], lobby_ms: int | None) -> None:
    made = Settings.parse({**data, "pace": "auto", "lobby_ms": lobby_ms})
    assert Settings.parse(made.to_dict()) == made


@given(JSON)
def test_any_json_is_settings_or_an_error(data: object) -> None:
    try:
        Settings.parse(data)
    except DomainError as error:
        str(error).encode()  # what it says can be sent
