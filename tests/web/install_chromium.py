"""See to it that there is a browser for the tests of the pages: `python -m tests.web.install_chromium`.

Where none is found, root on Debian or one of its kin installs the package `chromium`, once. Anybody else is
told what is missing. It never fails: whether tests without a browser fail or are skipped is up to the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests import apt

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = ("chromium", "fonts-dejavu-core")
"""Without a font, there would be no text in the pictures. 113 MB are fetched."""


def executable() -> str | None:
    """The browser: the one that $CHROMIUM names, or one on the path."""
    names = (os.environ["CHROMIUM"],) if os.environ.get("CHROMIUM") else NAMES
    return next((path for name in names if (path := shutil.which(name))), None)


def missing() -> str:
    """What to say when there is no browser."""
    if os.environ.get("CHROMIUM"):
        return f"CHROMIUM is {os.environ['CHROMIUM']!r}, and that is no program that can be run."
    return (
        "The tests of the web pages need a browser: install the package `chromium`, "
        "or name a Chromium or Chrome in the environment variable CHROMIUM."
    )


def main() -> None:
    if executable():
        return
    if os.environ.get("CHROMIUM") or not apt.may_install():
        print(missing(), file=sys.stderr)
        return
    print(f"Installing {' and '.join(PACKAGES)} with apt-get, for the tests of the web pages", flush=True)
    try:
        apt.install(PACKAGES)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
        print(f"That did not work: {exc}\n{missing()}", file=sys.stderr)


if __name__ == "__main__":
    main()
