"""What a trained run scores, for any labelled task: both routes under every condition, risks, diagnostics, warnings."""

import functools
import itertools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from c3r_jax.core.instrument import Moments
from c3r_jax.core.regression import Regression
from c3r_jax.core.tasks import CLASSIFICATION, Task
from c3r_jax.data import Condition
from c3r_jax.evaluation.branches import Branches
from c3r_jax.evaluation.causal import first_stage_report, risk_report, voxel_probe
from c3r_jax.evaluation.conditions import noise_scales, rearranged
from c3r_jax.evaluation.examples import example_records, modality_means, riskiest
from c3r_jax.evaluation.measures import branch_scores, classes_report
from c3r_jax.evaluation.metrics import reliability
from c3r_jax.evaluation.scores import headline, score_of
from c3r_jax.evaluation.segmentation import Overlap, VolumeScorer, Voxels, volume_scores
from c3r_jax.evaluation.trained import training_moments
from c3r_jax.models.twin import ROUTES
from c3r_jax.training.experiment import Experiment, encode_each, encode_split, encoded_batches, without_encoders

PROBED = 128  # training volumes, at least, that the probe of z_bar is fitted on; all where there are fewer


def scored_run(experiment: Experiment, params: Any, conditions: list[Condition]) -> dict[str, Any]:
    """The part of ``results.json`` that is measured.

    Args:
      experiment: the run, of a labelled task.
      params: on the devices.
      conditions: what is done to the inputs.
    """
    score = _score_volumes if experiment.method.task == "segmentation" else _score
    config, task = experiment.config, experiment.method.task
    info = experiment.sources[config.eval.split].info
    rows, found = score(experiment, params, conditions)
    return {
        "dataset": info.name,
        "split": config.eval.split,
        "task": task,
        "metric": headline(task),
        "method": experiment.method.name,
        "seed": config.seed,
        "class_names": list(info.class_names),
        "modalities": list(experiment.model.modalities),
        "conditions": rows,
        "summary": {route: _summary(rows, route, headline(task)) for route in ROUTES},
        **found,
    }


Scored = tuple[list[dict[str, Any]], dict[str, Any]]  # a row per condition, and all else that was found


def _score(experiment: Experiment, params: Any, conditions: list[Condition]) -> Scored:
    config, method, split = experiment.config, experiment.method, experiment.config.eval.split
    train_h, train_present, train_labels, _ = encode_split(experiment, params, "train")
    after_encoders = experiment.devices.host(without_encoders(params))
    moments = experiment.branches.measure_moments(after_encoders, train_h, train_present)
    run = _Runner(experiment, after_encoders, moments)
    scales = noise_scales(experiment, conditions)
    encoded = encode_split(experiment, params, split)
    clean_h, present, labels, _ = encoded
    rows, clean = [], run(clean_h, present, labels)
    for condition in conditions:
        found = rearranged(condition, encoded, experiment.model.modalities, config.eval.noise_seed)
        h, kept = found or encode_split(experiment, params, split, condition, scales)[:2]
        branches = clean if condition.group == "clean" else run(h, kept, labels)
        rows.append(_condition_row(condition, branch_scores(experiment, branches, labels)))
    names = experiment.sources[split].info.class_names
    report, notes = first_stage_report(moments, clean_h, present, labels, config=method.c3r, num_classes=len(names))
    train = run(train_h, train_present, train_labels)
    examples = {}
    if method.task == "classification":
        shown = functools.partial(
            example_records,
            experiment,
            after_encoders,
            experiment.sources[split],
            encoded=encoded,
            branches=clean,
            means=modality_means(train_h, train_present),
        )
        examples = {risk: shown(rows=chosen) for risk, chosen in riskiest(clean, labels).items()}
    classes = classes_report(method.task, clean, labels, names)
    bins, calibrated = config.eval.num_bins, ROUTES if method.task == "classification" else ()
    return rows, {
        "num_examples": len(labels),
        "per_class": classes,
        "worst_class": {route: _worst_class(own) for route, own in classes.items()},
        "risk": risk_report(train, train_labels, clean, labels, method.target),
        "first_stage": report,
        "examples": examples,
        "reliability": {r: reliability(clean.logits[r], labels, num_bins=bins) for r in calibrated},
        "warnings": notes + _collapse(clean, labels, train_labels, method.target),
    }


