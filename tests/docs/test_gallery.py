"""The gallery has every figure of docs/figures, each with a command that is there."""

import re

from c3r_jax.report.write import write_report
from tests.docs.commands import ROOT, check, commands
from tests.report.conftest import make_history, make_run

TEXT = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")
PICTURE = re.compile(r"\[!\[([^\]]+)\]\((figures/[\w.]+)\)\]\((figures/[\w.]+)\)")


def test_no_figure_is_missing():
    shown = [found[1] for found in PICTURE.findall(TEXT)]
    there = {f"figures/{path.name}" for path in (ROOT / "docs/figures").iterdir() if path.suffix != ".json"}
    assert sorted(shown) == sorted(there)
    assert all(len(alt) > 20 and figure == target for alt, figure, target in PICTURE.findall(TEXT))


def test_every_figure_has_its_command():
    sections = TEXT.split("\n## ")[1:]
    with_figures = [section for section in sections if PICTURE.search(section)]
    assert len(with_figures) >= 6
    for section in with_figures:
        own = commands(section)
        assert own and all(check(command) == "python" and "tools/" in command for command in own), section[:60]


def test_figures_of_reports_are_named(tmp_path):
    histories = {"c3r": [make_history(0)]}
    written = write_report([make_run("c3r", 0, 0.8)], tmp_path, histories=histories)
    for name in set(written) - {"html", "markdown", "json"}:
        assert f"`{name}.png`" in TEXT
