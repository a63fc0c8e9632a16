"""Every benchmark starts by its documented command, from anywhere, without the package installed."""

import argparse
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks import criterion, study
from benchmarks.safety import gaussian_world, network_size
from tests.processes import REPOSITORY

BENCHMARKS = sorted((REPOSITORY / "benchmarks").glob("*.py"))


# One after the other as if each had a process of its own: none sees the folders that others added, nor their modules.
EACH = """
import pathlib, runpy, sys

before = sys.path[1:]
for file in sys.argv[1:]:
    sys.path[:], sys.argv = [str(pathlib.Path(file).parent), *before], [file, "--help"]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("benchmarks", "c3r_jax", "configs")]:
        del sys.modules[name]
    try:
        runpy.run_path(file, run_name="__main__")
    except SystemExit as end:
        print(f"{file} ends with {end.code}")
"""


def test_benchmarks_start_anywhere(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", EACH, *map(str, BENCHMARKS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    for path in BENCHMARKS:
        shown, end, said = said.partition(f"{path} ends with 0\n")
        assert end and f"usage: {path.name}" in shown and "--json" in shown, done.stdout
    assert len(BENCHMARKS) > 15 and not said


def test_criteria_are_ranked_as_spearman_does():
    rng = np.random.default_rng(0)
    accuracy = rng.random((14, 2))
    noisy = accuracy + 0.3 * rng.random((14, 2))
    noisy[3] = noisy[4]  # ties share their rank
    expected = np.mean([spearmanr(noisy[:, seed], accuracy[:, seed]).statistic for seed in range(2)])
    assert criterion.rank_correlation(noisy, accuracy) == pytest.approx(expected)
    assert criterion.rank_correlation(np.ones((14, 2)), accuracy) == 0
    found = {
        "criteria": dict.fromkeys(criterion.CRITERIA, noisy) | {"C3 risk": -accuracy},
        "tests": {"same": 1 - accuracy, "shift": accuracy},
        "effective rows": [10.0, 20.0],
        "rows where q is wrong": [30, 40],
    }
    names = [f"setting {i}" for i in range(14)]
    case = json.loads(json.dumps(criterion.summary(found, names)))
    assert set(case["correlations"]) == {"shift"} and set(case["settings"]) == set(names)
    assert case["correlations"]["shift"]["C3 risk"]["correlation"] == pytest.approx(1)  # low risks are good
    shown = case["correlations"]["shift"]["accuracy"]
    low, high = shown["interval"]
    assert low < shown["correlation"] < high < 1 and shown["correlation"] == pytest.approx(expected)
    best = case["chosen"]["shift"]
    assert best["C3 risk"] == best["oracle (not a valid rule)"] == pytest.approx(accuracy.max(0).mean())
    assert best["accuracy"] <= best["C3 risk"]


def test_a_study_becomes_a_table_of_seeds():
    """The selected strength alone; one modality is a mean over modalities, the worst case that of each run."""

    def record(label, seed, validation, shift, finite=True):
        tests = {"validation": validation, "same": 0.9, "shift": shift, "only a, shift": 0.2, "only b, shift": 0.6}
        run = {"world": "w", "cell": "late", "label": label, "seed": seed, "finite": finite, "risk": {"total": 1.0}}
        return run | {"accuracy": {"representation": tests, "instrument": tests}}

    records = [record("late 1", 1, 0.8, 0.1), record("late 1", 0, 0.8, 0.3), record("late 2", 0, 0.7, 0.99)]
    found = study.tables_of_study(records, "validation_accuracy")
    assert found["w"]["late"]["shift"] == [0.3, 0.1] and found["w"]["late"]["worst, shift"] == [0.2, 0.1]
    assert found["w"]["late"][study.ALONE] == pytest.approx([0.4, 0.4])
    broken = study.tables_of_study([record("late", 0, 0.8, 0.3, finite=False)], "validation_accuracy")
    assert broken["w"]["late"]["shift"] == [None]


def test_the_size_of_a_network_is_that_of_its_layers():
    encoder = 12 * 64 + 64 + 64 * 16 + 16  # two layers with offsets
    assert network_size(gaussian_world(2, 3, rows=60)(0)["train"]) == 2 * encoder + 16 * 3 + 3


def test_criteria_take_the_worlds_of_another_benchmark():
    worlds = criterion.worlds_of(argparse.Namespace(weights=None))
    parts = worlds["structural: confounded"]()(0)
    assert {"train", "same", "shift"} == set(parts) and all(callable(make()) for make in worlds.values())
