"""Tables of what people type, in text files that people read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
_ESCAPE = re.compile(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")


def rows(name: str, columns: int) -> Iterator[list[str]]:
    """The cells of each row. One blank beside each stroke belongs to the table, all others to the cell."""
    for line in (HERE / name).read_text().splitlines():
        if line and not line.startswith("# "):
            cells = f" {line} ".split("|")
            assert len(cells) == columns, line
            yield [_ESCAPE.sub(_meant, cell[1:-1]) for cell in cells]


def _meant(found: re.Match[str]) -> str:
    return chr(int(found[1] or found[2], 16))
