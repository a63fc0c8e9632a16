"""Several matrices that every device holds, inverted by one device each instead of all of them by every device."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from c3r_jax.core.linear_solve import POLISH, inverse_spd
from c3r_jax.core.mapped_axes import is_tracked
from c3r_jax.core.moments import folded, unfolded

# From so many columns on, sending an inverse takes a small part of the time that making it takes. Two inverses of 512
# columns are some .5 ms of a TPU v5e, by its compiler's cycles, and one takes 5 us on the way to its neighbour.
WIDE = 512


def are_shared(num_matrices: int, width: int, axis_name: Any) -> bool:
    """Whether devices along a mapped axis share the inverses of (m, p, p): enough devices, and wide matrices.

    Under ``vmap`` the axis is of one device, which would only invert more. Where ``shard_map`` keeps account of what
    differs between devices (``check_vma``), what they exchange would count as such.
    """
    names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    of_devices = jax.sharding.get_abstract_mesh().manual_axes  # the axes of pmap and shard_map
    if not axis_name or not set(names) <= set(of_devices):
        return False
    if is_tracked(axis_name):
        return False
    return width >= WIDE and jax.lax.axis_size(axis_name) >= num_matrices


def shared_inverses(
    a: Float[Array, "m p p"],
    *,
    largest: Float[Array, " m"] | None = None,
    condition: float | None = None,
    axis_name: Any,
) -> Float[Array, "m p p"]:
    """:func:`c3r_jax.core.linear_solve.inverse_spd` of several matrices; one device of the axis inverts one of them.

    Of an inverse, which is symmetric, half is sent. Where m divides the number of devices, each group of m neighbours
    has all inverses and passes them round; else they are summed over all devices, of which all but one have zeros.

    Args:
      a: (m, p, p), the same on every device.
      largest: (m,) upper bounds of their eigenvalues; see ``inverse_spd``.
      condition: see ``inverse_spd``, of all of them.
      axis_name: mapped axis with at least m devices.

    Examples:
      >>> a = jnp.array([[[2.0, 0.0], [0.0, 4.0]], [[1.0, 0.0], [0.0, 5.0]]])
      >>> share = jax.vmap(lambda a: shared_inverses(a, axis_name="devices"), axis_name="devices")  # two of them
      >>> print(abs(share(jnp.stack([a, a]))[1]).round(3))
      [[[0.5  0.  ]
        [0.   0.25]]
      <BLANKLINE>
       [[1.   0.  ]
        [0.   0.2 ]]]
    """
    (m, p, _), devices = a.shape, jax.lax.axis_size(axis_name)
    index = jax.lax.axis_index(axis_name)
    place = index % m
    own_a, own_largest = jax.tree.map(partial(jax.lax.dynamic_index_in_dim, index=place, keepdims=False), (a, largest))
    # A residual of 1e-4 is enough in float32, as `solve_spd` refines what it solves; a loop would read its factors.
    polish = POLISH - 1 if a.dtype == jnp.float32 else POLISH
    inverse = inverse_spd(own_a, largest=own_largest, condition=condition, polish=polish, unroll=True)
    own = folded(jnp.pad(inverse, (0, p % 2)))
    if devices % m:
        first = jnp.arange(m) == index  # devices after the m-th repeat what others do, and are not asked
        return _whole(jax.lax.psum(jnp.where(first[:, None, None], own, 0), axis_name), p)
    known = [own]
    for step in range(1, m):
        pairs = [(i - i % m + (i + step) % m, i) for i in range(devices)]  # the one that is so many places further on
        known.append(jax.lax.ppermute(own, axis_name, pairs))
    return _whole(jnp.roll(jnp.stack(known), place, axis=0), p)


def _whole(halves: Float[Array, "m half columns"], p: int) -> Float[Array, "m p p"]:
    return jax.vmap(unfolded)(halves)[:, :p, :p]
