"""The layout of a batch's rows over a mesh, for activations: without it, one odd parameter decides theirs."""

import contextlib
import math

import jax
from jax.sharding import AxisType, Mesh, PartitionSpec
from jaxtyping import Array

AXES = ("data", "fsdp")  # the axes of the mesh that share a batch
ROWS = PartitionSpec(AXES)


def rows_over(mesh: Mesh) -> contextlib.AbstractContextManager[None]:
    """Within it, :func:`pinned` splits rows over the mesh."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def pinned(x: Array) -> Array:
    """Activations (B, ...), and their gradients, split by rows and whole in every other dimension.

    The compiler chooses each value's layout by its neighbours'. Where a table's rows do not divide the devices, its
    width is split, and would be split in all that is computed from it. Outside of :func:`rows_over`, and where the
    devices do not divide the rows, this does nothing.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(pinned(jnp.ones(2)))
      [1. 1.]
    """
    sizes = _sizes()
    if sizes is None or x.shape[0] % math.prod(sizes):
        return x
    return jax.lax.with_sharding_constraint(x, ROWS)


def whole(x: Array) -> Array:
    """A parameter, and its gradient, as every device needs it to read any of its rows; nothing outside of a mesh."""
    return x if _sizes() is None else jax.lax.with_sharding_constraint(x, PartitionSpec())


def _sizes() -> list[int] | None:
    """Devices along the axes that share a batch; None outside of :func:`rows_over`."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return [mesh.shape[axis] for axis in AXES] if all(kinds.get(axis) == AxisType.Auto for axis in AXES) else None
