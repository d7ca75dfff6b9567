"""Quiz files: what is read, and that every complaint names its line and its field."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.quiz import Quiz
from server import quizfile
from server.quizfile import QuizFileError, parse

GOOD = """\
title: Test
questions:
  - type: single
    text: Which one?
    choices: [a, b]
    correct: a
  - type: numeric
    text: How many?
    correct: 4
"""


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(QuizFileError) as caught:
        parse(text, "quiz.yaml")
    return [str(problem) for problem in caught.value.problems]


def complaint(text: str | bytes) -> str:
    """The only complaint about a text."""
    (only,) = problems(text)
    return only


def single(fields: str) -> str:
    """A quiz with one question of the given lines, which begin in line 3."""
    lines = fields.splitlines()
    return "title: Test\nquestions:\n" + "".join(
        ("  - " if number == 0 else "    ") + line + "\n" for number, line in enumerate(lines)
    )


class TestReading:
    def test_a_file_becomes_a_quiz_under_the_name_of_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "first-steps.yaml"
        path.write_text(GOOD, encoding="utf-8")
        loaded = quizfile.load(path)
        assert (loaded.id, loaded.file) == ("first-steps", str(path))
        assert loaded.quiz.title == "Test"
        assert Quiz.parse(loaded.data) == loaded.quiz

    @pytest.mark.parametrize("indent", [None, 2, "\t"])
    def test_json_is_read_too(self, indent: int | str | None) -> None:
        expected = parse(GOOD, "quiz.yaml")
        assert parse(json.dumps(expected.data, indent=indent), "quiz.json").quiz == expected.quiz

    def test_json_may_write_an_emoji_as_two_escapes(self) -> None:
        data = {"title": "🎉 Party", "questions": [{"type": "true_false", "text": "Yes?", "correct": True}]}
        text = json.dumps(data)
        assert "\\ud83c" in text
        assert parse(text, "quiz.json").quiz.title == "🎉 Party"

    def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(self) -> None:
        raw = b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()
        assert parse(raw, "quiz.yaml").quiz == parse(GOOD, "quiz.yaml").quiz

    def test_blocks_of_text_and_comments_are_yaml_as_usual(self) -> None:
        text = GOOD.replace("Which one?", ">\n      Which\n      one?  # no comment here")
        assert parse("# hello\n" + text, "q.yaml").quiz.questions[0].text == "Which one?  # no comment here"


class TestBareWords:
    @pytest.mark.parametrize(
        "word",
        [
            *("no", "yes", "on", "off", "y", "N", "true", "False"),
            *("1:30", "2024-01-31", "010", "1_000", "0x1F", ".inf", "1e999", "1989", "4.50", "-7", "1e3"),
        ],
    )
    def test_where_a_text_is_wanted_the_word_is_kept_as_written(self, word: str) -> None:
        quiz = parse(
            f"title: {word}\nquestions:\n"
            f"  - {{type: single, text: {word}, choices: [{word}, other], correct: {word}}}\n"
            f"  - {{type: multiple, text: q, choices: [other, {word}], correct: [{word}]}}\n"
            f"  - {{type: text, text: q, accept: [{word}]}}\n",
            "q.yaml",
        ).quiz
        one, two, three = quiz.questions
        assert (quiz.title, one.text, one.correct, two.correct, three.correct) == (word, word, 0, [1], [word])

    @pytest.mark.parametrize(
        ("written", "value"), [("4", 4), ("-273.15", -273.15), ("1e3", 1000), (".5", 0.5), ("+7", 7)]
    )
    def test_where_a_number_is_wanted_it_is_a_number(self, written: str, value: float) -> None:
        assert (
            parse(GOOD.replace("correct: 4", f"correct: {written}"), "q.yaml").quiz.questions[1].correct
            == value
        )

    @pytest.mark.parametrize("written", ["1:30", "1_000", "four", "010", "0x1F", ".inf", "1e999", "9" * 5000])
    def test_what_only_looks_like_a_number_is_refused_as_one(self, written: str) -> None:
        said = complaint(GOOD.replace("correct: 4", f"correct: {written}"))
        assert said.startswith("quiz.yaml:9: questions[1].correct: must be a number")

    @pytest.mark.parametrize("written", ["yes", "no", "on", "1", '"true"'])
    def test_only_true_and_false_are_booleans(self, written: str) -> None:
        said = complaint(single(f"type: true_false\ntext: q\ncorrect: {written}"))
        assert said.startswith("quiz.yaml:5: questions[0].correct: must be true or false")

    @pytest.mark.parametrize("nothing", ["", "null", "~"])
    def test_an_empty_choice_is_not_a_text(self, nothing: str) -> None:
        said = complaint(single(f"type: text\ntext: q\naccept:\n  - a\n  - {nothing}"))
        assert said.startswith("quiz.yaml:7: questions[0].accept[1]: must be text")


class TestFieldErrors:
    def test_every_problem_is_listed_with_line_and_field(self) -> None:
        text = single("type: single\ntext: ''\nchoices:\n  - a\n  - a\ncorrect: c\ncolour: red\npoints: -1")
        places = {tuple(said.split(": ")[:2]) for said in problems(text)}
        assert places == {
            ("quiz.yaml:4", "questions[0].text"),
            ("quiz.yaml:7", "questions[0].choices[1]"),
            ("quiz.yaml:8", "questions[0].correct"),
            ("quiz.yaml:9", "questions[0].colour"),
            ("quiz.yaml:10", "questions[0].points"),
        }

    def test_a_missing_field_is_named_at_the_line_of_its_question(self) -> None:
        said = complaint(GOOD.replace("    text: How many?\n", ""))
        assert said.startswith("quiz.yaml:7: questions[1].text: ")

    def test_a_missing_title_is_named_at_the_top(self) -> None:
        assert complaint(GOOD.replace("title: Test\n", "")).startswith("quiz.yaml:1: title: ")

    def test_the_column_is_known_as_well(self) -> None:
        with pytest.raises(QuizFileError) as caught:
            parse(GOOD.replace("[a, b]", "[a, b, b]"), "q.yaml")
        (problem,) = caught.value.problems
        assert (problem.code, problem.line, problem.column) == ("duplicate_choice", 5, 21)
        assert problem.path == "questions[0].choices[2]"

    def test_a_name_given_twice_is_refused(self) -> None:
        said = complaint(GOOD.replace("    correct: 4\n", "    correct: 4\n    correct: 5\n"))
        assert said == "quiz.yaml:10: questions[1].correct: is given twice, first in line 9"

    def test_questions_beyond_the_limit_are_refused(self) -> None:
        text = "title: Test\nquestions:\n" + "- {type: true_false, text: q, correct: true}\n" * 201
        assert complaint(text).startswith("quiz.yaml:2: questions: ")


class TestSyntaxErrors:
    @pytest.mark.parametrize(
        ("text", "line", "hint"),
        [
            ("title: a\ntext: Which is right: a or b?\n", 2, "in quotes"),
            ("title: a\n\tlanguage: en\n", 2, "spaces, not with tabs"),
            ("title: a\nlanguage: 'en\nquestions: []\n", 2, "never closed"),
            ('title: a\ndescription: "So" they said\n', 2, "quotes"),
            ("title: a\nlanguage\nquestions: []\n", 2, "colon"),
            ("title: a\nquestions: [a, b\n", 3, "bracket"),
            ('title: a\nlanguage: "e\\qn"\n', 2, "backslash"),
            ("title: a\nlanguage: @en\n", 2, "in quotes"),
            ("title: a\nlanguage: !en\n", 2, "in quotes"),
            ("title: a\n---\ntitle: b\n", 2, "one quiz"),
            ("title: a\n? [b]\n: c\n", 2, "word"),
            ("title: a\nlanguage: \x07\n", 2, "U+0007"),
            (b"title: a\nlanguage: \xff\n", 2, "UTF-8"),
            ('{"title": "\\ud83c"}', 1, "half a character"),
            ("- title: a\n", 1, "title: Capitals"),
        ],
    )
    def test_each_names_its_line_and_what_to_do(self, text: str | bytes, line: int, hint: str) -> None:
        said = complaint(text)
        assert said.startswith(f"quiz.yaml:{line}: ")
        assert hint in said

    @pytest.mark.parametrize("text", ["", "\n\n", "# nothing yet\n", "---\n"])
    def test_an_empty_file_is_no_quiz(self, text: str) -> None:
        assert complaint(text).startswith("quiz.yaml")

    def test_a_file_that_cannot_be_read_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(QuizFileError, match=r"absent\.yaml: cannot be read: No such file"):
            quizfile.load(tmp_path / "absent.yaml")
        with pytest.raises(QuizFileError, match="cannot be read: Is a directory"):
            quizfile.load(tmp_path)


class TestBounds:
    @pytest.mark.parametrize(
        "text",
        [
            "title: &a x\n",
            "title: *a\n",
            "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n",
            "- *bold*\n",
        ],
    )
    def test_aliases_are_refused_so_nothing_can_explode(self, text: str) -> None:
        assert "must stand in quotes" in complaint(text) or "title: Capitals" in complaint(text)

    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            (GOOD + "  - {type: true_false, text: q, correct: true}\n" * 50_000, "longer than"),
            ("questions:\n" + "- {type: x}\n" * 50_000, "more than any quiz has"),
            ("title: " + "[" * 500_000, "nested this deeply"),
            ("a: {" * 9 + "}" * 9, "nested this deeply"),
            ("title: 9" + "9" * 500_000, "characters"),
        ],
        ids=["long", "many", "deep", "deeper-than-a-quiz", "digits"],
    )
    def test_what_is_far_too_large_is_refused_quickly(self, text: str, hint: str) -> None:
        began = time.process_time()
        assert any(hint in said for said in problems(text))
        assert time.process_time() - began < 3

    def test_a_file_is_not_read_past_the_bound(self, tmp_path: Path) -> None:
        path = tmp_path / "endless.yaml"
        with path.open("wb") as file:
            file.truncate(10 * quizfile.FILE_BYTES_MAX)
        with pytest.raises(QuizFileError, match="longer than"):
            quizfile.load(path)

    def test_the_longest_quiz_that_is_allowed_fits(self) -> None:
        question = {
            "type": "text",
            "text": "q" * 300,
            "time_limit_s": 20,
            "points": 1000,
            "accept": [f"{number:0100}" for number in range(20)],
        }
        text = json.dumps({"title": "Long", "questions": [question] * 200})
        assert len(parse(text, "quiz.json").quiz.questions) == 200


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("ab12:-[]{}&*!?'\"|>#,% \t\n\\.~")), max_size=60))
def test_whatever_the_text_every_problem_has_a_sentence(text: str) -> None:
    with pytest.raises(QuizFileError) as caught:
        parse(text, "quiz.yaml")
    assert caught.value.problems
    assert all(problem.message for problem in caught.value.problems)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=6,
        ),
        max_size=5,
    )
)
def test_any_json_is_refused_with_a_line_or_read(data: dict[str, object]) -> None:
    for text in (json.dumps(data), json.dumps(data, ensure_ascii=False, indent=1)):
        with pytest.raises(QuizFileError) as caught:
            parse(text, "quiz.json")
        assert all(problem.line for problem in caught.value.problems)
