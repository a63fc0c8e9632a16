"""Files of named tensors: safetensors (read and written) and PyTorch's (read), also in a folder or a Python wheel."""

import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
import safetensors
import safetensors.numpy

from c3r_jax.errors import DataError
from c3r_jax.files.torch_files import read_torch

SAFE = (".safetensors",)
TORCH = (".pth", ".pt", ".bin")


def read_member(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> tuple[bytes, str]:
    """Reads a file, or the only matching file in a folder or Python wheel.

    Args:
      path: a file, a folder or a ``.whl``.
      suffixes: endings of the file's name; the first one that any file has is used.

    Returns:
      The file's bytes, and its name for messages.

    Raises:
      DataError: no file matches, or more than one does.
    """
    path = pathlib.Path(path)
    try:
        if path.is_file() and path.suffix == ".whl":
            with zipfile.ZipFile(path) as archive:
                chosen = _choose(path, [pathlib.PurePosixPath(entry) for entry in archive.namelist()], suffixes)
                return archive.read(str(chosen)), f"{path}/{chosen}"
        if path.is_dir():
            chosen = _choose(path, [entry.relative_to(path) for entry in sorted(path.rglob("*"))], suffixes)
            path = path / chosen
        return path.read_bytes(), str(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read ({error}): check the path, or fetch the file again.") from error


def _choose(path: pathlib.Path, entries: Sequence[pathlib.PurePath], suffixes: tuple[str, ...]) -> pathlib.PurePath:
    for suffix in suffixes:
        fitting = [entry for entry in entries if entry.name.endswith(suffix)]
        if len(fitting) > 1:
            listed = ", ".join(map(str, fitting[:5]))
            raise DataError(f"{path} has {len(fitting)} files that end in {suffix} ({listed}): name the one meant.")
        if fitting:
            return fitting[0]
    raise DataError(f"{path} has no file that ends in {', '.join(suffixes)}: check the path.")


def read_tensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads named tensors.

    Args:
      path: a ``.safetensors`` file, a file of ``torch.save`` (``.pth``, ``.pt``, ``.bin``), or a folder or Python wheel
        with one such file (safetensors before the others).

    Returns:
      {name: array}.

    Raises:
      DataError: the file is missing, damaged, or holds anything but tensors.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_tensors(f"{folder}/a.safetensors", {"fc.bias": np.zeros(3, np.float32)})
      ...     read_tensors(folder)["fc.bias"].shape
      (3,)
    """
    content, name = read_member(path, (*SAFE, *TORCH))
    if not name.endswith(SAFE):
        return read_torch(content, name)
    try:
        return safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{name} is no whole safetensors file ({error}): fetch it again.") from error


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes named tensors as a ``.safetensors`` file, which PyTorch, JAX and others read."""
    whole = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    content = safetensors.numpy.save(whole, metadata={"format": "pt"})
    pathlib.Path(path).write_bytes(content)  # save_file would make the file readable by its owner only
