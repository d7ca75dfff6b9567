"""How the domain says no.

Two kinds, told apart by whose doing it was:

- `DomainError`: something was described that cannot exist (a quiz without a right answer, a name of
  ten thousand characters). Whoever described it gets a code, a sentence and the path of the field.
- `Refusal`: a well-formed request that the rules turn down (an answer after the close). It is a value,
  not an exception, because in a live quiz refusals are ordinary traffic.
"""

from __future__ import annotations

from dataclasses import dataclass


class DomainError(Exception):
    """Something that cannot be built valid.

    Args:
        code: stable, machine-readable, snake_case. docs/protocol.md lists them all.
        message: one sentence for a person.
        path: the offending field, as in ``questions[2].choices[0]``; None when it is the whole.
    """

    def __init__(self, code: str, message: str, path: str | None = None) -> None:
        super().__init__(code, message, path)
        self.code = code
        self.message = message
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that the rules turn down. Nothing has changed.

    `code` is stable and machine-readable; `message` is one sentence for a person; `path` names the member of
    the request that is wrong, if one is.
    """

    code: str
    message: str
    path: str | None = None
