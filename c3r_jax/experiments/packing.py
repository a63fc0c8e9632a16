"""Packs a state's many arrays into one vector per dtype.

A checkpoint of few arrays is written faster than one of many. TensorStore, which Orbax writes with, also never frees
the descriptions of arrays it has written (seen with version 0.1.86).
"""

import math
from typing import Any

import jax
import numpy as np

Layout = list[list[Any]]  # path, dtype and shape of every array


def held_whole(tree: Any) -> bool:
    """Whether every leaf is a host array, which this process holds completely."""
    return all(isinstance(leaf, np.ndarray | np.generic) for leaf in jax.tree.leaves(tree))


def layout(tree: Any) -> Layout:
    """The structure that :func:`unpacked` needs, as JSON values.

    Examples:
      >>> layout({"w": np.zeros((2, 3), np.float32), "step": np.int32(7)})
      [["['step']", 'int32', []], ["['w']", 'float32', [2, 3]]]
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [[jax.tree_util.keystr(path), np.dtype(x.dtype).name, list(x.shape)] for path, x in leaves]


def packed(tree: Any) -> dict[str, np.ndarray]:
    """All arrays of each dtype, flattened and concatenated.

    Examples:
      >>> packed({"w": np.ones((2, 2)), "b": np.zeros(1), "step": np.int32(7)})
      {'float64': array([0., 1., 1., 1., 1.]), 'int32': array([7], dtype=int32)}
    """
    parts: dict[str, list[np.ndarray]] = {}
    for leaf in jax.tree.leaves(tree):
        parts.setdefault(np.dtype(leaf.dtype).name, []).append(np.asarray(leaf).reshape(-1))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def vectors_for(written: Layout) -> dict[str, np.ndarray]:
    """Empty vectors to read a packed tree into."""
    total: dict[str, int] = {}
    for _, name, shape in written:
        total[name] = total.get(name, 0) + math.prod(shape)
    return {name: np.empty(size, jax.numpy.dtype(name)) for name, size in total.items()}


def unpacked(vectors: dict[str, np.ndarray], written: Layout, like: Any) -> Any:
    """The tree that was packed.

    Args:
      vectors: output of :func:`packed`.
      written: the packed tree's :func:`layout`.
      like: a tree of the same structure, shapes and dtypes.

    Raises:
      ValueError: naming the first array that differs from what is expected.

    Examples:
      >>> tree = {"w": np.ones((2, 2)), "step": np.int32(7)}
      >>> unpacked(packed(tree), layout(tree), tree)["w"]
      array([[1., 1.],
             [1., 1.]])
    """
    expected = layout(like)
    for wanted, saved in zip(expected, written, strict=False):
        if wanted != saved:
            raise ValueError(
                f"array {saved[0]} is {saved[1]} {saved[2]}, expected {wanted[0]}, {wanted[1]} {wanted[2]}"
            )
    if len(expected) != len(written):
        raise ValueError(f"{len(written)} arrays, expected {len(expected)}")
    offsets, leaves = dict.fromkeys(vectors, 0), []
    for _, name, shape in written:
        begin, size = offsets[name], math.prod(shape)
        leaves.append(np.asarray(vectors[name])[begin : begin + size].reshape(shape))
        offsets[name] = begin + size
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
