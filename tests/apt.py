"""Debian's packages, for what a few tests and runs need beside the project."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

APT_S = 600
"""For each of two commands."""


def may_install() -> bool:
    """Whether this is root on Debian or one of its kin."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(packages: Sequence[str]) -> None:
    """Raises subprocess.CalledProcessError and subprocess.TimeoutExpired."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        subprocess.run(
            ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
            timeout=APT_S,
            check=True,
        )
