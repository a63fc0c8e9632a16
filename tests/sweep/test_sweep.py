"""Sweeps: a run equals itself alone, chunks and devices change nothing, finished chunks are kept, selection is fair."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from c3r_jax.commands import sweep
from c3r_jax.core.config import C3RConfig
from c3r_jax.errors import ConfigError
from c3r_jax.estimator.classifier import DEFAULT
from c3r_jax.methods.official import official_compat_loss
from c3r_jax.metrics.intervals import bootstrap_interval
from c3r_jax.models.twin import apply
from c3r_jax.step.in_memory import model_of, train_run
from c3r_jax.step.state import init_state
from c3r_jax.sweep import engine
from c3r_jax.sweep.engine import chunk_size, chunks_of, devices_for, evaluate_run, make_data, run_sweep
from c3r_jax.sweep.grid import SweepRun, read_cells, run_structure, run_weights
from c3r_jax.sweep.paired_table import pairs_table
from c3r_jax.sweep.settings import read_sweep
from c3r_jax.sweep.tables import score, select, sweep_figure, sweep_table
from configs.sweeps import ablation, base
from tests.processes import run_here


@pytest.fixture
def small():
    config = base.get_config()
    config.seeds = 2
    config.data.worlds = ("anticausal",)
    config.data.num_train = 300
    config.data.num_eval = 120
    config.model.hidden = (8,)
    config.model.dim = 4
    config.train.steps = 10
    config.train.batch_size = 64
    config.cells = ConfigDict(
        {"plain": {"regularised": False}, "c3r": {"preset": "hinge", "lambda_n": (0.5, 2.0), "dropout": 0.3}}
    )
    return config


def test_every_run_equals_itself_alone(small, tmp_path):
    """Six runs on eight devices: padded, sharded and vmapped."""
    cells = read_cells(read_sweep(small))
    records = run_sweep(read_sweep(small), cells, tmp_path)
    assert [r["label"] for r in records] == ["plain"] * 2 + ["c3r lambda_n=0.5"] * 2 + ["c3r lambda_n=2"] * 2
    assert len(jax.local_devices()) == 8
    for record in records:
        cell = next(cell for cell in cells if cell.name == record["cell"])
        run = SweepRun(record["world"], record["cell"], tuple(record["weights"].items()), record["seed"])
        made, data = run_structure(read_sweep(small), cell, run), make_data(read_sweep(small), run)
        params, losses = jax.jit(train_run, static_argnums=0)(
            made, data.train, data.plan, run.seed, run_weights(cell, run), 2e-3, 1e-3
        )
        np.testing.assert_allclose(record["last_loss"], losses[-1], rtol=1e-5)
        alone = jax.jit(evaluate_run, static_argnums=0)(made, params, data)
        # One of 120 examples may lie on the boundary.
        found = np.array(
            [[record["accuracy"][r][t] for r in record["accuracy"]] for t in record["accuracy"]["instrument"]]
        )
        assert np.abs(found - alone["accuracy"]).max() <= 1 / 120 + 1e-6
    assert records[2]["last_loss"] != records[4]["last_loss"]


def test_the_public_codes_objective_is_a_cell(small, tmp_path):
    """Its first loss is the objective's at the first parameters; its fusion layer learns nothing from the labels."""
    small.cells = ConfigDict({"official_compat": {"official": True}})
    (cell,) = read_cells(read_sweep(small))
    record = run_sweep(read_sweep(small), [cell], tmp_path)[0]
    run = SweepRun("anticausal", cell.name, (), 0)
    made, data = run_structure(read_sweep(small), cell, run), make_data(read_sweep(small), run)
    model = model_of(made)[0]
    state = init_state(model, optax.identity(), {"inputs": data.train.inputs}, 0)
    rows = data.train.take(data.plan[0])
    h = apply(model, state.variables, model.encode, rows.inputs, rows.present)
    layers = {**state.params["fusion"], "head": state.params["head"]}
    loss, _ = official_compat_loss(layers, *h.values(), rows.labels)
    np.testing.assert_allclose(record["first_loss"], loss, rtol=1e-5)
    params, _ = jax.jit(train_run, static_argnums=0)(made, data.train, data.plan, 0, run_weights(cell, run), 2e-3, 0.0)
    np.testing.assert_array_equal(params["fusion"]["fusion"]["kernel"], state.params["fusion"]["fusion"]["kernel"])
    assert np.abs(params["head"]["kernel"] - state.params["head"]["kernel"]).max() > 1e-3


