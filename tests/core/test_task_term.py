"""The task term over subsets and beyond the experts, and the batch's prior, against float64 NumPy."""

from __future__ import annotations

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax
from c3r_jax.core.alone import alone_in_joint, own_slopes
from c3r_jax.core.batch import keep
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.explained import SCALES
from c3r_jax.core.gate import explained_alone, repeated_share
from c3r_jax.core.instruments import no_moments
from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.core.tasks.multilabel import MultiLabel
from c3r_jax.core.tasks.regression import Regression
from tests.core.jitted import c3r_loss, held_out_share, residual_experts
from tests.core.test_expert import as_jax, experts_oracle

HEAD = 0.8 * np.eye(3) + 0.2 * np.random.default_rng(5).standard_normal((3, 3))


def fuse(h, present):
    share = present / present.sum(1, keepdims=True)
    return sum(share[:, [m]] * value for m, value in enumerate(h.values()))


def cross_entropy(logits, labels):
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]


@pytest.fixture
def problem():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 40)
    cause = np.eye(3)[labels] + 0.7 * rng.standard_normal((40, 3))
    features = {m: cause + 0.8 * rng.standard_normal((40, 3)) for m in ("a", "b")}
    present = np.ones((40, 2), bool)
    present[::7, 0] = present[3::7, 1] = False
    where = rng.random(40) < 0.9
    return features, labels, present, where


