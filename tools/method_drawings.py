"""Draws the figures of README.md, docs/method.md and CONTRIBUTING.md: the same input gives the same picture."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from tools.floors import direct, folder_imports, heights, imports
from tools.mechanism_drawing import mechanism

# Okabe and Ito's colours stay apart under the common forms of colour blindness; marks and dashes differ as well.
LOOKS = {
    "plain": ("#D55E00", "s", "--"),
    "modality dropout": ("#E69F00", "^", "-."),
    "post hoc": ("#56B4E9", "D", ":"),
    "C3R": ("#0072B2", "o", "-"),
}
TITLES = {
    "confounded": "a confounder in each modality",
    "anticausal": "a cue of the label in each modality",
    "null": "nothing but the cause",
}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.facecolor": "white",  # readable on dark pages, too
    "svg.hashsalt": "c3r_jax",  # names in the file are else drawn by chance
}
Box = tuple[float, float, str, str]  # x, y, text, colour
# Folders beside the way from tasks up to commands, which is drawn in the middle.
SIDES = {
    "files": 14,
    "data": 14,
    "estimator": 14,
    "results": 28,
    "torch": 69,
    "report": 69,
    "export": 69,
    "parallel": 91,
    "settings": 91,
}
WHITE, BLUE, ORANGE, GREY = "#ffffff", "#d6e8f5", "#fbe3d0", "#eeeeee"


def draw_all(measured: Mapping[str, Any], directory: pathlib.Path) -> list[pathlib.Path]:
    """Writes every figure as SVG; returns their paths.

    Args:
      measured: what tools/method_figures.py measured.
      directory: made if it does not exist.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figures = {
            "shift": shift(measured["gain"]),
            "interventions": interventions(measured["gain"]),
            "failures": failures(measured["invalid"], measured["specific"]),
            "mechanism": mechanism(measured["mechanism"]),
            "twin": twin(),
            "batch": batch(),
            "floors": floors(),
        }
        paths = []
        for name, figure in figures.items():
            paths.append(directory / f"{name}.svg")
            about = {"Date": None, "Creator": "tools/method_figures.py"}
            if name == "floors":
                about["Description"] = floors_text()  # so that a test can say whether the stored picture is current
            figure.savefig(paths[-1], metadata=about, bbox_inches="tight")
    return paths


def _mean(values: Sequence[float]) -> float:
    return 100 * float(np.mean(values))


def shift(gain: Mapping[str, Any]) -> Figure:
    """Accuracy before (hollow) and after (full) the cues turn round: the longer the line, the more was cue."""
    methods = ("C3R", "modality dropout", "plain")
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    axes = figure.subplots(1, len(gain), sharex=True, sharey=True)
    for ax, (model, rows) in zip(axes, gain.items(), strict=True):
        for place, method in enumerate(methods):
            colour, mark, _ = LOOKS[method]
            before, after = (_mean(rows[method][regime]) for regime in ("same", "shift"))
            ax.plot([before, after], [place, place], color=colour, linewidth=3, alpha=0.45, solid_capstyle="round")
            ax.plot(before, place, mark, color=colour, markerfacecolor="white", markersize=9, markeredgewidth=2)
            ax.plot(after, place, mark, color=colour, markersize=9)
            ax.plot([100 * x for x in rows[method]["shift"]], [place - 0.22] * 5, "|", color=colour, markersize=6)
            ax.annotate(f"{after:.0f}", (after, place + 0.2), ha="center", fontsize=10, color="#222222")
        ax.axvline(50, color="#888888", linewidth=1, linestyle=":")
        ax.set_title(TITLES[model], fontsize=11)
        ax.set_yticks(range(len(methods)), methods)
        ax.set_ylim(-0.5, len(methods) - 0.35)
        ax.grid(axis="y", visible=False)
    figure.supxlabel(
        "accuracy in %   ○ as in training   ● after the cues reversed   | single seeds   ⋮ chance", fontsize=10
    )
    return figure


