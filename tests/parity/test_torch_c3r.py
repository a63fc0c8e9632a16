"""The same weights and batches in JAX and in the PyTorch reference: terms, risks, gradients, training, weights."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from c3r_jax import C3RConfig, c3r_loss, counterfactual
from c3r_jax.models.encoders.features import FeatureEncoder
from c3r_jax.models.fusion.representations import MaskedMean
from c3r_jax.models.twin import TwinNetwork, apply
from tests.reference import torch_c3r
from tests.reference.torch_twin import TorchTwin, masked_mean, to_params, to_state_dict

pytestmark = pytest.mark.torch
NAMES = ("audio", "image", "text")
BATCH, DIM, CLASSES = 96, 6, 4
TERMS = ("task", "sufficiency", "necessity", "relevance", "closeness")
PRIOR = (0.4, 0.3, 0.2, 0.1)


def batch(seed, missing):
    """Inputs that share a cause, labels, and which modalities are there."""
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=(BATCH, 3))
    labels = (cause @ rng.normal(size=(3, CLASSES)) + 0.3 * rng.normal(size=(BATCH, CLASSES))).argmax(1)
    inputs = {
        name: (np.tanh(cause @ rng.normal(size=(3, 8))) + 0.4 * rng.normal(size=(BATCH, 8))).astype(np.float32)
        for name in NAMES
    }
    present = np.ones((BATCH, len(NAMES)), bool)
    if missing:
        present = rng.random((BATCH, len(NAMES))) < 0.8
        present[:, 1] |= ~present.any(1)
    return inputs, present, labels


def weights(seed):
    rng = np.random.default_rng(seed)
    params = {name: (0.5 * rng.normal(size=(8, DIM))).astype(np.float32) for name in NAMES}
    params["hidden"] = (rng.normal(size=(DIM, 5)) / DIM**0.5).astype(np.float32)
    params["out"] = rng.normal(size=(5, CLASSES)).astype(np.float32)
    return params


def mean_present(h, present):
    return MaskedMean().apply({}, h, present)


@functools.lru_cache(maxsize=1)
def compiled(config):
    def objective(params, inputs, present, labels, key):
        h = {name: jnp.tanh(inputs[name] @ params[name]) for name in NAMES}
        return c3r_loss(
            lambda z: jnp.tanh(z @ params["hidden"]) @ params["out"],
            mean_present,
            h,
            labels,
            config=config,
            present=present,
            key=key,
        )

    return jax.jit(jax.value_and_grad(objective, has_aux=True))


def in_torch(params, inputs, present, labels, settings, partners):
    params = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
    h = {name: torch.tanh(torch.tensor(inputs[name]) @ params[name]) for name in NAMES}
    loss, terms = torch_c3r.c3r_loss(
        lambda z: torch.tanh(z @ params["hidden"]) @ params["out"],
        masked_mean,
        h,
        torch.tensor(labels),
        settings,
        present=torch.tensor(present),
        partners=partners,
    )
    loss.backward()
    return loss, terms, {name: value.grad for name, value in params.items()}


def partners_of(labels, key):
    """The rows that "permute" draws for this key."""
    number = jnp.arange(BATCH, dtype=jnp.float32)[:, None]
    predict = functools.partial(jnp.matmul, b=jnp.ones((1, CLASSES)))
    drawn = counterfactual(predict, number, labels, mode="permute", key=key)
    return torch.tensor(np.asarray(drawn[:, 0]).astype(int))


CASES = {
    **{f"two_stage, {mode}": {"counterfactual": mode} for mode in ("removal", "minimal", "gradient")},
    **{f"two_stage, {mode}": {"counterfactual": mode} for mode in ("instrumented", "mean", "permute")},
    "several removals": {"num_steps": 3},
    "log": {"necessity": "log", "counterfactual": "instrumented"},
    "kl": {"necessity": "kl", "prior": PRIOR},
    "smoothed": {"label_smoothing": 0.1, "lambda_fe": 0.4},
    "attention": {"instrument": "attention"},
    "attention to all": {"instrument": "attention", "attention_keys": "all", "num_heads": 2},
    "no instrument": {"instrument": "none"},
    "no instrument, gradient": {"instrument": "none", "counterfactual": "gradient", "num_steps": 5},
    "no instrument, minimal": {"instrument": "none", "counterfactual": "minimal", "num_steps": 2},
}


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_terms_risks_and_gradients(case, missing):
    """Every term and 0/1 risk to 1e-5, all gradients to 1e-4."""
    inputs, present, labels = batch(1, missing)
    params = weights(2)
    key = jax.random.key(3)
    (loss, terms), gradient = compiled(C3RConfig.hinge(**CASES[case]))(params, inputs, present, labels, key)
    partners = partners_of(labels, key)
    expected, expected_terms, expected_gradient = in_torch(
        params, inputs, present, labels, torch_c3r.Settings(**CASES[case]), partners
    )
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
    for name in TERMS:
        np.testing.assert_allclose(getattr(terms, name), getattr(expected_terms, name).item(), rtol=1e-5, atol=1e-5)
    for name, value in expected_terms.risk.items():
        np.testing.assert_allclose(getattr(terms.risk, name), value.item(), rtol=1e-5, atol=1e-5)
    for name in ("z", "z_c", "z_bar"):
        np.testing.assert_allclose(getattr(terms, name), getattr(expected_terms, name).detach(), rtol=1e-4, atol=1e-5)
    for name, value in expected_gradient.items():
        np.testing.assert_allclose(gradient[name], value, rtol=1e-4, atol=1e-4 * float(value.abs().max()))
        assert float(value.abs().max()) > 1e-4


def twin(config):
    encoders = {name: FeatureEncoder(DIM, (10,)) for name in NAMES}
    return TwinNetwork(encoders, MaskedMean(), nn.Dense(CLASSES), config, DIM)


@pytest.mark.parametrize(
    "settings",
    [{}, {"instrument": "attention"}, {"counterfactual": "gradient"}],
    ids=["default", "attention", "gradient"],
)
def test_a_hundred_steps(settings):
    """Adam on the same batches: losses to 1e-3, equal accuracy, and the weights go both ways with equal logits."""
    config = C3RConfig.hinge(**settings, lambda_n=1.0)
    model = twin(config)
    batches = [batch(100 + k, True) for k in range(5)]
    inputs, present, labels = batches[0]
    params = model.init(jax.random.key(0), inputs, present)["params"]
    other = TorchTwin(dict.fromkeys(NAMES, 8), (10,), DIM, CLASSES)
    other.load_state_dict(to_state_dict(params))

    adam = optax.adam(3e-3)

    @jax.jit
    def step(params, state, inputs, present, labels):
        def objective(params):
            run = functools.partial(apply, model, {"params": params})
            h = run(model.encode, inputs, present)
            predict, fuse = functools.partial(run, model.predict), functools.partial(run, model.fuse)
            return c3r_loss(predict, fuse, h, labels, config=config, present=present)[0]

        loss, gradient = jax.value_and_grad(objective)(params)
        updates, state = adam.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    state = adam.init(params)
    torch_adam = torch.optim.Adam(other.parameters(), lr=3e-3)
    ours, theirs = [], []
    for k in range(100):
        inputs, present, labels = batches[k % len(batches)]
        params, state, loss = step(params, state, inputs, present, labels)
        ours.append(float(loss))
        torch_adam.zero_grad()
        expected, _ = torch_c3r.c3r_loss(
            other.head,
            other.fuse,
            other.encode({name: torch.tensor(value) for name, value in inputs.items()}),
            torch.tensor(labels),
            torch_c3r.Settings(**settings, lambda_n=1.0),
            present=torch.tensor(present),
        )
        expected.backward()
        torch_adam.step()
        theirs.append(expected.item())
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    assert ours[-1] < 0.9 * ours[0]

    inputs, present, labels = batch(7, False)
    logits = model.apply({"params": params}, inputs, present)
    tensors = {name: torch.tensor(value) for name, value in inputs.items()}
    with torch.no_grad():
        trained_there = other(tensors, torch.tensor(present)).numpy()
    np.testing.assert_array_equal(logits.argmax(1), trained_there.argmax(1))
    back = to_params(other.state_dict())
    assert jax.tree.structure(back) == jax.tree.structure(jax.tree.map(np.asarray, params))
    np.testing.assert_allclose(model.apply({"params": back}, inputs, present), trained_there, rtol=1e-5, atol=1e-5)
    other.load_state_dict(to_state_dict(params))
    with torch.no_grad():
        np.testing.assert_allclose(other(tensors, torch.tensor(present)), logits, rtol=1e-5, atol=1e-5)