@pytest.mark.parametrize("expert", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("subsets", [0.0, 0.9])
def test_the_task_term_is_the_formula(problem, expert, subsets, x64):
    features, labels, present, where = problem
    config = c3r_jax.C3RConfig(expert=expert, subsets=subsets)
    _, terms = c3r_loss(
        lambda z: z @ jnp.asarray(HEAD),
        fuse,
        as_jax(features),
        jnp.asarray(labels),
        config=config,
        present=jnp.asarray(present),
        where=jnp.asarray(where),
    )
    known = {m: np.where(present[:, [i]], h, 0) for i, (m, h) in enumerate(features.items())}
    complete = where & present.all(1)
    shares = np.bincount(labels[where], minlength=3) / where.sum()
    found = experts_oracle(known, labels, 3, complete, shares)
    ratios = np.stack([found[m][0] for m in ("a", "b")], axis=1) if expert else np.zeros((40, 2, 3))
    counted = where.sum() * shares + 0.5
    constant = np.log(counted / counted.sum())
    logits = fuse(known, present) @ HEAD
    alone = [fuse(known, np.where(present[:, [m]], np.eye(2, dtype=bool)[m], True)) @ HEAD for m in (0, 1)]
    n = present.sum(1)
    both = where & (n == 2)
    e, s = ((x - x.mean(1, keepdims=True))[both] for x in (logits - constant, sum(alone) / 2 - constant))
    share = np.clip((e * s).sum() / (s * s).sum(), 1, n)[:, None] / n[:, None]
    scales = scales_oracle(logits, alone, share, labels, both, constant)
    assert all(share[1, 0] + 0.01 < x[1, 0] < 0.99 for x in scales)  # so that it is neither of the limits
    at = [constant + x * (outputs - constant) for x, outputs in zip(scales, alone, strict=True)]
    g = gate(features, labels, present, where, constant)
    if subsets:
        g = min(g, gate_alone(terms, alone, labels, present, where, constant))
    np.testing.assert_allclose(terms.explained, g, rtol=1e-7)
    w, a = expert * g, subsets * g

    def losses(outputs, chosen):
        beyond = outputs + (chosen[:, :, None] * ratios).sum(1)
        return (1 - w) * cross_entropy(outputs, labels) + w * cross_entropy(beyond, labels)

    each = [losses(at[m], np.eye(2, dtype=bool)[[m] * 40]) for m in (0, 1)]
    of_one = (np.stack(each, axis=1) * present).sum(1) / n
    expected = (1 - a) * losses(logits, present) + a * of_one
    np.testing.assert_allclose(terms.task, expected[where].mean(), rtol=1e-7)


def scales_oracle(joint, alone, share, labels, rows, constant):
    """max(c, c^(1 - u) / beta) for each, where the slope of the mean cross-entropy, between five points, is 0."""

    def zero(outputs, start, end, flat):
        slopes = []
        for t in np.linspace(0, 1, 5):
            scale = start ** (1 - t) * end**t
            x = constant + scale * (outputs - constant)
            p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
            by_scale = ((p - np.eye(p.shape[1])[labels]) * (outputs - constant)).sum(1)
            slopes.append((by_scale * (scale * np.log(end / start))[:, 0])[rows].mean() + flat)
        if slopes[0] >= 0 or slopes[-1] < 0:
            return float(slopes[0] < 0)
        return np.interp(0, slopes, np.linspace(0, 1, 5)) if np.all(np.diff(slopes) > 0) else np.nan

    one = np.ones_like(share)
    beta = 2 ** zero(joint, one, 2 * one, 1e-4)
    return [np.maximum(share, share ** (1 - zero(x, share, one, -1e-4)) / beta) for x in alone]


def gate(features, labels, present, where, constant):
    """(H - S) / (H - T) from the reference implementation's z_c."""
    _, terms = c3r_loss(
        lambda z: z @ jnp.asarray(HEAD),
        fuse,
        as_jax(features),
        jnp.asarray(labels),
        config=c3r_jax.C3RConfig(subsets=0.0),
        present=jnp.asarray(present),
        where=jnp.asarray(where),
    )
    at = [x[where] for x in (np.asarray(terms.z) @ HEAD, np.asarray(terms.z_c) @ HEAD, np.tile(constant, (40, 1)))]
    t, s, h = (least(x, labels[where], constant) for x in at)
    np.testing.assert_allclose(terms.explained, (h - s) / (h - t), rtol=1e-7)
    assert t < s < h  # so that the share is neither 0 nor 1
    return (h - s) / (h - t)


def least(outputs, labels, constant):
    """The least mean cross-entropy of outputs at the scales that the gate tries."""
    return min(cross_entropy(constant + scale * (outputs - constant), labels).mean() for scale in SCALES)


def gate_alone(terms, alone, labels, present, where, constant):
    """1 - max_m (min(S_m, H_m) - T_m)_+ / max_m (H_m - T_m), and how far the S_m repeat each other, at most 1.

    Both of rows that have both modalities.
    """
    both = where & present.all(1)
    hats = [np.asarray(terms.first_stage[m].fitted) @ HEAD for m in ("a", "b")]
    t, s = ([least(x[both], labels[both], constant) for x in outputs] for outputs in (alone, hats))
    h = cross_entropy(np.tile(constant, (40, 1)), labels)[both].mean()
    found = 1 - max(max(min(x, h) - y, 0) for x, y in zip(s, t, strict=True)) / max(h - y for y in t)
    together = h - least((np.asarray(terms.z_c) @ HEAD)[both], labels[both], constant)
    repeated = (sum(max(h - x, 0) for x in s) / together - 1 - 0.1) / 0.2
    assert 0 < min(found, repeated) < 1
    return min(found, repeated)


@pytest.mark.parametrize(
    ("alone", "explained", "share"),
    [
        ([0.2, 0.3], [0.2, 0.3], 1),
        ([0.2, 0.2], [0.6, 0.2], 0.5),
        ([0.2, 0.9], [2.0, 0.2], 0),  # a strong modality, and a weak one that explains nothing of it
        ([0.2, 0.9], [0.3, 2.0], 1 - 1 / 8),  # what the weak one alone says counts little
        ([0.2, 1.3], [0.2, 3.0], 1),  # a modality that predicts nothing has nothing to explain
        ([1.0, 1.0], [1.5, 1.5], 1),
    ],
)
def test_what_modalities_alone_predict_is_explained_by_the_others(alone, explained, share):
    found = explained_alone(*map(jnp.asarray, (alone, explained, [1.0, 1.0])))
    np.testing.assert_allclose(found, share, rtol=1e-6)


@pytest.mark.parametrize(
    ("together", "parts", "share"),
    [
        (0.2, [0.2, 0.2, 0.2], 1),  # each says what all say
        (0.4, [0.8, 0.8, 0.8], 0),  # dealt out
        (0.4, [0.4, 1.5, 1.0], 0),  # one alone
        (0.5, [0.6, 0.65, 0.95], 1),  # (.4 + .35 + .05) / .5 - 1 over 2 is .3, the end of the ramp
        (0.5, [0.65, 0.7, 0.95], 0.5),  # .2: its middle
        (1.0, [0.5, 0.5, 0.5], 0),  # nothing is explained together
    ],
)
def test_explained_parts_that_say_the_same(together, parts, share):
    numbers = (jnp.asarray(together), jnp.asarray(parts), jnp.asarray(1.0), jnp.ones(3))
    np.testing.assert_allclose(repeated_share(*numbers), share, rtol=1e-5, atol=1e-6)


def test_modalities_that_complement_each_other_are_trained_together():
    rng = np.random.default_rng(0)
    features = {m: rng.standard_normal((400, 2)) for m in ("a", "b")}
    total = sum(h[:, 0] for h in features.values())
    labels = jnp.asarray(np.digitize(total, [-1.5, -0.5, 0.5, 1.5]))
    place = np.arange(5) - 2.0
    predict = lambda z: 6 * z[:, :1] * place[None, :] - 1.5 * place[None, :] ** 2  # noqa: E731
    given = {name: jnp.asarray(h, jnp.float32) for name, h in features.items()}
    found = [c3r_loss(predict, fuse, given, labels, config=C3RConfig(subsets=x))[1] for x in (0.0, 0.95)]
    assert float(found[1].explained) < 0.05
    np.testing.assert_allclose(found[1].task, found[0].task, rtol=0.1)
    ungated = c3r_loss(predict, fuse, given, labels, config=C3RConfig(gate=False))[1]
    assert float(ungated.task) > 1.5 * float(found[0].task)


def test_kl_without_a_prior_takes_the_batch_shares(problem):
    features, labels, _, where = problem
    shares = tuple((np.bincount(labels[where], minlength=3) / where.sum()).tolist())
    both = [
        c3r_loss(
            lambda z: z @ jnp.asarray(HEAD, jnp.float32),
            fuse,
            jax.tree.map(lambda h: jnp.asarray(h, jnp.float32), as_jax(features)),
            jnp.asarray(labels),
            config=c3r_jax.C3RConfig(necessity="kl", prior=prior),
            where=jnp.asarray(where),
        )[1].necessity
        for prior in (None, shares)
    ]
    np.testing.assert_allclose(*both, rtol=1e-6)


def test_priors_of_other_tasks_are_the_batch_ones():
    where = jnp.asarray([True, True, True, False])
    ones = MultiLabel().batch_prior(jnp.asarray([[1, 0], [1, 1], [0, 0], [1, 1]]), 2, where=where)
    np.testing.assert_allclose(ones, [2 / 3, 1 / 3], rtol=1e-6)
    mean_and_sd = Regression(0.5).batch_prior(jnp.asarray([1.0, 2.0, 6.0, 100.0]), 1, where=where)
    np.testing.assert_allclose(mean_and_sd, [3.0, np.std([1, 2, 6])], rtol=1e-6)


@pytest.mark.parametrize(
    ("mix", "share"), [(lambda alone: alone.mean(0), 1 / 3), (lambda alone: alone.sum(0), 1.0)], ids=["mean", "sum"]
)
def test_a_modality_alone_counts_as_in_the_fusion(mix, share):
    alone = np.random.default_rng(0).standard_normal((3, 9, 4)).astype(np.float32)
    constant = jnp.asarray([0.3, -1.0, 0.2, 0.5])
    present = np.ones((9, 3), bool)
    present[0] = [True, False, False]
    joint = mix(alone - np.asarray(constant)) + np.asarray(constant)
    found = alone_in_joint(*map(jnp.asarray, (joint, alone, present)), constant, where=jnp.arange(9) > 1)
    np.testing.assert_allclose(found.share, [1.0, *[share] * 8], rtol=1e-5)
    np.testing.assert_allclose(found.additivity, 1, rtol=1e-5)


def test_additivity_is_a_squared_correlation():
    """Against NumPy; outputs against those alone have none, and one modality in every row has nothing to compare."""
    alone, joint = (
        np.random.default_rng(2).standard_normal((2, 12, 4)),
        np.random.default_rng(3).standard_normal((12, 4)),
    )
    joint += alone.sum(0)
    arrays = [jnp.asarray(x, jnp.float32) for x in (joint, alone)]
    present, rows, zero = jnp.ones((12, 2), bool), jnp.ones(12, bool), jnp.zeros(4)
    e, s = (x - x.mean(1, keepdims=True) for x in (joint, alone.mean(0)))
    expected = (e * s).sum() ** 2 / ((e * e).sum() * (s * s).sum())
    assert 0.2 < expected < 0.9
    np.testing.assert_allclose(alone_in_joint(*arrays, present, zero, where=rows).additivity, expected, rtol=1e-5)
    against = alone_in_joint(-arrays[1].sum(0), arrays[1], present, zero, where=rows)
    np.testing.assert_allclose(against.share, np.full(12, 0.5))
    assert against.additivity == 0
    single = alone_in_joint(*arrays, present.at[:, 0].set(False), zero, where=rows)
    np.testing.assert_array_equal(single.share, 1)
    assert single.additivity == 1


def test_outputs_in_large_units_have_the_same_share():
    """Squares of a number's outputs in won or yen are within float32, the product of two of them is not."""
    alone = jax.random.normal(jax.random.key(0), (2, 64, 1))
    joint, present, zero = alone.sum(0) + 0.5 * alone[0], jnp.ones((64, 2), bool), jnp.zeros(1)
    task = Regression(1.0)
    small, large = (
        alone_in_joint(unit * joint, unit * alone, present, zero, where=present[:, 0], task=task) for unit in (1.0, 1e9)
    )
    assert 0.5 < small.additivity < 0.999
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), small, large)


