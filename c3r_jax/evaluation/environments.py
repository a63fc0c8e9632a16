"""Scores by environment: how a run does for each subject, author or site, and where it does worst."""

from typing import Any

import numpy as np

from c3r_jax.data.source import UNKNOWN, environments_of
from c3r_jax.experiments.experiment import Experiment
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.metrics.scores import score_of
from c3r_jax.models.branches import Branches


def environment_report(
    experiment: Experiment, split: str, branches: Branches, labels: np.ndarray, routes: tuple[str, ...] = ROUTES
) -> dict[str, Any] | None:
    """Scores of a split by environment, with every modality that an example has.

    Args:
      experiment: the run, of a task that is scored in memory.
      split: name of the split.
      branches: outputs (n, K) by route of all its examples, in their order.
      labels: (n, ...).
      routes: routes that are scored.

    Returns:
      {"column", "unknown" (examples without environment), "least" (``config.eval.environment_size``), "routes": {route:
      {"each": {environment: {"examples", score: value}}, "worst": {score: {"name", "value"}}}}}. Only environments with
      at least that many examples can be the worst; all can, if none has. None where environments are not known.
    """
    source = experiment.sources[split]
    ids = environments_of(source)
    if ids is None or not (ids != UNKNOWN).any():
        return None
    method, settings = experiment.method, experiment.settings.eval
    options = {"tolerance": method.target.tolerance, "num_bins": settings.num_bins}
    found = {}
    for route in routes:
        each = {}
        for number in np.unique(ids[ids != UNKNOWN]):
            rows = ids == number
            scores = method.spec.measure(branches.logits[route][rows], labels[rows], **options)
            each[source.info.environments[number]] = {"examples": int(rows.sum()), **scores}
        found[route] = {"each": each, "worst": worst_of(each, settings.environment_size)}
    return {
        "column": source.info.environment,
        "unknown": int((ids == UNKNOWN).sum()),
        "least": settings.environment_size,
        "routes": found,
    }


def worst_of(each: dict[str, dict[str, Any]], least: int) -> dict[str, dict[str, Any]]:
    """The worst environment by each score, which is the largest value where a lower one is better.

    Args:
      each: {environment: {"examples", score: value}}; scores that do not exist in an environment are NaN.
      least: examples that an environment needs; if none has as many there is no worst one.

    Examples:
      >>> each = {"A": {"examples": 9, "accuracy": 0.5}, "B": {"examples": 8, "accuracy": 0.4}}
      >>> worst_of({**each, "C": {"examples": 1, "accuracy": 0.0}}, 5)
      {'accuracy': {'name': 'B', 'value': 0.4}}
      >>> worst_of(each, 10)
      {}
    """
    large = {name: scores for name, scores in each.items() if scores["examples"] >= least}
    worst = {}
    for score in (name for name in next(iter(each.values())) if name != "examples"):
        values = {name: scores[score] for name, scores in large.items() if np.isfinite(scores[score])}
        if values:
            choose = min if score_of(score).higher else max
            name = choose(values, key=lambda key, values=values: values[key])
            worst[score] = {"name": name, "value": float(values[name])}
    return worst
