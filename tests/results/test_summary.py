"""The summary of all sets: its figures by NumPy, the goals, and the same sets as the README's figure."""

import dataclasses
import functools

import numpy as np
import pytest
from scipy import stats

from c3r_jax.results.record import Record
from c3r_jax.results.summary import LINES, ROWS, Line, Place, Rows, costs, fill_summary, goals, scores, summary_table
from tools.fill_tables import ROOT, recorded
from tools.summary_figure import SAME, SHIFTED

VALUES = {
    "plain": [0.50, 0.60, 0.55],
    "c3r": [0.60, 0.66, 0.63],
    "late": [0.58, 0.61, 0.60],
    "late + c3r": [0.50, 0.54, 0.52],
    "mixup": [0.40, 0.41, 0.42],
    "mixup + c3r": [0.70, None, 0.68],
}


def read(name, **changes):
    rows = {**VALUES, **changes}
    tables = {"t": {row: {"a": values, "b": values} for row, values in rows.items()}}
    return Record(name, (), 3, tables, {}, "", {}, {}, {}, None, None, "2026-01-01")


def test_a_line_has_paired_differences():
    found = scores(Line(True, False, Place("shift_rivals", "t", ["a", "b"])), read)
    assert found.rival[0] == "late" and found.partner[0] == "mixup"
    gain = 100 * (np.array(VALUES["c3r"]) - VALUES["late"])
    half = stats.t.ppf(0.975, 2) * gain.std(ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(found.over_rival[:3], (gain.mean(), gain.mean() - half, gain.mean() + half))
    assert found.partner[1] == pytest.approx(69.0)  # of the seeds that it has
    assert found.partner_over_rival.mean == pytest.approx(100 * ((0.70 - 0.58) + (0.68 - 0.60)) / 2)


def test_goals_name_what_misses_them():
    same, shift = (Line(shifted, shifted, Place("shift_rivals", "t", "a")) for shifted in (False, True))
    met, most, harm = goals(read, {"ordinary": same, "turned": shift}).splitlines()
    assert "**met**." in met and "1 of 1: **met**." in most
    assert "of 2 pairs: **missed**. Not on: late on turned (-7.7 (-9.1 to -6.2))." in harm
    each = Line(True, True, Place("shift_rivals", "t", ["x, a", "x, b"]))
    unclear = {"late + c3r": [0.57, 0.65, 0.49]}  # lower in the mean, by no interval

    def two_scores(name):
        found = read(name)
        rows = found.tables["t"]
        split = {row: {"x, a": by["a"], "x, b": unclear.get(row, by["b"])} for row, by in rows.items()}
        return dataclasses.replace(found, tables={"t": split})

    harm = goals(two_scores, {"turned": each}).splitlines()[2]
    assert "of 4 pairs: **missed**. Not on: late on turned, A (-7.7 (-9.1 to -6.2))." in harm
    assert "without its interval showing it: late on turned, B (-2.7" in harm
    worse = functools.partial(read, c3r=[0.45, 0.60, 0.55])
    met, most, _ = goals(worse, {"ordinary": same, "turned": shift}).splitlines()
    assert "**missed**. Not on: ordinary (-1.7" in met and "0 of 1: **missed**. Not on: turned (" in most


def test_versions_of_c3r_are_no_rivals():
    rows = Rows("plain", "c3r", "c3r+{}", ("c3r, strong",))
    assert rows.rivals(["plain", "dropout", "c3r", "c3r+dropout", "c3r, strong"]) == ["dropout"]
    assert ROWS["shift"].rivals(list(recorded("shift").tables["watch"])) == ["dropout", "evidential"]


def test_a_page_gets_table_and_goals():
    page = 'A.\n\n<!-- summary: {} -->\nbefore\n<!-- end -->\n\n<!-- summary: {"show": "goals"} -->\n<!-- end -->\n'
    once = fill_summary(page, recorded)
    assert summary_table(recorded) in once and goals(recorded) in once and "before" not in once
    assert fill_summary(once, recorded) == once


def test_the_page_says_what_every_record_took():
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    for name in sorted(path.stem for path in (ROOT / "results").glob("*.json")):
        assert f"| `{name}` | " in text, f"name {name} in the block of costs of docs/results.md"
    assert costs(lambda name: read(name), ["t"]).splitlines()[-1] == "| `t` | 2026-01-01, ? | 3 seeds |"


def test_the_figure_shows_sets_of_the_table():
    """Every line of the README's figure is one of the table, with the same record, table and score."""
    places = {(line.place.record, line.place.table, str(line.place.column)) for line in LINES.values()}
    drawn = {(name, table, str(column)) for name, table, column in (*SAME.values(), *SHIFTED.values())}
    absent = {place for place in drawn - places if "balanced" not in place[2] and place[1] != "no cues"}
    assert not absent
