"""Contrastive C3R over many devices: the oracle's numbers, and how much the devices send each other."""

import functools
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from c3r_jax.parallel.program import inspect
from c3r_jax.parallel.sharded import Sharded
from tests.parallel import pairs
from tests.processes import REPOSITORY


@pytest.mark.parametrize(("kind", "key_chunks", "wide"), [("softmax", None, 2), ("sigmoid", 2, 512)])
def test_a_mesh_of_eight_devices_by_the_formulas(kind, key_chunks, wide, monkeypatch):
    """With inverses that neighbours share, and with those that each device makes."""
    monkeypatch.setattr("c3r_jax.core.shared_inverses.WIDE", wide)
    pairs.check(kind, key_chunks)


@pytest.mark.slow
def test_two_processes_of_four_devices_by_the_formulas():
    """Keys go from one process to the other."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        address = f"localhost:{found.getsockname()[1]}"
    four = os.environ["XLA_FLAGS"].replace("platform_device_count=8", "platform_device_count=4")
    flags = {"XLA_FLAGS": four, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.parallel.pairs", address, "2"]
    keywords = {"cwd": REPOSITORY, "env": {**os.environ, **flags}, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*command, str(i)], stderr=subprocess.STDOUT, **keywords) for i in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs


def compiled(regularised):
    """The program of a loss and its gradient over a mesh, batch 4,096, width 16."""
    rows = Sharded(2, 1, 0).rows
    of_rows = functools.partial(jax.ShapeDtypeStruct, sharding=rows)
    copied = NamedSharding(rows.mesh, PartitionSpec())
    h = {name: of_rows((4096, 16), jnp.float32) for name in pairs.NAMES}
    head = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=copied), pairs.head())
    compute = functools.partial(pairs.value_and_gradient, regularised=regularised, kind="softmax", rows=rows)
    out = ((copied, copied), (rows, copied))
    jitted = jax.jit(compute, out_shardings=out, compiler_options=pairs.QUICK)
    return inspect(jitted.lower(h, of_rows((4096,), bool), head).compile())


def test_what_devices_send():
    """Each device gathers all keys once, with C3R as without it; C3R adds its moments."""
    plain, c3r = compiled(False), compiled(True)
    assert c3r.sent.bytes <= 1.3 * plain.sent.bytes
    assert c3r.collectives["all-gather"] == plain.collectives["all-gather"]
