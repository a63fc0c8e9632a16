"""The first stage on frozen features: equal to NumPy's ridge, and a repair of a plainly trained model."""

import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax import C3RConfig, PostHocInstrument
from c3r_jax.errors import DataError


def features(n, seed):
    """Two measurements of s, the label; each beside a loud uninformative column of its own."""
    rng = np.random.default_rng(seed)
    s = rng.choice([-1.0, 1.0], n)
    labels = (s > 0).astype(int)
    h = {}
    for name in ("a", "b"):
        h[name] = np.stack([s + 0.5 * rng.normal(size=n), 3 * rng.normal(size=n)], axis=1).astype(np.float32)
    return h, labels


def head(z):
    score = z[:, 0] + z[:, 1]
    return jnp.stack([-score, score], axis=1)


def test_is_ridge_regression_by_numpy():
    h, _ = features(300, 0)
    repair = PostHocInstrument(head, config=C3RConfig(ridge=0.1)).fit(h)
    parts = []
    for own, other in (("a", "b"), ("b", "a")):
        v, y = np.float64(h[other]), np.float64(h[own])
        cv = v - v.mean(0)
        gram = cv.T @ cv / 300
        coef = np.linalg.solve(gram + 0.1 * np.diag(np.diag(gram)), cv.T @ (y - y.mean(0)) / 300)  # of scaled columns
        parts.append(y.mean(0) + cv @ coef)
    np.testing.assert_allclose(repair.transform(h), np.mean(parts, axis=0), rtol=1e-4, atol=1e-5)


def test_repairs_a_head_that_reads_what_is_specific_to_one_modality():
    train, _ = features(2000, 1)
    test, labels = features(2000, 2)
    repair = PostHocInstrument(head).fit(train)
    audit = repair.audit(test, labels)
    assert audit["accuracy"] < 0.75 < audit["instrument_accuracy"] == (repair.predict(test) == labels).mean()
    assert audit["risk"]["sufficiency"] == pytest.approx(1 - audit["instrument_accuracy"])
    assert set(audit["first_stage"]) == {"a", "b"}


def test_a_loud_column_that_the_head_does_not_read_changes_nothing():
    h, labels = features(2000, 1)
    quiet = PostHocInstrument(lambda z: head(z[:, :2])).fit({m: np.c_[x, x[:, :1] * 0] for m, x in h.items()})
    noise = np.random.default_rng(3).normal(size=(2, 2000, 1)).astype(np.float32)
    loud = {m: np.c_[x, 1e4 * other] for (m, x), other in zip(h.items(), noise, strict=True)}
    repair = PostHocInstrument(lambda z: head(z[:, :2])).fit(loud)
    expected = (quiet.predict({m: np.c_[x, x[:, :1] * 0] for m, x in h.items()}) == labels).mean()
    assert (repair.predict(loud) == labels).mean() == pytest.approx(expected, abs=0.01)
    assert repair.audit(loud, labels)["instrument_accuracy"] > 0.75
    earlier = PostHocInstrument(head).fit(h)
    before = earlier.transform(h)
    earlier._scales = dict.fromkeys(h, np.ones((1, 2), np.float32))
    scaled = earlier.transform(h)
    del earlier._scales  # as pickled by an earlier version, whose moments are of columns as they are
    np.testing.assert_array_equal(earlier.transform(h), scaled)
    assert not np.allclose(before, scaled)


def test_a_missing_modality_and_a_fusion_of_the_users_own():
    h, _ = features(200, 3)
    present = np.ones((200, 2), bool)
    present[::3, 1] = False
    repair = PostHocInstrument(head).fit(h, present=present)
    poisoned = {**h, "b": np.where(present[:, 1:], h["b"], 1e30).astype(np.float32)}
    np.testing.assert_array_equal(repair.transform(h, present=present), repair.transform(poisoned, present=present))
    weighted = PostHocInstrument(head, lambda h, present: 0.5 * h["a"] + 0.5 * h["b"]).fit(h)
    np.testing.assert_allclose(weighted.transform(h), PostHocInstrument(head).fit(h).transform(h), rtol=1e-5)


