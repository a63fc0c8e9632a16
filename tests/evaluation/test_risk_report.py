"""Diagnostics of the report warn when they should."""

import numpy as np

from c3r_jax.core.config import C3RConfig
from c3r_jax.core.moments import Moments
from c3r_jax.evaluation.collapse import constant_prediction_notes
from c3r_jax.evaluation.risk_report import first_stage_report


def moments_of(h):
    rows = np.concatenate(list(h.values()), axis=1).astype(np.float32)
    return Moments(np.float32(len(rows)), rows.mean(0), np.cov(rows.T, bias=True).astype(np.float32))


def sample(rng, n, strength, names=("a", "b")):
    shared = rng.normal(size=(n, 2))
    return {name: (strength * shared + rng.normal(size=(n, 2))).astype(np.float32) for name in names}


def report(strength, *, names=("a", "b"), act=0.0, n=400):
    rng = np.random.default_rng(0)
    fit, held_out = sample(rng, n, strength, names), sample(rng, n, strength, names)
    own = held_out["b"] - held_out["a"]  # what b knows and a does not
    labels = (held_out["a"][:, 0] + act * own[:, 0] + 0.5 * rng.normal(size=n) > 0).astype(int)
    present = np.ones((n, len(names)), bool)
    return first_stage_report(moments_of(fit), held_out, present, labels, config=C3RConfig.hinge(), num_classes=2)


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


def test_without_a_first_stage_there_is_no_report():
    assert first_stage_report(
        None, {}, np.ones((0, 2), bool), np.zeros(0), config=C3RConfig.hinge(), num_classes=2
    ) == (
        {},
        [],
    )


def test_collapse_is_called_by_name():
    labels = np.array([0] * 6 + [1] * 4)

    upside_down = np.eye(2)[1 - labels]
    assert "collapsed or the labels are inverted" in constant_prediction_notes(upside_down, labels, labels)[0]
    assert constant_prediction_notes(np.eye(2)[labels], labels, labels) == []
