"""A linear solver from matrix products only, for first stages on TPUs, under ``vmap`` and in loops.

Batched LAPACK calls under ``vmap`` inside ``lax.scan`` can hang on CPUs with few cores, and factorisations are slow on
TPUs. Newton-Schulz iterations avoid both.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from c3r_jax.core.batch import HIGHEST

_matmul = partial(jnp.matmul, precision=HIGHEST)


def _iterations(condition: float) -> int:
    """Newton-Schulz squares the residual each time: log2(condition) steps reach the basin, six polish."""
    return math.ceil(math.log2(max(condition, 2.0))) + 6


def inverse_spd(a: Float[Array, "p p"], *, condition: float | None = None) -> Float[Array, "p p"]:
    """Inverts a symmetric positive definite matrix by Newton-Schulz iterations; not meant to be differentiated.

    X <- X (2 I - A X) from X = I / |A|_inf converges quadratically for every such A, and corrects its own rounding.
    Directions with an eigenvalue below |A|_inf / condition are only partly inverted.

    Args:
      a: (p, p) symmetric, eigenvalues >= 0.
      condition: upper bound of |A|_inf / smallest eigenvalue; None: what the dtype can resolve.

    Returns:
      (p, p) inverse; zeros for a zero matrix.
    """
    eps = float(jnp.finfo(a.dtype).eps)
    limit = 1.0 / eps
    steps = _iterations(limit if condition is None else min(condition, limit))
    bound = jnp.max(jnp.sum(jnp.abs(a), axis=1))
    scaled = a / jnp.where(bound > 0, bound, 1)
    eye = jnp.eye(a.shape[0], dtype=a.dtype)

    def step(_: int, x: Array) -> Array:
        x = _matmul(x, 2 * eye - _matmul(scaled, x))
        return (x + x.T) / 2

    # `0 * scaled` keeps the loop's carry as device-varying as `a` is (shard_map tracks that in its types).
    x = jax.lax.fori_loop(0, steps, step, eye + 0 * scaled)
    return jnp.where(bound > 0, x / jnp.where(bound > 0, bound, 1), 0)


def solve_spd(a: Float[Array, "p p"], b: Float[Array, "p d"], *, condition: float | None = None) -> Float[Array, "p d"]:
    """Solves A X = B for a symmetric positive definite A, with gradients by implicit differentiation.

    dX = A^-1 (dB - dA X): no iteration is ever differentiated, so early convergence cannot turn into a NaN gradient.

    Args:
      a: (p, p) symmetric positive definite; a zero matrix gives zeros.
      b: (p, d) right-hand sides.
      condition: upper bound of |A|_inf / smallest eigenvalue, when one is known (fewer iterations).

    Returns:
      (p, d) solution in the dtype of the inputs.

    Raises:
      ValueError: if the shapes do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(solve_spd(jnp.array([[2.0, 0.0], [0.0, 4.0]]), jnp.array([[2.0], [2.0]])).T)
      [[1.  0.5]]
    """
    if a.ndim != 2 or a.shape[0] != a.shape[1] or b.ndim != 2 or b.shape[0] != a.shape[0]:
        raise ValueError(f"a has shape {a.shape} and b {b.shape}, but (p, p) and (p, d) were expected.")
    inverse = inverse_spd(jax.lax.stop_gradient(a), condition=condition)

    def solve(matvec: Callable[[Array], Array], rhs: Array) -> Array:
        x = _matmul(inverse, rhs)
        return x + _matmul(inverse, rhs - matvec(x))  # one refinement step: residuals at working precision

    return jax.lax.custom_linear_solve(partial(_matmul, a), b, solve, symmetric=True)