def interventions(gain: Mapping[str, Any]) -> Figure:
    """How often a change of the cause alone, and of a cue alone, changes the prediction."""
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, model in zip(axes, ("confounded", "anticausal"), strict=True):
        for place, (method, values) in enumerate(gain[model].items()):
            colour, _, _ = LOOKS[method]
            for figure_name, left, fill in (("do_s", -0.2, colour), ("do_cue", 0.2, "white")):
                height = _mean(values[figure_name])
                ax.bar(place + left, height, 0.36, color=fill, edgecolor=colour, linewidth=2)
                ax.annotate(f"{height:.0f}", (place + left, height + 2), ha="center", fontsize=9)
        ax.set_xticks(range(len(gain[model])), [name.replace(" ", "\n") for name in gain[model]])
        ax.set_title(TITLES[model], fontsize=11)
        ax.grid(axis="x", visible=False)
        ax.set_ylim(0, 108)
    axes[0].set_ylabel("predictions that change, %")
    figure.supxlabel(
        "full bars: the cause is changed (100 is ideal)    hollow bars: a cue is changed (0 is ideal)", fontsize=10
    )
    return figure


def failures(invalid: Mapping[str, Any], specific: Mapping[str, Any]) -> Figure:
    """Two ways to fail: cues that modalities share, and causes that one modality alone sees."""
    figure = Figure(figsize=(9.6, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _lines(left, invalid, "shift", scale=100)
    left.set_xlabel("examples in which both modalities have the same cue, %")
    left.set_ylabel("accuracy after the shift, %")
    left.set_title("the instrument becomes invalid", fontsize=11)
    _lines(right, specific, "same", scale=1)
    right.set_xlabel("strength of a cause that one modality alone sees (log-odds)")
    right.set_ylabel("accuracy, no shift, %")
    right.set_title("one modality has a cause of its own", fontsize=11)
    for ax in (left, right):
        ax.legend()
    return figure


def _lines(ax: Axes, cases: Mapping[str, Any], regime: str, scale: float) -> None:
    places = [scale * float(case) for case in cases]
    for method in ("plain", "C3R"):
        colour, mark, dash = LOOKS[method]
        values = [[100 * x for x in case[method][regime]] for case in cases.values()]
        spread = [np.std(x, ddof=1) for x in values]
        means = [np.mean(x) for x in values]
        ax.errorbar(places, means, spread, color=colour, marker=mark, linestyle=dash, capsize=3, label=method)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_xlim(0, 10 * width)
    ax.set_ylim(0, 10 * height)
    ax.set_axis_off()
    return figure, ax


def _box(ax: Axes, x: float, y: float, text: str, colour: str = WHITE, *, width: float = 13, height: float = 6) -> None:
    """A box with its middle at (x, y)."""
    patch = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=1.2",
        facecolor=colour,
        edgecolor="#333333",
        linewidth=1.2,
    )
    patch.set_zorder(3)  # over arrows that pass behind
    ax.add_patch(patch)
    ax.text(x, y, text, ha="center", va="center", fontsize=9.5, color="#111111", linespacing=1.25, zorder=4)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", bend: float = 0.0) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=11, color="#333333", connectionstyle=f"arc3,rad={bend}"
        )
    )
    if text:
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        ax.text(x, y + 1.2, text, ha="center", fontsize=8.5, color="#333333")


