"""Between this package's parameters and the names and layouts under which PyTorch's models keep theirs.

A parameter's name is its path; a table of the architecture turns it into the source's. What is left is one rule for
each kind of leaf: a matrix product's kernel is transposed, a convolution's goes from (height, width, in, out) to
(out, in, height, width).
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from c3r_jax.errors import DataError

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
LISTED = 8  # names in a message


@dataclasses.dataclass(frozen=True)
class Names:
    """How a source calls an architecture's tensors.

    Attributes:
      source: who calls them so, for messages.
      table: (pattern on our module's path, the source's name); a part that no pattern meets keeps its own.
      prefixes: what may stand before every name in a file.
      left_out: pattern of tensors that the encoder does not have: classifiers, poolers, counters.
    """

    source: str
    table: tuple[tuple[str, str], ...]
    prefixes: tuple[str, ...] = ("",)
    left_out: str = r"num_batches_tracked$"

    def of(self, path: tuple[str, ...]) -> str:
        """The source's name of one of our parameters."""
        *modules, leaf = path
        name = "/".join(modules) or leaf
        for pattern, replacement in self.table:
            name, met = re.subn(f"^{pattern}$", replacement, name)
            if met:
                break
        return f"{name}.{LEAVES.get(leaf, leaf)}".replace("/", ".") if modules else name


def _outward(leaf: str, value: np.ndarray) -> np.ndarray:
    if leaf != "kernel":
        return value
    return value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)


def _inward(leaf: str, value: np.ndarray) -> np.ndarray:
    if leaf != "kernel":
        return value
    return value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0)


def _outward_shape(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return _outward(leaf, np.broadcast_to(np.float32(0), shape)).shape


def from_tensors(tensors: Mapping[str, np.ndarray], like: Any, known: tuple[Names, ...], file: str = "the file") -> Any:
    """Gives an encoder the weights of a file, after checking every name and shape both ways.

    Args:
      tensors: {the source's name: array}.
      like: the encoder's parameters, or their shapes.
      known: how sources call them; the one that fits best is used.
      file: for messages.

    Returns:
      Parameters as ``like``, in float32.

    Raises:
      DataError: a tensor is missing, has another shape, or is not used; the message lists names.
    """
    flat: dict[tuple[str, ...], Any] = dict(flatten_dict(like))
    names, prefix = _best(tensors, flat, known)
    wanted = {prefix + names.of(path): path for path in flat}
    missing = sorted(wanted.keys() - tensors.keys())
    unused = sorted(
        name
        for name in tensors.keys() - wanted.keys()
        if not re.search(names.left_out, name.removeprefix(prefix)) and not re.search(names.left_out, name)
    )
    shapes = {name: _outward_shape(path[-1], flat[path].shape) for name, path in wanted.items() if name in tensors}
    wrong = [
        f"{name} {tensors[name].shape} instead of {shape}"
        for name, shape in shapes.items()
        if tensors[name].shape != shape
    ]
    problems = [
        f"{len(found)} tensors {what}: {', '.join(found[:LISTED])}{', ...' if len(found) > LISTED else ''}"
        for what, found in (("are missing", missing), ("have no place", unused), ("have other shapes", wrong))
        if found
    ]
    if problems:
        raise DataError(
            f"{file} does not fit the encoder by {names.source}'s names ({'; '.join(problems)}): choose the "
            "architecture that the weights are of."
        )
    return unflatten_dict(
        {
            path: np.ascontiguousarray(_inward(path[-1], tensors[name]).astype(np.float32))
            for name, path in wanted.items()
        }
    )


def _best(
    tensors: Mapping[str, np.ndarray], flat: Mapping[tuple[str, ...], Any], known: tuple[Names, ...]
) -> tuple[Names, str]:
    """Whose names, with which prefix, the file has most of (of equals, the first)."""
    choices = [(names, prefix) for names in known for prefix in names.prefixes]
    return max(choices, key=lambda choice: sum(choice[1] + choice[0].of(path) in tensors for path in flat))


def to_tensors(
    params: Any, known: tuple[Names, ...], like: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """An encoder's weights under a source's names, to be written with :func:`write_tensors`.

    Args:
      params: the encoder's.
      known: how sources call them.
      like: tensors of the file they came from: its names, dtypes and the tensors that the encoder does not have are
        kept; None: the first source's names, float32.

    Returns:
      {the source's name: array}; unchanged weights come back bit by bit.
    """
    flat: dict[tuple[str, ...], Any] = dict(flatten_dict(jax.tree.map(np.asarray, params)))
    names, prefix = (known[0], known[0].prefixes[0]) if like is None else _best(like, flat, known)
    own = {prefix + names.of(path): _outward(path[-1], value) for path, value in flat.items()}
    if like is None:
        return own
    return {**like, **{name: value.astype(like[name].dtype) for name, value in own.items()}}
