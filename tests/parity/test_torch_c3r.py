"""The same weights and batches in c3r_jax and c3r_jax.torch: loss, terms, risks, gradients, training, weights."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import c3r_jax
import c3r_jax.torch as c3r_torch
from c3r_jax.core.moments import Moments
from c3r_jax.models.encoders.features import FeatureEncoder
from c3r_jax.models.fusion.representations import MaskedMean
from c3r_jax.models.twin import TwinNetwork, apply
from c3r_jax.torch import counterfactual_modes
from tests.reference.torch_twin import TorchTwin, to_params, to_state_dict

pytestmark = pytest.mark.torch
NAMES = ("audio", "image", "text")
BATCH, DIM, CLASSES = 72, 4, 3
TERMS = ("task", "sufficiency", "necessity", "relevance", "closeness", "label_probability", "explained")
WIDTHS = dict.fromkeys(NAMES, DIM)
PRIOR = (0.5, 0.3, 0.2)


def batch(seed, missing):
    """Inputs that share a cause and have cues of their own, which modalities are there, rows that count, labels."""
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=(BATCH, 3))
    labels = (cause @ rng.normal(size=(3, CLASSES)) + 0.3 * rng.normal(size=(BATCH, CLASSES))).argmax(1)
    inputs = {}
    for name in NAMES:
        cue = np.eye(CLASSES)[np.where(rng.random(BATCH) < 0.6, labels, rng.integers(0, CLASSES, BATCH))]
        inputs[name] = np.tanh(cause @ rng.normal(size=(3, 6))) + 0.4 * rng.normal(size=(BATCH, 6))
        inputs[name][:, :CLASSES] += cue
    present, where = np.ones((BATCH, len(NAMES)), bool), np.ones(BATCH, bool)
    if missing:
        present = rng.random((BATCH, len(NAMES))) < 0.8
        present[:, 1] |= ~present.any(1)
        where = rng.random(BATCH) < 0.9
        inputs["image"][~where] = 50.0  # excluded rows may hold anything
        labels[~where] = -1
    return inputs, present, where, labels


def weights(seed, widths=WIDTHS):
    rng = np.random.default_rng(seed)
    params = {name: 0.5 * rng.normal(size=(6, width)) for name, width in widths.items()}
    mixes = {f"mix_{name}": np.eye(width, DIM) + 0.2 * rng.normal(size=(width, DIM)) for name, width in widths.items()}
    head = {"hidden": rng.normal(size=(DIM, 5)) / DIM**0.5, "out": rng.normal(size=(5, CLASSES))}
    return params | mixes | head


def of(library, params, inputs):
    """Encoded inputs, predict and fuse, each with parameters; what is called is the same in both libraries."""
    names = [name for name in NAMES if name in params]

    def fuse(h, present):
        total = sum((h[name] @ params[f"mix_{name}"]) * present[:, m, None] for m, name in enumerate(names))
        return total / present.sum(1)[:, None].clip(1)

    features = {name: library.tanh(inputs[name] @ params[name]) for name in names}
    return lambda z: library.tanh(z @ params["hidden"]) @ params["out"], fuse, features


@functools.lru_cache(maxsize=1)
def compiled(config):
    def objective(params, inputs, present, where, labels, key, weights=None):
        more = {"config": config, "present": present, "where": where, "key": key, "weights": weights}
        return c3r_jax.c3r_loss(*of(jnp, params, inputs), labels, **more)

    return jax.jit(jax.value_and_grad(objective, has_aux=True))


def in_torch(config, params, inputs, present, where, labels, **more):
    params = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
    inputs = {name: torch.tensor(value) for name, value in inputs.items()}
    more |= {"config": config, "present": torch.tensor(present), "where": torch.tensor(where)}
    loss, terms = c3r_torch.c3r_loss(*of(torch, params, inputs), torch.tensor(labels), **more)
    loss.backward()
    return loss, terms, {name: value.grad for name, value in params.items()}


def same(found, expected, tolerance=1e-7):
    np.testing.assert_allclose(
        found.detach(),
        expected,
        rtol=tolerance,
        atol=tolerance * max(1.0, float(np.abs(np.nan_to_num(expected)).max())),
    )


CASES = {
    "default": ("C3RConfig", {}),
    "strong": ("strong", {}),
    "hinge": ("hinge", {}),
    "paper": ("paper", {}),
    "minimal, log": ("C3RConfig", {"counterfactual": "minimal", "necessity": "log", "subsets": 0.0}),
    "gradient, kl": ("hinge", {"counterfactual": "gradient", "necessity": "kl", "prior": PRIOR, "num_steps": 2}),
    "instrumented": ("C3RConfig", {"counterfactual": "instrumented", "necessity": "hinge", "label_smoothing": 0.1}),
    "through fuse": ("hinge", {"counterfactual": "instrumented", "through_fuse": True, "stage_rows": "available"}),
    "mean": ("C3RConfig", {"counterfactual": "mean", "lambda_fe": 0.4, "strength": 0.5}),
    "permute": ("C3RConfig", {"counterfactual": "permute", "cap": 0.0, "subsets": 0.0}),
    "attention to all": ("C3RConfig", {"instrument": "attention", "attention_keys": "all", "num_heads": 2}),
    "no instrument": ("hinge", {"instrument": "none", "num_steps": 2}),
    "shuffled, constants": ("hinge", {"shuffled": True, "stop_gradient": True, "stage_rows": "available"}),
}


@pytest.fixture
def with_draws(monkeypatch):
    """Counterfactual "permute" draws in PyTorch what it draws in JAX for a key."""

    def use(key):
        draws = torch.tensor(np.asarray(jax.random.uniform(key, (BATCH,))))
        monkeypatch.setattr(counterfactual_modes, "uniform", lambda count, generator: draws[:count])
        return {"generator": torch.Generator()}

    return use


@pytest.mark.parametrize("case", CASES)
def test_loss_terms_risks_and_gradients(case, with_draws):
    """In float64: every number and all gradients to 1e-7, with all rows and modalities and with some."""
    preset, changes = CASES[case]
    config, theirs = (getattr(of.C3RConfig, preset, of.C3RConfig)(**changes) for of in (c3r_jax, c3r_torch))
    params = weights(2)
    with jax.enable_x64(True):
        key = jax.random.key(3)
        for missing in (False, True):
            inputs, present, where, labels = batch(1, missing)
            (expected, expected_terms), expected_gradient = compiled(config)(
                params, inputs, present, where, labels, key
            )
            loss, terms, gradient = in_torch(theirs, params, inputs, present, where, labels, **with_draws(key))
            compare(loss, terms, gradient, expected, expected_terms, expected_gradient)
    assert float(expected_terms.risk.sufficiency) > 0


WEIGHTED = ("strong", "attention to all", "shuffled, constants")


@pytest.mark.parametrize("case", WEIGHTED)
def test_weights_of_rows(case, with_draws):
    """Class weights times fractions; a weight of 0 leaves its row out, whatever the row holds."""
    preset, changes = CASES[case]
    config, theirs = (getattr(of.C3RConfig, preset, of.C3RConfig)(**changes) for of in (c3r_jax, c3r_torch))
    inputs, present, where, labels = batch(1, True)
    rng = np.random.default_rng(4)
    rows = np.array([0.4, 1.0, 1.9])[labels] * rng.uniform(0.5, 1.5, BATCH)
    rows[np.flatnonzero(where)[:3]] = 0
    inputs["text"][np.flatnonzero(where)[:3]] = 50.0
    rows[~where] = np.nan
    params = weights(2)
    with jax.enable_x64(True):
        key = jax.random.key(3)
        (expected, expected_terms), expected_gradient = compiled(config)(
            params, inputs, present, where, labels, key, rows
        )
        more = {"weights": torch.tensor(rows), **with_draws(key)}
        found = in_torch(theirs, params, inputs, present, where, labels, **more)
        compare(*found, expected, expected_terms, expected_gradient)


def test_a_weight_of_two_is_the_row_twice():
    """For everything but a row's own share in what leaves it out: so without experts."""
    config = c3r_torch.C3RConfig()
    inputs, present, where, labels = batch(1, True)
    twice = np.concatenate([np.arange(BATCH), np.flatnonzero(labels == 1)])
    more = {"weights": torch.tensor([1, 2, 1])[torch.tensor(labels)]}
    loss, terms, gradient = in_torch(config, weights(2), inputs, present, where, labels, **more)
    repeated = ({k: x[twice] for k, x in inputs.items()}, present[twice], where[twice], labels[twice])
    expected, expected_terms, expected_gradient = in_torch(config, weights(2), *repeated)
    same(loss, expected.detach().numpy())
    same(terms.cap.scale, expected_terms.cap.scale.numpy())
    for name, value in expected_gradient.items():
        same(gradient[name], value.numpy())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (torch.ones(3), r"weights have shape \(3,\)"),
        (torch.ones(BATCH, dtype=torch.bool), "dtype torch.bool"),
        (-torch.ones(BATCH), r"weights\[0\] is -1.0, but a finite number >= 0"),
        (torch.full((BATCH,), torch.nan), r"weights\[0\] is nan"),
    ],
)
def test_weights_that_cannot_be_are_named(wrong, words):
    inputs, present, where, labels = batch(1, False)
    with pytest.raises(ValueError, match=words):
        in_torch(c3r_torch.C3RConfig(), weights(2), inputs, present, where, labels, weights=wrong)


