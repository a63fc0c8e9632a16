"""Accuracy of the experts together, against their formulas in NumPy."""

import jax.numpy as jnp
import numpy as np

from c3r_jax.evaluation.expert_accuracy import joint_expert_accuracy
from tests.core.test_expert import experts_oracle


def test_it_is_the_joint_of_the_experts():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 60)
    cause = np.eye(3)[labels] + rng.standard_normal((60, 3))
    h = {
        "a": np.concatenate([cause, rng.standard_normal((60, 1)) + labels[:, None]], axis=1),
        "b": cause + 0.5 * rng.standard_normal((60, 3)),
    }
    where = np.arange(60) < 54
    shares = np.eye(3)[labels[where]].mean(0)
    joint = np.log(shares) + sum(found[0] for found in experts_oracle(h, labels, 3, where).values())
    expected = (joint.argmax(1) == labels)[where].mean()
    inputs = {name: jnp.asarray(value, jnp.float32) for name, value in h.items()}
    settings = {"num_classes": 3, "present": jnp.ones((60, 2), bool), "where": jnp.asarray(where)}
    found = joint_expert_accuracy(inputs, jnp.asarray(labels), **settings)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert shares.max() + 0.1 < expected < 1
    changed = {name: value.at[54:].set(jnp.nan) for name, value in inputs.items()}
    np.testing.assert_array_equal(joint_expert_accuracy(changed, jnp.asarray(labels), **settings), found)
