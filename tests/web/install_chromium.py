"""See to it that there is a browser for the tests of the pages: `python -m tests.web.install_chromium`.

Where none is found, root on Debian or one of its kin installs the package `chromium`, once. Anybody else is
told what is missing. It never fails: whether tests without a browser fail or are skipped is up to the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = ("chromium", "fonts-dejavu-core")
"""Without a font, there would be no text in the pictures."""

APT_S = 600
"""For each of two commands. On a good line both take a quarter of a minute; 113 MB are fetched."""


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
    if os.environ.get("CHROMIUM") or os.geteuid() != 0 or not shutil.which("apt-get"):
        print(missing(), file=sys.stderr)
        return
    print(f"Installing {' and '.join(PACKAGES)} with apt-get, for the tests of the web pages", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        try:
            subprocess.run(
                ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                timeout=APT_S,
                check=True,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
            print(f"That did not work: {exc}\n{missing()}", file=sys.stderr)
            return


if __name__ == "__main__":
    main()
