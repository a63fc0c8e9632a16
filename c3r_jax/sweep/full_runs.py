"""A study's cells on real inputs: every run is trained and evaluated as train.py and eval.py do."""

import dataclasses
import importlib
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging
from ml_collections import ConfigDict

from c3r_jax.data.catalogue import SOURCES
from c3r_jax.data.source import count_environments
from c3r_jax.errors import ConfigError, NonFiniteError
from c3r_jax.evaluation.evaluate import evaluated
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.experiments.settings import read_settings
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.metrics.scores import score_of, selected_score
from c3r_jax.sweep.grid import C3R_STRENGTH, Cell, SweepRun
from c3r_jax.sweep.settings import ExperimentsSettings
from c3r_jax.training.loop import fit
from c3r_jax.training.preemption import exit_when_stopped

OF_CELLS = ("strength", C3R_STRENGTH)  # in a cell's grid; the first is the rival's
SHIFTED = "shift"  # the split whose conditions count as shifted, if a data set has it


class Plan(NamedTuple):
    """What a study trains on real inputs.

    Attributes:
      cells: {experiment: its cells}.
      notes: sentences about cells and settings that are left out.
    """

    cells: dict[str, list[Cell]]
    notes: list[str]


def plan_experiments(settings: ExperimentsSettings, cells: Sequence[Cell], *, select_by: str) -> Plan:
    """Reads every experiment's configuration and data, before anything is trained.

    The public code's objective is for structural models alone, and a rival that compares environments for data with
    environments.

    Args:
      settings: settings of the study's experiments.
      cells: cells from ``read_cells``.
      select_by: rule of :func:`c3r_jax.sweep.tables.score`.

    Raises:
      ConfigError, DataError: an experiment cannot be trained, or its cells' settings not be selected by the rule.
    """
    chosen: dict[str, list[Cell]] = {}
    notes = []
    if settings.names and select_by == "validation_risk":
        raise ConfigError(
            "config.select_by is 'validation_risk', which experiments do not measure on validation rows: expected "
            "'validation_accuracy', which selects by each configuration's own train.select_by."
        )
    for name in settings.names:
        config = named_config(settings, name)
        unknown = {field for cell in cells for field in (*cell.changes, *cell.grid)} - {*config.c3r, *OF_CELLS}
        if settings.c3r == "cells" and unknown:
            raise ConfigError(
                f"config.experiments.c3r is 'cells', but {', '.join(sorted(unknown))} of the cells cannot be set in "
                f"config.c3r of {name!r}: leave it out, or choose 'configuration'."
            )
        experiment = build_experiment(config)
        if experiment.method.contrastive:
            raise ConfigError(
                f"config.experiments.names has {name!r}, whose task is contrastive: expected one whose accuracy on "
                "clean inputs and in other conditions can be compared, such as emoji_shift."
            )
        if select_by == "oracle" and SHIFTED not in experiment.sources:
            raise ConfigError(
                f"config.select_by is 'oracle', but {name!r} has no split {SHIFTED!r}: expected 'validation_accuracy'."
            )
        environments = count_environments(experiment.sources["train"])
        left_out = {cell.name for cell in cells if cell.official}
        left_out |= {cell.name for cell in cells if cell.rival.needs_environments and environments < 2}
        chosen[name] = [cell for cell in cells if cell.name not in left_out]
        if not chosen[name]:
            raise ConfigError(
                f"config.experiments.names has {name!r}, which none of the cells can train: expected a cell without "
                "environments or the public code's objective, or a data set with environments."
            )
        for cell in chosen[name]:
            for run in experiment_runs(settings, cell, name):
                read_settings(experiment_config(settings, cell, run))
        if left_out:
            notes.append(
                f"{name} leaves out {', '.join(sorted(left_out))}: they need environments, which it does not have, or "
                "structural models."
            )
    unread = sorted({field for cell in cells for field in cell.changes}) if settings.c3r == "configuration" else []
    if settings.names and unread:
        notes.append(
            f"C3R is as in each experiment's configuration: {', '.join(unread)} of the cells are not read there "
            "(config.experiments.c3r is 'configuration'; 'cells' reads them)."
        )
    return Plan(chosen, notes)


