"""The tables of a report as data and as Markdown; ``html.py`` writes them as HTML."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from c3r_jax.metrics.intervals import describe
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.metrics.scores import METRIC_NOTES, score_of
from c3r_jax.report.aggregate import Aggregate, Column, Run, compare, ranking
from c3r_jax.report.cells import MISSING, ROUTE_NAMES, Table, metric_name, metric_stat, metric_value, number
from c3r_jax.tasks.classification import CLASSIFICATION
from c3r_jax.tasks.registry import TASKS

RISK_NAMES = {
    "sufficiency": "sufficiency risk R_S",
    "necessity": "necessity risk R_N",
    "total": "C3 risk R_S + R_N",
    "lower": "C3, lower bound",
    "upper": "C3, upper bound",
    "joint": "C3 of this predictor (joint)",
    "label_probability": "mean p_y(z_bar)",
    "probe_accuracy": "accuracy of a fresh probe on z_bar",
    "chance": "chance",
}
BOLD_RULE = (
    "Bold: the best mean of the column, where at least three seeds are shared with the second best and the 95 % t "
    "interval of the paired gain over it excludes 0. No correction for the number of columns."
)


def shown_columns(aggregated: Aggregate) -> list[Column]:
    """The columns of a table: only the middle and the last level if a protocol has more than five."""
    levels: dict[str, list[float]] = {}
    for column in aggregated.columns:
        levels.setdefault(column.group, []).append(column.level)

    def is_shown(column: Column) -> bool:
        ordered = sorted(levels[column.group])
        few = len(ordered) <= 5
        return column.level == 0 or few or column.level in (ordered[(len(ordered) - 1) // 2], ordered[-1])

    return [column for column in aggregated.columns if is_shown(column)]


def results_table(aggregated: Aggregate, *, route: str = "representation") -> Table:
    """Methods by conditions: mean and sd over seeds, the best in bold by :data:`BOLD_RULE`."""
    columns = shown_columns(aggregated)
    rows = []
    for method in aggregated.methods:
        cells = [metric_stat(aggregated.stat(method, c.name, route=route), aggregated.metric) for c in columns]
        if any(c != MISSING for c in cells):
            rows.append((method, str(len(aggregated.seeds(method))), *cells))
    names = [row[0] for row in rows]
    bold = set()
    for j, column in enumerate(columns):
        best = _clear_best(aggregated, column.name, route)
        if best is not None:
            bold.add((names.index(best), j + 2))
    return Table(
        ("method", "seeds", *(c.label for c in columns)), tuple(rows), frozenset(bold), _notes(aggregated, route)
    )


def routes_table(aggregated: Aggregate) -> Table:
    """Both prediction routes side by side, one row per method and route."""
    rows, columns = [], shown_columns(aggregated)
    for method in aggregated.methods:
        for route in aggregated.routes:
            cells = [metric_stat(aggregated.stat(method, c.name, route=route), aggregated.metric) for c in columns]
            if any(c != MISSING for c in cells):
                rows.append((method, ROUTE_NAMES[route], *cells))
    note = (
        "Route: predict(z) from the fused representation, or predict(z_c) from the part of it that the other "
        "modalities explain. With one modality present z_c stands for what that modality predicts of the others."
    )
    return Table(("method", "route", *(c.label for c in columns)), tuple(rows), notes=(note,))


def conditions_table(run: Run) -> Table:
    """One run: accuracy, macro-F1, NLL and ECE of every condition and route."""
    metrics = list(dict.fromkeys(m for c in run["conditions"] for v in c["routes"].values() for m in v))
    rows = []
    for condition in run["conditions"]:
        for route in ROUTES:
            measured = condition["routes"].get(route)
            if measured is not None:
                cells = (metric_value(measured.get(m), m) for m in metrics)
                rows.append((str(condition["name"]), ROUTE_NAMES[route], *cells))
    notes = [text for name, text in METRIC_NOTES.items() if name in metrics]
    task = TASKS.get(str(run.get("task")), CLASSIFICATION)  # results of before there were tasks are of classes
    if task.accuracy_is:
        notes.append(f"Accuracy: {task.accuracy_is}.")
    return Table(
        ("condition", "route", *map(metric_name, metrics)), tuple(rows), notes=(" ".join(notes),) if notes else ()
    )


def robustness_table(run: Run) -> Table:
    """One run: mean, worst, relative and effective robustness of every group of conditions and route."""
    rows = []
    for route, groups in (run.get("robustness") or {}).items():
        for group, v in groups.items():
            cells = (metric_value(v.get(key), v["metric"]) for key in ("mean", "worst"))
            more = (metric_value(v.get(key), v["metric"]) for key in ("relative", "effective"))
            rows.append((group.replace("_", " "), ROUTE_NAMES[route], *cells, str(v["worst_condition"]), *more))
    metric = next(
        (v["metric"] for groups in (run.get("robustness") or {}).values() for v in groups.values()), "accuracy"
    )
    baseline = run.get("baseline")
    note = (
        f"{metric_name(metric)}; clean is the first level of every "
        "protocol. Relative: area under the curve over the levels, from 0 (clean) to 1 (the largest). Effective: what "
        "is kept beyond a baseline brought to the same clean value, summed over the levels"
    )
    note += f"; the baseline is {baseline['method']}, seed {baseline['seed']}." if baseline else "; no baseline given."
    return Table(
        ("protocol", "route", "mean", "worst", "worst condition", "relative", "effective"), tuple(rows), notes=(note,)
    )


def per_class_table(run: Run, *, route: str = "representation") -> Table:
    """One run: precision, recall, F1 and support of every class."""
    found = (run.get("per_class") or {}).get(route) or {}
    rows = tuple(
        (
            str(name),
            *(metric_value(v.get(k), "accuracy") for k in ("precision", "recall", "f1")),
            number(v.get("support"), digits=0),
        )
        for name, v in found.items()
    )
    worst = (run.get("worst_class") or {}).get(route)
    notes = ()
    if worst and worst.get("name") is not None:
        notes = (f"Lowest recall: {worst['name']}, {metric_value(worst.get('recall'), 'accuracy')} %.",)
    return Table(("class", "precision, %", "recall, %", "F1, %", "examples"), rows, notes=notes)


def environments_table(run: Run) -> Table:
    """One run: its headline score in every environment, by route, the worst first; those of few examples come last."""
    found = run.get("environments") or {}
    routes, metric = found.get("routes") or {}, str(run.get("metric") or "accuracy")
    if not routes:
        return Table(("environment",), ())
    first = next(iter(routes))
    sign = 1 if score_of(metric).higher else -1

    def order(name: str) -> tuple[bool, float]:
        row = routes[first]["each"][name]
        value = row.get(metric)
        return row["examples"] < found["least"], math.inf if value is None else sign * value

    rows = tuple(
        (
            name,
            *(metric_value(routes[route]["each"][name].get(metric), metric) for route in routes),
            number(routes[first]["each"][name]["examples"], digits=0),
        )
        for name in sorted(routes[first]["each"], key=order)
    )
    worst = {route: (routes[route].get("worst") or {}).get(metric) for route in routes}
    said = [f"{route}: {w['name']}, {metric_value(w['value'], metric)}" for route, w in worst.items() if w]
    few = f"No environment has {found['least']} examples, so that none is called the worst."
    notes = [f"Worst, of environments with at least {found['least']} examples: {'; '.join(said)}." if said else few]
    if found.get("unknown"):
        notes.append(f"{found['unknown']} examples have no known {found['column']}.")
    header = (str(found["column"]), *(f"{metric_name(metric)}, {route}" for route in routes), "examples")
    return Table(header, rows, notes=tuple(notes))


def risks_table(runs: Sequence[Run]) -> Table:
    """Risks by method, mean and sd over seeds; a single run of a method shows its intervals instead."""
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        if run.get("risk"):
            by_method.setdefault(str(run["method"]), []).append(run["risk"])
    keys = [k for k in RISK_NAMES if any(risk.get(k) is not None for risks in by_method.values() for risk in risks)]
    rows = []
    for key in keys:
        rows.append((RISK_NAMES[key], *(_risk_cell(risks, key) for risks in by_method.values())))
    return Table(
        ("", *by_method),
        tuple(rows),
        notes=("± is the standard deviation over seeds; [a, b] the interval of a single run.",) if rows else (),
    )


def first_stage_table(run: Run) -> Table:
    """One run: how well the other modalities predict each modality, and what speaks against them as an instrument."""
    rows = []
    for name, v in (run.get("first_stage") or {}).items():
        over = v.get("over_identification") or {}
        statistic, dof = number(over.get("statistic"), digits=1), number(over.get("dof"), digits=0)
        test = f"{statistic} on {dof}, p {number(over.get('p_value'))}"
        rows.append(
            (
                str(name),
                number(v.get("r2_mean")),
                number(v.get("f_median"), digits=1),
                number(v.get("n"), digits=0),
                number(v.get("p"), digits=0),
                "weak" if v.get("weak") else "not weak",
                test if over else MISSING,
                _with_interval(v.get("exclusion") or {}),
            )
        )
    return Table(
        (
            "modality",
            "R², mean",
            "F, median",
            "rows",
            "instruments",
            "F against 10",
            "over-identification J",
            "shared errors ρ",
        ),
        tuple(rows),
    )


def _with_interval(shared: Mapping[str, Any]) -> str:
    if shared.get("rho") is None:
        return MISSING
    return f"{number(shared['rho'])} [{number(shared.get('low'))}, {number(shared.get('high'))}]"


def _risk_cell(risks: Sequence[Mapping[str, Any]], key: str) -> str:
    found = [float(r[key]) for r in risks if r.get(key) is not None and math.isfinite(float(r[key]))]
    if not found:
        return MISSING
    stat = describe(found)
    if stat.n > 1:
        return f"{number(stat.mean)} ± {number(stat.sd)}"
    interval = (risks[0].get("intervals") or {}).get(key) if len(risks) == 1 else None
    return number(stat.mean) + (f" [{number(interval[0])}, {number(interval[1])}]" if interval else "")


def _clear_best(aggregated: Aggregate, column: str, route: str) -> str | None:
    """The method that :data:`BOLD_RULE` puts in bold, if any."""
    order = ranking(aggregated, column, route=route)
    if len(order) < 2:
        return None
    gain = compare(aggregated, order[0], order[1], column=column, route=route)
    return order[0] if gain is not None and gain.decided and aggregated.sign * gain.mean > 0 else None


def _notes(aggregated: Aggregate, route: str) -> tuple[str, ...]:
    name, percent, _ = score_of(aggregated.metric)
    what = (
        f"{name[0].upper()}{name[1:]}{' in %' if percent else ''} on {aggregated.num_examples} {aggregated.split} "
        f"examples of {aggregated.dataset}, route {ROUTE_NAMES[route]}; mean ± standard deviation over seeds. Mean "
        "and worst are taken over the conditions of each run first, then averaged over seeds."
    )
    if len(shown_columns(aggregated)) < len(aggregated.columns):
        return what, "For protocols with more than five levels, the middle and the last level are shown.", BOLD_RULE
    return what, BOLD_RULE
