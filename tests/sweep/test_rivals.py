"""The study of rivals: its cells, its environments, real inputs, and the table of pairs."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from c3r_jax.core.config import C3RConfig
from c3r_jax.errors import ConfigError, NonFiniteError
from c3r_jax.estimator.classifier import DEFAULT
from c3r_jax.methods.registry import RIVALS
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.step.in_memory import STRENGTH
from c3r_jax.sweep import full_runs as trained
from c3r_jax.sweep.engine import make_data
from c3r_jax.sweep.grid import SweepRun, read_cells, run_structure, run_weights
from c3r_jax.sweep.paired_table import cells_table, has_pairs, pairs_table
from c3r_jax.sweep.settings import read_sweep
from c3r_jax.sweep.tables import select
from configs.sweeps import rivals


def test_every_rival_is_there_with_and_without_c3r():
    config = rivals.get_config()
    cells = {cell.name: cell for cell in read_cells(read_sweep(config))}
    assert cells.pop("C3R, first version").config == C3RConfig.hinge()
    alone = [name for name in cells if not name.endswith(" + C3R")]
    assert len(cells) == 2 * len(alone) and {cell.rival.name for cell in cells.values()} == set(RIVALS)
    fusions = {"mean", "late", "concat", "gated", "bottleneck", "evidential", "confidence"}
    assert {cell.fusion for cell in cells.values()} == fusions
    for name in alone:
        one, both = cells[name], cells[f"{name} + C3R"]
        assert not one.regularised and both.regularised and both.row_experts and both.config == DEFAULT
        assert (one.fusion, one.rival, one.dropout, one.grid) == (both.fusion, both.rival, both.dropout, both.grid)
        assert len(one.grid.get("strength", (1, 1, 1))) == 3  # the same budget for each


def test_strengths_share_a_program():
    config = rivals.get_config()
    cell = next(cell for cell in read_cells(read_sweep(config)) if cell.name == "IRM")
    runs = cell.runs("confounded", 1)
    assert [run.label for run in runs] == ["IRM strength=1", "IRM strength=10", "IRM strength=100"]
    assert len({run_structure(read_sweep(config), cell, run) for run in runs}) == 1
    np.testing.assert_allclose([run_weights(cell, run)[STRENGTH] for run in runs], [1, 10, 100])


def test_environments_differ_in_their_cues_alone():
    config = rivals.get_config()
    data = make_data(read_sweep(config), SweepRun("anticausal", "mean", (), 0)).train
    config.data.environments = ()
    whole = make_data(read_sweep(config), SweepRun("anticausal", "mean", (), 0)).train
    assert whole.environment is None
    np.testing.assert_array_equal(data.environment, np.arange(4000) % 2)
    np.testing.assert_array_equal(data.labels, whole.labels)
    same = [(data.inputs["m1"][e::2] == whole.inputs["m1"][e::2]).all(1).mean() for e in range(2)]
    assert all(0.85 < share < 0.93 for share in same)  # |.85 - .955| and |.85 - .745| of the cues are other ones


@pytest.mark.parametrize(
    ("cell", "environments", "message"),
    [
        ({"rival": "irm"}, (), "the training rows have 0 of them"),
        ({"rival": "sum"}, (1.0, 0.5), "Rival.name is 'sum'"),
        ({"rival": "mixup", "strength": (0.0, 1.0)}, (), "mixup draws from Beta"),
        ({"rival": "mixup", "fusion": "evidential"}, (), "has a loss of its own"),
        ({"fusion": "sum"}, (), "config.model.fusion is 'sum'"),
    ],
)
def test_cells_refused(cell, environments, message):
    config = rivals.get_config()
    config.data.environments = environments
    config.cells = ConfigDict({"odd": cell})
    with pytest.raises(ConfigError, match=message):
        read_cells(read_sweep(config))


def record(cell, seed, worst, validation=0.8, label=None):
    tests = {"validation": validation, "same": 0.9, "shift": 0.95, "noise, shift": worst}
    accuracy = dict.fromkeys(ROUTES, tests)
    return {
        "world": "w", "cell": cell, "label": label or cell, "seed": seed, "finite": True, "accuracy": accuracy
    }  # fmt: skip


def test_pairs_are_compared_seed_by_seed_in_the_worst_case():
    records = [record("late", s, 0.5 + 0.1 * s) for s in (0, 1)]
    records += [record("late + C3R", s, 0.55 + 0.1 * s, label="late + C3R strength=1") for s in (0, 1)]
    records += [record("late + C3R", s, 0.99, validation=0.7, label="late + C3R strength=2") for s in (0, 1)]
    records += [record("concat", s, 0.97) for s in (0, 1)]  # has no pair
    assert has_pairs(records) and not has_pairs(records[-2:])
    table = pairs_table(records, "w", select_by="validation_accuracy")
    assert table.rows == (("late", "90.0 ± 0.0", "55.0 ± 7.1", "90.0 ± 0.0", "60.0 ± 7.1", "+5.0 (+5.0 to +5.0)"),)
    assert "Best in the worst case: late + C3R, 60.0." in table.notes[0]


def test_cells_on_real_inputs(tmp_path, monkeypatch):
    """What a run is configured as, and what of its results goes where; training itself is train.py's."""
    config = rivals.get_config()
    config.experiments.names, config.experiments.steps, config.experiments.tuned = ("emoji_shift",), 20, False
    config.experiments.path = "somewhere"
    chosen = [
        cell for cell in read_cells(read_sweep(config)) if cell.name in ("IRM", "mixup + C3R", "modality dropout")
    ]
    fitted = []

    def evaluated(place, step, split=None):
        assert step == 15
        value = 0.3 if split == "shift" else 0.6
        rows = [
            {"name": name, "group": group, "routes": {route: {"accuracy": value} for route in ROUTES}}
            for name, group in (("all", "clean"), ("image only", "subset"))
        ]
        return {"conditions": rows, "risk": {"total": 0.5}}

    class Result:
        best, best_step, interrupted, stopped_by = 0.7, 15, False, "SIGTERM"

    monkeypatch.setattr(trained, "fit", lambda config, place: fitted.append((config, place)) or Result())
    monkeypatch.setattr(trained, "evaluated", evaluated)
    settings = read_sweep(config).experiments
    mixed = next(cell for cell in chosen if cell.name == "mixup + C3R")
    plan = {"emoji_shift": [cell for cell in chosen if cell.name != "IRM"]}
    records = trained.run_experiments(settings, plan, tmp_path)
    assert [r["label"] for r in records] == ["modality dropout", "mixup + C3R strength=0.4"]
    (dropout, _), (mixup, place) = fitted
    assert (dropout.method, dropout.modality_dropout.switch, mixup.method) == ("plain", "on", "c3r")
    assert dropout.modality_dropout.rate == 0.4 and mixup.c3r.expert == 0
    by_cells = dataclasses.replace(settings, c3r="cells")
    run = trained.experiment_runs(by_cells, mixed, "emoji_shift")[0]
    assert trained.experiment_config(by_cells, mixed, run).c3r.expert == 0.5
    config.cells = ConfigDict({"without experts": {}, "attention": {"instrument": "attention"}})
    run = SweepRun("emoji_shift_pretrained", "", (), 0)  # whose own configuration has experts
    for cell in read_cells(read_sweep(config)):
        assert trained.experiment_config(by_cells, cell, run).c3r.expert == 0
    config = rivals.get_config()
    config.experiments.names, config.experiments.steps = ("emoji_shift",), 20
    assert (mixup.rival.name, mixup.rival.strength, mixup.train.steps) == ("mixup", 0.4, 20)
    assert mixup.optimizer.warmup_steps < 20 and mixup.data.path == "somewhere" and mixup.c3r.lambda_n == 1.0
    assert place.relative_to(tmp_path).as_posix() == "emoji_shift/mixup_+_C3R_strength=0.4/seed_0"
    expected = {"same": 0.6, "image only": 0.6, "shift": 0.3, "image only, shift": 0.3}
    assert records[0]["accuracy"]["representation"] == expected
    assert records[0]["selection"] == {"by": "mean_accuracy", "value": 0.7}
    table = cells_table(records, "emoji_shift", baseline="modality dropout", select_by="validation_accuracy")
    assert table.rows[1] == ("mixup + C3R strength=0.4", "60.0", "30.0", "+0.0", "+0.0")
    assert "selected by validation mean_accuracy." in table.notes[0]
    config.experiments.tuned = True
    assert len(trained.experiment_runs(read_sweep(config).experiments, mixed, "emoji_shift")) == 3

    def diverges(config, place):
        raise NonFiniteError("step 1: loss is inf")

    monkeypatch.setattr(trained, "fit", diverges)
    (broken, *_) = trained.run_experiments(settings, plan, tmp_path)
    assert not broken["finite"] and broken["accuracy"]["representation"] == {}
    table = cells_table([broken], "emoji_shift", baseline="", select_by="validation_accuracy")
    assert table.rows == (("modality dropout (1 of 1 runs not finite)", "n/a", "n/a", "", ""),)
    monkeypatch.setattr(trained, "fit", lambda config, place: Result())
    monkeypatch.setattr(Result, "interrupted", True)
    monkeypatch.setattr(trained, "evaluated", lambda *_: pytest.fail("a run that was asked to stop has no results"))
    with pytest.raises(SystemExit, match="0"):
        trained.run_experiments(settings, plan, tmp_path)


