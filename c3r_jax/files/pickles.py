"""Reads untrusted pickles safely: NumPy arrays and plain containers are read, everything else is refused, not run.

A pickle is a program, and an untrusted one can run anything that its reader lets it name. Here every name is looked up
in one short table of functions defined below, so a pickle can build numbers, texts, lists, dicts and arrays and nothing
else. Pickles of Python 2 and 3, of NumPy 1 and 2 and of protocols 0 to 5 give the same result. Large arrays are mapped
into memory, not read: opening a file of many gigabytes takes as long as reading its small parts.
"""

import collections
import math
import mmap
import os
import pickle
import re
import struct
from typing import Any, NamedTuple

import numpy as np

from c3r_jax.errors import DataError

_MAPPED = 1 << 20  # bytes from which an array is mapped rather than read
_BROKEN = (
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class _Place(NamedTuple):
    """Where skipped bytes are in the file."""

    offset: int
    size: int


class _Array:
    """An array that has no content yet; the pickle calls it ``numpy.ndarray``."""


class _DType:
    """A dtype that has no byte order yet."""

    def __init__(self, code: str | bytes, *_: Any):
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if not re.fullmatch(r"[biufcSUO]\d{0,9}", code):
            raise pickle.UnpicklingError(f"an array of dtype {code!r}: numbers, texts and objects are expected")
        self.dtype = np.dtype(code)


def _reconstruct(subtype: Any, *_: Any) -> _Array:
    if subtype is not _Array:
        raise pickle.UnpicklingError("an array of an unknown class")
    return _Array()


def _scalar(dtype: np.dtype, content: str | bytes) -> Any:
    return np.frombuffer(_bytes(content), dtype, 1)[0]


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes written as {encoding!r}: latin1 is expected")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""


def _bytes(content: str | bytes | bytearray) -> bytes | bytearray:
    return content.encode("latin1") if isinstance(content, str) else content  # Python 2 wrote bytes as text


class NamesFromTable:
    """What makes an unpickler safe, to be put before it: a name is looked up in a table, and no other is imported.

    A subclass sets :attr:`path`, :attr:`expected` and :attr:`advice`, which the refusal names, and :meth:`known`.
    """

    path: str
    expected: str
    advice: str

    def known(self, module: str, name: str) -> Any:
        """What stands for a name in the table; None: it is not there."""
        raise NotImplementedError

    def find_class(self, module: str, name: str) -> Any:
        """What the unpickler asks for every name of a pickle.

        Raises:
          DataError: on a name that is not in the table.
        """
        found = self.known(module, name)
        if found is None:
            raise DataError(
                f"{self.path} asks for {module}.{name}, expected {self.expected} only: it may be an attack, and "
                f"nothing of it was run; {self.advice}."
            )
        return found


_Standard: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue]


