"""Equal layers, one after the other: each in a place of its own in the program, or as the body of one loop."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from c3r_jax.parallel.rows import pinned


def _unchanged(x: Array) -> Array:
    return x


def layers_in_order(
    owner: nn.Module,
    kind: type[nn.Module],
    sizes: Mapping[str, Any],
    name: str,
    depth: int,
    x: Float[Array, "batch ..."],
    *others: Array,
    remat: bool,
    scan: bool,
    before: Callable[[Array], Array] = _unchanged,
) -> Float[Array, "batch ..."]:
    """Applies ``depth`` layers; called from the owner's compact method, whose submodules they become.

    With ``scan`` their parameters are stacked within the step, and one layer is compiled instead of ``depth``. The
    parameters themselves, and with them checkpoints, exports and learning rates by layer, do not depend on it.

    Args:
      owner: the module that the layers belong to.
      kind: a layer's class.
      sizes: its attributes.
      name: the layers are called NAME_0, NAME_1, ...
      depth: number of layers.
      x: what passes through them.
      others: what every layer also gets, such as a mask.
      remat: recompute activations for the gradient.
      scan: loop over the layers.
      before: applied to x before each layer.

    Returns:
      The last layer's output, of the shape of ``x``.
    """
    names = [f"{name}_{i}" for i in range(depth)]
    if not scan or depth < 2 or owner.is_initializing():
        build = nn.remat(kind) if remat else kind
        for layer in names:
            x = pinned(build(**sizes, name=layer)(before(x), *others))
        return x
    parameters = owner.variables["params"]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(parameters[layer] for layer in names))
    body = kind(**sizes, parent=None)

    def step(x: Array, parameters: Any) -> tuple[Array, None]:
        after: Any = body.apply({"params": parameters}, before(x), *others)
        return pinned(after), None

    return jax.lax.scan(jax.checkpoint(step, prevent_cse=False) if remat else step, x, stacked)[0]