def compare(loss, terms, gradient, expected, expected_terms, expected_gradient):
    same(loss, expected)
    # PyTorch refuses labels that are no class, which jax.jit can only count.
    assert terms._fields == tuple(name for name in expected_terms._fields if name != "invalid_labels")
    for name in (*TERMS, "logits", "z", "z_c", "z_bar"):
        value = getattr(expected_terms, name)
        assert (value is None) == (getattr(terms, name) is None), name
        if value is not None:
            same(getattr(terms, name), value)
    for part in ("risk", "moments", "cap"):
        for name, value in (getattr(expected_terms, part) or expected_terms.risk)._asdict().items():
            same(getattr(getattr(terms, part) or terms.risk, name), value)
    for part in ("first_stage", "experts", "rows"):
        found, wanted = (
            jax.tree.leaves_with_path(tree if tree is None else {name: _plain(value) for name, value in tree.items()})
            for tree in (getattr(terms, part), getattr(expected_terms, part))
        )
        assert [path for path, _ in found] == [path for path, _ in wanted]
        for (_, value), (_, other) in zip(found, wanted, strict=True):
            same(value, other, 1e-6)
    for name, value in expected_gradient.items():
        same(gradient[name], value)
        assert float(jnp.abs(value).max()) > 1e-5


def _plain(value):
    """Named tuples as dicts, so that those of two libraries are one tree."""
    return {k: _plain(v) for k, v in value._asdict().items()} if hasattr(value, "_asdict") else value


