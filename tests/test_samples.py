"""The sample quizzes: valid, long enough, and showing what Fanfare can do."""

from __future__ import annotations

from collections import Counter

import pytest

from engine.domain.quiz import Quiz
from engine.domain.text import fold
from server import samples
from server.quizfile import LoadedQuiz

TYPES = {"single", "multiple", "true_false", "text", "numeric"}
SHORT = {"quick-tour"}


@pytest.fixture(scope="module")
def loaded() -> dict[str, LoadedQuiz]:
    return {sample.id: sample for sample in samples.load_all()}


@pytest.mark.parametrize("quiz_id", samples.ids())
def test_every_sample_is_valid_and_survives_the_api_format(
    quiz_id: str, loaded: dict[str, LoadedQuiz]
) -> None:
    quiz = loaded[quiz_id].quiz
    assert Quiz.problems(loaded[quiz_id].data) == []
    assert Quiz.parse(quiz.to_dict()) == quiz


@pytest.mark.parametrize("quiz_id", samples.ids())
def test_no_question_is_asked_twice(quiz_id: str, loaded: dict[str, LoadedQuiz]) -> None:
    texts = Counter(fold(question.text) for question in loaded[quiz_id].quiz.questions)
    assert [text for text, count in texts.items() if count > 1] == []


@pytest.mark.parametrize("quiz_id", sorted(set(samples.ids()) - SHORT))
def test_a_sample_is_long_and_varied(quiz_id: str, loaded: dict[str, LoadedQuiz]) -> None:
    quiz = loaded[quiz_id].quiz
    assert len(quiz.questions) >= 12
    assert quiz.description
    assert len({question.limit_ms for question in quiz.questions}) >= 2
    assert len({question.points for question in quiz.questions}) >= 2


def test_there_are_at_least_five_long_samples(loaded: dict[str, LoadedQuiz]) -> None:
    assert len(set(loaded) - SHORT) >= 5
    assert set(loaded) >= SHORT


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_every_type_of_question_occurs_in_three_samples(kind: str, loaded: dict[str, LoadedQuiz]) -> None:
    using = [sample for sample in loaded.values() if any(q.type == kind for q in sample.quiz.questions)]
    assert len(using) >= 3


def test_every_scoring_rule_occurs(loaded: dict[str, LoadedQuiz]) -> None:
    rules = {(sample.quiz.scoring.rule, sample.quiz.scoring.streak) for sample in loaded.values()}
    assert {rule for rule, _ in rules} == {"speed", "flat"}
    assert True in {streak for _, streak in rules}


def test_the_quick_tour_has_every_type_and_is_over_in_a_minute(loaded: dict[str, LoadedQuiz]) -> None:
    quiz = loaded["quick-tour"].quiz
    assert {question.type for question in quiz.questions} == TYPES
    assert sum(question.limit_ms for question in quiz.questions) <= 60_000


def test_the_right_answer_is_not_always_in_the_same_place(loaded: dict[str, LoadedQuiz]) -> None:
    for sample in loaded.values():
        places = [question.correct for question in sample.quiz.questions if question.type == "single"]
        assert len(places) < 3 or len(set(map(str, places))) >= 3, sample.id
