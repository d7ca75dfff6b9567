"""Whether this node can take work just now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

PROBE_TIMEOUT_S = 2.0
PROBE_FRESH_S = 1.0


class DatabaseProbe:
    """Asks the database for a sign of life, at most once a second however often one asks here.

    Args:
        probe: returns if the database answers; raises or hangs if not.
    """

    def __init__(self, probe: Callable[[], Awaitable[None]]) -> None:
        self._probe = probe
        self._lock = trio.Lock()
        self._asked_at_s = float("-inf")
        self._problem: str | None = None

    async def problem(self) -> str | None:
        """None, or a sentence that says what is wrong. Takes at most about `PROBE_TIMEOUT_S`."""
        async with self._lock:
            if trio.current_time() - self._asked_at_s >= PROBE_FRESH_S:
                self._problem = await self._ask()
                self._asked_at_s = trio.current_time()
            return self._problem

    async def _ask(self) -> str | None:
        try:
            with trio.fail_after(PROBE_TIMEOUT_S):
                await self._probe()
        except trio.TooSlowError:
            return f"the database has not answered within {PROBE_TIMEOUT_S:g} s"
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer is "not ready"
            return f"the database cannot be reached ({type(error).__name__})"
        return None
