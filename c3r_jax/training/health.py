"""Health checks of a run: non-finite steps, loss spikes, a collapsed representation, and C3R where it cannot work."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from c3r_jax.errors import NonFiniteError
from c3r_jax.evaluation.collapse import collapse_note, mean_and_error
from c3r_jax.evaluation.watch import (
    BELOW_IN_ROW,
    CUT,
    MIN_STEPS,
    NO_BASELINE,
    WINDOW,
    Baseline,
    Note,
    cap_note,
    prediction_notes,
    rows_note,
)
from c3r_jax.experiments.checkpoints import Checkpoints
from c3r_jax.experiments.experiment import Experiment
from c3r_jax.experiments.metrics_log import MetricsLog, NoLog
from c3r_jax.files.atomic import write_text
from c3r_jax.methods.losses import INVALID
from c3r_jax.settings.train import TrainSettings
from c3r_jax.step.finite import BROKEN, first_non_finite

SPIKE_WINDOW, MIN_LOSSES = 50, 20  # the most and the fewest losses from which a spike is detected


@dataclasses.dataclass
class Health:
    """The history that health checks need; checkpoints store it, so that a resumed run reports the same.

    Attributes:
      losses: losses of the last steps.
      skipped: number of steps whose update was skipped.
      in_row: number of skipped steps in a row until now.
      rows: rows of the first stage in the last steps.
      capped: whether C3R's terms were cut to less than a fifth, in the last steps.
      below: number of validations in a row, until now, that were worse than a constant prediction.
      said: kinds of the notes that were made: each is made once.
    """

    losses: list[float] = dataclasses.field(default_factory=list)
    skipped: int = 0
    in_row: int = 0
    rows: list[float] = dataclasses.field(default_factory=list)
    capped: list[bool] = dataclasses.field(default_factory=list)
    below: int = 0
    said: list[str] = dataclasses.field(default_factory=list)


class StepWatch:
    """Checks a step's metrics while the next step runs, so that the devices never wait for the host.

    Args:
      host: fetches metrics from the devices.
      log: where metrics are written.
      schedule: step -> learning rate.
      checkpoints: the run's checkpoints.
      settings: settings of training.
      health: history of the run; every check updates it.
      lambda_n: weight of the necessity loss; 0 if it is not used.
      baseline: what accuracy and the first stage's rows are compared with.
    """

    def __init__(
        self,
        host: Callable[[Any], dict[str, Any]],
        log: MetricsLog | NoLog,
        schedule: Callable[[int], Any],
        checkpoints: Checkpoints,
        settings: TrainSettings,
        health: Health,
        *,
        lambda_n: float,
        baseline: Baseline = NO_BASELINE,
    ):
        self._host, self._log, self._checkpoints = host, log, checkpoints
        self._schedule = jax.jit(schedule)  # otherwise each of its operations is compiled by itself
        self._train, self._lambda_n, self._baseline = settings, lambda_n, baseline
        self.health = health
        self.loss = float("nan")  # of the step that was checked last
        self._pending: tuple[int, Any, dict[str, Any]] | None = None

    def add(self, step: int, metrics: Any, batch: dict[str, Any]) -> None:
        """Adds a step that was just started, and checks the one before."""
        self.check()
        self._pending = (step, metrics, batch)

    def check(self, broken_parts: Callable[[], Any] | None = None) -> None:
        """Checks the step that was added last, unless it has been checked.

        Args:
          broken_parts: which parts of the state after it are not finite, for a state that is to be saved; None: only
            the step's metrics are looked at.

        Raises:
          NonFiniteError: a term, the gradient or a part of the state is not finite, and the step may not be skipped.
        """
        if self._pending is None:
            return
        (step, metrics, batch), self._pending = self._pending, None
        values = {name: float(value) for name, value in self._host(metrics).items()}
        self.loss = values["loss"]
        if broken_parts is not None:
            # A step that was skipped has kept the state from before it: what broke is known from the step alone.
            of_state = self._host({BROKEN: broken_parts()})[BROKEN]
            values[BROKEN] = float(int(values.get(BROKEN, 0)) | int(of_state))
        broken = first_non_finite(values)
        values.pop(BROKEN, None)
        if not values.get(INVALID):
            values.pop(INVALID, None)  # said only where it is one
        if broken is not None:
            self._on_broken(step, broken, values, batch)
        else:
            self.health.in_row = 0
            self._check_spike(step, values["loss"])
            self._check_terms(step, values)
        if step % self._train.log_every == 0:
            rate = float(self._schedule(step - 1)) * values.pop("plateau_scale", 1.0)
            self._log.write(step, "train", {**_finite(values), "learning_rate": rate})

    def _on_broken(self, step: int, broken: str, values: dict[str, float], batch: dict[str, Any]) -> None:
        health, limit = self.health, self._train.skip_non_finite
        health.in_row += 1
        path = save_batch(self._checkpoints.directory.parent, step, broken, values, batch)
        problem = f"step {step}: {broken} is {values.get(broken, 'not finite')}"
        if INVALID in values:
            problem += f", for {values[INVALID]:.0f} examples have a label that is no class of the model"
        if health.in_row <= limit:
            health.skipped += 1
            self._log.write(step, "skipped", {"count": health.skipped})
            logging.warning("%s; its update is skipped (%d so far), its batch is in %s.", problem, health.skipped, path)
            return
        self._log.write(step, "train", _finite(values))
        self._checkpoints.seal()
        row = f" ({limit} steps in a row were skipped before)" if limit else ""
        advice = "lower config.optimizer.learning_rate or the term's weight, or look at the batch's examples"
        if INVALID in values:
            advice = "correct their labels and prepare the data once more; the batch's examples are"
        raise NonFiniteError(
            f"{problem}, but a finite number was expected{row}: {advice} in {path}; checkpoint "
            f"{max(self._checkpoints.steps(), default=0)} in {self._checkpoints.directory} is the last good one."
        )

    def _check_spike(self, step: int, loss: float) -> None:
        usual = usual_loss(self.health.losses, loss, self._train.spike)
        self.health.losses = [*self.health.losses, loss][-SPIKE_WINDOW:]
        if usual is not None:
            self._log.write(step, "spike", {"loss": loss, "usual": usual})
            logging.warning("step %d: the loss spikes, %.4g where %.4g is usual.", step, loss, usual)

    def _check_terms(self, step: int, values: dict[str, float]) -> None:
        """Says if the first stage has too few rows, or C3R's terms would mostly overrule the task."""
        health = self.health
        if "first_stage_rows" in values:
            health.rows = [*health.rows, values["first_stage_rows"]][-WINDOW:]
            if len(health.rows) >= MIN_STEPS:
                self._say(step, rows_note(float(np.mean(health.rows)), self._baseline.num_instruments))
        if "cap_scale" in values:
            health.capped = [*health.capped, values["cap_scale"] < CUT * values["cap_limit"]][-WINDOW:]
            self._say(step, cap_note(health.capped))

    def check_validation(self, step: int, values: dict[str, float], *, last: bool = False) -> None:
        """Says if z hardly varies over the validation examples, or predictions are worse than a constant one.

        Args:
          step: number of the step.
          values: scores of the validation examples.
          last: whether the run ends here; before, one validation below a constant prediction may be its beginning.
        """
        note = collapse_note(values.get("z_spread", 1.0), self._lambda_n)
        if note:
            logging.warning("step %d: %s.", step, note)
        scores = values.get("accuracy", np.nan), values.get("nll", np.nan)
        regularised = self._lambda_n > 0 or self._baseline.num_instruments > 0
        error = values.get("mae", np.nan)
        notes = prediction_notes(*scores, self._baseline, regularised=regularised, error=error)
        self.health.below = self.health.below + 1 if notes else 0
        if self.health.below >= BELOW_IN_ROW or last:
            for found in notes:
                self._say(step, found)

    def _say(self, step: int, note: Note | None) -> None:
        """Logs a note, unless this run had it."""
        if note is None or note.kind in self.health.said:
            return
        self.health.said = [*self.health.said, note.kind]
        self._log.write(step, note.kind, note.figures)
        logging.warning("step %d: %s.", step, note.text)


