"""Scores of every task against scikit-learn, scipy and plain loops."""

import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from c3r_jax.metrics.classification import classification_metrics
from c3r_jax.metrics.multilabel import multilabel_metrics, multilabel_per_class
from c3r_jax.metrics.regression import regression_metrics
from c3r_jax.metrics.scores import SCORES, score_of
from c3r_jax.tasks.multilabel import MULTILABEL
from c3r_jax.tasks.registry import LABELLED, TASKS
from c3r_jax.tasks.regression import REGRESSION

RNG = np.random.default_rng(0)


def test_binary_scores_are_those_of_scikit_learn():
    labels = RNG.integers(0, 2, 300)
    logits = RNG.normal(size=(300, 2)).round(1) + labels[:, None] * [-0.5, 0.5]  # with ties
    found = classification_metrics(logits, labels)
    score = logits[:, 1] - logits[:, 0]
    np.testing.assert_allclose(found["auroc"], metrics.roc_auc_score(labels, score), rtol=1e-6)
    np.testing.assert_allclose(found["average_precision"], metrics.average_precision_score(labels, score), rtol=1e-6)
    pairs = score[labels == 1][:, None] - score[labels == 0][None]
    np.testing.assert_allclose(found["auroc"], ((pairs > 0) + 0.5 * (pairs == 0)).mean(), rtol=1e-6)
    assert "auroc" not in classification_metrics(RNG.normal(size=(9, 3)), np.arange(9) % 3)


def test_binary_scores_without_a_class_and_with_what_is_not_finite():
    one = classification_metrics(RNG.normal(size=(5, 2)), np.zeros(5, int))
    assert np.isnan(one["auroc"]) and np.isnan(one["average_precision"])
    logits, labels = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, np.nan]]), np.array([1, 0, 1])
    assert classification_metrics(logits, labels)["auroc"] == 0.5  # the last ranks below every other


def test_multilabel_scores_are_those_of_scikit_learn():
    labels = (RNG.random((200, 4)) < [0.5, 0.2, 0.7, 0.0]).astype(int)  # a label that nobody has
    logits = RNG.normal(size=(200, 4)) + 2 * labels - 1
    said, p = (logits > 0).astype(int), 1 / (1 + np.exp(-logits))
    expected = {
        "macro_f1": metrics.f1_score(labels, said, average="macro", zero_division=0),
        "micro_f1": metrics.f1_score(labels, said, average="micro"),
        "map": metrics.average_precision_score(labels[:, :3], logits[:, :3], average="macro"),
        "exact_match": metrics.accuracy_score(labels, said),
        "accuracy": 1 - metrics.hamming_loss(labels, said),
        "nll": -np.log(np.where(labels == 1, p, 1 - p)).mean(),
    }
    found = multilabel_metrics(logits, labels)
    assert set(found) == set(MULTILABEL.scores)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)
    rows = multilabel_per_class(logits, labels, ("a", "b", "c", "d"))
    np.testing.assert_allclose(rows["b"]["recall"], metrics.recall_score(labels[:, 1], said[:, 1]))
    assert rows["d"]["support"] == 0
    spoiled = np.where(np.arange(200)[:, None] == 3, np.nan, logits)
    assert multilabel_metrics(spoiled, labels)["exact_match"] == pytest.approx(
        np.mean([(said[i] == labels[i]).all() and i != 3 for i in range(200)])
    )


def test_a_single_label_is_no_pair_of_classes():
    labels, logits = np.array([[1], [0], [0], [1]]), np.array([[2.0], [3.0], [np.inf], [-1.0]])
    found = multilabel_metrics(logits, labels)
    # One of three called ones is right (what is not finite is wrong), one of two is found.
    assert found["macro_f1"] == found["micro_f1"] == pytest.approx(2 * 1 / (3 + 2))
    row = multilabel_per_class(logits, labels, ("a",))["a"]
    assert (row["precision"], row["recall"], row["support"]) == (pytest.approx(1 / 3), 0.5, 2)
    assert multilabel_metrics(-np.ones((2, 1)), np.zeros((2, 1), int))["macro_f1"] == 0


