"""Aggregates results of single runs: means, standard deviations and paired intervals over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from c3r_jax.metrics.intervals import Difference, Stat, describe, t_interval
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.metrics.scores import score_of

Run = Mapping[str, Any]

SUMMARY_COLUMNS = ("mean", "worst")
_GROUP_ORDER = ("clean", "modality_subset", "gaussian", "salt")


class Column(NamedTuple):
    """One evaluation condition, or one of the two summaries over conditions ("mean", "worst")."""

    name: str
    group: str
    level: float
    modalities: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class Aggregate:
    """Runs of one data set by method.

    Attributes:
      dataset: name of the data set.
      split: the evaluated split.
      num_examples: number of examples in the split.
      metric: the metric of the values.
      methods: names of the methods, in order of first appearance.
      routes: the prediction routes that at least one run has.
      columns: clean, modality subsets, noise levels, then "mean" and "worst" over all conditions.
      values: (method, route) -> column name -> seed -> value; missing values are omitted.
    """

    dataset: str
    split: str
    num_examples: int
    metric: str
    methods: tuple[str, ...]
    routes: tuple[str, ...]
    columns: tuple[Column, ...]
    values: Mapping[tuple[str, str], Mapping[str, Mapping[int, float]]]

    @property
    def sign(self) -> int:
        """+1 where a higher value is better, -1 where a lower one is."""
        return 1 if score_of(self.metric).higher else -1

    def seeds(self, method: str) -> tuple[int, ...]:
        """The sorted seeds of a method."""
        seeds = {s for r in self.routes for column in self.values.get((method, r), {}).values() for s in column}
        return tuple(sorted(seeds))

    def stat(self, method: str, column: str, *, route: str = "representation") -> Stat | None:
        """Mean, sd and n of one cell; None if it has no finite value."""
        cell = self.values.get((method, route), {}).get(column, {})
        finite = [v for v in cell.values() if math.isfinite(v)]
        return describe(finite) if finite else None

    def column(self, name: str) -> Column:
        """The column with this name."""
        for column in self.columns:
            if column.name == name:
                return column
        raise ValueError(f"No column {name!r}: expected one of {', '.join(c.name for c in self.columns)}.")


def column_label(condition: Mapping[str, Any]) -> str:
    """The heading of a condition's column.

    Examples:
      >>> column_label({"name": "g5", "group": "gaussian", "level": 5.0})
      'Gaussian 5'
    """
    group = condition.get("group")
    if group == "modality_subset":
        modalities = condition.get("modalities") or ()
        return f"{' + '.join(modalities)} only" if modalities else str(condition["name"])
    if group in ("gaussian", "salt"):
        return f"{'Gaussian' if group == 'gaussian' else 'salt'} {condition.get('level', 0.0):g}"
    return str(condition["name"])


def aggregate(runs: Sequence[Run], *, metric: str | None = None) -> Aggregate:
    """Groups runs by method.

    "mean" and "worst" are over the conditions of a run, and are taken from its summary if it has them.

    Args:
      runs: results of single runs on one data set and split, each (method, seed) at most once.
      metric: a key of the per-route values, see ``c3r_jax.metrics.scores``; None: the headline of the runs' task.

    Returns:
      The :class:`Aggregate`.

    Raises:
      ValueError: no runs, different data sets or splits, or a repeated (method, seed).
    """
    if not runs:
        raise ValueError("aggregate() got no runs; at least one results.json was expected.")
    metric = str(runs[0].get("metric", "accuracy")) if metric is None else metric
    for key in ("dataset", "split", "num_examples"):
        found = sorted({str(run.get(key)) for run in runs})
        if len(found) > 1:
            raise ValueError(f"The runs differ in {key} ({', '.join(found)}): aggregate each alone.")
    values: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    conditions: dict[str, Mapping[str, Any]] = {}
    seen: set[tuple[str, int]] = set()
    for run in runs:
        method, seed = str(run["method"]), int(run["seed"])
        if (method, seed) in seen:
            raise ValueError(f"Method {method!r} has seed {seed} twice: give each run its own method name or seed.")
        seen.add((method, seed))
        for condition in run["conditions"]:
            conditions.setdefault(condition["name"], condition)
            for route, scores in condition["routes"].items():
                if scores.get(metric) is not None:
                    cell = values.setdefault((method, route), {}).setdefault(condition["name"], {})
                    cell[seed] = float(scores[metric])
        for route in {r for c in run["conditions"] for r in c["routes"]}:
            for name, value in _summary(run, route, metric).items():
                values.setdefault((method, route), {}).setdefault(name, {})[seed] = value
    first = runs[0]
    return Aggregate(
        dataset=str(first["dataset"]),
        split=str(first["split"]),
        num_examples=int(first["num_examples"]),
        metric=metric,
        methods=tuple(dict.fromkeys(str(run["method"]) for run in runs)),
        routes=tuple(r for r in ROUTES if any(route == r for _, route in values)),
        columns=_columns(conditions),
        values=values,
    )


def compare(
    aggregated: Aggregate,
    method: str,
    baseline: str,
    *,
    column: str = "mean",
    route: str = "representation",
    baseline_route: str | None = None,
    level: float = 0.95,
) -> Difference | None:
    """Mean of method minus baseline over shared seeds, with a t interval; None if they share no seed.

    Pairing removes what the two runs of a seed have in common. The interval covers the randomness of training over
    seeds, on one fixed set of examples.
    """
    ours = aggregated.values.get((method, route), {}).get(column, {})
    theirs = aggregated.values.get((baseline, baseline_route or route), {}).get(column, {})
    shared = [s for s in sorted(ours.keys() & theirs.keys()) if math.isfinite(ours[s]) and math.isfinite(theirs[s])]
    return t_interval([ours[s] - theirs[s] for s in shared], level=level) if shared else None


def ranking(aggregated: Aggregate, column: str, *, route: str = "representation") -> list[str]:
    """Methods from best to worst mean; ties keep their order of appearance."""
    found = [(m, aggregated.stat(m, column, route=route)) for m in aggregated.methods]
    return [m for m, s in sorted(((m, s) for m, s in found if s), key=lambda ms: -aggregated.sign * ms[1].mean)]


def _summary(run: Run, route: str, metric: str) -> dict[str, float]:
    """The mean and the worst value over conditions of one run and route."""
    summary = (run.get("summary") or {}).get(route) or {}
    names = {column: f"{column}_{metric}" for column in SUMMARY_COLUMNS}
    if all(summary.get(name) is not None for name in names.values()):
        return {column: float(summary[name]) for column, name in names.items()}
    values = [c["routes"].get(route, {}).get(metric) for c in run["conditions"]]
    finite = [float(v) for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return {}
    worst = min(finite) if score_of(metric).higher else max(finite)
    return {"mean": math.fsum(finite) / len(finite), "worst": worst}


def _columns(conditions: Mapping[str, Mapping[str, Any]]) -> tuple[Column, ...]:
    def rank(condition: Mapping[str, Any]) -> tuple[int, str, float]:
        group = condition.get("group", "")
        known = group in _GROUP_ORDER
        order = _GROUP_ORDER.index(group) if known else len(_GROUP_ORDER)
        return order, "" if known else group, float(condition.get("level") or 0.0)

    found = [
        Column(
            str(c["name"]),
            str(c.get("group", "")),
            float(c.get("level") or 0.0),
            tuple(c.get("modalities") or ()),
            column_label(c),
        )
        for c in sorted(conditions.values(), key=rank)
    ]
    return (*found, *(Column(name, "summary", 0.0, (), name) for name in SUMMARY_COLUMNS))
