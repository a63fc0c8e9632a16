"""Converts between this package's parameters and the names and layouts of PyTorch's models.

A parameter's name is its path; the architecture's table maps it to the source's name. Layouts follow one rule for each
kind of leaf: a matrix product's kernel is transposed, a convolution's goes from (height, width, in, out) to (out, in,
height, width).
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
LISTED = 8  # at most so many names in a message


@dataclasses.dataclass(frozen=True)
class Names:
    """A source's names for an architecture's tensors.

    Attributes:
      source: the source, for messages.
      table: (pattern of our module's path, the source's name); a path that no pattern matches keeps its name.
      prefixes: possible prefixes of all names in a file.
      left_out: pattern of tensors that the encoder does not have: classifiers, poolers, counters.
    """

    source: str
    table: tuple[tuple[str, str], ...]
    prefixes: tuple[str, ...] = ("",)
    left_out: str = r"num_batches_tracked$"

    def of(self, path: tuple[str, ...]) -> str:
        """The source's name for one of our parameters."""
        *modules, leaf = path
        name = "/".join(modules) or leaf
        for pattern, replacement in self.table:
            name, matched = re.subn(f"^{pattern}$", replacement, name)
            if matched:
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
    """Converts a file's tensors to an encoder's parameters, after checking all names and shapes of both.

    Args:
      tensors: {the source's name: array}.
      like: the encoder's parameters, or their shapes.
      known: names in each source; the best match is used.
      file: the file's name, for messages.

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
        f"{len(listed)} tensors {what}: {', '.join(listed[:LISTED])}{', ...' if len(listed) > LISTED else ''}"
        for what, listed in (("are missing", missing), ("have no place", unused), ("have other shapes", wrong))
        if listed
    ]
    if problems:
        raise DataError(
            f"{file} does not fit the encoder by {names.source}'s names ({'; '.join(problems)}): choose the "
            "architecture of these weights."
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
    """The names and prefix that match most of the file's tensors (in a tie, the first)."""
    choices = [(names, prefix) for names in known for prefix in names.prefixes]
    return max(choices, key=lambda choice: sum(choice[1] + choice[0].of(path) in tensors for path in flat))


def to_tensors(
    params: Any, known: tuple[Names, ...], like: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """An encoder's weights under a source's names, to be written with :func:`write_tensors`.

    Args:
      params: the encoder's parameters.
      known: names in each source.
      like: tensors of the original file: its names, dtypes and tensors that the encoder does not have are kept;
        None: the first source's names, float32.

    Returns:
      {the source's name: array}; unchanged weights are identical bit by bit.
    """
    flat: dict[tuple[str, ...], Any] = dict(flatten_dict(jax.tree.map(np.asarray, params)))
    names, prefix = (known[0], known[0].prefixes[0]) if like is None else _best(like, flat, known)
    converted = {prefix + names.of(path): _outward(path[-1], value) for path, value in flat.items()}
    if like is None:
        return converted
    return {**like, **{name: value.astype(like[name].dtype) for name, value in converted.items()}}
