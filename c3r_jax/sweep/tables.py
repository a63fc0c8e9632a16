"""Tables of a sweep: selection by a named rule, means over seeds, paired bootstrap intervals."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from c3r_jax.metrics.intervals import bootstrap_interval, describe
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.report.cells import Table, metric_stat

Record = Mapping[str, Any]
Z, Z_C = ROUTES


def finite(records: Iterable[Record]) -> list[Record]:
    """The runs that stayed finite; of the others nothing is known."""
    return [record for record in records if record["finite"]]


def score(record: Record, select_by: str) -> float:
    """The value that selection maximises; a run that became non-finite is never selected.

    Args:
      record: record of one run.
      select_by: "validation_accuracy" (of an experiment: what chose its checkpoint), "validation_risk" (the lowest C3
        risk), or "oracle", which uses the shifted test and therefore is not a valid rule: it shows the largest possible
        gain of selection.
    """
    if not record["finite"]:
        return -np.inf
    if select_by == "validation_accuracy":
        return record["selection"]["value"] if "selection" in record else record["accuracy"][Z]["validation"]
    if select_by == "validation_risk":
        return -record["risk"]["total"]
    return record["accuracy"][Z]["shift"]


def select(records: Sequence[Record], select_by: str) -> list[Record]:
    """Selects, for every world and cell, the weights with the best mean score over seeds."""
    groups: dict[tuple[str, str], dict[str, list[Record]]] = {}
    for record in records:
        groups.setdefault((record["world"], record["cell"]), {}).setdefault(record["label"], []).append(record)
    selected: list[Record] = []
    for candidates in groups.values():
        selected += max(candidates.values(), key=lambda runs: float(np.mean([score(run, select_by) for run in runs])))
    return selected


def selected_runs(
    records: Sequence[Record], world: str, select_by: str, *, by: str = "label"
) -> dict[str, dict[int, Record]]:
    """The selected runs of one world by seed, for every label or cell (``by``)."""
    runs: dict[str, dict[int, Record]] = {}
    for record in select([record for record in records if record["world"] == world], select_by):
        runs.setdefault(record[by], {})[record["seed"]] = record
    return runs


def runs_of_cell(runs: Mapping[str, Mapping[int, Record]], cell: str) -> Mapping[int, Record]:
    """Those of :func:`selected_runs` that are of one cell; empty without it."""
    return next((by_seed for by_seed in runs.values() if next(iter(by_seed.values()))["cell"] == cell), {})


def sweep_table(records: Sequence[Record], world: str, *, baseline: str, select_by: str) -> Table:
    """One world's table: accuracies through z, through z_c under shift, C3 risk, and the gain over the baseline.

    Args:
      records: all records of the sweep.
      world: the structural model.
      baseline: the cell that gains are computed against, by seed.
      select_by: see :func:`score`.

    Returns:
      A :class:`Table`, accuracies in %.
    """
    runs = selected_runs(records, world, select_by)
    base = runs_of_cell(runs, baseline)
    some = next(iter(next(iter(runs.values())).values()))
    tests = [name for name in some["accuracy"][Z] if name != "validation"]
    header = ("cell", *tests, "shift, z_c", "C3 risk", f"gain over {baseline}, shift")
    rows = []
    for label, by_seed in runs.items():
        found = finite(by_seed.values())
        row = [stat_of([r["accuracy"][Z][test] for r in found]) for test in tests]
        row.append(stat_of([r["accuracy"][Z_C]["shift"] for r in found]))
        row.append(stat_of([r["risk"]["total"] for r in found], "C3 risk"))
        row.append("" if by_seed is base else gain(gains_of(base, by_seed, lambda r: r["accuracy"][Z]["shift"])))
        rows.append((label + not_finite(by_seed.values()), *row))
    seeds = sorted({record["seed"] for record in records if record["world"] == world})
    notes = (
        f"World {world}, {len(seeds)} seeds; accuracy in %, mean ± standard deviation. Gains are paired by seed, with "
        "a 95 % bootstrap interval over seeds, which is too narrow with few of them. Validation rows are drawn as "
        f"training rows are. Weights of a cell are selected by {rule_text(select_by, some)}." + WITHOUT_BROKEN,
    )
    return Table(header, tuple(rows), notes=notes)


WITHOUT_BROKEN = " Runs that are not finite are in no figure."


def rule_text(select_by: str, record: Record) -> str:
    """The rule of :func:`score` in words, for one of the records it chooses from."""
    if select_by == "oracle":
        return "the ORACLE, which uses the shifted test: not a valid rule"
    return f"validation {record['selection']['by']}" if "selection" in record else select_by


def not_finite(runs: Collection[Record]) -> str:
    """What a row's label says of runs that are not finite; empty without them."""
    broken = len(runs) - len(finite(runs))
    return f" ({broken} of {len(runs)} runs not finite)" if broken else ""


def stat_of(values: Sequence[float], metric: str = "accuracy") -> str:
    """Mean and standard deviation as text."""
    return metric_stat(describe(values) if values else None, metric)


def gains_of(base: Mapping[int, Record], runs: Mapping[int, Record], value: Callable[[Record], float]) -> list[float]:
    """Differences of runs by seed, in points, where both are finite."""
    known = [seed for seed in sorted(runs.keys() & base.keys()) if runs[seed]["finite"] and base[seed]["finite"]]
    return [100 * (value(runs[seed]) - value(base[seed])) for seed in known]


def gain(gains: Sequence[float]) -> str:
    """Mean of paired gains with its bootstrap interval, as text; empty without any."""
    if not gains:
        return ""
    if len(gains) == 1:
        return f"{gains[0]:+.1f}"
    low, high = bootstrap_interval(gains)
    return f"{np.mean(gains):+.1f} ({low:+.1f} to {high:+.1f})"


def sweep_figure(records: Sequence[Record], worlds: Sequence[str], path: Any, *, select_by: str) -> None:
    """Draws same and shifted accuracy by cell, one panel per world."""
    from matplotlib.figure import Figure

    chosen = select(records, select_by)
    labels = list(dict.fromkeys(record["cell"] for record in chosen))  # worlds may select different weights of a cell
    figure = Figure(figsize=(5.2 * len(worlds) + 1.5, 0.32 * len(labels) + 1.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(worlds), sharey=True))
    places = np.arange(len(labels))
    for panel, world in zip(panels, worlds, strict=True):
        for test, marker, colour, shift in (("same", "o", "#0072B2", -0.12), ("shift", "D", "#D55E00", 0.12)):
            found = [
                [100 * r["accuracy"][Z][test] for r in finite(chosen) if r["world"] == world and r["cell"] == label]
                for label in labels
            ]
            means = [np.mean(values) if values else np.nan for values in found]
            spread = [np.std(values, ddof=1) if len(values) > 1 else 0.0 for values in found]
            panel.errorbar(
                means, places + shift, xerr=spread, fmt=marker, color=colour, label=test, capsize=2, markersize=5
            )
        panel.set(title=world, xlabel="accuracy through z, %", yticks=places)
        panel.set_yticklabels(labels)
        panel.grid(axis="x", alpha=0.4)
    panels[0].invert_yaxis()
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=110)
