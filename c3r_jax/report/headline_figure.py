"""The first figure of a report: mean and worst condition of every method."""

import math
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from c3r_jax.metrics.scores import score_of
from c3r_jax.report.aggregate import SUMMARY_COLUMNS, Aggregate
from c3r_jax.report.cells import metric_name
from c3r_jax.report.headline import measured_methods, num_conditions
from c3r_jax.report.plots import MARKERS, STYLE, colour, legend_below, save, scale_of


def headline_figure(aggregated: Aggregate, path: str | Path, *, route: str = "representation") -> Path | None:
    """Mean and worst condition of every method, joined by a line; bars are the sd over seeds.

    Args:
      aggregated: result of :func:`c3r_jax.report.aggregate`.
      path: the PNG file to write.
      route: prediction route of the scores.

    Returns:
      The path; None without a finite score.
    """
    methods = measured_methods(aggregated, route)
    if not methods:
        return None
    scale, higher = scale_of(aggregated.metric), score_of(aggregated.metric).higher
    names: dict[str, str] = {"mean": f"mean over {num_conditions(aggregated)} conditions", "worst": "worst condition"}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 1.5 + 0.5 * len(methods)), layout="constrained")  # narrow: phones shrink it
        ax = figure.subplots()
        for y, method in enumerate(methods):
            stats = {c: s for c in SUMMARY_COLUMNS if (s := aggregated.stat(method, c, route=route)) is not None}
            ax.plot([scale * s.mean for s in stats.values()], [y] * len(stats), color="#aaaaaa", linewidth=3, zorder=1)
            for i, (column, stat) in enumerate(stats.items()):
                error = 0.0 if math.isnan(stat.sd) else scale * stat.sd
                ax.errorbar(scale * stat.mean, y, xerr=error or None, color=colour(i), marker=MARKERS[i], markersize=8,
                            capsize=3, linestyle="none", label=names[column])  # fmt: skip
                right = (column == "mean") == higher  # away from the other mark
                ax.annotate(
                    f"{scale * stat.mean:.1f}" if scale > 1 else f"{stat.mean:.3f}",
                    (scale * stat.mean + (error if right else -error), y),
                    xytext=(8 if right else -8, 0),
                    textcoords="offset points",
                    ha="left" if right else "right",
                    va="center",
                )
        ax.set_yticks(range(len(methods)), methods, parse_math=False)
        ax.set_ylim(len(methods) - 0.5, -0.5)
        ax.margins(x=0.22)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel(metric_name(aggregated.metric))
        legend_below(figure)
        return save(figure, path)