class _Unpickler(NamesFromTable, _Standard):
    """The standard library's Python unpickler, with names from a table; large bytes are skipped."""

    dispatch: dict[int, Any] = dict(_Standard.dispatch)
    expected = "NumPy arrays and plain containers"
    advice = "fetch the file from its publisher"

    def __init__(self, file: Any, path: str):
        _Standard.__init__(self, file, encoding="latin1")
        self._file, self.path = file, path
        self._size = os.fstat(file.fileno()).st_size
        self._map: mmap.mmap | None = None
        self._skipped: set[_Place] = set()

    def known(self, module: str, name: str) -> Any:
        """The function that stands for a name."""
        numpy_core = re.sub(r"^numpy\._?core\.", "numpy.core.", module)
        return {
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _DType,
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy.core.multiarray", "scalar"): _scalar,
            ("numpy.core.numeric", "_frombuffer"): self._from_buffer,
            ("_codecs", "encode"): _encode,
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("__builtin__", "bytes"): _empty_bytes,
            ("builtins", "bytes"): _empty_bytes,
        }.get((numpy_core, name))

    def _load_bytes(self, size: int, make: Any) -> None:
        """Puts ``size`` bytes on the stack, or only their place if they are many and not inside a frame."""
        if size < _MAPPED or self._unframer.current_frame is not None:
            self.append(make(self.read(size)))
            return
        place = _Place(self._file.tell(), size)
        if place.offset + size > self._size:
            raise EOFError("the file ends within an array")
        self._file.seek(size, os.SEEK_CUR)
        self._skipped.add(place)
        self.append(place)

    def _load_bytes4(self) -> None:
        self._load_bytes(*struct.unpack("<I", self.read(4)), bytes)

    def _load_bytes8(self) -> None:
        self._load_bytes(*struct.unpack("<Q", self.read(8)), bytes)

    def _load_bytearray8(self) -> None:
        self._load_bytes(*struct.unpack("<Q", self.read(8)), bytearray)

    def _load_string4(self) -> None:  # of Python 2
        self._load_bytes(*struct.unpack("<I", self.read(4)), lambda content: content.decode("latin1"))

    def _load_build(self) -> None:
        """Gives a dtype or an array its content; nothing else may get content."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _DType):
            complete: Any = target.dtype.newbyteorder(state[1].decode() if isinstance(state[1], bytes) else state[1])
        elif isinstance(target, _Array):
            shape, dtype, fortran, content = state[-4:]  # after a version number, except in very old files
            complete = self._array(content, dtype, shape, "F" if fortran else "C")
        else:
            raise pickle.UnpicklingError(f"content for a {type(target).__name__}")
        self.stack[-1] = complete
        for key in reversed(self.memo):  # it was stored a moment ago, before it had content
            if self.memo[key] is target:
                self.memo[key] = complete
                break

    def _from_buffer(self, content: Any, dtype: np.dtype, shape: tuple, order: str) -> np.ndarray:
        """Builds an array as protocol 5 writes it."""
        return self._array(content, dtype, shape, order)

    def _array(self, content: Any, dtype: np.dtype, shape: Any, order: Any) -> np.ndarray:
        """Builds an array from its parts, none of which is trusted."""
        shape = tuple(int(size) for size in shape)
        if min(shape, default=0) < 0 or order not in ("C", "F") or not isinstance(dtype, np.dtype):
            raise ValueError(f"an array of shape {shape} and order {order!r}")
        if dtype.hasobject:
            if not isinstance(content, list) or len(content) != math.prod(shape):
                raise ValueError(f"an array of objects of shape {shape} without as many objects")
            array = np.empty(len(content), object)
            for i, value in enumerate(content):  # one by one, so that nested lists stay lists
                array[i] = value
            return array.reshape(shape, order=order)
        size = content.size if isinstance(content, _Place) else len(content := _bytes(content))
        if math.prod(shape) * dtype.itemsize != size:
            raise ValueError(f"an array of shape {shape} and dtype {dtype} with {size:,} bytes")
        if not isinstance(content, _Place):
            return np.frombuffer(bytes(content), dtype).reshape(shape, order=order)
        self._skipped.discard(content)
        if self._map is None:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.ndarray(shape, dtype, self._map, content.offset, order=order)

    def check_skipped(self) -> None:
        """Refuses a file whose skipped bytes were not all used by arrays."""
        if self._skipped:
            raise ValueError(f"{max(self._skipped).size:,} bytes in a row that are no array")

    dispatch |= {
        pickle.BINBYTES[0]: _load_bytes4,
        pickle.BINBYTES8[0]: _load_bytes8,
        pickle.BYTEARRAY8[0]: _load_bytearray8,
        pickle.BINSTRING[0]: _load_string4,
        pickle.BUILD[0]: _load_build,
    }


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """Reads a pickle of arrays and plain containers.

    Args:
      path: the file; it must stay in place while the arrays are in use.

    Returns:
      The content: dicts, lists, tuples, texts (bytes of Python 2 as latin1), numbers, None and read-only arrays; arrays
      of a megabyte or more are mapped into memory.

    Raises:
      DataError: the pickle asks for anything else (which the message names), or is damaged.

    Examples:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = os.path.join(folder, "a.pkl")
      ...     with open(path, "wb") as file:
      ...         pickle.dump({"audio": np.arange(3, dtype=np.float32)}, file)
      ...     load_pickle(path)["audio"]
      array([0., 1., 2.], dtype=float32)
    """
    try:
        with open(path, "rb") as file:
            unpickler = _Unpickler(file, str(path))
            content = unpickler.load()
            unpickler.check_skipped()
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}): check the path.") from error
    except _BROKEN as error:
        raise DataError(
            f"{path} is no whole pickle of arrays and plain containers ({type(error).__name__}: {error}): fetch it "
            "again."
        ) from error
    return content
