"""Opens reports in a browser, as readers do: python -m tests.browser [PAGE.html ...] [--out=FOLDER].

Each page has to keep quiet and ask for nothing, to fit a phone, to be readable in light and in dark, and to print in
full. Pages with one defect each come first: every one has to be found out. Needs the [browser] extra and a Chromium or
Chrome on the PATH.
"""

import argparse
import contextlib
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # before JAX picks its devices

from absl import logging
from playwright.sync_api import Browser, Error, Page, sync_playwright

from tests.browser.chromium import NAMES, executable

QUIET = ("no-first-run", "disable-gpu", "disable-quic", "disable-sync", "disable-component-update",
         "disable-background-networking")  # fmt: skip
MEASURE = pathlib.Path(__file__).with_name("measure.js").read_text(encoding="utf-8")
PHONES, DESK, PAPER = ((360, 740), (390, 844)), (1280, 900), (718, 1047)  # px; the last is A4 with margins of 1 cm
PATIENCE = 120_000  # ms until a browser has started or a page is there; busy machines take long
CONTRAST = 4.5  # WCAG 2.2, level AA, of text of any size


class NoStart(Exception):
    """A browser is there, and cannot start."""


def inspect(browser: Browser, path: pathlib.Path, pictures: pathlib.Path) -> list[str]:
    """What is wrong with a page; screenshots and its PDF go to a folder."""
    wrong: list[str] = []
    with browser.new_context(offline=True) as context:
        page = context.new_page()
        page.on("console", lambda said: wrong.append(f"console: {said.text}") if said.type != "log" else None)
        page.on("pageerror", lambda error: wrong.append(f"console: {error}"))
        own = path.resolve().as_uri()
        page.on("request", lambda one: None if one.url.startswith((own, "data:")) else wrong.append(asked(one.url)))
        page.goto(own, wait_until="load", timeout=PATIENCE)
        stem = f"{path.resolve().parent.name}_{path.stem}"
        for scheme in ("light", "dark"):
            for size in (DESK, *PHONES):
                page.emulate_media(color_scheme=scheme, media="screen")
                page.set_viewport_size({"width": size[0], "height": size[1]})
                wrong += [f"{scheme}, {size[0]} px: {said}" for said in on_screen(page, scheme)]
                page.screenshot(path=pictures / f"{stem}_{scheme}_{size[0]}.png", full_page=True)
        page.emulate_media(color_scheme="dark", media="print")
        page.set_viewport_size({"width": PAPER[0], "height": PAPER[1]})
        wrong += [f"print: {said}" for said in in_print(page)]
        margin = dict.fromkeys(("top", "right", "bottom", "left"), "1cm")
        sheets = page.pdf(path=pictures / f"{stem}.pdf", format="A4", margin=margin)
        if not re.search(rb"/Type\s*/Page\b", sheets):
            wrong.append("print: the PDF has no page")
    return wrong


def asked(url: str) -> str:
    """What is said of a request."""
    return f"{url[:80]} was asked for: a page needs no other file"


def on_screen(page: Page, scheme: str) -> list[str]:
    """What is wrong with what is on the screen now."""
    found = page.evaluate(MEASURE)
    wrong = readable(found)
    if found["overflow"] > 0 or found["wide"]:
        wrong.append(f"{found['overflow']} px wider than the screen, too wide: {found['wide'][:3]}")
    if found["scrolled"]:
        wrong.append(f"mean and worst are not in sight without scrolling: {found['scrolled'][:3]}")
    if not (found["paper"] > 0.8 if scheme == "light" else found["paper"] < 0.1):
        wrong.append(f"the paper has luminance {found['paper']:.2f}")
    return wrong


def in_print(page: Page) -> list[str]:
    """What is wrong with what goes to paper: dark on white, nothing cut off, nothing left closed."""
    found = page.evaluate(MEASURE)
    wrong = readable(found)
    if found["paper"] < 1:
        wrong.append(f"the paper has luminance {found['paper']:.2f}: it should be white")
    if found["cut"] or found["wide"]:
        wrong.append(f"cut off: {[*found['cut'], *found['wide']][:3]}")
    if found["shut"]:
        wrong.append(f"closed in print: {found['shut'][:3]}")
    return wrong


def readable(found: dict) -> list[str]:
    """What is wrong with text and pictures, on any medium."""
    wrong = [] if found["texts"] else ["no text is visible"]
    if found["weakest"]["ratio"] < CONTRAST:
        wrong.append(f"contrast {found['weakest']['ratio']:.2f} of {found['weakest']['where']}")
    wrong += [f"not decoded or without words: {one}" for one in found["images"] if not (one["width"] and one["alt"])]
    return wrong


@contextlib.contextmanager
def opened() -> Iterator[Browser]:
    """The browser on the PATH, open.

    Raises:
      NoStart: it cannot start, with the reason; Ubuntu's chromium-browser, for one, only says how to install one.
    """
    path = executable()
    if path is None:
        sys.exit(
            f"No browser is on the PATH: expected one of {', '.join(NAMES)} (on Debian: apt-get install chromium)."
        )
    flags = [f"--{flag}" for flag in (*QUIET, *(["no-sandbox"] if os.getuid() == 0 else []))]
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=flags, timeout=PATIENCE)
        except Error as error:
            own = re.findall(r"^\[pid=\d+\]\[err\] (.+)$", error.message, re.MULTILINE)  # what the browser says itself
            reason = " ".join([error.message.strip().partition("\n")[0], *own[:3]])
            raise NoStart(f"{path} is there, but cannot start: {reason}") from error
        yield browser
        browser.close()


def main(arguments: list[str] | None = None) -> int:
    """Makes the pages if none is given, and opens them; 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser", description=__doc__)
    parser.add_argument("pages", nargs="*", type=pathlib.Path, help="pages to open instead of those of a tiny run")
    parser.add_argument("--out", default="runs/browser", type=pathlib.Path, help="where screenshots and PDF go")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    logging.set_verbosity(logging.ERROR)
    from tests.browser.pages import make_broken, make_pages  # here: --help needs no JAX

    failed = 0
    with tempfile.TemporaryDirectory(prefix="pages-") as name, opened() as browser:
        folder = pathlib.Path(name)
        print(f"Chromium {browser.version}")
        for words, path in make_broken(folder / "broken").items():
            if not any(words in said for said in inspect(browser, path, folder)):
                failed += 1
                print(f"  not found out: a page that is wrong ({words})")
        for path in given.pages or make_pages(folder):
            wrong = inspect(browser, path, given.out)
            failed += bool(wrong)
            print(
                "\n    ".join([f"  {'failed' if wrong else 'held'}: {path.parent.name}/{path.name}", *wrong]),
                flush=True,
            )
    print(f"wrote {given.out}")
    return int(failed > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NoStart as no_start:
        sys.exit(str(no_start))
