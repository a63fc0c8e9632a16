"""What must not matter to the objective: order, names, scale, masked rows, absent modalities."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax
from c3r_jax.core.counterfactual import drop_modality

from . import problems

CONFIGS: list[dict[str, Any]] = [
    {},
    {"counterfactual": "gradient", "num_steps": 2, "lambda_fe": 1.0, "necessity": "log"},
    {"counterfactual": "minimal", "ridge": 0.3, "necessity": "kl", "prior": (0.1, 0.2, 0.3, 0.4)},
    {"counterfactual": "instrumented", "lambda_fe": 0.4},
    {"instrument": "attention", "num_heads": 3},
]  # each is compiled once, in test_regularizer.py


def ids(config: dict[str, Any]) -> str:
    return ",".join(f"{v}" for k, v in config.items() if k != "prior") or "default"


def same(a: Any, b: Any, rtol: float = 1e-4) -> None:
    """Loss, risks and gradients."""
    np.testing.assert_allclose(a[0], b[0], rtol=1e-5)
    for x, y in zip(a[1].risk, b[1].risk, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)
    for x, y in zip(jax.tree.leaves(a[2]), jax.tree.leaves(b[2]), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * max(float(np.abs(y).max()), 1e-3))


@pytest.mark.parametrize("config", CONFIGS, ids=ids)
def test_order_of_examples(config: dict[str, Any]) -> None:
    data = problems.problem(7, masked=True)
    assert data.where is not None
    order = np.random.default_rng(0).permutation(64)
    back = np.argsort(order)
    base = problems.evaluate(data, **config)
    loss, terms, gradient = problems.evaluate(dataclasses.replace(data.rows(order), where=data.where[order]), **config)
    np.testing.assert_allclose(np.asarray(terms.z_bar)[back], base[1].z_bar, rtol=1e-4, atol=1e-4)
    same((loss, terms, ({m: g[back] for m, g in gradient[0].items()}, gradient[1])), base)


@pytest.mark.parametrize("config", CONFIGS, ids=ids)
def test_names_of_modalities(config: dict[str, Any]) -> None:
    """Columns of `present` go with the sorted names: audio, image, text become text, audio, image."""
    data = problems.problem(8, masked=True)
    assert data.present is not None
    new = dict(zip(problems.NAMES, ("text", "audio", "image"), strict=True))
    features = {new[m]: data.features[m] for m in problems.NAMES}
    renamed = dataclasses.replace(data, features=features, present=data.present[:, [1, 2, 0]])
    loss, terms, gradient = problems.evaluate(renamed, **config)
    same(
        (loss, terms, ({m: gradient[0][new[m]] for m in problems.NAMES}, gradient[1])),
        problems.evaluate(data, **config),
    )


def test_order_of_insertion() -> None:
    """jit and grad rebuild a dict in sorted order, so the order of insertion must not matter without them either."""
    data = problems.problem(8, masked=True)
    features = {m: jnp.asarray(data.features[m]) for m in reversed(problems.NAMES)}
    y = jnp.asarray(data.labels)

    def run(arrays: Any, names: tuple[str, ...]) -> Any:
        features = dict(zip(names, arrays, strict=True))
        config = c3r_jax.C3RConfig.hinge(counterfactual="mean")
        return c3r_jax.c3r_loss(data.predict, problems.mean_fuse, features, y, config=config, **data.masks())[0]

    expected = problems.evaluate(data, counterfactual="mean")[0]
    run = jax.jit(run, static_argnums=1)
    np.testing.assert_allclose(run(tuple(features.values()), tuple(features)), expected, rtol=1e-5)
    dropped = [drop_modality(f, "text", present=data.present)["text"][0] for f in (features, data.features)]
    np.testing.assert_allclose(*dropped, rtol=1e-6)


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[4]], ids=ids)
def test_where_is_the_subset(config: dict[str, Any]) -> None:
    data = dataclasses.replace(problems.problem(9, masked=True), where=np.arange(64) % 4 > 0)
    assert data.where is not None
    loss, terms, gradient = problems.evaluate(data, **config)
    chosen = {m: np.asarray(g)[data.where] for m, g in gradient[0].items()}
    same((loss, terms, (chosen, gradient[1])), problems.evaluate(data.rows(data.where), **config))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("config", CONFIGS, ids=ids)
def test_values_of_absent_and_masked_blocks_have_no_effect(config: dict[str, Any], bad: float) -> None:
    data = problems.problem(11, masked=True)
    assert data.where is not None and data.present is not None
    used = data.present & data.where[:, None]
    dirty = {m: np.where(used[:, [c]], a, bad) for c, (m, a) in enumerate(data.features.items())}
    result = problems.evaluate(dataclasses.replace(data, features=dirty), **config)
    same(result, problems.evaluate(data, **config), rtol=1e-6)
    for c, m in enumerate(problems.NAMES):
        assert (np.asarray(result[2][0][m])[~used[:, c]] == 0).all()


@pytest.mark.parametrize("config", CONFIGS, ids=ids)
def test_labels_of_masked_rows_have_no_effect(config: dict[str, Any]) -> None:
    """The last batch is padded with label -1."""
    data = problems.problem(12, masked=True)
    padded = dataclasses.replace(data, labels=np.where(data.where, data.labels, -1))
    same(problems.evaluate(padded, **config), problems.evaluate(data, **config), rtol=1e-6)


def test_concrete_labels_of_masked_rows_are_not_checked() -> None:
    """Padding is no mistake, with and without jit; the valid rows are still checked."""
    data = problems.problem(12, masked=True)
    assert data.where is not None
    features = {m: jnp.asarray(a) for m, a in data.features.items()}
    config = c3r_jax.C3RConfig.hinge(instrument="none", counterfactual="gradient")

    def loss(y: Any) -> Any:
        return c3r_jax.c3r_loss(data.predict, problems.mean_fuse, features, y, config=config, where=data.where)[0]

    def swing(y: Any) -> Any:
        return c3r_jax.counterfactual(data.predict, features["text"], y, where=data.where)

    y = jnp.asarray(np.where(data.where, data.labels, -1))
    for function in (loss, swing):
        jax.eval_shape(lambda f=function: f(y))
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(64, 4)))
    assert c3r_jax.c3_risk(logits, logits, y, where=data.where).total == 1
    assert np.isfinite(loss(y))
    with pytest.raises(ValueError, match="17"):
        c3r_jax.c3_risk(logits, logits, jnp.where(data.where, 17, y), where=data.where)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_relevance_is_free_of_scale(scale: float) -> None:
    data = problems.problem(9, masked=True)
    base = problems.evaluate(data)[1].relevance
    assert 0.05 < base < 0.95
    scaled = dataclasses.replace(data, features={m: scale * a for m, a in data.features.items()})
    np.testing.assert_allclose(problems.evaluate(scaled)[1].relevance, base, rtol=1e-5)
    moved = dataclasses.replace(data, features={m: a + 3 for m, a in data.features.items()})
    np.testing.assert_allclose(problems.evaluate(moved)[1].relevance, base, rtol=1e-4)
