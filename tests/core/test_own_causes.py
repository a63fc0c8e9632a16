"""Causes of one modality's own against effects of the label, on data where it is known which they are."""

import numpy as np
import pytest

from c3r_jax import own_causes

ROWS = 1000


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def causes(seed=0, rows=ROWS):
    """Each modality sees a cause of its own, and one that both see."""
    shared, *own = noise(3, rows, seed=seed)
    others = noise(2, rows, 4, seed=seed + 7)
    inputs = {
        m: np.column_stack([shared + 0.3 * other[:, 0], cause, other[:, 1:]])
        for m, cause, other in zip("ab", own, others, strict=True)
    }
    return inputs, (shared + own[0] + own[1] > 0).astype(int)


def effects(seed=0, rows=ROWS, classes=2):
    """Each modality sees the label, and a cue that is right nine times out of ten."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    inputs = {}
    for m in "ab":
        cue = np.where(rng.random(rows) < 0.9, labels, rng.integers(0, classes, rows))
        inputs[m] = np.column_stack([np.eye(classes)[labels], 2 * np.eye(classes)[cue]]) + rng.standard_normal(
            (rows, 2 * classes)
        )
    return inputs, labels


def share(sample, **settings):
    inputs, labels = sample
    return own_causes(inputs, labels, num_classes=int(labels.max()) + 1, **settings)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rows", [300, 1000])
def test_it_tells_causes_from_effects(seed, rows):
    found, of_cues, of_five = (share(s) for s in (causes(seed, rows), effects(seed, rows), effects(seed, rows, 5)))
    assert found.likely and found.possible and found.num_rows == rows
    assert not of_cues.possible and not of_five.possible
    assert found.by_modality["a"] > 0.4 and found.by_modality["b"] > 0.4


def test_one_modality_with_a_cause_of_its_own_is_named():
    inputs, labels = causes()
    other = {"a": inputs["a"], "b": np.column_stack([inputs["b"][:, 0], noise(ROWS, seed=9)])}
    found = share((other, labels)).by_modality
    assert found["a"] > 0.6
    assert not found["b"] > 0.4


def test_units_shifts_and_constant_columns_change_nothing():
    inputs, labels = causes()
    found = share((inputs, labels))
    scale, offset = np.geomspace(1e-4, 1e4, 5), np.arange(5) * 100.0
    others = {m: np.column_stack([x * scale + offset, np.full(ROWS, 3.0)]) for m, x in inputs.items()}
    assert share((others, labels)).share == pytest.approx(found.share, rel=1e-6)
    renamed = {"z": inputs["a"], "b": inputs["b"]}
    assert share((renamed, labels)).by_modality["z"] == pytest.approx(found.by_modality["a"], rel=1e-9)


def test_rows_that_lack_a_modality_do_not_count():
    inputs, labels = causes(rows=600)
    present = np.ones((600, 2), bool)
    present[::5, 1] = False
    kept = present.all(1)
    expected = share((inputs, labels), present=present)
    garbage = {**inputs, "b": np.where(present[:, 1:], inputs["b"], 1e9)}
    assert share((garbage, labels), present=present) == expected
    assert expected.num_rows == kept.sum()


def test_what_is_no_more_than_noise_is_not_judged():
    labels = np.arange(ROWS) % 2 == 0
    for seed in range(10):
        inputs = dict(zip("ab", noise(2, ROWS, 5, seed=seed), strict=True))
        assert np.isnan(own_causes(inputs, labels, num_classes=2).share)


def test_a_column_that_varies_in_one_half_alone_and_rows_of_nan():
    inputs, labels = causes(rows=600)
    odd = {m: np.column_stack([x, np.arange(600) == 7]) for m, x in inputs.items()}
    assert share((odd, labels)).share == pytest.approx(share((inputs, labels)).share, rel=1e-6)
    once = {"a": (np.arange(600) == 7)[:, None], "b": inputs["b"]}
    assert np.isnan(share((once, labels)).by_modality["a"])
    present = np.ones((600, 2), bool)
    present[::5, 1] = False
    absent = {**inputs, "b": np.where(present[:, 1:], inputs["b"], np.nan)}
    assert share((absent, labels)) == share((inputs, labels), present=present)


def test_more_columns_than_rows():
    inputs, labels = causes(rows=400)
    mixed = {m: x @ noise(5, 600, seed=i) + noise(400, 600, seed=5 + i) for i, (m, x) in enumerate(inputs.items())}
    assert share((mixed, labels)).possible


def test_too_little_to_know():
    few = share(causes(rows=150))
    assert np.isnan(few.share) and not few.likely and not few.possible
    _, labels = causes()
    nothing = own_causes({"a": np.ones((ROWS, 2)), "b": np.ones((ROWS, 2))}, labels, num_classes=2)
    assert np.isnan(nothing.share) and not nothing.likely
    with pytest.raises(ValueError, match="two modalities or more of shape"):
        own_causes({"a": np.ones((5, 2))}, np.zeros(5, int), num_classes=2)