def _score_volumes(experiment: Experiment, params: Any, conditions: list[Condition]) -> Scored:
    """As :func:`_score`, of volumes that do not fit in memory together."""
    split, modalities = experiment.config.eval.split, experiment.model.modalities
    after_encoders = experiment.devices.host(without_encoders(params))
    moments, scales = training_moments(experiment, params), noise_scales(experiment, conditions)
    scorer = VolumeScorer(experiment, after_encoders, moments)

    def score(kept: list[np.ndarray | None], condition: Condition | None = None) -> list[dict[str, Overlap]]:
        batches = encoded_batches(experiment, params, split, condition, None if condition is None else scales)
        return volume_scores(encode_each(experiment, params, batches), scorer, kept)

    # Encoders see one modality each: every subset is scored on what is encoded once.
    plain = [c for c in conditions if c.change is None]
    clean, *subsets = score([None, *(np.isin(modalities, c.modalities) for c in plain)])
    found = {c.name: own for c, own in zip(plain, subsets, strict=True)}
    found |= {c.name: score([None], c)[0] for c in conditions if c.change is not None}

    def sampled(split: str, most: int | None = None) -> Voxels:
        batches = itertools.islice(encoded_batches(experiment, params, split), most)
        return scorer.sample(encode_each(experiment, params, batches))

    trained, held_out = sampled("train", math.ceil(PROBED / experiment.config.eval.batch_size)), sampled(split)
    names, seen = experiment.sources[split].info.class_names, (held_out.h, held_out.present, held_out.labels)
    report, notes = first_stage_report(moments, *seen, config=experiment.method.c3r, num_classes=len(names))
    rows = [
        _condition_row(c, {route: found[c.name][route].scores(scorer.regions) for route in ROUTES}) for c in conditions
    ]
    return rows, {
        "num_examples": len(clean["instrument"].weight),
        "risk": {name: float(value) for name, value in clean["instrument"].risk()._asdict().items()}
        | voxel_probe(trained, held_out),
        "first_stage": report,
        "warnings": notes,
    }


class _Runner:
    """The branches of one trained model, for any representations."""

    def __init__(self, experiment: Experiment, params: Any, moments: Moments | None):
        self._branches, self._params, self._moments = experiment.branches, params, moments
        self._seed = experiment.config.seed

    def __call__(self, h: dict[str, np.ndarray], present: np.ndarray, labels: np.ndarray) -> Branches:
        return self._branches(self._params, self._moments, h, present, labels, seed=self._seed)


def _condition_row(condition: Condition, routes: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {
        "name": condition.name,
        "group": condition.group,
        "level": float(condition.level),
        "modalities": list(condition.modalities),
        "routes": routes,
    }


def _summary(rows: list[dict[str, Any]], route: str, metric: str) -> dict[str, Any]:
    """Mean and worst over conditions of the task's headline score."""
    values = [row["routes"][route][metric] for row in rows]
    worst = int(np.argmin(values) if score_of(metric).higher else np.argmax(values))
    return {
        f"mean_{metric}": float(np.mean(values)),
        f"worst_{metric}": values[worst],
        "worst_condition": rows[worst]["name"],
    }


def _worst_class(classes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    seen = {name: row for name, row in classes.items() if row["support"]}
    name = min(seen, key=lambda key: seen[key]["recall"])
    return {"name": name, "recall": seen[name]["recall"]}


def _collapse(
    clean: Branches, labels: np.ndarray, train_labels: np.ndarray, target: Task = CLASSIFICATION
) -> list[str]:
    """Warns when the representation says no more than one answer for all rows does."""
    outputs = jnp.asarray(clean.logits["representation"])
    accuracy = float(np.asarray(target.right(outputs, jnp.asarray(labels))).mean())
    if isinstance(target, Regression):
        constant = float((np.abs(labels - np.median(train_labels)) <= target.tolerance).mean())
        words = "the share within the tolerance of the training median"
    elif labels.ndim == 2:
        constant = float((labels == (train_labels.mean(0) > 0.5)).mean())
        words = "the share of each label's commoner value"
    else:
        constant = float((labels == np.bincount(train_labels).argmax()).mean())
        words = "the commonest label's share"
    if accuracy >= constant:
        return []
    return [
        f"accuracy {accuracy:.3f} is below {words} {constant:.3f}: the representation has "
        "collapsed or codes labels upside down; lower config.c3r.lambda_n or raise config.c3r.w_task."
    ]
