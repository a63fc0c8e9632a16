"""Pickles from elsewhere: arrays and containers come back exactly, and nothing that is named in them is ever run."""

import builtins
import collections
import copyreg
import os
import pickle
import re
import struct
import tracemalloc

import numpy as np
import pytest

from c3r_jax.errors import DataError
from c3r_jax.files.pickles import load_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
BIG = np.arange(600_000, dtype=np.float32).reshape(200, 30, 100)


def load(tmp_path, content, protocol=4):
    path = tmp_path / "a.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return load_pickle(path)


def contents():
    objects = np.empty((2, 2), object)
    objects[:] = [["video", b"\xff\x00"], [1.5, None]]
    lists = np.empty(2, object)
    lists[0], lists[1] = ["a", "b"], ["c", "d"]
    return {
        "float32": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4),
        "Fortran": np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
        "big endian": np.arange(5, dtype=">f8"),
        "no axis": np.array(7, np.int16),
        "empty": np.zeros((0, 5), np.float32),
        "bool": np.array([True, False]),
        "complex": np.array([1 + 2j]),
        "texts": np.array(["a", "größer"]),
        "byte strings": np.array([b"ab", b"c"]),
        "objects": objects,
        "lists": lists,
        "strided": np.arange(20)[::2],
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_come_back_exactly(tmp_path, protocol):
    expected = contents()
    shared = expected["float32"]
    found = load(tmp_path, {"train": expected, "again": shared}, protocol)
    assert list(found["train"]) == list(expected)
    for name, array in expected.items():
        other = found["train"][name]
        assert type(other) is np.ndarray and other.dtype == array.dtype, name
        np.testing.assert_array_equal(other, array, strict=True)
    assert found["again"] is found["train"]["float32"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers_and_scalars_come_back_exactly(tmp_path, protocol):
    expected = {
        "numbers": [1, -1, 2**70, 0.1, True, None],
        "texts": ("", "word", "größer", b"", b"\x00\xff", "x" * 70_000, b"y" * 70_000),
        "ordered": collections.OrderedDict([("b", 1), ("a", {"c": []})]),
        "scalars": [np.float32(0.5), np.int64(-3), np.bool_(True), np.str_("id"), np.bytes_(b"id")],
    }
    found = load(tmp_path, expected, protocol)
    assert found == expected and type(found["ordered"]) is collections.OrderedDict
    assert [type(one) for one in found["scalars"]] == [type(one) for one in expected["scalars"]]


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", "CF")
def test_large_arrays_are_mapped_not_read(tmp_path, protocol, order):
    path = tmp_path / "a.pkl"
    expected = np.asarray(BIG, order=order)
    path.write_bytes(pickle.dumps([expected, "after"], protocol))
    tracemalloc.start()
    found, after = load_pickle(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < BIG.nbytes / 4 and after == "after"
    np.testing.assert_array_equal(found, BIG, strict=True)
    assert not found.flags.writeable


def test_pickles_of_numpy_1(tmp_path):
    content = pickle.dumps(contents()["objects"], 2)
    assert b"numpy._core." in content
    np.testing.assert_array_equal(
        load(tmp_path, content.replace(b"numpy._core.", b"numpy.core.")), contents()["objects"]
    )


@pytest.mark.parametrize("array", [np.arange(6, dtype=np.float32).reshape(2, 3), BIG], ids=["small", "mapped"])
def test_pickles_of_python_2(tmp_path, array):
    """As Python 2 writes {"audio": array} at its highest protocol: texts and bytes are the same thing there."""

    def text(content):
        return b"T" + struct.pack("<I", len(content)) + content

    shape = b"(" + b"".join(b"M" + struct.pack("<H", size) for size in array.shape) + b"t"
    dtype = b"cnumpy\ndtype\nq\x01U\x02f4K\x00K\x01\x87Rq\x02(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87Rq\x03(K\x01" + shape + dtype
    content = b"\x80\x02}" + text(b"audio") + made + b"\x89" + text(array.tobytes()) + b"tbs."
    np.testing.assert_array_equal(load(tmp_path, content)["audio"], array, strict=True)


class Evil:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Instance:
    """Pickles as an instance of a class."""


EVIL = {
    "system": lambda marker: Evil(os.system, f"touch {marker}"),
    "eval": lambda marker: Evil(eval, f"open({str(marker)!r}, 'w')"),
    "exec": lambda marker: Evil(exec, f"open({str(marker)!r}, 'w')"),
    "open": lambda marker: Evil(open, str(marker), "w"),
    "getattr": lambda marker: Evil(getattr, Evil(__import__, "os"), "system"),
    "bytearray": lambda marker: Evil(bytearray, 10**6),
    "save": lambda marker: Evil(np.save, str(marker), 1),
    "load": lambda marker: Evil(np.load, str(marker), None, True),
    "fromfile": lambda marker: Evil(np.fromfile, str(marker)),
    "zeros": lambda marker: Evil(np.zeros, 10**6),
    "memmap": lambda marker: Evil(np.memmap, str(marker), "u1", "w+", 0, 9),
    "recarray": lambda marker: np.rec.array([(1, 2.0)]),
    "_reconstructor": lambda marker: Evil(copyreg._reconstructor, object, object, None),
    "(Instance|_reconstructor)": lambda marker: Instance(),
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("nested", [False, True])
def test_hostile_pickles_are_refused_unrun_and_named(tmp_path, protocol, name, nested, monkeypatch):
    marker = tmp_path / "marker"
    evil = EVIL[name](marker)
    if nested:
        array = np.empty(2, object)
        array[1] = {"id": [evil]}
        evil = {"train": array}
    content = pickle.dumps(evil, protocol)
    monkeypatch.setattr(builtins, "__import__", None)  # nothing may even be imported
    try:
        with pytest.raises(DataError) as error:
            load(tmp_path, content)
    finally:
        monkeypatch.undo()
    reason = rf"a\.pkl asks for [\w.]+\.{name}, expected NumPy arrays and plain containers only: it may be an attack"
    assert re.search(reason, str(error.value))
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93.",  # an attribute of a known name
    ],
)
def test_other_ways_to_name_something_are_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"asks for (os\.system|numpy\.ndarray\.__reduce__)"):
        load(tmp_path, content)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"P1\n.", "persistent"),
        (b"\x80\x02\x82\x01.", "unregistered extension code"),
        (b"cnumpy\nndarray\n)\x81}X\x01\x00\x00\x00aK\x01sb.", "no whole pickle"),
        (b"c_codecs\nencode\n}X\x0c\x00\x00\x00__defaults__)sb.", "content for a function"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00zipt R.", "no whole pickle"),
        (b"cnumpy\ndtype\n(X\x01\x00\x00\x00VK\x00K\x01tR.", "dtype 'V'"),
        (b"\x80\x03B\xff\xff\xff\x7fabc.", "ends within an array"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "ends within an array"),
        (b"", "EOFError|no data"),
        (b"hello", "no whole pickle"),
    ],
)
def test_other_traps_and_damage_are_refused(tmp_path, content, reason):
    with pytest.raises(DataError, match=reason):
        load(tmp_path, content)
    assert load(tmp_path, np.str_("ü")) == "ü"  # the table is as it was


@pytest.mark.parametrize("shape", [(2, 4), (5,), (1 << 62, 4)])
@pytest.mark.parametrize(
    "array", [np.arange(6.0), np.array([1, "a", None], object), BIG], ids=["few", "objects", "many"]
)
def test_shapes_that_do_not_fit_the_content_are_refused(tmp_path, array, shape):
    class Lying:
        def __reduce__(self):
            function, arguments, (version, _, *state) = array.__reduce__()
            return function, arguments, (version, shape, *state)

    with pytest.raises(DataError, match="an array of"):
        load(tmp_path, Lying())


def test_large_bytes_that_are_no_array_are_refused(tmp_path):
    with pytest.raises(DataError, match="2,097,152 bytes in a row that are no array"):
        load(tmp_path, [b"x" * (1 << 21)])


def test_every_cut_file_is_refused(tmp_path):
    for content in (pickle.dumps(contents(), 2)[:500], pickle.dumps({"train": BIG}, 4)):
        for cut in (1, 10, len(content) // 2, len(content) - 1):
            with pytest.raises(DataError, match="no whole pickle"):
                load(tmp_path, content[:cut])


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.pkl cannot be read"):
        load_pickle(tmp_path / "absent.pkl")
