"""Files of named tensors: safetensors (read and written) and PyTorch's (read), also in a folder or a Python wheel."""

import json
import os
import pathlib
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from c3r_jax.errors import DataError
from c3r_jax.files.archives import safe_name
from c3r_jax.files.pointers import lfs_hint
from c3r_jax.files.torch_files import read_torch

SAFE = (".safetensors",)
TORCH = (".pth", ".pt", ".bin", ".ckpt")
INDEX = tuple(f"{ending}.index.json" for ending in (".safetensors", ".bin"))
WHOLE = ("model.safetensors", "pytorch_model.bin")  # beside shards it is not clear which are meant
# What trainers put beside the weights.
_BESIDE = re.compile(
    r"^((optimizer|scheduler|scaler|dataloader)s?\d*([_-][\w-]*)?|optim\d*([_-](states?|dict|rank|\d+))*"
    r"|(rng_state|random_states|training_args|trainer_state)[\w-]*)\.\w+$"
)
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.\w+)$")
_LISTED = 5
DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
    "BF16": "<u2",  # the upper half of a float32
}


class Member(NamedTuple):
    """A file, perhaps of a folder or a wheel.

    Attributes:
      content: its bytes.
      name: its name, for messages.
      beside: (name) -> the bytes of a file next to it; raises a DataError if it cannot be read.
    """

    content: bytes
    name: str
    beside: Callable[[str], bytes]