def test_two_modalities_of_unequal_width_in_float32():
    """The dtype that people train in: loss and terms to 1e-5, gradients to 1e-4 of the largest."""
    inputs, present, where, labels = batch(1, True)
    inputs = {name: inputs[name].astype(np.float32) for name in ("audio", "text")}
    params = {name: x.astype(np.float32) for name, x in weights(2, {"audio": 3, "text": 5}).items()}
    present = present[:, [0, 2]] | ~present[:, [0, 2]].any(1, keepdims=True)
    arguments = params, inputs, present, where, labels
    (expected, expected_terms), expected_gradient = compiled(c3r_jax.C3RConfig())(*arguments, jax.random.key(3))
    loss, terms, gradient = in_torch(c3r_torch.C3RConfig(), *arguments)
    same(loss, expected, 1e-5)
    for name in TERMS:
        same(getattr(terms, name), getattr(expected_terms, name), 1e-5)
    for name, value in expected_gradient.items():
        np.testing.assert_allclose(gradient[name], value, rtol=1e-4, atol=1e-4 * float(jnp.abs(value).max()))


def test_moments_and_evidence_of_other_batches():
    """Accumulated moments and experts that were computed elsewhere are used as they are in JAX."""
    changes = {"expert": 0.5, "cap": 0.5, "subsets": 0.0, "counterfactual": "mean"}
    params, rng = weights(2), np.random.default_rng(0)
    evidence = {name: rng.normal(size=(BATCH, CLASSES)) for name in NAMES}
    before = in_torch(c3r_torch.C3RConfig(), params, *batch(5, True))[1].moments
    inputs, present, where, labels = batch(1, True)
    more = {"moments": before, "evidence": {name: torch.tensor(value) for name, value in evidence.items()}}
    config = c3r_torch.C3RConfig(**changes)
    loss, terms, _ = in_torch(config, params, inputs, present, where, labels, **more)
    with jax.enable_x64(True):
        predict, fuse, h = of(jnp, params, inputs)
        more = {"moments": Moments(*(value.numpy() for value in before)), "present": present, "where": where}
        config = c3r_jax.C3RConfig(**changes)
        objective = jax.jit(functools.partial(c3r_jax.c3r_loss, predict, fuse, config=config))
        expected, expected_terms = objective(h, labels, evidence=evidence, **more)
    same(loss, expected)
    for name in TERMS:
        same(getattr(terms, name), getattr(expected_terms, name))


