"""One self-contained HTML page: tables as HTML, figures embedded, no script and nothing fetched from a network."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from c3r_jax.report.explained import READING, examples_html
from c3r_jax.report.facts import settings, warnings_of, what_was_run
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
from c3r_jax.report.words import ASSUMPTION, read_first_stage, read_risks, what_it_means

_CSS = """
:root { color-scheme: light dark; --ink: #1a1a1a; --quiet: #555; --paper: #fff; --line: #d5d5d5; --shade: #f3f5f7;
  --bar: #0072b2; --fade: #0004; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --quiet: #adadad; --paper: #16181b; --line: #3d4147; --shade: #22262b;
    --bar: #56b4e9; --fade: #fff4; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p, li { max-width: 46rem; } .note { color: var(--quiet); font-size: .875rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); margin: .6rem 0;
  background:  /* a shade where a table goes on to the right */
    linear-gradient(to left, var(--paper) 50%, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--fade), transparent) right / 1.2rem 100% no-repeat scroll; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { background: var(--shade); font-weight: 600; } tr:last-child > * { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; } .scroll th:first-child { position: sticky; left: 0; }
.fields td, .fields th { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.fields th { width: 14rem; overflow-wrap: normal; }
figure { margin: 1.2rem 0; } img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); }
figcaption { color: var(--quiet); font-size: .875rem; max-width: 46rem; }
pre { font: .85rem/1.45 ui-monospace, monospace; background: var(--shade); padding: .7rem; overflow-x: auto; }
summary { cursor: pointer; } .warning { border-left: 4px solid #d55e00; padding-left: .7rem; }
.example { border: 1px solid var(--line); padding: .2rem .8rem; margin: .8rem 0; } h4 { margin: .6rem 0; }
.inputs { display: flex; flex-wrap: wrap; gap: .8rem; align-items: center; }
.input { width: 96px; image-rendering: pixelated; }
.bar { display: inline-block; width: 5rem; height: .7em; background: var(--line); }
.bar > span { display: block; height: 100%; background: var(--bar); }
@media screen and (max-width: 40rem) {
  .fields th { width: auto; } body { padding: .75rem; } .bar { display: block; width: 100%; }
  ul { padding-left: 1.2rem; } .example { padding: .2rem .4rem; }
  .example th, .example td { white-space: normal; padding: .3rem .2rem; font-size: .7rem; }
  figure { overflow-x: auto; } figure img.wide { max-width: none; width: 40rem; }
  figcaption { position: sticky; left: 0; }
}
@media print {
  :root { --ink: #000; --quiet: #333; --paper: #fff; --line: #bbb; --shade: #f3f5f7; --bar: #0072b2; }
  body { max-width: none; padding: 0; font-size: .8rem; } .scroll { overflow: visible; background: none; }
  table { font-size: .65rem; } th, td { white-space: normal; padding: .2rem .25rem; } pre { white-space: pre-wrap; }
  .many { font-size: .55rem; } .many th, .many td { padding: .2rem .1rem; overflow-wrap: anywhere; }
  figure img { max-height: 9cm; width: auto; }
  .bar, .bar > span, th { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  figure, .example, tr { break-inside: avoid; } h2, h3, h4 { break-after: avoid; }
  details::details-content { content-visibility: visible; display: block; }
}
""".strip()

MANY = 10  # columns of a table that is printed smaller
WIDE = 1000  # pixels of a figure with panels side by side: a phone scrolls it, for shrunk it could not be read


class FigureFile(NamedTuple):
    """A PNG with the sentence below it and the text for readers who cannot see it."""

    path: Path
    caption: str
    alt: str


def html_table(table: Table, label: str) -> str:
    """The table as HTML in a box that scrolls sideways by itself, with its notes below."""
    head = "".join(f'<th scope="col">{escape(c)}</th>' for c in table.header)
    body = []
    for i, row in enumerate(table.rows):
        cells = (f"<strong>{escape(c)}</strong>" if (i, j) in table.bold else escape(c) for j, c in enumerate(row))
        first, *rest = cells
        body.append(f'<tr><th scope="row">{first}</th>{"".join(f"<td>{c}</td>" for c in rest)}</tr>')
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    many = ' class="many"' if len(table.header) > MANY else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}"><table{many}>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{notes}"
    )


def report_html(
    aggregated: Aggregate,
    runs: Sequence[Run],
    *,
    figures: Sequence[FigureFile] = (),
    detail: Run | None = None,
    baseline: str | None = None,
    command: str | None = None,
    title: str | None = None,
) -> str:
    """The page.

    Args:
      aggregated: the runs by method.
      runs: the results that were aggregated.
      figures: embedded in this order.
      detail: the run whose conditions, classes and first stage are shown; the first run if not given.
      baseline: method that gains are measured against; the first if not given.
      command: what was typed; the first run's own command if not given.
      title: heading of the page.

    Returns:
      HTML that needs no other file. All text is escaped.
    """
    detail = detail if detail is not None else runs[0]
    title = title or f"C3R on {aggregated.dataset}"
    of = f"{detail['method']}, seed {detail['seed']}"
    sections = [
        ("What was run", _what_was_run(aggregated, runs, command)),
        ("Results", html_table(results_table(aggregated), "Results by method and condition")),
        ("What it means", _paragraphs(what_it_means(aggregated, baseline=baseline))),
        ("Figures", "".join(_figure(f) for f in figures)),
        ("Both prediction routes", _routes(aggregated)),
        ("Risks", _risks(runs, detail, of)),
        ("First stage", _first_stage(detail, of)),
        ("Single examples", _examples(detail, of)),
        ("One run in detail", _detail(detail, of)),
        ("Warnings", _warnings(runs)),
        ("Configuration", _config(detail, of)),
    ]
    body = "".join(f"<section><h2>{escape(name)}</h2>{text}</section>" for name, text in sections if text)
    return html_page(title, body)


def html_page(title: str, body: str) -> str:
    """A page that needs no other file; ``body`` is HTML, the title is escaped."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>\n"
    )


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def _fields(rows: Sequence[tuple[str, str]]) -> str:
    body = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in rows)
    return f'<div class="scroll fields"><table><tbody>{body}</tbody></table></div>'


def _what_was_run(aggregated: Aggregate, runs: Sequence[Run], command: str | None) -> str:
    command = command or runs[0].get("command")
    shown = f"<pre>{escape(str(command))}</pre>" if command else ""
    return shown + _fields(what_was_run(aggregated, runs))


def _figure(figure: FigureFile) -> str:
    png = Path(figure.path).read_bytes()
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # of a PNG's header
    wide = ' class="wide"' if width > WIDE else ""
    size = f'width="{width}" height="{height}"'
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img{wide} {size} src="data:image/png;base64,{data}" alt="{escape(figure.alt)}">'
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
    )


