from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.runs import scenario as scenarios
from loadtest.runs.load_quiz import load_quiz
from loadtest.runs.scenario import ScenarioError, load, parse

LEAST = 'description = "x"\nplayers = 10\nduration_s = 60\n'


@pytest.mark.parametrize("name", scenarios.names())
def test_the_built_in_scenarios_are_valid(name: str) -> None:
    scenario = load(name)
    assert scenario.players > 0
    assert scenario.questions > 0


def test_what_is_not_said_has_a_default() -> None:
    scenario = parse(LEAST, "x.toml")
    assert scenario.session_players == (20, 50)
    assert scenario.cut_all_at_s == ()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("colour = 1", "x.toml: no field is called 'colour'; there are description, players"),
        ("join_per_s = 0", "x.toml: join_per_s is 0, and must be a number from 1 to 1,000,000"),
        ("skill = 2", "skill is 2, and must be a number from 0 to 1"),
        ("skill = true", "skill is True, and must be a number"),
        ("probes = 1.5", "probes is 1.5, and must be a whole number from 0 to 100"),
        ("session_players = [50, 20]", "must be two whole numbers from 1 to 150,000, the smaller first"),
        ("session_players = 20", "must be two whole numbers"),
        ('cut_all_at_s = ["a"]', "must be a list of up to 100 numbers of seconds"),
        ("skill = ", "x.toml is not TOML"),
        ('answer_spread = "odd"', "answer_spread is 'odd', and must be one of lognormal, even"),
        ('answer_spread = "even"\nthink_s = 3', "think_s has no meaning when answer_spread is 'even'"),
    ],
)
def test_what_is_wrong_is_said(line: str, sentence: str) -> None:
    with pytest.raises(ScenarioError, match=f".*{sentence}.*".replace("(", r"\(").replace("[", r"\[")):
        parse(f"{LEAST}{line}\n", "x.toml")


def test_answers_that_are_spread_evenly_have_their_median_in_the_middle() -> None:
    even = parse(f'{LEAST}question_s = 2.5\nreveal_s = 0.5\nanswer_spread = "even"', "x.toml")
    assert (even.median_answer_s, even.round_s, even.rounds_s) == (1.25, 3.0, 60.0)
    assert parse(f"{LEAST}think_s = 4", "x.toml").median_answer_s == 4


def test_the_board_stays_until_the_close_unless_it_is_live() -> None:
    assert parse(LEAST, "x.toml").board == "at_close"
    assert parse(f'{LEAST}board = "live"', "x.toml").board == "live"


def test_sessions_of_a_wave_have_questions_of_their_own_and_may_go_on_for_hours() -> None:
    waves = parse(
        'description = "x"\nplayers = 10\nduration_s = 36000\nwaves = 2\nsession_questions = 8\nprobes = 0\n',
        "x.toml",
    )
    assert (waves.questions, waves.rounds_s) == (8, 184.0)
    with pytest.raises(ScenarioError, match="waves and session_questions go together"):
        parse(f"{LEAST}waves = 2\n", "x.toml")
    with pytest.raises(ScenarioError, match="no probes"):
        parse(f"{LEAST}waves = 2\nsession_questions = 1\n", "x.toml")


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ScenarioError, match=r"x\.toml: players is missing"):
        parse('description = "x"\nduration_s = 1', "x.toml")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match=r"no scenario 'stedy'; there are .*steady"):
        load("stedy")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(LEAST)
    assert load(str(path)).players == 10
    with pytest.raises(ScenarioError, match="cannot be read"):
        load(str(tmp_path / "no.toml"))


def test_the_command_line_counts_more_and_is_checked() -> None:
    scenario = parse(LEAST, "x.toml").changed(7, 23.0)
    assert (scenario.players, scenario.duration_s, scenario.questions) == (7, 23.0, 1)
    with pytest.raises(ScenarioError, match="the command line: players is 0"):
        scenario.changed(0, None)
    with pytest.raises(ScenarioError, match="at most 200 questions, which end after 4600 s"):
        scenario.changed(None, 5000.0)


def test_the_quiz_has_as_many_questions_as_fit_and_an_id_by_its_content() -> None:
    quiz = load_quiz(8, 20.0)
    assert len(quiz.data["questions"]) == len(quiz.answers) == 8
    assert quiz.id == load_quiz(8, 20.0).id
    assert quiz.id not in (load_quiz(9, 20.0).id, load_quiz(8, 10.0).id)
