"""The scale of one modality's evidence: where its loss is least, between the share it has in the fusion and 1."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core.evidence_scale import evidence_scales, first_zero
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.core.tasks.multilabel import MultiLabel

ROWS = 64
CONSTANT = jnp.log(jnp.array([0.5, 0.3, 0.2]))


def problem(task: Task, sizes: tuple[float, ...], seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Outputs of all modalities and of each alone, which know as much but are of different sizes, and labels."""
    rng = np.random.default_rng(seed)
    if isinstance(task, MultiLabel):
        labels = rng.integers(0, 2, (ROWS, 3))
        right = 2.0 * labels - 1
    else:
        labels = rng.integers(0, 3, ROWS)
        right = np.eye(3)[labels]
    noisy = right[None] + rng.standard_normal((len(sizes) + 1, ROWS, 3))
    values = np.asarray(CONSTANT)[None, None] + np.array([1.0, *sizes])[:, None, None] * noisy
    return jnp.asarray(values[0]), jnp.asarray(values[1:]), jnp.asarray(labels)


def scales(
    task: Task, joint: Any, alone: Any, labels: Any, share: Any, *, axis_name: str | None = None, **given: Any
) -> Any:
    present = given.get("present", jnp.ones((len(labels), len(alone)), bool))
    where = given.get("where", jnp.ones(len(labels), bool))
    masks = {"labels": labels, "where": where, "axis_name": axis_name, "task": task, "loss": task.loss}
    return evidence_scales(joint, alone, share, present, CONSTANT, **masks)


@pytest.mark.parametrize("task", [CLASSIFICATION, MultiLabel()])
def test_one_modality_alone_is_asked_for_no_size(task: Task) -> None:
    """At the scale that is chosen no modality's loss falls by another size, up to what five points can show."""
    joint, alone, labels = problem(task, (3.0, 5.0))
    found = scales(task, 4 * joint, alone, labels, jnp.full(ROWS, 0.2))

    def mean_loss(log_size: Any, m: int, scale: Any) -> Any:
        return task.loss(task.at_share(alone[m], CONSTANT, jnp.exp(log_size) * scale), labels).mean()

    for m in (0, 1):
        assert 0.2 < found[m, 0, 0] < 1
        np.testing.assert_allclose(jax.grad(mean_loss)(0.0, m, found[m]), 0, atol=0.02)
        assert abs(float(jax.grad(mean_loss)(0.0, m, jnp.full((ROWS, 1), 0.2)))) > 0.05


def test_they_are_within_the_share_and_one() -> None:
    joint, alone, labels = problem(CLASSIFICATION, (0.1, 50.0))
    found = scales(CLASSIFICATION, 4 * joint, alone, labels, jnp.full(ROWS, 0.25))
    np.testing.assert_allclose(found[:, :, 0], np.tile([[1.0], [0.25]], (1, ROWS)), rtol=1e-6)
    of_a_sum = scales(CLASSIFICATION, joint, alone, labels, jnp.ones(ROWS))
    np.testing.assert_array_equal(of_a_sum, np.ones((2, ROWS, 1)))


def test_as_far_as_all_are_too_unsure_each_is_asked_for_more() -> None:
    joint, alone, labels = problem(CLASSIFICATION, (1.5, 1.5))
    share = jnp.full(ROWS, 0.1)
    sure, unsure = (scales(CLASSIFICATION, x, alone, labels, share) for x in (joint * 4, CONSTANT[None] + 0.01 * joint))
    np.testing.assert_allclose(unsure, sure / 2, rtol=1e-5)


def test_where_nothing_is_said_rounding_decides_nothing() -> None:
    labels = jnp.arange(ROWS) % 3
    noise = 1e-7 * jax.random.normal(jax.random.key(0), (3, ROWS, 3))
    for sign in (1, -1):
        values = CONSTANT[None, None] + sign * noise
        found = scales(CLASSIFICATION, values[0], values[1:], labels, jnp.full(ROWS, 0.25))
        np.testing.assert_array_equal(found, np.ones((2, ROWS, 1)))


def test_rows_that_do_not_count_and_single_modalities_change_nothing() -> None:
    joint, alone, labels = problem(CLASSIFICATION, (1.5, 3.0))
    where = jnp.arange(ROWS) > 20
    present = jnp.ones((ROWS, 2), bool).at[40:50, 0].set(False)
    alone = alone.at[0, 40:50].set(jnp.nan)
    share, given = jnp.full(ROWS, 0.2), {"where": where, "present": present}
    found = scales(CLASSIFICATION, joint, alone, labels, share, **given)
    counted = np.flatnonzero(np.asarray(where & present.all(1)))
    expected = scales(CLASSIFICATION, joint[counted], alone[:, counted], labels[counted], share[counted])
    np.testing.assert_allclose(found[:, counted], expected, rtol=1e-5)


def test_over_devices_they_are_those_of_the_global_batch() -> None:
    joint, alone, labels = problem(CLASSIFICATION, (1.5, 3.0))
    share = jnp.full(ROWS, 0.2)
    expected = scales(CLASSIFICATION, joint, alone, labels, share)
    split = partial(jnp.reshape, shape=(8, 8, -1))
    parts = split(joint), alone.reshape(2, 8, 8, 3).swapaxes(0, 1), labels.reshape(8, 8), share.reshape(8, 8)
    found = jax.pmap(partial(scales, CLASSIFICATION, axis_name="batch"), "batch")(*parts)
    np.testing.assert_allclose(found.swapaxes(0, 1).reshape(2, ROWS, 1), expected, rtol=1e-5)


def test_the_zero_of_slopes() -> None:
    slopes = [[-1, 1, 2, 3, 4], [-3, -2, -1, 1, 5], [1, 2, 3, 4, 5], [-5, -4, -3, -2, -1], [0, 0, 0, 0, 0]]
    np.testing.assert_allclose(first_zero(jnp.array(slopes, float)), [0.125, 0.625, 0, 1, 0])
