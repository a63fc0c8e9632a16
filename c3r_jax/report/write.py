"""Writes a whole report: figures, report.html, results.md and report.json."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from c3r_jax.evaluation.scores import score_of
from c3r_jax.report import plots
from c3r_jax.report.explained import READING, example_html, example_title, examples_markdown, explain
from c3r_jax.report.facts import report_data, settings, what_was_run
from c3r_jax.report.html import FigureFile, html_page, report_html
from c3r_jax.report.pictures import example_figure, modality_heat_map
from c3r_jax.report.stats import Aggregate, Run, aggregate
from c3r_jax.report.tables import (
    conditions_table,
    escape_markdown,
    first_stage_table,
    per_class_table,
    results_table,
    risks_table,
    robustness_table,
    routes_table,
)
from c3r_jax.report.words import ASSUMPTION, read_first_stage, read_risks, what_it_means


def write_report(
    runs: Sequence[Run],
    directory: str | Path,
    *,
    histories: Mapping[str, Sequence[plots.History]] | None = None,
    detail: Run | None = None,
    baseline: str | None = None,
    command: str | None = None,
    title: str | None = None,
) -> dict[str, Path]:
    """Writes report.html, results.md, report.json (the same content each) and figures/*.png below a directory.

    Args:
      runs: results of single runs on one data set (the schema of ``results.json``).
      directory: made if it does not exist; files of the same names are replaced.
      histories: method -> one training history per seed, for the curves.
      detail: the run to show in detail; by default the first whose method starts with "c3r", else the first.
      baseline: method that gains and costs are measured against; the first by default.
      command: what was typed to get here.
      title: heading of the report.

    Returns:
      {"html": path, "markdown": path, "json": path, figure name: path}; figures without anything to show are absent.
    """
    directory = Path(directory)
    aggregated = aggregate(runs)
    if detail is None:
        detail = next((run for run in runs if str(run["method"]).lower().startswith("c3r")), runs[0])
    figures = write_figures(aggregated, directory / "figures", detail=detail, histories=histories)
    page = report_html(
        aggregated,
        runs,
        figures=list(figures.values()),
        detail=detail,
        baseline=baseline,
        command=command,
        title=title,
    )
    html, markdown, data = directory / "report.html", directory / "results.md", directory / "report.json"
    html.write_text(page, encoding="utf-8")
    content = report_data(
        aggregated,
        runs,
        detail=detail,
        captions={name: figure.caption for name, figure in figures.items()},
        histories=histories,
        baseline=baseline,
        command=command,
        title=title,
    )
    data.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
    text = results_markdown(aggregated, runs, detail=detail, baseline=baseline, command=command, title=title)
    markdown.write_text(text, encoding="utf-8")
    return {"html": html, "markdown": markdown, "json": data, **{name: f.path for name, f in figures.items()}}


def write_figures(
    aggregated: Aggregate,
    directory: str | Path,
    *,
    detail: Run,
    histories: Mapping[str, Sequence[plots.History]] | None = None,
) -> dict[str, FigureFile]:
    """Writes every figure that has something to show, with its caption and alternative text."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    histories = histories or {}
    methods, of = ", ".join(aggregated.methods), f"{detail['method']}, seed {detail['seed']}"
    over = "Error bars: standard deviation over seeds (none for a single seed)."
    score = score_of(aggregated.metric)
    name = score.name[0].upper() + score.name[1:]
    made = {
        "robustness": (
            plots.robustness_curves(aggregated, directory / "robustness.png"),
            f"{name} against the level of each protocol, by prediction from the representation. {over} Points move "
            "sideways by a little so that the bars do not cover each other; the vertical axis does not start at 0.",
            f"Line chart of {score.name} against protocol level for {methods}; the numbers are in the results table.",
        ),
        "modalities": (
            plots.modality_bars(aggregated, directory / "modalities.png"),
            f"{name} with all modalities and with a part of them. {over}",
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
            "Risks over training, mean over seeds. The grey band runs from the lower to the upper bound of C3, the "
            "probability that the causal part is necessary and sufficient.",
            "Line chart of sufficiency risk and necessity risk over training, with the interval of C3 as a band.",
        ),
        "reliability": (
            plots.reliability_diagram(detail, directory / "reliability.png"),
            f"Reliability of {of}: accuracy against confidence, and below it how many examples each bin "
            "holds. Points of bins with few examples are uncertain.",
            f"Reliability diagram of {of}: accuracy against confidence by route, with counts below.",
        ),
        "training": (
            plots.training_curves(histories, directory / "training.png", metric=aggregated.metric),
            "Training: mean over seeds, band: standard deviation. Losses of different methods hold different terms and "
            "are not comparable with each other.",
            f"Line charts of loss and scores against training step for {methods}.",
        ),
    }
    return {name: FigureFile(path, caption, alt) for name, (path, caption, alt) in made.items() if path is not None}


def results_markdown(
    aggregated: Aggregate,
    runs: Sequence[Run],
    *,
    detail: Run | None = None,
    baseline: str | None = None,
    command: str | None = None,
    title: str | None = None,
) -> str:
    """All methods, then one run in detail, as Markdown."""
    command = command or runs[0].get("command")
    parts = [f"# {escape_markdown(title or f'C3R on {aggregated.dataset}')}"]
    if command:
        parts.append("\n".join(f"    {line}" for line in str(command).splitlines()))
    parts.append("\n".join(f"- {escape_markdown(f'{k}: {v}')}" for k, v in what_was_run(aggregated, runs)))
    parts += [results_table(aggregated).to_markdown(), "## What it means"]
    parts += [escape_markdown(p) for p in what_it_means(aggregated, baseline=baseline)]
    if len(aggregated.routes) > 1:
        parts += ["## Both prediction routes", routes_table(aggregated).to_markdown()]
    risks = risks_table(runs)
    if risks.rows and len(aggregated.methods) > 1:
        parts += ["## Risks", risks.to_markdown()]
    parts.append(run_markdown(detail if detail is not None else runs[0], heading="##"))
    return "\n\n".join(parts) + "\n"


def run_markdown(run: Run, *, heading: str = "#") -> str:
    """One run: conditions, classes, risks with intervals, first stage with its reading, warnings."""
    parts = [
        f"{heading} One run: {escape_markdown(str(run['method']))}, seed {run['seed']}",
        escape_markdown(f"{run['num_examples']} {run['split']} examples of {run['dataset']}."),
        f"{heading}# Conditions",
        conditions_table(run).to_markdown(),
    ]
    if run.get("robustness"):
        parts += [f"{heading}# Robustness", robustness_table(run).to_markdown()]
    for route in run.get("per_class") or {}:
        parts += [f"{heading}# Classes, route {route}", per_class_table(run, route=route).to_markdown()]
    if run.get("risk"):
        parts += [f"{heading}# Risks", risks_table([run]).to_markdown(), *map(escape_markdown, read_risks(run))]
    if run.get("first_stage"):
        parts += [f"{heading}# First stage", first_stage_table(run).to_markdown(), escape_markdown(ASSUMPTION)]
        parts += map(escape_markdown, read_first_stage(run))
    examples = examples_markdown(run.get("examples") or {}, f"{heading}##")
    parts += [f"{heading}# Single examples", *examples] if examples else []
    if run.get("warnings"):
        parts += [f"{heading}# Warnings", "\n".join(f"- {escape_markdown(str(w))}" for w in run["warnings"])]
    if settings(run):
        parts += [f"{heading}# Configuration", "\n".join(f"    {name} = {value}" for name, value in settings(run))]
    return "\n\n".join(parts)


def write_example(record: Mapping[str, Any], directory: str | Path, *, command: str = "") -> list[Path]:
    """Writes one explained example as a page, a picture and data.

    Args:
      record: of ``c3r_jax.evaluation.examples``.
      directory: made if it does not exist.
      command: what was typed.

    Returns:
      example_N.html, example_N.png and example_N.json in it.
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
