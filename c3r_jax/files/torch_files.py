"""Reads files of ``torch.save`` without PyTorch: named tensors are read, everything else is refused, not run.

Such a file is a pickle, and a pickle is a program. Here every name it asks for is looked up in a short table of
functions defined below, which only record how a tensor is stored; the numbers themselves are outside the pickle and
are copied with every bound checked. Both formats are read: the current zip archive and the sequence of pickles that
PyTorch wrote before version 1.6.
"""

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from c3r_jax.errors import DataError
from c3r_jax.files.pickles import NamesFromTable

DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",  # the upper half of a float32
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the older format
WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which some trainers store the tensors


class _Storage(NamedTuple):
    """Numbers outside the pickle."""

    kind: str
    key: str
    count: int


class _Tensor(NamedTuple):
    """A view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Dict(dict):
    """An ordered dict whose attributes (PyTorch's ``_metadata``) are ignored."""

    def __setstate__(self, state: Any) -> None:
        pass


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Dict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): name for name in DTYPES},
}


class _Unpickler(NamesFromTable, pickle.Unpickler):
    """The standard library's unpickler with names from :data:`KNOWN`."""

    expected = "named tensors of plain storages"
    advice = "ask its publisher for safetensors"

    def __init__(self, file: Any, path: str):
        super().__init__(file, encoding="utf-8")
        self.path = path
        self.item_sizes: dict[str, int] = {}  # bytes per number of every storage that the pickle asked for

    def known(self, module: str, name: str) -> Any:
        """The replacement for a name."""
        return KNOWN.get((module, name))

    def persistent_load(self, pid: Any) -> _Storage:
        """The replacement for numbers outside the pickle."""
        tag, kind, key, _, count, *view = pid
        if tag != "storage" or kind not in DTYPES or any(part is not None for part in view):
            raise pickle.UnpicklingError(f"a storage of kind {kind!r}")
        self.item_sizes[str(key)] = np.dtype(DTYPES[kind]).itemsize
        return _Storage(kind, str(key), int(count))


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
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            tree, numbers = _read_zip(content, name)
        else:
            tree, numbers = _read_sequence(content, name)
        return {key: _array(tensor, numbers) for key, tensor in _named(tree).items()}
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


def _named(tree: Any) -> Mapping[str, Any]:
    """The tensors by name, at the top or under one of the wrapper keys."""
    if isinstance(tree, dict):
        for key in WRAPPERS:
            if isinstance(tree.get(key), dict):
                return tree[key]
        return tree
    raise TypeError(f"it holds a {type(tree).__name__}, not tensors by name")


def _array(tensor: Any, numbers: Callable[[str], bytes]) -> np.ndarray:
    if not isinstance(tensor, _Tensor):
        raise TypeError(f"a {type(tensor).__name__} among the tensors")
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
    flat = np.frombuffer(numbers(storage.key), DTYPES[storage.kind])
    last = tensor.offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    negative = min((*shape, *strides, tensor.offset)) < 0
    if negative or len(flat) != storage.count or (math.prod(shape) and last >= len(flat)):
        raise ValueError(f"a tensor of shape {shape} and strides {strides} in a storage of {len(flat)} numbers")
    if math.prod(shape) > len(flat):
        raise ValueError(f"a tensor of shape {shape}, more numbers than its storage of {len(flat)} has")
    item = flat.itemsize
    view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], shape, [item * step for step in strides])
    if storage.kind == "BFloat16Storage":
        return (view.astype(np.uint32) << 16).view(np.float32)
    return np.array(view)
