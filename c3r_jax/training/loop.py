"""The one training loop: every method, every data set, resumable at any step."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from c3r_jax.errors import CheckpointError, DataError, NonFiniteError, WorkdirError
from c3r_jax.evaluation.scores import score_of
from c3r_jax.evaluation.validate import validate
from c3r_jax.parallel.hosts import is_primary
from c3r_jax.parallel.strategy import Strategy
from c3r_jax.training.checkpoints import Checkpoints
from c3r_jax.training.experiment import Experiment, build_experiment, encoded_batches
from c3r_jax.training.frozen import VectorTable, read_weights, with_weights
from c3r_jax.training.optimizer import build_schedule
from c3r_jax.training.progress import TrainingProgress
from c3r_jax.training.step import TrainState, first_non_finite, step_columns
from c3r_jax.training.workdir import MetricsLog, NoLog, open_workdir, write_text


@dataclasses.dataclass
class Selection:
    """Where the run stands with model selection (on validation data alone); more is better."""

    best: float = float("-inf")
    best_step: int = 0
    worse: int = 0  # validations since the best

    def update(self, value: float, step: int) -> None:
        """Takes in one validation."""
        if value > self.best:
            self.best, self.best_step, self.worse = value, step, 0
        else:
            self.worse += 1


@dataclasses.dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Attributes:
      workdir: where everything is.
      steps: steps done.
      best_step: step of the best checkpoint. best: its selection value.
      stopped_early: whether patience ended the run.
    """

    workdir: pathlib.Path
    steps: int
    best_step: int
    best: float
    stopped_early: bool


def fit(config: ConfigDict, workdir: str | os.PathLike[str]) -> FitResult:
    """Trains a run to its end, or goes on where an earlier call stopped.

    Args:
      config: the whole configuration.
      workdir: the run's directory.

    Returns:
      :class:`FitResult`.

    Raises:
      ConfigError, DataError, WorkdirError: before any long work.
      NonFiniteError: as soon as a loss term or gradient is not finite; the last good checkpoint is kept.
      CheckpointError: if the directory has checkpoints and none can be read.
    """
    experiment = build_experiment(config)
    path = open_workdir(workdir, config)
    if is_primary():
        write_text(path / "tokenizer.json", experiment.tokenizer.to_json())
        write_text(path / "standardisation.json", experiment.standardisation.to_json())
    checkpoints = Checkpoints(path, config.train.keep_last)
    try:
        return _fit(experiment, path, checkpoints)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        raise WorkdirError(
            f"workdir {path} cannot be written ({error.strerror}): free space or choose another place, then run the "
            f"same command again; it goes on from checkpoint {max(checkpoints.steps(), default=0)}."
        ) from error


def _fit(experiment: Experiment, path: pathlib.Path, checkpoints: Checkpoints) -> FitResult:
    train = experiment.config.train
    iterator = experiment.train_iterator()
    state, start, selection = _resume(experiment, checkpoints, iterator)
    prepared = _preparation(experiment, state)
    log = MetricsLog(path, after=start) if is_primary() else NoLog()
    schedule = build_schedule(experiment.config.optimizer, train.steps)
    look_at = functools.partial(
        _look_at,
        devices=experiment.devices,
        log=log,
        schedule=schedule,
        every=train.log_every,
        checkpoints=checkpoints,
    )
    title = f"{experiment.method.name} seed {experiment.config.seed}"
    pending: tuple[int, Any] | None = None
    step, stopped_early = start, _is_over(selection, train.patience)
    try:
        with TrainingProgress(train.steps, start, train.batch_size, title, shown=is_primary()) as progress:
            while step < train.steps and not stopped_early:
                batch = prepared(next(iterator))
                state, metrics = experiment.step(state, experiment.devices.split(step_columns(batch)))
                step += 1
                # The step before is looked at while this one runs, so that the devices never wait for the host.
                look_at(pending)
                pending = (step, metrics)
                progress.update(step)
                if step % train.eval_every == 0 or step == train.steps:
                    look_at(pending)
                    pending = None
                    values = validate(experiment, state)
                    value = _selected(values, train.select_by)
                    selection.update(value, step)
                    log.write(step, "validation", {name: x for name, x in values.items() if np.isfinite(x)})
                    saved = experiment.devices.saved(state)
                    checkpoints.save(step, saved, _progress(iterator, selection), value)
                    progress.note(step, f"validation {train.select_by} {values[train.select_by]:.3f}")
                    stopped_early = _is_over(selection, train.patience)
    finally:
        iterator.close()
        log.close()
    checkpoints.close()
    best = selection.best if score_of(train.select_by.removeprefix("mean_")).higher else -selection.best
    return FitResult(path, step, selection.best_step, best, stopped_early)


