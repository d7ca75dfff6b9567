"""The files of the web pages, as they lie in `server/web`: read once, packed once, and under one address."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources.abc import Traversable
from posixpath import dirname, normpath

CONTENT_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
"""By the ending of a file's name. Files with other endings are not served."""

DIGEST_CHARS = 16

_IMPORT = re.compile(
    r"""^\s*(?:import|(?:import|export)\b[^"';]*\bfrom)\s*["'](\.{1,2}/[^"']+)["']""", re.MULTILINE
)
"""Of one module by another. What is imported while a page runs is not among them."""


@dataclass(frozen=True, slots=True)
class File:
    """What one address answers. `packed` is the body as gzip has it, None where that is no shorter; `digest`
    is of the body."""

    content_type: str
    body: bytes
    packed: bytes | None
    digest: bytes

    @classmethod
    def of(cls, name: str, body: bytes) -> File:
        packed = gzip.compress(body, mtime=0)
        kept = packed if len(packed) < len(body) else None
        return cls(CONTENT_TYPES[_ending(name)], body, kept, sha256(body).digest())


class Assets:
    """Everything in the folder and in the folders within it, but not deeper.

    All but the pages is under one address that follows from what is in the files, so that modules find each
    other by relative addresses and a browser may keep them forever.

    Raises ValueError if a module imports another that is not there.
    """

    def __init__(self, web: Traversable) -> None:
        read = dict(_read(web))
        self.templates: Mapping[str, str] = {
            name.removesuffix(".html"): body.decode() for name, body in read.items() if name.endswith(".html")
        }
        """Of the pages, and parts of them, by their name."""
        self.files: Mapping[str, File] = {
            name: File.of(name, body) for name, body in read.items() if not name.endswith(".html")
        }
        """By the path from the folder."""
        self.languages: Sequence[str] = sorted(
            name[len("texts/") : -len(".json")] for name in self.files if name.startswith("texts/")
        )
        self.digest = _digest(self.files)
        self._imports = {
            name: _imports(name, file) for name, file in self.files.items() if name.endswith(".js")
        }
        for name, imported in self._imports.items():
            for other in imported:
                if other not in self._imports:
                    raise ValueError(f"{name} imports {other}, which is not there")

    @property
    def address(self) -> str:
        """The path under which all of them are."""
        return f"/assets/{self.digest}"

    def needed_by(self, module: str) -> Sequence[str]:
        """The modules that this one imports, and those that they import, each once."""
        found: dict[str, None] = {}
        waiting = list(self._imports.get(module, ()))
        while waiting:
            name = waiting.pop(0)
            if name not in found and name != module:
                found[name] = None
                waiting += self._imports[name]
        return list(found)


def _read(web: Traversable) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(web.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            inner = ((f"{entry.name}/{each.name}", each) for each in entry.iterdir() if each.is_file())
            yield from sorted((name, each.read_bytes()) for name, each in inner if _is_ours(name))
        elif _is_ours(entry.name):
            yield entry.name, entry.read_bytes()


def _is_ours(name: str) -> bool:
    return _ending(name) in CONTENT_TYPES


def _ending(name: str) -> str:
    return "." + name.rpartition(".")[2]


def _digest(files: Mapping[str, File]) -> str:
    hashed = sha256()
    for name, file in files.items():
        hashed.update(b"%d %d " % (len(name.encode()), len(file.body)) + name.encode() + file.body)
    return hashed.hexdigest()[:DIGEST_CHARS]


def _imports(name: str, file: File) -> Sequence[str]:
    return [normpath(f"{dirname(name)}/{path}").lstrip("/") for path in _IMPORT.findall(file.body.decode())]
