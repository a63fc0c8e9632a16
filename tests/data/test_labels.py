"""Labels of every task, from a source to the batch that a step takes."""

import numpy as np
import pytest

from c3r_jax.data.array_source import ArraySource
from c3r_jax.data.batches.one_pass import eval_batches
from c3r_jax.data.batches.pipeline import train_batches
from c3r_jax.data.source import DatasetInfo
from c3r_jax.errors import DataError

RNG = np.random.default_rng(0)
LABELS = {
    "classification": (RNG.integers(0, 3, 5), np.int32),
    "multilabel": (RNG.integers(0, 2, (5, 3)), np.int32),
    "regression": (RNG.normal(size=5), np.float32),
    "segmentation": (RNG.integers(0, 3, (5, 2, 3, 4)), np.uint8),
}


def source(task, labels):
    names = () if task == "regression" else ("a", "b", "c")
    columns = {"sound": np.arange(5, dtype=np.float32)[:, None]}
    return ArraySource(columns, labels, info=DatasetInfo("demo", ("sound",), names, task=task))


@pytest.mark.parametrize("task", LABELS)
def test_labels_reach_the_batch_as_they_are(task, list_source):
    labels, dtype = LABELS[task]
    arrays = source(task, labels)
    plain = list_source([arrays[i] for i in range(5)], arrays.info)
    for made in (arrays, plain):
        (batch,) = list(eval_batches(made, None, batch_size=5))
        assert batch["labels"].dtype == dtype
        np.testing.assert_array_equal(batch["labels"], labels.astype(dtype))
        (shuffled,) = [next(train_batches(made, None, batch_size=5, seed=0))]
        np.testing.assert_array_equal(shuffled["labels"], labels.astype(dtype)[shuffled["index"]])


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        ("ranking", np.zeros(3, int), "'ranking', expected one of classification"),
        ("classification", np.zeros((3, 2), int), r"shape \(3, 2\), expected integers of shape \(n,\)"),
        ("multilabel", np.zeros(3, int), r"expected integers of shape \(n, K\)"),
        ("multilabel", np.zeros((3, 2), int), r"shape \(3, 2\), expected a column for each of 3 classes"),
        ("multilabel", np.array([[0, 1, 2]]), "Example 0 of 'demo' has label 2, expected 0 to 1"),
        ("regression", np.zeros(3, int), "expected floats"),
        ("regression", np.array([0.0, np.nan]), "Example 1 of 'demo' has label nan, expected a finite number"),
        ("segmentation", np.zeros((3, 4), int), r"\(n, \.\.\., height, width\)"),
        ("segmentation", np.full((1, 2, 2), 4), "Example 0 of 'demo' has label 4, expected 0 to 2"),
    ],
)
def test_labels_of_another_shape_or_range_are_refused(task, labels, message):
    with pytest.raises(DataError, match=message):
        DatasetInfo("demo", ("sound",), ("a", "b", "c"), task=task).check_labels(labels)


def test_masks_of_several_shapes_are_named(list_source):
    masks = [np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.uint8)]
    info = DatasetInfo("demo", ("sound",), ("a", "b"), task="segmentation")
    examples = [{"sound": np.ones(1, np.float32), "label": mask} for mask in masks]
    with pytest.raises(DataError, match=r"Example 1 of 'demo' has 'label' of shape \(2, 2, 3\), expected \(2, 2, 2\)"):
        list(eval_batches(list_source(examples, info), None, batch_size=2))
