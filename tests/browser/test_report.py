"""A report as a browser shows it, where one is found: `make browser` opens every kind of page."""

import contextlib

import pytest

from tests.browser.chromium import lacking

if missing := lacking():  # where this file is named; otherwise tests/conftest.py leaves it out
    pytest.skip(missing, allow_module_level=True)

from tests.browser import __main__ as opening
from tests.browser.__main__ import PATIENCE, NoStart, inspect, opened
from tests.browser.pages import make_broken, make_study

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:playwright")


@contextlib.contextmanager
def started():
    """The browser; where it is there but cannot start, the test is skipped with the reason. `make browser` fails."""
    with contextlib.ExitStack() as stack:
        try:
            browser = stack.enter_context(opened())
        except NoStart as error:
            pytest.skip(str(error))
        yield browser


def test_a_report_is_shown_whole(tmp_path):
    """It fits a desk and phones, says who is ahead first, and pages that are too wide are found out."""
    study = make_study(tmp_path / "study")
    with started() as browser:
        assert inspect(browser, study, tmp_path) == []
        broken = make_broken(tmp_path / "broken")
        for words in ("px wide", "mean and worst"):  # `make browser` has them all
            assert any(words in said for said in inspect(browser, broken[words], tmp_path)), words
        for width, height in ((1280, 900), (390, 844)):
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(study.as_uri(), timeout=PATIENCE)
            first = page.locator("main > *").all()[:3]
            assert [one.evaluate("one => one.tagName") for one in first] == ["H1", "P", "FIGURE"]
            assert all(one.bounding_box()["y"] < height for one in first)
            details = page.locator("section:has(> h2:text-is('Results')) details")
            assert details.get_attribute("open") is None and not details.locator("table").is_visible()
            page.close()


def test_a_browser_that_cannot_start_says_why(tmp_path, monkeypatch):
    """As Ubuntu's chromium-browser does without its snap: skipped here, an error in `make browser`."""
    stub = tmp_path / "chromium-browser"
    stub.write_text("#!/bin/sh\necho requires the chromium snap >&2\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setattr(opening, "executable", lambda: str(stub))
    with pytest.raises(NoStart, match=r"chromium-browser is there, but cannot start: .*requires the chromium snap$"):
        opening.main(["page.html", f"--out={tmp_path}"])
    with pytest.raises(pytest.skip.Exception, match="cannot start"), started():
        pass
