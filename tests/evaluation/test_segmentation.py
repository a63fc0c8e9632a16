"""Overlap of regions against plain loops, volume by volume; merging; weighted risks of voxels."""

import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax
from c3r_jax.core.risk import risk_events
from c3r_jax.core.tasks.segmentation import Segmentation
from c3r_jax.data.preparation.layouts.brats import Brats2020
from c3r_jax.data.source import DatasetInfo
from c3r_jax.evaluation.risk_report import Voxels, voxel_probe
from c3r_jax.evaluation.segmentation import Overlap, overlap, regions_of

REGIONS = regions_of(DatasetInfo("brats", ("t1",), ("background", "a", "b", "c"), regions=Brats2020.regions))


def sets(said, truth, ids):
    a = {i for i, k in enumerate(said) if k in ids}
    b = {i for i, k in enumerate(truth) if k in ids}
    return len(a & b), len(a), len(b)


def test_regions_of_brats_and_of_other_sets():
    assert dict(REGIONS) == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
    other = DatasetInfo("organs", ("ct",), ("none", "liver", "spleen"))
    assert dict(regions_of(other)) == {"liver": (1,), "spleen": (2,)}


def volume(seed, *, empty=False):
    rng = np.random.default_rng(seed)
    truth = np.zeros(60, int) if empty else rng.integers(0, 4, 60)
    logits = rng.normal(size=(60, 4)) + np.eye(4)[truth]
    if empty:
        logits = np.eye(4)[truth] * 9
    found = overlap(jnp.asarray(logits), jnp.asarray(truth), REGIONS)
    return logits.argmax(1), truth, logits, [np.asarray(x)[None] for x in found]


def test_dice_is_the_mean_over_volumes_of_each_region():
    volumes = [volume(0), volume(1), volume(2, empty=True)]
    ones = [np.ones((1, 3)), np.ones(1), np.ones(1)]
    parts = [Overlap(*found, *ones) for *_, found in volumes]
    scores = Overlap.merge(parts).scores(REGIONS)
    for name, ids in REGIONS:
        dice = []
        for said, truth, *_ in volumes:
            both, a, b = sets(said, truth, ids)
            dice.append(2 * both / (a + b) if a + b else 1.0)  # neither there nor predicted: 1
        np.testing.assert_allclose(scores[f"dice_{name}"], np.mean(dice), rtol=1e-6)
    np.testing.assert_allclose(scores["dice"], np.mean([scores[f"dice_{name}"] for name, _ in REGIONS]))
    for one, other in zip(Overlap.merge(parts[:1] + [Overlap.merge(parts[1:])]), Overlap.merge(parts), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_voxel_that_is_not_finite_predicts_the_background():
    logits = jnp.array([[0.0, 5.0, 0.0, jnp.nan], [0.0, 5.0, 0.0, 0.0]])
    both, predicted, true = overlap(logits, jnp.array([1, 1]), REGIONS)
    assert [int(x[0]) for x in (both, predicted, true)] == [1, 1, 2]


@pytest.mark.parametrize("weights", [(1.0, 5.0, 2.0, 9.0), (1.0, 1.0, 1.0, 1.0)])
def test_risks_of_merged_volumes_are_those_of_all_voxels(weights):
    task, parts, everything = Segmentation(class_weights=weights), [], []
    for seed in range(3):
        _, truth, logits, found = volume(seed)
        bar = np.random.default_rng(10 + seed).normal(size=logits.shape)
        arrays = [jnp.asarray(x, jnp.float32) for x in (logits, bar)]
        own = np.array(weights)[truth]
        events = (np.asarray(risk_events(*arrays, jnp.asarray(truth), task)) * own[:, None]).sum(0)
        right = ((logits.argmax(1) == truth) * own).sum()
        parts.append(Overlap(*found, events[None], np.array([right]), np.array([own.sum()])))
        everything.append((*arrays, truth))
    logits, bar, truth = (np.concatenate(x) for x in zip(*everything, strict=True))
    expected = c3r_jax.c3_risk(jnp.asarray(logits), jnp.asarray(bar), jnp.asarray(truth), task=task)
    merged = Overlap.merge(parts)
    np.testing.assert_allclose(merged.risk(), expected, rtol=1e-5)
    np.testing.assert_allclose(merged.scores(REGIONS)["accuracy"], 1 - expected.sufficiency, rtol=1e-5)


def test_a_probe_of_voxels_counts_classes_by_their_weight():
    rng = np.random.default_rng(0)
    weights = np.array([1.0, 9.0])

    def voxels(n, predictive):
        labels = (rng.random(n) < 0.1).astype(int)  # the organ is a tenth, and weighs as much as all else
        z = rng.normal(size=(n, 3)) + 4 * predictive * np.eye(3)[labels]
        return Voxels({}, None, labels, z, rng.random(n), weights[labels])

    train, held_out = voxels(2000, predictive=False), voxels(1000, predictive=False)
    found = voxel_probe(train, held_out)
    own = held_out.weights / held_out.weights.sum()
    np.testing.assert_allclose(found["chance"], max(own[held_out.labels == k].sum() for k in (0, 1)))
    np.testing.assert_allclose(found["label_probability"], (own * held_out.label_probability).sum())
    assert abs(found["probe_accuracy"] - 0.5) < 0.07 and abs(found["chance"] - 0.5) < 0.1  # z_bar is not predictive
    assert voxel_probe(voxels(2000, predictive=True), voxels(1000, predictive=True))["probe_accuracy"] > 0.95
