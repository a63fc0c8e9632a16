"""What a run's numbers say of its health: steps that are not finite, loss spikes, a representation that collapses."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from c3r_jax.core.diagnostics import COLLAPSED, collapse_note
from c3r_jax.errors import NonFiniteError
from c3r_jax.training.checkpoints import Checkpoints
from c3r_jax.training.guard import BROKEN, first_non_finite
from c3r_jax.training.workdir import MetricsLog, NoLog, write_text

WINDOW, ENOUGH = 50, 20  # losses that a spike is told by, at most and at least


@dataclasses.dataclass
class Health:
    """What is remembered of the steps so far; a checkpoint keeps it, so that a resumed run reports the same.

    Attributes:
      losses: of the last steps.
      skipped: steps whose update was left out. in_row: of those, the last ones in a row.
    """

    losses: list[float] = dataclasses.field(default_factory=list)
    skipped: int = 0
    in_row: int = 0


class StepWatch:
    """Looks at a step's numbers while the next one runs, so that the devices never wait for the host.

    Args:
      host: fetches metrics from the devices.
      log: where they are written.
      schedule: step -> learning rate.
      checkpoints: of the run.
      config: the whole configuration.
      health: what is remembered; changed by every look.
    """

    def __init__(
        self,
        host: Callable[[Any], dict[str, Any]],
        log: MetricsLog | NoLog,
        schedule: Callable[[int], Any],
        checkpoints: Checkpoints,
        config: ConfigDict,
        health: Health,
    ):
        self._host, self._log, self._schedule, self._checkpoints = host, log, schedule, checkpoints
        self._train, self._lambda_n = config.train, config.c3r.lambda_n if config.method == "c3r" else 0.0
        self.health = health
        self._pending: tuple[int, Any, dict[str, Any]] | None = None

    def take(self, step: int, metrics: Any, batch: dict[str, Any]) -> None:
        """Takes a step that was just started, and looks at the one before."""
        self.look()
        self._pending = (step, metrics, batch)

    def look(self) -> None:
        """Looks at the step that was taken last, if nobody has.

        Raises:
          NonFiniteError: a term, the gradient or a part of the state is not finite, and may not be left out.
        """
        if self._pending is None:
            return
        (step, metrics, batch), self._pending = self._pending, None
        values = {name: float(value) for name, value in self._host(metrics).items()}
        broken = first_non_finite(values)
        values.pop(BROKEN, None)
        if broken is not None:
            self._on_broken(step, broken, values, batch)
        else:
            self.health.in_row = 0
            self._look_for_spike(step, values["loss"])
        if step % self._train.log_every == 0:
            rate = float(self._schedule(step - 1)) * values.pop("plateau_scale", 1.0)
            self._log.write(step, "train", {**_finite(values), "learning_rate": rate})

    def _on_broken(self, step: int, broken: str, values: dict[str, float], batch: dict[str, Any]) -> None:
        health, limit = self.health, self._train.skip_non_finite
        health.in_row += 1
        path = save_batch(self._checkpoints.directory.parent, step, broken, values, batch)
        what = f"step {step}: {broken} is {values.get(broken, 'not finite')}"
        if health.in_row <= limit:
            health.skipped += 1
            self._log.write(step, "skipped", {"count": health.skipped})
            logging.warning("%s; its update is left out (%d so far), its batch is in %s.", what, health.skipped, path)
            return
        self._log.write(step, "train", _finite(values))
        self._checkpoints.seal()
        row = f" ({limit} steps in a row were left out before)" if limit else ""
        raise NonFiniteError(
            f"{what}, but a finite number was expected{row}: lower config.optimizer.learning_rate or the term's "
            f"weight, or look at the batch's examples in {path}; checkpoint "
            f"{max(self._checkpoints.steps(), default=0)} in {self._checkpoints.directory} is the last good one."
        )

    def _look_for_spike(self, step: int, loss: float) -> None:
        usual = usual_loss(self.health.losses, loss, self._train.spike)
        self.health.losses = [*self.health.losses, loss][-WINDOW:]
        if usual is not None:
            self._log.write(step, "spike", {"loss": loss, "usual": usual})
            logging.warning("step %d: the loss spikes, %.4g where %.4g is usual.", step, loss, usual)

    def look_for_collapse(self, step: int, values: dict[str, float]) -> None:
        """Says so when z hardly varies over the validation examples."""
        spread = values.get("z_spread", 1.0)
        if not spread > COLLAPSED:
            logging.warning("step %d: %s.", step, collapse_note(spread, self._lambda_n))


def usual_loss(losses: Sequence[float], loss: float, factor: float) -> float | None:
    """The usual loss if this one is a spike above it, else None.

    A spike is more than ``factor`` robust standard deviations (1.48 median absolute deviations) above the median.

    Args:
      losses: of the steps before; fewer than 20 tell nothing.
      loss: of this step.
      factor: 0: never a spike.

    Examples:
      >>> usual_loss([1.0, 1.1] * 20, 3.0, 10.0)
      1.05
      >>> usual_loss([1.0, 1.1] * 20, 1.2, 10.0) is None
      True
    """
    if not factor or len(losses) < ENOUGH:
        return None
    usual = float(np.median(losses))
    deviation = 1.4826 * float(np.median(np.abs(np.asarray(losses) - usual)))
    return usual if loss > usual + factor * max(deviation, 1e-3 * abs(usual)) else None


def save_batch(workdir: pathlib.Path, step: int, broken: str, values: dict[str, float], batch: Any) -> pathlib.Path:
    """Writes which examples a step was made of, and which of them have inputs that are not finite.

    Args:
      workdir: the run's directory; the file is ``non_finite/step-STEP.json``, in a job one per process.
      step: number of the step.
      broken: what is not finite.
      values: the step's metrics.
      batch: this process's share.

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
    told = {name: value if np.isfinite(value) else str(value) for name, value in values.items()}
    content = {"step": step, "not_finite": broken, "examples": index.tolist(), "inputs_not_finite": bad}
    write_text(path, json.dumps({**content, "values": told}, indent=1))
    return path


def _finite(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if np.isfinite(value)}
