"""Fusions read what is present and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.models.fusion import ConcatAbsent, CrossAttention, MaskedMean

FUSIONS = {"mean": MaskedMean(), "concat": ConcatAbsent(dim=6), "cross_attention": CrossAttention(dim=6, num_heads=2)}
NAMES = ("a", "b", "c")


@pytest.fixture
def features():
    keys = jax.random.split(jax.random.key(0), 3)
    return {name: jax.random.normal(key, (8, 6)) for name, key in zip(NAMES, keys, strict=True)}


@pytest.fixture
def present():
    rows = [[bits >> m & 1 == 1 for m in range(3)] for bits in range(8)]  # every subset, the empty one first
    return jnp.array(rows)


@pytest.mark.parametrize("name", FUSIONS)
def test_absent_modalities_change_nothing(name, features, present):
    fusion = FUSIONS[name]
    variables = fusion.init(jax.random.key(1), features, present)
    z = fusion.apply(variables, features, present)
    noise = {n: jnp.where(present[:, m, None], h, 1e6) for m, (n, h) in enumerate(features.items())}
    np.testing.assert_array_equal(z, fusion.apply(variables, noise, present))
    assert z.shape == (8, 6) and bool(jnp.isfinite(z).all())


@pytest.mark.parametrize("name", FUSIONS)
def test_present_modalities_count(name, features, present):
    fusion = FUSIONS[name]
    variables = fusion.init(jax.random.key(1), features, present)
    z = fusion.apply(variables, features, present)
    for m, n in enumerate(NAMES):
        moved = fusion.apply(variables, {**features, n: features[n] + 1.0}, present)
        changed = np.abs(np.asarray(moved - z)).max(1) > 1e-4
        np.testing.assert_array_equal(changed, present[:, m])


@pytest.mark.parametrize("name", FUSIONS)
def test_gradients_are_finite_also_with_nothing_present(name, features, present):
    fusion = FUSIONS[name]
    variables = fusion.init(jax.random.key(1), features, present)
    gradient = jax.grad(lambda v, h: jnp.square(fusion.apply(v, h, present)).sum(), argnums=(0, 1))(variables, features)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))


def test_masked_mean_by_hand():
    h = {"a": jnp.array([[1.0, 2.0]] * 3), "b": jnp.array([[3.0, 6.0]] * 3)}
    present = jnp.array([[True, True], [False, True], [False, False]])
    z = MaskedMean().apply({}, h, present)
    np.testing.assert_array_equal(z, [[2.0, 4.0], [3.0, 6.0], [0.0, 0.0]])


def test_concat_uses_the_learned_embedding_of_what_is_absent(features, present):
    fusion = FUSIONS["concat"]
    variables = fusion.init(jax.random.key(1), features, present)
    filled = {
        name: jnp.where(present[:, m, None], h, variables["params"][f"absent_{name}"][None])
        for m, (name, h) in enumerate(features.items())
    }
    project = variables["params"]["project"]
    expected = jnp.concatenate(list(filled.values()), axis=1) @ project["kernel"] + project["bias"][None]
    np.testing.assert_allclose(fusion.apply(variables, features, present), expected, rtol=1e-5, atol=1e-6)