def twin(config):
    encoders = {name: FeatureEncoder(DIM, (10,)) for name in NAMES}
    return TwinNetwork(encoders, MaskedMean(), nn.Dense(CLASSES), config, DIM)


@pytest.mark.parametrize("preset", ["C3RConfig", "paper"])
def test_sixty_steps(preset):
    """Adam on the same batches: losses to 1e-3, equal predictions, and the weights go both ways with equal logits."""
    config, theirs_config = (getattr(of.C3RConfig, preset, of.C3RConfig)(lambda_n=1.0) for of in (c3r_jax, c3r_torch))
    model = twin(config)
    batches = []
    for k in range(5):
        inputs, present, _, labels = batch(100 + k, True)
        batches.append(({name: np.nan_to_num(x).astype(np.float32) for name, x in inputs.items()}, present, labels % 3))
    params = model.init(jax.random.key(0), *batches[0][:2])["params"]
    other = TorchTwin(dict.fromkeys(NAMES, 6), (10,), DIM, CLASSES)
    other.load_state_dict(to_state_dict(params))
    adam = optax.adam(3e-3)

    @jax.jit
    def step(params, state, inputs, present, labels):
        def objective(params):
            run = functools.partial(apply, model, {"params": params})
            h = run(model.encode, inputs, present)
            predict, fuse = functools.partial(run, model.predict), functools.partial(run, model.fuse)
            return c3r_jax.c3r_loss(predict, fuse, h, labels, config=config, present=present)[0]

        loss, gradient = jax.value_and_grad(objective)(params)
        updates, state = adam.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    state = adam.init(params)
    torch_adam = torch.optim.Adam(other.parameters(), lr=3e-3)
    ours, theirs = [], []
    for k in range(60):
        inputs, present, labels = batches[k % len(batches)]
        params, state, loss = step(params, state, inputs, present, labels)
        ours.append(float(loss))
        torch_adam.zero_grad()
        h = other.encode({name: torch.tensor(value) for name, value in inputs.items()})
        more = {"config": theirs_config, "present": torch.tensor(present)}
        expected, _ = c3r_torch.c3r_loss(other.head, other.fuse, h, torch.tensor(labels), **more)
        expected.backward()
        torch_adam.step()
        theirs.append(expected.item())
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    assert ours[-1] < 0.9 * ours[0]

    inputs, present, _, _ = batch(7, False)
    inputs = {name: value.astype(np.float32) for name, value in inputs.items()}
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


def test_the_share_of_held_out_rows_and_the_gate_that_it_is():
    with jax.enable_x64(True):
        inputs, present, where, labels = batch(0, True)
        params = weights(1)
        training = dict(zip(("present", "where"), (present, where), strict=True))
        in_jax = of(jnp, jax.tree.map(jnp.asarray, params), inputs)
        moments = c3r_jax.c3r_loss(*in_jax, jnp.asarray(labels), **jax.tree.map(jnp.asarray, training))[1].moments
        arrays = jax.tree.map(torch.tensor, (params, inputs))
        of_torch = of(torch, *arrays)
        masks = jax.tree.map(torch.tensor, training)
        same_moments = c3r_torch.c3r_loss(*of_torch, torch.tensor(labels), **masks)[1].moments
        held, has, counts, of_held = batch(2, True)
        more = dict(zip(("present", "where"), (has, counts), strict=True))
        predict, fuse, h = of(jnp, jax.tree.map(jnp.asarray, params), held)
        expected = c3r_jax.held_out_share(
            predict, fuse, h, jnp.asarray(of_held), moments, **jax.tree.map(jnp.asarray, more)
        )
        predict, fuse, h = of(torch, arrays[0], jax.tree.map(torch.tensor, held))
        found = c3r_torch.held_out_share(
            predict, fuse, h, torch.tensor(of_held), same_moments, **jax.tree.map(torch.tensor, more)
        )
        same(found, expected)
        bound = {"explained": 0.01}
        in_both = (
            c3r_torch.c3r_loss(*of_torch, torch.tensor(labels), **masks, **bound)[1].task,
            c3r_jax.c3r_loss(*in_jax, jnp.asarray(labels), **jax.tree.map(jnp.asarray, training), **bound)[1].task,
        )
        same(*in_both)