def baseline_of(experiment: Experiment) -> Baseline:
    """The baseline of a run, from its training and validation labels and its network.

    Args:
      experiment: the run.
    """
    method, sources = experiment.method, experiment.sources
    spec, train, held_out = method.spec, sources["train"], sources["validation"]
    constant, words, error = np.nan, "", mean_and_error(None)
    if not (spec.contrastive or spec.dense):  # labels are in memory
        labels = (getattr(source, "labels", None) for source in (train, held_out))
        columns = [np.asarray(column) for column in labels if column is not None]
        if len(columns) == 2:
            constant, words = spec.constant_accuracy(columns[0], columns[1], method.target.tolerance)
            error = mean_and_error(spec.constant_errors(*columns))
    trained = method.regularised and method.c3r.strength > 0
    fitted = trained and method.c3r.instrument == "two_stage"
    return Baseline(
        constant,
        words,
        len(held_out),
        train.info.num_classes if spec.one_class_per_example else 0,
        (len(experiment.model.modalities) - 1) * experiment.model.feature_dim if fitted else 0,
        error,
    )


def usual_loss(losses: Sequence[float], loss: float, factor: float) -> float | None:
    """The usual loss if this one is a spike above it, else None.

    A spike is more than ``factor`` robust standard deviations (1.48 median absolute deviations) above the median.

    Args:
      losses: losses of the steps before; with fewer than 20, nothing counts as a spike.
      loss: loss of this step.
      factor: how far above the median a spike is; 0 detects none.

    Examples:
      >>> usual_loss([1.0, 1.1] * 20, 3.0, 10.0)
      1.05
      >>> usual_loss([1.0, 1.1] * 20, 1.2, 10.0) is None
      True
    """
    if not factor or len(losses) < MIN_LOSSES:
        return None
    usual = float(np.median(losses))
    deviation = 1.4826 * float(np.median(np.abs(np.asarray(losses) - usual)))
    return usual if loss > usual + factor * max(deviation, 1e-3 * abs(usual)) else None


def save_batch(workdir: pathlib.Path, step: int, broken: str, values: dict[str, float], batch: Any) -> pathlib.Path:
    """Writes which examples a step used, and which of them have non-finite inputs.

    Args:
      workdir: the run's directory; the file is ``non_finite/step-STEP.json``, one per process of a job.
      step: number of the step.
      broken: name of the non-finite term.
      values: the step's metrics.
      batch: this process's share of the batch.

    Returns:
      The file's path.
    """
    index = np.asarray(batch["index"])
    inputs = {name: np.asarray(value) for name, value in batch["inputs"].items()}
    bad = {
        name: index[~np.isfinite(value.reshape(len(index), -1)).all(1)].tolist()
        for name, value in inputs.items()
        if np.issubdtype(value.dtype, np.floating)
    }
    share = f"-process-{jax.process_index()}" if jax.process_count() > 1 else ""
    path = workdir / "non_finite" / f"step-{step}{share}.json"
    path.parent.mkdir(exist_ok=True)
    printable = {name: value if np.isfinite(value) else str(value) for name, value in values.items()}
    content = {"step": step, "not_finite": broken, "examples": index.tolist(), "inputs_not_finite": bad}
    write_text(path, json.dumps({**content, "values": printable}, indent=1))
    return path


def _finite(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if np.isfinite(value)}