def test_fusion_that_is_no_sum_is_trained_itself(x64):
    """The task term is the joint loss as far as the joint outputs are not made of those alone."""
    rng = np.random.default_rng(4)
    features = {m: rng.standard_normal((40, 3)) for m in ("a", "b")}
    labels = rng.integers(0, 3, 40)

    def product(h, present):
        both = 2 * h["a"] * h["b"] + h["a"] + h["b"]
        return jnp.where(present.all(1, keepdims=True), both, 2 * (h["a"] + h["b"]))

    of = {}
    for share in (0.0, 1.0):
        more = {"config": C3RConfig(subsets=share, gate=False)}
        of[share] = c3r_loss(lambda z: z @ jnp.asarray(HEAD), product, as_jax(features), jnp.asarray(labels), **more)[1]
    counts = np.bincount(labels, minlength=3) + 0.5
    constant = np.log(counts / counts.sum())
    alone = np.stack([2 * features[m] @ HEAD for m in ("a", "b")])
    arrays = map(jnp.asarray, (of[0.0].logits, alone, np.ones((40, 2), bool), constant))
    found = alone_in_joint(*arrays, where=jnp.ones(40, bool))
    scaled = [constant + np.asarray(found.share)[:, None] * (outputs - constant) for outputs in alone]
    of_one = np.mean([cross_entropy(outputs, labels) for outputs in scaled])
    joint = float(of[0.0].task)
    assert 0.1 < found.additivity < 0.8 and abs(of_one - joint) > 0.1
    np.testing.assert_allclose(of[1.0].task, joint + float(found.additivity) * (of_one - joint), rtol=1e-5)


