"""The task term over subsets and beyond the experts, and the batch's prior, against float64 NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax
from c3r_jax.core.tasks.multilabel import MultiLabel
from c3r_jax.core.tasks.regression import Regression
from tests.core.test_expert import as_jax, experts_oracle

HEAD = np.random.default_rng(5).standard_normal((3, 3))


def fuse(h, present):
    share = present / present.sum(1, keepdims=True)
    return sum(share[:, [m]] * value for m, value in enumerate(h.values()))


def cross_entropy(logits, labels):
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]


@pytest.fixture
def problem():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 40)
    cause = np.eye(3)[labels] + 0.7 * rng.standard_normal((40, 3))
    features = {m: cause + 0.8 * rng.standard_normal((40, 3)) for m in ("a", "b")}
    present = np.ones((40, 2), bool)
    present[::7, 0] = present[3::7, 1] = False
    where = rng.random(40) < 0.9
    return features, labels, present, where


@pytest.mark.parametrize("expert", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("subsets", [False, True])
def test_the_task_term_is_the_formula(problem, expert, subsets, x64):
    features, labels, present, where = problem
    config = c3r_jax.C3RConfig(expert=expert, subsets=subsets)
    _, terms = c3r_jax.c3r_loss(
        lambda z: z @ jnp.asarray(HEAD),
        fuse,
        as_jax(features),
        jnp.asarray(labels),
        config=config,
        present=jnp.asarray(present),
        where=jnp.asarray(where),
    )
    known = {m: np.where(present[:, [i]], h, 0) for i, (m, h) in enumerate(features.items())}
    complete = where & present.all(1)
    shares = np.bincount(labels[where], minlength=3) / where.sum()
    found = experts_oracle(known, labels, 3, complete, shares)
    ratios = np.stack([found[m][0] for m in ("a", "b")], axis=1) if expert else np.zeros((40, 2, 3))
    sets = [present] + ([present & np.array(one) for one in ([True, False], [False, True])] if subsets else [])
    total, count = np.zeros(40), np.zeros(40)
    for chosen in sets:
        exists = chosen.any(1)
        logits = fuse(known, np.where(exists[:, None], chosen, True)) @ HEAD
        beyond = logits + (chosen[:, :, None] * ratios).sum(1)
        losses = (1 - expert) * cross_entropy(logits, labels) + expert * cross_entropy(beyond, labels)
        total, count = total + np.where(exists, losses, 0), count + exists
    np.testing.assert_allclose(terms.task, (total / count)[where].mean(), rtol=1e-7)


def test_kl_without_a_prior_takes_the_batch_shares(problem):
    features, labels, _, where = problem
    shares = tuple((np.bincount(labels[where], minlength=3) / where.sum()).tolist())
    both = [
        c3r_jax.c3r_loss(
            lambda z: z @ jnp.asarray(HEAD, jnp.float32),
            fuse,
            jax.tree.map(lambda h: jnp.asarray(h, jnp.float32), as_jax(features)),
            jnp.asarray(labels),
            config=c3r_jax.C3RConfig(necessity="kl", prior=prior),
            where=jnp.asarray(where),
        )[1].necessity
        for prior in (None, shares)
    ]
    np.testing.assert_allclose(*both, rtol=1e-6)


def test_priors_of_other_tasks_are_the_batch_ones():
    where = jnp.asarray([True, True, True, False])
    ones = MultiLabel().batch_prior(jnp.asarray([[1, 0], [1, 1], [0, 0], [1, 1]]), 2, where=where)
    np.testing.assert_allclose(ones, [2 / 3, 1 / 3], rtol=1e-6)
    mean_and_sd = Regression(0.5).batch_prior(jnp.asarray([1.0, 2.0, 6.0, 100.0]), 1, where=where)
    np.testing.assert_allclose(mean_and_sd, [3.0, np.std([1, 2, 6])], rtol=1e-6)


def test_experts_refuse_what_has_no_classes():
    features = {m: jnp.ones((8, 1)) * jnp.arange(8.0)[:, None] for m in ("a", "b")}
    with pytest.raises(ValueError, match="experts predict one class per row, and the task is 'regression'"):
        c3r_jax.c3r_loss(
            lambda z: z,
            fuse,
            features,
            jnp.arange(8.0),
            config=c3r_jax.C3RConfig(expert=0.5),
            task=Regression(0.5),
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"expert": 1.5}, "C3RConfig.expert is 1.5, but a share between 0 and 1 was expected"),
        ({"expert": 0.5, "instrument": "none"}, "C3RConfig.expert is 0.5, which needs instrument='two_stage'"),
        ({"cap": -1.0}, "C3RConfig.cap is -1.0, but a finite number >= 0 was expected"),
    ],
)
def test_settings_that_contradict(settings, message):
    with pytest.raises(ValueError, match=message):
        c3r_jax.C3RConfig(**settings)
