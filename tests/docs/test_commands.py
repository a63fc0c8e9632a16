"""Every command of the documentation names files, modules, flags, leaves, targets and extras that are there."""

import re

import pytest
import yaml

from tests.docs.commands import FENCE, PAGES, ROOT, UnknownCommand, check, commands
from tools.first_hour import STEPS

SLIPS = {step.command for step in STEPS if step.fails}  # shown for the sentence that they end with
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_name_what_is_there(page):
    wrong = []
    for command in commands(page.read_text(encoding="utf-8")):
        try:
            check(command)
        except UnknownCommand as error:
            if command not in SLIPS:
                wrong.append(str(error))
    assert not wrong


def test_that_the_check_finds_what_is_wrong():
    found = [command for page in PAGES for command in commands(page.read_text(encoding="utf-8"))]
    assert len(found) > 60
    for command in (
        "make dmo",
        "pip install '.[everything]'",
        "python trian.py --config=configs/emoji.py",
        "python -m c3r_jax.prepare emoji",
        "python train.py --config=configs/emojis.py",
        "python train.py --config=configs/emoji.py --config.model.dims=8",
        "python train.py --config=configs/emoji.py --config.model.dim=wide",
        "python train.py --config=configs/emoji.py --config.model=8",
        "python eval.py --workdirs=runs/emoji",
        "python -m c3r_jax.launch --processes=2 train.py --worksdir=runs/two",
        "cd build && make dmo",
        "nonsense --help",
    ):
        with pytest.raises(UnknownCommand):
            check(command)


def anchors(text):
    """What MkDocs calls the headings of a page."""
    titles = re.findall(r"^#+ (.*)", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{page.name} links to {target}"


def test_the_site_has_every_page():
    class Loader(yaml.SafeLoader):
        """MkDocs' own tags are of no interest here."""

    def files(entry):
        if isinstance(entry, str):
            return [entry]
        return [file for part in (entry.values() if isinstance(entry, dict) else entry) for file in files(part)]

    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    listed = files(site["nav"])
    assert len(listed) == len(set(listed))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    there |= {f"notebooks/{path.stem}.md" for path in (ROOT / "docs/notebooks").glob("*.ipynb")}
    assert set(listed) <= there  # MkDocs itself lists pages that the navigation lacks
    assert "google" not in str(site["theme"]) and site["theme"]["font"] is False and site["strict"]
