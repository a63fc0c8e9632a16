"""Weights as trainers leave them: in shards, in folders with other files, and in checkpoints with other objects."""

import argparse
import collections
import datetime
import io
import json
import pickle
import sys
import types
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.errors import DataError
from c3r_jax.files.tensors import read_tensors, write_tensors
from c3r_jax.files.torch_files import read_torch

VALUES = {
    "conv.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "conv.bias": np.array([0.5, -1.5, 2.0], np.float32),
    "norm.weight": np.ones(2, np.float32),
}


def check(found, expected=VALUES):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_array_equal(found[key], value, err_msg=key)


class Stored:
    """A tensor that is pickled as torch.save would, without PyTorch."""

    def __init__(self, array, rebuild="_rebuild_tensor_v2", shape=None, strides=None, bits=()):
        self.array, self.rebuild, self.bits = np.ascontiguousarray(array), rebuild, bits
        self.shape = array.shape if shape is None else shape
        self.strides = [step // array.itemsize for step in self.array.strides] if strides is None else strides


class Place(tuple):
    """A storage, pickled by its persistent id."""


@pytest.fixture
def save(monkeypatch):
    """(tree) -> a file's bytes, with stand-ins for the names of PyTorch that a pickle needs."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    kinds = {}
    for name in ("FloatStorage", "float32", "bfloat16"):
        kinds[name] = type(name, (), {"__module__": "torch", "__qualname__": name})
        setattr(torch, name, kinds[name])
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        made = types.FunctionType((lambda *_: None).__code__, {}, name)
        made.__module__, made.__qualname__ = "torch._utils", name
        setattr(utils, name, made)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    def saved(tree):
        storages = []

        class Pickler(pickle.Pickler):
            def persistent_id(self, value):
                return tuple(value) if isinstance(value, Place) else None

            def reducer_override(self, value):
                if not isinstance(value, Stored):
                    return NotImplemented
                storages.append(value.array)
                place = Place(("storage", torch.FloatStorage, str(len(storages) - 1), "cpu", value.array.size))
                arguments = (place, 0, tuple(value.shape), tuple(value.strides))
                dtype = (torch.float32,) if value.rebuild == "_rebuild_tensor_v3" else ()
                extra = () if value.rebuild == "_rebuild_tensor" else (False, collections.OrderedDict(), *dtype)
                return getattr(utils, value.rebuild), (*arguments, *extra, *value.bits)

        tree_file, file = io.BytesIO(), io.BytesIO()
        Pickler(tree_file, protocol=2).dump(tree)
        with zipfile.ZipFile(file, "w") as entries:
            entries.writestr("archive/data.pkl", tree_file.getvalue())
            for key, array in enumerate(storages):
                entries.writestr(f"archive/data/{key}", array.tobytes())
        return file.getvalue()

    saved.torch = torch
    return saved


def stored(**options):
    return {key: Stored(value, **options) for key, value in VALUES.items()}


@pytest.mark.parametrize(
    "beside",
    [
        {"best": np.float64(0.93), "step": np.int64(3)},
        {"curve": np.arange(5.0), "labels": np.array(["a", "b"])},
        {"args": argparse.Namespace(lr=0.1), "when": datetime.datetime(2024, 1, 2)},
        {"seen": {1, 2}, "counts": collections.Counter("aab"), "log": collections.defaultdict(list, loss=[1.0])},
        {"epoch": 3, "arch": "resnet18", "none": None, "loss": Stored(np.float32([71.2]))},
        {"optimizer": {"state": {0: {"exp_avg": Stored(np.ones(3, np.float32))}}, "param_groups": [{"lr": 0.1}]}},
    ],
)
@pytest.mark.parametrize("wrapper", ["state_dict", "net", "model_state"])
def test_objects_beside_the_tensors_are_not_read(save, wrapper, beside):
    check(read_torch(save({wrapper: stored(), **beside})))


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_dtypes_beside_the_tensors(save, name):
    check(read_torch(save({"model": stored(), "dtype": getattr(save.torch, name)})))


def test_the_first_way_to_rebuild_tensors(save):
    check(read_torch(save(stored(rebuild="_rebuild_tensor"))))


@pytest.mark.parametrize("rebuild", ["_rebuild_tensor_v2", "_rebuild_tensor_v3"])
def test_a_tensor_that_is_the_negative_of_its_storage(save, rebuild):
    for bits, sign in (({"neg": True}, -1), ({"conj": True, "neg": False}, 1), (None, 1), ({}, 1)):
        check(read_torch(save(stored(rebuild=rebuild, bits=(bits,)))), {key: sign * x for key, x in VALUES.items()})
    with pytest.raises(DataError, match="a tensor with the properties {'zero': True}"):
        read_torch(save(stored(rebuild=rebuild, bits=({"zero": True},))))


@pytest.mark.parametrize("shape, strides", [((64,), (0,)), ((3, 64), (1, 0)), ((5, 2), (0, 1))])
def test_expanded_tensors(save, shape, strides):
    base = np.arange(3, dtype=np.float32)
    found = read_torch(save({"a": Stored(base, shape=shape, strides=strides)}))["a"]
    np.testing.assert_array_equal(found, np.lib.stride_tricks.as_strided(base, shape, [4 * step for step in strides]))


def test_expanded_tensors_cannot_fill_the_memory(save):
    bomb = {f"{i}": Stored(np.ones(1, np.float32), shape=(1 << 20, 60), strides=(0, 0)) for i in range(2)}
    with pytest.raises(DataError, match="more numbers than its storage has"):
        read_torch(save(bomb))


@pytest.mark.parametrize("keys", [("checkpoint",), ("my", "own"), ("state_dict", "model"), ("model", "net", "module")])
def test_tensors_in_dicts_within_dicts(save, keys):
    tree = stored()
    for key in reversed(keys):
        tree = {key: tree, "epoch": 1}
    found = read_torch(save(tree))
    known = keys[0] in ("state_dict", "model")
    check(found, VALUES if known else {".".join((*keys, name)): value for name, value in VALUES.items()})


class Code:
    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize("key", ["args", "model", "epoch"])
def test_code_is_refused_wherever_it_is(save, key, capsys):
    with pytest.raises(DataError, match=r"asks for (builtins|__builtin__)\.print, .*save its state_dict\(\) alone"):
        read_torch(save({"state_dict": stored(), key: Code()}))
    assert not capsys.readouterr().out


def write_shards(folder, *, index=True, ending="safetensors", write=write_tensors):
    names = list(VALUES)
    files = [f"model-0000{i}-of-00002.{ending}" for i in (1, 2)]
    parts = [names[:2], names[2:]]
    folder.mkdir(parents=True, exist_ok=True)
    for file, part in zip(files, parts, strict=True):
        write(folder / file, {name: VALUES[name] for name in part})
    if index:
        places = {name: file for file, part in zip(files, parts, strict=True) for name in part}
        (folder / f"model.{ending}.index.json").write_text(
            json.dumps({"metadata": {"total_size": 1}, "weight_map": places}), encoding="utf-8"
        )
    return files


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("named", ["", "model-00002-of-00002.safetensors", "model.safetensors.index.json"])
@pytest.mark.parametrize("folder", ["", "a folder [1]", "snapshots/abc"])
def test_shards_are_read_together(tmp_path, index, named, folder):
    if named.endswith("json") and not index:
        index = True
    write_shards(tmp_path / folder, index=index)
    check(read_tensors(tmp_path / folder / named))
    if not named:
        check(read_tensors(tmp_path))


def test_shards_in_a_wheel_and_of_torch(tmp_path, save):
    files = write_shards(tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "some-1.0-py3-none-any.whl", "w") as wheel:
        for name in (*files, "model.safetensors.index.json"):
            wheel.write(tmp_path / "a" / name, f"some/{name}")
    check(read_tensors(tmp_path / "some-1.0-py3-none-any.whl"))

    def write(path, part):
        path.write_bytes(save({name: Stored(value) for name, value in part.items()}))

    write_shards(tmp_path / "b", ending="bin", write=write)
    check(read_tensors(tmp_path / "b"))
    check(read_tensors(tmp_path / "b" / "pytorch_model-00001-of-00002.bin".replace("pytorch_", "")))


def lose_a_shard(folder, files):
    (folder / files[0]).unlink()


def lose_a_tensor(folder, files):
    write_tensors(folder / files[0], {"conv.bias": VALUES["conv.bias"]})


def lead_out(folder, files):
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(files[0], f"../{files[0]}"))


def no_map(folder, files):
    (folder / "model.safetensors.index.json").write_text("[1, 2]")


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lose_a_shard, r"model-00001-of-00002\.safetensors cannot be read"),
        (lose_a_tensor, r"model-00001-of-00002\.safetensors lacks 1 tensors .*\(conv\.weight\): fetch both again"),
        (lead_out, r"expected a name inside the archive"),
        (no_map, r"is no index of shards"),
    ],
)
def test_incomplete_shards_are_named(tmp_path, spoil, reason):
    files = write_shards(tmp_path)
    spoil(tmp_path, files)
    with pytest.raises(DataError, match=reason):
        read_tensors(tmp_path)


@pytest.mark.parametrize("named", ["", "model-00002-of-00002.safetensors"])
def test_a_set_of_shards_without_one_is_refused(tmp_path, named):
    files = write_shards(tmp_path, index=False)
    (tmp_path / files[0]).unlink()
    with pytest.raises(DataError, match=r"lacks 1 of 2 shards \(model-00001-of-00002\.safetensors\)"):
        read_tensors(tmp_path / named)


@pytest.mark.parametrize(
    "others", [("rng_state.pth",), ("optimizer.pt", "scheduler.pt", "rng_state_0.pth"), ("scaler.pt",)]
)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "Model.SafeTensors"])
def test_a_trainers_folder(tmp_path, save, name, others):
    if name.lower().endswith("safetensors"):
        write_tensors(tmp_path / name, VALUES)
    else:
        (tmp_path / name).write_bytes(save(stored()))
    for other in (*others, "training_args.bin", "trainer_state.json"):
        (tmp_path / other).write_bytes(save({"state": Stored(np.ones(3, np.float32))}))
    (tmp_path / "onnx").mkdir()
    write_tensors(tmp_path / "onnx" / name, {"other": np.ones(1, np.float32)})
    check(read_tensors(tmp_path))


@pytest.mark.parametrize("name", ["optimized_model", "optimum", "optim_model", "optimal-1", "scaled", "schedulerless"])
def test_names_that_only_begin_as_an_optimisers(tmp_path, name):
    write_tensors(tmp_path / f"{name}.safetensors", VALUES)
    check(read_tensors(tmp_path))
    write_tensors(tmp_path / "teacher.safetensors", VALUES)
    with pytest.raises(DataError, match="2 files that end in .safetensors"):
        read_tensors(tmp_path)


PASSED_OVER = [
    "optimizer",
    "optimizer_1",
    "optimizer-state",
    "optim",
    "optim-1",
    "optim_states",
    "scheduler_0",
    "scaler",
]


@pytest.mark.parametrize("name", [*PASSED_OVER, "rng_state_0", "random_states_0", "training_args"])
def test_files_that_were_passed_over_are_named(tmp_path, name):
    (tmp_path / f"{name}.pt").write_bytes(b"")
    with pytest.raises(DataError, match=f"ends in .* besides {name}.pt, passed over .*, or name the one meant"):
        read_tensors(tmp_path)
    write_tensors(tmp_path / "model.bin", VALUES)
    check(read_tensors(tmp_path))


def test_several_sets_of_weights_are_not_guessed(tmp_path):
    write_shards(tmp_path)
    write_tensors(tmp_path / "model.safetensors", VALUES)
    with pytest.raises(DataError, match="3 files that end in .safetensors .*: name the one meant"):
        read_tensors(tmp_path)
    for step in (500, 1000):
        (tmp_path / f"runs/checkpoint-{step}").mkdir(parents=True)
        write_tensors(tmp_path / f"runs/checkpoint-{step}/model.safetensors", VALUES)
    with pytest.raises(DataError, match=r"2 files .*checkpoint-1000/model\.safetensors, checkpoint-500"):
        read_tensors(tmp_path / "runs")


def one_tensor(kind, shape, content):
    """A safetensors file, written by hand."""
    header = json.dumps({"a": {"dtype": kind, "shape": shape, "data_offsets": [0, len(content)]}}).encode()
    return len(header).to_bytes(8, "little") + header + content


@pytest.mark.parametrize(
    "kind, dtype",
    [("BF16", jnp.bfloat16), ("F16", np.float16), ("F64", np.float64), ("U16", np.uint16)],
)
@pytest.mark.parametrize("shape", [(3, 4), (12,), (1, 12, 1), ()])
def test_every_kind_of_number_in_safetensors(tmp_path, kind, dtype, shape):
    value = np.arange(12).astype(dtype).reshape(shape) if shape else np.array(3, dtype)
    (tmp_path / "a.safetensors").write_bytes(one_tensor(kind, shape, value.tobytes()))
    found = read_tensors(tmp_path)["a"]
    np.testing.assert_array_equal(found, value.astype(np.float32) if kind == "BF16" else value, strict=True)


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2"])
def test_numbers_that_need_a_scale_are_refused(tmp_path, kind):
    (tmp_path / "a.safetensors").write_bytes(one_tensor(kind, (2,), b"12"))
    with pytest.raises(DataError, match=r"a\.safetensors has a in F8_E\dM\d, .*save it as bfloat16 or float32"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("name", ["model.bin", "model.pth", "weights"])
def test_the_content_says_what_a_file_is(tmp_path, save, name):
    write_tensors(tmp_path / name, VALUES)
    check(read_tensors(tmp_path / name))
    (tmp_path / "model.safetensors").write_bytes(save(stored()))
    check(read_tensors(tmp_path / "model.safetensors"))
