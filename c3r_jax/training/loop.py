"""The one training loop: every method, every data set, resumable at any step."""

import contextlib
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

from c3r_jax.errors import CheckpointError, DataError, WorkdirError
from c3r_jax.evaluation.scores import score_of
from c3r_jax.evaluation.validate import validate
from c3r_jax.locking import alone
from c3r_jax.parallel.hosts import is_primary
from c3r_jax.training.checkpoints import Checkpoints
from c3r_jax.training.experiment import Experiment, build_experiment, encoded_batches
from c3r_jax.training.frozen import VectorTable, read_weights, with_weights
from c3r_jax.training.optimizer import build_schedule
from c3r_jax.training.progress import TrainingProgress
from c3r_jax.training.step import TrainState, step_columns
from c3r_jax.training.stopping import StopRequest
from c3r_jax.training.watching import Health, StepWatch
from c3r_jax.training.workdir import MetricsLog, NoLog, open_workdir, write_text
from c3r_jax.training.writers import check_writers


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


@dataclasses.dataclass
class Standing:
    """Where a run stands, besides its state: what a checkpoint keeps as JSON, with the data iterator's place.

    Attributes:
      selection: model selection so far.
      health: what is remembered of the steps' numbers.
      validated: step of the last validation.
    """

    selection: Selection = dataclasses.field(default_factory=Selection)
    health: Health = dataclasses.field(default_factory=Health)
    validated: int = 0

    @classmethod
    def read(cls, progress: dict[str, Any], step: int) -> "Standing":
        """From a checkpoint; one of an earlier version has no more than the selection, and was always validated."""
        health = Health(**progress.get("health", {}))
        return cls(Selection(**progress["selection"]), health, progress.get("validated", step))


@dataclasses.dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Attributes:
      workdir: where everything is.
      steps: steps done.
      best_step: step of the best checkpoint. best: its selection value.
      stopped_early: whether patience ended the run.
      interrupted: whether it was asked to stop (SIGTERM) before its end; everything is saved.
    """

    workdir: pathlib.Path
    steps: int
    best_step: int
    best: float
    stopped_early: bool
    interrupted: bool = False


def fit(config: ConfigDict, workdir: str | os.PathLike[str]) -> FitResult:
    """Trains a run to its end, or goes on where an earlier call stopped.

    SIGTERM makes it save and return; meanwhile nobody else can train in the same directory.

    Args:
      config: the whole configuration.
      workdir: the run's directory.

    Returns:
      :class:`FitResult`.

    Raises:
      ConfigError, DataError, WorkdirError: before any long work.
      NonFiniteError: as soon as a loss term, the gradient or the state is not finite, unless
        ``config.train.skip_non_finite`` lets such steps be left out; the last good checkpoint is kept.
      CheckpointError: if the directory has checkpoints and none can be read.
    """
    check_writers(config.train.writers)
    with StopRequest() as stop:
        experiment = build_experiment(config)
        make_state = experiment.state_maker()
        jax.eval_shape(make_state)  # a model that cannot be built leaves no directory behind
        path = open_workdir(workdir, config)
        other = WorkdirError(f"workdir {path} is trained in by another process: wait for it to end, or use another.")
        with alone(path, other) if is_primary() else contextlib.nullcontext():
            if is_primary():
                write_text(path / "tokenizer.json", experiment.tokenizer.to_json())
                write_text(path / "standardisation.json", experiment.standardisation.to_json())
            checkpoints = Checkpoints(path, config.train.keep_last, asynchronous=config.train.async_checkpoints)
            try:
                return _fit(experiment, make_state, path, checkpoints, stop)
            except OSError as error:
                if error.filename is None and error.errno is None:
                    raise
                raise WorkdirError(
                    f"workdir {path} cannot be written ({error.strerror}): free space or choose another place, then "
                    f"run the same command again; it goes on from checkpoint {max(checkpoints.steps(), default=0)}."
                ) from error


def _fit(
    experiment: Experiment,
    make_state: Callable[[], TrainState],
    path: pathlib.Path,
    checkpoints: Checkpoints,
    stop: StopRequest,
) -> FitResult:
    config, train = experiment.config, experiment.config.train
    iterator = experiment.train_iterator()
    state, start, standing = _resume(experiment, make_state, checkpoints, iterator)
    prepared = _preparation(experiment, state)
    log = MetricsLog(path, start, standing.validated, train.writers) if is_primary() else NoLog()
    schedule = build_schedule(config.optimizer, train.steps)
    watch = StepWatch(experiment.devices.host, log, schedule, checkpoints, config, standing.health)

    def save(step: int, selection: float) -> None:
        progress = {"iterator": iterator.get_state(), **dataclasses.asdict(standing)}
        checkpoints.save(step, experiment.devices.saved(state), progress, selection)

    step = saved = start
    stopped_early = False
    try:
        title = f"{experiment.method.name} seed {config.seed}"
        with TrainingProgress(train.steps, start, train.batch_size, title, shown=is_primary()) as progress:
            while True:
                if step > standing.validated and (step % train.eval_every == 0 or step == train.steps):
                    watch.look()
                    values = stop.unless_asked(functools.partial(validate, experiment, state))
                    if values is None:
                        break  # it is made up for when the run goes on
                    value = _selected(values, train.select_by)
                    standing.selection.update(value, step)
                    standing.validated = saved = step
                    log.write(step, "validation", {name: x for name, x in values.items() if np.isfinite(x)})
                    watch.look_for_collapse(step, values)
                    save(step, value)
                    progress.note(step, f"validation {train.select_by} {values[train.select_by]:.3f}")
                stopped_early = _is_over(standing.selection, train.patience)
                if step == train.steps or stopped_early or stop.now():
                    break
                batch = prepared(next(iterator))
                state, metrics = experiment.step(state, experiment.devices.split(step_columns(batch)))
                step += 1
                watch.take(step, metrics, batch)
                progress.update(step)
            if step > saved:
                watch.look()
                save(step, float("-inf"))  # no validation, no claim to be the best
    finally:
        iterator.close()
        log.close()
    checkpoints.close()
    selection = standing.selection
    interrupted = not (stopped_early or standing.validated == step == train.steps)
    best = selection.best if score_of(train.select_by.removeprefix("mean_")).higher else -selection.best
    return FitResult(path, step, selection.best_step, best, stopped_early, interrupted)


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
    cached = experiment.cached()
    return VectorTable(encoded_batches(experiment, state.params, "train"), cached) if cached else lambda batch: batch


def _is_over(selection: Selection, patience: int) -> bool:
    return 0 < patience <= selection.worse


def _resume(
    experiment: Experiment, make_state: Callable[[], TrainState], checkpoints: Checkpoints, iterator: Any
) -> tuple[TrainState, int, Standing]:
    """The newest whole checkpoint's state or a fresh one, on the devices; the data iterator goes to the same place."""
    devices = experiment.devices
    if not checkpoints.exist():
        weights = read_weights(experiment.config, experiment.model, jax.eval_shape(make_state).params)
        state = devices.init(make_state)
        return (with_weights(state, weights, devices.put) if weights else state), 0, Standing()
    step, restored, progress = checkpoints.restore(checkpoints.newest_first, devices.template(make_state))
    try:
        iterator.set_state(progress["iterator"])
    except DataError as error:
        raise CheckpointError(f"checkpoint {step} in {checkpoints.directory} cannot be resumed: {error}") from error
    checkpoints.set_aside_after(step)
    logging.info("Going on from checkpoint %d in %s.", step, checkpoints.directory)
    return devices.put(restored), step, Standing.read(progress, step)
