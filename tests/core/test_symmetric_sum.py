"""Half a covariance is sent: the sum and its gradient are those of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core.moments import WIDE, batch_moments, folded, unfolded


@pytest.mark.parametrize("p", [2, 6, 16])
def test_folding_keeps_every_number_once(p: int) -> None:
    x = np.random.default_rng(p).standard_normal((p, p))
    x += x.T
    numbers = folded(jnp.asarray(x))
    assert numbers.shape == (p // 2 + 1, p)  # p / 2 zeros fill the last row
    np.testing.assert_array_equal(unfolded(numbers), jnp.asarray(x))
    kept = np.unique(np.asarray(numbers)[np.asarray(numbers) != 0])
    np.testing.assert_array_equal(kept, np.unique(x.astype(np.float32)))


@pytest.mark.parametrize("p", [WIDE, WIDE + 1])
def test_moments_of_devices_are_those_of_all_rows_with_their_gradient(p: int) -> None:
    """Also where the slope is not symmetric, and for an odd number of columns."""
    rng = np.random.default_rng(0)
    x, slope = rng.standard_normal((8, 5, p)).astype(np.float32), rng.standard_normal((p, p)).astype(np.float32)

    def loss(rows: jax.Array, axis_name: str | None) -> jax.Array:
        return (slope * batch_moments(rows, axis_name=axis_name).cov).sum()

    split = jax.pmap(jax.value_and_grad(lambda rows: loss(rows, "devices")), axis_name="devices")(x)
    value, gradient = jax.value_and_grad(lambda rows: loss(rows, None))(x.reshape(-1, p))
    np.testing.assert_allclose(split[0][0], value, rtol=1e-4)
    np.testing.assert_allclose(split[1].reshape(-1, p) / 8, gradient, atol=2e-5)


def test_half_is_sent() -> None:
    lowered = jax.pmap(lambda rows: batch_moments(rows, axis_name="devices").cov, axis_name="devices").lower(
        jnp.zeros((8, 5, WIDE))
    )
    assert f"tensor<{WIDE // 2 + 1}x{WIDE}xf32>" in lowered.as_text()
