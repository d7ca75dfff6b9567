"""See to it that the clock of a node can be set: `python -m tests.e2e.install_faketime`.

Root on Debian or one of its kin gets the package, once. Anybody else is told what is missing by the run that
needs it. It never fails.
"""

from __future__ import annotations

import subprocess
import sys

import click

from server.cli.chaos.node import CLOCK_PACKAGE, clock_library
from tests import apt


def main() -> None:
    try:
        clock_library()
    except click.ClickException:
        if apt.may_install():
            print(f"Installing {CLOCK_PACKAGE} with apt-get, to set the clocks of nodes", flush=True)
            try:
                apt.install([CLOCK_PACKAGE])
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
                print(f"That did not work: {exc}", file=sys.stderr)


if __name__ == "__main__":
    main()
