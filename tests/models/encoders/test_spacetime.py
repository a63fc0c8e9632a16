"""Encoders of sequences, videos and volumes: what they see, what padding and keys do, sizes, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core.config import C3RConfig
from c3r_jax.models.build import build_model
from c3r_jax.models.encoders.image import ImageEncoder
from c3r_jax.models.encoders.sequence import SequenceEncoder
from c3r_jax.models.encoders.video import VideoEncoder
from c3r_jax.models.encoders.volume import VolumeEncoder
from c3r_jax.settings.model import ImageSettings, ModelSettings

RNG = np.random.default_rng(0)
SOUND = RNG.standard_normal((3, 10, 5)).astype(np.float32)
SCAN = RNG.standard_normal((2, 6, 5, 4, 2)).astype(np.float32)
CLIP = RNG.integers(0, 256, (2, 3, 8, 8, 3)).astype(np.uint8)
KEYS = jax.random.split(jax.random.key(1), 3)


def compiled(encoder):
    """Its two functions, each compiled as one: many times faster than operation by operation."""
    return jax.jit(encoder.init), jax.jit(encoder.apply)


def sequence_encoder(block, **more):
    return SequenceEncoder(dim=4, patch=4, width=8, depth=1, block=block, num_heads=2, **more)


@pytest.mark.parametrize("block", ["mixer", "transformer"])
def test_padding_of_a_sequence_does_not_count(block):
    encoder = sequence_encoder(block)
    padded = SOUND.copy()
    padded[1, 4:] = 0  # one token of three is left
    padded[2] = 0
    init, apply = compiled(encoder)
    variables = init(jax.random.key(0), padded)
    out = apply(variables, padded)
    moved = jax.tree.map(lambda x: x, variables)
    position = np.array(moved["params"]["position"])
    position[1:] = 10 * RNG.standard_normal(position[1:].shape)  # what padding is seen as
    moved["params"]["position"] = jnp.asarray(position)
    again = apply(moved, padded)
    np.testing.assert_allclose(out[1:], again[1:], rtol=1e-5, atol=1e-5)
    assert np.abs(out[0] - again[0]).max() > 1e-3
    bias = variables["params"]["project"]["bias"]
    np.testing.assert_allclose(out[2], bias, atol=1e-6)  # nothing but padding: no token at all


def test_a_sequence_is_seen_whole_and_in_order():
    init, apply = compiled(sequence_encoder("transformer"))
    variables = init(jax.random.key(0), SOUND)
    base = apply(variables, SOUND)
    assert base.shape == (3, 4)
    for time in (0, 4, 9):
        changed = SOUND.copy()
        changed[0, time] += 1
        difference = np.abs(apply(variables, changed) - base).max(1)
        assert difference[0] > 1e-4 and (difference[1:] == 0).all()
    swapped = apply(variables, SOUND[:, [4, 5, 6, 7, 0, 1, 2, 3, 8, 9]])
    assert np.abs(swapped - base).max() > 1e-4
    _, drop = compiled(sequence_encoder("transformer", dropout=0.5))
    dropped = drop(variables, SOUND, KEYS)
    assert np.abs(dropped - base).max() > 1e-3
    shuffled = drop(variables, SOUND[::-1], KEYS[::-1])
    np.testing.assert_allclose(dropped, shuffled[::-1], rtol=1e-5, atol=1e-6)  # draws are each example's own


def test_a_video_is_the_mean_of_its_frames():
    frame = ImageEncoder(dim=4, patch=4, width=8, depth=1, dropout=0.5)
    init, apply = compiled(VideoEncoder(frame))
    variables = init(jax.random.key(0), CLIP)
    each = jax.jit(frame.apply)
    expected = np.mean([each({"params": variables["params"]["frame"]}, CLIP[:, i]) for i in range(3)], axis=0)
    whole = apply(variables, CLIP)
    np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-6)
    keys = KEYS[:2]
    dropped = apply(variables, CLIP, keys)
    np.testing.assert_allclose(dropped[::-1], apply(variables, CLIP[::-1], keys[::-1]), rtol=1e-5, atol=1e-6)
    assert np.abs(dropped - whole).max() > 1e-3


def test_a_volume_becomes_a_vector_or_a_map():
    init, dense = compiled(VolumeEncoder(dim=3, width=4, depth=2, dense=True))
    _, apply = compiled(VolumeEncoder(dim=3, width=4, depth=2))
    variables = init(jax.random.key(0), SCAN)
    assert dense(variables, SCAN).shape == (2, 6, 5, 4, 3)
    vector = apply(variables, SCAN)  # the same parameters serve both
    assert vector.shape == (2, 3)
    changed = SCAN.copy()
    changed[0, 5, 4, 3, 1] += 1
    difference = np.abs(apply(variables, changed) - vector).max(1)
    assert difference[0] > 1e-5 and difference[1] == 0
    plain = VolumeEncoder(dim=3, width=4, depth=0)
    assert jax.eval_shape(plain.init_with_output, jax.random.key(0), SCAN[..., 0])[0].shape == (2, 3)


def test_a_map_moves_with_the_volume():
    """Inside, a shifted volume gives the shifted map: voxels keep their places."""
    init, apply = compiled(VolumeEncoder(dim=3, width=4, depth=1, dense=True))
    spot = np.zeros((1, 9, 9, 9), np.float32)
    spot[0, 4, 4, 4] = 5
    variables = init(jax.random.key(0), spot)
    found, moved = (np.asarray(apply(variables, x)) for x in (spot, np.roll(spot, 1, axis=2)))
    inside = (0, slice(2, 7), slice(2, 6), slice(2, 7))
    np.testing.assert_allclose(moved[0, 2:7, 3:7, 2:7], found[inside], rtol=1e-4, atol=1e-4)
    assert np.abs(found[inside] - found[0, 0, 0, 0]).max() > 0.1


@pytest.mark.parametrize("remat", [False, True])
def test_bfloat16_and_remat(remat):
    for encoder, x in (
        (sequence_encoder("transformer", dtype=jnp.bfloat16, remat=remat), SOUND),
        (VolumeEncoder(dim=3, width=4, depth=1, dtype=jnp.bfloat16, remat=remat), SCAN),
    ):
        shapes = jax.eval_shape(encoder.init, jax.random.key(0), x)
        assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
        assert jax.eval_shape(encoder.apply, shapes, x).dtype == jnp.bfloat16
    if not remat:  # the last one, in numbers
        variables = jax.jit(encoder.init)(jax.random.key(0), x)
        exact = jax.jit(encoder.clone(dtype=jnp.float32).apply)(variables, x)
        np.testing.assert_allclose(jax.jit(encoder.apply)(variables, x).astype(np.float32), exact, atol=0.05)


def test_build_model_takes_every_kind():
    settings = ModelSettings(image=ImageSettings(patch=8))
    inputs = {"clip": CLIP, "scan": SCAN, "sound": SOUND[:2], "table": SOUND[:2, 0]}
    kinds = {"clip": "video", "scan": "volume", "sound": "sequence", "table": "features"}
    model = build_model(settings, kinds, 3, 0, C3RConfig.hinge(instrument="none"))
    shape = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), inputs)[0])
    assert (shape.shape, shape.dtype) == ((2, 3), jnp.float32)


@pytest.mark.parametrize(
    ("encoder", "value", "message"),
    [
        (SequenceEncoder(dim=4), SOUND[0], r"\(10, 5\).*expected floats"),
        (SequenceEncoder(dim=4, block="conv"), SOUND, "'conv' is unknown"),
        (SequenceEncoder(dim=4, patch=0), SOUND, "patch is 0"),
        (VideoEncoder(ImageEncoder(dim=4)), CLIP[0], r"\(3, 8, 8, 3\).*expected"),
        (VolumeEncoder(dim=4), CLIP, "uint8.*expected floats"),
    ],
)
def test_wrong_inputs_are_named(encoder, value, message):
    with pytest.raises(ValueError, match=message):
        encoder.init(jax.random.key(0), value)
