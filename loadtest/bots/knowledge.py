"""What bots answer: right, wrong, with a typo, or by guessing when nobody told them anything."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from fanfare_client.seat import Message

_WORDS = ("honey", "Paris", "Mercury", "blue", "seven", "Danube", "perro", "I don't know")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def withheld(question: Message) -> bool:
    """Whether its choices are still to come, in a `question` of their own."""
    return question["choices"] is None and question["type"] in ("single", "multiple")


def opens_in_s(question: Message) -> float:
    """How long a question takes no answers yet."""
    return (question.get("opens_in_ms") or 0) / 1000


class Knowledge:
    """The right answers of a quiz, for bots that know them. Without a quiz there are none.

    Args:
        quiz: as a quiz file or the API has it; its questions in their order.
    """

    def __init__(self, quiz: Mapping[str, Any] | None = None) -> None:
        self._questions: Sequence[Mapping[str, Any]] = quiz["questions"] if quiz else ()

    def right(self, question: Message) -> object | None:
        """The right `choice` for a `question` message; None when it is not known."""
        number = question["number"]
        if number > len(self._questions):
            return None
        known = self._questions[number - 1]
        if known["type"] != question["type"] or known["text"] != question["text"]:
            return None
        match known["type"]:
            case "single":
                return _place(question["choices"], known["correct"])
            case "multiple":
                places = [_place(question["choices"], text) for text in known["correct"]]
                return None if None in places else sorted(place for place in places if place is not None)
            case "text":
                return str(known["accept"][0])
            case _:
                correct: object = known["correct"]
                return correct


def _place(choices: Sequence[str], text: str) -> int | None:
    return choices.index(text) if text in choices else None


def wrong(question: Message, right: object, rng: random.Random) -> object:
    """A choice that fits the question and is not the right one."""
    while True:
        choice = guess(question, rng)
        if choice != right and not (isinstance(right, str) and str(choice).lower() == right.lower()):
            return choice


def guess(question: Message, rng: random.Random) -> object:
    """Any choice that fits the question."""
    match question["type"]:
        case "single":
            return rng.randrange(len(question["choices"]))
        case "multiple":
            count = len(question["choices"])
            return sorted(rng.sample(range(count), rng.randint(1, count)))
        case "true_false":
            return rng.random() < 0.5
        case "text":
            return rng.choice(_WORDS)
        case _:
            return rng.randint(0, 2_000)


def mistyped(text: str, rng: random.Random) -> str:
    """As fingers do it: half of the time only case or spaces, else a letter too many, missing or wrong."""
    at = rng.randrange(len(text))
    match rng.randrange(6):
        case 0:
            return text.upper()
        case 1:
            return f" {text}  "
        case 2:
            return text.swapcase()
        case 3:
            return text[:at] + text[at:][:1] + text[at:]
        case 4 if len(text) > 1:
            return text[:at] + text[at + 1 :]
        case _:
            return text[:at] + rng.choice(_LETTERS) + text[at + 1 :]
