"""Every part of every published encoder learns at the rate of its depth."""

import jax
import jax.numpy as jnp
import pytest

from c3r_jax.models.encoders.pretrained.architectures import ARCHITECTURES
from c3r_jax.settings.optimizer import OptimizerSettings
from c3r_jax.step.layer_decay import depths
from c3r_jax.step.optimizer import build_optimizer

DEPTHS = {  # blocks in order; before them (power K); after them (power 0)
    "bert_tiny": (["layer_0", "layer_1"], ["word_embeddings", "position_embeddings", "embeddings_norm"], []),
    "minilm_l12": ([f"layer_{i}" for i in range(12)], ["word_embeddings", "token_type_embeddings"], []),
    "vit_s16": ([f"layer_{i}" for i in range(12)], ["patch_embeddings", "cls_token", "position_embeddings"], ["norm"]),
    "resnet18": ([f"layer{s}_{i}" for s in (1, 2, 3, 4) for i in (0, 1)], ["conv1", "bn1"], []),
    "efficientnet_lite0": ([f"block_{i}" for i in range(16)], ["stem", "stem_norm"], ["head", "head_norm"]),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_multipliers_by_depth(name):
    known = ARCHITECTURES[name]
    example = jnp.ones((1, 4), jnp.int32) if known.kind == "text" else jnp.ones((1, 224, 224, 3))
    backbone = jax.eval_shape(known.make(30, False, jnp.float32).init, jax.random.key(0), example)["params"]
    params = {
        "encoders_it": {"backbone": dict.fromkeys(backbone, {"w": jnp.ones(())}), "project": jnp.ones(())},
        "head": jnp.ones(()),
    }
    plain = {"name": "sgd", "clip_norm": 0.0, "weight_decay": 0.0, "warmup_steps": 0, "learning_rate": 1.0}
    optimizer = build_optimizer(OptimizerSettings(**plain, encoder_scale=0.5, layer_decay=0.75), 10)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    blocks, before, after = DEPTHS[name]
    count = len(blocks)
    expected = {block: 0.5 * 0.75 ** (count - k) for k, block in enumerate(blocks, 1)}
    expected |= dict.fromkeys(before, 0.5 * 0.75**count) | dict.fromkeys(after, 0.5)
    found = {part: -float(value["w"]) for part, value in updates["encoders_it"]["backbone"].items()}
    assert set(blocks) <= found.keys() and len(set(depths(backbone).values())) == count + 1
    assert {part: found[part] for part in expected} == pytest.approx(expected, rel=1e-6)
    assert float(updates["head"]) == float(updates["encoders_it"]["project"]) == -1.0
