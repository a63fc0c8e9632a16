"""Meshes on machines that need not exist."""

import itertools

import jax
import numpy as np
import pytest

from c3r_jax.errors import ConfigError
from c3r_jax.parallel.layout import lay_out
from c3r_jax.parallel.strategy import axes_for
from c3r_jax.settings.parallel import ParallelSettings
from tests.parallel.chips import chips

V4, V5E, V5P, V6E = "TPU v4", "TPU v5 lite", "TPU v5", "TPU v6 lite"
MACHINES = {  # kind, sides of the torus, slices
    "v4 2x2x1": (V4, (2, 2, 1), 1),
    "v4 4x4x4": (V4, (4, 4, 4), 1),
    "v4 8x8x16": (V4, (8, 8, 16), 1),
    "v4 4x4x8, two slices": (V4, (4, 4, 8), 2),
    "v5e 2x2": (V5E, (2, 2, 1), 1),
    "v5e 2x4": (V5E, (2, 4, 1), 1),
    "v5e 4x4": (V5E, (4, 4, 1), 1),
    "v5e 16x16": (V5E, (16, 16, 1), 1),
    "v5e 16x16, four slices": (V5E, (16, 16, 1), 4),
    "v5e 2x2, four slices": (V5E, (2, 2, 1), 4),
    "v5p 2x2x2": (V5P, (2, 2, 2), 1),
    "v5p 4x4x8": (V5P, (4, 4, 8), 1),
    "v5p 8x8x8, three slices": (V5P, (8, 8, 8), 3),
    "v5p 16x16x16": (V5P, (16, 16, 16), 1),
    "v6e 4x8": (V6E, (4, 8, 1), 1),
    "v6e 16x16": (V6E, (16, 16, 1), 1),
    "v6e 16x16, two slices": (V6E, (16, 16, 1), 2),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_mesh_on_every_machine(machine):
    """Every device once; those that share rows are one process's neighbours; slices share data before parameters."""
    kind, sides, slices = MACHINES[machine]
    devices = chips(kind, sides, slices=slices)
    count = len(devices)
    for fsdp, tensor in itertools.product((1, 2, 4, 8, 16, 32), (1, 2, 4)):
        if count % (fsdp * tensor):
            continue
        mesh = lay_out(devices, fsdp, tensor)
        assert mesh.shape == (count // (fsdp * tensor), fsdp, tensor)
        read = np.array([(d.id, d.process_index, d.slice_index or 0, *d.coords) for d in mesh.flat])
        assert sorted(read[:, 0]) == sorted(d.id for d in devices)
        processes, places = read[:, 1].reshape(mesh.shape), read[:, 3:].reshape(*mesh.shape, 3)
        assert (processes == processes[..., :1]).all()
        assert np.ptp(places, axis=2).max() <= 1
        parts = read[:, 2].reshape(mesh.shape)
        if mesh.shape[0] % slices == 0:
            assert (parts == parts[:, :1, :1]).all()


def test_parameters_are_shared_by_neighbours():
    """Eight devices of a 16 x 16 torus that share parameters are never further apart than they need to be."""
    mesh = lay_out(chips(V6E, (16, 16, 1)), 8, 1)
    places = np.array([device.coords for device in mesh.flat]).reshape(*mesh.shape, 3)
    steps = np.abs(np.diff(places, axis=1)).sum(-1)
    assert steps.max() == 1


def test_devices_without_a_torus_keep_their_order():
    mesh = lay_out(jax.devices(), 2, 2)
    assert [device.id for device in mesh.flat] == [device.id for device in jax.devices()]


def test_axes_that_do_not_fit():
    with pytest.raises(ConfigError, match="3 x 1, which does not divide the 4 devices: choose factors of 4"):
        lay_out(chips(V5E, (2, 2, 1)), 3, 1)
    with pytest.raises(ConfigError, match="tensor is 8, but a process has 4 devices"):
        lay_out(chips(V5E, (4, 4, 1)), 1, 8)
    assert axes_for(ParallelSettings(fsdp=3), chips(V5E, (2, 2, 1))) == (4, 1)
    assert axes_for(ParallelSettings(fsdp=2, tensor=2), chips(V5E, (2, 2, 1))) == (2, 2)
