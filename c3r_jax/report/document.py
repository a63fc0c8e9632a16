"""The content of a report as data, from which HTML, Markdown and JSON are written."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from c3r_jax.metrics.routes import ROUTES
from c3r_jax.report.aggregate import Aggregate, Run, aggregate
from c3r_jax.report.cells import Table
from c3r_jax.report.examples import Record, explain
from c3r_jax.report.headline import headline
from c3r_jax.report.interpretation import read_first_stage, read_risks, what_it_means
from c3r_jax.report.tables import (
    conditions_table,
    environments_table,
    first_stage_table,
    per_class_table,
    results_table,
    risks_table,
    robustness_table,
    routes_table,
)


def run_overview(aggregated: Aggregate, runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Names and values of what was run: data, classes, modalities, seeds, selection of checkpoints, versions."""
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
    """The leaves of a run's configuration, with their values."""
    config = run.get("config") or {}
    return [(k, v if isinstance(v, str) else json.dumps(v, default=str)) for k, v in flatten(config)]


def warnings_of(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Every warning, with the runs that have it."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for text in run.get("warnings") or []:
            found.setdefault(str(text), []).append(f"{run['method']}, seed {run['seed']}")
    return found


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of a nested mapping, under dotted names.

    Examples:
      >>> flatten({"a": {"b": 1}, "c": [2]})
      [('a.b', 1), ('c', [2])]
    """
    leaves: list[tuple[str, Any]] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        leaves += flatten(value, f"{name}.") if isinstance(value, Mapping) and value else [(name, value)]
    return leaves


class Report(NamedTuple):
    """The content of a report, which is written as HTML, Markdown and JSON.

    Attributes:
      title, command: title of the report, and the command that made it.
      headline: what was compared, who is ahead and by how much.
      overview: names and values of what was run.
      meaning: sentences about all methods.
      tables: tables by name, without empty ones.
      detail: the run that is shown in detail.
      risks, first_stage: sentences about that run.
      examples: examples of that run, by risk.
      warnings: every warning, with the runs that have it.
    """

    title: str
    command: str | None
    headline: str
    overview: list[tuple[str, str]]
    meaning: list[str]
    tables: dict[str, Table]
    detail: Run
    risks: list[str]
    first_stage: list[str]
    examples: Mapping[str, Sequence[Record]]
    warnings: dict[str, list[str]]

    @property
    def run_name(self) -> str:
        """Method and seed of the run that is shown in detail."""
        return f"{self.detail['method']}, seed {self.detail['seed']}"


def assemble(
    runs: Sequence[Run],
    *,
    aggregated: Aggregate | None = None,
    detail: Run | None = None,
    baseline: str | None = None,
    route: str = ROUTES[0],
    command: str | None = None,
    title: str | None = None,
) -> Report:
    """Collects the content of a report.

    Args:
      runs: results of single runs on one data set.
      aggregated: the same runs by method, if they were aggregated already.
      detail: the run whose conditions, classes, risks and first stage are shown; the first run if not given.
      baseline: method that gains are computed against; the first if not given.
      route: prediction route of the results table and its interpretation.
      command: the command line; that of the first run if not given.
      title: title of the report.

    Returns:
      The :class:`Report`.
    """
    aggregated = aggregate(runs) if aggregated is None else aggregated
    detail = runs[0] if detail is None else detail
    tables = {"results": results_table(aggregated, route=route), "risks": risks_table(runs), **detail_tables(detail)}
    if len(aggregated.routes) > 1:
        tables["routes"] = routes_table(aggregated)
    return Report(
        title or f"C3R on {aggregated.dataset}",
        command or runs[0].get("command"),
        headline(aggregated, route=route),
        run_overview(aggregated, runs),
        what_it_means(aggregated, baseline=baseline, route=route),
        {name: table for name, table in tables.items() if table.rows},
        detail,
        read_risks(detail),
        read_first_stage(detail),
        detail.get("examples") or {},
        warnings_of(runs),
    )


def detail_tables(run: Run) -> dict[str, Table]:
    """The tables of one run in the order of display, without empty ones."""
    tables = {"conditions": conditions_table(run), "robustness": robustness_table(run)}
    tables |= {f"classes, route {route}": per_class_table(run, route=route) for route in run.get("per_class") or {}}
    tables["environments"] = environments_table(run)
    tables["first stage"] = first_stage_table(run)
    return {name: table for name, table in tables.items() if table.rows}


def heading(name: str) -> str:
    """A table's name as a heading, such as "First stage"."""
    return name[0].upper() + name[1:]


def report_json(report: Report, *, captions: Mapping[str, str], histories: Mapping[str, Sequence[Any]]) -> str:
    """The report as JSON, with the numbers behind the curves.

    Args:
      report: result of :func:`assemble`.
      captions: captions of the figures, by name.
      histories: method -> one training history per seed.
    """
    examples = {
        risk: [{**record, "words": explain(record)} for record in records] for risk, records in report.examples.items()
    }
    content = {
        "schema": 1,
        "title": report.title,
        "command": report.command,
        "headline": report.headline,
        "what was run": dict(report.overview),
        "what it means": report.meaning,
        "detail": {"method": report.detail["method"], "seed": report.detail["seed"]},
        "tables": {
            name: {"header": table.header, "rows": table.rows, "notes": table.notes}
            for name, table in report.tables.items()
        },
        "risks": report.risks,
        "first stage": report.first_stage,
        "examples": examples,
        "warnings": report.warnings,
        "configuration": report.detail.get("config") or {},
        "figures": dict(captions),
        "histories": {name: list(of_method) for name, of_method in histories.items()},
    }
    return json.dumps(content, indent=1, default=str) + "\n"
