"""The validation pass of the training loop: selection values and both branches' risks, never on test data."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array

from c3r_jax.core.instrument import Moments
from c3r_jax.core.regularizer import C3RConfig
from c3r_jax.evaluation.branches import BranchRunner, measured_risk
from c3r_jax.evaluation.metrics import classification_metrics
from c3r_jax.evaluation.pairs import pair_metrics
from c3r_jax.models.contrastive import match
from c3r_jax.training.experiment import encode_batches, encode_split, without_encoders

if TYPE_CHECKING:
    from c3r_jax.training.experiment import Experiment
    from c3r_jax.training.step import TrainState


def subsets(num_modalities: int) -> list[np.ndarray]:
    """Masks (M,) of every non-empty subset of the modalities, the whole first.

    Examples:
      >>> [mask.tolist() for mask in subsets(2)]
      [[True, True], [True, False], [False, True]]
    """
    masks = []
    for size in range(num_modalities, 0, -1):
        for kept in itertools.combinations(range(num_modalities), size):
            masks.append(np.isin(np.arange(num_modalities), kept))
    return masks


def subset_name(modalities: Sequence[str], mask: np.ndarray) -> str:
    """The modalities that a mask (M,) keeps, in words.

    Examples:
      >>> subset_name(("audio", "image", "text"), np.array([True, False, True]))
      'audio+text'
    """
    return "+".join(name for name, on in zip(modalities, mask, strict=True) if on)


def validate(experiment: "Experiment", state: "TrainState") -> dict[str, float]:
    """Scores the running model on the validation split, with moments of the parameters that are scored.

    Args:
      experiment: the run.
      state: on the devices.

    Returns:
      accuracy, nll, ece; accuracy through the instrument; mean_accuracy over every modality subset; risks. For a
      contrastive task: the share of examples whose own key is the best match in the whole split, loss terms and risks.
    """
    if experiment.method.contrastive:
        return _validate_pairs(experiment, state)
    model = experiment.model
    h, present, labels, _ = encode_split(experiment, state.evaluated, "validation")
    params = experiment.devices.host(without_encoders(state.evaluated))
    moments = current_moments(experiment, state, params)
    values: dict[str, float] = {}
    accuracies = []
    for mask in subsets(len(model.modalities)):
        kept = present & mask
        branches = experiment.branches(params, moments, h, kept, labels, seed=experiment.config.seed)
        scores = classification_metrics(
            branches.logits["representation"], labels, num_bins=experiment.config.eval.num_bins
        )
        accuracies.append(scores["accuracy"])
        if mask.all():
            values |= scores
            through = classification_metrics(
                branches.logits["instrument"], labels, num_bins=experiment.config.eval.num_bins
            )
            values["accuracy_instrument"] = through["accuracy"]
            risk = measured_risk(branches, labels)
            values |= {f"risk_{name}": float(value) for name, value in risk._asdict().items()}
        else:
            values[f"accuracy/{subset_name(model.modalities, mask)}"] = scores["accuracy"]
    values["mean_accuracy"] = float(np.mean(accuracies))
    return values


def current_moments(experiment: "Experiment", state: "TrainState", params: Any) -> Moments | None:
    """The instrument's moments of the parameters that are evaluated; None without an instrument.

    Running moments are those of the parameters that are trained. Where averaged ones are evaluated, as many training
    examples as the running moments weigh (an epoch at most) are encoded with those.

    Args:
      experiment: the run.
      state: on the devices.
      params: of ``state.evaluated``, on the host, without the encoders.
    """
    if not state.instrument:
        return None
    if not state.ema:
        return Moments(**experiment.devices.host(state.instrument))
    train = experiment.config.train
    num_rows = min(train.batch_size / (1 - train.moments_decay), len(experiment.sources["train"]))
    batches = experiment.train_iterator(plain=True)
    some = itertools.islice(batches, math.ceil(num_rows / experiment.config.eval.batch_size))
    h, present, _, _ = encode_batches(experiment, state.ema, some)
    batches.close()
    return experiment.branches.measure_moments(params, h, present)


def _validate_pairs(experiment: "Experiment", state: "TrainState") -> dict[str, float]:
    """The contrastive loss of the split as one batch."""
    h, present, _, _ = encode_split(experiment, state.evaluated, "validation")
    params = experiment.devices.host(without_encoders(state.evaluated))
    method = experiment.method
    run = _pairs(experiment.branches, method.task, method.c3r, method.regularised)
    found = jax.device_get(run(params, h, present, jax.random.key(experiment.config.seed)))
    values = {name: float(value) for name, value in found.items()}
    return {**values, "mean_accuracy": values["accuracy"]}


@functools.lru_cache(maxsize=16)
def _pairs(branches: BranchRunner, kind: str, config: C3RConfig, regularised: bool) -> Callable[..., Any]:
    """Compiled once per model, split and method, whatever the parameters."""

    @jax.jit
    def run(params: Any, h: dict[str, Array], present: Array, key: Array) -> dict[str, Array]:
        compare = functools.partial(match, branches.model, {"params": params})
        return pair_metrics(compare, h, present, kind=kind, config=config, regularised=regularised, key=key)

    return run