def named_config(settings: ExperimentsSettings, name: str) -> ConfigDict:
    """The configuration of an experiment, with the study's path and steps.

    Raises:
      ConfigError: there is none of that name.
    """
    try:
        experiment = importlib.import_module(f"configs.{name}").get_config()
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(
            f"config.experiments.names has {name!r}: expected names of configurations, such as emoji_shift."
        ) from error
    experiment.data.path = settings.path or experiment.data.path
    if settings.steps:
        experiment.train.steps = settings.steps
        experiment.train.eval_every = min(experiment.train.eval_every, experiment.train.steps)
        experiment.optimizer.warmup_steps = min(experiment.optimizer.warmup_steps, experiment.train.steps - 1)
    return experiment


def experiment_runs(settings: ExperimentsSettings, cell: Cell, name: str) -> list[SweepRun]:
    """The runs of a cell in one experiment: all settings of its grid, or only the middle one."""
    if not settings.tuned:
        cell = cell._replace(grid={weight: values[len(values) // 2 :][:1] for weight, values in cell.grid.items()})
    return cell.runs(name, settings.seeds)


def experiment_config(settings: ExperimentsSettings, cell: Cell, run: SweepRun) -> ConfigDict:
    """The configuration of one run: that of the experiment, with the cell's fusion, rival and dropout.

    C3R's weights and modes are those of the experiment, or with ``c3r="cells"`` those of the cell. A strength
    of C3R in the cell's grid is read in both cases.

    Args:
      settings: settings of the study's experiments.
      cell: the cell.
      run: the run, whose world is the name of the experiment.

    Raises:
      ConfigError: there is no configuration of that name.
    """
    experiment = named_config(settings, run.world)
    experiment.seed = run.seed
    experiment.method = "c3r" if cell.regularised else "plain"
    experiment.modality_dropout.switch = "on" if cell.dropout else "off"
    experiment.modality_dropout.rate = cell.dropout or experiment.modality_dropout.rate
    experiment.model.fusion = cell.fusion
    experiment.rival.name, experiment.rival.strength = cell.rival.name, cell.strength(run)
    weights = dict(run.weights)
    experiment.c3r.strength = weights.get(C3R_STRENGTH, experiment.c3r.strength)
    if settings.c3r == "cells":
        written = dataclasses.asdict(cell.configured(run))
        with experiment.c3r.ignore_type():  # whole numbers and True stand for numbers, as in a cell
            experiment.c3r.update({name: value for name, value in written.items() if name in experiment.c3r})
    return experiment


def run_experiments(
    settings: ExperimentsSettings,
    cells: Mapping[str, Sequence[Cell]],
    workdir: pathlib.Path,
    on_done: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Trains and evaluates every cell of a plan, except finished runs.

    Args:
      settings: settings of the study's experiments.
      cells: {experiment: cells} from :func:`plan_experiments`.
      workdir: each run has ``EXPERIMENT/CELL/seed_K`` below it.
      on_done: called with 1 after each run.

    Returns:
      Records like those of structural models: "selection" is the validation score by which the checkpoint was chosen,
      larger being better, "same" is clean test input, the other tests are the conditions of the report. A run that
      diverged has ``finite`` False and no tests.
    """
    records = []
    for name in settings.names:
        for cell in cells[name]:
            for run in experiment_runs(settings, cell, name):
                place = workdir / name / re.sub(r"[^\w.=+-]+", "_", run.label) / f"seed_{run.seed}"
                records.append(_record(run, experiment_config(settings, cell, run), place))
                if on_done:
                    on_done(1)
    return records


def _record(run: SweepRun, config: ConfigDict, place: pathlib.Path) -> dict[str, Any]:
    by = config.train.select_by
    try:
        trained = fit(config, place)
    except NonFiniteError as error:
        logging.warning("%s: %s", place, error)
        nothing = {route: {} for route in ROUTES}
        return {**run.identity(), "finite": False, "selection": {"by": by, "value": None}, "accuracy": nothing}
    if trained.interrupted:
        exit_when_stopped(trained.stopped_by)
    results = evaluated(place, trained.best_step)
    tests: dict[str, dict[str, float]] = {route: {} for route in ROUTES}
    found = [(results, "")]
    if SHIFTED in SOURCES.get(config.data.name, (None, ()))[1]:
        found.append((evaluated(place, trained.best_step, SHIFTED), f", {SHIFTED}"))
    for scored, suffix in found:
        for condition in scored["conditions"]:
            for route in ROUTES:
                clean = condition["group"] == "clean"
                name = ("same" if not suffix else SHIFTED) if clean else condition["name"] + suffix
                tests[route][name] = condition["routes"][route]["accuracy"]
    value = trained.best if score_of(selected_score(by)).higher else -trained.best
    return {**run.identity(), "finite": True, "selection": {"by": by, "value": value}, "accuracy": tests}