def test_several_labels_have_no_softmax_that_ignores_a_mean():
    one = np.random.default_rng(1).standard_normal((2, 9, 1)).astype(np.float32)
    twice = jnp.asarray(np.repeat(one, 2, axis=2))  # two labels that are the same
    rows, present = jnp.ones(9, bool), jnp.ones((9, 2), bool)
    found = alone_in_joint(twice.sum(0), twice, present, jnp.zeros(2), where=rows, task=MultiLabel())
    np.testing.assert_allclose(found.share, 1.0, rtol=1e-5)


def test_a_number_under_a_sum_is_as_under_a_mean():
    """Of a sum each modality says a part of the label; asked for the whole, all together would say it twice."""
    rng = np.random.default_rng(2)
    cause, noise = rng.standard_normal((300, 3)), rng.standard_normal((2, 300, 3))
    h = as_jax({m: cause + 0.5 * n for m, n in zip(("image", "text"), noise, strict=True)})
    labels, head = cause[:, 0] - cause[:, 1], jnp.asarray([[0.6], [-0.5], [0.1]])
    labels = jnp.asarray(labels - labels.mean(), jnp.float32)
    shared = {"task": Regression(0.5), "config": C3RConfig()}

    @jax.jit
    def run(scale):
        together = lambda h, present: scale * sum(keep(present[:, m], x) for m, x in enumerate(h.values()))  # noqa: E731
        predict = lambda z: z @ head / (2 * scale)  # noqa: E731
        loss, terms = c3r_loss(predict, together, h, labels, **shared)
        return loss, terms.explained, held_out_share(predict, together, h, labels, terms.moments, **shared)

    mean, found = run(0.5), run(1.0)
    assert min(mean[1:]) > 0.2
    chex.assert_trees_all_close(found, mean, rtol=2e-4)


