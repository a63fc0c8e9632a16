"""What stands for the names in files of ``torch.save``: how tensors are stored, and what is beside them, unread."""

import pickle
from typing import Any, NamedTuple

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
UNTYPED = "UntypedStorage"
DTYPE_NAMES = {  # of tensors whose storage says nothing of its numbers
    "uint16": "<u2",
    "uint32": "<u4",
    "uint64": "<u8",
    "int8": "i1",
    "uint8": "u1",
    "bool": "?",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "float16": "<f2",
    "float32": "<f4",
    "float64": "<f8",
}


class Storage(NamedTuple):
    """Numbers outside the pickle."""

    kind: str
    key: str
    count: int


class Tensor(NamedTuple):
    """A view of a storage, perhaps of its negative numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str | None = None
    negative: bool = False


class Aside:
    """Stands for an object beside the tensors that is not read: it takes whatever a pickle puts into it."""

    def __init__(self, *_: Any, **__: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Takes an element of a list."""

    def extend(self, values: Any) -> None:
        """Takes the elements of a list."""

    def add(self, value: Any) -> None:
        """Takes an element of a set."""


class _Dict(dict):
    """An ordered dict whose attributes (PyTorch's ``_metadata``) are ignored."""

    def __setstate__(self, state: Any) -> None:
        pass


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any = None, hooks: Any = None, bits: Any = None
) -> Tensor:
    del grad, hooks
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    bits = bits or {}
    # Real numbers are their own conjugates, and others have no storage here.
    if not isinstance(bits, dict) or not bits.keys() <= {"neg", "conj"}:
        raise pickle.UnpicklingError(f"a tensor with the properties {bits!r}")
    place = int(offset), tuple(map(int, shape)), tuple(map(int, strides))
    return Tensor(storage, *place, negative=bool(bits.get("neg")))


def _tensor_of_dtype(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, bits: Any = None
) -> Tensor:
    if dtype not in DTYPE_NAMES:
        raise pickle.UnpicklingError(f"a tensor of dtype {dtype!r}")
    return _tensor(storage, offset, shape, strides, grad, hooks, bits)._replace(dtype=DTYPE_NAMES[dtype])


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _of_type(make: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor with attributes, which are not read."""
    del kind, state
    if make not in (_tensor, _tensor_of_dtype, _parameter):
        raise pickle.UnpicklingError("a tensor of an unknown class")
    return make(*arguments)


def _default_dict(*_: Any) -> _Dict:
    return _Dict()


def _object(kind: Any, *_: Any) -> Any:
    """What an old pickle makes of an object without arguments."""
    if kind is not Aside:
        raise pickle.UnpicklingError("an object of an unknown class")
    return Aside()


_PLAIN = ("bool", "bytearray", "bytes", "complex", "float", "frozenset", "int", "list", "object", "set", "str", "tuple")
# Numbers of NumPy, dtypes, settings and the like: none of them is run or read.
_BESIDE = (
    ("argparse", "Namespace"),
    ("easydict", "EasyDict"),
    *((f"{home}.utilities.parsing", "AttributeDict") for home in ("pytorch_lightning", "lightning.pytorch")),
    *((f"{home}.utilities.data", "AttributeDict") for home in ("lightning_fabric", "lightning.fabric")),
    ("types", "SimpleNamespace"),
    ("collections", "Counter"),
    ("collections", "deque"),
    ("datetime", "datetime"),
    ("datetime", "timedelta"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib._local", "PosixPath"),
    ("_codecs", "encode"),
    *((module, name) for module in ("builtins", "__builtin__") for name in _PLAIN),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (("multiarray", "scalar"), ("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))
    ),
    ("numpy.dtypes", "Float64DType"),
    ("torch", "device"),
    ("torch", "Size"),
    ("torch", "Tensor"),
    ("torch", "contiguous_format"),
    ("torch", "channels_last"),
    ("torch", "strided"),
    ("torch.serialization", "_get_layout"),
)

KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Dict,
    ("collections", "defaultdict"): _default_dict,
    ("builtins", "dict"): _default_dict,
    ("__builtin__", "dict"): _default_dict,
    ("copyreg", "_reconstructor"): _object,
    ("copy_reg", "_reconstructor"): _object,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_of_dtype,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_type,
    ("torch.nn.parameter", "Parameter"): _parameter,
    ("torch.nn.parameter", "Buffer"): _parameter,
    **{("torch", name): name for name in (*DTYPES, *DTYPE_NAMES, "bfloat16", "complex64", "complex128")},
    ("torch.storage", "UntypedStorage"): UNTYPED,
    ("torch", "UntypedStorage"): UNTYPED,
    **dict.fromkeys(_BESIDE, Aside),
}
