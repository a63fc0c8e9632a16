"""The validation pass of the training loop: selection values and both branches' risks, never on test data."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array

from c3r_jax.core.diagnostics import relative_spread
from c3r_jax.core.instrument import Moments
from c3r_jax.core.regularizer import C3RConfig
from c3r_jax.evaluation.branches import BranchRunner, measured_risk
from c3r_jax.evaluation.measures import branch_scores
from c3r_jax.evaluation.pairs import pair_metrics
from c3r_jax.evaluation.scores import headline
from c3r_jax.evaluation.segmentation import VolumeScorer, volume_scores
from c3r_jax.models.contrastive import match
from c3r_jax.models.twin import ROUTES, rows_of
from c3r_jax.training.experiment import encode_batches, encode_each, encoded_batches, without_encoders

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


def validate(
    experiment: "Experiment", state: "TrainState", look: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Scores the running model on the validation split, with moments of the parameters that are scored.

    Args:
      experiment: the run.
      state: on the devices.
      look: called before every batch.

    Returns:
      Every score of the task; accuracy through the instrument; the mean of each score over every modality subset
      ("mean_accuracy"); risks; but for masks, the spread of z over its size ("z_spread"). For a contrastive task: the
      share of examples whose own key is the best match in the whole split, loss terms and risks.
    """
    if experiment.method.contrastive:
        return _validate_pairs(experiment, state, look)
    params = experiment.devices.host(without_encoders(state.evaluated))
    moments = current_moments(experiment, state, params)
    modalities = experiment.model.modalities
    masks = subsets(len(modalities))
    spread = {}
    if experiment.method.task == "segmentation":
        scorer = VolumeScorer(experiment, params, moments)
        encoded = encode_each(experiment, state.evaluated, _batches(experiment, state, look))
        found = volume_scores(encoded, scorer, [None, *masks[1:]])
        scored = [{route: own[route].scores(scorer.regions) for route in ROUTES} for own in found]
        risk = found[0]["instrument"].risk()
    else:
        h, present, labels, _ = encode_batches(experiment, state.evaluated, _batches(experiment, state, look))
        run = functools.partial(experiment.branches, params, moments, h, seed=experiment.config.seed)
        branches = [run(present & mask, labels) for mask in masks]
        scored = [branch_scores(experiment, own, labels) for own in branches]
        risk = measured_risk(branches[0], labels, experiment.method.target)
        spread["z_spread"] = relative_spread(branches[0].z)
    values = dict(scored[0]["representation"])
    values["accuracy_instrument"] = scored[0]["instrument"]["accuracy"]
    values |= spread | {f"risk_{name}": float(value) for name, value in risk._asdict().items()}
    shown = dict.fromkeys(("accuracy", headline(experiment.method.task)))
    for mask, own in zip(masks[1:], scored[1:], strict=True):
        values |= {f"{name}/{subset_name(modalities, mask)}": own["representation"][name] for name in shown}
    for name in scored[0]["representation"]:
        values[f"mean_{name}"] = float(np.mean([own["representation"][name] for own in scored]))
    return values


def _batches(experiment: "Experiment", state: "TrainState", look: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """The validation split; ``look`` comes before every batch."""
    for batch in encoded_batches(experiment, state.evaluated, "validation"):
        look()
        yield batch


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
    h, (rows,) = rows_of(h, present)
    return experiment.branches.measure_moments(params, h, np.asarray(rows))


def _validate_pairs(experiment: "Experiment", state: "TrainState", look: Callable[[], None]) -> dict[str, float]:
    """The contrastive loss of the split as one batch."""
    h, present, _, _ = encode_batches(experiment, state.evaluated, _batches(experiment, state, look))
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