def read_member(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> Member:
    """Reads a file, or the only matching file in a folder or Python wheel.

    Args:
      path: a file, a folder or a ``.whl``.
      suffixes: endings of the file's name; the first one that any file has is used.

    Returns:
      The file.

    Raises:
      DataError: no file matches, or more than one does, or it cannot be read.
    """
    path = pathlib.Path(path)
    names, read = _members(path)
    if not names:
        return Member(read(""), str(path), _members(path.parent)[1])
    chosen = _choose(path, names, suffixes)
    folder = pathlib.PurePosixPath(chosen).parent
    return Member(read(chosen), f"{path}/{chosen}", lambda name: read(str(folder / name)))


def _members(path: pathlib.Path) -> tuple[list[str], Callable[[str], bytes]]:
    """The files in a folder or a wheel, and how to read one; no names if ``path`` is the file itself.

    Raises:
      DataError: it cannot be read.
    """

    def read(name: str) -> bytes:
        try:
            if path.is_file() and path.suffix == ".whl":
                with zipfile.ZipFile(path) as archive:
                    return archive.read(name)
            return (path / name if name else path).read_bytes()
        except (OSError, zipfile.BadZipFile, KeyError) as error:
            raise _unreadable(path / name, error) from error

    try:
        if path.is_file() and path.suffix == ".whl":
            with zipfile.ZipFile(path) as archive:
                names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        elif path.is_dir():
            names = [entry.relative_to(path).as_posix() for entry in sorted(path.rglob("*")) if entry.is_file()]
        elif path.exists():
            return [], read
        else:
            raise FileNotFoundError(2, "No such file or directory")
    except (OSError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    return names or ["."], read


def _unreadable(path: pathlib.Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read ({error}): check the path, or fetch the file again.")


def _choose(path: str | os.PathLike[str], names: Sequence[str], suffixes: tuple[str, ...]) -> str:
    """The one of these files that is meant: by its ending, and in the fewest folders."""
    files = [pathlib.PurePosixPath(name) for name in names]
    entries = [
        entry
        for entry in files
        if not _BESIDE.match(entry.name) and not any(part.startswith((".", "__MACOSX")) for part in entry.parts)
    ]
    for suffix in suffixes:
        fitting = [entry for entry in entries if entry.name.lower().endswith(suffix)]
        least = min((len(entry.parts) for entry in fitting), default=0)
        nearest = [entry for entry in fitting if len(entry.parts) == least]
        if len(nearest) > 1:
            listed = ", ".join(map(str, nearest[:_LISTED]))
            raise DataError(f"{path} has {len(nearest)} files that end in {suffix} ({listed}): name the one meant.")
        if nearest:
            return str(nearest[0])
    passed = [str(file) for file in files if file.name.lower().endswith(suffixes)]
    listed = f" besides {', '.join(passed[:_LISTED])}, passed over for their names" if passed else ""
    more = ", or name the one meant" if passed else ""
    raise DataError(f"{path} has no file that ends in {', '.join(suffixes)}{listed}: check the path{more}.")


def read_tensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads named tensors.

    Args:
      path: a ``.safetensors`` file, a file of ``torch.save`` (``.pth``, ``.pt``, ``.bin``, ``.ckpt``), or a folder or
        Python wheel with one such file (safetensors before the others; not an optimiser's or a random state beside it).
        Weights in shards are read together: the folder, their index (``.index.json``) or one shard
        (``-00001-of-00003``) names them all.

    Returns:
      {name: array}; bfloat16 is returned as float32, which represents it exactly.

    Raises:
      DataError: the file is missing, damaged, or holds anything but tensors.

    Examples:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_tensors(f"{folder}/a.safetensors", {"fc.bias": np.zeros(3, np.float32)})
      ...     read_tensors(folder)["fc.bias"].shape
      (3,)
    """
    path = pathlib.Path(path)
    names, read = _members(path)
    chosen = ""
    if not names:
        if not path.name.endswith(INDEX) and not _SHARD.match(path.name):
            return _tensors(read(""), str(path))
        names, chosen = [entry.name for entry in path.parent.iterdir() if entry.is_file()], path.name
        path, read = path.parent, _members(path.parent)[1]
    else:
        kinds = ((SAFE, INDEX[:1]), (TORCH, INDEX[1:]))
        for endings, index in kinds:
            plain = [name for name in names if name.lower().endswith(endings) and not _SHARD.match(name)]
            plain = [name for name in plain if not _BESIDE.match(pathlib.PurePosixPath(name).name)]
            whole = [name for name in names if name.endswith(index)]
            shards = [name for name in names if _SHARD.match(name) and name.lower().endswith(endings)]
            if (whole or shards) and not any(pathlib.PurePosixPath(name).name in WHOLE for name in plain):
                chosen = _choose(path, whole, index) if whole else _first_shard(path, shards)
                break
            if plain:
                break
        chosen = chosen or _choose(path, names, (*SAFE, *TORCH))
    if chosen.endswith(INDEX):
        return _by_index(path, chosen, read)
    if _SHARD.match(chosen):
        return _all_shards(path, chosen, names, read)
    return _tensors(read(chosen), f"{path}/{chosen}")


def _first_shard(path: pathlib.Path, shards: Sequence[str]) -> str:
    """A shard of the only set of shards."""
    sets = sorted({re.sub(_SHARD, r"\1 of \3\4", name) for name in shards})
    if len(sets) > 1:
        raise DataError(f"{path} has {len(sets)} sets of shards ({', '.join(sets[:_LISTED])}): name a shard of one.")
    return min(shards)


def _all_shards(
    path: pathlib.Path, one: str, names: Sequence[str], read: Callable[[str], bytes]
) -> dict[str, np.ndarray]:
    """The tensors of a set of shards, of which one is named."""
    found = _SHARD.match(one)
    assert found is not None
    stem, _, count, ending = found.groups()
    wanted = [f"{stem}-{number:05d}-of-{count}{ending}" for number in range(1, int(count) + 1)]
    lacking = [name for name in wanted if name not in names]
    if lacking:
        raise DataError(
            f"{path} lacks {len(lacking)} of {int(count)} shards ({', '.join(lacking[:_LISTED])}): fetch them too."
        )
    tensors: dict[str, np.ndarray] = {}
    for name in wanted:
        part = _tensors(read(name), f"{path}/{name}")
        twice = sorted(part.keys() & tensors.keys())
        if twice:
            raise DataError(f"{path}/{name} has {twice[0]}, as has a shard before it: fetch the shards again.")
        tensors |= part
    return tensors


def _by_index(path: pathlib.Path, index: str, read: Callable[[str], bytes]) -> dict[str, np.ndarray]:
    """The tensors that an index of shards lists."""
    content = read(index)
    if hint := lfs_hint(content):
        raise DataError(f"{path}/{index} {hint}.")
    try:
        listed = json.loads(content.decode("utf-8-sig"))["weight_map"]
        places = {str(name): safe_name(str(file), index) for name, file in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}/{index} is no index of shards ({type(error).__name__}: {error}), expected a weight_map from "
            "tensors to files: fetch it again."
        ) from error
    folder = index.rpartition("/")[0]
    tensors: dict[str, np.ndarray] = {}
    for file in sorted(set(places.values())):
        name = f"{folder}/{file}" if folder else file
        part = _tensors(read(name), f"{path}/{name}")
        own = [tensor for tensor, place in places.items() if place == file]
        lacking = sorted(set(own) - part.keys())
        if lacking:
            raise DataError(
                f"{path}/{name} lacks {len(lacking)} tensors that {index} has there ({', '.join(lacking[:_LISTED])}): "
                "fetch both again."
            )
        tensors |= {tensor: part[tensor] for tensor in own}
    return tensors


def _tensors(content: bytes, name: str) -> dict[str, np.ndarray]:
    """The tensors of one file; its content says which kind it is."""
    header = content[8:9] == b"{" and int.from_bytes(content[:8], "little") < len(content)
    pickled = content.startswith((b"PK\3\4", b"\x80\2"))
    if not header and (pickled or not name.lower().endswith(SAFE)):
        return read_torch(content, name)
    if hint := lfs_hint(content):
        raise DataError(f"{name} {hint}.")
    try:
        parts = safetensors.deserialize(content)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{name} is no whole safetensors file ({error}): fetch it again.") from error
    found = {}
    for tensor, part in parts:
        if part["dtype"] not in DTYPES:
            raise DataError(
                f"{name} has {tensor} in {part['dtype']}, expected one of {', '.join(DTYPES)}: such numbers mean "
                "little without their scales; save it as bfloat16 or float32."
            )
        value = np.frombuffer(part["data"], DTYPES[part["dtype"]]).reshape(part["shape"])
        found[tensor] = (value.astype(np.uint32) << 16).view(np.float32) if part["dtype"] == "BF16" else value
    return found


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes named tensors as a ``.safetensors`` file, which PyTorch, JAX and others read."""
    whole = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    content = safetensors.numpy.save(whole, metadata={"format": "pt"})
    pathlib.Path(path).write_bytes(content)  # save_file would make the file readable by its owner only
