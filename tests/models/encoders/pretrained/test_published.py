"""Published encoders of sounds and videos: what counts, what a row depends on, the same on any number of devices."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core.config import C3RConfig
from c3r_jax.experiments.settings import read_settings
from c3r_jax.methods.method import Method
from c3r_jax.models.build import build_model
from c3r_jax.models.encoders.pretrained import encoder
from c3r_jax.models.encoders.pretrained.architectures import ARCHITECTURES
from c3r_jax.models.encoders.pretrained.encoder import PretrainedEncoder
from c3r_jax.models.encoders.pretrained.resnet import ResNet, ResNetSize
from c3r_jax.parallel.replicated import Replicated
from c3r_jax.step.optimizer import build_optimizer
from c3r_jax.step.state import init_state
from c3r_jax.step.train_step import train_step
from configs.cremad import get_config

RNG = np.random.default_rng(0)
ROWS = 16
SOUND = RNG.normal(size=(ROWS, 21, 9)).astype(np.float32)
CLIP = RNG.integers(1, 256, (ROWS, 2, 9, 9, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def tiny_resnets(monkeypatch):
    """Two ResNets of one block and four channels under the names of the real ones."""
    size = ResNetSize((1,), bottleneck=False, channels=4, stem=4)
    tiny = {"bert_tiny": ARCHITECTURES["bert_tiny"]} | {
        name: ARCHITECTURES[name].__class__(
            ARCHITECTURES[name].kind, 4, lambda _, remat, dtype: ResNet(size, remat=remat, dtype=dtype), ()
        )
        for name in ("resnet18", "audio_resnet18")
    }
    monkeypatch.setattr(encoder, "ARCHITECTURES", tiny)


def test_padding_of_a_sound_is_in_no_mean():
    module = PretrainedEncoder(4, "audio_resnet18", frozen=False)
    variables = jax.jit(module.init)(jax.random.key(0), SOUND[:2])
    features = jax.jit(functools.partial(module.apply, method=module.features))
    short = SOUND[:2].copy()
    short[0, 8:] = 0  # two stretches of four frames are left of six
    short[1] = 0
    places = module.bind(variables).backbone(short[..., None])
    assert places.shape == (2, 6, 3, 4)
    found = features(variables, short)
    np.testing.assert_allclose(found[0], places[0, :2].mean((0, 1)), rtol=1e-5, atol=1e-6)
    assert (found[1] == 0).all()
    np.testing.assert_allclose(
        features(variables, SOUND[:2]), module.bind(variables).backbone(SOUND[:2, ..., None]).mean((1, 2)), rtol=1e-5
    )


def test_a_video_is_the_mean_of_the_frames_it_has():
    module = PretrainedEncoder(4, "resnet18", frozen=False)
    variables = jax.jit(module.init)(jax.random.key(0), CLIP[:2])
    features = functools.partial(jax.jit(module.apply, static_argnames="method"), variables, method="features")
    clip = CLIP[:2].copy()
    clip[1, 1] = 0
    each = features(clip[:, 0]), features(clip[:, 1])
    found = features(clip)
    np.testing.assert_allclose(found[0], (each[0] + each[1])[0] / 2, rtol=1e-5)
    np.testing.assert_allclose(found[1], each[0][1], rtol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "inputs"),
    [
        ("resnet18", CLIP[:2, 0] / np.float32(255)),
        ("resnet18", CLIP / np.float32(255)),
        ("resnet18", CLIP[:2, 0, ..., :1]),
        ("resnet18", np.zeros((2, 9, 9, 4), np.uint8)),
        ("resnet18", CLIP[0, 0]),
        ("resnet18", np.zeros((2, 4), np.float32)),
        ("audio_resnet18", SOUND[0]),
        ("audio_resnet18", SOUND[..., None]),
        ("audio_resnet18", (100 * SOUND).astype(np.int16)),
        ("bert_tiny", np.ones((2, 5), np.float32)),
        ("bert_tiny", np.ones(5, np.int32)),
    ],
)
def test_inputs_that_mean_something_else_are_refused(architecture, inputs):
    module = PretrainedEncoder(4, architecture, vocab_size=9, frozen=False)
    with pytest.raises(ValueError, match=rf"inputs have shape .* dtype {inputs.dtype}: expected (images|spec|token)"):
        jax.eval_shape(module.init, jax.random.key(0), inputs)


def test_cached_vectors_of_another_encoder_are_refused():
    module = PretrainedEncoder(4, "resnet18")
    jax.eval_shape(module.init, jax.random.key(0), np.ones((2, 4), np.float32))
    with pytest.raises(ValueError, match=r"vectors have shape \(2, 5\): resnet18 has \(B, 4\)"):
        jax.eval_shape(module.init, jax.random.key(0), np.ones((2, 5), np.float32))


def test_eight_devices_train_as_one_does():
    """From scratch, by norms of one example: over devices only losses and gradients are summed."""
    config = get_config()
    config.model.dim, config.model.image.width, config.model.sequence.width = 4, 8, 8
    config.optimizer.name, config.optimizer.learning_rate = "sgd", 0.1
    config.optimizer.warmup_steps = 0
    c3r, settings = C3RConfig.hinge(instrument="none"), read_settings(config)
    model = build_model(settings.model, {"audio": "sequence", "video": "video"}, 6, 0, c3r)
    assert model.encoders["video"].scratch and model.encoders["audio"].scratch
    optimizer = build_optimizer(settings.optimizer, 2)
    batch = {
        "inputs": {"audio": SOUND, "video": CLIP},
        "present": np.ones((ROWS, 2), bool),
        "labels": np.arange(ROWS) % 6,
        "where": np.ones(ROWS, bool),
    }
    start = jax.device_get(init_state(model, optimizer, batch, 0))
    backbone = start.params["encoders_audio"]["backbone"]
    assert set(backbone["bn1"]) == {"group"} and backbone["conv1"]["kernel"].shape == (7, 7, 1, 4)
    found = []
    for count in (1, 8):
        devices = Replicated(jax.devices()[:count])
        step = devices.compile_step(
            functools.partial(
                train_step,
                model=model,
                method=Method("plain", False, c3r, 0.0),
                optimizer=optimizer,
                moments_decay=0.9,
                axis_name=devices.axis_name,
            )
        )
        state = devices.put(jax.tree.map(np.copy, start))
        for _ in range(2):
            state, metrics = step(state, devices.split(batch))
        found.append((devices.host(state), float(devices.host(metrics)["loss"])))
    (one, loss), (eight, again) = found
    np.testing.assert_allclose(loss, again, rtol=1e-5)
    for name in ("encoders_audio", "encoders_video"):
        moved = one.params[name]["backbone"]["conv1"]["kernel"] - start.params[name]["backbone"]["conv1"]["kernel"]
        assert np.abs(moved).max() > 1e-4
    chex.assert_trees_all_close(eight.params, one.params, rtol=1e-4, atol=1e-5)


def test_the_scales_of_norms_are_float32_in_half_precision():
    module = PretrainedEncoder(4, "audio_resnet18", frozen=False, scratch=True, dtype=jnp.bfloat16)
    output, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), SOUND)
    assert output.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
