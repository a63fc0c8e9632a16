"""Scores against formulas written out by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from c3r_jax.evaluation.risk_report import probe_accuracy
from c3r_jax.evaluation.validate import subsets
from c3r_jax.metrics.classification import classification_metrics, per_class, predictions, reliability
from c3r_jax.metrics.intervals import wilson_interval


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    logits = rng.normal(size=(300, 4)).astype(np.float32)
    logits[np.arange(300), labels] += 1.0
    return logits, labels


def test_scores_by_the_formulas(scored):
    logits, labels = scored
    p = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(1, keepdims=True)
    hit = p.argmax(1) == labels
    recalls, f1 = [], []
    for k in range(4):
        true, said = labels == k, p.argmax(1) == k
        recall, precision = (true & said).sum() / true.sum(), (true & said).sum() / said.sum()
        recalls.append(recall)
        f1.append(2 * precision * recall / (precision + recall))
    ece = 0.0
    for low in np.arange(5) / 5:
        rows = (p.max(1) >= low) & (p.max(1) < low + 0.2)
        if rows.any():
            ece += rows.mean() * abs(p.max(1)[rows].mean() - hit[rows].mean())
    scores = classification_metrics(logits, labels, num_bins=5)
    expected = {
        "accuracy": hit.mean(),
        "balanced_accuracy": np.mean(recalls),
        "macro_f1": np.mean(f1),
        "nll": -np.log(p[np.arange(300), labels]).mean(),
        "ece": ece,
    }
    assert scores.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name], value, rtol=1e-9)


def test_macro_f1_counts_classes_that_are_only_predicted():
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 5, 8, 30):
        for _ in range(20):
            logits, labels = rng.normal(size=(size, 5)), rng.integers(0, rng.integers(1, 6), size)
            expected = f1_score(labels, logits.argmax(1), average="macro", zero_division=0)
            assert classification_metrics(logits, labels)["macro_f1"] == pytest.approx(expected, abs=1e-12)
    logits = np.eye(3)[[0, 0, 1, 2]]  # no row has class 2
    found = classification_metrics(logits, np.array([0, 0, 1, 1]))
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    logits[3] = np.nan  # is wrong, but predicts no class
    assert classification_metrics(logits, np.array([0, 0, 1, 1]))["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)


def test_certain_and_right_is_perfect():
    logits = np.array([[50.0, 0.0], [0.0, 50.0]])
    scores = classification_metrics(logits, np.array([0, 1]))
    assert scores["accuracy"] == scores["macro_f1"] == 1.0
    assert scores["ece"] < 1e-9 and scores["nll"] < 1e-9
    bins = reliability(logits, np.array([0, 1]))
    assert bins["count"] == [0] * 9 + [2]  # confidence 1 belongs to the last bin


def test_a_non_finite_row_is_wrong():
    logits = np.array([[np.nan, 0.0], [np.inf, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(predictions(logits), [-1, -1, 0])
    assert np.mean(predictions(logits) == np.array([0, 0, 0])) == pytest.approx(1 / 3)


def test_per_class_counts_absent_classes(scored):
    logits, labels = scored
    rows = per_class(logits, np.minimum(labels, 2), ("a", "b", "c", "d"))
    assert rows["d"]["support"] == 0 and rows["d"]["recall"] == 0.0
    assert sum(row["support"] for row in rows.values()) == 300


def test_wilson_interval_covers():
    """Over binomial samples the 95 % interval holds the true share about 95 % of the time."""
    rng = np.random.default_rng(0)
    for share in (0.05, 0.5):
        counts = rng.binomial(100, share, 2000)
        ends = np.array([wilson_interval(c / 100, 100) for c in counts])
        covered = ((ends[:, 0] <= share) & (share <= ends[:, 1])).mean()
        assert 0.925 <= covered <= 0.985
    z = stats.norm.ppf(0.975)
    low, high = wilson_interval(0.3, 50)
    for end in (low, high):  # the ends solve (p - 0.3)^2 = z^2 p (1 - p) / n
        np.testing.assert_allclose((end - 0.3) ** 2, z**2 * end * (1 - end) / 50)
    assert wilson_interval(0.0, 10)[0] == 0.0 and wilson_interval(1.0, 10)[1] == pytest.approx(1.0)


def test_probe_reads_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    outputs = np.where(labels, 1.0, -1.0)[:, None] + rng.normal(size=(400, 3))
    noise = rng.normal(size=(400, 3))
    assert probe_accuracy(outputs[:200], labels[:200], outputs[200:], labels[200:]) > 0.9
    assert abs(probe_accuracy(noise[:200], labels[:200], noise[200:], labels[200:]) - 0.5) < 0.12
    assert probe_accuracy(noise[:9], np.zeros(9, int), noise[:4], np.array([0, 0, 0, 1])) == 0.75


def test_subsets_are_all_of_them():
    masks = subsets(3)
    assert len(masks) == 7 and masks[0].all()
    assert len({tuple(mask) for mask in masks}) == 7 and all(mask.any() for mask in masks)
