"""The study of strengths: one program, the estimator's experts, rules that look at validation rows alone."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from c3r_jax.core.config import C3RConfig
from c3r_jax.errors import ConfigError
from c3r_jax.step.in_memory import STRENGTH, WEIGHTS
from c3r_jax.sweep.engine import chunks_of, make_data, run_sweep
from c3r_jax.sweep.full_runs import experiment_config
from c3r_jax.sweep.grid import SweepRun, read_cells, run_structure, run_weights
from c3r_jax.sweep.path_tables import choices, has_path, path_figure, path_table, rules_table
from c3r_jax.sweep.settings import read_sweep
from configs.sweeps import path


@pytest.fixture
def small():
    config = path.get_config()
    config.update_from_flattened_dict(
        {
            "seeds": 2,
            "data.worlds": ("anticausal",),
            "data.num_train": 300,
            "data.num_eval": 120,
            "model.hidden": (8,),
            "model.dim": 4,
            "train.steps": 20,
            "train.batch_size": 64,
            "train.learning_rate": 1e-2,
        }
    )
    config.cells = ConfigDict(
        {"plain": {"regularised": False}, "c3r": {**config.cells.c3r, "c3r_strength": (0.0, 2.0)}}
    )
    return config


def test_the_study_is_the_estimators_default_at_several_strengths():
    (cell,) = read_cells(read_sweep(path.get_config()))
    assert cell.config == C3RConfig(expert=0.5) and cell.row_experts and cell.regularised
    runs = cell.runs("anticausal", 2)
    assert len(runs) == 12 and runs[2].label == "c3r c3r_strength=0.25"
    assert cell.configured(runs[2]) == C3RConfig(expert=0.5, strength=0.25)
    settings = read_sweep(path.get_config())
    assert len({run_structure(settings, cell, run) for run in runs}) == 1  # strength 0 as well
    weights = np.stack([run_weights(cell, run) for run in runs])
    np.testing.assert_allclose(weights[::2, WEIGHTS.index("strength")], path.STRENGTHS)
    np.testing.assert_allclose(weights[:, STRENGTH], 1)  # the rival's


def test_the_strength_of_a_rival_and_of_c3r_have_two_names(small):
    small.cells = ConfigDict({"both": {"rival": "mixup", "strength": (0.1, 0.4), "c3r_strength": (0.5, 1.0)}})
    (cell,) = read_cells(read_sweep(small))
    runs = cell.runs("anticausal", 1)
    found = [(run_weights(cell, run)[WEIGHTS.index("strength")], run_weights(cell, run)[STRENGTH]) for run in runs]
    np.testing.assert_allclose(found, [(0.5, 0.1), (1.0, 0.1), (0.5, 0.4), (1.0, 0.4)], rtol=1e-6)
    experiment = experiment_config(read_sweep(small).experiments, cell, runs[-2]._replace(world="emoji"))
    assert (experiment.c3r.strength, experiment.rival.strength) == (0.5, 0.4)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"preset": "mild"}, "has preset 'mild' and row_experts False: expected one of default, strong"),
        ({"row_experts": 1}, "row_experts 1"),
        ({"c3r_strength": -1.0}, "C3RConfig.strength is -1.0"),
        ({"c3r_strength": (1.0, -2.0)}, "C3RConfig.strength is -2.0"),
    ],
)
def test_cells_refused(small, cell, message):
    small.cells = ConfigDict({"odd": cell})
    with pytest.raises(ConfigError, match=f"'odd'.*{message}"):
        read_cells(read_sweep(small))


def test_strengths_are_one_program_with_experts_of_all_rows(small, tmp_path):
    settings = read_sweep(small)
    cells = read_cells(settings)
    chunks = chunks_of(settings, cells)
    assert [len(runs) for _, runs in chunks] == [2, 4]
    run = SweepRun("anticausal", "c3r", (), 0)
    data = make_data(settings, run, row_experts=True)
    assert data.tests.evidence is None and make_data(settings, run).train.evidence is None
    assert data.train.evidence is not None and set(data.train.evidence) == {"m1", "m2"}
    records = run_sweep(settings, cells, tmp_path)
    plain, path_runs = records[:2], records[2:]
    for seed in range(2):
        np.testing.assert_allclose(path_runs[seed]["last_loss"], plain[seed]["last_loss"], rtol=1e-3)
        assert abs(path_runs[2 + seed]["last_loss"] - plain[seed]["last_loss"]) > 1e-2
    for record in records:
        assert abs(record["balanced_accuracy"] - record["accuracy"]["representation"]["validation"]) < 0.05
        assert 0.4 < record["expert_accuracy"] <= 1
    assert has_path(records) and not has_path(plain)
    assert len(path_table(records, "anticausal").rows) == 2


def record(strength, seed, *, validation, shift, risk=0.5, balanced=0.5, finite=True):
    accuracy = {"validation": validation, "same": 0.8, "shift": shift}
    return {
        "world": "w",
        "cell": "c3r",
        "label": f"c3r c3r_strength={strength:g}",
        "weights": {"c3r_strength": strength},
        "seed": seed,
        "finite": finite,
        "accuracy": {"representation": accuracy, "instrument": accuracy},
        "balanced_accuracy": balanced,
        # Of .6 the standard error is .016, wide enough for .613; that of the accuracy, .010, is not.
        "expert_accuracy": {1.0: 0.6, 2.0: 0.613}.get(strength, 0.7),
        "risk": {"total": risk},
    }


@pytest.fixture
def records():
    return [
        *(record(0.0, seed, validation=0.900, shift=0.2, risk=0.9, balanced=0.6) for seed in (0, 1)),
        # The standard error of 900 rows is .01: seed 0 is within it, seed 1 is not.
        *(record(1.0, seed, validation=0.891 - 0.01 * seed, shift=0.4, risk=0.5, balanced=0.7) for seed in (0, 1)),
        *(record(2.0, seed, validation=0.85, shift=0.8, risk=0.6, balanced=0.6) for seed in (0, 1)),
        *(record(4.0, seed, validation=0.99, shift=0.7, risk=0.1, balanced=0.9, finite=False) for seed in (0, 1)),
    ]


def test_what_each_rule_chooses_by_hand(records):
    chosen = {
        rule: [run["weights"]["c3r_strength"] for run in runs] for rule, runs in choices(records, "w", rows=900).items()
    }
    assert chosen == {
        "accuracy": [0, 0],
        "one_standard_error": [1, 0],
        "balanced_accuracy": [1, 1],
        "c3_risk": [1, 1],
        "expert_accuracy": [2, 2],
        "oracle": [2, 2],
    }
    table = rules_table(records, "w", rows=900)
    assert table.rows[1] == ("one_standard_error", "1, 0", "89.5 ± 0.6", "80.0 ± 0.0", "30.0 ± 14.1")
    assert table.rows[-1][0] == "oracle (looks at the shifted test: not a valid rule)"
    assert path_table(records, "w").rows[2][0] == "2" and path_table(records, "w").rows[2][-1] == "80.0 ± 0.0"


def test_nothing_is_chosen_where_every_strength_diverged(records):
    broken = [{**run, "finite": False} for run in records]
    assert set(map(tuple, choices(broken, "w", rows=900).values())) == {()}
    assert {row[1:] for row in rules_table(broken, "w", rows=900).rows} == {("", "n/a", "n/a", "n/a")}
    of_one_seed = [{**run, "finite": run["finite"] and run["seed"] == 0} for run in records]
    assert [run["seed"] for run in choices(of_one_seed, "w", rows=900)["oracle"]] == [0]
    assert path_table(records, "w").rows[3][0] == "4 (2 of 2 runs not finite)"


def test_no_rule_but_the_oracle_looks_at_the_shift(records):
    changed = [dict(run) for run in records]
    for run in changed:
        tests = {**run["accuracy"]["representation"], "shift": 1 - run["accuracy"]["representation"]["shift"]}
        run["accuracy"] = {"representation": tests, "instrument": tests}
    before, after = (choices(found, "w", rows=900) for found in (records, changed))
    for rule, runs in before.items():
        same = [run["label"] for run in runs] == [run["label"] for run in after[rule]]
        assert same == (rule != "oracle"), rule


def test_the_figure_is_drawn(records, tmp_path):
    with Image.open(path_figure(records, ["w"], tmp_path / "path.png", rows=900)) as image:
        assert image.format == "PNG" and image.width > 900