def test_a_number_alone_has_the_slope_of_the_label():
    """The loss of one modality alone asks for its direction; its size is that of least squares, within 1/n and 1."""
    rng = np.random.default_rng(4)
    alone, labels = rng.standard_normal((3, 40, 1)), rng.standard_normal(40)
    present, where = rng.random((40, 3)) < 0.8, rng.random(40) < 0.9
    constant = np.array([0.3])
    expected = []
    for m in range(3):
        rows = where & present[:, m]
        x, y = alone[m, rows, 0] - 0.3, labels[rows] - 0.3
        expected.append(x @ y / (x @ x))
    arrays = map(jnp.asarray, (alone.astype(np.float32), labels.astype(np.float32), present, constant))
    shared = {"where": jnp.asarray(where), "axis_name": None, "task": Regression(0.5)}
    np.testing.assert_allclose(own_slopes(*arrays, **shared), expected, rtol=1e-4)


def test_a_mean_of_noisy_measurements_costs_regression_nothing():
    """Each of four measurements is asked for its share: at the best weights of their mean, subsets change nothing."""
    rng = np.random.default_rng(5)
    cause, noise = rng.standard_normal((4000, 1)), 2 * rng.standard_normal((4, 4000, 1))
    h = as_jax({f"m{m}": cause + noise[m] for m in range(4)})
    labels = jnp.asarray(cause[:, 0] - cause.mean(), jnp.float32)
    mean = lambda h, present: sum(keep(present[:, m], x) for m, x in enumerate(h.values())) / 4  # noqa: E731

    @jax.jit
    @jax.grad
    def slope(weight):  # 4 / (4 + 4) is the best weight of the mean, 1 / (1 + 4) that of one measurement alone
        config = C3RConfig(gate=False, lambda_s=0.0, lambda_n=0.0, cap=0.0, subsets=0.9)
        return c3r_loss(lambda z: weight * z, mean, h, labels, task=Regression(9.0), config=config)[0]

    alone = jax.grad(lambda weight: jnp.mean(jnp.square((weight * h["m0"][:, 0] - labels) / 9)) / 2)(0.5)
    assert abs(slope(0.5)) < 0.1 * abs(alone)


def test_float16_logits_have_a_finite_share():
    rng = np.random.default_rng(6)
    alone = jnp.asarray(30 * rng.standard_normal((2, 64, 5)), jnp.float16)
    arrays = alone.mean(0), alone, jnp.ones((64, 2), bool), jnp.zeros(5, jnp.float16)
    found = alone_in_joint(*arrays, where=jnp.ones(64, bool))
    np.testing.assert_allclose(found.additivity, 1.0, atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": C3RConfig(prior=(90.0, 80.0))}, "was expected to hold shares >= 0 that sum to 1"),
        ({"config": C3RConfig(prior=(0.2, 0.3, 0.5))}, r"prior has shape \(3,\), but \(2,\) was expected"),
        ({"evidence": True}, "C3RConfig.expert is 0, which reads none"),
        ({"config": {"cap": 0.0}}, "config is dict, but a C3RConfig was expected"),
        ({"task": "regression"}, "task is 'regression', but a task was expected"),
        ({"task": Regression}, "task is Regression, but a task was expected"),
        ({"fuse": lambda h, present: (h["a"],)}, "is a tuple, but one array of 40 rows"),
        ({"fuse": lambda h, present: h["a"][:20]}, r"has shape \(20, 2\), but 40 rows were expected"),
        ({"predict": lambda z: z[:1]}, r"predict\(z\) has shape \(1, 2\), but 40 rows were expected"),
        ({"moments": ()}, "moments are tuple, but those of earlier batches were expected"),
        (
            {"moments": no_moments(C3RConfig(), {"a": 2, "b": 3})},
            r"moments have shapes \[\(\), \(5,\), \(5, 5\)\], but",
        ),
    ],
)
def test_arguments_of_another_kind_are_named(changes, message):
    rng = np.random.default_rng(7)
    h = as_jax({name: rng.standard_normal((40, 2)) for name in "ab"})
    given = {"predict": lambda z: z, "fuse": lambda h, present: h["a"] + h["b"], **changes}
    if "evidence" in changes:
        given["evidence"] = h
    predict, fuse = given.pop("predict"), given.pop("fuse")
    with pytest.raises(ValueError, match=message):  # under jit, too
        jax.jit(lambda h: c3r_loss(predict, fuse, h, jnp.arange(40) % 2, **given)[0])(h)