@pytest.mark.parametrize(("settings", "modalities"), [({"official": 2}, 2), ({"lambda_n": 1.0}, 2), ({}, 3)])
def test_the_public_codes_objective_has_no_settings(small, settings, modalities):
    small.data.num_modalities = modalities
    small.cells = ConfigDict({"official_compat": {"official": True, **settings}})
    with pytest.raises(ConfigError, match="expected True, nothing else, and config.data.num_modalities=2"):
        read_cells(read_sweep(small))


def test_chunks_change_nothing(small, tmp_path):
    cells = read_cells(read_sweep(small))
    whole = run_sweep(read_sweep(small), cells, tmp_path / "whole")
    small.memory_mib = 1
    parts = chunks_of(read_sweep(small), cells)
    assert len(parts) == 6 and sum(len(runs) for _, runs in parts) == 6
    cut = run_sweep(read_sweep(small), cells, tmp_path / "cut")
    np.testing.assert_allclose([r["last_loss"] for r in cut], [r["last_loss"] for r in whole], rtol=1e-5)


@pytest.mark.parametrize(("runs", "devices"), [(1, 1), (5, 5), (8, 8), (9, 5), (16, 8), (17, 6)])
def test_no_device_trains_for_nothing(runs, devices):
    assert jax.local_device_count() == 8
    assert len(devices_for(runs)) == devices
    assert -(-runs // devices) == -(-runs // 8)  # as soon done as on all eight


def test_a_chunk_fits_the_memory(small):
    cells = read_cells(read_sweep(small))
    run = cells[0].runs("anticausal", 1)[0]
    made, data = run_structure(read_sweep(small), cells[0], run), make_data(read_sweep(small), run)
    sizes = [chunk_size(made, data, mib) for mib in (1, 64, 1024)]
    assert 1 <= sizes[0] < sizes[1] < sizes[2]
    assert sizes[2] * sum(x.nbytes for x in jax.tree.leaves(data)) < 1024 * 2**20
    # What the compiled program of so many runs, each with data of its own, takes in truth.
    count = sizes[1]
    many = jax.tree.map(lambda x: np.stack([x] * count), data)
    own = np.tile(run_weights(cells[0], run), (count, 1))
    program = engine.compiled_chunk(made).lower(
        many, np.arange(count, dtype=np.int32), np.arange(count, dtype=np.uint32), own, 1e-3, 1e-3
    )
    found = program.compile().memory_analysis()
    taken = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    assert 16 * 2**20 < taken < 64 * 2**20


def test_finished_chunks_are_not_run_again_and_damaged_ones_are(small, tmp_path, monkeypatch):
    cells = read_cells(read_sweep(small))
    before = run_sweep(read_sweep(small), cells, tmp_path)
    files = sorted((tmp_path / "chunks").iterdir())
    assert len(files) == 2
    ran = []
    real = engine.run_chunk
    monkeypatch.setattr(engine, "run_chunk", lambda *a: ran.append(len(a[2])) or real(*a))
    assert run_sweep(read_sweep(small), cells, tmp_path) == before and ran == []
    text = files[0].read_text()
    for damage in (text[: len(text) // 2], "", "[]", json.dumps([{}])):
        ran.clear()
        files[0].write_text(damage)
        assert run_sweep(read_sweep(small), cells, tmp_path) == before and len(ran) == 1


def record(label, seed, *, validation=0.8, risk=0.5, shift=0.7, finite=True, world="w"):
    z = {"validation": validation, "same": 0.8, "shift": shift}
    return {
        "world": world,
        "cell": label.split()[0],
        "label": label,
        "seed": seed,
        "finite": finite,
        "accuracy": {"representation": z, "instrument": z},
        "risk": {"total": risk},
    }


def test_selection_rules_by_name():
    records = [
        *(record("c a", seed, validation=0.9, risk=0.6, shift=0.1) for seed in (0, 1)),
        *(record("c b", seed, validation=0.8, risk=0.4, shift=0.2) for seed in (0, 1)),
        *(record("c c", seed, validation=0.7, risk=0.9, shift=0.3) for seed in (0, 1)),
        *(record("c d", seed, validation=1.0, risk=0.0, shift=1.0, finite=False) for seed in (0, 1)),
    ]
    for rule, label in (("validation_accuracy", "c a"), ("validation_risk", "c b"), ("oracle", "c c")):
        assert {r["label"] for r in select(records, rule)} == {label}
    assert score(records[-1], "oracle") == -np.inf
    changed = [{**r, "accuracy": {k: {**v, "shift": 0.99} for k, v in r["accuracy"].items()}} for r in records]
    for rule in ("validation_accuracy", "validation_risk"):  # never by the test
        assert [r["label"] for r in select(changed, rule)] == [r["label"] for r in select(records, rule)]


def test_table_has_means_spreads_and_paired_gains():
    records = [record("plain", s, shift=0.5 + 0.1 * s) for s in (0, 1, 2)]
    records += [record("c3r", s, shift=0.7 + 0.1 * s) for s in (0, 1, 2)]
    table = sweep_table(records, "w", baseline="plain", select_by="validation_accuracy")
    assert table.header == ("cell", "same", "shift", "shift, z_c", "C3 risk", "gain over plain, shift")
    assert table.rows[0] == ("plain", "80.0 ± 0.0", "60.0 ± 10.0", "60.0 ± 10.0", "0.500 ± 0.000", "")
    assert table.rows[1][-1] == "+20.0 (+20.0 to +20.0)"
    oracle = sweep_table(records, "w", baseline="plain", select_by="oracle")
    assert "ORACLE" in oracle.notes[0] and "ORACLE" not in table.notes[0]
    broken = sweep_table(
        [record("plain", 0), record("plain", 1, finite=False)], "w", baseline="plain", select_by="oracle"
    )
    assert broken.rows[0][:3] == ("plain (1 of 2 runs not finite)", "80.0", "70.0")
    apart = [*records, *(record("plain", s, world="v", shift=0.5) for s in (0, 1))]
    assert "World v, 2 seeds" in sweep_table(apart, "v", baseline="plain", select_by="oracle").notes[0]


def test_a_run_that_diverged_has_no_figures(small, tmp_path):
    """Outputs that are NaN would count as the first class: half of the rows."""
    small.cells = ConfigDict({"blown": {"preset": "hinge", "lambda_n": 3e38, "lambda_s": 3e38}})
    small.data.worlds = ("null",)
    records = run_sweep(read_sweep(small), read_cells(read_sweep(small)), tmp_path)
    assert not any(r["finite"] for r in records)
    assert {*records[0]["accuracy"]["representation"].values(), *records[0]["risk"].values()} == {None}
    json.dumps(records, allow_nan=False)
    table = sweep_table(records, "null", baseline="blown", select_by="validation_accuracy")
    assert set(table.rows[0][1:-1]) == {"n/a"}
    pair = [{**r, "cell": name, "label": name} for r in records for name in ("blown", "blown + C3R")]
    assert "Best in the worst case" not in pairs_table(pair, "null", select_by="validation_accuracy").notes[0]


def test_bootstrap_interval_by_enumeration():
    """Three values have 27 resamples, all equally likely; 10,000 draws find their quantiles exactly."""
    values = [0.0, 1.0, 5.0]
    means = np.mean([[a, b, c] for a in values for b in values for c in values], axis=1)
    low, high = bootstrap_interval(values)
    expected = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    np.testing.assert_allclose((low, high), expected, atol=1e-12)
    assert bootstrap_interval(values) == (low, high)


def test_figure_is_drawn(tmp_path):
    records = [record(label, s, world=w) for label in ("plain", "c3r") for s in (0, 1) for w in ("a", "b")]
    sweep_figure(records, ["a", "b"], tmp_path / "f.png", select_by="validation_accuracy")
    assert (tmp_path / "f.png").stat().st_size > 5000


def test_the_ablation_study_has_every_cell():
    cells = {cell.name: cell for cell in read_cells(read_sweep(ablation.get_config()))}
    assert list(cells)[:3] == ["plain", "dropout", "c3r"]
    whole = cells["c3r"]
    assert whole.config == DEFAULT and whole.row_experts and cells["first version"].config == C3RConfig.hinge()
    parts = {"without experts": "expert", "without subsets": "subsets", "without cap": "cap", "without gate": "gate"}
    for name, field in parts.items():  # what is left out, and nothing else
        off = getattr(cells[name].config, field)
        assert not off and dataclasses.replace(whole.config, **{field: off}) == cells[name].config
    assert dataclasses.replace(whole.config, lambda_v=1.0) == cells["with relevance"].config
    for name, weight in (("sufficiency", "lambda_s"), ("necessity", "lambda_n")):
        assert getattr(cells[f"without {name}"].config, weight) == 0
    assert {cell.config.counterfactual for cell in cells.values()} >= {
        "projection",
        "removal",
        "gradient",
        "minimal",
        "mean",
        "permute",
    }
    assert {cell.config.necessity for cell in cells.values()} == {"hinge", "log", "kl", "constant"}
    assert {cell.config.instrument for cell in cells.values()} == {"two_stage", "attention", "none"}
    assert cells["shuffled instrument"].config.shuffled and cells["stop-gradient"].config.stop_gradient


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"lambda_x": 1.0}, "has 'lambda_x'"),
        ({"lambda_n": -1.0}, "cannot be used: C3RConfig.lambda_n is -1.0"),
        ({"lambda_n": (1.0, -2.0)}, "cannot be used: C3RConfig.lambda_n is -2.0"),
        ({"lambda_n": ()}, "without any value"),
        ({"counterfactual": "other"}, "C3RConfig.counterfactual is 'other'"),
        ({"dropout": 2.0}, "dropout 2.0"),
        ({"regularised": "no"}, "regularised 'no'"),
    ],
)
def test_cells_refused(small, cell, message):
    small.cells = ConfigDict({"odd": cell})
    with pytest.raises(ConfigError, match=f"'odd'.*{message}"):
        read_cells(read_sweep(small))


