"""Contrastive C3R: NumPy oracles in float64, masks, and the global batch over eight devices."""

import functools
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core.config import C3RConfig
from c3r_jax.core.contrastive import unit
from c3r_jax.core.matching import PAIRS, match_rows
from tests.core import oracle_matching
from tests.core.jitted import contrastive_c3r_loss

NAMES = ("audio", "image", "text")


def problem(num_modalities=2, batch=48, dim=5, seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(batch, dim))
    return {name: (shared + 0.7 * rng.normal(size=(batch, dim))).astype(np.float32) for name in NAMES[-num_modalities:]}


def match(queries, keys):
    return 6.0 * queries @ keys.T - 1.5


def normal(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def oracle(features, kind, present, where):
    """Mean over modalities of the loss and accuracy, from the formulas, example by example."""
    h = {name: normal(value.astype(np.float64)) for name, value in features.items()}
    losses, accuracies = [], []
    for m, name in enumerate(h):
        pairs = []
        for i in range(len(where)):
            others = [h[other][i] for o, other in enumerate(h) if o != m and present[i, o]]
            if where[i] and present[i, m] and others:
                key = np.sum(others, axis=0)
                pairs.append((h[name][i], key / np.linalg.norm(key)))
        logits = np.array([[6.0 * q @ k - 1.5 for _, k in pairs] for q, _ in pairs])
        own = np.eye(len(pairs), dtype=bool)
        if kind == "softmax":
            losses.append(np.mean(np.log(np.exp(logits).sum(1)) - logits[own]))
        else:
            losses.append(np.mean(np.log1p(np.exp(np.where(own, -logits, logits))).sum(1)))
        accuracies.append(np.mean(logits.argmax(1) == np.arange(len(pairs))))
    return np.mean(losses), np.mean(accuracies)


def masks(num_modalities, batch=48):
    rng = np.random.default_rng(1)
    present = rng.random((batch, num_modalities)) < 0.8
    return present, rng.random(batch) < 0.9


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("num_modalities", [2, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_loss_and_accuracy_by_the_formulas(kind, num_modalities, masked):
    features = problem(num_modalities)
    present, where = masks(num_modalities)
    if not masked:
        present, where = np.ones_like(present), np.ones_like(where)
    expected = oracle(features, kind, present, where)
    arrays = {name: jnp.asarray(value) for name, value in features.items()}
    loss, terms = contrastive_c3r_loss(
        match, arrays, kind=kind, regularised=False, present=jnp.asarray(present), where=jnp.asarray(where)
    )
    np.testing.assert_allclose([terms.task, terms.accuracy], expected, rtol=1e-5)
    np.testing.assert_allclose(loss, terms.task)
    assert terms.c3r == {} and terms.moments is None


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_c3r_terms_are_those_of_each_modality(kind):
    """z_c of an image is what ridge regression on its text gives; the loss is the weighted sum of what is reported."""
    features, config = problem(), C3RConfig.hinge(lambda_n=0.7, lambda_v=0.4, ridge=0.1)
    loss, terms = contrastive_c3r_loss(match, jax.tree.map(jnp.asarray, features), kind=kind, config=config)
    h = {name: normal(value.astype(np.float64)) for name, value in features.items()}
    for name, other in (("image", "text"), ("text", "image")):
        v, x = h[other] - h[other].mean(0), h[name] - h[name].mean(0)
        a = v.T @ v / len(v)
        coef = np.linalg.solve(a + 0.1 * np.trace(a) / len(a) * np.eye(len(a)), v.T @ x / len(v))
        z_c = h[name].mean(0) + v @ coef
        np.testing.assert_allclose(terms.c3r[name].z_c, z_c, rtol=1e-4, atol=1e-5)
        logits = match(z_c, h[other])
        sufficiency = np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits))
        np.testing.assert_allclose(terms.c3r[name].sufficiency, sufficiency, rtol=1e-4)
        np.testing.assert_allclose(
            terms.c3r[name].risk.sufficiency, np.mean(logits.argmax(1) != np.arange(len(v))), rtol=1e-6
        )
    mean = {
        key: np.mean([getattr(own, key) for own in terms.c3r.values()])
        for key in ("sufficiency", "necessity", "relevance")
    }
    expected = terms.task + 0.3 * mean["sufficiency"] + 0.7 * mean["necessity"] + 0.4 * mean["relevance"]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(terms.task, oracle(features, kind, *map(np.ones_like, masks(2)))[0], rtol=1e-5)
    np.testing.assert_allclose(terms.moments.count, 48)


def value_and_gradient(features, where, *, kind, **settings):
    """Loss and cap, and the gradients of features, and of log scale and offset; float32."""

    def loss(features, learned):
        value, terms = contrastive_c3r_loss(
            lambda q, k: jnp.exp(learned[0]) * q @ k.T + learned[1], features, kind=kind, where=where, **settings
        )
        return value, terms.cap.scale

    learned = jnp.array([np.log(oracle_matching.SCALE), oracle_matching.OFFSET], jnp.float32)
    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(features, learned)


@pytest.mark.parametrize(
    ("kind", "num_modalities", "chunks"),
    [("softmax", 2, None), ("sigmoid", 2, 3), ("softmax", 3, 5), ("sigmoid", 3, None)],
)
def test_the_default_by_the_formulas(kind, num_modalities, chunks):
    """Necessity toward equal shares, relevance, the gate and its cap: loss and gradient in float64."""
    features, rows = oracle_matching.problem(num_modalities)
    value, of_features, of_learned, cap = oracle_matching.value_and_gradient(features, rows, kind)
    arrays = {name: jnp.asarray(x, jnp.float32) for name, x in features.items()}
    compute = jax.jit(functools.partial(value_and_gradient, kind=kind, chunks=chunks, config=C3RConfig(lambda_v=1.0)))
    (loss, scale), gradient = compute(arrays, jnp.asarray(rows))
    np.testing.assert_allclose([loss, scale], [value, cap], rtol=1e-5)
    chex.assert_trees_all_close(gradient, (of_features, of_learned), rtol=1e-4, atol=5e-6)


@pytest.mark.parametrize("chunks", [None, 3])
def test_the_first_of_equal_examples_is_found(chunks):
    """An example that is there twice is matched with its first copy, whatever the rounding of its logits."""
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(9, 7)), jnp.float32)
    twice = image.at[4].set(image[1])
    run = jax.jit(functools.partial(contrastive_c3r_loss, match, regularised=False, chunks=chunks))
    np.testing.assert_allclose(run({"image": twice, "text": twice})[1].accuracy, 8 / 9, rtol=1e-6)


