"""Scores of a trained run, for any labelled task: both routes under every condition, risks, diagnostics, warnings."""

import functools
import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from c3r_jax.core.moments import Moments
from c3r_jax.data.conditions.protocols import Condition
from c3r_jax.evaluation.collapse import constant_prediction_notes
from c3r_jax.evaluation.conditions import noise_scales, rearranged
from c3r_jax.evaluation.environments import environment_report
from c3r_jax.evaluation.examples import example_records, modality_means, riskiest
from c3r_jax.evaluation.risk_report import Voxels, risk_report, voxel_probe
from c3r_jax.evaluation.segmentation import Overlap, VolumeScorer, volume_scores
from c3r_jax.evaluation.stage_report import first_stage_report
from c3r_jax.evaluation.task_scores import branch_scores, classes_report
from c3r_jax.experiments.calibrate import calibrated, fitted_calibration
from c3r_jax.experiments.encode import encode_each, encode_split, encoded_batches, without_encoders
from c3r_jax.experiments.experiment import Experiment
from c3r_jax.experiments.open import training_moments
from c3r_jax.metrics.biases import Biases
from c3r_jax.metrics.classification import reliability
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.metrics.scores import score_of
from c3r_jax.models.branches import Branches

NO_INSTRUMENT = (
    "config.c3r.instrument is 'none': z_c is z itself, so figures of the route through z_c are those of z, and C3's "
    "risks measure no instrument."
)

PROBED = 128  # minimum of training volumes that the probe of z_bar is fitted on; all if there are fewer


def scored_run(experiment: Experiment, params: Any, conditions: list[Condition]) -> dict[str, Any]:
    """The part of ``results.json`` that is measured.

    Args:
      experiment: the run, of a labelled task.
      params: on the devices.
      conditions: changes of the inputs.
    """
    settings, task = experiment.settings, experiment.method.spec
    score = _score_volumes if task.dense else _score
    info = experiment.sources[settings.eval.split].info
    rows, measurements = score(experiment, params, conditions)
    return {
        "dataset": info.name,
        "sha256": info.sha256,
        "split": settings.eval.split,
        "task": task.name,
        "metric": task.headline,
        "method": experiment.method.name,
        "seed": settings.seed,
        "class_names": list(info.class_names),
        "modalities": list(experiment.model.modalities),
        "conditions": rows,
        "summary": {route: _summary(rows, route, task.headline) for route in ROUTES},
        **measurements,
        "warnings": measurements["warnings"] + ([NO_INSTRUMENT] if settings.c3r.instrument == "none" else []),
    }


Scored = tuple[list[dict[str, Any]], dict[str, Any]]  # a row per condition, and all other measurements


def _score(experiment: Experiment, params: Any, conditions: list[Condition]) -> Scored:
    settings, method, split = experiment.settings, experiment.method, experiment.settings.eval.split
    train_h, train_present, train_labels, _ = encode_split(experiment, params, "train")
    after_encoders = experiment.devices.host(without_encoders(params))
    moments = experiment.branches.measure_moments(after_encoders, train_h, train_present)
    calibration = fitted_calibration(experiment, params, moments)
    run = _Runner(experiment, after_encoders, moments, calibration)
    scales = noise_scales(experiment, conditions)
    encoded = encode_split(experiment, params, split)
    clean_h, present, labels, _ = encoded
    rows, clean, blind = [], run(clean_h, present, labels), {}
    for condition in conditions:
        reused = rearranged(condition, encoded, experiment.model.modalities, settings.eval.noise_seed)
        h, visible = reused or encode_split(experiment, params, split, condition, scales)[:2]
        branches = clean if condition.group == "clean" else run(h, visible, labels)
        rows.append(_condition_row(condition, branch_scores(experiment, branches, labels)))
        blind[condition.name] = int((~np.asarray(visible).any(1)).sum())
    names = experiment.sources[split].info.class_names
    report, notes = first_stage_report(clean_h, present, labels, config=method.c3r, num_classes=len(names))
    train = run(train_h, train_present, train_labels)
    examples = {}
    if method.spec.one_class_per_example:
        shown = functools.partial(
            example_records,
            experiment,
            after_encoders,
            experiment.sources[split],
            encoded=encoded,
            branches=clean,
            means=modality_means(train_h, train_present),
            calibration=calibration,
        )
        examples = {risk: shown(rows=chosen) for risk, chosen in riskiest(clean, labels).items()}
    classes = classes_report(method.spec, clean, labels, names)
    bins, calibrated = settings.eval.num_bins, ROUTES if method.spec.one_class_per_example else ()
    return rows, {
        "num_examples": len(labels),
        "per_class": classes,
        "worst_class": {route: _worst_class(scores) for route, scores in classes.items()},
        "risk": risk_report(train, train_labels, clean, labels, method.target),
        "first_stage": report,
        "calibration": {r: {"temperature": f.temperature, "bias": f.bias.tolist()} for r, f in calibration.items()},
        "examples": examples,
        "reliability": {r: reliability(clean.logits[r], labels, num_bins=bins) for r in calibrated},
        "environments": environment_report(experiment, split, clean, labels),
        "warnings": notes
        + blind_notes(blind, len(labels))
        + constant_prediction_notes(
            clean.logits["representation"],
            labels,
            train_labels,
            method.target,
            regularised=method.regularised and method.c3r.strength > 0,
        ),
    }


