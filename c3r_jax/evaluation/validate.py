"""The validation pass of the training loop: selection values and both branches' risks, never on test data."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from c3r_jax.core.config import C3RConfig
from c3r_jax.core.moments import Moments
from c3r_jax.evaluation.collapse import relative_spread
from c3r_jax.evaluation.contrastive_metrics import pair_metrics, retrieval
from c3r_jax.evaluation.environments import environment_report
from c3r_jax.evaluation.explained import measures_share, validation_share
from c3r_jax.evaluation.segmentation import VolumeScorer, volume_scores
from c3r_jax.evaluation.task_scores import branch_scores
from c3r_jax.evaluation.zero_shot import class_keys, pooled, zero_shot
from c3r_jax.experiments.encode import encode_batches, encode_each, encoded_batches, without_encoders
from c3r_jax.experiments.experiment import Experiment
from c3r_jax.experiments.open import training_moments
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.metrics.scores import WORST_ENVIRONMENT
from c3r_jax.models.branches import Branches, BranchRunner, measured_risk
from c3r_jax.models.pair_head import match
from c3r_jax.step.state import TrainState

MOST, MOST_VOLUMES = 8192, 64  # training examples whose moments one validation measures, at most


def subsets(num_modalities: int) -> list[np.ndarray]:
    """Masks (M,) of every non-empty subset of the modalities, the full set first.

    Examples:
      >>> [mask.tolist() for mask in subsets(2)]
      [[True, True], [True, False], [False, True]]
    """
    masks = []
    for size in range(num_modalities, 0, -1):
        for chosen in itertools.combinations(range(num_modalities), size):
            masks.append(np.isin(np.arange(num_modalities), chosen))
    return masks


def subset_name(modalities: Sequence[str], mask: np.ndarray) -> str:
    """The names of the modalities in a mask (M,).

    Examples:
      >>> subset_name(("audio", "image", "text"), np.array([True, False, True]))
      'audio+text'
    """
    return "+".join(name for name, on in zip(modalities, mask, strict=True) if on)


def validate(experiment: Experiment, state: TrainState, look: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Scores the current model on the validation split, with :func:`validation_moments`.

    Risks are those that ``eval.py --split=validation`` measures of the same parameters, but for training splits of more
    than :data:`MOST` examples and for volumes that are evaluated whole.

    Args:
      experiment: the run.
      state: training state, on the devices.
      look: called before every batch.

    Returns:
      Every score of the task; accuracy through the instrument; the mean of each score over every modality subset
      ("mean_accuracy") and, where environments are known, in the worst one ("worst_environment_accuracy"); risks;
      except for segmentation, the relative spread of z ("z_spread"), and with C3R's gate the explained share of the
      split ("explained", :func:`validation_share`). For a contrastive task: the share of examples
      whose own key is the best match in the full split, loss terms and risks; "retrieval", the mean share of examples
      whose partner in another modality is the best match, of those that have both (NaN where none has); and where every
      class has phrases, "zero_shot", the accuracy of classes by phrases, also of every modality subset and their mean.
    """
    if experiment.method.contrastive:
        return _validate_pairs(experiment, state, look)
    params = experiment.devices.host(without_encoders(state.evaluated))
    moments = validation_moments(experiment, state, look)
    modalities = experiment.model.modalities
    masks = subsets(len(modalities))
    spread = {}
    if experiment.method.spec.dense:
        scorer = VolumeScorer(experiment, params, moments)
        encoded = encode_each(experiment, state.evaluated, _batches(experiment, state, look))
        overlaps = volume_scores(encoded, scorer, [None, *masks[1:]])
        scored = [{route: subset[route].scores(scorer.regions) for route in ROUTES} for subset in overlaps]
        risk = overlaps[0]["instrument"].risk()
    else:
        h, present, labels, _ = encode_batches(experiment, state.evaluated, _batches(experiment, state, look))
        run = functools.partial(experiment.branches, params, moments, h, seed=experiment.settings.seed)
        branches = [run(present & mask, labels) for mask in masks]
        scored = [branch_scores(experiment, subset, labels) for subset in branches]
        risk = measured_risk(branches[0], labels, experiment.method.target)
        spread["z_spread"] = relative_spread(branches[0].z)
        spread |= _worst_environment(experiment, branches[0], labels)
        if moments is not None and measures_share(experiment):
            spread["explained"] = validation_share(experiment, params, moments, h, present, labels)
    values = dict(scored[0]["representation"])
    values["accuracy_instrument"] = scored[0]["instrument"]["accuracy"]
    values |= spread | {f"risk_{name}": float(value) for name, value in risk._asdict().items()}
    per_subset = dict.fromkeys(("accuracy", experiment.method.spec.headline))
    for mask, scores in zip(masks[1:], scored[1:], strict=True):
        values |= {f"{name}/{subset_name(modalities, mask)}": scores["representation"][name] for name in per_subset}
    for name in scored[0]["representation"]:
        values[f"mean_{name}"] = float(np.mean([scores["representation"][name] for scores in scored]))
    return values