@pytest.mark.parametrize("chunks", [None, 2])
def test_only_the_sigmoid_loss_sums_pairs(chunks):
    """Without them the fifth number is 0 and the others are as before."""
    keys = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
    found = {}
    for pairs in (True, False):
        rows, _, _ = match_rows(match, keys, jnp.ones(6, bool), chunks=chunks, pairs=pairs)
        found[pairs] = rows(keys[::-1])
    np.testing.assert_array_equal(found[False], found[True].at[:, PAIRS].set(0))
    assert (found[True][:, PAIRS] > 0).all()


def test_logits_in_parts_are_never_whole():
    """Neither the loss nor its gradient, which follows the gradient in a counterfactual, has an array of all pairs."""
    h = {name: jax.ShapeDtypeStruct((96, 3), jnp.float32) for name in ("image", "text")}
    largest = {}
    for chunks in (None, 4):
        loss = lambda h: contrastive_c3r_loss(match, h, chunks=chunks)[0]  # noqa: B023, E731
        program = str(jax.make_jaxpr(jax.grad(loss))(h))
        shapes = re.findall(r"\b(?:f32|bool|i32)\[([0-9,]+)\]", program)
        largest[chunks] = max(math.prod(map(int, shape.split(","))) for shape in shapes)
    assert largest == {None: 96 * 96, 4: 96 * 24}


def test_penalties_never_overrule_the_contrastive_loss():
    """With weights a hundred times as large the gradient is at most twice the task's, and does not point against it."""
    features, rows = oracle_matching.problem()
    arrays, where = {name: jnp.asarray(x, jnp.float32) for name, x in features.items()}, jnp.asarray(rows)

    @jax.jit
    def gradient(strength):
        config = C3RConfig(strength=strength)
        of_features = jax.grad(lambda h: contrastive_c3r_loss(match, h, config=config, where=where)[0])(arrays)
        return jnp.concatenate([g.ravel() for g in of_features.values()])

    task, both = gradient(0.0), gradient(100.0)
    assert jnp.linalg.norm(both) <= 2.001 * jnp.linalg.norm(task)
    assert jnp.vdot(both, task) >= 0
    np.testing.assert_allclose(jnp.linalg.norm(both - task), jnp.linalg.norm(task), rtol=1e-4)  # the cap is reached


