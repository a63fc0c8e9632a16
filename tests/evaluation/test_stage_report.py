"""Diagnostics of the report warn when they should."""

import numpy as np

from c3r_jax.core.config import C3RConfig
from c3r_jax.core.tasks.regression import Regression
from c3r_jax.evaluation.collapse import constant_prediction_notes
from c3r_jax.evaluation.stage_report import first_stage_report


def sample(rng, n, strength, names=("a", "b")):
    shared = rng.normal(size=(n, 2))
    return {name: (strength * shared + rng.normal(size=(n, 2))).astype(np.float32) for name in names}


def report(strength, *, names=("a", "b"), act=0.0, n=400):
    rng = np.random.default_rng(0)
    held_out = sample(rng, n, strength, names)
    own = held_out["b"] - held_out["a"]  # what b knows and a does not
    labels = (held_out["a"][:, 0] + act * own[:, 0] + 0.5 * rng.normal(size=n) > 0).astype(int)
    present = np.ones((n, len(names)), bool)
    return first_stage_report(held_out, present, labels, config=C3RConfig.hinge(), num_classes=2)


def test_a_strong_instrument_is_not_called_weak():
    found, notes = report(2.0)
    assert notes == []
    assert not found["a"]["weak"] and found["a"]["f_median"] > 100 and found["a"]["over_identification"] is None


def test_a_weak_instrument_is_called_weak():
    found, notes = report(0.05)
    assert found["a"]["weak"] and found["b"]["weak"]
    assert len(notes) == 2 and all("is weak: median F" in note for note in notes)


def test_over_identification_is_rejected_when_another_modality_acts_on_the_label():
    names = ("a", "b", "c")
    found, notes = report(2.0, names=names, act=2.0)
    assert found["a"]["over_identification"]["p_value"] < 1e-4 and found["a"]["over_identification"]["dof"] == 2
    assert any("over-identification is rejected for a" in note for note in notes)


def test_where_no_class_can_be_tested_over_identification_is_not_known():
    rng = np.random.default_rng(0)
    h = sample(rng, 200, 2.0, ("a", "b", "c"))
    shared = {"config": C3RConfig(), "num_classes": 3}
    found, notes = first_stage_report(h, np.ones((200, 3), bool), np.ones(200, int), **shared)
    assert notes == [] and [stage["over_identification"] for stage in found.values()] == [None] * 3
    two = (h["a"][:, 0] > 0).astype(int)  # a third class that no row has is not counted among the tests
    with_third, _ = first_stage_report(h, np.ones((200, 3), bool), two, **shared)
    without, _ = first_stage_report(h, np.ones((200, 3), bool), two, config=C3RConfig(), num_classes=2)
    assert with_third["b"]["over_identification"] == without["b"]["over_identification"] is not None


def test_the_warning_of_a_weak_instrument_has_size_and_power():
    """n = 300: independent modalities are called weak in 95 of 100 draws at least, a strong instrument in 5 at most."""
    weak = {0.0: 0, 2.0: 0}
    for strength in weak:
        for seed in range(100):
            h = sample(np.random.default_rng(seed), 300, strength)
            found, notes = first_stage_report(
                h, np.ones((300, 2), bool), np.zeros(300), config=C3RConfig(), num_classes=1
            )
            weak[strength] += found["a"]["weak"]
            assert any("of a is weak" in note for note in notes) == found["a"]["weak"]
    assert weak[0.0] >= 95 and weak[2.0] <= 5


def test_strength_is_of_all_rows_and_tests_are_of_held_out_ones():
    rng = np.random.default_rng(0)
    h, present, labels = sample(rng, 300, 2.0), np.ones((300, 2), bool), rng.integers(0, 2, 300)
    held = np.arange(300) < 80
    shared = {"config": C3RConfig(), "num_classes": 2}
    found, _ = first_stage_report(h, present, labels, held=held, **shared)
    other, _ = first_stage_report(h, present, np.where(held, labels, 0), held=held, **shared)
    assert found == other and found["a"]["n"] == 300 and found["a"]["leave_one_out"]
    alone, _ = first_stage_report(
        {name: value[held] for name, value in h.items()}, present[held], labels[held], **shared
    )
    assert alone["a"]["exclusion"] == found["a"]["exclusion"] and alone["a"]["f_median"] < found["a"]["f_median"]
    present[:100, 1] = False  # rows with a missing modality, whose values may be anything
    h["b"][:100] = np.nan
    part, _ = first_stage_report(h, present, labels, **shared)
    assert part["a"]["n"] == 200 and np.isfinite(part["a"]["r2_mean"])
    numbers, _ = first_stage_report(h, present, h["a"][:, 0], **shared)
    assert numbers["a"]["exclusion"] is None  # within a class: numbers have none


def test_without_a_first_stage_there_is_no_report():
    config = C3RConfig(instrument="none")
    assert first_stage_report({}, np.ones((0, 2), bool), np.zeros(0), config=config, num_classes=2) == ({}, [])


def test_collapse_is_called_by_name():
    labels = np.array([0] * 6 + [1] * 4)

    upside_down = np.eye(2)[1 - labels]
    assert "collapsed or the labels are inverted" in constant_prediction_notes(upside_down, labels, labels)[0]
    assert constant_prediction_notes(np.eye(2)[labels], labels, labels) == []
    chance = np.eye(2)[labels.copy()]
    chance[:5] = np.eye(2)[1 - labels[:5]]  # half are correct, where the commonest label has .6 of ten rows
    assert constant_prediction_notes(chance, labels, labels) == []
    numbers = np.array([0.0, 0.0, 1.0, 5.0] * 25)
    target = Regression(tolerance=100.0)  # every prediction is accurate
    assert constant_prediction_notes(numbers[:, None] + 0.1, numbers, numbers, target) == []
    (note,) = constant_prediction_notes(-numbers[:, None], numbers, numbers, target)
    assert note.startswith("mean absolute error 3 is above the 1.5 of the training median")  # of |y - 0.5|
    plain = constant_prediction_notes(upside_down, labels, labels, regularised=False)
    assert "train longer" in plain[0] and "c3r" not in plain[0]
