"""The quizzes that come with Fanfare. A file's name without its ending is the id of its quiz."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

from server import quizfile


def ids() -> list[str]:
    """The ids of all sample quizzes, in alphabetical order."""
    return [name.removesuffix(".yaml") for name in _names()]


def load_all() -> Iterator[quizfile.LoadedQuiz]:
    """Read every sample quiz from the installed package, in the order of `ids`."""
    folder = resources.files(__package__)
    for name in _names():
        yield quizfile.parse((folder / name).read_bytes(), name)


def _names() -> list[str]:
    entries = resources.files(__package__).iterdir()
    return sorted(entry.name for entry in entries if entry.name.endswith(".yaml"))
