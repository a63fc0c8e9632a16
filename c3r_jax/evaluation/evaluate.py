"""Evaluates a trained run: clean, missing and noisy input, both routes, risks and diagnostics."""

import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from c3r_jax.data.conditions.protocols import Condition
from c3r_jax.errors import ConfigError
from c3r_jax.evaluation.conditions import conditions_of
from c3r_jax.evaluation.contrastive_scores import pretrained_scores
from c3r_jax.evaluation.robustness import read_baseline, results_folder, robustness_report
from c3r_jax.evaluation.run_scores import scored_run
from c3r_jax.experiments.experiment import Experiment
from c3r_jax.experiments.open import open_run, restore_best
from c3r_jax.experiments.workdir import RESULTS
from c3r_jax.files.atomic import write_text
from c3r_jax.metrics.scores import score_of

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

    The instrument's moments are computed over the full training split, so that no prediction depends on a batch.

    Args:
      workdir: a directory made by training.
      command: the command line, for the record.
      split: a split in place of ``config.eval.split``; results then go to a folder of that name in the workdir.
      protocols: exactly these instead of modality subsets and ``config.eval.protocols``; see ``results_folder``.
      baseline: workdir of a run evaluated in the same way, for effective robustness.

    Returns:
      The results, as written: None stands for a value that is not finite.

    Raises:
      WorkdirError, CheckpointError, DataError, ConfigError: something needed is missing or corrupt.
    """
    path = pathlib.Path(workdir)
    experiment = open_run(path, split)
    conditions = conditions_of(experiment, protocols)
    other = None if baseline is None else _baseline(experiment, baseline, split, protocols, conditions)
    step, params = restore_best(experiment, path)
    score = pretrained_scores if experiment.method.contrastive else scored_run
    results = {
        "schema": 1,
        **score(experiment, params, conditions),
        "checkpoint": {"step": step, "selected_by": f"validation {experiment.settings.train.select_by}"},
        "versions": _versions(),
        "config": json.loads(experiment.config.to_json()),
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
    """What :func:`evaluate` wrote for this checkpoint and these library versions; evaluates if there is none.

    Args:
      workdir: a directory made by training.
      step: step of its best checkpoint.
      split: as for :func:`evaluate`.

    Raises:
      WorkdirError, CheckpointError, DataError, ConfigError: as for :func:`evaluate`.
    """
    try:
        results = json.loads((results_folder(workdir, split, None) / RESULTS).read_text(encoding="utf-8"))
        if results["checkpoint"]["step"] == step and results["versions"] == _versions():
            return results
    except (OSError, ValueError, KeyError, TypeError):
        pass  # missing or corrupt results are written again
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
    """The baseline's results, which must cover the same examples and conditions."""
    if experiment.method.contrastive:
        raise ConfigError(f"config.task is {experiment.settings.task!r}: a baseline applies only to labelled tasks.")
    settings = experiment.settings.eval
    source = experiment.sources[settings.split]
    expected = {
        "dataset": source.info.name,
        "sha256": source.info.sha256,
        "task": experiment.settings.task,
        "split": settings.split,
        "num_examples": len(source),
        "noise_seed": settings.noise_seed,
        "conditions": [condition.name for condition in conditions],
    }
    return read_baseline(workdir, split, protocols, expected)


def _finite(tree: Any) -> Any:
    """Replaces NaN and infinity, which JSON lacks, by None."""
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    if isinstance(tree, float) and not np.isfinite(tree):
        return None
    return tree
