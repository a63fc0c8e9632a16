"""Relative and effective robustness from their formulas, and baselines that do not fit."""

import json

import numpy as np
import pytest

from c3r_jax.errors import WorkdirError
from c3r_jax.evaluation.robustness import (
    effective_robustness,
    read_baseline,
    relative_robustness,
    results_folder,
    robustness_report,
)
from c3r_jax.report.aggregate import aggregate
from c3r_jax.report.tables import results_table, robustness_table


def test_relative_robustness_by_hand():
    # Trapezoids of width 1/2: (0.9 + 0.7) / 4 + (0.7 + 0.1) / 4; then of widths 1/4 and 3/4.
    assert relative_robustness([0, 5, 10], [0.9, 0.7, 0.1]) == pytest.approx(0.4 + 0.2)
    assert relative_robustness([0, 1, 4], [1.0, 0.8, 0.0]) == pytest.approx(0.9 / 4 + 0.4 * 3 / 4)
    assert relative_robustness([0, 3], [0.5, 0.5]) == pytest.approx(0.5)  # the mean height


def test_relative_robustness_is_the_public_one_on_its_grid():
    """Eleven levels 0, 0.1, ..., 1: trapezoids of width 0.1."""
    values = np.random.default_rng(0).random(11)
    public = sum((values[i] + values[i + 1]) * 0.1 / 2 for i in range(10))
    assert relative_robustness(range(0, 101, 10), values) == pytest.approx(public, rel=1e-12)


def test_effective_robustness_by_hand():
    # The baseline brought to 0.9 when clean: 0.9, 0.6, 0.3; beyond it: 0, 0.1, -0.2.
    assert effective_robustness([0.9, 0.7, 0.1], [0.8, 0.5, 0.2]) == pytest.approx(-0.1)
    assert effective_robustness([0.6, 0.4], [0.9, 0.7]) == pytest.approx(0)  # a shift alone is no robustness


def row(name, group, level, accuracy):
    return {"name": name, "group": group, "level": level, "routes": {"representation": {"accuracy": accuracy}}}


ROWS = [
    row("clean", "clean", 0.0, 0.9),
    row("image only", "modality_subset", 0.0, 0.3),
    row("noise 5", "official_gaussian", 5.0, 0.7),
    row("noise 10", "official_gaussian", 10.0, 0.1),
]
BASELINE = [ROWS[0] | row("clean", "clean", 0.0, 0.8), ROWS[1], *(row(f"noise {x}", "", x, 0.5) for x in (5, 10))]


def test_report_by_hand():
    found = robustness_report(ROWS, BASELINE)["representation"]
    noise, subsets = found["official_gaussian"], found["modality_subset"]
    assert list(found) == ["modality_subset", "official_gaussian"]
    assert noise["levels"] == [0.0, 5.0, 10.0] and noise["values"] == [0.9, 0.7, 0.1]
    assert noise["mean"] == pytest.approx(1.7 / 3) and (noise["worst"], noise["worst_condition"]) == (0.1, "noise 10")
    assert noise["relative"] == pytest.approx(0.6)
    assert noise["effective"] == pytest.approx(1.7 - (0.8 + 0.5 + 0.5 + 3 * 0.1))
    assert subsets["relative"] is None and subsets["worst_condition"] == "image only"
    assert robustness_report(ROWS)["representation"]["official_gaussian"]["effective"] is None
    errors = robustness_report(ROWS, BASELINE, lower_is_better=True)["representation"]["official_gaussian"]
    assert errors["worst"] == 0.9
    assert errors["effective"] == -noise["effective"]  # an error that rises less than the baseline's is robust


def test_table_shows_the_report():
    run = {"robustness": robustness_report(ROWS, BASELINE), "baseline": {"method": "plain", "seed": 3}}
    shown = robustness_table(run).to_markdown()
    cells = "| official gaussian | representation (z) | 56.7 | 10.0 | noise 10 | 60.0 | -40.0 |"
    assert cells in shown and "the baseline is plain, seed 3." in shown
    assert "n/a |" in robustness_table({"robustness": robustness_report(ROWS)}).to_markdown()


def test_tables_show_two_of_many_levels():
    run = {"dataset": "d", "split": "test", "method": "c3r", "seed": 0, "num_examples": 9}
    rows = [row(f"missing {x} %", "missing", float(x), 0.5) for x in range(10, 101, 10)]
    table = results_table(aggregate([{**run, "conditions": [*ROWS, *rows]}]))
    assert table.header[3:] == ("image only", "missing 50 %", "missing 100 %", "noise 5", "noise 10", "mean", "worst")
    assert any("more than five levels" in note for note in table.notes)


def test_baselines_that_do_not_fit(tmp_path):
    expected = {"dataset": "d", "split": "test", "num_examples": 4, "noise_seed": 0, "conditions": ["clean", "noise 5"]}
    read = lambda: read_baseline(tmp_path, "shift", ["official"], expected)  # noqa: E731
    with pytest.raises(WorkdirError, match=r"evaluate it first, by .*--split=shift --protocol=official"):
        read()
    path = results_folder(tmp_path, "shift", ["official"]) / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(WorkdirError, match="cannot be read"):
        read()
    results = {**{k: expected[k] for k in ("dataset", "split", "num_examples")}, "config": {"eval": {"noise_seed": 1}}}
    path.write_text(json.dumps({**results, "conditions": ROWS}))
    with pytest.raises(WorkdirError, match=r"differs in \(baseline, here\) \{'noise_seed': \(1, 0\)\}"):
        read()
    results["config"]["eval"]["noise_seed"] = 0
    path.write_text(json.dumps({**results, "conditions": ROWS[:1]}))
    with pytest.raises(WorkdirError, match="lacks the conditions noise 5"):
        read()
    expected |= {"task": "regression", "sha256": "a"}
    path.write_text(json.dumps({**results, "task": "softmax", "sha256": "b", "conditions": [{"modalities": "text"}]}))
    with pytest.raises(WorkdirError, match=r"'task': \('softmax', 'regression'\), 'sha256': \('b', 'a'\)"):
        read()
    path.write_text(json.dumps({**results, "conditions": ROWS}))
    assert read()["num_examples"] == 4
