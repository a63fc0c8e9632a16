"""A study's cells on real inputs: every run is one of train.py, trained and evaluated by the loop of every run."""

import importlib
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from c3r_jax.errors import ConfigError
from c3r_jax.evaluation.evaluate import evaluated
from c3r_jax.models.twin import ROUTES
from c3r_jax.rivals.settings import BY_ENVIRONMENT
from c3r_jax.sweep.grid import Cell, SweepRun
from c3r_jax.training.experiment import SOURCES
from c3r_jax.training.loop import fit
from c3r_jax.training.stopping import leave_as_asked

SHIFTED = "shift"  # the split whose conditions count as shifted, where a data set has one


def trained_cells(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that train.py can train: without the public code's objective, and without environments."""
    return [cell for cell in cells if not cell.official and cell.rival.name not in BY_ENVIRONMENT]


def experiment_runs(config: ConfigDict, cell: Cell, name: str) -> list[SweepRun]:
    """The runs of a cell in one experiment: of every setting of its grid, or of the middle one alone."""
    if not config.experiments.tuned:
        cell = cell._replace(grid={weight: values[len(values) // 2 :][:1] for weight, values in cell.grid.items()})
    return cell.runs(name, config.experiments.seeds)


def experiment_config(config: ConfigDict, cell: Cell, run: SweepRun) -> ConfigDict:
    """The configuration of one run: the experiment's own, but for what the cell says of fusion, rival and dropout.

    C3R's weights and modes are the experiment's: those of a cell are for structural models.

    Args:
      config: the sweep's; its part ``experiments`` is read.
      cell: which setting.
      run: whose world is the name of the experiment.

    Raises:
      ConfigError: if there is no configuration of that name.
    """
    try:
        made = importlib.import_module(f"configs.{run.world}").get_config()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"config.experiments.names has {run.world!r}: expected names of configurations, such as emoji_shift."
        ) from error
    made.seed = run.seed
    made.method = "c3r" if cell.regularised else "plain"
    made.modality_dropout.switch = "on" if cell.dropout else "off"
    made.model.fusion, made.rival.name, made.rival.strength = cell.fusion, cell.rival.name, cell.strength(run)
    made.data.path = config.experiments.path or made.data.path
    if config.experiments.steps:
        made.train.steps = config.experiments.steps
        made.train.eval_every = min(made.train.eval_every, made.train.steps)
        made.optimizer.warmup_steps = min(made.optimizer.warmup_steps, made.train.steps - 1)
    return made


def run_experiments(
    config: ConfigDict, cells: Sequence[Cell], workdir: pathlib.Path, on_done: Callable[[int], None] | None = None
) -> list[dict[str, Any]]:
    """Trains and evaluates every cell that :func:`trained_cells` keeps, but for what is done already.

    Args:
      config: the sweep's configuration.
      cells: of ``read_cells``.
      workdir: each run has ``EXPERIMENT/CELL/seed_K`` below it.
      on_done: called with 1 after each run.

    Returns:
      Records like those of structural models: "validation" is the value that the run's checkpoint was selected by,
      "same" is clean test input, the other tests are the conditions of the report.
    """
    records = []
    for name in config.experiments.names:
        for cell in trained_cells(cells):
            for run in experiment_runs(config, cell, name):
                place = workdir / name / re.sub(r"[^\w.=+-]+", "_", run.label) / f"seed_{run.seed}"
                records.append(_record(run, experiment_config(config, cell, run), place))
                if on_done:
                    on_done(1)
    return records


def _record(run: SweepRun, config: ConfigDict, place: pathlib.Path) -> dict[str, Any]:
    trained = fit(config, place)
    if trained.interrupted:
        leave_as_asked()
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
        **run.recorded(),
        "finite": True,
        "accuracy": tests,
        "risk": {"total": results["risk"]["total"]},
    }
