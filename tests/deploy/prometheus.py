"""The Prometheus and Alertmanager of Debian, for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Literal

import pytest

from tests import apt

PACKAGES = ["prometheus", "prometheus-alertmanager"]

Program = Literal["prometheus", "promtool", "prometheus-alertmanager", "amtool"]


def program(name: Program) -> str:
    """Where it is. In CI it is installed, or the test fails; elsewhere a person is told how."""
    found = shutil.which(name)
    if found is None and os.environ.get("CI") == "true" and apt.may_install():
        apt.install(PACKAGES)
        found = shutil.which(name)
    if found is None:
        missing = f"{name} is not installed: apt-get install {' '.join(PACKAGES)}"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def run(name: Program, *words: object) -> str:
    """What it prints. Fails with that when it does not end well."""
    done = subprocess.run([program(name), *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