def test_unrelated_modalities_are_left_alone():
    """Text says nothing of its image: the gate closes, and necessity is not asked for. One of a pair's says all."""
    rng = np.random.default_rng(0)
    image, text = (jnp.asarray(rng.normal(size=(64, 4)), jnp.float32) for _ in range(2))
    terms = jax.jit(lambda other: contrastive_c3r_loss(match, {"image": image, "text": other})[1].c3r)
    for other, most, least in ((text, 0.05, 0.0), (image + 0.01 * text, 1.0, 0.95)):
        assert all(least <= matched.explained <= most for matched in terms(other).values())


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_order_of_rows_and_offset_of_a_softmax_do_not_matter(kind):
    """Rows may come in any order; C3R's terms are softmax losses, so that the logits' offset does not change them."""
    features = {name: jnp.asarray(x, jnp.float32) for name, x in oracle_matching.problem()[0].items()}
    order, config = np.random.default_rng(2).permutation(24), C3RConfig(cap=0.0)

    @jax.jit
    def compute(features, offset):
        return contrastive_c3r_loss(lambda q, k: match(q, k) + offset, features, kind=kind, config=config)

    loss, terms = compute(features, 0.0)
    assert all(x.invalid_labels is None for x in terms.c3r.values())  # indices of keys, of any number
    again, _ = compute({name: x[order] for name, x in features.items()}, 0.0)
    np.testing.assert_allclose(again, loss, rtol=1e-5)
    _, moved = compute(features, -7.0)
    for name in ("sufficiency", "necessity", "explained", "label_probability"):
        for own, other in zip(terms.c3r.values(), moved.c3r.values(), strict=True):
            np.testing.assert_allclose(getattr(other, name), getattr(own, name), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_eight_devices_are_one(kind):
    features = problem(3)
    present, where = masks(3)
    config = C3RConfig(counterfactual="gradient", lambda_n=0.5)

    def loss(scale, features, present, where, axis_name=None):
        own = functools.partial(lambda q, k: scale * q @ k.T)
        value, terms = contrastive_c3r_loss(
            own, features, kind=kind, config=config, present=present, where=where, axis_name=axis_name
        )
        return value, (terms.task, terms.accuracy, [t.risk for t in terms.c3r.values()])

    arguments = (jax.tree.map(jnp.asarray, features), jnp.asarray(present), jnp.asarray(where))
    one = jax.jit(jax.value_and_grad(loss, has_aux=True))(6.0, *arguments)

    def mapped(features, present, where):
        value, gradient = jax.value_and_grad(functools.partial(loss, axis_name="batch"), has_aux=True)(
            6.0, features, present, where
        )
        return value, jax.lax.pmean(gradient, "batch")

    split = jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), arguments)
    eight = jax.tree.map(lambda x: x[0], jax.pmap(mapped, axis_name="batch")(*split))
    chex.assert_trees_all_close(eight, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("config", [C3RConfig(), C3RConfig.hinge()], ids=["default", "first"])
def test_excluded_rows_and_zero_rows_reach_nothing(config):
    """Whatever an excluded row holds, loss and gradients are those without it; a zero row has a finite gradient."""
    features = jax.tree.map(jnp.asarray, problem(batch=40))
    where = jnp.arange(40) != 7
    worse = {name: value.at[7].set(jnp.nan) for name, value in features.items()}
    without = {name: jnp.delete(value, 7, axis=0) for name, value in features.items()}

    @jax.jit
    def loss(features, where=None):
        return contrastive_c3r_loss(match, features, config=config, where=where)[0]

    slope = jax.jit(jax.value_and_grad(loss))
    value, gradient = slope(worse, where)
    np.testing.assert_allclose(value, loss(without), rtol=1e-5)
    chex.assert_tree_all_finite(gradient)
    assert all(not g[7].any() for g in gradient.values())
    chex.assert_tree_all_finite(slope({name: value.at[3].set(0.0) for name, value in features.items()}, where))
    np.testing.assert_allclose(unit(jnp.full((1, 4), 1e-10)), np.full((1, 4), 0.5), rtol=1e-5)


@pytest.mark.parametrize(
    ("features", "keywords", "message"),
    [
        (problem(), {"kind": "triplet"}, "'triplet' is unknown: expected one of softmax, sigmoid"),
        ({"image": np.ones((4, 2), np.float32)}, {}, "at least two modalities of equal width"),
        ({"image": np.ones((4, 2), np.float32), "text": np.ones((4, 3), np.float32)}, {}, r"\{'image': 2, 'text': 3\}"),
        (problem(), {"chunks": 0}, "chunks is 0, but None or a whole number of at least 1"),
        (problem(), {"chunks": 2.5}, "chunks is 2.5, but None or a whole number of at least 1"),
        (problem(), {"config": C3RConfig(label_smoothing=0.1)}, "label_smoothing is 0.1, but an example's own key"),
        ({"image": np.ones((4, 2)), "text": np.ones((5, 2))}, {}, "every modality must have the same number of rows"),
        ([np.ones((4, 2))], {}, "features are list, but a non-empty dict"),
        (problem(batch=5), {}, r"the first stage has 5 rows, but more than p \+ 1 = 6 were expected"),
    ],
)
def test_unusable_arguments(features, keywords, message):
    with pytest.raises(ValueError, match=message):
        contrastive_c3r_loss(match, features, **keywords)
