"""Evaluates a trained run: clean, missing and noisy input, both routes, risks and diagnostics."""

import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from c3r_jax.data import Condition
from c3r_jax.errors import ConfigError
from c3r_jax.evaluation.conditions import conditions_of
from c3r_jax.evaluation.pretrained import pretrained_scores
from c3r_jax.evaluation.robustness import read_baseline, results_folder, robustness_report
from c3r_jax.evaluation.scores import score_of
from c3r_jax.evaluation.scoring import scored_run
from c3r_jax.evaluation.trained import open_run, restore_best
from c3r_jax.training.experiment import Experiment
from c3r_jax.training.workdir import RESULTS, write_text

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
      The results, as written: None stands for what is not finite.

    Raises:
      WorkdirError, CheckpointError, DataError, ConfigError: if something needed is missing or damaged.
    """
    path = pathlib.Path(workdir)
    experiment = open_run(path, split)
    config = experiment.config
    conditions = conditions_of(experiment, protocols)
    other = None if baseline is None else _baseline(experiment, baseline, split, protocols, conditions)
    step, params = restore_best(experiment, path)
    score = pretrained_scores if experiment.method.contrastive else scored_run
    results = {
        "schema": 1,
        **score(experiment, params, conditions),
        "checkpoint": {"step": step, "selected_by": f"validation {config.train.select_by}"},
        "versions": _versions(),
        "config": json.loads(config.to_json()),
        "command": command,
    }
    if not experiment.method.contrastive:
        metric = results["metric"]
        results["robustness"] = robustness_report(
            results["conditions"],
            other["conditions"] if other is not None else None,
            metric=metric,
            lower_is_better=not score_of(metric).higher,
        )
    if other is not None:
        results["baseline"] = {"workdir": str(baseline), "method": other["method"], "seed": other["seed"]}
    out = results_folder(path, split, protocols)
    out.mkdir(parents=True, exist_ok=True)
    results = _finite(results)
    write_text(out / RESULTS, json.dumps(results, indent=1))
    return results


def evaluated(workdir: str | os.PathLike[str], step: int, split: str | None = None) -> dict[str, Any]:
    """What :func:`evaluate` wrote, if that is of this checkpoint and these versions of libraries; else evaluates.

    Args:
      workdir: a directory made by training.
      step: of its best checkpoint.
      split: as for :func:`evaluate`.

    Raises:
      WorkdirError, CheckpointError, DataError, ConfigError: of :func:`evaluate`.
    """
    try:
        found = json.loads((results_folder(workdir, split, None) / RESULTS).read_text(encoding="utf-8"))
        if found["checkpoint"]["step"] == step and found["versions"] == _versions():
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there are none, or they are damaged: either way they are written anew
    return evaluate(workdir, split=split)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in VERSIONS}}


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


def _finite(tree: Any) -> Any:
    """JSON has no NaN or infinity: null stands for both."""
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    if isinstance(tree, float) and not np.isfinite(tree):
        return None
    return tree
