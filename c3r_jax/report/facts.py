"""What was run, and a whole report as data: the same content as the page and the Markdown."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from c3r_jax.report.explained import explain
from c3r_jax.report.stats import Aggregate, Run
from c3r_jax.report.tables import (
    Table,
    conditions_table,
    first_stage_table,
    per_class_table,
    results_table,
    risks_table,
    robustness_table,
    routes_table,
)
from c3r_jax.report.words import read_first_stage, read_risks, what_it_means


def what_was_run(aggregated: Aggregate, runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Names and values: data, classes, modalities, seeds, how checkpoints were chosen, versions."""
    seeds = "; ".join(f"{m}: {', '.join(map(str, aggregated.seeds(m)))}" for m in aggregated.methods)
    classes = runs[0].get("class_names") or []
    chosen = sorted({str((run.get("checkpoint") or {}).get("selected_by")) for run in runs} - {"None"})
    versions = runs[0].get("versions") or {}
    rows = [
        ("data set", f"{aggregated.dataset}, {aggregated.split} split, {aggregated.num_examples} examples"),
        ("classes", f"{len(classes)}: {', '.join(map(str, classes))}" if classes else ""),
        ("modalities", ", ".join(map(str, runs[0].get("modalities") or []))),
        ("seeds by method", seeds),
        ("checkpoints chosen by", ", ".join(chosen)),
        ("versions", ", ".join(f"{k} {v}" for k, v in versions.items())),
    ]
    return [(name, value) for name, value in rows if value]


def settings(run: Run) -> list[tuple[str, str]]:
    """Leaves of a run's configuration with their values."""
    config = run.get("config") or {}
    return [(k, v if isinstance(v, str) else json.dumps(v, default=str)) for k, v in flatten(config)]


def warnings_of(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Every warning, with the runs that gave it."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for text in run.get("warnings") or []:
            found.setdefault(str(text), []).append(f"{run['method']}, seed {run['seed']}")
    return found


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Leaves of a nested mapping under dotted names.

    Examples:
      >>> flatten({"a": {"b": 1}, "c": [2]})
      [('a.b', 1), ('c', [2])]
    """
    leaves: list[tuple[str, Any]] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        leaves += flatten(value, f"{name}.") if isinstance(value, Mapping) and value else [(name, value)]
    return leaves


def report_data(
    aggregated: Aggregate,
    runs: Sequence[Run],
    *,
    detail: Run,
    captions: Mapping[str, str],
    histories: Mapping[str, Sequence[Any]] | None = None,
    baseline: str | None = None,
    command: str | None = None,
    title: str | None = None,
) -> dict[str, Any]:
    """The report as JSON has it.

    Args:
      aggregated: the runs by method.
      runs: the results that were aggregated.
      detail: the run that is shown in detail.
      captions: of the figures, by name.
      histories: method -> one training history per seed, the numbers behind the curves.
      baseline: method that gains are measured against.
      command: what was typed.
      title: of the report.

    Returns:
      Tables as header, rows and notes; sentences; examples; configuration; histories.
    """
    tables = {
        "results": results_table(aggregated),
        "routes": routes_table(aggregated),
        "risks": risks_table(runs),
        "first stage": first_stage_table(detail),
        "conditions": conditions_table(detail),
        "robustness": robustness_table(detail),
        **{f"classes, {route}": per_class_table(detail, route=route) for route in detail.get("per_class") or {}},
    }
    examples = {
        risk: [{**record, "words": explain(record)} for record in records]
        for risk, records in (detail.get("examples") or {}).items()
    }
    return {
        "schema": 1,
        "title": title or f"C3R on {aggregated.dataset}",
        "command": command or runs[0].get("command"),
        "what was run": dict(what_was_run(aggregated, runs)),
        "what it means": what_it_means(aggregated, baseline=baseline),
        "detail": {"method": detail["method"], "seed": detail["seed"]},
        "tables": {name: _table(table) for name, table in tables.items() if table.rows},
        "risks": read_risks(detail),
        "first stage": read_first_stage(detail),
        "examples": examples,
        "warnings": warnings_of(runs),
        "configuration": detail.get("config") or {},
        "figures": dict(captions),
        "histories": {name: list(found) for name, found in (histories or {}).items()},
    }


def _table(table: Table) -> dict[str, Any]:
    return {"header": table.header, "rows": table.rows, "notes": table.notes}
