"""Causal evaluation where the truth is known: shift, interventions, groups and what a representation depends on."""

from collections.abc import Callable
from typing import Any

import numpy as np

from c3r_jax.core.diagnostics import distance_correlation
from c3r_jax.data.counter_rng import example_rng
from c3r_jax.data.sets.structural import REGIMES, StructuralModel, StructuralSample
from c3r_jax.metrics.classification import classification_metrics

Inputs = dict[str, np.ndarray]
NOISE_SD = 0.3  # added to every input, in the inputs' own units


def causal_report(
    model: StructuralModel,
    predict_proba: Callable[[Inputs], np.ndarray],
    transform: Callable[[Inputs], np.ndarray] | None = None,
    *,
    num_examples: int = 4000,
    seed: int = 1_000_000,
) -> dict[str, Any]:
    """Evaluates a predictor on fresh draws of a structural model.

    Args:
      model: the structural model that it was trained on.
      predict_proba: {modality: (n, 24)} -> probabilities (n, 2); a missing key is an absent modality.
      transform: {modality: (n, 24)} -> representations (n, d), for the distance correlations; None: none.
      num_examples: n of each test.
      seed: seed of the draws; must differ from that of training.

    Returns:
      Shares: ``same``, ``shift`` (accuracies), ``balanced_shift`` (mean recall of the classes), ``missing_shift`` (mean
      accuracy with only one modality present), ``noise_shift``, ``worst_group`` (lowest accuracy over the values of s
      and one cue, in-distribution), ``oracle_shift`` (accuracy of s itself), ``ece`` (calibration error,
      in-distribution), ``do_s`` (how often do(s = 1) predicts another label than do(s = 0): 1 is ideal), ``do_cue``
      (the same for a cue, the mean over cues: 0 is ideal), ``interventional`` (accuracy where all cues are set by a
      fair coin). With ``transform``, ``dcor``: {factor: distance correlation with the representation}, in-distribution.
    """
    draws = {regime: model.sample(num_examples, seed=seed, regime=regime) for regime in REGIMES}
    same, shift = draws["same"], draws["shift"]
    p_same, predicted = predict_proba(same.inputs), predict_proba(shift.inputs).argmax(1)
    alone = [_accuracy(predict_proba({name: shift.inputs[name]}), shift.labels) for name in model.modalities]
    report: dict[str, Any] = {
        "same": _accuracy(p_same, same.labels),
        "shift": float((predicted == shift.labels).mean()),
        "balanced_same": _balanced(p_same.argmax(1), same.labels),
        "balanced_shift": _balanced(predicted, shift.labels),
        "missing_shift": float(np.mean(alone)),
        "noise_shift": _accuracy(predict_proba(noisy(shift.inputs, NOISE_SD, seed)), shift.labels),
        "worst_group": _worst_group(p_same.argmax(1), same, model.cues),
        "oracle_shift": model.oracle(shift),
        "majority_same": float(np.bincount(same.labels, minlength=2).max() / num_examples),
        "ece": classification_metrics(np.log(np.maximum(p_same, 1e-30)), same.labels)["ece"],
    }
    report["do_s"] = _flips(model, predict_proba, "s", num_examples, seed)
    if model.cues:
        report["do_cue"] = float(np.mean([_flips(model, predict_proba, c, num_examples, seed) for c in model.cues]))
        report["interventional"] = _interventional(model, predict_proba, num_examples, seed)
    if transform is not None:
        z = transform(same.inputs)
        report["dcor"] = {name: distance_correlation(z, factor) for name, factor in same.factors.items()}
    return report


def noisy(inputs: Inputs, sd: float, seed: int) -> Inputs:
    """Adds seeded Gaussian noise of standard deviation ``sd`` to every modality."""
    return {
        name: (x + sd * example_rng(seed, 1, name).normal(size=x.shape)).astype(x.dtype) for name, x in inputs.items()
    }


def _accuracy(p: np.ndarray, labels: np.ndarray) -> float:
    return float((p.argmax(1) == labels).mean())


def _balanced(predicted: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean([(predicted[labels == label] == label).mean() for label in np.unique(labels)]))


def _worst_group(predicted: np.ndarray, sample: StructuralSample, cues: tuple[str, ...]) -> float:
    correct, s = predicted == sample.labels, sample.factors["s"]
    groups = [(s == i) & (sample.factors[cue] == j) for cue in cues for i in (0, 1) for j in (0, 1)]
    groups = groups or [s == i for i in (0, 1)]
    return float(min(correct[group].mean() for group in groups if group.any()))


def _flips(model: StructuralModel, predict_proba: Callable, factor: str, num_examples: int, seed: int) -> float:
    """How often the prediction changes between do(factor = 0) and do(factor = 1) on the same examples.

    All other cues are held fixed: only the factor itself counts, not the cues that it causes.
    """
    before = model.sample(num_examples, seed=seed)
    held = {cue: before.factors[cue] for cue in model.cues if cue != factor}
    worlds = [model.sample(num_examples, seed=seed, do={**held, factor: value}) for value in (0, 1)]
    predicted_0, predicted_1 = (predict_proba(world.inputs).argmax(1) for world in worlds)
    return float((predicted_0 != predicted_1).mean())


def _interventional(model: StructuralModel, predict_proba: Callable, num_examples: int, seed: int) -> float:
    """Accuracy where fair coins set the cues, independently of the label."""
    coins = {cue: example_rng(seed, 2, cue).integers(0, 2, num_examples) for cue in model.cues}
    world = model.sample(num_examples, seed=seed, do=coins)
    return _accuracy(predict_proba(world.inputs), world.labels)
