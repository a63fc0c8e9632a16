"""Files of torch.save: every kind of tensor is read; anything else is refused, and nothing of it is run."""

import collections
import io
import os
import pathlib
import pickle
import zipfile

import numpy as np
import pytest

from c3r_jax.errors import DataError
from c3r_jax.files.tensors import read_tensors
from c3r_jax.files.torch_files import read_torch

WEIGHTS = pathlib.Path(__file__).parents[1] / "models" / "encoders" / "pretrained" / "weights"


@pytest.mark.parametrize("name", ["saved_zip.pth", "saved_sequence.pth"])
def test_every_kind_of_tensor(name):
    found = read_tensors(WEIGHTS / name)
    values = np.arange(12).reshape(3, 4)
    for key, expected in {
        "plain": values.astype(np.float32),
        "turned": values.T.astype(np.float32),
        "half": values.astype(np.float16),
        "bfloat": values.astype(np.float32),
        "whole": values,
        "part": values[1:, 2:],
        "scalar": np.float64(7.5),
        "parameter": values.astype(np.float32),
    }.items():
        assert found[key].dtype == expected.dtype, key
        np.testing.assert_array_equal(found[key], expected, err_msg=key)


def test_state_of_a_module_with_its_metadata():
    found = read_tensors(WEIGHTS / "saved_module.pth")
    assert found.keys() == {
        "bn.weight",
        "bn.bias",
        "bn.running_mean",
        "bn.running_var",
        "bn.num_batches_tracked",
    }
    np.testing.assert_array_equal(found["bn.running_var"], np.ones(3, np.float32))


def archive(pickled, storages=None, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as entries:
        entries.writestr("archive/data.pkl", pickled)
        for key, content in (storages or {}).items():
            entries.writestr(f"archive/data/{key}", content)
    return file.getvalue()


class Call:
    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def tensor(offset, shape, strides, count, kind="FloatStorage", tag="storage"):
    """The pickle of {"a": one tensor}, written by hand: PyTorch is not there to write it."""

    def text(value):
        return b"X" + len(value).to_bytes(4, "little") + value.encode()

    def numbers(values):
        return b"(" + b"".join(b"J" + value.to_bytes(4, "little", signed=True) for value in values) + b"t"

    pid = b"(" + text(tag) + b"ctorch\n" + kind.encode() + b"\n" + text("0") + text("cpu")
    pid += b"J" + count.to_bytes(4, "little", signed=True) + b"tQ"
    rest = b"J" + offset.to_bytes(4, "little", signed=True) + numbers(shape) + numbers(strides)
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + rest + b"\x89}tR"
    return b"\x80\x02}" + text("a") + call + b"s."


def test_the_handmade_pickle_is_read():
    content = np.arange(6, dtype="<f4").tobytes()
    found = read_torch(archive(tensor(1, (2, 2), (2, 1), 6), {"0": content}))
    np.testing.assert_array_equal(found["a"], [[1, 2], [3, 4]])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("function", [os.system, eval, getattr, __import__, pickle.loads])
def test_code_is_refused_and_not_run(function, legacy, tmp_path):
    mark = tmp_path / "ran"
    pickled = pickle.dumps({"a": Call(function, f"open({str(mark)!r}, 'w')")}, protocol=2)
    if legacy:
        begin = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
        content = b"".join([*begin, pickled, pickle.dumps([], protocol=2)])
    else:
        content = archive(pickled)
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"model.bin asks for \S+, expected named tensors .* nothing of it was run"):
        read_tensors(tmp_path / "model.bin")
    assert not mark.exists()


def test_storages_beside_the_named_tensors_are_passed_over():
    """The older form of a trainer's file: {"model": {"a": tensor}, "state": {"a": tensor of another storage}}."""
    named, other = (tensor(0, (2,), (1,), 2)[2:-1] for _ in range(2))
    other = other.replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x001").replace(b"FloatStorage", b"HalfStorage")
    tree = b"\x80\x02}X\x05\x00\x00\x00model" + named + b"sX\x05\x00\x00\x00state" + other + b"s."
    begin = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    count = (2).to_bytes(8, "little")
    numbers = count + np.array([5, 6], "<f2").tobytes() + count + np.array([3, 4], "<f4").tobytes()
    found = read_torch(b"".join([*begin, tree, pickle.dumps(["1", "0"], protocol=2), numbers]))
    assert found.keys() == {"a"}
    np.testing.assert_array_equal(found["a"], [3, 4])


SIX = {"0": bytes(24)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (archive(tensor(3, (2, 2), (2, 1), 6), SIX), "storage of 6 numbers"),  # past the end
        (archive(tensor(-1, (2,), (1,), 6), SIX), "storage of 6 numbers"),
        (archive(tensor(5, (2,), (-1,), 6), SIX), "storage of 6 numbers"),
        (archive(tensor(0, (2**31 - 1, 2**31 - 1), (0, 0), 6), SIX), "more numbers than its storage"),
        (archive(tensor(0, (2,), (1,), 7), SIX), "storage of 6 numbers"),
        (archive(tensor(0, (2,), (1, 1), 6), SIX), "ValueError"),
        (archive(tensor(0, (2,), (1,), 6)), "KeyError"),
        (archive(tensor(0, (2,), (1,), 6, tag="module"), SIX), "UnpicklingError"),
        (archive(tensor(0, (2,), (1,), 6), SIX, zipfile.ZIP_DEFLATED), "is compressed"),
        (archive(tensor(0, (2,), (1,), 6)[:-8], SIX), "fetch it again"),
        (archive(pickle.dumps([1, 2])), "holds a list"),
        (archive(pickle.dumps({"a": "text"})), "a str among the tensors"),
        (archive(pickle.dumps(collections.OrderedDict(a=1))), "a int among the tensors"),
        (b"", "EOFError"),
        (b"nothing of the kind", "fetch it again"),
        (pickle.dumps({"a": 1}), "fetch it again"),
        ((WEIGHTS / "saved_sequence.pth").read_bytes()[:-3], "fetch it again"),
        ((WEIGHTS / "saved_zip.pth").read_bytes()[:-3], "fetch it again"),
    ],
)
def test_damaged_and_hostile_files_are_refused_in_one_sentence(content, reason):
    with pytest.raises(DataError, match=reason) as error:
        read_torch(content, "weights.pth")
    assert str(error.value).startswith("weights.pth ")
