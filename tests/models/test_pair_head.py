"""The head of contrastive models: where scale and offset begin, that they are learned, and the largest scale."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core.config import C3RConfig
from c3r_jax.core.contrastive import contrastive_c3r_loss
from c3r_jax.models.build import build_model
from c3r_jax.models.pair_head import match
from c3r_jax.settings.model import ModelSettings
from c3r_jax.tasks.registry import named


def network(task, **leaves):
    """A network of two feature modalities and its head's parameters."""
    kinds = {"image": "features", "text": "features"}
    model = build_model(ModelSettings(dim=4, **leaves), kinds, 3, 0, C3RConfig(), named(task))
    inputs = {name: jnp.ones((1, 5)) for name in kinds}
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), inputs, jnp.ones((1, 2), bool), "instrument"))
    assert set(variables["params"]["head"]) == {"log_scale", "offset"}
    head = model.head.init(jax.random.key(0), jnp.ones((1, 4)))["params"]
    return model, {name: float(value) for name, value in head.items()}


@pytest.mark.parametrize(
    ("task", "leaves", "scale", "offset"),
    [("softmax", {}, 1 / 0.07, 0.0), ("sigmoid", {}, 10.0, -10.0), ("softmax", {"first_scale": 10.0}, 10.0, 0.0)],
)
def test_first_values_and_learning(task, leaves, scale, offset):
    model, head = network(task, **leaves)
    np.testing.assert_allclose([head["log_scale"], head["offset"]], [math.log(scale), offset], rtol=1e-6)
    rng = np.random.default_rng(0)
    queries, keys = (jnp.asarray(rng.normal(size=(6, 4)), jnp.float32) for _ in range(2))

    def logits(log_scale):
        params = {"head": {"log_scale": jnp.asarray(log_scale), "offset": jnp.asarray(head["offset"])}}
        return match(model, {"params": params}, queries, keys)

    np.testing.assert_allclose(logits(head["log_scale"]), scale * queries @ keys.T + offset, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(logits(math.log(250.0)), logits(math.log(100.0)))

    @jax.jit
    @jax.grad
    def slope(head):
        compare = lambda q, k: match(model, {"params": {"head": head}}, q, k)  # noqa: E731
        return contrastive_c3r_loss(compare, {"image": queries, "text": keys}, kind=task, regularised=False)[0]

    found = slope(jax.tree.map(jnp.asarray, head))
    assert found["log_scale"] != 0
    assert (found["offset"] < -0.5) if task == "sigmoid" else abs(found["offset"]) < 1e-5  # a softmax ignores it