def test_a_cell_that_has_no_fields_is_refused(small):
    small.cells = ConfigDict({"odd": 0.5})
    with pytest.raises(ConfigError, match=r"config.cells\['odd'\] is 0.5, but fields were expected"):
        read_cells(read_sweep(small))


@pytest.mark.parametrize(
    ("leaf", "value", "message"),
    [
        ("seeds", 0, "config.seeds is 0"),
        ("data.num_train", 5, "config.data.num_train is 5"),
        ("data.worlds", (), "config.data.worlds is empty"),
        ("data.worlds", ("mars",), "config.data.worlds has 'mars'"),
        ("select_by", "test", "config.select_by is 'test'"),
        ("train.learning_rate", float("nan"), "config.train.learning_rate is nan: expected a number >= 0"),
        ("model.hidden", (0,), r"config.model.hidden is \(0,\): expected widths of at least 1"),
    ],
)
def test_settings_refused(small, leaf, value, message):
    small.update_from_flattened_dict({leaf: value})
    with pytest.raises(ConfigError, match=message):
        read_sweep(small)


def test_command(tmp_path, monkeypatch):
    # Every cell compiles its own program: two cells are enough here.
    study = tmp_path / "study.py"
    study.write_text(
        "from configs.sweeps import base\nfrom ml_collections import ConfigDict\n"
        "def get_config():\n    config = base.get_config()\n"
        "    config.cells = ConfigDict({'plain': {'regularised': False}, 'c3r': {}})\n    return config\n"
    )
    arguments = [
        *(f"--config={study}", f"--workdir={tmp_path / 'run'}"),
        *("--config.seeds=2", "--config.data.num_train=200", "--config.data.num_eval=100", "--config.train.steps=3"),
        *("--config.train.batch_size=64", "--config.model.hidden=(4,)", "--config.model.dim=2"),
        "--config.data.worlds=('null',)",
    ]
    command = [sys.executable, "-m", "c3r_jax.sweep", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| c3r |" in done.stdout and (tmp_path / "run" / "sweep.png").exists()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert len(results["runs"]) == 4 and (tmp_path / "run" / "results.md").read_text() in done.stdout
    assert run_here(sweep, monkeypatch, *arguments) is None  # everything is done already
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    other = run_here(sweep, monkeypatch, *arguments, "--config.seeds=3")
    assert "holds a run of another configuration" in other
