"""Whether single modalities learn rows by heart, against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core.over_fit import generalising_share, loss_alone
from tests.core.test_held_out import as_jax, predict, rows_of
from tests.core.test_task_term import HEAD, cross_entropy, fuse


def oracle(features, labels, present, where):
    """Mean loss of each modality in the rows that have it, and the loss of the shares of the classes."""
    alone = [cross_entropy(h @ HEAD, labels)[where & present[:, i]].mean() for i, h in enumerate(features.values())]
    counts = np.bincount(labels[where], minlength=3)
    constant = np.log((counts + 0.5) / (counts + 0.5).sum())
    return alone, cross_entropy(np.tile(constant, (len(labels), 1)), labels)[where].mean()


def test_losses_are_the_formulas(x64):
    features, labels = rows_of(0, 60)
    present = np.ones((60, 2), bool)
    present[::7, 0] = present[3::7, 1] = False
    where = np.random.default_rng(2).random(60) < 0.9
    masks = {"present": jnp.asarray(present), "where": jnp.asarray(where)}
    found = loss_alone(predict, fuse, as_jax(features), jnp.asarray(labels), **masks)
    losses, constant = oracle(features, labels, present, where)
    np.testing.assert_allclose(found.losses, losses, rtol=1e-7)
    np.testing.assert_allclose(found.constant, constant, rtol=1e-7)
    others = {m: np.where(present[:, [i]] & where[:, None], h, 1e3) for i, (m, h) in enumerate(features.items())}
    again = loss_alone(predict, fuse, as_jax(others), jnp.asarray(labels), **masks)
    np.testing.assert_allclose(again.losses, found.losses, rtol=1e-12)  # what is absent or does not count has no part
    masks["present"] = jnp.asarray(present & [True, False])
    lacking = loss_alone(predict, fuse, as_jax(features), jnp.asarray(labels), **masks)
    assert lacking.seen.tolist() == [True, False] and found.seen.all()
    np.testing.assert_allclose(lacking.losses[0], found.losses[0], rtol=1e-7)


def test_over_devices_they_are_those_of_all_rows():
    features, labels = rows_of(1, 64)
    masks = np.ones((64, 2), bool), np.arange(64) < 50
    whole = loss_alone(predict, fuse, as_jax(features), jnp.asarray(labels), present=masks[0], where=masks[1])
    parts = jax.tree.map(lambda x: jnp.asarray(x).reshape(4, 16, *x.shape[1:]), (as_jax(features), labels, *masks))

    def of(h, y, present, where):
        return loss_alone(predict, fuse, h, y, present=present, where=where, axis_name="rows")

    found = jax.pmap(of, axis_name="rows", devices=jax.devices()[:4])(*parts)
    for value, expected in zip(found, whole, strict=True):
        np.testing.assert_allclose(value, np.stack([expected] * 4), rtol=1e-5)


@pytest.mark.parametrize(
    ("train", "held", "constant", "expected"),
    [
        (0.8, 0.8, 1.4, 1.0),
        (0.8, 0.6, 1.4, 1.0),  # luck
        (0.8, 0.8 + 0.16 * 1.4, 1.4, 0.5),
        (0.8, 1.2, 1.4, 0.0),
        (0.1 * 1.4, 1.2, 1.4, 0.5),  # nearly all is learned by heart
        (0.0, 1.2, 1.4, 1.0),
        (2.5, 2.6, 1.4, 1.0),  # an untrained network
        (0.3, 0.5, 0.0, 0.0),  # one class: the constant is right
    ],
)
def test_the_share_is_the_formula_and_has_no_gradient(train, held, constant, expected):
    values = tuple(jnp.asarray(value) for value in (train, held, constant))
    np.testing.assert_allclose(generalising_share(*values), expected, atol=1e-6)
    assert jax.grad(lambda x: generalising_share(x, *values[1:]))(values[0]) == 0
