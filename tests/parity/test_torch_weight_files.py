"""Files that torch.save and safetensors write for trainers: the same numbers as PyTorch reads."""

import argparse
import collections
import datetime
import pathlib
import types

import numpy as np
import pytest
import safetensors.torch
import torch

from c3r_jax.errors import DataError
from c3r_jax.files.tensors import read_tensors

pytestmark = pytest.mark.torch


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 5)).state_dict()


def values(tensors=None):
    return {key: value.float().numpy() for key, value in (tensors or model()).items()}


def check(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def with_expanded():
    return {**model(), "2.bias": torch.tensor([0.5]).expand(5)}


def with_state():
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.note = "mine"
    return {"a": parameter, "b": torch.nn.Buffer(torch.zeros(2))}


def optimizer():
    network = torch.nn.Linear(2, 2)
    adam = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    adam.step()
    return adam.state_dict()


BESIDE = {
    "dtype": {"dtype": torch.float32, "half": torch.bfloat16},
    "numpy scalar": {"best": np.float64(0.93), "steps": np.int64(7), "flag": np.bool_(True)},
    "array": {"curve": np.arange(3.0), "names": np.array(["a", "b"])},
    "size and device": {"size": torch.Size([3, 4]), "device": torch.device("cpu")},
    "namespace": {"args": argparse.Namespace(lr=0.1, names=["a"])},
    "containers": {"seen": {1, 2}, "counts": collections.Counter("abc"), "log": collections.defaultdict(list, a=[1])},
    "time": {"when": datetime.datetime(2024, 1, 1), "took": datetime.timedelta(seconds=3), "out": pathlib.Path("x")},
    "plain": {"epoch": 3, "arch": "resnet18", "best": 0.9, "history": [{"loss": 0.1}], "best_acc1": torch.tensor(71.2)},
    "optimizer": {"optimizer": optimizer(), "lr_scheduler": {"last": torch.ones(1)}},
    "simple": {"settings": types.SimpleNamespace(a=1)},
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("wrapper", ["state_dict", "model", "net", "model_state", "model_state_dict"])
def test_trainers_files(tmp_path, wrapper, beside, legacy):
    path = tmp_path / "model.pth"
    torch.save({wrapper: model(), **BESIDE[beside]}, path, _use_new_zipfile_serialization=not legacy)
    check(read_tensors(path), values())


@pytest.mark.parametrize("keys", [("checkpoint", "my_model"), ("model", "state_dict"), ("state", "net"), ("ckpt",)])
def test_nested_state_dicts(tmp_path, keys):
    tree = model()
    for key in reversed(keys):
        tree = {key: tree, "epoch": 3}
    torch.save(tree, tmp_path / "model.ckpt")
    found = read_tensors(tmp_path / "model.ckpt")
    check(
        {key.removeprefix(".".join(keys) + ".").removeprefix("net."): value for key, value in found.items()}, values()
    )


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("make", [with_expanded, with_state])
def test_unusual_tensors(tmp_path, make, legacy):
    torch.save(make(), tmp_path / "model.pt", _use_new_zipfile_serialization=not legacy)
    check(read_tensors(tmp_path), {key: value.detach().numpy() for key, value in make().items()})


@pytest.mark.parametrize("legacy", [False, True])
def test_negative_views(tmp_path, legacy):
    imaginary = torch.complex(torch.zeros(3), torch.arange(3.0)).conj().imag
    tensors = {"a": imaginary, "b": torch.tensor(2.0)._neg_view(), "c": torch.arange(3).bfloat16()._neg_view()}
    assert all(tensor.is_neg() for tensor in tensors.values())
    torch.save(tensors, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    check(read_tensors(tmp_path), {"a": [0, -1, -2], "b": np.array(-2), "c": [0, -1, -2]})


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_dtypes_without_a_storage_of_their_own(tmp_path, dtype):
    torch.save({"a": torch.arange(6, dtype=torch.int32).to(dtype).reshape(2, 3)[:, 1:]}, tmp_path / "a.pt")
    np.testing.assert_array_equal(read_tensors(tmp_path)["a"], [[1, 2], [4, 5]])


@pytest.mark.parametrize("make", [torch.nn.Linear(2, 2).half, lambda: torch.zeros(3, dtype=torch.float8_e4m3fn)])
def test_what_is_no_plain_tensor_is_refused(tmp_path, make):
    torch.save({"a": make()}, tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"a\.pt .*safetensors"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.bool])
def test_safetensors_of_every_kind(tmp_path, dtype):
    tensors = {key: value.to(dtype) for key, value in model().items()}
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    check(
        read_tensors(tmp_path),
        {key: value.numpy() for key, value in tensors.items()} if dtype != torch.bfloat16 else values(tensors),
    )


def test_small_floats_are_refused_by_name(tmp_path):
    tensors = {**model(), "2.weight": model()["2.weight"].to(torch.float8_e4m3fn)}
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"model\.safetensors has 2\.weight in F8_E4M3, expected one of"):
        read_tensors(tmp_path)
