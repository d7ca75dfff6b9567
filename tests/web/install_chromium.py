"""See to it that there is a browser for the tests of the pages: `python -m tests.web.install_chromium`.

Root on Debian or one of its kin installs the package `chromium-headless-shell`, once; where there is none,
`chromium`. Anybody else is told when there is no browser at all. It never fails: whether tests without a
browser fail or are skipped is up to the tests.

The shell is the same engine without the window around it. A new page in a profile of its own costs it 0.14 s
of the processor, and a whole Chromium, which draws its tabs and buttons even where nobody sees them, 1.1 s.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests import apt

SHELLS = ("chromium-headless-shell", "chrome-headless-shell")
NAMES = (*SHELLS, "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = ("chromium-headless-shell", "chromium")
FONTS = "fonts-dejavu-core"
"""Without a font, there would be no text in the pictures."""


def executable() -> str | None:
    """The browser: the one that $CHROMIUM names, or one on the path."""
    names = (os.environ["CHROMIUM"],) if os.environ.get("CHROMIUM") else NAMES
    return next((path for name in names if (path := shutil.which(name))), None)


def missing() -> str:
    """What to say when there is no browser."""
    if os.environ.get("CHROMIUM"):
        return f"CHROMIUM is {os.environ['CHROMIUM']!r}, and that is no program that can be run."
    return (
        "The tests of the web pages need a browser: install the package `chromium-headless-shell`, "
        "or name a Chromium or Chrome in the environment variable CHROMIUM."
    )


def main() -> None:
    found = executable()
    if not os.environ.get("CHROMIUM") and apt.may_install():
        for package in PACKAGES:
            if found and (package not in SHELLS or Path(found).name in SHELLS):
                break
            print(f"Installing {package} with apt-get, for the tests of the web pages", flush=True)
            try:
                apt.install((package, FONTS))
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
                print(f"That did not work: {exc}", file=sys.stderr)
            found = executable()
    if not found:
        print(missing(), file=sys.stderr)


if __name__ == "__main__":
    main()
