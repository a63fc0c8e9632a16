"""Figures of a report as deterministic PNG files. Every function returns the path of its file.

A figure without data is not written, and its function returns None.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from c3r_jax.metrics.intervals import Stat, describe
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.metrics.scores import score_of
from c3r_jax.report.aggregate import Aggregate, Run
from c3r_jax.report.cells import ROUTE_NAMES, metric_name

History = Sequence[Mapping[str, Any]]

# Okabe and Ito's palette, which is distinguishable under common forms of colour blindness, without yellow (too pale on
# white). Markers and dashes differ as well, so that no line is identified by colour only.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.facecolor": "white",
}
_NOISES = {"gaussian": "Gaussian noise", "salt": "salt-and-pepper noise"}
_DPI = 120


def robustness_curves(aggregated: Aggregate, path: str | Path, *, route: str = "representation") -> Path | None:
    """Metric against noise level: a panel per noise protocol (clean is level 0), a line per method; bars are the sd."""
    clean = [c for c in aggregated.columns if c.group == "clean"]
    noises = [c for c in aggregated.columns if c.group not in ("clean", "modality_subset", "summary") and c.level > 0]
    panels = {group: [c for c in noises if c.group == group] for group in dict.fromkeys(c.group for c in noises)}
    methods = [m for m in aggregated.methods if aggregated.stat(m, "mean", route=route)]
    if not panels or not methods:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = panel_grid(len(panels), most=3, size=(4.9, 3.8), sharey=True)
        for ax, (group, columns) in zip(axes, panels.items(), strict=True):
            columns = [*clean[:1], *columns]
            for i, method in enumerate(methods):
                cells = [(c.level, aggregated.stat(method, c.name, route=route)) for c in columns]
                _errorbar(
                    ax, [(x, s) for x, s in cells if s], aggregated.metric, i, method, shift=i - (len(methods) - 1) / 2
                )
            ax.set_title(_NOISES.get(group, group.replace("_", " ")))
            percent = group.startswith(("missing", "misaligned"))
            ax.set_xlabel("% of examples (0: clean)" if percent else "noise level (0: clean)")
            levels = sorted({c.level for c in columns})
            ax.set_xticks(levels[::2] if len(levels) > 8 else levels)
        for ax in first_of_rows(axes):
            ax.set_ylabel(metric_name(aggregated.metric))
        legend_below(figure)
        return save(figure, path)


def modality_bars(aggregated: Aggregate, path: str | Path, *, route: str = "representation") -> Path | None:
    """Metric with all modalities and with each subset, as grouped bars; error bars are the sd over seeds."""
    columns = [c for c in aggregated.columns if c.group in ("clean", "modality_subset")]
    methods = [m for m in aggregated.methods if aggregated.stat(m, "mean", route=route)]
    if not any(c.group == "modality_subset" for c in columns) or not methods:
        return None
    scale = scale_of(aggregated.metric)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(7.0, 1.0 + len(columns) * (0.8 + 0.42 * len(methods))), 4.4), layout="constrained")
        ax = figure.subplots()
        cells = {m: [aggregated.stat(m, column.name, route=route) for column in columns] for m in methods}
        grouped_bars(ax, cells, scale=scale, digits=1 if scale > 1 else 2)
        ax.set_xticks(range(len(columns)), [f"{c.label}\n(all)" if c.group == "clean" else c.label for c in columns])
        ax.set_ylim(bottom=0)
        ax.set_ylabel(metric_name(aggregated.metric))
        legend_below(figure)
        return save(figure, path)


def grouped_bars(ax: Axes, cells: Mapping[str, Sequence[Stat | None]], *, scale: float, digits: int) -> None:
    """A group of bars for each column, one colour for each method, with numbers; error bars are the sd over seeds."""
    width = 0.8 / len(cells)
    for i, (method, stats) in enumerate(cells.items()):
        for j, stat in enumerate(stats):
            if stat is None:
                continue
            x, error = j + (i - (len(cells) - 1) / 2) * width, 0.0 if math.isnan(stat.sd) else stat.sd
            ax.bar(x, scale * stat.mean, width * 0.94, color=colour(i), label=method if j == 0 else None)
            if error:
                ax.errorbar(x, scale * stat.mean, yerr=scale * error, color="#222222", capsize=3, linewidth=1.2)
            ax.annotate(
                f"{scale * stat.mean:.{digits}f}",
                (x, scale * (stat.mean + error)),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
    ax.grid(visible=False, axis="x")


def training_curves(
    histories: Mapping[str, Sequence[History]], path: str | Path, *, metric: str = "accuracy"
) -> Path | None:
    """Loss, accuracy and metric against steps, one colour per method; the line is the mean over seeds, the band its sd.

    Args:
      histories: method -> one history per seed.
      path: the PNG file to write.
      metric: a score to show beside the accuracy.
    """
    panels = [
        (key, split)
        for key in dict.fromkeys(("loss", "accuracy", metric))
        for split in ("train", "validation")
        if any(series_of(hs, key, split) for hs in histories.values())
    ]
    if not panels:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = panel_grid(len(panels), most=2, size=(4.9, 3.6))
        for ax, (key, split) in zip(axes, panels, strict=True):
            for i, (method, found) in enumerate(histories.items()):
                _band(ax, series_of(found, key, split), scale_of(key), i, method)
            ax.set_title(f"{split}: {key}")
            ax.set_xlabel("step")
            ax.set_ylabel("loss (each method's own)" if key == "loss" else metric_name(key))
        legend_below(figure)
        return save(figure, path)


def risk_curves(
    histories: Mapping[str, Sequence[History]], path: str | Path, *, split: str = "validation"
) -> Path | None:
    """Sufficiency and necessity risk and the interval of C3 over training, one panel per method with risks.

    Lines are means over seeds; the band runs from the mean lower to the mean upper bound of C3. If no history has risks
    for ``split``, the other split is drawn, and the axis label says so.
    """
    found = {m: hs for m, hs in histories.items() if series_of(hs, "risk_sufficiency", split)}
    if not found:
        split = "train" if split == "validation" else "validation"
        found = {m: hs for m, hs in histories.items() if series_of(hs, "risk_sufficiency", split)}
    if not found:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = panel_grid(len(found), most=3, size=(4.2, 3.5), sharey=True)
        for ax, (method, hs) in zip(axes, found.items(), strict=True):
            lower, upper = series_of(hs, "risk_lower", split), series_of(hs, "risk_upper", split)
            steps = sorted(lower.keys() & upper.keys())
            if steps:
                low, high = ([bound[s].mean for s in steps] for bound in (lower, upper))
                ax.fill_between(steps, low, high, color="#999999", alpha=0.3, linewidth=0, label="C3 lies in here")
            _band(ax, series_of(hs, "risk_sufficiency", split), 1, 0, "sufficiency risk", sd=False)
            _band(ax, series_of(hs, "risk_necessity", split), 1, 1, "necessity risk", sd=False)
            ax.set_title(f"{method} ({len(hs)} seed{'s' if len(hs) > 1 else ''})")
            ax.set_xlabel("step")
            ax.set_ylim(-0.02, 1.02)
        for ax in first_of_rows(axes):
            ax.set_ylabel(f"{split}: risk, probability")
        legend_below(figure)
        return save(figure, path)


def reliability_diagram(run: Run, path: str | Path) -> Path | None:
    """Accuracy against confidence of one run, one column per route, with the number of examples per bin below."""
    found = {r: (run.get("reliability") or {}).get(r) for r in ROUTES}
    found = {r: v for r, v in found.items() if v and any(v.get("count") or ())}
    if not found:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.9 * len(found) + 0.4, 5.2), layout="constrained")
        axes = figure.subplots(2, len(found), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1))
        for j, (route, v) in enumerate(found.items()):
            bins = len(v["count"])
            filled = [(c, a, n) for c, a, n in zip(v["confidence"], v["accuracy"], v["count"], strict=True) if n]
            upper, lower = axes[0][j], axes[1][j]
            upper.plot([0, 1], [0, 1], color="#555555", linestyle=":", linewidth=1.4, label="perfectly calibrated")
            upper.plot(
                [c for c, _, _ in filled], [a for _, a, _ in filled], color=colour(0), marker="o", label="observed"
            )
            upper.set_title(ROUTE_NAMES[route])
            upper.set(xlim=(0, 1), ylim=(0, 1.02))
            lower.bar([c for c, _, _ in filled], [n for _, _, n in filled], 0.7 / max(bins, 1), color=colour(0))
            lower.set_xlabel("confidence")
        axes[0][0].set_ylabel("accuracy")
        axes[1][0].set_ylabel("examples")
        legend_below(figure)
        return save(figure, path)


def panel_grid(count: int, *, most: int, size: tuple[float, float], sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with a number of panels, in rows that each fill its width: none of its places is empty.

    Args:
      count: number of panels.
      most: panels in one row; rows differ by one panel at most.
      size: width and height of a panel, in inches, in the longest row.
      sharey: one vertical axis for all, with its numbers on the first panel of each row.
    """
    down = math.ceil(count / most)
    rows = [count // down + (row < count % down) for row in range(down)]
    figure = Figure(figsize=(size[0] * rows[0] + 0.5, size[1] * down + 0.6), layout="constrained")
    grid = figure.add_gridspec(down, math.lcm(*rows))
    axes: list[Axes] = []
    for row, panels in enumerate(rows):
        wide = math.lcm(*rows) // panels
        for k in range(panels):
            place = grid[row, k * wide : (k + 1) * wide]
            axes.append(figure.add_subplot(place, sharey=axes[0] if sharey and axes else None))
            axes[-1].tick_params(labelleft=not sharey or k == 0)
    return figure, axes


def first_of_rows(axes: Sequence[Axes]) -> list[Axes]:
    """Those of :func:`panel_grid` that begin a row."""
    return [ax for ax in axes if (spec := ax.get_subplotspec()) is not None and spec.is_first_col()]


def scale_of(metric: str) -> int:
    """The factor by which a metric is multiplied for display: 100 for shares."""
    return 100 if score_of(metric).percent else 1


def colour(i: int) -> str:
    """The colour of the i-th line."""
    return COLOURS[i % len(COLOURS)]


def _errorbar(ax: Axes, cells: Sequence[tuple[float, Stat]], metric: str, i: int, label: str, *, shift: float) -> None:
    """One method's line; methods are shifted slightly, so that error bars stay readable."""
    if not cells:
        return
    scale, span = scale_of(metric), max(x for x, _ in cells) or 1.0
    bars = [0.0 if math.isnan(s.sd) else scale * s.sd for _, s in cells]
    ax.errorbar(
        [x + shift * 0.01 * span for x, _ in cells],
        [scale * s.mean for _, s in cells],
        yerr=bars if any(bars) else None,
        color=colour(i),
        marker=MARKERS[i % len(MARKERS)],
        linestyle=DASHES[i % len(DASHES)],
        markersize=6,
        linewidth=1.8,
        capsize=3,
        label=label,
    )


def series_of(histories: Iterable[History], key: str, split: str) -> dict[int, Stat]:
    """Step -> mean and sd over the seeds that logged a finite value there."""
    found: dict[int, list[float]] = {}
    for history in histories:
        for entry in history:
            value = entry.get("values", {}).get(key)
            if entry.get("split") == split and value is not None and math.isfinite(float(value)):
                found.setdefault(int(entry["step"]), []).append(float(value))
    return {step: describe(values) for step, values in sorted(found.items())}


def _band(ax: Axes, series: Mapping[int, Stat], scale: int, i: int, label: str, *, sd: bool = True) -> None:
    if not series:
        return
    steps, stats = list(series), list(series.values())
    mean = [scale * s.mean for s in stats]
    marker = MARKERS[i % len(MARKERS)] if len(steps) < 30 else None
    dash = DASHES[i % len(DASHES)]
    ax.plot(steps, mean, color=colour(i), linestyle=dash, marker=marker, markersize=4, linewidth=1.8, label=label)
    if sd and any(s.n > 1 for s in stats):
        half = [0.0 if math.isnan(s.sd) else scale * s.sd for s in stats]
        low, high = ([m + sign * h for m, h in zip(mean, half, strict=True)] for sign in (-1, 1))
        ax.fill_between(steps, low, high, color=colour(i), alpha=0.18, linewidth=0)


def legend_below(figure: Figure) -> None:
    """One legend for all panels, below them, in as many columns as fit."""
    entries: dict[str, Any] = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    width = max((len(label) for label in entries), default=1)
    columns = max(1, min(len(entries), int(figure.get_figwidth() * 11 // (width + 6))))
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


def save(figure: Figure, path: str | Path) -> Path:
    """Writes a figure as a deterministic PNG file, and creates its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=_DPI, metadata={"Software": None})
    return path
