"""The public code's formulas in both libraries: the same numbers, and each of its defects where it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from c3r_jax.methods.official import official_compat_loss
from tests.reference.torch_official import OfficialCompat

pytestmark = pytest.mark.torch
DIM, CLASSES, BATCH = 6, 4, 32


@pytest.fixture(scope="module")
def both():
    """Loss, terms and gradients (parameters, image, text) of both libraries."""
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(2, BATCH, DIM)).astype(np.float32)
    labels = rng.integers(0, CLASSES, BATCH)
    torch.manual_seed(0)
    model = OfficialCompat(DIM, CLASSES)
    params = {}
    for name, value in model.named_parameters():
        layer, part = name.split(".")
        kind = "kernel" if part == "weight" else "bias"
        params.setdefault(layer, {})[kind] = jnp.asarray(value.detach().numpy().T)
    run = jax.jit(jax.value_and_grad(official_compat_loss, argnums=(0, 1, 2), has_aux=True))
    (loss, terms), (gradient, *inputs) = run(params, image, text, labels)
    tensors = [torch.tensor(value, requires_grad=True) for value in (image, text)]
    expected, expected_terms = model(*tensors, torch.tensor(labels))
    expected.backward()
    theirs = {name: value.grad for name, value in model.named_parameters()}
    return loss, terms, gradient, inputs, expected, expected_terms, theirs, [tensor.grad for tensor in tensors]


def test_same_numbers(both):
    loss, terms, gradient, inputs, expected, expected_terms, theirs, their_inputs = both
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
    for name in ("task", "relevance", "closeness"):
        np.testing.assert_allclose(getattr(terms, name), getattr(expected_terms, name).item(), rtol=1e-5)
    for name, value in expected_terms.risk._asdict().items():
        np.testing.assert_allclose(getattr(terms.risk, name), value.item(), rtol=1e-5, atol=1e-6)
    for name, layer in gradient.items():
        for part, value in (("weight", layer["kernel"].T), ("bias", layer.get("bias"))):
            found = theirs.get(f"{name}.{part}")
            if value is not None:
                wanted = np.zeros(value.shape) if found is None else found.numpy()
                np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-6)
    for value, wanted in zip(inputs, their_inputs, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-6)


def test_defects_are_kept(both):
    """No gradient reaches the fusion; the counterfactual lowers the loss."""
    _, terms, gradient, _, _, _, theirs, _ = both
    assert not np.any(gradient["fusion"]["kernel"]) and theirs["fusion.weight"] is None
    assert float(terms.risk.necessity) >= 1 - float(terms.risk.sufficiency)  # predicted at least as often as before
