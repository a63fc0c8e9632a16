"""A linear solver from matrix products only, for first stages on TPUs, under ``vmap`` and in loops.

Batched LAPACK calls under ``vmap`` inside ``lax.scan`` can hang on CPUs with few cores, and factorisations are slow on
TPUs. Newton-Schulz iterations avoid both.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from c3r_jax.core.batch import HIGHEST
from c3r_jax.core.mapped_axes import varying_as

_matmul = partial(jnp.matmul, precision=HIGHEST)


POLISH = 3  # steps at scale 1 that take the last residual, .1 or less, to 1e-8


def _scales(condition: float, polish: int = POLISH) -> list[float]:
    """The factor of X before each step, for eigenvalues of A X in [1 / condition, 1].

    With a factor 2 / (1 + low), the residuals of both ends of the spectrum are equal, and a step takes low to
    4 low / (1 + low)^2: fourfold while it is small, where plain steps only double it.
    """
    low, scales = 1 / condition, []
    while low < 0.9:
        scales.append(2 / (1 + low))
        low = 4 * low / (1 + low) ** 2
    return scales + [1.0] * polish


def inverse_spd(
    a: Float[Array, "p p"],
    *,
    condition: float | None = None,
    largest: Float[Array, ""] | None = None,
    polish: int = POLISH,
    unroll: bool = False,
) -> Float[Array, "p p"]:
    """Inverts a symmetric positive definite matrix by Newton-Schulz iterations; not meant to be differentiated.

    X <- c X (2 I - A c X) from X = I / |A| converges quadratically for every such A, and corrects its own rounding;
    the factors c halve the number of steps. Directions with an eigenvalue below |A| / condition are only partly
    inverted.

    Args:
      a: (p, p) symmetric, eigenvalues >= 0.
      condition: upper bound of |A| / smallest eigenvalue; None: what the dtype can resolve.
      largest: |A|, an upper bound of the eigenvalues, such as the trace; None: the largest sum of a row's sizes.
      polish: steps without a factor, which square the last residual of .1 or less.
      unroll: whether the program has every step, and not a loop: more to compile, less to run.

    Returns:
      (p, p) inverse; zeros for a zero matrix.

    References:
      C. Kenney, A. J. Laub, On scaling Newton's method for polar decomposition and the matrix sign function, 1992.
    """
    limit = 1 / float(jnp.finfo(a.dtype).eps)
    scales = _scales(limit if condition is None else min(condition, limit), polish)
    bound = jnp.max(jnp.sum(jnp.abs(a), axis=1)) if largest is None else largest
    scaled = a / jnp.where(bound > 0, bound, 1)
    eye = jnp.eye(a.shape[0], dtype=a.dtype)

    # X stays symmetric up to rounding by itself. Making it so would cost a transpose a step, and was seen to let the
    # rounding of singular matrices grow to NaN. Fewer passes of bfloat16 before the last steps are no way to save more:
    # where the condition is near 1e4, their rounding turns small eigenvalues negative, and the iteration diverges.
    def step(scale: float | Array, x: Array) -> Array:
        x = scale * x
        return _matmul(x, 2 * eye - _matmul(scaled, x))

    if unroll:
        x = scales[0] * (2 * eye - scales[0] * scaled)  # the first step, from the identity, needs no products
        for scale in scales[1:]:
            x = step(scale, x)
    else:
        # `0 * scaled` keeps the loop's carry as device-varying as `a` is (shard_map tracks that in its types).
        factors = jnp.asarray(scales, a.dtype)
        x = jax.lax.fori_loop(0, len(scales), lambda i, x: step(factors[i], x), eye + 0 * scaled)
    return jnp.where(bound > 0, x / jnp.where(bound > 0, bound, 1), 0)


def solve_spd(
    a: Float[Array, "p p"],
    b: Float[Array, "p d"],
    *,
    condition: float | None = None,
    inverse: Float[Array, "p p"] | None = None,
) -> Float[Array, "p d"]:
    """Solves A X = B for a symmetric positive definite A, with gradients by implicit differentiation.

    dX = A^-1 (dB - dA X): no iteration is ever differentiated, so early convergence cannot turn into a NaN gradient.

    Args:
      a: (p, p) symmetric positive definite; a zero matrix gives zeros.
      b: (p, d) right-hand sides.
      condition: upper bound of |A|_inf / smallest eigenvalue, when one is known (fewer iterations).
      inverse: A^-1, where it is known already.

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
    a, inverse = varying_as((a, inverse), b)  # JAX solves with both or neither
    known = inverse_spd(jax.lax.stop_gradient(a), condition=condition) if inverse is None else inverse

    def solve(matvec: Callable[[Array], Array], rhs: Array) -> Array:
        x = _matmul(known, rhs)
        return x + _matmul(known, rhs - matvec(x))  # one refinement step: residuals at working precision

    return jax.lax.custom_linear_solve(partial(_matmul, a), b, solve, symmetric=True)
