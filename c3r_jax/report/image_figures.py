"""Figures with images: modality subsets as a heat map, and single examples."""

import base64
import io
import math
import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.image
from matplotlib.figure import Figure

from c3r_jax.report.aggregate import Aggregate
from c3r_jax.report.cells import ROUTE_NAMES, metric_name
from c3r_jax.report.examples import cases, example_title
from c3r_jax.report.plots import STYLE, colour, legend_below, save, scale_of


def modality_heat_map(aggregated: Aggregate, path: str | Path) -> Path | None:
    """Metric of every method and route (rows) with every modality subset (columns), as a heat map with its numbers."""
    columns = [c for c in aggregated.columns if c.group in ("clean", "modality_subset")]
    rows = [(m, r) for m in aggregated.methods for r in aggregated.routes if aggregated.stat(m, "mean", route=r)]
    if not any(c.group == "modality_subset" for c in columns) or not rows:
        return None
    scale = scale_of(aggregated.metric)
    stats = [[aggregated.stat(m, c.name, route=r) for c in columns] for m, r in rows]
    values = [[math.nan if stat is None else scale * stat.mean for stat in row] for row in stats]
    known = [value for row in values for value in row if not math.isnan(value)] or [0.0]
    middle = min(known) + 0.55 * (max(known) - min(known))
    with matplotlib.rc_context(STYLE):
        size = (max(5.0, 3.4 + 1.25 * len(columns)), 1.5 + 0.48 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        ax = figure.subplots()
        # "cividis" looks the same with colour blindness, and its brightness is monotonic.
        drawn = ax.pcolormesh(values, cmap="cividis", edgecolors="white", linewidth=1.5)
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                text = f"{value:.1f}" if scale > 1 else f"{value:.2f}"
                text_colour = "black" if value > middle else "white"
                text = "n/a" if math.isnan(value) else text
                ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=text_colour)
        ax.set_xticks(
            [j + 0.5 for j in range(len(columns))],
            [textwrap.fill(c.label, 14, break_long_words=False) for c in columns],
        )
        ax.set_yticks([i + 0.5 for i in range(len(rows))], [f"{m}, {ROUTE_NAMES[r]}" for m, r in rows])
        ax.invert_yaxis()
        ax.grid(visible=False)
        ax.tick_params(length=0)
        figure.colorbar(drawn, ax=ax, label=metric_name(aggregated.metric))
        return save(figure, path)


def example_figure(record: Mapping[str, Any], path: str | Path) -> Path:
    """One example: its images, and the probabilities of the label and of the predicted class in every case."""
    pictures = [(name, value["png"]) for name, value in record["inputs"].items() if "png" in value]
    shown = cases(record)
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # for scripts that the font lacks, which are shown as boxes
        figure = Figure(figsize=(7.6 + 2.2 * len(pictures), 1.6 + 0.5 * len(shown)), layout="constrained")
        axes = figure.subplots(1, 1 + len(pictures), squeeze=False, width_ratios=[*([1] * len(pictures)), 2.6])[0]
        for ax, (name, png) in zip(axes, pictures, strict=False):
            ax.imshow(matplotlib.image.imread(io.BytesIO(base64.b64decode(png)), format="png"))
            ax.set_title(name)
            ax.set_axis_off()
        ax = axes[-1]
        for i, (key, meaning) in enumerate(
            (("probability", "of the predicted class"), ("label_probability", "of the label"))
        ):
            heights = [y + 0.19 * (2 * i - 1) for y in range(len(shown))]
            ax.barh(heights, [case[key] for _, case in shown], 0.36, color=colour(i), hatch=("", "//")[i],
                    edgecolor="white", label=f"probability {meaning}")  # fmt: skip
        ax.set_yticks(range(len(shown)), [f"{name}: {case['class']}" for name, case in shown], parse_math=False)
        ax.invert_yaxis()
        ax.set_xlim(0, 1)
        ax.grid(visible=False, axis="y")
        figure.suptitle(example_title(record), parse_math=False)
        legend_below(figure)
        return save(figure, path)