def twin() -> Figure:
    """The twin network: encoders once, two worlds, one head."""
    figure, ax = _canvas(10, 4.4)
    for y, name in ((33, "image"), (11, "text")):
        _box(ax, 8, y, name, GREY, width=11)
        _box(ax, 24, y, f"encoder\nh[{name}]", width=12)
        _arrow(ax, (13.5, y), (18, y))
    _box(ax, 44, 36, "fuse\nz", width=12)
    _box(ax, 44, 22, "instrument: what the\nother modalities explain\nfuse(fitted h) = z_c", BLUE, width=20, height=9)
    _box(ax, 44, 7, "z without what the causal\npart says of the label\nz_bar", ORANGE, width=20, height=9)
    for y, target in ((33, 36), (11, 35)):
        _arrow(ax, (30, y), (38, target))
    for y, target in ((33, 24), (11, 20)):
        _arrow(ax, (30, y), (34, target))
    _arrow(ax, (44, 17.5), (44, 11.5), "")
    _arrow(ax, (50.3, 35), (54.3, 9), "", bend=-0.35)
    _box(ax, 69, 22, "head\npredict\n(one for all)", width=13, height=9)
    _arrow(ax, (50, 36), (62.5, 25))
    _arrow(ax, (54, 22), (62.5, 22))
    _arrow(ax, (54, 7), (62.5, 19))
    for y, text, colour in (
        (36, "task: tell the label", WHITE),
        (22, "sufficient: tell the label\nin the real world", BLUE),
        (7, "necessary: no longer tell it\nin the hypothetical world", ORANGE),
    ):
        _box(ax, 89, y, text, colour, width=20, height=7)
    for y, start in ((36, 25), (22, 22), (7, 19)):
        _arrow(ax, (75.5, start), (79, y))
    return figure


def batch() -> Figure:
    """The way of one batch through the code."""
    figure, ax = _canvas(10, 4.6)
    top: list[Box] = [
        (11, 38, "train.py\nflags, configuration", GREY),
        (34, 38, "data/source.py\nan example by position", WHITE),
        (57, 38, "data/batches/\norder, noise, batches", WHITE),
        (82, 38, "parallel/\nsplit over devices", WHITE),
    ]
    middle: list[Box] = [
        (82, 23, "models/twin.py\nencode once: h", BLUE),
        (57, 23, "core/instruments.py\nz, z_c by the instrument", BLUE),
        (34, 23, "core/counterfactual.py\nz_bar", ORANGE),
        (11, 23, "core/objective.py\nall terms, one loss", WHITE),
    ]
    bottom: list[Box] = [
        (11, 8, "step/train_step.py\ngradient, optimiser", WHITE),
        (34, 8, "training/loop.py\nvalidation, checkpoints", WHITE),
        (57, 8, "evaluation/\nconditions, risks", WHITE),
        (82, 8, "report/\nresults.json to pages", GREY),
    ]
    way = [*top, *middle, *bottom]
    for x, y, text, colour in way:
        _box(ax, x, y, text, colour, width=20, height=8)
    for (x, y, _, _), (to_x, to_y, _, _) in zip(way, way[1:], strict=False):
        if y == to_y:
            side = 10.2 if to_x > x else -10.2
            _arrow(ax, (x + side, y), (to_x - side, to_y))
        else:
            _arrow(ax, (x, y - 4.2), (to_x, to_y + 4.2))
    return figure


def floors_text() -> str:
    """The arrows of :func:`floors` in words."""
    arrows = direct(folder_imports(imports()))
    return "; ".join(
        f"{name} imports {', '.join(sorted(below)) or 'nothing'}" for name, below in sorted(arrows.items())
    )


def floors() -> Figure:
    """The folders of the code, each above all that it imports; arrows that follow from others are left out."""
    folders = folder_imports(imports())
    levels = heights(folders)
    figure, ax = _canvas(10, 0.75 * max(levels.values()) + 0.8)
    places = {name: (SIDES.get(name, 44), 4 + 7.5 * level) for name, level in levels.items()}
    for name, below in sorted(direct(folders).items()):  # files have no order of their own
        for other in sorted(below):
            (x, y), (to_x, to_y) = places[name], places[other]
            _arrow(ax, (x, y - 2), (to_x, to_y + 2))
    for name, (x, y) in sorted(places.items()):
        _box(ax, x, y, f"{name}/", BLUE if name == "core" else WHITE, width=14, height=4)
    return figure
