"""The path of strengths of C3R in a study: its table, what each rule chooses from validation rows, and its figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from c3r_jax.metrics.strength_rules import RULES, choose_strength
from c3r_jax.report.cells import Table
from c3r_jax.report.path_figures import draw_paths
from c3r_jax.sweep.grid import C3R_STRENGTH
from c3r_jax.sweep.tables import WITHOUT_BROKEN, Record, Z, finite, not_finite, stat_of

ORACLE = "oracle"
COLUMNS = {  # of the path's table: {title: the name of its unit in tables}
    "validation": "accuracy",
    "balanced, validation": "accuracy",
    "accuracy without the instrument": "accuracy",
    "C3 risk": "C3 risk",
    "same": "accuracy",
    "shift": "accuracy",
}
FIGURES = {  # that rules read: the column that each is in
    "accuracy": "validation",
    "balanced_accuracy": "balanced, validation",
    "expert_accuracy": "accuracy without the instrument",
    "c3_risk": "C3 risk",
}


def has_path(records: Sequence[Record]) -> bool:
    """Whether any cell was trained with several strengths of C3R."""
    return len({r["weights"][C3R_STRENGTH] for r in records if C3R_STRENGTH in r["weights"]}) > 1


def path_table(records: Sequence[Record], world: str) -> Table:
    """One world's path: scores of validation rows and of both tests, by strength.

    Args:
      records: records of the study; those without a strength of C3R in their weights are left out.
      world: the structural model.

    Returns:
      A :class:`Table`, shares in %, mean and standard deviation over seeds.
    """
    by_strength: dict[float, list[Record]] = {}
    for record in _path(records, world):
        by_strength.setdefault(record["weights"][C3R_STRENGTH], []).append(record)
    rows = []
    for strength, found in sorted(by_strength.items()):
        scores = [_scores(record) for record in finite(found)]
        stats = (stat_of([s[c] for s in scores], metric) for c, metric in COLUMNS.items())
        rows.append((f"{strength:g}{not_finite(found)}", *stats))
    seeds = {record["seed"] for record in _path(records, world)}
    notes = (
        f"World {world}, {len(seeds)} seeds; shares in %, mean ± standard deviation. Strength 0 is plain training. "
        "Accuracy without the instrument: that of the experts of the learned representations, what each modality says "
        "of the label beyond what the others explain of it. All but the last two columns are of validation rows."
        + WITHOUT_BROKEN,
    )
    return Table(("strength", *COLUMNS), tuple(rows), notes=notes)


def rules_table(records: Sequence[Record], world: str, *, rows: int) -> Table:
    """What each rule chooses from the validation rows of each seed, and the accuracy there and under shift.

    Args:
      records: records of the study.
      world: the structural model.
      rows: validation rows of a seed, which give the standard errors of shares of them.

    Returns:
      A :class:`Table`; the oracle, which looks at the shifted test, is the last row and marked as no valid rule.
    """
    found = []
    for rule, chosen in choices(records, world, rows=rows).items():
        scores = [_scores(record) for record in chosen]
        name = f"{rule} (looks at the shifted test: not a valid rule)" if rule == ORACLE else rule
        strengths = ", ".join(f"{record['weights'][C3R_STRENGTH]:g}" for record in chosen)
        stats = (stat_of([s[test] for s in scores]) for test in ("validation", "same", "shift"))
        found.append((name, strengths, *stats))
    notes = (
        f"World {world}: every seed is a data set of its own, whose {rows} validation rows choose. Accuracy in %, "
        "mean ± standard deviation over seeds. Rules that need groups are left out: these rows have none.",
    )
    return Table(("rule", "strength, by seed", "validation", "same", "shift"), tuple(found), notes=notes)


def choices(records: Sequence[Record], world: str, *, rows: int) -> dict[str, list[Record]]:
    """{rule: the record it chooses for each seed that has a finite one}; rules without groups, and the oracle.

    Args:
      records: records of the study.
      world: the structural model.
      rows: validation rows of a seed.
    """
    by_seed: dict[int, list[Record]] = {}
    for record in _path(records, world):
        by_seed.setdefault(record["seed"], []).append(record)
    chosen: dict[str, list[Record]] = {name: [] for name, rule in RULES.items() if not rule.groups}
    chosen[ORACLE] = []
    for _, all_runs in sorted(by_seed.items()):
        runs = finite(all_runs)
        if not runs:
            continue
        scores = [_scores(run) for run in runs]
        figures = {name: np.array([score[column] for score in scores]) for name, column in FIGURES.items()}
        strengths = [run["weights"][C3R_STRENGTH] for run in runs]
        shares = {rule.figure: figures[rule.figure] for rule in RULES.values() if rule.tolerated}
        errors = {name: np.sqrt(share * (1 - share) / rows) for name, share in shares.items()}
        for rule in chosen:
            if rule == ORACLE:
                best = max(range(len(runs)), key=lambda i: scores[i]["shift"])
            else:
                best = choose_strength(rule, strengths, figures, errors)
            chosen[rule].append(runs[best])
    return chosen


def path_figure(records: Sequence[Record], worlds: Sequence[str], path: str | Path, *, rows: int) -> Path:
    """Draws the path of every world; of each rule's choices over seeds the middle one is marked.

    Args:
      records: records of the study.
      worlds: the structural models, one row of panels each.
      path: the PNG file to write.
      rows: validation rows of a seed.
    """
    tables, marked = {}, {}
    for world in worlds:
        runs = finite(_path(records, world))
        scores = [_scores(run) for run in runs]
        tables[world] = {
            "strength": [run["weights"][C3R_STRENGTH] for run in runs],
            **{name: [score[column] for score in scores] for name, column in FIGURES.items()},
            "shift": [score["shift"] for score in scores],
        }
        marked[world] = {}
        for rule, chosen in choices(records, world, rows=rows).items():
            strengths = sorted(run["weights"][C3R_STRENGTH] for run in chosen)
            if not strengths:
                continue
            name = f"{ORACLE}, not a valid rule" if rule == ORACLE else rule
            marked[world][name] = strengths[(len(strengths) - 1) // 2]
    return draw_paths(tables, marked, path, runs="seeds")


def _path(records: Sequence[Record], world: str) -> list[Record]:
    return [record for record in records if record["world"] == world and C3R_STRENGTH in record["weights"]]


def _scores(record: Record) -> Mapping[str, float]:
    """The columns of :data:`COLUMNS`."""
    accuracy = record["accuracy"][Z]
    return {
        "validation": accuracy["validation"],
        "balanced, validation": record["balanced_accuracy"],
        "accuracy without the instrument": record["expert_accuracy"],
        "C3 risk": record["risk"]["total"],
        "same": accuracy["same"],
        "shift": accuracy["shift"],
    }
