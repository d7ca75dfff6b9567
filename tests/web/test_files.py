"""What must hold for the files of the pages, without a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "server" / "web"
TEXTS = {path.stem: json.loads(path.read_text()) for path in sorted(WEB.glob("texts/*.json"))}
SCRIPTS = sorted(path for path in WEB.rglob("*.js") if not path.is_symlink())
"""Without the client library, which has a limit and tests of its own (`tests/clients`)."""
MARKUP = sorted(WEB.rglob("*.html"))

JAVASCRIPT_BYTES_MAX = 98_500
"""A little more than it is, so that whoever adds to it means to."""


def used_keys() -> set[str]:
    """Those that are written out somewhere. Some are put together from what the server says."""
    found: set[str] = set()
    for path in SCRIPTS:
        found.update(re.findall(r"""["`']([a-z]+(?:[._][a-z0-9_]+)*)["`']""", path.read_text()))
    for path in MARKUP:
        found.update(re.findall(r'data-t="([^"]+)"', path.read_text()))
    return found


def placeholders(text: object) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", json.dumps(text)))


def test_all_the_javascript_of_all_pages_is_small() -> None:
    assert sum(path.stat().st_size for path in SCRIPTS) < JAVASCRIPT_BYTES_MAX


@pytest.mark.parametrize("language", TEXTS)
def test_a_language_has_every_text(language: str) -> None:
    """Besides, it may have texts for what the server says in English itself."""
    english, texts = TEXTS["en"], TEXTS[language]
    more = {key for key in texts if key not in english and not key.startswith("author.error.")}
    assert not more
    assert set(english) <= set(texts)
    for key, text in texts.items():
        forms = text.values() if isinstance(text, dict) else [text]
        assert all(isinstance(form, str) and form for form in forms), key
        assert "other" in text or isinstance(text, str), key
        if key in english:
            assert isinstance(text, dict) == isinstance(english[key], dict), key
            assert placeholders(text) == placeholders(english[key]), key


def test_every_text_is_used_and_there() -> None:
    used = used_keys()
    put_together = re.compile(
        r"(author\.)?error\.|language$|ops\.(state|phase|part|component|event|answers|took|busy)\."
    )
    assert {key for key in TEXTS["en"] if key not in used and not put_together.match(key)} == set()
    for path in MARKUP:
        assert set(re.findall(r'data-t="([^"]+)"', path.read_text())) <= set(TEXTS["en"]), path.name
    for path in SCRIPTS:
        asked = set(re.findall(r"""\bt\(\s*"([^"]+)\"""", path.read_text()))
        assert asked <= set(TEXTS["en"]), path.name


@pytest.mark.parametrize("path", MARKUP, ids=lambda path: path.name)
def test_nothing_is_inline(path: Path) -> None:
    """The Content-Security-Policy would stop it, in a browser and not before."""
    markup = path.read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", markup)
    assert re.findall(r"<script[^>]*>[^<]", markup) == []


def test_in_the_dark_nothing_but_colours_is_different() -> None:
    """So of what makes a page accessible, what has to do with colours is all that is looked at twice."""
    wanted = "prefers-color-scheme"
    dark = re.compile(rf"@media \({wanted}: dark\) \{{((?:[^{{}}]*\{{[^{{}}]*\}})+)\s*\}}")
    found: set[str] = set()
    for path in [*WEB.rglob("*.css"), *SCRIPTS, *MARKUP]:
        text = path.read_text()
        blocks = dark.findall(text)
        assert text.count(wanted) == len(blocks), path
        found.update(name for block in blocks for name in re.findall(r"[{;]\s*([\w-]+):", block))
    light = (WEB / "base.css").read_text().partition("@media")[0]
    assert "--ink" in found
    assert found <= {"color", *re.findall(r"(--[\w-]+):", light)}
