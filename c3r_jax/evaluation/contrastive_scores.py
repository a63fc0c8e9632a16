"""Scores of contrastive pretraining: retrieval, zero-shot classification from phrases, and linear probes."""

import functools
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from c3r_jax.data.conditions.protocols import Condition
from c3r_jax.evaluation.conditions import noise_scales
from c3r_jax.evaluation.contrastive_metrics import compared_examples, retrieval
from c3r_jax.evaluation.validate import subset_name, subsets
from c3r_jax.evaluation.zero_shot import class_keys, pooled, zero_shot
from c3r_jax.experiments.encode import encode_split, without_encoders
from c3r_jax.experiments.experiment import Experiment
from c3r_jax.models.pair_head import match

PROBE_STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # inverse of the probe's penalty; chosen on validation


def pretrained_scores(experiment: Experiment, params: Any, conditions: list[Condition]) -> dict[str, Any]:
    """Scores of a contrastive run on its evaluation split.

    Args:
      experiment: the run.
      params: on the devices.
      conditions: changes of the inputs; modality subsets are scored under each of the others.

    Returns:
      "retrieval": {direction: share of examples whose own partner in the split is the best match}, of those that have
      both modalities; "retrieval_examples": {direction: their number};
      "conditions": per condition and modality subset, the accuracy of classes by phrases (zero-shot) and of a logistic
      regression on the frozen representations, fitted on the unchanged training split, its penalty chosen on
      validation, each where it is possible (phrases for every class; two classes), and the label is one class;
      "chance": share of the most frequent class, None where labels are no classes.
    """
    settings = experiment.settings
    has_classes = experiment.sources["train"].info.spec.one_class_per_example
    train_h, _, train_labels, _ = encode_split(experiment, params, "train")
    validation_h, _, validation_labels, _ = encode_split(experiment, params, "validation")
    after = {"params": experiment.devices.host(without_encoders(params))}
    compare = functools.partial(match, experiment.model, after)
    keys = class_keys(experiment, params) if has_classes else None
    modalities = experiment.model.modalities
    masks = {subset_name(modalities, mask): mask for mask in subsets(len(modalities))}
    probes = {
        name: _probe(pooled(train_h, mask), train_labels, pooled(validation_h, mask), validation_labels)
        for name, mask in masks.items()
        if has_classes and len(np.unique(train_labels)) > 1
    }
    rows, shares, compared, labels = [], {}, {}, np.zeros(0, np.int32)
    scales = noise_scales(experiment, conditions)
    for condition in conditions:
        if condition.group == "modality_subset":
            continue
        h, present, labels, _ = encode_split(experiment, params, settings.eval.split, condition, scales)
        for name, mask in masks.items():
            z = pooled(h, mask)
            scores = {}
            if keys is not None:
                scores["zero_shot"] = zero_shot(compare, z, keys, labels)
            if name in probes:
                scores["linear_probe"] = float((probes[name].predict(z) == labels).mean())
            rows.append({"condition": condition.name, "modalities": name, **scores})
        if condition.group == "clean":
            shares, compared = retrieval(compare, h, present), compared_examples(modalities, present)
    return {
        "dataset": experiment.sources["train"].info.name,
        "sha256": experiment.sources["train"].info.sha256,
        "split": settings.eval.split,
        "task": settings.task,
        "method": experiment.method.name,
        "seed": settings.seed,
        "num_examples": len(labels),
        "chance": float(np.bincount(labels).max() / len(labels)) if has_classes else None,
        "retrieval": shares,
        "retrieval_examples": compared,
        "conditions": rows,
        "probe_strength": {name: probe.C for name, probe in probes.items()},
    }


def pretrained_table(results: dict[str, Any]) -> str:
    """The scores as a Markdown table; of classes only where labels are classes."""
    lines = [
        f"# {results['method']} ({results['task']}), {results['dataset']} {results['split']}, "
        f"{results['num_examples']} examples",
        "",
        *([] if results["chance"] is None else _class_lines(results)),
        *_retrieval_lines(results["retrieval"], results["retrieval_examples"]),
    ]
    return "\n".join(lines) + "\n"


def _class_lines(results: dict[str, Any]) -> list[str]:
    return [
        "Accuracy in percent: classes named by phrases (zero-shot) and logistic regression on frozen representations; "
        f"the commonest class has {100 * results['chance']:.1f}.",
        "",
        "| condition | modalities | zero-shot | linear probe |",
        "|---|---|---|---|",
        *(
            f"| {row['condition']} | {row['modalities']} "
            f"| {_percent(row, 'zero_shot')} | {_percent(row, 'linear_probe')} |"
            for row in results["conditions"]
        ),
        "",
    ]


def _retrieval_lines(shares: dict[str, float | None], compared: dict[str, int]) -> list[str]:
    """A sentence for the directions of each number of compared examples, which chance depends on."""
    by_number: dict[int, list[str]] = {}
    for name, value in shares.items():
        shown = name if value is None else f"{name} {100 * value:.1f}"
        by_number.setdefault(compared[name], []).append(shown)
    return [
        f"Retrieval among {number} examples (chance {100 / number:.1f}): {', '.join(shown)}."
        if number
        else f"No retrieval, as no example has both modalities: {', '.join(shown)}."
        for number, shown in by_number.items()
    ]


def _percent(row: dict[str, Any], kind: str) -> str:
    return f"{100 * row[kind]:.1f}" if kind in row else ""


def _probe(x: np.ndarray, labels: np.ndarray, held_out: np.ndarray, held_out_labels: np.ndarray) -> LogisticRegression:
    """Logistic regression with the penalty that is best on validation (in a tie, the strongest)."""
    probes = [LogisticRegression(C=strength, max_iter=2000).fit(x, labels) for strength in PROBE_STRENGTHS]
    scores = [probe.score(held_out, held_out_labels) for probe in probes]
    return probes[int(np.argmax(scores))]
