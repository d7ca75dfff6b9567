"""What is said to the nodes follows from the seed, and some seconds of it at every door do no harm."""

from __future__ import annotations

import subprocess
import sys

import trio

from tests.fuzz.grammar import UUID, Grammar

SOME_SECONDS = ("--minutes", "0.1", "--seed", "1", "--bound-ms", "1e6")
"""How long the neighbour waits is for a quiet machine to say."""


def grammar(seed: int) -> Grammar:
    return Grammar(seed, ["123456", UUID], ["a-token"], "a-secret")


def test_a_seed_says_the_same_again() -> None:
    first, again, other = grammar(1), grammar(1), grammar(2)
    said = [first.client_message() for _ in range(200)]
    assert said == [again.client_message() for _ in range(200)]
    assert said != [other.client_message() for _ in range(200)]


def test_what_is_changed_is_a_copy() -> None:
    drawn = grammar(1)
    quiz = drawn.quiz()
    before = repr(quiz)
    changed = [drawn.changed(quiz, 3) for _ in range(50)]
    assert repr(quiz) == before
    assert len({repr(each) for each in changed}) > 25


def test_good_keys_and_bad_ones_are_drawn() -> None:
    drawn = grammar(1)
    keys = {drawn.key() for _ in range(500)}
    assert {"123456", UUID} < keys
    assert any("_" in key for key in keys)


async def test_some_seconds_at_every_door_do_no_harm() -> None:
    command = (sys.executable, "-m", "tests.fuzz", *SOME_SECONDS)
    done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
    said = done.stdout.decode()
    assert done.returncode == 0, said
    assert said.count("answers of the neighbour acknowledged") == 1
