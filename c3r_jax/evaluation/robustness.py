"""Robustness of a run over the levels of each protocol: mean, worst, relative and effective."""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.integrate import trapezoid

from c3r_jax.errors import WorkdirError
from c3r_jax.experiments.workdir import RESULTS

Row = Mapping[str, Any]


def relative_robustness(levels: Sequence[float], values: Sequence[float]) -> float:
    """Area under the curve of performance against imperfection, by the trapezoidal rule.

    Imperfection is the level over the largest level, from 0 (clean) to 1, so that the area is the mean performance.

    Args:
      levels: increasing, starting at 0.
      values: performance at each level.

    Examples:
      >>> relative_robustness([0, 5, 10], [0.9, 0.7, 0.1])
      0.6

    References:
      Liang et al., MultiBench: Multiscale Benchmarks for Multimodal Representation Learning, NeurIPS 2021.
    """
    x = np.asarray(levels, np.float64)
    return float(trapezoid(np.asarray(values, np.float64), x / x[-1]))


def effective_robustness(values: Sequence[float], baseline: Sequence[float]) -> float:
    """Performance beyond that of a baseline with the same clean performance, summed over the levels.

    sum_i v_i - (b_i + v_0 - b_0): the loss of performance that the baseline has and the run avoids.

    Args:
      values: performance at each level, the clean one first.
      baseline: the baseline's performance at the same levels.

    Examples:
      >>> round(effective_robustness([0.9, 0.7, 0.1], [0.8, 0.5, 0.2]), 6)
      -0.1

    References:
      Liang et al., MultiBench: Multiscale Benchmarks for Multimodal Representation Learning, NeurIPS 2021.
    """
    f, b = np.asarray(values, np.float64), np.asarray(baseline, np.float64)
    return float(np.sum(f - (b + (f[0] - b[0]))))


def robustness_report(
    rows: Iterable[Row],
    baseline: Iterable[Row] | None = None,
    *,
    metric: str = "accuracy",
    lower_is_better: bool = False,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Scores of every group of conditions (a protocol's Gaussian noise, its salt, ...), clean being its level 0.

    Args:
      rows: the conditions of a run, clean first; see ``results.json``.
      baseline: the conditions of another run, at least the same ones.
      metric: the score's key.
      lower_is_better: whether the worst value is the largest; "effective" changes its sign, so that more is better.

    Returns:
      {route: {group: {"metric", "conditions", "levels", "values", "mean", "worst", "worst_condition", "relative",
      "effective"}}}; "relative" is None where conditions have no level, "effective" without a baseline.
    """
    rows = list(rows)
    clean = rows[0]
    theirs = {row["name"]: row for row in baseline} if baseline is not None else None
    report: dict[str, dict[str, dict[str, Any]]] = {}
    for route in clean["routes"]:
        report[route] = {}
        for group in dict.fromkeys(row["group"] for row in rows[1:]):
            curve = [clean, *(row for row in rows[1:] if row["group"] == group)]
            levels, values = [row["level"] for row in curve], [row["routes"][route][metric] for row in curve]
            worst = int(np.argmax(values) if lower_is_better else np.argmin(values))
            effective = None
            if theirs is not None:
                other = [theirs[row["name"]]["routes"][route][metric] for row in curve]
                effective = effective_robustness(values, other) * (-1 if lower_is_better else 1)
            report[route][group] = {
                "metric": metric,
                "conditions": [row["name"] for row in curve],
                "levels": levels,
                "values": values,
                "mean": float(np.mean(values)),
                "worst": values[worst],
                "worst_condition": curve[worst]["name"],
                "relative": relative_robustness(levels, values) if levels[-1] > 0 else None,
                "effective": effective,
            }
    return report


def results_folder(workdir: str | os.PathLike[str], split: str | None, protocols: Sequence[str] | None) -> pathlib.Path:
    """Where results go: the workdir, ``SPLIT/`` in it for another split, ``protocols/NAME+NAME/`` for named protocols.

    Examples:
      >>> results_folder("run", "shift", ["official", "missing"]).as_posix()
      'run/shift/protocols/official+missing'
    """
    path = pathlib.Path(workdir) / (split or "")
    return path / "protocols" / "+".join(protocols) if protocols else path


def read_baseline(
    workdir: str | os.PathLike[str], split: str | None, protocols: Sequence[str] | None, expected: Mapping[str, Any]
) -> dict[str, Any]:
    """Reads the results of a baseline, evaluated in the same way.

    Args:
      workdir: the baseline's workdir.
      split: as for ``evaluate``.
      protocols: as for ``evaluate``.
      expected: "dataset", "sha256" of its data, "task", "split", "num_examples", "noise_seed" and the "conditions" it
        must have.

    Raises:
      WorkdirError: it was not evaluated, or not in the same way.
    """
    path = results_folder(workdir, split, protocols) / RESULTS
    more = (f" --split={split}" if split else "") + (f" --protocol={','.join(protocols)}" if protocols else "")
    remedy = f"evaluate it first, by python -m c3r_jax eval --workdir={workdir}{more}"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        actual = {name: results[name] for name in ("dataset", "split", "num_examples")}
        actual |= {name: results[name] for name in ("task", "sha256") if name in results}
        actual["noise_seed"] = results["config"]["eval"]["noise_seed"]
        names = {row.get("name") for row in results["conditions"]}  # of pretraining they have none
    except FileNotFoundError:
        raise WorkdirError(f"The baseline has no {path}: {remedy}.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkdirError(f"{path} cannot be read ({type(error).__name__}: {error}): {remedy}.") from error
    wrong = {name: (value, expected[name]) for name, value in actual.items() if value != expected[name]}
    absent = [name for name in expected["conditions"] if name not in names]
    if wrong or absent:
        problem = f"differs in (baseline, here) {wrong}" if wrong else f"lacks the conditions {', '.join(absent[:3])}"
        raise WorkdirError(f"The baseline {path} {problem}: {remedy}, on the same data and noise seed.")
    return results