def test_a_masked_class_changes_nothing():
    """Classes that cannot be are often masked by a very small logit; its squares must not overflow."""
    rng = np.random.default_rng(3)
    labels = jnp.asarray(rng.integers(0, 2, 128))
    cause = np.eye(3)[np.asarray(labels)]
    h = as_jax({m: cause + 0.5 * rng.standard_normal((128, 3)) for m in ("image", "text")})

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def run(head, mask):
        predict = lambda z: jnp.concatenate([z @ head, jnp.full((len(z), 1), mask)], axis=1)  # noqa: E731
        loss, terms = c3r_loss(predict, fuse, h, labels, config=C3RConfig(expert=0.5))
        return loss, (terms.explained, terms.risk.sufficiency, held_out_share(predict, fuse, h, labels, terms.moments))

    expected, *masked = (run(2 * jnp.eye(3, 2), mask) for mask in (-200.0, -1e9, -np.inf))
    assert float(expected[0][1][0]) > 0.2
    for found in masked:
        chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_experts_of_other_tasks(task):
    rng = np.random.default_rng(0)
    cause, cue = rng.standard_normal((2, 400, 1)).astype(np.float32)
    h = {"image": np.concatenate([cause, cue], 1), "text": cause + 0.1 * rng.standard_normal((400, 1), np.float32)}
    if task == "regression":
        target, labels = Regression(0.5), jnp.asarray(cue[:, 0])  # the image alone sees the label
    else:
        target, labels = MultiLabel(), jnp.asarray(np.concatenate([cue > 0, cause > 0], 1).astype(int))
    targets = target.expert_targets(labels, 2)
    experts = residual_experts(as_jax(h), targets, task=target)
    assert experts["image"].accuracy > 0.7 and experts["image"].beta > 0
    shares = targets.mean(0)
    zero = target.expert_outputs(jnp.zeros((400, targets.shape[1])), shares, 0.0)
    joined = target.expert_losses(zero + experts["image"].log_ratio, targets).mean()
    np.testing.assert_allclose(-joined, experts["image"].likelihood, rtol=1e-5)
    assert joined < target.expert_losses(zero, targets).mean() - 0.1
    if task == "regression":
        np.testing.assert_allclose(experts["text"].log_ratio, 0, atol=0.05)


def test_strength_zero_is_plain_training(problem):
    features, labels, _, where = problem
    h, head = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (as_jax(features), HEAD))
    where = jnp.asarray(where)

    def loss(config, h, head):
        return c3r_loss(lambda z: z @ head, fuse, h, jnp.asarray(labels), config=config, where=where)[0]

    def plain(h, head):
        losses = CLASSIFICATION.loss(fuse(h, np.ones((40, 2), bool)) @ head, jnp.asarray(labels))
        return jnp.where(where, losses, 0).sum() / where.sum()

    expected = jax.value_and_grad(plain, argnums=(0, 1))(h, head)
    for config in (C3RConfig(strength=0.0), C3RConfig.strong(strength=0.0)):
        found = jax.value_and_grad(partial(loss, config), argnums=(0, 1))(h, head)
        chex.assert_trees_all_close(found, expected, rtol=1e-6, atol=1e-8)

    def experts(strength):
        config = C3RConfig(strength=strength)
        _, terms = c3r_loss(lambda z: z @ head, fuse, h, jnp.asarray(labels), config=config, where=where)
        return terms.experts

    assert jax.eval_shape(experts, 0.5) is None  # a traced strength brings no term of weight 0 into the program
    traced = jax.jit(lambda s: jax.value_and_grad(partial(loss, C3RConfig(strength=s)), argnums=(0, 1))(h, head))
    chex.assert_trees_all_close(traced(0.0), expected, rtol=1e-6, atol=1e-7)
    both = traced(1.0), jax.value_and_grad(partial(loss, C3RConfig()), argnums=(0, 1))(h, head)
    chex.assert_trees_all_close(*both, rtol=1e-5, atol=1e-7)


