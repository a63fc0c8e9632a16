"""All modalities but one, for each at once: the blocks that slicing gives, and their gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core.others import of_others, of_own


@pytest.mark.parametrize("stages", [2, 3, 5])
@pytest.mark.parametrize("axis", [1, 2])
def test_blocks_and_gradients(stages, axis, x64):
    rng = np.random.default_rng(stages)
    x = rng.standard_normal((stages, 3 * stages, 3 * stages))
    blocks = np.split(x, stages, axis)
    others = [np.concatenate([b[m] for k, b in enumerate(blocks) if k != m], axis - 1) for m in range(stages)]
    np.testing.assert_array_equal(of_others(jnp.asarray(x), axis), others)
    np.testing.assert_array_equal(of_own(jnp.asarray(x), axis), [blocks[m][m] for m in range(stages)])
    slope = jax.grad(lambda x: jnp.square(of_others(x, axis)).sum() + jnp.square(of_own(x, axis)).sum())(x)
    np.testing.assert_allclose(slope, 2 * x)


def test_a_nan_stays_in_its_block():
    x = jnp.tile(jnp.arange(6.0), (3, 1)).at[:, 0].set(jnp.nan)
    assert np.isfinite(of_others(x, 1)[0]).all() and np.isfinite(of_own(x, 1)[1:]).all()
    slope = jax.grad(lambda x: jnp.square(of_others(x, 1)[0]).sum())(x)
    assert np.isfinite(slope).all()
