"""Fusions read what is present and nothing else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core.config import C3RConfig
from c3r_jax.errors import ConfigError
from c3r_jax.models.build import build_fusion, build_model, head_of
from c3r_jax.models.encoders.features import FeatureEncoder
from c3r_jax.models.fusion.decisions import Confidence, Evidential, Late
from c3r_jax.models.fusion.representations import ConcatAbsent, Gated, MaskedMean
from c3r_jax.models.twin import TwinNetwork, apply
from c3r_jax.settings.model import ModelSettings
from c3r_jax.tasks.regression import REGRESSION

REPRESENTATIONS, DECISIONS = (
    ("mean", "concat", "gated", "cross_attention", "bottleneck"),
    ("late", "evidential", "confidence"),
)
FUSIONS = {name: build_fusion(name, 6, 6, heads=2, tokens=2, depth=2) for name in (*REPRESENTATIONS, *DECISIONS)}
NAMES = ("a", "b", "c")


@pytest.fixture
def features():
    keys = jax.random.split(jax.random.key(0), 3)
    return {name: jax.random.normal(key, (8, 6)) for name, key in zip(NAMES, keys, strict=True)}


@pytest.fixture
def present():
    rows = [[bits >> m & 1 == 1 for m in range(3)] for bits in range(8)]  # every subset, the empty one first
    return jnp.array(rows)


@functools.cache
def made(name):
    """A fusion's variables for the features below, and its function, compiled."""
    some = {n: jnp.zeros((8, 6)) for n in NAMES}
    variables = jax.jit(FUSIONS[name].init)(jax.random.key(1), some, jnp.ones((8, 3), bool))
    return variables, jax.jit(FUSIONS[name].apply)


@pytest.mark.parametrize("name", FUSIONS)
def test_absent_modalities_change_nothing_and_present_ones_count(name, features, present):
    variables, apply = made(name)
    z = apply(variables, features, present)
    noise = {n: jnp.where(present[:, m, None], h, 1e6) for m, (n, h) in enumerate(features.items())}
    np.testing.assert_array_equal(z, apply(variables, noise, present))
    assert z.shape == (8, 6) and bool(jnp.isfinite(z).all())
    for m, n in enumerate(NAMES):
        moved = apply(variables, {**features, n: 1.0 - features[n]}, present)
        changed = np.abs(np.asarray(moved - z)).max(1) > 1e-4
        np.testing.assert_array_equal(changed, present[:, m])


@pytest.mark.parametrize("name", FUSIONS)
def test_gradients_are_finite_also_with_nothing_present(name, features, present):
    variables, apply = made(name)
    total = jax.grad(lambda v, h: jnp.square(apply(v, h, present)).sum(), argnums=(0, 1))
    gradient = jax.jit(total)(variables, features)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))


def test_masked_mean_by_hand():
    h = {"a": jnp.array([[1.0, 2.0]] * 3), "b": jnp.array([[3.0, 6.0]] * 3)}
    present = jnp.array([[True, True], [False, True], [False, False]])
    z = MaskedMean().apply({}, h, present)
    np.testing.assert_array_equal(z, [[2.0, 4.0], [3.0, 6.0], [0.0, 0.0]])


def test_concat_uses_the_learned_embedding_of_what_is_absent(features, present):
    fusion = ConcatAbsent(dim=6)
    variables = fusion.init(jax.random.key(1), features, present)
    filled = {
        name: jnp.where(present[:, m, None], h, variables["params"][f"absent_{name}"][None])
        for m, (name, h) in enumerate(features.items())
    }
    project = variables["params"]["project"]
    expected = jnp.concatenate(list(filled.values()), axis=1) @ project["kernel"] + project["bias"][None]
    np.testing.assert_allclose(fusion.apply(variables, features, present), expected, rtol=1e-5, atol=1e-6)


def heads(variables, features):
    """What each modality's own linear head says, in NumPy."""
    parts = [variables["params"][f"head_{name}"] for name in features]
    return np.stack(
        [
            np.asarray(h, np.float64) @ np.asarray(p["kernel"]) + np.asarray(p["bias"])
            for h, p in zip(features.values(), parts, strict=True)
        ]
    )