def test_given_evidence_takes_the_place_of_the_batch_experts(problem):
    features, labels, _, where = problem
    h = as_jax(features)
    experts = residual_experts(h, jax.nn.one_hot(labels, 3), where=jnp.asarray(where))
    loss = partial(c3r_loss, lambda z: z @ HEAD, fuse, h, jnp.asarray(labels), config=C3RConfig(expert=0.5))
    given = {name: found.log_ratio for name, found in experts.items()}
    both = [loss(where=jnp.asarray(where), evidence=evidence)[0] for evidence in (None, given)]
    np.testing.assert_allclose(*both, rtol=1e-6)
    with pytest.raises(ValueError, match=r"evidence is of \['a'\], but the features are \['a', 'b'\]"):
        loss(evidence={"a": given["a"]})
    with pytest.raises(ValueError, match=r"evidence\['a'\] has 3 rows, but the features have 40"):
        loss(evidence={name: value[:3] for name, value in given.items()})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"expert": 1.5}, "C3RConfig.expert is 1.5, but a share between 0 and 1 was expected"),
        ({"expert": 0.5, "instrument": "none"}, "C3RConfig.expert is 0.5, which needs instrument='two_stage'"),
        ({"shuffled": True, "expert": 0.5}, "C3RConfig.shuffled is True, but experts would still see"),
        ({"cap": -1.0}, "C3RConfig.cap is -1.0, but a finite number >= 0 was expected"),
        ({"lambda_n": "1"}, "C3RConfig.lambda_n is '1', but a finite number >= 0 was expected"),
        ({"subsets": None}, "C3RConfig.subsets is None, but a share between 0 and 1 was expected"),
        ({"label_smoothing": None}, "C3RConfig.label_smoothing is None"),
        ({"gate": "no"}, "C3RConfig.gate is 'no', but True or False was expected"),
    ],
)
def test_settings_that_contradict(settings, message):
    with pytest.raises(ValueError, match=message):
        c3r_jax.C3RConfig(**settings)


@pytest.mark.parametrize("kind", ["kl", "constant"])
def test_with_the_gate_rare_classes_give_up_less(problem, x64, kind):
    """Toward the shares, or toward the mean prediction, of rows weighted in the same way."""
    features, _, _, _ = problem
    labels = np.arange(40) % 10 // 8  # shares .8 and .2
    head, shares = HEAD[:, :2], np.array([0.8, 0.2])
    given = {"config": C3RConfig(necessity=kind)}
    _, terms = c3r_loss(lambda z: z @ jnp.asarray(head), fuse, as_jax(features), jnp.asarray(labels), **given)
    hypothetical = np.asarray(terms.z_bar) @ head
    log_p = hypothetical - np.log(np.exp(hypothetical).sum(1, keepdims=True))
    own = shares[labels] / np.square(shares).sum()
    asked = shares if kind == "kl" else (own[:, None] * np.exp(log_p)).sum(0) / own.sum()
    divergence = (asked * (np.log(asked) - log_p)).sum(1)
    np.testing.assert_allclose(terms.necessity, (own * divergence).mean(), rtol=1e-6)


@pytest.mark.parametrize("kind", ["kl", "constant"])
def test_with_the_gate_rare_values_of_a_label_give_up_less(problem, x64, kind):
    features, _, _, _ = problem
    labels = np.stack([np.arange(40) % 10 > 8, np.arange(40) % 5 > 1], axis=1).astype(int)  # shares .1 and .6
    head, shares = HEAD[:, :2], np.array([0.1, 0.6])
    given = {"task": MultiLabel(), "config": C3RConfig(necessity=kind)}
    _, terms = c3r_loss(lambda z: z @ jnp.asarray(head), fuse, as_jax(features), jnp.asarray(labels), **given)
    p = 1 / (1 + np.exp(-np.asarray(terms.z_bar) @ head))
    own = np.where(labels == 1, shares, 1 - shares) / (shares**2 + (1 - shares) ** 2)
    asked = shares if kind == "kl" else (own * p).sum(0) / own.sum(0)
    divergence = asked * np.log(asked / p) + (1 - asked) * np.log((1 - asked) / (1 - p))
    np.testing.assert_allclose(own.mean(0), 1.0)
    np.testing.assert_allclose(terms.necessity, (own * divergence).mean(), rtol=1e-6)
