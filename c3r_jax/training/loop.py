"""The training loop of every method and every data set, resumable at any step."""

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

from c3r_jax.data.catalogue import WARNINGS
from c3r_jax.errors import CheckpointError, DataError, WorkdirError
from c3r_jax.evaluation.conditions import conditions_of
from c3r_jax.evaluation.explained import measures_share, unmeasured_note
from c3r_jax.evaluation.validate import validate
from c3r_jax.experiments.checkpoints import Checkpoints
from c3r_jax.experiments.encode import encoded_batches
from c3r_jax.experiments.experiment import Experiment, build_experiment
from c3r_jax.experiments.metric_writers import check_writers
from c3r_jax.experiments.metrics_log import MetricsLog, NoLog
from c3r_jax.experiments.same_data import check_same_data, trained_on
from c3r_jax.experiments.settings import read_settings
from c3r_jax.experiments.vector_cache import VectorTable
from c3r_jax.experiments.weights import read_weights, with_weights
from c3r_jax.experiments.workdir import open_workdir
from c3r_jax.files.atomic import write_text
from c3r_jax.files.lock import exclusive_lock
from c3r_jax.metrics.scores import score_of, selected_score
from c3r_jax.parallel.hosts import is_primary
from c3r_jax.progress import TrainingProgress
from c3r_jax.step.optimizer import build_schedule, warmup_of
from c3r_jax.step.state import TrainState
from c3r_jax.step.train_step import step_columns
from c3r_jax.training.health import Health, StepWatch, baseline_of
from c3r_jax.training.preemption import StopRequest


@dataclasses.dataclass
class Selection:
    """State of model selection, on validation data only; a higher value is better."""

    best: float = float("-inf")
    best_step: int = 0
    worse: int = 0  # number of validations since the best one

    def update(self, value: float, step: int) -> None:
        """Records the value of one validation."""
        if value > self.best:
            self.best, self.best_step, self.worse = value, step, 0
        else:
            self.worse += 1


@dataclasses.dataclass
class LoopState:
    """State of the loop beside the training state: checkpoints store it as JSON, with the data iterator's position.

    Attributes:
      selection: model selection so far.
      health: history for the health checks.
      validated: step of the last validation.
      explained: explained share of the validation split then, for C3R's gate until the next one; None: unknown.
    """

    selection: Selection = dataclasses.field(default_factory=Selection)
    health: Health = dataclasses.field(default_factory=Health)
    validated: int = 0
    explained: float | None = None

    @classmethod
    def read(cls, progress: dict[str, Any], step: int) -> "LoopState":
        """Reads it from a checkpoint; an old checkpoint has only the selection, and was always validated."""
        health = Health(**progress.get("health", {}))
        return cls(
            Selection(**progress["selection"]),
            health,
            progress.get("validated", step),
            progress.get("explained"),
        )