def test_errors_are_made_small(tmp_path, monkeypatch):
    """Where the score that chose a checkpoint is an error, so is the value that selection maximises its negative."""
    config = rivals.get_config()
    config.experiments.names = ("mosei",)
    cell = next(cell for cell in read_cells(read_sweep(config)) if cell.name == "alignment")

    class Result:
        best_step, interrupted = 1, False

        def __init__(self, best):
            self.best = best

    row = {"name": "all", "group": "clean", "routes": {route: {"accuracy": 0.5} for route in ROUTES}}
    monkeypatch.setattr(trained, "evaluated", lambda *_: {"conditions": [row]})
    monkeypatch.setattr(trained, "fit", lambda config, place: Result(1 / config.rival.strength))
    records = trained.run_experiments(read_sweep(config).experiments, {"mosei": [cell]}, tmp_path)
    assert records[0]["selection"]["by"] == "mean_mae"
    (chosen,) = select(records, "validation_accuracy")
    assert chosen["weights"] == {"strength": 0.3}


def test_what_a_study_trains_on_real_inputs_is_known_before(tmp_path):
    config = rivals.get_config()
    config.experiments.names = ("emoji_shift",)

    def plan(**changes):
        for name, value in changes.items():
            config[name] = value
        settings = read_sweep(config)
        return trained.plan_experiments(settings.experiments, read_cells(settings), select_by=settings.select_by)

    cells, notes = plan()
    assert len(cells["emoji_shift"]) == 25 and "IRM, IRM + C3R, V-REx, V-REx + C3R" in notes[0]
    assert "expert" in notes[1] and "are not read there" in notes[1]
    with pytest.raises(ConfigError, match="'validation_risk', which experiments do not measure"):
        plan(select_by="validation_risk")
    config.select_by, cells = "validation_accuracy", config.cells
    config.cells = ConfigDict({"IRM": {"rival": "irm"}})
    with pytest.raises(ConfigError, match="'emoji_shift', which none of the cells can train"):
        plan()
    config.cells = cells
    for name, message in (
        ("emoji", "'emoji' has no split 'shift'"),
        ("pretrain_emoji", "whose task is contrastive"),
        ("nothing", "config.experiments.names has 'nothing'"),
        ("sweeps", "config.experiments.names has 'sweeps'"),
    ):
        config.experiments.names = (name,)
        with pytest.raises(ConfigError, match=message):
            plan(select_by="oracle")