def mmsa(said, truth):
    """The regression scores of MMSA's definitions, class by class in plain loops."""

    def weighted_f1(predicted, positive):
        total = 0.0
        for value in (False, True):
            hit = sum(t == value and p == value for t, p in zip(predicted, positive, strict=True))
            called, there = sum(t == value for t in predicted), sum(p == value for p in positive)
            total += there / len(positive) * (2 * hit / (called + there) if called + there else 0.0)
        return total

    decided = [i for i, y in enumerate(truth) if y != 0]
    zero = ([x >= 0 for x in said], [y >= 0 for y in truth])
    nonzero = ([said[i] > 0 for i in decided], [truth[i] > 0 for i in decided])
    seven = [round(min(3.0, max(-3.0, x))) == round(min(3.0, max(-3.0, y))) for x, y in zip(said, truth, strict=True)]
    return {
        "mae": np.mean([abs(x - y) for x, y in zip(said, truth, strict=True)]),
        "pearson": np.corrcoef(said, truth)[0, 1],
        "acc7": np.mean(seven),
        "acc2": np.mean([t == p for t, p in zip(*zero, strict=True)]),
        "f1": weighted_f1(*zero),
        "acc2_nonzero": np.mean([t == p for t, p in zip(*nonzero, strict=True)]),
        "f1_nonzero": weighted_f1(*nonzero),
        "accuracy": np.mean([abs(x - y) <= 0.5 for x, y in zip(said, truth, strict=True)]),
    }


def test_regression_scores_are_those_of_mmsa():
    truth = np.clip(RNG.normal(size=400) * 1.5, -3, 3).round(1)
    truth[:40] = 0.0
    said = truth + RNG.normal(size=400) * 1.2  # some beyond [-3, 3]
    said[:6] = [0.0, 0.5, -0.5, 1.5, 2.5, -2.5]  # halves round to even
    found = regression_metrics(said[:, None], truth, tolerance=0.5)
    assert set(found) == set(REGRESSION.scores)
    for name, value in mmsa(said.tolist(), truth.tolist()).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(found["pearson"], stats.pearsonr(said, truth).statistic, rtol=1e-6)
    decided = truth != 0
    expected = metrics.f1_score(truth[decided] > 0, said[decided] > 0, average="weighted")
    np.testing.assert_allclose(found["f1_nonzero"], expected, rtol=1e-6)


def test_regression_scores_that_are_undefined_are_nan():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        constant = regression_metrics(np.ones((4, 1)), np.arange(4.0), tolerance=0.5)
        zero = regression_metrics(np.arange(4.0)[:, None], np.zeros(4), tolerance=0.5)
        broken = regression_metrics(np.array([[np.nan], [1.0]]), np.array([1.0, 1.0]), tolerance=0.5)
    assert np.isnan(constant["pearson"]) and constant["mae"] == 1.0
    assert np.isnan(zero["acc2_nonzero"]) and np.isnan(zero["f1_nonzero"]) and zero["acc2"] == 1.0
    assert np.isnan(broken["mae"]) and broken["accuracy"] == 0.5 and broken["acc7"] == 0.5


def test_every_task_has_a_headline_that_is_read_one_way():
    assert {name: task.headline for name, task in LABELLED.items()} == {
        "classification": "accuracy",
        "multilabel": "macro_f1",
        "regression": "mae",
        "segmentation": "dice",
    }
    # A linear probe is fitted after training, so that no checkpoint is selected by one.
    assert {name for task in TASKS.values() for name in task.scores} == set(SCORES) - {"linear_probe"}
    lower = {name for name in SCORES if not score_of(name).higher}
    assert lower == {"mae", "nll", "ece"}
    assert score_of("dice_ET") == ("Dice ET", True, True) and score_of("other").name == "other"
