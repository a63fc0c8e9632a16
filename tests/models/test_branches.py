"""Evaluation's two branches are those that training uses."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax
from c3r_jax.models.branches import BranchRunner
from c3r_jax.models.encoders.features import FeatureEncoder
from c3r_jax.models.fusion.representations import CrossAttention
from c3r_jax.models.twin import TwinNetwork, apply


@pytest.mark.parametrize("mode", [{"counterfactual": "instrumented", "through_fuse": True}, {}])
def test_counterfactual_is_the_trained_one(mode):
    config = c3r_jax.C3RConfig.hinge(**mode)
    encoders = {name: FeatureEncoder(dim=4) for name in ("a", "b")}
    model = TwinNetwork(encoders, CrossAttention(dim=4, num_heads=2), nn.Dense(3), config, 4)
    h = {name: jax.random.normal(jax.random.key(m), (40, 4)) for m, name in enumerate(encoders)}
    params = model.init(jax.random.key(9), h)["params"]
    labels, present = np.arange(40) % 3, np.ones((40, 2), bool)
    predict, fuse = (functools.partial(apply, model, {"params": params}, part) for part in (model.predict, model.fuse))
    _, terms = c3r_jax.c3r_loss(predict, fuse, h, jnp.asarray(labels), config=config)
    runner = BranchRunner(model)
    moments = runner.measure_moments(params, h, present)
    branches = runner(params, moments, h, present, labels)
    np.testing.assert_allclose(branches.z_bar, terms.z_bar, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(branches.z_c, terms.z_c, rtol=1e-4, atol=1e-5)
