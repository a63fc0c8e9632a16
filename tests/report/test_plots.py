import numpy as np
import pytest
from PIL import Image

from c3r_jax.report import (
    aggregate,
    modality_bars,
    reliability_diagram,
    risk_curves,
    robustness_curves,
    training_curves,
)
from c3r_jax.report.pictures import example_figure, modality_heat_map
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


def test_heat_map_and_example_are_drawn(runs, run, tmp_path):
    path = modality_heat_map(aggregate(runs), tmp_path / "subsets.png")
    assert path is not None and path.stat().st_size > 5000
    run["conditions"] = run["conditions"][:1]
    assert modality_heat_map(aggregate([run]), tmp_path / "none.png") is None
    record = make_record(3, "紅 $5 and $6 {")  # neither formulas nor letters that the font lacks stop it
    assert example_figure(record, tmp_path / "example.png").stat().st_size > 5000
