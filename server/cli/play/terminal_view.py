"""How a session looks in a terminal: a picture that is drawn anew, or plain lines for a log or a pipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from server.cli.play.session_view import Line, Message, SessionView
from server.cli.terminal import printable

REDRAW_S = 0.125
MEDALS = ("gold1", "grey84", "dark_orange3")


class TerminalView:
    """Shows a scene.

    Args:
        footer: what stands below the picture, asked for each time that it is drawn.
    """

    def __init__(self, view: SessionView, console: Console, footer: Callable[[], str] = str) -> None:
        self._view = view
        self._console = console
        self._footer = footer
        self._live: Live | None = None
        self._board_told = 0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """On a terminal: draw while the block runs, and leave the last picture standing."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False) as self._live:
            yield
            self._draw()

    async def redraw(self) -> None:
        """Keep the countdown and the picture moving. Runs until it is cancelled."""
        while True:
            self._draw()
            await trio.sleep(REDRAW_S)

    def hear(self, message: Message) -> None:
        """Take in a message, and tell of it where nothing is drawn."""
        self._view.hear(message, trio.current_time())
        if self._live is not None or (message["t"] == "leaderboard" and self._board_was_told()):
            return
        for line in spoken(message, self._view):
            self._console.print(Text(line), soft_wrap=True)

    def _board_was_told(self) -> bool:
        """In plain lines, the leaderboard is printed once for each question."""
        if self._view.phase != "reveal" or self._view.number == self._board_told:
            return True
        self._board_told = self._view.number
        return False

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(picture(self._view, trio.current_time(), self._footer()), refresh=True)


def picture(view: SessionView, now: float, footer: str = "") -> RenderableType:
    """The session as it stands."""
    parts: list[RenderableType] = [_heading(view)]
    if view.phase == "finished":
        parts += [Text(), _podium(view.podium or []), Text()]
    elif view.question is None:
        parts.append(Text(f"\nJoin with the code {spaced(view.code)}. {people(view.players)} in."))
    else:
        parts += _question(view, now)
    if any(line.score for line in view.top):
        parts.append(_board(view.top))
    if footer:
        parts.append(Text(footer, style="dim"))
    return Panel(Group(*parts), title="Fanfare", border_style="cyan", padding=(1, 2))


def _heading(view: SessionView) -> Text:
    heading = Text(printable(view.title), style="bold")
    heading.append(f"   {spaced(view.code)}", style="cyan")
    heading.append(f"   {people(view.players)}", style="dim")
    if view.locked and view.phase != "finished":
        heading.append("   locked", style="yellow")
    if view.phase == "paused":
        heading.append("   PAUSED", style="bold yellow")
    return heading


def _question(view: SessionView, now: float) -> list[RenderableType]:
    question = view.question
    assert question is not None
    parts: list[RenderableType] = [
        Text(f"\n{view.number} of {view.of}", style="dim"),
        Text(printable(question["text"]), style="bold white"),
    ]
    remaining_s, ready_s = view.remaining_s(now), view.ready_s(now)
    if ready_s:
        return [*parts, Text(f"\nGet ready: {math.ceil(ready_s)}\n", style="bold cyan")]
    parts += [Text(f"  {line}") for line in _choices(question, view.reveal)]
    if remaining_s is not None:
        total_s = max(question["limit_ms"] / 1000, 0.001)
        parts.append(ProgressBar(total=total_s, completed=min(remaining_s, total_s), width=40))
        parts.append(
            Text(f"{remaining_s:.0f} s left, {answers(view.answered)} of {view.players}\n", style="dim")
        )
    elif view.reveal is not None:
        parts.append(Text(f"{right_answer(question, view.reveal)}\n", style="green"))
    return parts


def _choices(question: Message, reveal: Message | None) -> list[str]:
    choices = [printable(choice) for choice in question["choices"] or ()]
    if reveal is None or not choices:
        return choices
    return [f"{choice}  {count:,}" for choice, count in zip(choices, reveal["counts"], strict=True)]


def _board(lines: Sequence[Line]) -> Table:
    table = Table(box=None, padding=(0, 1), show_header=False)
    for justify in ("right", "left", "right", "left"):
        table.add_column(justify=justify)
    for line in lines:
        table.add_row(str(line.rank), Text(printable(line.name)), f"{line.score:,}", _arrow(line.moved))
    return table


def _arrow(moved: int | None) -> Text:
    if moved is None:
        return Text("new", style="cyan")
    if moved > 0:
        return Text(f"▲{moved}", style="green")
    return Text(f"▼{-moved}", style="red") if moved < 0 else Text("")


def _podium(lines: Sequence[Line]) -> Table:
    table = Table(box=None, padding=(0, 2), show_header=False, title="Podium", title_style="bold")
    for line in lines:
        style = MEDALS[line.rank - 1] if line.rank <= len(MEDALS) else ""
        table.add_row(
            *(Text(cell, style=style) for cell in (f"{line.rank}.", printable(line.name), f"{line.score:,}"))
        )
    return table


def spoken(message: Message, view: SessionView) -> Iterator[str]:
    """What a message is worth saying about the scene after it, in plain lines."""
    match message["t"]:
        case "joined" if message["state"] is not None:
            title = printable(view.title)
            yield f"{title}: session {view.code}, {people(view.players)}, phase {view.phase}"
            if view.phase == "question" and view.question is not None:
                yield _asked(view)
        case "question":
            yield _asked(view)
        case "reveal" if view.question is not None:
            yield f"  {right_answer(view.question, message)}"
            tally = _choices(view.question, message)
            if tally:
                yield f"  {'; '.join(tally)}"
        case "leaderboard" if view.phase == "reveal":
            for line in view.top:
                yield f"{_ranked(line)}  {_arrow(line.moved)}".rstrip()
        case "state":
            yield f"  now: {view.phase}{', locked' if view.locked else ''}"
        case "finished":
            yield "Podium"
            for line in view.podium or ():
                yield _ranked(line)


def _ranked(line: Line) -> str:
    return f"  {line.rank:>3}. {printable(line.name):<24} {line.score:>9,}"


def _asked(view: SessionView) -> str:
    assert view.question is not None
    limit_s = view.question["limit_ms"] / 1000
    return f"Question {view.number} of {view.of}: {printable(view.question['text'])} ({limit_s:g} s)"


def right_answer(question: Message, reveal: Message) -> str:
    """The right answer in words."""
    correct: Any = reveal["correct"]
    choices = question["choices"]
    if question["type"] == "single":
        words = choices[correct]
    elif question["type"] == "multiple":
        words = ", ".join(choices[each] for each in correct)
    elif question["type"] == "true_false":
        words = "true" if correct else "false"
    elif question["type"] == "text":
        words = " or ".join(correct)
    else:
        words = f"{correct:.15g}"
    return f"Right: {printable(words)}"


def people(count: int) -> str:
    return "1 player" if count == 1 else f"{count:,} players"


def answers(count: int) -> str:
    return "1 answer" if count == 1 else f"{count:,} answers"


def spaced(code: str) -> str:
    """A code as it is read aloud."""
    return f"{code[:3]} {code[3:]}" if len(code) == 6 else printable(code)
