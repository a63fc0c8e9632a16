"""Writes a report: figures, report.html, results.md and report.json."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from c3r_jax.metrics.routes import ROUTES
from c3r_jax.metrics.scores import score_of
from c3r_jax.report import plots
from c3r_jax.report.aggregate import Aggregate, Run, aggregate
from c3r_jax.report.cells import ROUTE_NAMES, escape_markdown
from c3r_jax.report.document import Report, assemble, detail_tables, heading, report_json, settings
from c3r_jax.report.examples import READING, example_html, example_title, examples_markdown, explain
from c3r_jax.report.headline_figure import headline_figure
from c3r_jax.report.html import FigureFile, html_page, report_html
from c3r_jax.report.image_figures import example_figure, modality_heat_map
from c3r_jax.report.interpretation import ASSUMPTION, read_first_stage, read_risks
from c3r_jax.report.lead import Lead, lead_html, lead_markdown
from c3r_jax.report.tables import risks_table

FILES = {"html": "report.html", "markdown": "results.md", "json": "report.json"}


def write_report(
    runs: Sequence[Run],
    directory: str | Path,
    *,
    histories: Mapping[str, Sequence[plots.History]] | None = None,
    detail: Run | None = None,
    baseline: str | None = None,
    route: str = ROUTES[0],
    command: str | None = None,
    title: str | None = None,
    leads: Sequence[Lead] = (),
) -> dict[str, Path]:
    """Writes report.html, results.md, report.json (with the same content) and figures/*.png to a directory.

    Args:
      runs: results of single runs on one data set (the schema of ``results.json``).
      directory: created if it does not exist; files of the same names are replaced.
      histories: method -> one training history per seed, for the curves.
      detail: the run to show in detail; by default the first whose method starts with "c3r", else the first.
      baseline: method that gains and costs are computed against; the first by default.
      route: prediction route of the results, their interpretation and the figures that show one route.
      command: the command line, for the record.
      title: title of the report.
      leads: findings that come before the table of all conditions.

    Returns:
      {"html": path, "markdown": path, "json": path, figure name: path}, without figures that have no data.
    """
    directory = Path(directory)
    aggregated = aggregate(runs)
    if detail is None:
        detail = next((run for run in runs if str(run["method"]).lower().startswith("c3r")), runs[0])
    options = {"baseline": baseline, "route": route, "command": command, "title": title}
    report = assemble(runs, aggregated=aggregated, detail=detail, **options)
    figures = write_figures(aggregated, directory / "figures", detail=detail, histories=histories, route=route)
    captions = {name: figure.caption for name, figure in figures.items()}
    written = {name: directory / file for name, file in FILES.items()}
    shown = [figure for name, figure in figures.items() if name != "headline"]
    before = "".join(map(lead_html, leads))
    page = report_html(report, first=figures.get("headline"), figures=shown, leads=before)
    written["html"].write_text(page, encoding="utf-8")
    written["markdown"].write_text(results_markdown(report, leads), encoding="utf-8")
    content = report_json(report, captions=captions, histories=histories or {})
    written["json"].write_text(content, encoding="utf-8")
    drawn = {lead.figure.path.stem: lead.figure for lead in leads} | figures
    return {**written, **{name: figure.path for name, figure in drawn.items()}}


def write_figures(
    aggregated: Aggregate,
    directory: str | Path,
    *,
    detail: Run,
    histories: Mapping[str, Sequence[plots.History]] | None = None,
    route: str = ROUTES[0],
) -> dict[str, FigureFile]:
    """Writes every figure that has data, with its caption and alternative text."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    histories = histories or {}
    methods, run_name = ", ".join(aggregated.methods), f"{detail['method']}, seed {detail['seed']}"
    bars = "Error bars: standard deviation over seeds (none for a single seed)."
    score = score_of(aggregated.metric)
    name = score.name[0].upper() + score.name[1:]
    drawn = {
        "headline": (
            headline_figure(aggregated, directory / "headline.png", route=route),
            f"{name} of every method, through the {ROUTE_NAMES[route]}: mean over all conditions, and the worst "
            f"condition of each run, averaged over seeds. {bars}",
            f"Chart of the mean and the worst {score.name} of {methods}; the numbers are in the table below.",
        ),
        "robustness": (
            plots.robustness_curves(aggregated, directory / "robustness.png", route=route),
            f"{name} against the level of each protocol, predicted through the {ROUTE_NAMES[route]}. {bars} Points "
            "are shifted slightly so that bars do not overlap; the vertical axis does not start at 0.",
            f"Line chart of {score.name} against protocol level for {methods}; the numbers are in the results table.",
        ),
        "modalities": (
            plots.modality_bars(aggregated, directory / "modalities.png", route=route),
            f"{name} with all modalities and with subsets of them, through the {ROUTE_NAMES[route]}. {bars}",
            f"Bar chart of {score.name} by available modalities for {methods}; the numbers are in the results table.",
        ),
        "subsets": (
            modality_heat_map(aggregated, directory / "subsets.png"),
            f"{name} by available modalities, method and route, mean over seeds: brighter is "
            f"{'better' if score.higher else 'worse'}.",
            f"Heat map of {score.name} by modality subset for {methods}; the numbers are in the routes table.",
        ),
        "risks": (
            plots.risk_curves(histories, directory / "risks.png"),
            "Risks over training, on the split that the axis names, mean over seeds. Those of validation are measured "
            "as in the risks table, with the instrument's moments of the training split; the table has the chosen "
            f"checkpoints, on the {aggregated.split} split. The grey band runs from the lower to the upper bound of "
            "C3, the probability that the causal part is necessary and sufficient.",
            "Line chart of sufficiency risk and necessity risk over training, with the interval of C3 as a band.",
        ),
        "reliability": (
            plots.reliability_diagram(detail, directory / "reliability.png"),
            f"Reliability of {run_name}: accuracy against confidence, and below it the number of examples in each bin. "
            "Points of bins with few examples are uncertain.",
            f"Reliability diagram of {run_name}: accuracy against confidence by route, with counts below.",
        ),
        "training": (
            plots.training_curves(histories, directory / "training.png", metric=aggregated.metric),
            "Training: mean over seeds, band: standard deviation. Losses of different methods have different terms and "
            "are not comparable with each other.",
            f"Line charts of loss and scores against training step for {methods}.",
        ),
    }
    return {name: FigureFile(path, caption, alt) for name, (path, caption, alt) in drawn.items() if path is not None}


def results_markdown(report: Report, leads: Sequence[Lead] = ()) -> str:
    """All methods, then one run in detail, as Markdown."""
    parts = [f"# {escape_markdown(report.title)}", escape_markdown(report.headline), *map(lead_markdown, leads)]
    if report.command:
        parts.append("\n".join(f"    {line}" for line in report.command.splitlines()))
    parts.append("\n".join(f"- {escape_markdown(f'{k}: {v}')}" for k, v in report.overview))
    parts += [report.tables["results"].to_markdown(), "## What it means", *map(escape_markdown, report.meaning)]
    if "routes" in report.tables:
        parts += ["## Both prediction routes", report.tables["routes"].to_markdown()]
    if report.tables.get("risks") not in (None, risks_table([report.detail])):  # more than one run's, shown below
        parts += ["## Risks", report.tables["risks"].to_markdown()]
    parts.append(run_markdown(report.detail, level="##"))
    return "\n\n".join(parts) + "\n"


def run_markdown(run: Run, *, level: str = "#") -> str:
    """One run: conditions, classes, risks with intervals, first stage with its interpretation, warnings."""
    parts = [
        f"{level} One run: {escape_markdown(str(run['method']))}, seed {run['seed']}",
        escape_markdown(f"{run['num_examples']} {run['split']} examples of {run['dataset']}."),
    ]
    shown = detail_tables(run)
    first_stage = shown.pop("first stage", None)
    for name, table in shown.items():
        parts += [f"{level}# {heading(name)}", table.to_markdown()]
    if run.get("risk"):
        parts += [f"{level}# Risks", risks_table([run]).to_markdown(), *map(escape_markdown, read_risks(run))]
    if first_stage is not None:
        sentences = [ASSUMPTION, *read_first_stage(run)]
        parts += [f"{level}# First stage", first_stage.to_markdown(), *map(escape_markdown, sentences)]
    examples = examples_markdown(run.get("examples") or {}, f"{level}##")
    parts += [f"{level}# Single examples", *examples] if examples else []
    if run.get("warnings"):
        parts += [f"{level}# Warnings", "\n".join(f"- {escape_markdown(str(w))}" for w in run["warnings"])]
    if settings(run):
        parts += [f"{level}# Configuration", "\n".join(f"    {name} = {value}" for name, value in settings(run))]
    return "\n\n".join(parts)


def write_example(record: Mapping[str, Any], directory: str | Path, *, command: str = "") -> list[Path]:
    """Writes the explanation of one example as HTML, figure and JSON.

    Args:
      record: result of ``c3r_jax.evaluation.examples``.
      directory: created if it does not exist.
      command: the command line, for the record.

    Returns:
      Paths of example_N.html, example_N.png and example_N.json in the directory.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    page, data = (directory / f"example_{record['index']}.{kind}" for kind in ("html", "json"))
    picture = example_figure(record, page.with_suffix(".png"))
    shown = f"<pre>{escape(command)}</pre>" if command else ""
    body = f'{shown}<p class="note">{escape(READING)}</p>{example_html(record)}'
    page.write_text(html_page(example_title(record), body), encoding="utf-8")
    data.write_text(json.dumps({**record, "words": explain(record)}, indent=1, ensure_ascii=False), encoding="utf-8")
    return [page, picture, data]
