"""MultiLabel and Regression of c3r_jax.torch are those of c3r_jax: every function, and the whole objective."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import c3r_jax
import c3r_jax.torch as c3r_torch
from c3r_jax.core.tasks.multilabel import MultiLabel
from c3r_jax.core.tasks.regression import Regression
from c3r_jax.torch import counterfactual_modes

pytestmark = pytest.mark.torch
BATCH, DIM, NAMES = 64, 4, ("image", "text")
TASKS = {
    "multilabel": (MultiLabel(), c3r_torch.MultiLabel(), 3),
    "regression": (Regression(0.4), c3r_torch.Regression(0.4), 1),
}


def same(found, expected, tolerance=1e-7):
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=tolerance, atol=tolerance * scale)


def batch(name, outputs):
    """Two views of one cause, labels from it and from the first view alone, masks and weights."""
    rng = np.random.default_rng(7)
    cause = rng.normal(size=(BATCH, DIM))
    h = {k: cause + 0.5 * rng.normal(size=(BATCH, DIM)) for k in NAMES}
    values = cause[:, :outputs] + 0.4 * h["image"][:, 1 : outputs + 1]
    labels = (values > 0.3).astype(np.int64) if name == "multilabel" else values[:, 0]
    present = rng.random((BATCH, 2)) < 0.9
    present[:, 0] |= ~present.any(1)
    where = rng.random(BATCH) < 0.9
    labels[~where] = 9
    head = rng.normal(size=(DIM, 5)) / 2, rng.normal(size=(5, outputs))
    return h, labels, present, where, rng.uniform(0.3, 2.0, BATCH), head


@pytest.mark.parametrize("name", TASKS)
def test_every_function(name):
    """In float64, far from and near to the label, where losses underflow."""
    ours, theirs, outputs = TASKS[name]
    rng = np.random.default_rng(0)
    values = rng.normal(size=(24, outputs)) * np.array([0.1, 3.0, 60.0]).repeat(8)[:, None]
    labels = rng.integers(0, 2, (24, 3)) if name == "multilabel" else rng.normal(size=24)
    rows, shares = torch.ones(24).bool(), np.abs(rng.normal(size=outputs)) / 4
    with jax.enable_x64(True):
        prior = ours.batch_prior(jnp.asarray(labels), outputs, where=jnp.ones(24, bool))
        x, y, p = torch.tensor(values), torch.tensor(labels), torch.tensor(np.asarray(prior))
        same(theirs.batch_prior(y, outputs, where=rows, group=None, dtype=torch.float64), prior)
        for method in ("loss", "excess", "correct", "probability"):
            same(getattr(theirs, method)(x, y), getattr(ours, method)(values, labels))
        for by_rarity in (False, True):
            asked = ours.mean_prediction(values, labels, prior, by_rarity=by_rarity, where=jnp.arange(24) > 5)
            how = {"by_rarity": by_rarity, "where": torch.arange(24) > 5, "group": None}
            same(theirs.mean_prediction(x, y, p, **how), asked)
        for kind in ("hinge", "log", "kl", "constant"):
            same(theirs.necessity(x, y, kind, p), ours.necessity(values, labels, kind=kind, prior=prior))
            rarer = ours.necessity_by_rarity(values, labels, kind=kind, prior=prior, asked=asked)
            same(theirs.necessity_by_rarity(x, y, kind, p, torch.tensor(np.asarray(asked))), rarer)
        same(theirs.constant(p, torch.tensor(24.0)), ours.constant(prior, 24.0))
        targets = ours.expert_targets(jnp.asarray(labels, float) if name == "regression" else labels, outputs)
        same(theirs.expert_targets(y, outputs, torch.float64), targets)
        expected = ours.expert_outputs(jnp.asarray(values), jnp.asarray(shares), 2.0)
        found = theirs.expert_outputs(x, torch.tensor(shares), 2.0)
        same(found, expected)
        for method in ("expert_losses", "expert_correct"):
            same(
                getattr(theirs, method)(found, torch.tensor(np.asarray(targets))),
                getattr(ours, method)(expected, targets),
            )
        along, excess, slope = rng.normal(size=(3, 24, 1)) * 2
        found = theirs.removable(*map(torch.tensor, (along, excess, np.abs(slope))))
        same(found, ours.removable(along, excess, np.abs(slope)))


@pytest.mark.parametrize("changes", [{"expert": 0.5}, {"counterfactual": "permute", "necessity": "kl"}], ids=str)
@pytest.mark.parametrize("name", TASKS)
def test_the_objective(name, changes, monkeypatch):
    """Loss, terms, risks and gradients to 1e-7 in float64, with missing modalities, excluded rows and weights."""
    ours, theirs, outputs = TASKS[name]
    h, labels, present, where, weights, head = batch(name, outputs)

    def of(library, head):
        most = None if "expert" in changes else 1  # a mean, and once a sum: there a number alone is scaled
        fuse = lambda h, present: (  # noqa: E731
            sum(h[k] * present[:, m, None] for m, k in enumerate(NAMES)) / present.sum(1)[:, None].clip(1, most)
        )
        return lambda z: library.tanh(z @ head[0]) @ head[1], fuse

    with jax.enable_x64(True):
        key = jax.random.key(3)
        draws = torch.tensor(np.asarray(jax.random.uniform(key, (BATCH,))))
        monkeypatch.setattr(counterfactual_modes, "uniform", lambda count, generator: draws[:count])

        @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
        def objective(h, head):
            more = {"present": present, "where": where, "weights": weights, "key": key, "task": ours}
            return c3r_jax.c3r_loss(*of(jnp, head), h, labels, config=c3r_jax.C3RConfig(**changes), **more)

        (expected, expected_terms), expected_gradient = jax.jit(objective)(h, head)
    tensors = {k: torch.tensor(x, requires_grad=True) for k, x in h.items()}
    head = tuple(torch.tensor(x, requires_grad=True) for x in head)
    more = {"present": torch.tensor(present), "where": torch.tensor(where), "weights": torch.tensor(weights)}
    more |= {"generator": torch.Generator(), "task": theirs, "config": c3r_torch.C3RConfig(**changes)}
    loss, terms = c3r_torch.c3r_loss(*of(torch, head), tensors, torch.tensor(labels), **more)
    loss.backward()
    same(loss, expected)
    for term in ("task", "sufficiency", "necessity", "relevance", "closeness", "label_probability", "explained"):
        same(getattr(terms, term), getattr(expected_terms, term))
    for term, value in expected_terms.risk._asdict().items():
        same(getattr(terms.risk, term), value)
    for k in NAMES:
        same(tensors[k].grad, expected_gradient[0][k])
    for x, value in zip(head, expected_gradient[1], strict=True):
        same(x.grad, value)
        assert np.abs(value).max() > 1e-5


def test_a_mean_of_numbers_asks_each_for_its_direction():
    """With the gate open: the task term and its gradient, where each number alone is too far from the mean label."""
    ours, theirs, _ = TASKS["regression"]
    h, labels, present, where, weights, _ = batch("regression", 1)
    head = np.array([[2.0], [0.5], [0.0], [0.0]])
    fuse = lambda h, present: (  # noqa: E731
        sum(h[k] * present[:, m, None] for m, k in enumerate(NAMES)) / present.sum(1)[:, None].clip(1)
    )
    masks = {"present": present, "where": where, "weights": weights}
    with jax.enable_x64(True):

        @functools.partial(jax.value_and_grad, has_aux=True)
        def objective(head):
            more = {**masks, "task": ours, "explained": 1.0}
            return c3r_jax.c3r_loss(lambda z: z @ head, fuse, h, labels, **more)

        (expected, expected_terms), gradient = jax.jit(objective)(head)
    tensors, theirs_head = {k: torch.tensor(x) for k, x in h.items()}, torch.tensor(head, requires_grad=True)
    more = {**{k: torch.tensor(x) for k, x in masks.items()}, "task": theirs, "explained": 1.0}
    loss, terms = c3r_torch.c3r_loss(lambda z: z @ theirs_head, fuse, tensors, torch.tensor(labels), **more)
    loss.backward()
    for found, wanted in (
        (loss, expected),
        (terms.task, expected_terms.task),
        (theirs_head.grad, gradient),
    ):
        same(found, wanted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": torch.zeros(BATCH).long()}, r"labels have shape \(64,\) and dtype torch.int64, but integers"),
        ({"labels": torch.full((BATCH, 3), 2)}, "label 2 is neither 0 nor 1"),
        ({"labels": torch.zeros(BATCH, 2).long()}, r"labels have shape \(64, 2\), but the logits have \(64, 3\)"),
        ({"task": c3r_torch.Regression()}, "but floats"),
        ({"task": c3r_torch.Regression(), "labels": torch.zeros(BATCH)}, r"but \(64, 1\) was expected"),
        ({"config": c3r_torch.C3RConfig(prior=(0.5, 2.0, 0.1), necessity="kl")}, "between 0 and 1"),
    ],
)
def test_what_cannot_be_is_named(change, words):
    h, labels, _, _, _, head = batch("multilabel", 3)
    predict = lambda z: z @ torch.tensor(head[0]) @ torch.tensor(head[1])  # noqa: E731
    fuse = lambda h, present: (h["image"] + h["text"]) / 2  # noqa: E731
    more = {"labels": torch.tensor(np.where(labels > 1, 0, labels)), "task": c3r_torch.MultiLabel(), **change}
    with pytest.raises(ValueError, match=words):
        c3r_torch.c3r_loss(predict, fuse, {k: torch.tensor(x) for k, x in h.items()}, **more)


def test_regression_refuses_smoothing_and_a_tolerance_of_zero():
    with pytest.raises(ValueError, match="numbers have no classes to smooth"):
        c3r_torch.Regression().check_smoothing(0.1)
    with pytest.raises(ValueError, match="tolerance is 0"):
        c3r_torch.Regression(0)
