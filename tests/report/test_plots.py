import itertools
import types

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from c3r_jax.report import (
    aggregate,
    modality_bars,
    path_figure,
    path_figures,
    plots,
    reliability_diagram,
    risk_curves,
    robustness_curves,
    training_curves,
)
from c3r_jax.report import image_figures as pictures
from c3r_jax.report.image_figures import example_figure, modality_heat_map
from c3r_jax.report.plots import COLOURS, MARKERS, first_of_rows, panel_grid
from tests.report.conftest import make_record


def _check_picture(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width >= 400 and image.height >= 300
        pixels = np.asarray(image.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    ink = (pixels < 250).any(axis=-1)
    assert 0.01 < ink.mean() < 0.9
    edges = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
    assert not edges.any(), "something is drawn up to the edge, so it may be cut off"


@pytest.mark.parametrize("draw", [robustness_curves, modality_bars])
@pytest.mark.parametrize("seeds", [1, 3])
def test_aggregate_figures(draw, seeds, runs, tmp_path):
    path = draw(aggregate([r for r in runs if r["seed"] < seeds]), tmp_path / "new" / "a.png")
    assert path == tmp_path / "new" / "a.png"
    _check_picture(path)


@pytest.mark.parametrize("draw", [risk_curves, training_curves])
def test_history_figures(draw, histories, tmp_path):
    _check_picture(draw(histories, tmp_path / "a.png"))


def test_path_of_strengths(tmp_path):
    columns = ("accuracy", "balanced_accuracy", "expert_accuracy", "c3_risk")
    table = {name: np.random.default_rng(0).uniform(0.6, 0.9, 10) for name in columns}
    table |= {"strength": np.tile([0.0, 2.0], 5), "fold": np.repeat(range(5), 2)}
    table["accuracy"][1] = np.nan  # training failed
    for chosen in (0.0, 2.0):
        cv = types.SimpleNamespace(path_=table, strength_=chosen, rule="c3_risk")
        _check_picture(path_figure(cv, tmp_path / f"{chosen}.png"))
    assert (tmp_path / "0.0.png").read_bytes() != (tmp_path / "2.0.png").read_bytes()


def test_marks_of_a_path_stand_above_the_numbers(tmp_path, monkeypatch):
    """An axis of shares ends at 100 %, however many marks stand above it."""
    axes = []
    monkeypatch.setattr(path_figures, "save", lambda figure, path: axes.extend(figure.axes) or path)
    table = {name: [0.99, 0.95] for name in ("accuracy", "expert_accuracy", "c3_risk")} | {"strength": [0.0, 1.0]}
    chosen = {"w": dict.fromkeys(("accuracy", "one_standard_error", "c3_risk"), 1.0)}
    path_figures.draw_paths({"w": table}, chosen, tmp_path / "a.png", runs="folds")
    assert axes and all(max(ax.get_yticks()) <= 100 < ax.get_ylim()[1] for ax in axes[:1])


def test_reliability(run, tmp_path):
    _check_picture(reliability_diagram(run, tmp_path / "a.png"))


def test_the_same_input_gives_the_same_bytes(runs, histories, tmp_path):
    for draw, data in ((robustness_curves, aggregate(runs)), (risk_curves, histories)):
        assert draw(data, tmp_path / "a.png").read_bytes() == draw(data, tmp_path / "b.png").read_bytes()


def test_many_methods_with_long_names(runs, tmp_path):
    found = []
    for i in range(9):
        run = dict(runs[0]) | {"method": f"a rather long method name, number {i}"}
        found.append(run)
    for draw in (robustness_curves, modality_bars):
        _check_picture(draw(aggregate(found), tmp_path / "a.png"))


def test_every_noise_protocol_gets_a_panel(runs, tmp_path):
    for run in runs:
        for name in ("official", "qmf"):
            for condition in list(run["conditions"]):
                if condition["group"] == "gaussian":
                    run["conditions"].append(condition | {"group": name, "name": f"{name} {condition['level']}"})
    few = robustness_curves(aggregate([r | {"conditions": r["conditions"][:7]} for r in runs]), tmp_path / "a.png")
    many = robustness_curves(aggregate(runs), tmp_path / "b.png")
    assert few is not None and many is not None
    with Image.open(few) as a, Image.open(many) as b:
        assert b.height > 1.5 * a.height
    _check_picture(many)


@pytest.mark.parametrize("count", range(1, 8))
def test_no_place_of_a_figure_is_empty(count):
    """Panels cover the grid, each place of it once."""
    figure, axes = panel_grid(count, most=3, size=(4.0, 3.0), sharey=True)
    specs = [ax.get_subplotspec() for ax in axes]
    grid = specs[0].get_gridspec()
    places = [(row, column) for spec in specs for row in spec.rowspan for column in spec.colspan]
    assert sorted(places) == list(itertools.product(range(grid.nrows), range(grid.ncols)))
    assert len(axes) == len(figure.axes) == count and figure.get_figwidth() <= 12.5
    labelled = [ax for ax in axes if ax.yaxis.get_tick_params()["labelleft"]]
    assert labelled == first_of_rows(axes) and len(labelled) == -(-count // 3)


@pytest.mark.parametrize("methods", range(1, 6))
def test_every_panel_has_data(methods, histories, runs, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(plots, "save", lambda figure, path: kept.append(figure) or path)
    of_each = {f"m{i}": histories["dropout"] for i in range(methods)}
    risk_curves(of_each, tmp_path / "a.png")
    training_curves(of_each, tmp_path / "a.png", metric="macro_f1")
    robustness_curves(aggregate(runs), tmp_path / "a.png")
    assert [len(figure.axes) for figure in kept] == [methods, 4, 2]
    assert all(ax.axison and ax.has_data() for figure in kept for ax in figure.axes)


def test_nothing_to_show_writes_nothing(run, histories, tmp_path):
    run["conditions"] = run["conditions"][:1]
    del run["reliability"]
    agg = aggregate([run])
    assert robustness_curves(agg, tmp_path / "a.png") is None
    assert modality_bars(agg, tmp_path / "a.png") is None
    assert reliability_diagram(run, tmp_path / "a.png") is None
    assert risk_curves({"plain": histories["plain"]}, tmp_path / "a.png") is None
    assert training_curves({}, tmp_path / "a.png") is None
    assert not list(tmp_path.iterdir())


def test_non_finite_history_values_are_left_out(histories, tmp_path):
    for entry in histories["dropout"][0]:
        entry["values"] = {key: float("nan") for key in entry["values"]}
    _check_picture(risk_curves(histories, tmp_path / "a.png"))
    _check_picture(training_curves(histories, tmp_path / "b.png"))


def test_risks_of_the_training_split_are_the_fallback(histories, tmp_path):
    only = [e for e in histories["dropout"][0] if e["split"] == "validation"]
    train = [dict(e) | {"split": "train"} for e in only]
    _check_picture(risk_curves({"dropout": [train]}, tmp_path / "a.png"))


def test_names_of_subsets_do_not_run_into_each_other(run, tmp_path, monkeypatch):
    names = ("image", "speech", "text")
    routes = run["conditions"][1]["routes"]
    subsets = [[name] for name in names] + [[a, b] for a, b in itertools.combinations(names, 2)]
    run["conditions"] = run["conditions"][:1] + [
        {"name": "_".join(("only", *subset)), "group": "modality_subset", "level": 0.0, "modalities": subset,
         "routes": routes}
        for subset in subsets
    ]  # fmt: skip
    kept = []
    monkeypatch.setattr(pictures, "save", lambda figure, path: kept.append(figure) or path)
    modality_heat_map(aggregate([run]), tmp_path / "subsets.png")
    kept[0].draw_without_rendering()
    boxes = [label.get_window_extent() for label in kept[0].axes[0].get_xticklabels()]
    assert len(boxes) == 7
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_heat_map_and_example_are_drawn(runs, run, tmp_path):
    path = modality_heat_map(aggregate(runs), tmp_path / "subsets.png")
    assert path is not None and path.stat().st_size > 5000
    run["conditions"] = run["conditions"][:1]
    assert modality_heat_map(aggregate([run]), tmp_path / "none.png") is None
    record = make_record(3, "紅 $5 and $6 {")  # neither formulas nor letters that the font lacks stop it
    assert example_figure(record, tmp_path / "example.png").stat().st_size > 5000


SEEN_BY = {  # linear RGB as people without one kind of cone see it (Machado, Oliveira and Fernandes, 2009)
    "everyone": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopes": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopes": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopes": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}
TO_XYZ = np.array(((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)))


def nearest(colours, matrix):
    """The smallest difference of two colours in CIELAB; from 2 on it can be seen."""
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(matrix).T, 0, 1) @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    x, y, z = np.where(seen > 0.008856, np.cbrt(seen), 7.787 * seen + 16 / 116).T
    lab = np.stack([116 * y, 500 * (x - y), 200 * (y - z)], axis=1)
    return min(np.linalg.norm(one - other) for one, other in itertools.combinations(lab, 2))


@pytest.mark.parametrize("who", SEEN_BY)
def test_colours_stay_apart(who):
    assert nearest(COLOURS, SEEN_BY[who]) > 15
    assert len(set(MARKERS)) == len(COLOURS)  # and no line is identified by colour only


def test_that_the_check_finds_red_and_green():
    pair = ("#a04020", "#607000")
    assert nearest(pair, SEEN_BY["everyone"]) > 40 and nearest(pair, SEEN_BY["deuteranopes"]) < 15