def _worst_environment(experiment: Experiment, branches: Branches, labels: np.ndarray) -> dict[str, float]:
    """Every score in the validation environment where it is worst; {} without environments."""
    route = ROUTES[0]
    report = environment_report(experiment, "validation", branches, labels, (route,))
    if report is None:
        return {}
    worst = report["routes"][route]["worst"]
    return {f"{WORST_ENVIRONMENT}{name}": found["value"] for name, found in worst.items()}


def _batches(
    experiment: Experiment, state: TrainState, look: Callable[[], None], split: str = "validation"
) -> Iterator[dict[str, Any]]:
    """Batches of a split; ``look`` is called before each."""
    return _seen(encoded_batches(experiment, state.evaluated, split), look)


def _seen(batches: Iterable[dict[str, Any]], look: Callable[[], None]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        look()
        yield batch


def validation_moments(
    experiment: Experiment, state: TrainState, look: Callable[[], None] = lambda: None
) -> Moments | None:
    """The instrument's moments of the evaluated parameters over the training split; None without an instrument.

    They are those of ``results.json``, so that a risk during training and one after it are the same measurement. The
    running moments of training lag behind the encoders, which move in every step: through them, far more labels seem to
    be known without the causal part. Of a training split of more than :data:`MOST` examples (:data:`MOST_VOLUMES`
    volumes), they are those of so many, the same in every validation.

    Args:
      experiment: the run.
      state: training state, on the devices.
      look: called before every batch.
    """
    if not set(Moments._fields) <= set(state.instrument):  # a rival's state may be there alone
        return None
    most = MOST_VOLUMES if experiment.method.spec.dense else MOST
    if len(experiment.sources["train"]) <= most or experiment.settings.train.cache_frozen:  # vectors are there
        return training_moments(experiment, state.evaluated, _batches(experiment, state, look, "train"))
    batches = experiment.train_iterator(plain=True)
    try:
        some = itertools.islice(batches, math.ceil(most / experiment.settings.eval.batch_size))
        return training_moments(experiment, state.evaluated, _seen(some, look))
    finally:
        batches.close()


def _validate_pairs(experiment: Experiment, state: TrainState, look: Callable[[], None]) -> dict[str, float]:
    """The contrastive loss of the split as one batch; retrieval among all of it, and its classes by phrases."""
    h, present, labels, _ = encode_batches(experiment, state.evaluated, _batches(experiment, state, look))
    params = experiment.devices.host(without_encoders(state.evaluated))
    method = experiment.method
    run = _pairs(experiment.branches, method.task, method.c3r, method.regularised)
    scores = jax.device_get(run(params, h, present, jax.random.key(experiment.settings.seed)))
    values = {name: float(value) for name, value in scores.items()}
    values["mean_accuracy"] = values["accuracy"]
    compare = functools.partial(match, experiment.model, {"params": params})
    found = {f"retrieval/{direction}": share for direction, share in retrieval(compare, h, present).items()}
    known = [share for share in found.values() if not math.isnan(share)]  # a direction needs examples with both
    mean = float(np.mean(known)) if known else math.nan
    values |= found | dict.fromkeys(("retrieval", "mean_retrieval"), mean)
    keys = class_keys(experiment, state.evaluated)
    if keys is not None:
        modalities = experiment.model.modalities
        masks = subsets(len(modalities))
        shares = [zero_shot(compare, pooled(h, mask), keys, labels) for mask in masks]
        values |= {"zero_shot": shares[0], "mean_zero_shot": float(np.mean(shares))}
        for mask, share in zip(masks[1:], shares[1:], strict=True):
            values[f"zero_shot/{subset_name(modalities, mask)}"] = share
    return values


@functools.lru_cache(maxsize=16)
def _pairs(branches: BranchRunner, kind: str, config: C3RConfig, regularised: bool) -> Callable[..., Any]:
    """Compiled once per model, split and method, for any parameters."""

    @jax.jit
    def run(params: Any, h: dict[str, Array], present: Array, key: Array) -> dict[str, Array]:
        compare = functools.partial(match, branches.model, {"params": params})
        return pair_metrics(compare, h, present, kind=kind, config=config, regularised=regularised, key=key)

    return run
