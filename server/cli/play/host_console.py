"""Leading a session from a terminal: keys in, the live state out."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Generator
from contextlib import contextmanager

import trio

from loadtest.client.player import Gone, HostClient
from server.cli.play.session_view import Message, SessionView
from server.cli.play.terminal_view import TerminalView
from server.cli.terminal import output, printable

KEYS = "Enter: {enter}   p: {pause}   l: {lock}   d: {approval}   s: skip   f: finish   q: leave"
ADMISSION_KEYS = "a: let all in   r: turn all away"

NAMES_SHOWN = 8

_ENTER = {"lobby": "start", "question": "close", "reveal": "next", "paused": "resume"}

_ABOUT_WHAT_IS_SEEN = frozenset({"start", "close", "next", "skip"})

_TWICE = {"f": ("finish", "the session"), "s": ("skip", "the question, which then counts for nobody")}
"""Keys that cannot be undone, with their effect."""


def healthy(health: Message) -> str:
    """A `health` message in a sentence or two."""
    if not health["saved"]:
        said = "Answers wait to be saved."
    elif health["saved_in"] == "spool":
        said = "All answers are saved on the node's disk; PostgreSQL is away."
    else:
        said = "All answers are saved."
    said = f"{health['connected']:,} of {health['players']:,} connected. {said}"
    if health["lagging"]:
        said += f" {health['lagging']:,} lag."
    if health["p99_ms"] is not None:
        said += f" 99 of 100 acks take {health['p99_ms']:,} ms or less."
    return said


class HostConsole:
    """Turns keys into the host's commands."""

    def __init__(self, client: HostClient, view: SessionView) -> None:
        self._client = client
        self._view = view
        self._said = ""
        self._sure = ""
        """The key of `_TWICE` that was pressed just now."""

    @property
    def footer(self) -> str:
        """What the keys do just now, and what became of the last one."""
        view = self._view
        keys = KEYS.format(
            enter=_ENTER.get(view.phase, "-"),
            pause="resume" if view.phase == "paused" else "pause",
            lock="unlock" if view.locked else "lock",
            approval="let everyone in" if view.approval else "ask me first",
        )
        count = view.waiting["count"]
        if count:
            names = ", ".join(printable(each["name"]) for each in view.waiting["players"][:NAMES_SHOWN])
            more = f" and {count - NAMES_SHOWN} more" if count > NAMES_SHOWN else ""
            keys = f"Waiting to join: {names}{more}\n{ADMISSION_KEYS}\n{keys}"
        client = self._client
        lost = (
            "The connection is lost; coming back...\n"
            if client.arrived.is_set() and not client.connected
            else ""
        )
        health = "" if view.health is None else f"{healthy(view.health)}\n"
        return f"\n{health}{lost}{self._said}\n{keys}"

    async def press(self, key: str) -> None:
        """One key. Raises Gone."""
        sure, self._sure = self._sure, ""
        self._said = ""
        match key := key.lower():
            case "\n" | "\r" | " " if self._view.phase in _ENTER:
                await self._command(_ENTER[self._view.phase])
            case "p":
                await self._command("resume" if self._view.phase == "paused" else "pause")
            case "l":
                await self._command("lock", on=not self._view.locked)
            case "d":
                await self._command("approval", on=not self._view.approval)
            case "a" if self._view.waiting["count"]:
                await self._command("admit")
            case "r" if self._view.waiting["count"]:
                await self._command("refuse")
            case "f" | "s" if sure == key:
                await self._command(_TWICE[key][0])
            case "f" | "s":
                do, what = _TWICE[key]
                self._said, self._sure = f"Press {key} again to {do} {what}.", key
            case "q":
                await self._client.leave()

    async def _command(self, do: str, **members: object) -> None:
        if do in _ABOUT_WHAT_IS_SEEN:
            members["expect"] = {"number": self._view.number, "phase": self._view.phase}
        reply = await self._client.command(do, **members)
        if reply.error is not None:
            self._said = f"{do}: {printable(reply.message['message'])}"


async def lead(ws_url: str, code: str, token: str) -> str:
    """Lead until the session is over or the host leaves. Returns why it ended, as `HostClient.run` does."""
    view = SessionView(code)
    client: HostClient

    def footer() -> str:
        return console.footer

    screen = TerminalView(view, output(), footer)
    client = HostClient(ws_url, code, rng=random.Random(), token=token, listener=screen.hear)
    console = HostConsole(client, view)
    with screen.shown(), _single_keys():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(screen.redraw)
            nursery.start_soon(_obey, console)
            ended = await client.run()
            nursery.cancel_scope.cancel()
    return ended


async def _obey(console: HostConsole) -> None:
    """Hand over the typed keys, one by one. At the end of the input the host leaves.

    The thread that reads is abandoned at the end, because a read cannot be cancelled.
    """
    while key := await trio.to_thread.run_sync(os.read, sys.stdin.fileno(), 1, abandon_on_cancel=True):
        try:
            await console.press(key.decode(errors="ignore"))
        except Gone:
            return
    await console.press("q")


@contextmanager
def _single_keys() -> Generator[None]:
    """On a terminal: keys without Enter, and not shown."""
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin.fileno())
    try:
        tty.setcbreak(sys.stdin.fileno())
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
