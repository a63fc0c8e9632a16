"""Whether there is a browser to open reports in; imports nothing that may be missing."""

import importlib.util
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def executable() -> str | None:
    """The browser on the PATH."""
    return next((path for name in NAMES if (path := shutil.which(name)) is not None), None)


def lacking() -> str:
    """What is missing for tests in a browser, as a clause; "" if nothing is."""
    if executable() is None:
        return f"none of {', '.join(NAMES)} is on the PATH"
    return "" if importlib.util.find_spec("playwright") else "playwright is not installed (make venv-browser)"
