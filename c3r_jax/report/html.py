"""One self-contained HTML page: tables and embedded figures, without scripts and network access."""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from c3r_jax.report.aggregate import SUMMARY_COLUMNS
from c3r_jax.report.cells import Table
from c3r_jax.report.document import Report, detail_tables, heading, settings
from c3r_jax.report.examples import READING, examples_html
from c3r_jax.report.interpretation import ASSUMPTION

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
p, li { max-width: 46rem; } .headline { font-size: 1.15rem; line-height: 1.45; }
.note { color: var(--quiet); font-size: .875rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); margin: .6rem 0;
  background:  /* a shade where a table goes on to the right */
    linear-gradient(to left, var(--paper) 50%, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--fade), transparent) right / 1.2rem 100% no-repeat scroll; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { background: var(--shade); font-weight: 600; } tr:last-child > * { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; } .scroll th:first-child { position: sticky; left: 0; }
.scroll:has(> .short) { width: fit-content; max-width: 100%; } .short th, .short td { white-space: normal; }
.short td:nth-last-child(-n+2) { white-space: nowrap; }
details { margin: .6rem 0; }
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
  .short th, .short td:nth-last-child(-n+2) { font-size: .8rem; padding: .3rem; white-space: normal;
    overflow-wrap: anywhere; }
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

ROW_COLUMNS = ("method", "route", "seeds")
MANY = 10  # columns; wider tables are printed smaller
WIDE = 1000  # pixels; phones scroll wider figures, which would be unreadable if shrunk


class FigureFile(NamedTuple):
    """A PNG with its caption and its alternative text."""

    path: Path
    caption: str
    alt: str


def html_table(table: Table, label: str, *, kind: str = "") -> str:
    """The table as HTML, in a box that scrolls sideways, with its notes below.

    Args:
      table: the table.
      label: what a screen reader calls it.
      kind: class of the HTML table; "short" wraps its words so that few columns fit any screen.
    """
    head = "".join(f'<th scope="col">{escape(c)}</th>' for c in table.header)
    body = []
    for i, row in enumerate(table.rows):
        cells = (f"<strong>{escape(c)}</strong>" if (i, j) in table.bold else escape(c) for j, c in enumerate(row))
        first, *rest = cells
        body.append(f'<tr><th scope="row">{first}</th>{"".join(f"<td>{c}</td>" for c in rest)}</tr>')
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    kind = kind or ("many" if len(table.header) > MANY else "")
    of_kind = f' class="{kind}"' if kind else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}"><table{of_kind}>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{notes}"
    )


def report_html(
    report: Report, *, first: FigureFile | None = None, figures: Sequence[FigureFile] = (), leads: str = ""
) -> str:
    """The report as an HTML page: what it comes to, then everything else.

    Args:
      report: result of :func:`assemble`.
      first: the figure below the headline.
      figures: figures to embed, in this order.
      leads: sections as HTML, between the headline and that figure.

    Returns:
      HTML that needs no other file. All text is escaped.
    """
    command = f"<pre>{escape(report.command)}</pre>" if report.command else ""
    sections = [
        ("Results", _folded(report, "results", "Results by method and condition")),
        ("What it means", _paragraphs(report.meaning)),
        ("What was run", command + _fields(report.overview)),
        ("Figures", "".join(figure_html(f) for f in figures)),
        ("Both prediction routes", _folded(report, "routes", "Both prediction routes")),
        ("Risks", _risks(report)),
        ("First stage", _first_stage(report)),
        ("Single examples", _examples(report)),
        ("One run in detail", _detail(report)),
        ("Warnings", _warnings(report.warnings)),
        ("Configuration", _config(report)),
    ]
    body = "".join(f"<section><h2>{escape(name)}</h2>{text}</section>" for name, text in sections if text)
    picture = figure_html(first) if first else ""
    if leads:
        picture = f"{leads}<section><h2>Missing and noisy inputs</h2>{picture}</section>"
    top = f'<p class="headline">{escape(report.headline)}</p>{picture}'
    return html_page(report.title, top + body)


def html_page(title: str, body: str) -> str:
    """A complete page; ``body`` is HTML, the title is escaped."""
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


def figure_html(figure: FigureFile) -> str:
    """A figure with its caption, embedded."""
    png = Path(figure.path).read_bytes()
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # of a PNG's header
    wide = ' class="wide"' if width > WIDE else ""
    size = f'width="{width}" height="{height}"'
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img{wide} {size} src="data:image/png;base64,{data}" alt="{escape(figure.alt)}">'
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
    )


def _table(report: Report, name: str, label: str) -> str:
    return html_table(report.tables[name], label) if name in report.tables else ""


def summary_columns(table: Table) -> Table:
    """The columns of a table that name its rows, and the mean and the worst over conditions; its notes stay."""
    last = [table.header.index(name) for name in SUMMARY_COLUMNS]
    kept = [*(j for j, name in enumerate(table.header) if name in ROW_COLUMNS), *last]
    return Table(
        tuple(table.header[j] for j in kept),
        tuple(tuple(row[j] for j in kept) for row in table.rows),
        frozenset((i, kept.index(j)) for i, j in table.bold if j in kept),
        table.notes,
    )


def _folded(report: Report, name: str, label: str) -> str:
    """Mean and worst of a table of conditions, which fit any screen; the conditions themselves fold below them."""
    if name not in report.tables:
        return ""
    table = report.tables[name]
    short = html_table(summary_columns(table), f"{label}: mean and worst", kind="short")
    conditions = len(table.header) - len(summary_columns(table).header)
    whole = html_table(dataclasses.replace(table, notes=()), label)
    return f"{short}<details><summary>{conditions} conditions, one by one</summary>{whole}</details>"


def _risks(report: Report) -> str:
    interpretation = (
        f"<h3>Interpretation for {escape(report.run_name)}</h3>{_paragraphs(report.risks)}" if report.risks else ""
    )
    return _table(report, "risks", "Risks by method") + interpretation


def _first_stage(report: Report) -> str:
    if "first stage" not in report.tables:
        return ""
    interpretation = _paragraphs([ASSUMPTION, *report.first_stage])
    return f"<h3>{escape(report.run_name)}</h3>{_table(report, 'first stage', 'First stage')}{interpretation}"


def _examples(report: Report) -> str:
    shown = examples_html(report.examples)
    return f'<p class="note">{escape(report.run_name)}. {escape(READING)}</p>{shown}' if shown else ""


def _detail(report: Report) -> str:
    step = (report.detail.get("checkpoint") or {}).get("step")
    at = f", checkpoint of step {step}" if step is not None else ""
    shown = []
    for name in detail_tables(report.detail):
        if name != "first stage":  # it has a separate section
            run_name = f": {report.run_name}{at}" if name == "conditions" else ""
            label = f"{heading(name)} of one run" if name in ("conditions", "robustness") else heading(name)
            shown.append(f"<h3>{escape(heading(name) + run_name)}</h3>{_table(report, name, label)}")
    return "".join(shown)


def _warnings(warnings: Mapping[str, Sequence[str]]) -> str:
    if not warnings:
        return "<p>None.</p>"
    notes = {text: escape("; ".join(runs)) for text, runs in warnings.items()}
    items = (f'<li>{escape(text)} <span class="note">({note})</span></li>' for text, note in notes.items())
    return f'<ul class="warning">{"".join(items)}</ul>'


def _config(report: Report) -> str:
    rows = settings(report.detail)
    summary = f"{escape(report.run_name)}: {len(rows)} values"
    return f"<details><summary>{summary}</summary>{_fields(rows)}</details>" if rows else ""