def _score_volumes(experiment: Experiment, params: Any, conditions: list[Condition]) -> Scored:
    """As :func:`_score`, for volumes that do not fit in memory together."""
    split, modalities = experiment.settings.eval.split, experiment.model.modalities
    after_encoders = experiment.devices.host(without_encoders(params))
    moments, scales = training_moments(experiment, params), noise_scales(experiment, conditions)
    scorer = VolumeScorer(experiment, after_encoders, moments)

    def score(masks: list[np.ndarray | None], condition: Condition | None = None) -> list[dict[str, Overlap]]:
        batches = encoded_batches(experiment, params, split, condition, None if condition is None else scales)
        return volume_scores(encode_each(experiment, params, batches), scorer, masks)

    # Encoders see one modality each: volumes are encoded once and scored for every subset.
    plain = [c for c in conditions if c.change is None]
    clean, *subsets = score([None, *(np.isin(modalities, c.modalities) for c in plain)])
    overlaps = {c.name: subset for c, subset in zip(plain, subsets, strict=True)}
    overlaps |= {c.name: score([None], c)[0] for c in conditions if c.change is not None}

    def sampled(split: str, most: int | None = None) -> Voxels:
        batches = itertools.islice(encoded_batches(experiment, params, split), most)
        return scorer.sample(encode_each(experiment, params, batches))

    trained, held_out = sampled("train", math.ceil(PROBED / experiment.settings.eval.batch_size)), sampled(split)
    names, seen = experiment.sources[split].info.class_names, (held_out.h, held_out.present, held_out.labels)
    report, notes = first_stage_report(*seen, config=experiment.method.c3r, num_classes=len(names))
    rows = [
        _condition_row(c, {route: overlaps[c.name][route].scores(scorer.regions) for route in ROUTES})
        for c in conditions
    ]
    return rows, {
        "num_examples": len(clean["instrument"].weight),
        "risk": {name: float(value) for name, value in clean["instrument"].risk()._asdict().items()}
        | voxel_probe(trained, held_out),
        "first_stage": report,
        "warnings": notes,
    }


def blind_notes(blind: Mapping[str, int], num_examples: int) -> list[str]:
    """A sentence where examples have none of a condition's modalities, as they lack them in the data set; [] if not.

    Args:
      blind: {condition: number of such examples}.
      num_examples: number of all examples.

    Examples:
      >>> blind_notes({"clean": 0, "only text": 3}, 40)[0].partition(":")[0]
      'of 40 examples, 3 have no modality left in only text'
    """
    found = [f"{number} have no modality left in {name}" for name, number in blind.items() if number]
    if not found:
        return []
    return [f"of {num_examples} examples, {', '.join(found)}: they count there, with a prediction made from nothing."]


class _Runner:
    """Runs the branches of one trained model on any representations."""

    def __init__(self, experiment: Experiment, params: Any, moments: Moments | None, calibration: dict[str, Biases]):
        self._branches, self._params, self._moments = experiment.branches, params, moments
        self._seed, self._calibration = experiment.settings.seed, calibration

    def __call__(self, h: dict[str, np.ndarray], present: np.ndarray, labels: np.ndarray) -> Branches:
        branches = self._branches(self._params, self._moments, h, present, labels, seed=self._seed)
        return calibrated(branches, self._calibration)


def _condition_row(condition: Condition, routes: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {
        "name": condition.name,
        "group": condition.group,
        "level": float(condition.level),
        "modalities": list(condition.modalities),
        "routes": routes,
    }


def _summary(rows: list[dict[str, Any]], route: str, metric: str) -> dict[str, Any]:
    """Mean and worst headline score of the task over conditions."""
    values = [row["routes"][route][metric] for row in rows]
    worst = int(np.argmin(values) if score_of(metric).higher else np.argmax(values))
    return {
        f"mean_{metric}": float(np.mean(values)),
        f"worst_{metric}": values[worst],
        "worst_condition": rows[worst]["name"],
    }


def _worst_class(classes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    recalls = {name: row["recall"] for name, row in classes.items() if row["support"]}
    name = min(recalls, key=lambda key: recalls[key])
    return {"name": name, "recall": recalls[name]}