def _routes(aggregated: Aggregate) -> str:
    return html_table(routes_table(aggregated), "Both prediction routes") if len(aggregated.routes) > 1 else ""


def _risks(runs: Sequence[Run], detail: Run, of: str) -> str:
    table = risks_table(runs)
    shown = html_table(table, "Risks by method") if table.rows else ""
    words = read_risks(detail)
    return shown + (f"<h3>Read for {escape(of)}</h3>{_paragraphs(words)}" if words else "")


def _first_stage(detail: Run, of: str) -> str:
    if not detail.get("first_stage"):
        return ""
    words = _paragraphs([ASSUMPTION, *read_first_stage(detail)])
    return f"<h3>{escape(of)}</h3>{html_table(first_stage_table(detail), 'First stage')}{words}"


def _examples(detail: Run, of: str) -> str:
    shown = examples_html(detail.get("examples") or {})
    return f'<p class="note">{escape(of)}. {escape(READING)}</p>{shown}' if shown else ""


def _detail(detail: Run, of: str) -> str:
    step = (detail.get("checkpoint") or {}).get("step")
    at = f", checkpoint of step {step}" if step is not None else ""
    shown = f"<h3>Conditions: {escape(of + at)}</h3>{html_table(conditions_table(detail), 'Conditions of one run')}"
    if detail.get("robustness"):
        shown += f"<h3>Robustness</h3>{html_table(robustness_table(detail), 'Robustness of one run by protocol')}"
    for route in detail.get("per_class") or {}:
        label = f"Classes, route {route}"
        shown += f"<h3>{escape(label)}</h3>{html_table(per_class_table(detail, route=route), label)}"
    return shown


def _warnings(runs: Sequence[Run]) -> str:
    found = warnings_of(runs)
    if not found:
        return "<p>None.</p>"
    items = (f'<li>{escape(t)} <span class="note">({escape("; ".join(of))})</span></li>' for t, of in found.items())
    return f'<ul class="warning">{"".join(items)}</ul>'


def _config(detail: Run, of: str) -> str:
    rows = settings(detail)
    return f"<details><summary>{escape(of)}: {len(rows)} values</summary>{_fields(rows)}</details>" if rows else ""
