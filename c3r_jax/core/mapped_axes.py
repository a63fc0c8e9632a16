"""What the core must know of the mesh it runs under: whether a batch is split, and axes whose type is Explicit."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec

AxisName = str | tuple[str, ...] | None


def checked_axis(axis_name: AxisName) -> Any:
    """The mapped axis as it was given, or raises where it was forgotten: sums would be those of a part of the batch.

    ``pmap`` and ``shard_map`` split the batch. ``vmap`` mostly maps over batches, so there nothing is looked for.

    Args:
      axis_name: as it was given; () where each device is meant to have a batch of its own.

    Raises:
      ValueError: the program runs under ``pmap`` or ``shard_map``, and no axis is named.

    Examples:
      >>> checked_axis("batch"), checked_axis(None)  # neither pmap nor shard_map
      ('batch', None)
    """
    axes = sorted(jax.sharding.get_abstract_mesh().manual_axes)
    if axis_name is None and axes:
        named = not axes[0].startswith("_")  # pmap without a name makes one up
        shown = f"axis_name={axes[0]!r}" if named else "axis_name='batch' here and in pmap"
        raise ValueError(
            f"axis_name is None, but this runs under pmap or shard_map{f' over {axes}' if named else ''}: the loss and "
            "its gradient would be those of one device's share of the batch. Name the axis over which the batch is "
            f"split ({shown}), or give axis_name=() if each device has a batch of its own."
        )
    return axis_name


def is_tracked(axis_name: AxisName) -> bool:
    """Whether ``shard_map`` keeps account of which values differ between devices (``check_vma``, its default).

    It then sums the gradients of what all devices share by itself, and sums over devices are differentiated once.
    """
    names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    if not axis_name or not set(names) <= set(jax.sharding.get_abstract_mesh().manual_axes):
        return False
    return bool(_varying(jax.lax.axis_index(axis_name)))


def varying_as(tree: Any, other: Any) -> Any:
    """The arrays, as ones that differ between devices wherever ``other`` does; only types that ``shard_map`` tracks."""

    def cast(x: Any) -> Any:
        axes = tuple(sorted(_varying(other) - _varying(x)))
        return jax.lax.pcast(x, axes, to="varying") if axes else x

    return jax.tree.map(cast, tree)


def _varying(x: Any) -> frozenset[str]:
    kind = jax.typeof(x)
    return frozenset(getattr(getattr(kind, "manual_axis_type", None), "varying", ()) or getattr(kind, "vma", ()))


def has_explicit_axes(arrays: Any) -> bool:
    """Whether arrays lie on a mesh with axes of type Explicit, as ``jax.make_mesh`` makes them by default."""
    first = [x for x in jax.tree.leaves(arrays) if isinstance(x, jax.Array)][:1]
    return any(kind == AxisType.Explicit for x in first for kind in jax.typeof(x).sharding.mesh.axis_types)


def with_auto_axes(
    function: Callable[..., Any], arrays: Any, calls: dict[str, tuple[Callable[..., Any], Any]], num_rows: int
) -> Any:
    """Runs a function on arrays whose shardings are types, and leaves the layout of its own values to the compiler.

    What the caller gave as functions still sees shardings as types.

    Args:
      function: (arrays, {name: function}) -> tree of arrays.
      arrays: tree of arrays.
      calls: {name: (function of arrays with rows, examples of its arguments)}.
      num_rows: B; results with so many rows are split as the first array is, all others are whole.

    Returns:
      What ``function`` returns.
    """
    of_first = jax.typeof(jax.tree.leaves(arrays)[0]).sharding
    mesh, rows = of_first.mesh, PartitionSpec(*of_first.spec[:1])
    explicit = [name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit]

    def run(arrays: Any, closed: Any) -> Any:
        def outside(name: str) -> Callable[..., Any]:
            def call(*given: Any) -> Any:
                specs = jax.tree.map(lambda _: rows, given)
                body = jax.sharding.explicit_axes(converted[name], in_sharding=(*specs, *kept[name]))
                return body(*given, *closed[name])

            return call

        return function(arrays, {name: outside(name) for name in calls})

    with jax.sharding.use_abstract_mesh(mesh):
        converted, closed = {}, {}  # what the functions close over becomes an argument, for only those can be cast
        for name, (call, given) in calls.items():
            converted[name], closed[name] = jax.closure_convert(call, *given)
        kept = jax.tree.map(lambda x: jax.typeof(x).sharding.spec, closed)
        with jax.sharding.use_abstract_mesh(mesh.update_axis_types(dict.fromkeys(explicit, AxisType.Auto))):
            plain = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (arrays, closed))
            shapes = jax.eval_shape(run, *plain)
        specs = jax.tree.map(lambda x: rows if x.shape[:1] == (num_rows,) else PartitionSpec(), shapes)
        freely: Any = jax.sharding.auto_axes  # its type lacks the function
        return freely(run, out_sharding=specs)(arrays, closed)
