"""A study's cells on real inputs: every run is trained and evaluated as train.py and eval.py do."""

import importlib
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from c3r_jax.data.catalogue import SOURCES
from c3r_jax.errors import ConfigError
from c3r_jax.evaluation.evaluate import evaluated
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.sweep.grid import C3R_STRENGTH, Cell, SweepRun
from c3r_jax.sweep.settings import ExperimentsSettings
from c3r_jax.training.loop import fit
from c3r_jax.training.preemption import exit_when_stopped

SHIFTED = "shift"  # the split whose conditions count as shifted, if a data set has it


def trained_cells(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that train.py can train: without the public code's objective, and without environments."""
    return [cell for cell in cells if not cell.official and not cell.rival.needs_environments]


def experiment_runs(settings: ExperimentsSettings, cell: Cell, name: str) -> list[SweepRun]:
    """The runs of a cell in one experiment: all settings of its grid, or only the middle one."""
    if not settings.tuned:
        cell = cell._replace(grid={weight: values[len(values) // 2 :][:1] for weight, values in cell.grid.items()})
    return cell.runs(name, settings.seeds)


def experiment_config(settings: ExperimentsSettings, cell: Cell, run: SweepRun) -> ConfigDict:
    """The configuration of one run: that of the experiment, with the cell's fusion, rival and dropout.

    C3R's weights and modes are those of the experiment, because those of a cell are for structural models; a strength
    of C3R in the cell's grid multiplies them.

    Args:
      settings: settings of the study's experiments.
      cell: the cell.
      run: the run, whose world is the name of the experiment.

    Raises:
      ConfigError: there is no configuration of that name.
    """
    try:
        experiment = importlib.import_module(f"configs.{run.world}").get_config()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"config.experiments.names has {run.world!r}: expected names of configurations, such as emoji_shift."
        ) from error
    experiment.seed = run.seed
    experiment.method = "c3r" if cell.regularised else "plain"
    experiment.modality_dropout.switch = "on" if cell.dropout else "off"
    experiment.model.fusion = cell.fusion
    experiment.rival.name, experiment.rival.strength = cell.rival.name, cell.strength(run)
    experiment.c3r.strength = dict(run.weights).get(C3R_STRENGTH, experiment.c3r.strength)
    experiment.data.path = settings.path or experiment.data.path
    if settings.steps:
        experiment.train.steps = settings.steps
        experiment.train.eval_every = min(experiment.train.eval_every, experiment.train.steps)
        experiment.optimizer.warmup_steps = min(experiment.optimizer.warmup_steps, experiment.train.steps - 1)
    return experiment


def run_experiments(
    settings: ExperimentsSettings,
    cells: Sequence[Cell],
    workdir: pathlib.Path,
    on_done: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Trains and evaluates every cell of :func:`trained_cells`, except finished runs.

    Args:
      settings: settings of the study's experiments.
      cells: cells from ``read_cells``.
      workdir: each run has ``EXPERIMENT/CELL/seed_K`` below it.
      on_done: called with 1 after each run.

    Returns:
      Records like those of structural models: "validation" is the value by which the checkpoint was selected, "same"
      is clean test input, the other tests are the conditions of the report.
    """
    records = []
    for name in settings.names:
        for cell in trained_cells(cells):
            for run in experiment_runs(settings, cell, name):
                place = workdir / name / re.sub(r"[^\w.=+-]+", "_", run.label) / f"seed_{run.seed}"
                records.append(_record(run, experiment_config(settings, cell, run), place))
                if on_done:
                    on_done(1)
    return records


def _record(run: SweepRun, config: ConfigDict, place: pathlib.Path) -> dict[str, Any]:
    trained = fit(config, place)
    if trained.interrupted:
        exit_when_stopped(trained.stopped_by)
    results = evaluated(place, trained.best_step)
    tests: dict[str, dict[str, float]] = {route: {"validation": trained.best} for route in ROUTES}
    found = [(results, "")]
    if SHIFTED in SOURCES.get(config.data.name, (None, ()))[1]:
        found.append((evaluated(place, trained.best_step, SHIFTED), f", {SHIFTED}"))
    for scored, suffix in found:
        for condition in scored["conditions"]:
            for route in ROUTES:
                clean = condition["group"] == "clean"
                name = ("same" if not suffix else SHIFTED) if clean else condition["name"] + suffix
                tests[route][name] = condition["routes"][route]["accuracy"]
    return {
        **run.identity(),
        "finite": True,
        "accuracy": tests,
        "risk": {"total": results["risk"]["total"]},
    }
