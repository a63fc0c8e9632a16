"""Data, fully sharded and tensor parallelism by ``jax.jit`` over a mesh: every leaf that can be split is split.

The batch is split over the axes "data" and "fsdp" together; a large parameter over "fsdp", and the big matrices of
transformer and mixer blocks also over "tensor". Optimiser state and averaged parameters follow their parameters. Under
``jit`` a sum over the batch is a sum over the global batch, so no axis name is needed.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from c3r_jax.caches import quick_compilation
from c3r_jax.parallel.layout import lay_out
from c3r_jax.parallel.rows import ROWS, rows_over

AXES = ("data", "fsdp", "tensor")
# Which dimension of a block's matrix is split over "tensor": the output of matrices that lead into heads or hidden
# units, the input of those that lead out of them. A block then needs one sum over "tensor" after attention and one
# after its MLP.
TENSOR_RULES = (
    (re.compile(r"Block_\d+/.*/(query|key|value)/kernel$"), 1),
    (re.compile(r"Block_\d+/.*/out/kernel$"), 0),
    (re.compile(r"backbone/layer_\d+/(query|key|value|intermediate)/kernel$"), 1),
    (re.compile(r"backbone/layer_\d+/(attention_output|output)/kernel$"), 0),
    (re.compile(r"TransformerBlock_\d+/Dense_0/kernel$|MixerBlock_\d+/Dense_[02]/kernel$"), 1),
    (re.compile(r"TransformerBlock_\d+/Dense_1/kernel$|MixerBlock_\d+/Dense_[13]/kernel$"), 0),
)


def partition(path: str, shape: Sequence[int], sizes: Mapping[Any, int], min_size: int) -> PartitionSpec:
    """How one leaf is split: its tensor dimension by rule, its largest remaining dimension over "fsdp".

    Args:
      path: names on the way to the leaf, joined by "/"; the path of an optimiser's moment ends in its parameter's path.
      shape: shape of the leaf.
      sizes: {axis: number of devices}.
      min_size: leaves with fewer elements are copied, which costs less than gathering them.

    Returns:
      A partition spec with one entry per dimension.

    Examples:
      >>> sizes = {"data": 2, "fsdp": 2, "tensor": 2}
      >>> print(*partition("params/encoders_text/TransformerBlock_0/Dense_0/kernel", (64, 128), sizes, 0))
      fsdp tensor
      >>> print(*partition("params/head/bias", (9,), sizes, 0))
      None
    """
    spec: list[str | None] = [None] * len(shape)
    if math.prod(shape) < min_size or re.search(r"(^|/)instrument/", path):
        return PartitionSpec(*spec)
    for pattern, dimension in TENSOR_RULES:
        # Adafactor stores vectors under these names, which do not fit.
        fits = dimension < len(shape) and shape[dimension] % sizes["tensor"] == 0
        if sizes["tensor"] > 1 and pattern.search(path) and fits:
            spec[dimension] = "tensor"
            break
    if sizes["fsdp"] > 1:
        free = [d for d in range(len(shape)) if spec[d] is None and shape[d] % sizes["fsdp"] == 0 and shape[d] > 1]
        if free:
            spec[max(free, key=lambda d: shape[d])] = "fsdp"
    return PartitionSpec(*spec)


class Sharded:
    """Runs a step as one program over a mesh of devices.

    Args:
      fsdp: number of devices that share a parameter.
      tensor: number of devices that share a block's matrices.
      min_size: leaves with fewer elements are copied.
      devices: devices of all processes; None uses every device.

    Raises:
      ConfigError: the axes do not divide the devices, or those of a process.

    Attributes:
      axis_name: None, since sums are over the global batch anyway.
      devices: the devices.
      num_devices: number of devices over which a batch is split.
      mesh: the mesh of data x fsdp x tensor.
      rows: how a batch is split over it.
    """

    axis_name: str | None = None

    def __init__(self, fsdp: int, tensor: int, min_size: int, devices: Sequence[Any] | None = None):
        self.devices = tuple(devices or jax.devices())
        placed = lay_out(self.devices, fsdp, tensor)
        shape = placed.shape
        self.mesh = Mesh(placed, AXES, axis_types=(AxisType.Auto,) * 3)
        self.num_devices = shape[0] * fsdp
        self._sizes = dict(zip(AXES, shape, strict=True))
        self._min_size = min_size
        self.rows = NamedSharding(self.mesh, ROWS)
        self._copied = NamedSharding(self.mesh, PartitionSpec())
        self._whole = jax.jit(lambda tree: tree, out_shardings=self._copied)

    def shardings(self, tree: Any) -> Any:
        """The sharding of every leaf of a state."""

        def sharding_of(path: Any, leaf: Any) -> NamedSharding:
            name = "/".join(str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path)
            return NamedSharding(self.mesh, partition(name, leaf.shape, self._sizes, self._min_size))

        return jax.tree_util.tree_map_with_path(sharding_of, tree)

    def init(self, function: Callable[[], Any]) -> Any:
        """The state that a pure function returns, never whole on any device."""
        shardings = self.shardings(jax.eval_shape(function))
        return jax.jit(function, out_shardings=shardings, compiler_options=quick_compilation(1))()

    def put(self, tree: Any) -> Any:
        """Distributes a state from the host over the devices; a restored state is distributed already."""
        return jax.tree.map(jax.device_put, tree, self.shardings(tree))

    def host(self, tree: Any) -> Any:
        """Fetches every leaf as a whole array."""
        whole = tree
        if not all(x.is_fully_replicated for x in jax.tree.leaves(tree)):
            whole = self._whole(tree)
        return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), whole)

    def saved(self, tree: Any) -> Any:
        """The state as a checkpoint stores it: each process writes its part."""
        return tree

    def template(self, function: Callable[[], Any]) -> Any:
        """Shapes for restoring a checkpoint, from the function that returns a new state: each device reads its part."""
        shapes = jax.eval_shape(function)
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            shapes,
            self.shardings(shapes),
        )

    def abstract(self, function: Callable[[], Any], batch: Any) -> tuple[Any, Any]:
        """Shapes of a state and a global batch on the devices, enough to compile a step."""
        rows = self.rows
        return self.template(function), jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), batch
        )

    def split(self, batch: Any) -> Any:
        """Splits the rows of every leaf (this process's share of the batch) over the devices."""
        if jax.process_count() == 1:
            return jax.tree.map(lambda x: jax.device_put(x, self.rows), batch)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self.rows, x), batch)

    def gather(self, tree: Any) -> Any:
        """Fetches per-row outputs of all processes, in the order of the global batch."""
        if jax.process_count() == 1:
            return jax.tree.map(np.asarray, tree)
        return multihost_utils.process_allgather(tree, tiled=True)

    def own(self, tree: Any) -> Any:
        """Fetches this process's share of per-row outputs, in the order of the rows that :meth:`split` was given."""
        return jax.tree.map(_own_rows, tree)

    def compile_step(self, step: Callable) -> Callable:
        """Compiles ``step(state, batch) -> (state, metrics)``, reusing the memory of the old state."""

        def sharded_step(state: Any, batch: Any) -> Any:
            with rows_over(self.mesh):
                state, metrics = step(state, batch)
            metrics = jax.lax.with_sharding_constraint(metrics, self._copied)
            return jax.lax.with_sharding_constraint(state, self.shardings(state)), metrics

        return jax.jit(sharded_step, donate_argnums=0)

    def compile_summary(self, function: Callable) -> Callable:
        """Compiles ``function(state) -> scalars``."""
        return jax.jit(function, out_shardings=self._copied)

    def compile_rows(self, function: Callable) -> Callable:
        """Compiles ``function(params, batch) -> per-row outputs``."""

        def sharded_rows(params: Any, batch: Any) -> Any:
            with rows_over(self.mesh):
                return function(params, batch)

        return jax.jit(sharded_rows, out_shardings=self.rows)


def _own_rows(array: jax.Array) -> np.ndarray:
    """The rows of an array that this process's devices hold; a torus puts other processes' rows between them."""
    parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(parts[begin]) for begin in sorted(parts)])
