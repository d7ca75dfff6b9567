"""The HAProxy of Debian, for tests."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def haproxy_program() -> str:
    """Where it is. In CI it is installed, or the test fails; elsewhere a person is told how."""
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if found is None and os.environ.get("CI") == "true" and os.geteuid() == 0:
        subprocess.run(["apt-get", "update"], check=True, capture_output=True)
        subprocess.run(
            ["apt-get", "install", "-y", "--no-install-recommends", "haproxy"],
            check=True,
            capture_output=True,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        )
        found = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if found is None:
        missing = "haproxy is not installed: apt-get install haproxy"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found
