"""Which modality is necessary, which is enough: against the definition by hand, and on a world that is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core.counterfactual import drop_modality
from c3r_jax.evaluation.attribution import attribution

NAMES = ("a", "b")
MEANS = {"a": np.zeros(2, np.float32), "b": np.array([0.0, 1.0], np.float32)}


def fuse(h, present):
    return sum(jnp.where(present[:, [m]], h[name], 0) for m, name in enumerate(NAMES))


def rows(*pairs):
    a, b = zip(*pairs, strict=True)
    return {"a": jnp.array(a, jnp.float32), "b": jnp.array(b, jnp.float32)}


@pytest.mark.parametrize(
    ("a", "b", "label", "necessary", "sufficient"),
    [
        ([3, 0], [0, 0], 0, [False, False], [True, True]),  # without a: a tie, which goes to class 0
        ([3, 0], [3, 0], 0, [False, False], [True, True]),  # redundant: none is necessary, each is enough
        ([3, 0], [0, 1], 0, [True, False], [True, False]),
        ([0.9, 0], [0.5, 0.9], 0, [True, True], [True, False]),  # both are needed, one is enough
    ],
)
def test_by_hand(a, b, label, necessary, sufficient):
    found = attribution(lambda z: z, fuse, rows((a, b)), jnp.ones((1, 2), bool), MEANS)
    assert int(found.label[0]) == label
    assert found.necessary[0].tolist() == necessary and found.sufficient[0].tolist() == sufficient
    np.testing.assert_allclose(found.probabilities.sum(-1), 1, rtol=1e-6)
    changed = np.array([MEANS["a"] + np.array(b), np.array(a) + MEANS["b"]])
    expected = np.exp(changed) / np.exp(changed).sum(-1, keepdims=True)
    np.testing.assert_allclose(found.without[0], expected, rtol=1e-5)


def test_rows_are_independent_and_absent_modalities_count_for_nothing():
    features = rows(([3, 0], [0, 1]), ([0, 2], [5, 5]), ([1, 0], [9, 0]))
    present = jnp.array([[True, True], [True, False], [False, True]])
    features = {n: jnp.where(present[:, [m]], features[n], 0) for m, n in enumerate(NAMES)}
    whole = attribution(lambda z: z, fuse, features, present, MEANS)
    for i in range(3):
        own = attribution(lambda z: z, fuse, {n: x[i : i + 1] for n, x in features.items()}, present[i : i + 1], MEANS)
        for one, all_rows in zip(own, whole, strict=True):
            np.testing.assert_allclose(one[0], all_rows[i])
    assert not whole.necessary[~present].any() and not whole.sufficient[~present].any()
    assert whole.necessary.tolist() == [[True, False], [True, False], [False, True]]


def test_drop_modality_takes_a_mean_from_elsewhere():
    features = rows(([3, 0], [0, 1]), ([0, 2], [5, 5]))
    dropped = drop_modality(features, "b", mean=MEANS["b"])
    np.testing.assert_array_equal(dropped["b"], [[0, 1], [0, 1]])
    assert dropped["a"] is features["a"]
    with pytest.raises(ValueError, match=r"mean has shape \(3,\), but \(2,\) was expected"):
        drop_modality(features, "b", mean=jnp.zeros(3))
