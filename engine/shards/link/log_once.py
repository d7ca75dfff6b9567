"""A warning is said once of each address, until there is news of it."""

from __future__ import annotations

import logging

NAMED_MAX = 1_000
"""Addresses of which it is remembered that they were warned of. Then it is said anew."""


class LogOnce:
    """One warning for each address. `log`: of the module whose warnings they are."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._named: set[str] = set()

    def add(self, sentence: str, address: str, reason: object) -> None:
        if address in self._named:
            return
        if len(self._named) >= NAMED_MAX:
            self._named.clear()
        self._named.add(address)
        self._log.warning(sentence, address, reason)

    def forget(self, address: str) -> None:
        self._named.discard(address)
