"""A headless Chromium that is installed on this machine, through playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import sync_playwright


def chromium_path() -> str | None:
    """The executable: ``$CHROMIUM``, or one of the usual names; None if there is none."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def browser() -> Iterator[Any]:
    """The browser, ended at the end. Raises SystemExit if there is none."""
    path = chromium_path()
    if path is None:
        raise SystemExit("no Chromium was found: install it, or name it in the environment variable CHROMIUM")
    # Chromium's sandbox refuses to be started by root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield started
        finally:
            started.close()