def _selected(values: dict[str, float], name: str) -> float:
    """The value that selection maximises: a score of which less is better counts negative."""
    value = values[name]
    if not np.isfinite(value):
        raise DataError(
            f"validation {name} is {value}, so no checkpoint can be chosen by it: the split may have one class, or "
            "outputs that do not vary; choose another config.train.select_by."
        )
    return value if score_of(name.removeprefix("mean_")).higher else -value


def _preparation(experiment: Experiment, state: TrainState) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What is done to a training batch: nothing, or frozen encoders' vectors take the place of their inputs."""
    if not experiment.config.train.cache_frozen:
        return lambda batch: batch
    frozen = [name for name, encoder in experiment.model.encoders.items() if getattr(encoder, "frozen", False)]
    return VectorTable(encoded_batches(experiment, state.params, "train"), frozen)


def _is_over(selection: Selection, patience: int) -> bool:
    return 0 < patience <= selection.worse


def _progress(iterator: Any, selection: Selection) -> dict[str, Any]:
    return {"iterator": iterator.get_state(), "selection": dataclasses.asdict(selection)}


def _resume(experiment: Experiment, checkpoints: Checkpoints, iterator: Any) -> tuple[TrainState, int, Selection]:
    """The newest whole checkpoint's state or a fresh one, on the devices; the data iterator goes to the same place."""
    devices, make_state = experiment.devices, experiment.state_maker()
    if not checkpoints.exist():
        weights = read_weights(experiment.config, experiment.model, jax.eval_shape(make_state).params)
        state = devices.init(make_state)
        return (with_weights(state, weights, devices.put) if weights else state), 0, Selection()
    step, restored, progress = checkpoints.restore(checkpoints.newest_first, devices.template(make_state))
    try:
        iterator.set_state(progress["iterator"])
    except DataError as error:
        raise CheckpointError(f"checkpoint {step} in {checkpoints.directory} cannot be resumed: {error}") from error
    checkpoints.set_aside_after(step)
    logging.info("Going on from checkpoint %d in %s.", step, checkpoints.directory)
    return devices.put(restored), step, Selection(**progress["selection"])


def _look_at(
    pending: tuple[int, Any] | None,
    *,
    devices: Strategy,
    log: MetricsLog | NoLog,
    schedule: Any,
    every: int,
    checkpoints: Checkpoints,
) -> None:
    """Fetches a finished step's metrics, stops the run on a non-finite one, logs every so many."""
    if pending is None:
        return
    step, metrics = pending
    values = {name: float(value) for name, value in devices.host(metrics).items()}
    broken = first_non_finite(values)
    if broken is not None:
        log.write(step, "train", {k: v for k, v in values.items() if np.isfinite(v)})
        checkpoints.seal()
        raise NonFiniteError(
            f"step {step}: {broken} is {values[broken]}, but a finite number was expected: lower "
            f"config.optimizer.learning_rate or the term's weight; checkpoint {max(checkpoints.steps(), default=0)} "
            f"in {checkpoints.directory} is the last good one."
        )
    if step % every == 0:
        rate = float(schedule(step - 1)) * values.pop("plateau_scale", 1.0)
        finite = {name: value for name, value in values.items() if np.isfinite(value)}
        log.write(step, "train", {**finite, "learning_rate": rate})
