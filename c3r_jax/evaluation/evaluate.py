"""Evaluates a trained run: clean, missing and noisy input, both routes, risks and diagnostics."""

import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from c3r_jax.core.instrument import Moments
from c3r_jax.data import Condition
from c3r_jax.errors import ConfigError
from c3r_jax.evaluation.branches import Branches
from c3r_jax.evaluation.causal import first_stage_report, risk_report
from c3r_jax.evaluation.conditions import conditions_of, noise_scales, rearranged
from c3r_jax.evaluation.metrics import classification_metrics, per_class, predictions, reliability
from c3r_jax.evaluation.pretrained import pretrained_scores
from c3r_jax.evaluation.robustness import read_baseline, results_folder, robustness_report
from c3r_jax.models.twin import ROUTES
from c3r_jax.training.checkpoints import Checkpoints
from c3r_jax.training.experiment import Experiment, build_experiment, encode_split, without_encoders
from c3r_jax.training.workdir import RESULTS, read_config, write_text

VERSIONS = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scikit-learn")


def evaluate(
    workdir: str | os.PathLike[str],
    *,
    command: str = "",
    split: str | None = None,
    protocols: Sequence[str] | None = None,
    baseline: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Evaluates the best checkpoint of a run and writes ``results.json``.

    The instrument's moments are measured anew over the whole training split, so that no prediction depends on a
    batch.

    Args:
      workdir: a directory made by training.
      command: how this was asked for, for the record.
      split: another split than ``config.eval.split``; results then go to the folder of its name in the workdir.
      protocols: exactly these instead of modality subsets and ``config.eval.protocols``; see ``results_folder``.
      baseline: workdir of a run that was evaluated in the same way, for effective robustness.

    Returns:
      The results, as written.

    Raises:
      WorkdirError, CheckpointError, DataError, ConfigError: if something needed is missing or damaged.
    """
    path = pathlib.Path(workdir)
    config = read_config(path)
    if split is not None:
        config.eval.split = split
    shared = config.parallel.fsdp * config.parallel.tensor
    config.train.accumulation = 1  # of training alone
    if jax.device_count() % shared or jax.local_device_count() % config.parallel.tensor:
        # Trained on other machines: here all devices share what they hold.
        config.parallel.fsdp, config.parallel.tensor = jax.device_count(), 1
    saved = [path / name for name in ("tokenizer.json", "standardisation.json")]
    experiment = build_experiment(
        config, *(file.read_text(encoding="utf-8") if file.exists() else None for file in saved)
    )
    conditions = conditions_of(experiment, protocols)
    other = None if baseline is None else _baseline(experiment, baseline, split, protocols, conditions)
    checkpoints = Checkpoints(path, config.train.keep_last)
    template = experiment.devices.template(experiment.state_maker())
    step, state, _ = checkpoints.restore(checkpoints.best_first, template)
    checkpoints.close()
    score = pretrained_scores if experiment.method.contrastive else _score
    results = {
        "schema": 1,
        **score(experiment, experiment.devices.put(state.evaluated), conditions),
        "checkpoint": {"step": step, "selected_by": f"validation {config.train.select_by}"},
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in VERSIONS},
        },
        "config": json.loads(config.to_json()),
        "command": command,
    }
    if not experiment.method.contrastive:
        results["robustness"] = robustness_report(
            results["conditions"], other["conditions"] if other is not None else None
        )
    if other is not None:
        results["baseline"] = {"workdir": str(baseline), "method": other["method"], "seed": other["seed"]}
    out = results_folder(path, split, protocols)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / RESULTS, json.dumps(_finite(results), indent=1))
    return results


def _baseline(
    experiment: Experiment,
    workdir: str | os.PathLike[str],
    split: str | None,
    protocols: Sequence[str] | None,
    conditions: list[Condition],
) -> dict[str, Any]:
    """The baseline's results, which must be of the same examples and conditions."""
    if experiment.method.contrastive:
        raise ConfigError(f"config.task is {experiment.config.task!r}: a baseline is for runs with classes alone.")
    config = experiment.config.eval
    source = experiment.sources[config.split]
    expected = {
        "dataset": source.info.name,
        "split": config.split,
        "num_examples": len(source),
        "noise_seed": config.noise_seed,
        "conditions": [condition.name for condition in conditions],
    }
    return read_baseline(workdir, split, protocols, expected)


def _score(experiment: Experiment, params: Any, conditions: list[Condition]) -> dict[str, Any]:
    config, split = experiment.config, experiment.config.eval.split
    source = experiment.sources[split]
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
        rows.append(_condition_row(condition, branches, labels, config.eval.num_bins))
    names = source.info.class_names
    report, notes = first_stage_report(
        moments, clean_h, present, labels, config=experiment.method.c3r, num_classes=len(names)
    )
    train = run(train_h, train_present, train_labels)
    classes = {route: per_class(clean.logits[route], labels, names) for route in ROUTES}
    return {
        "dataset": source.info.name,
        "split": split,
        "method": experiment.method.name,
        "seed": config.seed,
        "num_examples": len(labels),
        "class_names": list(names),
        "modalities": list(experiment.model.modalities),
        "conditions": rows,
        "summary": {route: _summary(rows, route) for route in ROUTES},
        "per_class": classes,
        "worst_class": {route: _worst_class(classes[route]) for route in ROUTES},
        "risk": risk_report(train, train_labels, clean, labels),
        "first_stage": report,
        "reliability": {
            route: reliability(clean.logits[route], labels, num_bins=config.eval.num_bins) for route in ROUTES
        },
        "warnings": notes + _collapse(clean, labels, train_labels),
    }


class _Runner:
    """The branches of one trained model, for any representations."""

    def __init__(self, experiment: Experiment, params: Any, moments: Moments | None):
        self._branches, self._params, self._moments = experiment.branches, params, moments
        self._seed = experiment.config.seed

    def __call__(self, h: dict[str, np.ndarray], present: np.ndarray, labels: np.ndarray) -> Branches:
        return self._branches(self._params, self._moments, h, present, labels, seed=self._seed)


def _condition_row(condition: Condition, branches: Branches, labels: np.ndarray, num_bins: int) -> dict[str, Any]:
    return {
        "name": condition.name,
        "group": condition.group,
        "level": float(condition.level),
        "modalities": list(condition.modalities),
        "routes": {
            route: classification_metrics(branches.logits[route], labels, num_bins=num_bins) for route in ROUTES
        },
    }


def _summary(rows: list[dict[str, Any]], route: str) -> dict[str, Any]:
    accuracies = [row["routes"][route]["accuracy"] for row in rows]
    worst = int(np.argmin(accuracies))
    return {
        "mean_accuracy": float(np.mean(accuracies)),
        "worst_accuracy": accuracies[worst],
        "worst_condition": rows[worst]["name"],
    }


def _worst_class(classes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    seen = {name: row for name, row in classes.items() if row["support"]}
    name = min(seen, key=lambda key: seen[key]["recall"])
    return {"name": name, "recall": seen[name]["recall"]}


def _collapse(clean: Branches, labels: np.ndarray, train_labels: np.ndarray) -> list[str]:
    """Warns when the representation says no more than the label shares do."""
    accuracy = float((predictions(clean.logits["representation"]) == labels).mean())
    majority = float((labels == np.bincount(train_labels).argmax()).mean())
    if accuracy >= majority:
        return []
    return [
        f"accuracy {accuracy:.3f} is below the commonest label's share {majority:.3f}: the representation has "
        "collapsed or codes labels upside down; lower config.c3r.lambda_n or raise config.c3r.w_task."
    ]


def _finite(tree: Any) -> Any:
    """JSON has no NaN or infinity: null stands for both."""
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    if isinstance(tree, float) and not np.isfinite(tree):
        return None
    return tree
