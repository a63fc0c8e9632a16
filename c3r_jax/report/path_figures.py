"""Scores along a path of strengths of C3R, with the chosen strength."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from c3r_jax.report.plots import DASHES, MARKERS, STYLE, colour, legend_below, save

LINES = {  # in the left panel: {column: its name}
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "expert_accuracy": "accuracy without the instrument",
    "shift": "test under shift",
}
RISK = "c3_risk"


def path_figure(cv: Any, path: str | Path) -> Path:
    """Draws the path of a fitted :class:`c3r_jax.C3RClassifierCV`: accuracies on the left, the C3 risk on the right.

    Args:
      cv: the fitted search; read are ``path_``, ``strength_`` and ``rule``.
      path: the PNG file to write.

    Returns:
      The path of the file.
    """
    return draw_paths({"held-out rows": cv.path_}, {"held-out rows": {cv.rule: cv.strength_}}, path, runs="folds")


def draw_paths(
    tables: Mapping[str, Mapping[str, ArrayLike]],
    chosen: Mapping[str, Mapping[str, float]],
    path: str | Path,
    *,
    runs: str,
) -> Path:
    """Draws one row of two panels for each path; bars are one standard error of the mean.

    Args:
      tables: {title: {column: (strengths * runs,)}}: "strength", those columns of :data:`LINES` that there are, in
        shares, and "c3_risk".
      chosen: {title: {rule: strength}}, each marked.
      path: the PNG file to write.
      runs: what the means are over: "folds", "seeds".
    """
    rules = list(dict.fromkeys(rule for found in chosen.values() for rule in found))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.8, 3.7 * len(tables) + 0.7), layout="constrained")
        axes = figure.subplots(len(tables), 2, squeeze=False)
        for (title, table), (left, right) in zip(tables.items(), axes, strict=True):
            strengths = np.unique(np.asarray(table["strength"], float))
            for i, (column, name) in enumerate(LINES.items()):
                if column in table:
                    _line(left, table, column, strengths, i, name, scale=100)
            _line(right, table, RISK, strengths, len(LINES), "C3 risk", scale=1)
            left.set(title=title, ylabel=f"%, mean over {runs} ± its error")
            right.set(title=f"{title}: C3 risk", ylabel="$R_S + R_N$, held-out rows")
            for ax in (left, right):
                # Equal steps: the strengths of a path are nearer to each other where they are small.
                ax.set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
                ax.set_xlabel("strength of C3R (0: plain training)")
                _mark(ax, chosen.get(title, {}), strengths, rules)
        legend_below(figure)
        return save(figure, path)


def _line(
    ax: Axes,
    table: Mapping[str, ArrayLike],
    column: str,
    strengths: np.ndarray,
    i: int,
    name: str,
    *,
    scale: float,
) -> None:
    """Means of a column over runs, with one standard error."""
    of, values = np.asarray(table["strength"], float), scale * np.asarray(table[column], float)
    runs = [values[(of == strength) & np.isfinite(values)] for strength in strengths]
    means = [found.mean() if len(found) else np.nan for found in runs]
    errors = [found.std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else 0.0 for found in runs]
    ax.errorbar(
        np.arange(len(strengths)) + 0.03 * (i % len(LINES)),  # bars stay apart where lines meet
        means,
        yerr=errors,
        color=colour(i),
        marker=MARKERS[i % len(MARKERS)],
        linestyle=DASHES[i % len(DASHES)],
        linewidth=1.8,
        markersize=6,
        capsize=3,
        label=name,
    )


def _mark(ax: Axes, chosen: Mapping[str, float], strengths: np.ndarray, rules: Sequence[str]) -> None:
    """A line at each chosen strength; above the data, one mark for each rule that chose it."""
    if not chosen:
        return
    at: dict[int, list[str]] = {}
    for rule, strength in chosen.items():
        at.setdefault(int(np.flatnonzero(strengths == strength)[0]), []).append(rule)
    most = max(map(len, at.values()))
    low, high = ax.get_ylim()
    ax.set_yticks([tick for tick in ax.get_yticks() if low <= tick <= high])  # no numbers beside the marks
    ax.set_ylim(low, high + (high - low) * 0.09 * most)
    for place, names in at.items():
        ax.axvline(place, color="#555555", linestyle=":", linewidth=1.4, zorder=0.5)
        for k, rule in enumerate(names):
            ax.plot(
                [place],
                [0.96 - 0.07 * k],
                transform=ax.get_xaxis_transform(),
                color="#222222",
                marker=MARKERS[rules.index(rule) % len(MARKERS)],
                markerfacecolor="white",
                linestyle="none",
                markersize=7,
                label=f"chosen by {rule.replace('_', ' ').replace('c3', 'C3')}",
            )
