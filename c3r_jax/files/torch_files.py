"""Reads files of ``torch.save`` without PyTorch: named tensors are read, everything else is refused, not run.

Such a file is a pickle, and a pickle is a program. Here every name it asks for is looked up in a table of functions
(``torch_names``) that only record how a tensor is stored, or take what is beside the tensors without reading it; the
numbers themselves are outside the pickle and are copied with every bound checked. Both formats are read: the current
zip archive and the sequence of pickles that PyTorch wrote before version 1.6.
"""

import io
import math
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from c3r_jax.errors import DataError
from c3r_jax.files.pickles import NamesFromTable
from c3r_jax.files.pointers import lfs_hint
from c3r_jax.files.torch_names import DTYPES, KNOWN, UNTYPED, Aside, Storage, Tensor

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the older format
# Keys under which trainers store the tensors, the likeliest first.
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
)
# Parts of a trainer's file that hold other tensors than weights.
_NO_WEIGHTS = re.compile(r"optim|sched|scaler|rng|^(hyper_parameters|callbacks|loops|args|config|meta|history)$", re.I)
MAX_DEPTH = 6  # of dicts within dicts
EXPANDED = 1 << 26  # numbers that tensors may have together beyond their storages (one number seen many times)


class _Unpickler(NamesFromTable, pickle.Unpickler):
    """The standard library's unpickler with names from :data:`KNOWN`."""

    expected = "named tensors of plain storages"
    advice = "save its state_dict() alone, or ask its publisher for safetensors"

    def __init__(self, file: Any, path: str):
        super().__init__(file, encoding="utf-8")
        self.path = path
        self.item_sizes: dict[str, int] = {}  # bytes per number of every storage that the pickle asked for

    def known(self, module: str, name: str) -> Any:
        """The replacement for a name."""
        return KNOWN.get((module, name))

    def persistent_load(self, pid: Any) -> Storage:
        """The replacement for numbers outside the pickle."""
        tag, kind, key, _, count, *view = pid
        if tag != "storage" or kind not in (*DTYPES, UNTYPED) or any(part is not None for part in view):
            raise pickle.UnpicklingError(f"a storage of kind {kind!r}")
        self.item_sizes[str(key)] = np.dtype(DTYPES.get(kind, "u1")).itemsize
        return Storage(kind, str(key), int(count))


def read_torch(content: bytes, name: str = "the file") -> dict[str, np.ndarray]:
    """Reads the named tensors of a ``.pth``, ``.pt`` or ``.bin`` file.

    Args:
      content: the file's bytes.
      name: the file's name, for messages.

    Returns:
      {name: array}; bfloat16 is returned as float32, which represents it exactly.

    Raises:
      DataError: the file asks for anything but tensors (which the message names), or is damaged.
    """
    if hint := lfs_hint(content):
        raise DataError(f"{name} {hint}.")
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            tree, numbers = _read_zip(content, name)
        else:
            tree, numbers = _read_sequence(content, name)
        return _arrays(_named(tree), numbers)
    except DataError:
        raise
    except Exception as error:  # whatever a damaged or hostile pickle makes the reader raise
        raise DataError(
            f"{name} is no whole file of named tensors of plain storages ({type(error).__name__}: {error}): fetch it "
            "again, or ask its publisher for safetensors."
        ) from error


def _read_zip(content: bytes, name: str) -> tuple[Any, Callable[[str], bytes]]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{entry.filename} is compressed, as PyTorch never writes it")
    pickles = [entry for entry in archive.namelist() if entry.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"{len(pickles)} entries are called data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("its numbers are not little-endian")
    tree = _Unpickler(io.BytesIO(archive.read(pickles[0])), name).load()
    return tree, lambda key: archive.read(f"{folder}data/{key}")


def _read_sequence(content: bytes, name: str) -> tuple[Any, Callable[[str], bytes]]:
    """Reads magic number, protocol, machine, tensors and storage keys; then each storage's count and numbers."""
    file = io.BytesIO(content)
    readers = [_Unpickler(file, name) for _ in range(5)]
    magic, protocol, machine, tree, keys = (reader.load() for reader in readers)
    if magic != MAGIC or protocol != PROTOCOL or not machine["little_endian"]:
        raise ValueError("it does not begin as a little-endian file of torch.save")
    sizes = readers[3].item_sizes  # also of storages that no named tensor uses, such as an optimiser's
    numbers = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        if count < 0:
            raise ValueError(f"storage {key} has {count} numbers")
        numbers[key] = file.read(count * sizes[key])
    return tree, numbers.__getitem__


def _named(tree: Any) -> dict[str, Tensor]:
    """The tensors by name: at the top, under one of the wrapper keys, or in any dicts, whose keys then come first."""
    if not isinstance(tree, dict):
        raise TypeError(f"it holds a {_kind(tree)}, not tensors by name")
    for key in WRAPPERS:
        part = tree.get(key)
        if isinstance(part, dict) and _tensors_in(part):
            return _named(part)
    found = _tensors_in(tree)
    if not found:
        other = next(iter(tree.values()), None)
        raise TypeError(f"a {_kind(other)} among the tensors" if tree else "it holds no tensors")
    return found


def _kind(value: Any) -> str:
    return "array or object" if isinstance(value, Aside) else type(value).__name__


def _tensors_in(tree: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, value in tree.items():
        if isinstance(value, Tensor):
            found[f"{prefix}{key}"] = value
        elif isinstance(value, dict) and depth < MAX_DEPTH and not _NO_WEIGHTS.search(str(key)):
            found |= _tensors_in(value, f"{prefix}{key}.", depth + 1)
    return found


def _arrays(tensors: Mapping[str, Tensor], numbers: Callable[[str], bytes]) -> dict[str, np.ndarray]:
    """The tensors' numbers."""
    last, content, beyond, found = None, b"", 0, {}
    for name, tensor in tensors.items():
        if tensor.storage.key != last:  # many tensors may be parts of one storage
            last, content = tensor.storage.key, numbers(tensor.storage.key)
        beyond += max(0, math.prod(tensor.shape) - tensor.storage.count)
        if beyond > EXPANDED:
            raise ValueError(f"a tensor of shape {tensor.shape}, more numbers than its storage has")
        value = _array(tensor, content)
        found[name] = np.asarray(-value) if tensor.negative else value
    return found


def _array(tensor: Tensor, content: bytes) -> np.ndarray:
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
    if storage.kind == UNTYPED and tensor.dtype is None:
        raise ValueError("a tensor of unknown dtype")
    if storage.kind == UNTYPED and len(content) != storage.count:
        raise ValueError(f"a storage of {len(content)} bytes instead of {storage.count}")
    flat = np.frombuffer(content, tensor.dtype or DTYPES[storage.kind])
    last = tensor.offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    negative = min((*shape, *strides, tensor.offset)) < 0
    whole = storage.kind == UNTYPED or len(flat) == storage.count
    if negative or not whole or (math.prod(shape) and last >= len(flat)):
        raise ValueError(f"a tensor of shape {shape} and strides {strides} in a storage of {len(flat)} numbers")
    item = flat.itemsize
    view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], shape, [item * step for step in strides])
    if storage.kind == "BFloat16Storage":
        return (view.astype(np.uint32) << 16).view(np.float32)
    return np.array(view)
