"""Each rival's formula against cases worked out in float64 by other means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta

from c3r_jax.core.risk import sufficiency_loss
from c3r_jax.methods.alignment import alignment_loss
from c3r_jax.methods.casn import agreement
from c3r_jax.methods.evidence import evidential_loss, ranking_loss, trusted_loss
from c3r_jax.methods.group_dro import group_dro_loss
from c3r_jax.methods.irm import irm_penalty
from c3r_jax.methods.mixup import mixup_loss
from c3r_jax.methods.ogm_ge import modulated, modulation
from c3r_jax.methods.registry import make_rival
from c3r_jax.methods.vrex import vrex_penalty


def cross_entropy(logits, labels):
    logits = np.asarray(logits, np.float64)
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]


def softmax(logits):
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(1, keepdims=True)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("a", "b"), [(3.0, 1.5), (1.2, 6.0)])
def test_evidential_loss_is_its_integrals(a, b):
    """Two classes: the mean of -log p under Beta(a, b), and the divergence of Beta(1, b) from the uniform one."""
    expected = quad(lambda x: -np.log(x) * beta.pdf(x, a, b), 0, 1)[0]
    apart = quad(lambda x: beta.pdf(x, 1, b) * beta.logpdf(x, 1, b), 0, 1)[0]
    for weight in (0.0, 0.7):
        found = evidential_loss(jnp.array([[a, b], [b, a]]), jnp.array([0, 1]), weight)
        np.testing.assert_allclose(found, [expected + weight * apart] * 2, rtol=1e-5)


def test_trusted_loss_adds_the_present_modalities(rng):
    opinions, labels = jnp.asarray(rng.normal(size=(2, 4, 3)), jnp.float32), jnp.array([0, 1, 2, 0])
    fused = jnp.asarray(rng.random((4, 3)), jnp.float32)
    present = jnp.array([[True, True], [True, False], [True, True], [True, True]])
    where = jnp.array([True, True, True, False])
    each = [evidential_loss(1 + jax.nn.softplus(own), labels, 0.3) for own in opinions]
    together = evidential_loss(jnp.exp(fused), labels, 0.3)
    found = trusted_loss(fused, opinions, labels, present, 0.3, where=where)
    np.testing.assert_allclose(found, together[:3].mean() + each[0][:3].mean() + each[1][:3:2].mean(), rtol=1e-5)


def test_ranking_loss_pair_by_pair(rng):
    confidence, losses = rng.random(6), rng.random(6)
    where = np.array([True, True, False, True, True, True])
    kappa = (losses - losses[where].min()) / (losses[where].max() - losses[where].min())
    pairs = [
        max(0, np.sign(kappa[i] - kappa[j]) * (confidence[i] - confidence[j]) + abs(kappa[i] - kappa[j]))
        for i, j in ((0, 1), (3, 4), (4, 5), (5, 0))
    ]
    arrays = (jnp.asarray(confidence, jnp.float32), jnp.asarray(losses, jnp.float32))
    np.testing.assert_allclose(ranking_loss(*arrays, where=jnp.asarray(where)), np.mean(pairs), rtol=1e-5)


def test_environments_by_hand(rng):
    """Risks, their variance, their slopes along the scale of the logits, and two steps of exponentiated gradient."""
    logits, labels = rng.normal(size=(7, 3)), np.array([0, 1, 2, 0, 1, 2, 0])
    environment, where = np.array([0, 0, 1, 1, 1, 0, 1]), np.array([True] * 6 + [False])
    groups = [where & (environment == e) for e in range(2)]
    risk = lambda scale: np.array([cross_entropy(scale * logits, labels)[g].mean() for g in groups])  # noqa: E731
    risks, slopes = risk(1.0), (risk(1 + 1e-5) - risk(1 - 1e-5)) / 2e-5
    mask = {"where": jnp.asarray(where)}
    outputs, ids = jnp.asarray(logits, jnp.float32), jnp.asarray(environment)
    losses = sufficiency_loss(outputs, jnp.asarray(labels))
    own = lambda outputs: sufficiency_loss(outputs, jnp.asarray(labels))  # noqa: E731
    np.testing.assert_allclose(irm_penalty(own, outputs, ids, 2, **mask), np.mean(slopes**2), rtol=1e-4)
    np.testing.assert_allclose(irm_penalty(own, outputs, ids, 3, **mask), np.mean(slopes**2), rtol=1e-4)  # one is empty
    np.testing.assert_allclose(vrex_penalty(losses, ids, 3, **mask), np.var(risks), rtol=1e-4)
    q, expected = jnp.array([0.5, 0.5]), np.array([0.5, 0.5])
    for _ in range(2):
        loss, q = group_dro_loss(losses, ids, q, 0.7, **mask)
        expected = expected * np.exp(0.7 * risks)
        expected /= expected.sum()
        np.testing.assert_allclose(q, expected, rtol=1e-5)
        np.testing.assert_allclose(loss, expected @ risks, rtol=1e-5)


def test_modulation_slows_the_leading_encoder():
    scales = modulation(jnp.array([0.6, 0.3, 0.3]), 0.5)
    np.testing.assert_allclose(scales, [1 - np.tanh(0.5 * 2), 1, 1], rtol=1e-6)
    np.testing.assert_array_equal(modulation(jnp.array([0.0, 0.0]), 0.5), [1, 1])


def test_modulated_gradients_keep_their_noise(rng):
    weights, bias = rng.normal(size=(200, 300)).astype(np.float32), np.ones(3, np.float32)
    gradient = {name: {"kernel": weights, "bias": bias} for name in ("encoders_a", "encoders_b", "head")}
    scales = {"a": jnp.float32(0.25), "b": jnp.float32(1.0), "frozen": jnp.float32(0.5)}
    found = modulated(gradient, scales, jax.random.key(0))
    assert found.keys() == gradient.keys() and found["head"] is gradient["head"]
    np.testing.assert_allclose(found["encoders_a"]["bias"], 0.25 * bias)
    noise = [np.asarray(found[f"encoders_{n}"]["kernel"]) - k * weights for n, k in (("a", 0.25), ("b", 1.0))]
    for drawn in noise:
        assert abs(drawn.mean()) < 0.02
        np.testing.assert_allclose(drawn.std(), weights.std(), rtol=0.01)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.02


def test_mixup_by_hand(rng):
    h = {name: jnp.asarray(rng.normal(size=(5, 3)), jnp.float32) for name in "ab"}
    labels, key = jnp.array([0, 1, 2, 1, 0]), jax.random.key(3)
    present = jnp.array([[True, True], [True, False], [True, True], [True, True], [True, True]])
    h["b"] = jnp.where(present[:, 1:], h["b"], 0)
    where = jnp.array([True, True, True, True, False])
    fuse = lambda h, present: h["a"] + jnp.where(present[:, 1:], h["b"], 0)  # noqa: E731
    arguments = {"alpha": 0.4, "present": present, "where": where}
    draws = [float(mixup_loss(lambda z: z, fuse, h, labels, sufficiency_loss, key=key, **arguments))]
    draw_key, order_key = jax.random.split(key)
    share = float(jax.random.beta(draw_key, 0.4, 0.4))
    order = np.asarray(jax.random.permutation(order_key, 5))
    assert 0 < share < 1 and (order != np.arange(5)).any()
    a, b = (np.asarray(h[n], np.float64) for n in "ab")
    both = np.asarray(present)[:, 1] & np.asarray(present)[order, 1]
    z = share * a + (1 - share) * a[order] + both[:, None] * (share * b + (1 - share) * b[order])
    y = np.asarray(labels)
    losses = share * cross_entropy(z, y) + (1 - share) * cross_entropy(z, y[order])
    counted = np.asarray(where) & np.asarray(where)[order]
    np.testing.assert_allclose(draws[0], losses[counted].mean(), rtol=1e-5)


def test_agreement_by_hand(rng):
    z, head = rng.normal(size=(6, 4)), rng.normal(size=(4, 3))
    shift, where = rng.normal(size=(6, 4)), np.array([True] * 5 + [False])
    size = np.sqrt((z[where] ** 2).sum(1).mean())
    moved = z + 0.5 * size * shift / np.linalg.norm(shift, axis=1, keepdims=True)
    expected = (softmax(z @ head) * softmax(moved @ head)).sum(1)[where].mean()
    as32 = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    mask = {"radius": 0.5, "where": jnp.asarray(where)}
    found = agreement(lambda z: z @ as32(head), lambda _: as32(shift), as32(z), **mask)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_alignment_is_clips_loss_both_ways(rng):
    h = {name: rng.normal(size=(5, 4)) for name in ("image", "text")}
    present = np.array([[True, True]] * 4 + [[True, False]])
    unit = [value[:4] / np.linalg.norm(value[:4], axis=1, keepdims=True) for value in h.values()]
    logits = unit[0] @ unit[1].T / 0.2
    expected = (cross_entropy(logits, np.arange(4)).mean() + cross_entropy(logits.T, np.arange(4)).mean()) / 2
    features = {name: jnp.asarray(value, jnp.float32) for name, value in h.items()}
    masks = {"present": jnp.asarray(present), "where": jnp.ones(5, bool)}
    np.testing.assert_allclose(alignment_loss(features, temperature=0.2, **masks), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "dropout"}, "Rival.name is 'dropout': expected one of none, ogm_ge"),
        ({"strength": -1.0}, "Rival.strength is -1.0: expected a number >= 0"),
        ({"radius": 0.0}, "Rival.radius is 0.0: expected a positive number"),
        ({"name": "mixup", "strength": 0.0}, r"draws from Beta\(strength, strength\)"),
        ({"name": "irm"}, "compares environments, but the training rows have 0 of them"),
        ({"name": "mixup", "fusion": "evidential"}, "fusion 'evidential' has a loss of its own"),
    ],
)
def test_settings_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_rival(**settings)
