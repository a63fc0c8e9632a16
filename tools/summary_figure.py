"""Draws docs/figures/summary.svg from results/: what C3R costs in distribution, and gains under shift.

python tools/summary_figure.py
"""

import pathlib
import sys

from matplotlib.axes import Axes
from matplotlib.figure import Figure

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from c3r_jax.metrics.intervals import t_interval
from c3r_jax.results.markdown import values_at
from c3r_jax.results.record import Record, read_record

ROOT = pathlib.Path(__file__).parents[1]
OUT = ROOT / "docs/figures/summary.svg"
# {method: (row of the records, colour, mark)}
METHODS = {
    "plain training": ("plain", "#666666", "s"),
    "modality dropout": ("dropout", "#E69F00", "D"),
    "evidential fusion": ("evidential", "#009E73", "^"),
    "C3R (default)": ("c3r", "#0072B2", "o"),
    "C3R, strong": ("c3r, strong", "#56B4E9", "P"),
}
MAKERS = [f"accuracy, {maker}" for maker in ("twitter", "apple", "facebook")]
# {label: (record, table, column)}
SAME = {
    "emoji": ("shift", "no cues", "accuracy, same"),
    "emoji, planted cues": ("shift", "planted cues", "accuracy, same"),
    "six views of digits": ("shift", "uci_views", "accuracy, same"),
    "the same, worst modality": ("shift", "uci_views", "worst subset, same"),
    "clip art by known authors": ("shift", "openclipart", "accuracy, same"),
    "the same, balanced": ("shift", "openclipart", "balanced accuracy, same"),
    "stamps": ("shift", "stamps", "accuracy, same"),
    "the same, worst modality ": ("shift", "stamps", "worst subset, same"),
}
SHIFTED = {
    "emoji by other makers": ("shift", "emoji_styles", MAKERS),
    "emoji, planted cues": ("shift", "planted cues", "accuracy, shift"),
    "the same, worst modality": ("shift", "planted cues", "worst subset, shift"),
    "clip art by unseen authors": ("shift", "openclipart", "accuracy, shift"),
    "the same, balanced": ("shift", "openclipart", "balanced accuracy, shift"),
    "watch, unseen subjects": ("shift", "watch", "accuracy, shift"),
    "the same, worst modality ": ("shift", "watch", "worst subset, shift"),
}


def draw(records: dict[str, Record]) -> Figure:
    """Two panels, one line a set: accuracy less plain training's, mean and 95 % interval over paired seeds."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, sets in ((left, SAME), (right, SHIFTED)):
        _differences(axes, records, sets, tuple(METHODS)[1:])
    left.set_title("in distribution", fontsize=12)
    right.set_title("under shift", fontsize=12)
    for axes in (left, right):
        axes.set_xlabel("accuracy less plain training's, points", fontsize=10)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=10)
    return figure


def _differences(axes: Axes, records: dict[str, Record], sets: dict, methods: tuple[str, ...]) -> None:
    axes.axvline(0, color="#666666", linewidth=1)
    for place, (name, table, column) in enumerate(sets.values()):
        tables = records[name].tables
        plain = values_at(tables, {"table": table, "row": "plain", "column": column}, name)
        for k, method in enumerate(methods):
            row, colour, mark = METHODS[method]
            values = values_at(tables, {"table": table, "row": row, "column": column}, name)
            pairs = [100 * (a - b) for a, b in zip(values, plain, strict=True) if a is not None and b is not None]
            found = t_interval(pairs)
            at = place + 0.17 * (k - (len(methods) - 1) / 2)
            axes.plot([found.lower, found.upper], [at, at], color=colour, linewidth=1.4, alpha=0.5)
            axes.plot(found.mean, at, mark, color=colour, markersize=6, label=None if place else method)
    axes.set_yticks(range(len(sets)), list(sets), fontsize=9.5)
    axes.invert_yaxis()
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)


def main() -> None:
    """Reads the records and writes the figure."""
    records = {name: read_record(ROOT / "results" / f"{name}.json") for name in ("shift",)}
    draw(records).savefig(OUT, metadata={"Date": None})
    print(OUT.relative_to(ROOT))


if __name__ == "__main__":
    main()
