"""The 3-D U-Net: a vector per voxel that has seen everything, volumes of any size, one example at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from c3r_jax.core.config import C3RConfig
from c3r_jax.errors import ConfigError
from c3r_jax.experiments.settings import read_settings
from c3r_jax.models.build import build_model
from c3r_jax.models.encoders.unet import UNetEncoder
from c3r_jax.settings.model import VolumeSettings
from c3r_jax.tasks.segmentation import SEGMENTATION
from configs.brats import get_config

SCAN = np.random.default_rng(0).standard_normal((2, 9, 6, 5)).astype(np.float32)  # sides that 4 does not divide
UNET = UNetEncoder(dim=3, width=4, depth=2, dense=True)


@pytest.fixture(scope="module")
def apply():
    return jax.jit(UNET.apply)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(UNET.init)(jax.random.key(0), SCAN)


def test_every_voxel_has_seen_the_whole_volume(variables, apply):
    found = apply(variables, SCAN)
    assert found.shape == (2, 9, 6, 5, 3)
    changed = SCAN.copy()
    changed[0, 0, 0, 0] += 3
    difference = np.abs(apply(variables, changed) - found).max(-1)
    assert (difference[0] > 0).mean() > 0.9 and difference[0, 0, 0, 0] > 1e-2  # a ReLU may say 0 twice
    assert (difference[1] == 0).all()  # norms are of one example
    alone = apply(variables, np.stack([SCAN[1], SCAN[1]]))
    np.testing.assert_allclose(alone[0], found[1], rtol=1e-5, atol=1e-5)


def test_every_level_counts_down_and_up(variables, apply):
    found = apply(variables, SCAN)
    flat = flatten_dict(variables["params"])
    kernels = [path for path in flat if path[-1] == "kernel"]
    assert len(kernels) == 6 + 2 + 4 + 1
    for path in kernels:
        without = unflatten_dict(flat | {path: 0 * flat[path]})
        assert np.abs(apply({"params": without}, SCAN) - found).max() > 1e-2, path


def test_levels_and_their_widths(variables):
    shapes = jax.tree.map(jnp.shape, variables["params"])
    widths = {name: part["conv_1"]["kernel"] for name, part in shapes.items() if name.startswith(("down", "up"))}
    assert {name: shape[-1] for name, shape in widths.items()} == {
        "down_0": 4,
        "down_1": 8,
        "down_2": 16,
        "up_0": 4,
        "up_1": 8,
    }
    assert shapes["up_0"]["conv_0"]["kernel"] == (3, 3, 3, 8, 4)  # what came up beside what was passed on
    wide = UNetEncoder(dim=3, width=200, depth=1).init_with_output
    output, found = jax.eval_shape(wide, jax.random.key(0), SCAN)
    assert output.shape == (2, 3) and not any(name.startswith("up") for name in found["params"])
    assert found["params"]["down_1"]["conv_1"]["kernel"].shape[-1] == 320
    half = UNET.clone(dtype=jnp.bfloat16, remat=True)
    assert jax.eval_shape(half.apply, variables, SCAN).dtype == jnp.bfloat16


def test_the_network_of_volumes_is_a_setting():
    settings = read_settings(get_config()).model
    kinds = dict.fromkeys(("flair", "t1"), "volume")
    instrument = C3RConfig.hinge(instrument="none")
    model = build_model(settings, kinds, 4, 0, instrument, SEGMENTATION)
    assert isinstance(model.encoders["t1"], UNetEncoder) and model.encoders["t1"].dense
    with pytest.raises(ConfigError, match="volume.network is 'vnet': expected 'dilated' or 'unet'"):
        VolumeSettings(network="vnet")
    with pytest.raises(ValueError, match=r"\(9, 6, 5\).*expected floats"):
        jax.eval_shape(UNET.init, jax.random.key(0), SCAN[0])