def test_gates_are_the_published_unit_for_two_modalities():
    """z = s tanh(W_1 h_1) + (1 - s) tanh(W_2 h_2), s the sigmoid of a linear map of both."""
    keys = jax.random.split(jax.random.key(0), 2)
    h = {name: jax.random.normal(key, (3, 4)) for name, key in zip("ab", keys, strict=True)}
    present = jnp.array([[True, True], [True, False], [False, True]])
    fusion = Gated(dim=2)
    variables = fusion.init(jax.random.key(1), h, present)
    layer = {name: jax.tree.map(lambda x: np.asarray(x, np.float64), p) for name, p in variables["params"].items()}
    linear = lambda x, p: np.asarray(x, np.float64) @ p["kernel"] + p["bias"]  # noqa: E731
    value = {name: np.tanh(linear(h[name], layer[f"value_{name}"])) for name in h}
    both = np.concatenate([h["a"][0], h["b"][0]])
    gate = 1 / (1 + np.exp(linear(both, layer["gate_b"]) - linear(both, layer["gate_a"])))
    expected = np.stack([gate * value["a"][0] + (1 - gate) * value["b"][0], value["a"][1], value["b"][2]])
    np.testing.assert_allclose(fusion.apply(variables, h, present), expected, atol=1e-6)


def test_late_fusion_is_the_mean_of_what_the_present_ones_say(features, present):
    variables = Late(2).init(jax.random.key(1), features, present)
    weights = np.asarray(present.T, np.float64)[..., None]
    expected = (weights * heads(variables, features)).sum(0) / np.maximum(weights.sum(0), 1)
    np.testing.assert_allclose(Late(2).apply(variables, features, present), expected, atol=1e-6)


def test_evidence_is_combined_by_dempsters_rule(features, present):
    """Masses on classes and on ignorance, multiplied out in float64 and divided by what does not contradict itself."""
    variables = Evidential(3).init(jax.random.key(1), features, present)
    evidence = np.log1p(np.exp(heads(variables, features))) * np.asarray(present.T)[..., None]
    strength = evidence.sum(-1, keepdims=True) + 3
    masses = np.concatenate([evidence / strength, 3 / strength], axis=-1)  # (M, B, classes and ignorance)
    z = Evidential(3).apply(variables, features, present)
    for row in range(8):
        joint = masses[0, row]
        for other in masses[1:, row]:
            table = np.outer(joint, other)
            joint = np.append(np.diag(table)[:3] + table[:3, 3] + table[3, :3], table[3, 3])
            joint = joint / joint.sum()
        alpha = joint[:3] * 3 / joint[3] + 1
        np.testing.assert_allclose(jnp.exp(z[row]), alpha, rtol=1e-4)


def test_confidence_is_the_free_energy_and_a_constant(features, present):
    fusion = Confidence(3)
    variables = fusion.init(jax.random.key(1), features, present)
    says = heads(variables, features)
    weights = np.log(np.exp(says).sum(-1, keepdims=True)) / 10 * np.asarray(present.T)[..., None]
    np.testing.assert_allclose(fusion.apply(variables, features, present), (weights * says).sum(0), atol=1e-6)
    bias = jax.grad(lambda v: fusion.apply(v, features, present)[:, 0].sum())(variables)["params"]["head_a"]["bias"]
    np.testing.assert_allclose(bias, [weights[0].sum(), 0, 0], atol=1e-6)


@pytest.mark.parametrize("name", ["gated", "evidential"])
def test_what_a_modality_says_alone(name, features):
    """As if it were the only one; of fused decisions, what its own head says."""
    fusion = FUSIONS[name]
    encoders = {name: FeatureEncoder(6, ()) for name in NAMES}
    model = TwinNetwork(encoders, fusion, head_of(fusion, 6), C3RConfig.hinge(instrument="none"), 6)
    here = jnp.ones((8, 3), bool)
    variables = jax.jit(model.init)(jax.random.key(0), features, here)
    alone = apply(model, variables, model.alone, features, here)
    for m in range(3):
        z = apply(model, variables, model.fuse, features, here & (jnp.arange(3) == m)[None])
        said = apply(model, variables, model.predict, z) if name == "gated" else jnp.log(jnp.expm1(jnp.expm1(z)))
        np.testing.assert_allclose(said, alone[m], rtol=1e-4, atol=1e-4)


def test_fusions_of_decisions_need_classes():
    settings = ModelSettings(fusion="evidential")
    with pytest.raises(ConfigError, match="config.model.fusion is 'evidential', which needs classes"):
        build_model(settings, {"a": "features", "b": "features"}, 1, 1, C3RConfig.hinge(), REGRESSION)
    with pytest.raises(ConfigError, match="config.model.fusion is 'sum': expected one of mean, concat"):
        build_fusion("sum", 4, 2)
