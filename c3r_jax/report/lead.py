"""What a report begins with, before the table of all conditions: findings of their own, each with a picture."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure

from c3r_jax.metrics.intervals import describe, t_interval
from c3r_jax.report.cells import Table, escape_markdown
from c3r_jax.report.html import FigureFile, figure_html, html_table
from c3r_jax.report.plots import STYLE, grouped_bars, legend_below, save

LABEL = 14  # characters of a line below a group of bars
Shares = Mapping[str, Mapping[str, Sequence[float]]]  # {method: {figure: share by seed}}


class Lead(NamedTuple):
    """A finding.

    Attributes:
      title: of its section.
      sentences: what was measured and what was found.
      table: its numbers.
      figure: its picture.
    """

    title: str
    sentences: tuple[str, ...]
    table: Table
    figure: FigureFile


def lead_of(
    title: str, what: str, shares: Shares, panels: Mapping[str, Sequence[str]], path: str | Path, *, baseline: str
) -> Lead:
    """A finding from shares by method and seed.

    Args:
      title: of its section.
      what: what was measured, in whole sentences.
      shares: in [0, 1], the same figures for every method.
      panels: {title of a part of the picture: the figures that it shows}; the first figure of each is compared with
        the baseline in words.
      path: the PNG file to write.
      baseline: a method.

    Returns:
      The :class:`Lead`, whose picture is at ``path``.
    """
    names = [figure for figures in panels.values() for figure in figures]
    table = Table(
        ("method", *names),
        tuple((method, *(_percent(values[name]) for name in names)) for method, values in shares.items()),
        notes=("In %, mean and, with several seeds, standard deviation over seeds.",),
    )
    compared = [
        _difference(figures[0], shares, method, baseline)
        for figures in panels.values()
        for method in shares
        if method != baseline
    ]
    methods = ", ".join(shares)
    caption = f"{what} Error bars: standard deviation over seeds."
    alt = f"Bars of {', '.join(names)} for {methods}; the numbers are in the table below."
    figure = FigureFile(share_bars(shares, panels, path), caption, alt)
    return Lead(title, (what, *compared), table, figure)


def _percent(values: Sequence[float]) -> str:
    stat = describe([100 * value for value in values])
    return f"{stat.mean:.1f}" + ("" if math.isnan(stat.sd) else f" ± {stat.sd:.1f}")


def _difference(name: str, shares: Shares, method: str, baseline: str) -> str:
    """A method against the baseline, paired by seed."""
    own, other = shares[method][name], shares[baseline][name]
    found = t_interval([100 * (a - b) for a, b in zip(own, other, strict=True)])
    means = ", ".join(
        f"{who} {describe([100 * value for value in values]).mean:.1f}"
        for who, values in ((method, own), (baseline, other))
    )
    if math.isnan(found.lower):
        return f"{name}: {means} ({found.mean:+.1f})."
    return f"{name}: {means} ({found.mean:+.1f}; 95 % interval over seeds {found.lower:+.1f} to {found.upper:+.1f})."


def share_bars(shares: Shares, panels: Mapping[str, Sequence[str]], path: str | Path) -> Path:
    """Grouped bars in percent, one colour for each method; error bars are the sd over seeds."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=[len(names) for names in panels.values()])[0]
        for ax, (title, names) in zip(axes, panels.items(), strict=True):
            cells = {method: [describe(values[name]) for name in names] for method, values in shares.items()}
            grouped_bars(ax, cells, scale=100, digits=0)
            ax.set_xticks(range(len(names)), [textwrap.fill(name, LABEL) for name in names])
            ax.set_title(title)
            ax.set_ylim(0, 108)
        axes[0].set_ylabel("%")
        legend_below(figure)
        return save(figure, path)


def lead_html(lead: Lead) -> str:
    """The finding as a section of a page."""
    first, *others = lead.sentences
    listed = "".join(f"<li>{escape(text)}</li>" for text in others)
    return (
        f"<section><h2>{escape(lead.title)}</h2><p>{escape(first)}</p><ul>{listed}</ul>{figure_html(lead.figure)}"
        f"{html_table(lead.table, lead.title, kind='short')}</section>"
    )


def lead_markdown(lead: Lead) -> str:
    """The finding as Markdown."""
    first, *others = (escape_markdown(text) for text in lead.sentences)
    listed = "\n".join(f"- {text}" for text in others)
    return "\n\n".join([f"## {escape_markdown(lead.title)}", first, listed, lead.table.to_markdown()])