def test_clear_refusals():
    h, _ = features(200, 4)
    with pytest.raises(DataError, match="has not been fitted"):
        PostHocInstrument(head).predict(h)
    with pytest.raises(DataError, match="at least 2"):
        PostHocInstrument(head).fit({"a": h["a"]})
    with pytest.raises(DataError, match="10 rows have every modality"):
        PostHocInstrument(head).fit({name: x[:10] for name, x in h.items()})
    with pytest.raises(DataError, match="holds a NaN"):
        PostHocInstrument(head).fit({**h, "b": h["b"] * np.nan})
    with pytest.raises(DataError, match="present has shape"):
        PostHocInstrument(head).fit(h, present=np.ones((200, 3), bool))
    with pytest.raises(DataError, match="features are ndarray, but a dict"):
        PostHocInstrument(head).fit(h["a"])
    with pytest.raises(ValueError, match="config is 'strong', but a C3RConfig"):
        PostHocInstrument(head, config="strong")
    with pytest.raises(ValueError, match="instrument is 'none'"):
        PostHocInstrument(head, config=C3RConfig(instrument="none"))
    with pytest.raises(
        DataError, match=r"widths \{'a': 2, 'b': 1\}, of which no mean can be taken: give the model's own"
    ):
        PostHocInstrument(head).fit({**h, "b": h["b"][:, :1]})
    with pytest.raises(DataError, match=r"features\['b'\] has dtype <U1, but numbers were expected"):
        PostHocInstrument(head).fit({**h, "b": np.full((200, 2), "x")})


def test_small_features_in_float16_are_those_in_float32():
    """Their scale, 1e-6, is below what float16 keeps."""
    h = {name: (1e-6 * x).astype(np.float16) for name, x in features(200, 4)[0].items()}
    half, single = (
        PostHocInstrument(head).fit(each).predict_logits(each)
        for each in (h, {name: x.astype(np.float32) for name, x in h.items()})
    )
    np.testing.assert_array_equal(half, single)


def test_a_row_without_a_finite_logit_is_wrong():
    h, labels = features(300, 0)
    found = PostHocInstrument(lambda z: jnp.full((len(z), 2), jnp.nan)).fit(h).audit(h, labels)
    assert found["accuracy"] == found["instrument_accuracy"] == 1 - found["risk"]["sufficiency"] == 0


def test_pairs_of_rows_are_a_counterfactual_of_an_audit():
    h, labels = features(300, 0)
    repair = PostHocInstrument(head, config=C3RConfig(counterfactual="permute")).fit(h)
    first, again = (repair.audit(h, labels)["risk"] for _ in range(2))
    assert first == again and first["necessity"] > 0


def test_whole_numbers_are_read_as_numbers():
    h, _ = features(200, 4)
    counts = {name: np.round(10 * x).astype(int) for name, x in h.items()}
    floats = {name: x.astype(np.float32) for name, x in counts.items()}
    expected = PostHocInstrument(head).fit(floats).transform(floats)
    np.testing.assert_array_equal(PostHocInstrument(head).fit(counts).transform(counts), expected)


@pytest.mark.parametrize(
    "change", [{"b": None}, {"b": None, "z": np.ones((200, 2))}, {"b": np.ones((200, 1))}, {"c": np.ones((200, 2))}]
)
def test_other_features_than_those_of_fit_are_refused(change):
    h, _ = features(200, 5)
    repair = PostHocInstrument(head).fit(h)
    other = {name: x for name, x in ({**h, **change}).items() if x is not None}
    with pytest.raises(DataError, match=r"as in fit were expected"):
        repair.predict(other)


def test_labels_of_an_audit_are_classes():
    h, labels = features(200, 6)
    with pytest.raises(DataError, match="whole numbers"):
        PostHocInstrument(head).fit(h).audit(h, labels.astype(str))
