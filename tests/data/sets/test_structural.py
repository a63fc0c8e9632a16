"""Structural models: shares and strengths by their formulas, interventions that change nothing but what they should."""

import dataclasses

import numpy as np
import pytest

from c3r_jax.data.sets.structural import MODELS, REGIMES, StructuralModel

N = 40_000
SE = 4 * 0.5 / N**0.5  # four standard errors of a share


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def share(sample, cue):
    return float((sample.factors[cue] == sample.labels).mean())


def test_confounded_agreement_by_the_formula():
    """P(u = y) = E[sigmoid(2.2 (2s-1) + 1.5 + 1.5 (2 u' - 1))] by symmetry; reversed under shift."""
    expected = np.mean([sigmoid(a + 1.5 + b) for a in (-2.2, 2.2) for b in (-1.5, 1.5)])
    model = StructuralModel("confounded")
    same, shift = (model.sample(N, seed=0, regime=regime) for regime in REGIMES)
    for cue in model.cues:
        assert abs(share(same, cue) - expected) < SE
        assert abs(share(shift, cue) - (1 - expected)) < SE
    cause = np.mean([sigmoid(2.2 + a + b) for a in (-1.5, 1.5) for b in (-1.5, 1.5)])
    assert abs(model.oracle(same) - cause) < SE and abs(model.oracle(shift) - cause) < SE


@pytest.mark.parametrize(("name", "right"), [("anticausal", 0.9), ("null", 0.95)])
def test_anticausal_shares(name, right):
    model = StructuralModel(name)
    for regime, agree in (("same", 0.85), ("shift", 0.15)):
        sample = model.sample(N, seed=1, regime=regime)
        s, a, b = (sample.factors[key] for key in "sab")
        assert abs(model.oracle(sample) - right) < SE
        assert (a[s == 1] == 1).all() and abs(a[s == 0].mean() - 0.2) < 2 * SE
        assert (b[s == 0] == 0).all() and abs(b[s == 1].mean() - 0.8) < 2 * SE
        for cue in model.cues:
            assert abs(share(sample, cue) - agree) < SE
    assert (name == "null") == (model.cues == ())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("positive", [0.2, 0.7])
def test_positive_share(name, positive):
    sample = StructuralModel(name, 3, positive_share=positive).sample(N, seed=2)
    assert abs(sample.labels.mean() - positive) < SE


@pytest.mark.parametrize("m", [2, 3, 6])
@pytest.mark.parametrize("name", MODELS)
def test_shapes_for_any_number_of_modalities(name, m):
    model = StructuralModel(name, m)
    sample = model.sample(50, seed=3)
    assert sorted(sample.inputs) == list(model.modalities) and len(model.modalities) == m
    assert all(x.shape == (50, 24) and x.dtype == np.float32 for x in sample.inputs.values())
    assert sample.labels.dtype == np.int32 and set(sample.labels) <= {0, 1}


def test_an_intervention_changes_its_effects_and_nothing_else():
    model = StructuralModel("anticausal")
    before = model.sample(500, seed=4)
    cue = model.sample(500, seed=4, do={"c_m1": 1})
    assert (cue.factors["c_m1"] == 1).all()
    np.testing.assert_array_equal(cue.labels, before.labels)
    np.testing.assert_array_equal(cue.inputs["m2"], before.inputs["m2"])
    changed = before.factors["c_m1"] == 0
    assert ((cue.inputs["m1"] != before.inputs["m1"]).any(1) == changed).all()
    # The cause reaches the label, the other factors and through the label the cues.
    zero, one = (model.sample(500, seed=4, do={"s": value}) for value in (0, 1))
    assert ((zero.labels == 1) == (one.labels == 0)).all()  # the same examples are flipped in both worlds
    assert (one.factors["a"] == 1).all() and (zero.factors["b"] == 0).all()
    assert (zero.factors["c_m2"] != one.factors["c_m2"]).mean() > 0.5


def test_an_intervention_can_differ_by_example():
    model = StructuralModel("anticausal")
    coins = np.arange(30) % 2
    sample = model.sample(30, seed=4, do={"c_m2": coins})
    np.testing.assert_array_equal(sample.factors["c_m2"], coins)
    with pytest.raises(ValueError, match="one of them for each example"):
        model.sample(30, seed=4, do={"c_m2": coins[:5]})


def test_a_confounder_reaches_the_label():
    model = StructuralModel("confounded")
    zero, one = (model.sample(2000, seed=5, do={"u_m1": value}) for value in (0, 1))
    assert (one.labels >= zero.labels).all() and one.labels.mean() > zero.labels.mean() + 0.2
    np.testing.assert_array_equal(zero.inputs["m2"], one.inputs["m2"])


def test_shift_changes_only_what_the_cues_tell():
    model = StructuralModel("confounded")
    same, shift = (model.sample(500, seed=6, regime=regime) for regime in REGIMES)
    np.testing.assert_array_equal(same.inputs["m1"], shift.inputs["m1"])
    assert (same.labels != shift.labels).any()


def test_same_seed_same_numbers_and_other_seeds_others():
    model = StructuralModel("confounded")
    a, b, c = model.sample(20, seed=7), model.sample(20, seed=7), model.sample(20, seed=8)
    np.testing.assert_array_equal(a.inputs["m1"], b.inputs["m1"])
    assert (a.inputs["m1"] != c.inputs["m1"]).all()
    other = dataclasses.replace(model, seed=1).sample(20, seed=7)
    np.testing.assert_array_equal(a.labels, other.labels)
    assert (a.inputs["m1"] != other.inputs["m1"]).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StructuralModel("cause"), "structural model 'cause' is unknown"),
        (lambda: StructuralModel("null", 1), "num_modalities is 1"),
        (lambda: StructuralModel("null", seed=-1), "seed is -1"),
        (lambda: StructuralModel("anticausal", positive_share=0.1), "positive_share is 0.1"),
        (lambda: StructuralModel("null").sample(0, seed=0), "num_examples is 0"),
        (lambda: StructuralModel("null").sample(1, seed=0, regime="other"), "regime 'other' is unknown"),
        (lambda: StructuralModel("null").sample(1, seed=0, do={"u_m1": 1}), r"do names \['u_m1'\]"),
        (lambda: StructuralModel("null").sample(1, seed=0, do={"s": 0.5}), "do sets s to 0.5"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_cues_of_another_strength():
    """Of strength 0 they say nothing of the label, of strength s as much as asked; all else stays."""
    for name, letter in (("anticausal", "c"), ("confounded", "u")):
        world = StructuralModel(name)
        usual, asked = world.sample(4000, seed=1), world.sample(4000, seed=1, cue_strength=1.0)
        np.testing.assert_array_equal(usual.inputs["m1"], asked.inputs["m1"])
        np.testing.assert_array_equal(usual.labels, asked.labels)
        none = world.sample(4000, seed=1, cue_strength=np.zeros(4000))
        assert abs((none.factors[f"{letter}_m1"] == none.labels).mean() - 0.5) < 0.03
        np.testing.assert_array_equal(none.factors["s"], usual.factors["s"])
    strong = StructuralModel("anticausal").sample(4000, seed=1, cue_strength=1.3)
    assert abs((strong.factors["c_m1"] == strong.labels).mean() - (0.5 + 0.35 * 1.3)) < 0.02
    for wrong in (1.5, -0.1, np.ones(3)):
        with pytest.raises(ValueError, match="cue_strength is"):
            StructuralModel("anticausal").sample(4000, seed=1, cue_strength=wrong)
