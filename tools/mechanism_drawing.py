"""Draws docs/figures/mechanism.svg from what tools/mechanism.py measured."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PLAIN, C3R, PALE, GREY = "#D55E00", "#0072B2", "#56B4E9", "#666666"
# What a row of the second panel is called, its colour and its mark, from above.
WEIGHTS = {
    "plain training": ("plain training:\ncross-entropy", PLAIN, "s"),
    "plain term": ("C3R's network:\ncross-entropy", PALE, "D"),
    "beyond the experts": ("C3R's network:\nbeyond the experts", C3R, "o"),
}


def mechanism(found: Mapping[str, Any]) -> Figure:
    """Three panels: what experts read, which rows weigh, and how strong the other terms pull.

    Args:
      found: output of :func:`tools.mechanism.measure_mechanism`.
    """
    figure = Figure(figsize=(10, 7.2), layout="constrained")
    # One name for each: matplotlib's types know subfigures as one figure or an array of them.
    parts: Any = figure.subfigures(2, 1, height_ratios=(1, 1.05), hspace=0.05)
    upper: Any = parts[0].subfigures(1, 2, width_ratios=(1, 1.1), wspace=0.03)
    (left, right), bottom = upper, parts[1]
    left.suptitle("1  what the expert of a modality reads", fontsize=12)
    right.suptitle("2  weight of the rows with a cue that is wrong", fontsize=12)
    bottom.suptitle("3  the other terms' part in the gradient, and the gate", fontsize=12)
    _experts(left.subplots(), found)
    axes = right.subplots(1, 2, sharex=True, sharey=True)
    for ax, world in zip(axes, ("confounded", "anticausal"), strict=True):
        _weights(ax, found[world])
        ax.set_title(world, fontsize=11)
    right.supxlabel("share of the weight, %   ○ before training   ● after   ⋮ share of the rows", fontsize=10)
    axes = bottom.subplots(1, 2, sharex=True, sharey=True)
    for ax, world in zip(axes, ("anticausal", "complementary"), strict=True):
        _pull(ax, found[world])
        ax.set_title(f"{world} modalities" if world == "complementary" else world, fontsize=11)
    axes[0].set_ylabel("%")
    bottom.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=10)
    return figure


def _experts(ax: Axes, found: Mapping[str, Any]) -> None:
    """Bars of the experts' accuracy, a dotted line where the commonest label alone would be."""
    for place, values in enumerate(found.values()):
        chance = 100 * np.mean(values["commonest"])
        ax.hlines(chance, place - 0.44, place + 0.44, color=GREY, linestyle=":", linewidth=2, zorder=3)
        for m, height in enumerate(100 * np.mean(values["expert"], axis=0)):
            ax.bar(place + (0.4 * m - 0.2), height, 0.36, color=PALE if m else C3R)
            ax.annotate(f"{height:.0f}", (place + (0.4 * m - 0.2), height + 1.5), ha="center", fontsize=9)
    cues = ["cues" if "wrong" in values else "no cues" for values in found.values()]
    ax.set_xticks(range(len(found)), [f"{name}\n({has})" for name, has in zip(found, cues, strict=True)], fontsize=8.5)
    ax.set_ylim(0, 100)
    ax.set_ylabel("accuracy, %")
    ax.set_xlabel("each bar a modality   ⋯ the commonest label", fontsize=10)
    ax.grid(axis="x", visible=False)


def _weights(ax: Axes, values: Mapping[str, Any]) -> None:
    """From the share before training (hollow) to the one after (full)."""
    ax.axvline(100 * np.mean(values["wrong"]), color="#888888", linewidth=1, linestyle=":")
    for place, (figure_name, (_, colour, mark)) in zip((2, 1, 0), WEIGHTS.items(), strict=True):
        before, after = 100 * np.mean(values[figure_name], axis=0)
        ax.plot([before, after], [place, place], color=colour, linewidth=3, alpha=0.45, solid_capstyle="round")
        ax.plot(before, place, mark, color=colour, markerfacecolor="white", markersize=9, markeredgewidth=2)
        ax.plot(after, place, mark, color=colour, markersize=9)
        for value, height in ((before, -0.38), (after, 0.2)):
            ax.annotate(f"{value:.0f}", (value, place + height), ha="center", fontsize=9, color="#222222")
    ax.set_yticks((2, 1, 0), [label for label, _, _ in WEIGHTS.values()], fontsize=9.5)
    ax.set_ylim(-0.6, 2.6)
    ax.set_xlim(15, 95)
    ax.grid(axis="y", visible=False)


def _pull(ax: Axes, values: Mapping[str, Any]) -> None:
    """The other terms' share of both lengths along training, before and after the cap, and the gate."""
    task, others, capped, gate = (np.array(values[name]) for name in ("task", "others", "capped", "gate"))
    places = 100 * (np.arange(task.shape[1]) + 0.5) / task.shape[1]
    ax.axhline(50, color="#888888", linewidth=1, linestyle=":")
    for curves, colour, dash, label in (
        (others / (task + others), PALE, "--", "the other terms' gradient, before the cap"),
        (capped / (task + capped), C3R, "-", "after the cap (at most the task's: 50)"),
        (gate, PLAIN, "-.", "gate g"),
    ):
        mean, spread = 100 * curves.mean(0), 100 * (curves.std(0, ddof=1) if len(curves) > 1 else 0 * curves[0])
        ax.plot(places, mean, color=colour, linestyle=dash, linewidth=2, label=label)
        ax.fill_between(places, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
    ax.set_xlim(0, 100)
    ax.set_ylim(0, 100)
    ax.set_xlabel("share of the training steps, %", fontsize=10)
