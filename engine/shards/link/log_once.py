"""Warnings that are logged once for each address, until the address is forgotten."""

from __future__ import annotations

import logging

NAMED_MAX = 1_000
"""The most addresses that are remembered. Beyond that all are forgotten, and warnings are logged again."""


class LogOnce:
    """One warning for each address. Args: log: of the module that warns."""

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
