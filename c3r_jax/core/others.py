"""All modalities but one, for each of them at once: programs whose size does not grow with the number of modalities."""

import jax
import jax.numpy as jnp
from jaxtyping import Array


def of_others(x: Array, axis: int) -> Array:
    """The blocks of an axis that are not a stage's own, in their order.

    It selects between two slices, before and after the own block: joining slices takes far longer to compile, and
    lists of indices have a scatter for a gradient.

    Args:
      x: (M, ...), stages first, whose ``axis`` holds M blocks of equal width.
      axis: the axis, not the first.

    Returns:
      (M, ...) with M - 1 blocks.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(of_others(jnp.tile(jnp.arange(6), (3, 1)), 1))
      [[2 3 4 5]
       [0 1 4 5]
       [0 1 2 3]]
    """
    stages, size = x.shape[0], x.shape[axis]
    width = size // stages
    before = (jnp.arange(size - width) // width)[None, :] < jnp.arange(stages)[:, None]
    shape = [1] * x.ndim
    shape[0], shape[axis] = before.shape
    first = jax.lax.slice_in_dim(x, 0, size - width, axis=axis)
    return jnp.where(before.reshape(shape), first, jax.lax.slice_in_dim(x, width, size, axis=axis))


def of_own(x: Array, axis: int) -> Array:
    """A stage's own block of an axis, as :func:`of_others` has the others.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(of_own(jnp.tile(jnp.arange(6), (3, 1)), 1))
      [[0 1]
       [2 3]
       [4 5]]
    """
    stages = x.shape[0]
    if stages == 2:  # of two slices, as above: on a TPU, the gradient of the sum below is moved several times
        of_first = (jnp.arange(2) == 0).reshape(2, *[1] * (x.ndim - 1))
        return jnp.where(of_first, *jnp.split(x, 2, axis))
    blocks = x.reshape(*x.shape[:axis], stages, -1, *x.shape[axis + 1 :])
    shape = [1] * blocks.ndim
    shape[0] = shape[axis] = stages
    return jnp.where(jnp.eye(stages, dtype=bool).reshape(shape), blocks, 0).sum(axis)
