"""In which order a player sees questions and choices.

The order follows from the player's seed, and the seed from the session's id and the player's number. So it is
the same on every node, in every release and after every restart, and nothing of it is stored. Clients compute
the order of choices by the same function (docs/protocol.md), so it uses nothing but 32-bit whole numbers.

How to think about it: each item gets a number that looks random, and the items are sorted by it. `_mixed`
maps 32-bit numbers one to one, so no two items of a list have the same number.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

_MASK: Final = 0xFFFF_FFFF

_QUESTIONS: Final = 0
"""Stands for the list of questions, where the number of a question stands for its choices."""


def seed_of(session_id: str, player: int, attempt: int = 1) -> int:
    """The seed of a player: 32 bits. It tells nothing that the player may not know. An attempt after the
    first has another, for the order of questions."""
    of = f"{session_id}/{player}" if attempt == 1 else f"{session_id}/{player}/{attempt}"
    return int.from_bytes(blake2b(of.encode(), digest_size=4).digest(), "big")


def order_of_choices(seed: int, question: int, count: int) -> list[int]:
    """The choices of a question, by their places in the quiz, in the order in which the player sees them.
    `question` counts from 1."""
    return _order(seed, question, count)


def order_of_questions(seed: int, count: int) -> list[int]:
    """The numbers of the questions, which count from 1, in the order in which the player gets them."""
    return [place + 1 for place in _order(seed, _QUESTIONS, count)]


def _order(seed: int, which: int, count: int) -> list[int]:
    base = _mixed((seed + which) & _MASK)
    return sorted(range(count), key=lambda place: _mixed((base + place) & _MASK))


def _mixed(number: int) -> int:
    """The last step of MurmurHash3: every bit of the number changes half the bits of the result."""
    number ^= number >> 16
    number = number * 0x85EB_CA6B & _MASK
    number ^= number >> 13
    number = number * 0xC2B2_AE35 & _MASK
    return number ^ number >> 16
