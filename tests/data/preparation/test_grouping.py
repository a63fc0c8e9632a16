"""Groups stay together, shares are met, and the deal depends on nothing but names, sizes and seed."""

import numpy as np

from c3r_jax.data.preparation.grouping import UnionFind, assign_splits, assign_splits_by_class

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def test_sets_are_joined_through_members():
    union = UnionFind(6)
    union.join_equal(["a", "b", None, None, "b", "c"])
    union.join_equal([None, None, "x", None, "x", "y"])
    assert [union.find(i) for i in range(6)] == [0, 1, 1, 3, 1, 5]


def test_shares_and_seed():
    sizes = {f"g{i}": 1 + i % 4 for i in range(60)}
    dealt = assign_splits(sizes, SHARES, 3)
    counts = {split: sum(size for name, size in sizes.items() if dealt[name] == split) for split in SHARES}
    assert counts == {"train": 90, "validation": 30, "test": 30}
    assert assign_splits(dict(reversed(sizes.items())), SHARES, 3) == dealt
    assert assign_splits(sizes, SHARES, 4) != dealt


def test_every_class_is_dealt_alone():
    groups = [f"g{i // 2}" for i in range(200)]
    labels = [i // 2 % 4 for i in range(200)]
    labels[1] = 3  # one group of two classes
    sides = assign_splits_by_class(groups, labels, SHARES, 0)
    of = np.array([sides[group] for group in groups])
    for label in range(1, 4):
        found = of[(np.array(labels) == label) & (np.arange(200) > 1)]
        assert [(found == split).sum() for split in SHARES] == [30, 10, 10]