@dataclasses.dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Attributes:
      workdir: the run's directory.
      steps: number of finished steps.
      best_step: step of the best checkpoint.
      best: selection value of the best checkpoint.
      stopped_early: whether patience ended the run.
      interrupted: whether SIGTERM or Ctrl-C stopped it before its end; everything is saved.
      stopped_by: "SIGTERM" or "Ctrl-C" where one of them did.
    """

    workdir: pathlib.Path
    steps: int
    best_step: int
    best: float
    stopped_early: bool
    interrupted: bool = False
    stopped_by: str = ""


def fit(config: ConfigDict, workdir: str | os.PathLike[str]) -> FitResult:
    """Trains a run to its end, or continues where an earlier call stopped.

    On SIGTERM or Ctrl-C it saves and returns. While it runs, no other process can train in the same directory.

    Args:
      config: the whole configuration.
      workdir: the run's directory.

    Returns:
      :class:`FitResult`.

    Raises:
      ConfigError, DataError, WorkdirError: a problem that is found before any long work.
      NonFiniteError: a loss term, the gradient or the state is not finite, and ``config.train.skip_non_finite`` does
        not allow skipping the step; the last good checkpoint is still there.
      CheckpointError: the directory has checkpoints, but none can be read.
    """
    train = read_settings(config).train
    check_writers(train.writers)
    with StopRequest() as stop:
        experiment = build_experiment(config)
        conditions_of(experiment)  # refuses before training what evaluation could not score
        make_state = experiment.state_maker()
        jax.eval_shape(make_state)  # a model that cannot be built leaves no directory behind
        if is_primary() and config.data.name in WARNINGS:
            WARNINGS[config.data.name](config.data.path, experiment.sources)
        noted = trained_on(pathlib.Path(workdir))
        same_data = functools.partial(check_same_data, experiment.sources["train"], noted, pathlib.Path(workdir))
        # Data may be moved where its checksum tells that it is the same, or nothing was trained on it yet.
        may_move = ("data.path",) if noted.get("sha256") or not noted else ()
        path = open_workdir(workdir, config, same_data, free=may_move)
        in_use = WorkdirError(f"workdir {path} is trained in by another process: wait for it to end, or use another.")
        with exclusive_lock(path, in_use) if is_primary() else contextlib.nullcontext():
            checkpoints = Checkpoints(path, train.keep_last, asynchronous=train.async_checkpoints)
            try:
                return _fit(experiment, make_state, path, checkpoints, stop)
            except OSError as error:
                if error.filename is None and error.errno is None:
                    raise
                raise WorkdirError(
                    f"workdir {path} cannot be written ({error.strerror}): free space or choose another place, then "
                    f"run the same command again; it continues from checkpoint {max(checkpoints.steps(), default=0)}."
                ) from error


def _fit(
    experiment: Experiment,
    make_state: Callable[[], TrainState],
    path: pathlib.Path,
    checkpoints: Checkpoints,
    stop: StopRequest,
) -> FitResult:
    settings, train, method = experiment.settings, experiment.settings.train, experiment.method
    iterator = experiment.train_iterator()
    state, start, loop_state = _resume(experiment, make_state, checkpoints, iterator)
    if is_primary():  # only now: a run that cannot be resumed keeps the files that it was trained with
        write_text(path / "tokenizer.json", experiment.tokenizer.to_json())
        write_text(path / "standardisation.json", experiment.standardisation.to_json())
    prepare = _batch_preparation(experiment, state)
    log = MetricsLog(path, start, loop_state.validated, train.writers) if is_primary() else NoLog()
    schedule = build_schedule(settings.optimizer, train.steps)
    rise = warmup_of(settings.optimizer, train.steps)
    if rise < settings.optimizer.warmup_steps:
        logging.warning(
            "config.optimizer.warmup_steps is %d, but the run has %d steps: the warm-up is cut to %d.",
            settings.optimizer.warmup_steps,
            train.steps,
            rise,
        )
    strength = method.c3r.strength if method.regularised else 0.0
    measured, unmeasured = measures_share(experiment), unmeasured_note(experiment)
    if unmeasured and is_primary():
        logging.warning("%s", unmeasured)
    watch = StepWatch(
        experiment.devices.host,
        log,
        schedule,
        checkpoints,
        train,
        loop_state.health,
        lambda_n=method.c3r.lambda_n * strength,
        baseline=baseline_of(experiment),
    )

    def save(step: int, selection: float) -> None:
        progress = {"iterator": iterator.get_state(), **dataclasses.asdict(loop_state)}
        checkpoints.save(step, experiment.devices.saved(state), progress, selection)

    step = saved = start
    first_shown = (start // train.log_every + 1) * train.log_every  # a sign of life long before the first validation
    stopped_early = False
    try:
        title = f"{method.name} seed {settings.seed}"
        with TrainingProgress(
            train.steps, start, train.batch_size, title, shown=is_primary(), compiled=True
        ) as progress:
            while True:
                if step > loop_state.validated and (step % train.eval_every == 0 or step == train.steps):
                    watch.check(functools.partial(experiment.broken, state))
                    values = stop.run_unless_stopped(functools.partial(validate, experiment, state))
                    if values is None:
                        break  # the validation is done when the run continues
                    value = _selected(values, train.select_by)
                    loop_state.selection.update(value, step)
                    loop_state.validated = saved = step
                    loop_state.explained = values.get("explained")
                    log.write(step, "validation", {name: x for name, x in values.items() if np.isfinite(x)})
                    watch.check_validation(step, values, last=step == train.steps)
                    save(step, value)
                    progress.note(step, f"validation {train.select_by} {values[train.select_by]:.3f}")
                stopped_early = _is_over(loop_state.selection, train.patience)
                if step == train.steps or stopped_early or stop.requested():
                    break
                batch = prepare(next(iterator))
                explained = np.nan if loop_state.explained is None else loop_state.explained
                columns = step_columns(batch, method.rival, explained if measured else None)
                state, metrics = experiment.step(state, experiment.devices.split(columns))
                step += 1
                watch.add(step, metrics, batch)  # and checks the one before
                progress.update(step)
                if step - 1 == first_shown:
                    progress.note(step - 1, f"loss {watch.loss:.3f}")
            if step > saved:
                watch.check(functools.partial(experiment.broken, state))
                save(step, float("-inf"))  # without validation it cannot be the best
    finally:
        iterator.close()
        log.close()
    checkpoints.close()
    selection = loop_state.selection
    interrupted = not (stopped_early or loop_state.validated == step == train.steps)
    best = selection.best if score_of(selected_score(train.select_by)).higher else -selection.best
    stopped_by = stop.stopped_by if interrupted else ""
    return FitResult(path, step, selection.best_step, best, stopped_early, interrupted, stopped_by)


def _selected(values: dict[str, float], name: str) -> float:
    """The value that selection maximises: negated where a lower score is better."""
    value = values.get(name, float("nan"))
    if not np.isfinite(value):
        raise DataError(
            f"validation {name} is {value}, so no checkpoint can be chosen by it: the split may have one class, or "
            "outputs that do not vary, or no environment of config.eval.environment_size examples; choose another "
            "config.train.select_by."
        )
    return value if score_of(selected_score(name)).higher else -value


def _batch_preparation(experiment: Experiment, state: TrainState) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function on training batches: the identity, or frozen encoders' vectors replace their inputs.

    Where nothing but vectors is read and the objective has experts, these are computed here, of all training rows.
    """
    cached = experiment.cached()
    if not cached:
        return lambda batch: batch
    table = VectorTable(encoded_batches(experiment, state.params, "train"), cached)
    if experiment.knows_experts():
        for name, expert in table.add_experts(experiment.num_outputs(), experiment.method.target).items():
            logging.info("Without its instrument, %s predicts %.3f of the training labels.", name, expert.accuracy)
    return table


def _is_over(selection: Selection, patience: int) -> bool:
    return 0 < patience <= selection.worse


def _resume(
    experiment: Experiment, make_state: Callable[[], TrainState], checkpoints: Checkpoints, iterator: Any
) -> tuple[TrainState, int, LoopState]:
    """The state of the newest intact checkpoint, or a new one; the data iterator moves to the same step."""
    devices = experiment.devices
    if not checkpoints.exist():
        shapes, padding = jax.eval_shape(make_state).params, experiment.tokenizer.padding_row
        weights = read_weights(experiment.settings.model, experiment.model, shapes, padding)
        state = experiment.first_state()
        return (with_weights(state, weights, devices.put) if weights else state), 0, LoopState()
    step, restored, progress = checkpoints.restore(checkpoints.newest_first, devices.template(make_state))
    try:
        iterator.set_state(progress["iterator"])
    except DataError as error:
        raise CheckpointError(f"checkpoint {step} in {checkpoints.directory} cannot be resumed: {error}") from error
    checkpoints.set_aside_after(step)
    logging.info("Going on from checkpoint %d in %s.", step, checkpoints.directory)
    return devices.put(restored), step, LoopState.read(progress, step)
