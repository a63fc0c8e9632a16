"""A split's pairs in blocks: the numbers of one batch, in memory that does not grow with the square of the rows."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core.config import C3RConfig
from c3r_jax.core.contrastive import contrastive_c3r_loss
from c3r_jax.evaluation import contrastive_metrics as module
from c3r_jax.evaluation.contrastive_metrics import compared_examples, pair_metrics, retrieval
from c3r_jax.methods.losses import contrastive_metrics
from c3r_jax.parallel.program import inspect

NAMES = ("audio", "image", "text")


def match(queries, keys):
    return 6.0 * queries @ keys.T - 1.5


def problem(names=("image", "text"), batch=53, dim=5):
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(batch, dim))
    features = {name: (shared + 0.7 * rng.normal(size=(batch, dim))).astype(np.float32) for name in names}
    return features, rng.random((batch, len(names))) < 0.8


@pytest.mark.parametrize(
    ("kind", "names", "config", "regularised"),
    [
        ("softmax", ("image", "text"), C3RConfig.hinge(), True),
        ("sigmoid", NAMES, C3RConfig.hinge(counterfactual="minimal", necessity="log", instrument="attention"), True),
        ("softmax", NAMES, C3RConfig.hinge(counterfactual="permute"), False),
    ],
)
def test_blocks_give_the_numbers_of_one_batch(kind, names, config, regularised, monkeypatch):
    """Seven blocks of eight rows, the last not full; some modalities absent."""
    monkeypatch.setattr(module, "LOGITS_HELD", 8 * 53)
    features, present = problem(names)
    arrays = jax.tree.map(jnp.asarray, features), jnp.asarray(present)
    settings = {"kind": kind, "config": config, "regularised": regularised, "key": jax.random.key(3)}
    found = jax.jit(functools.partial(pair_metrics, match, **settings))(*arrays)

    @jax.jit
    def at_once(features, present):
        return contrastive_metrics(contrastive_c3r_loss(match, features, present=present, **settings)[1])

    expected = at_once(*arrays)
    assert found.keys() == expected.keys() and len(found) == (12 if regularised else 2)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=1e-6, err_msg=name)


def test_memory_is_that_of_a_block(monkeypatch):
    """20,000 rows would have 1.6 GB of logits in each world; 32 MB of them are held at a time."""
    monkeypatch.setattr(module, "LOGITS_HELD", 1 << 23)
    h = {name: jax.ShapeDtypeStruct((20_000, 4), jnp.float32) for name in ("image", "text")}
    run = functools.partial(pair_metrics, match, kind="softmax", config=C3RConfig.hinge(), regularised=True)
    program = inspect(jax.jit(run).lower(h, jax.ShapeDtypeStruct((20_000, 2), bool)).compile())
    assert program.temporary_bytes < 300e6


def test_retrieval_is_counted_block_by_block(monkeypatch):
    """Some pairs are swapped: the share that finds its own partner is that of the others."""
    monkeypatch.setattr(module, "LOGITS_HELD", 70 * 2000)
    image = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)
    text = image.copy()
    text[:100] = text[99::-1]  # each of these finds another's text
    found = retrieval(match, {"image": image, "text": text}, np.ones((2000, 2), bool))
    assert found == {"image to text": pytest.approx(0.95), "text to image": pytest.approx(0.95)}


def test_a_split_of_few_rows_is_measured():
    """Training refuses a batch with fewer rows than columns; a small validation split has no other rows to give."""
    rng = np.random.default_rng(0)
    h = {name: jnp.asarray(rng.standard_normal((12, 16)), jnp.float32) for name in ("image", "text")}
    measure = jax.jit(
        functools.partial(pair_metrics, lambda q, k: q @ k.T, kind="softmax", config=C3RConfig(), regularised=True)
    )
    assert np.isfinite(measure(features=h, present=jnp.ones((12, 2), bool))["task"])


def test_retrieval_is_among_examples_with_both_modalities(monkeypatch):
    """As if the others were not in the split; they find nothing, and nothing finds them."""
    monkeypatch.setattr(module, "LOGITS_HELD", 8 * 53)
    features, present = problem(NAMES)
    features = {name: np.where(present[:, [m]], features[name], 0) for m, name in enumerate(NAMES)}
    found = retrieval(match, features, present)
    assert len(found) == 6
    for direction, share in found.items():
        pair = direction.split(" to ")
        both = present[:, [NAMES.index(name) for name in pair]].all(1)
        rows = {name: features[name][both] for name in pair}
        alone = retrieval(match, rows, np.ones((both.sum(), 2), bool))
        assert share == alone[direction]
        query, key = (rows[name] / np.linalg.norm(rows[name], axis=1, keepdims=True) for name in pair)
        assert share == pytest.approx(np.mean((query @ key.T).argmax(1) == np.arange(both.sum())))
        assert compared_examples(NAMES, present)[direction] == both.sum() < 53


def test_retrieval_without_a_pair_is_unknown():
    features, present = problem(NAMES)
    present[:, 0], present[:, 1:] = ~present[:, 1], present[:, [1, 1]]  # audio is never there with another
    found = retrieval(match, features, present)
    assert {name for name, share in found.items() if math.isnan(share)} == {name for name in found if "audio" in name}
    assert compared_examples(NAMES, present)["audio to text"] == 0 < compared_examples(NAMES, present)["text to image"]
