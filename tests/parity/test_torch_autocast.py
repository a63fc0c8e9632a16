"""Mixed precision: features in bfloat16, and torch.autocast around everything."""

import pytest
import torch
from torch import nn

from c3r_jax.torch import C3RConfig, c3r_loss, counterfactual, first_stage, held_out_share

pytestmark = pytest.mark.torch


@pytest.fixture
def parts():
    """Encoders, a head, and inputs that share a cause."""
    torch.manual_seed(0)
    cause = torch.randn(64, 6)
    inputs = {name: cause + 0.5 * torch.randn(64, 6) for name in ("image", "text")}
    encoders = nn.ModuleDict({name: nn.Linear(6, 4) for name in inputs})
    return encoders, nn.Linear(4, 3), inputs, cause[:, :3].argmax(1)


def fuse(h, present):
    return (h["image"] * present[:, [0]] + h["text"] * present[:, [1]]) / present.sum(1, keepdim=True).clamp(min=1)


def run(parts, config):
    encoders, head, inputs, labels = parts
    seen = []

    def predict(z):
        logits = head(z)
        seen.append(logits.dtype)
        return logits

    loss, terms = c3r_loss(predict, fuse, {n: e(inputs[n]) for n, e in encoders.items()}, labels, config=config)
    loss.backward()
    gradients = [parameter.grad.clone() for part in (encoders, head) for parameter in part.parameters()]
    for part in (encoders, head):
        part.zero_grad()
    return loss.detach(), terms, gradients, set(seen)


@pytest.mark.parametrize(
    "preset", [C3RConfig(), C3RConfig.strong(cap=0.5), C3RConfig.paper()], ids=["default", "strong", "paper"]
)
def test_under_autocast_the_model_is_in_bfloat16_and_the_algebra_is_not(parts, preset):
    expected, wide, gradients, seen = run(parts, preset)
    assert seen == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        loss, terms, rough, seen = run(parts, preset)
    assert seen == {torch.bfloat16} == {terms.logits.dtype}
    assert {x.dtype for x in (loss, *terms[:5], *terms.risk, *terms.moments)} == {torch.float32}
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0.02)
    torch.testing.assert_close(terms.relevance, wide.relevance, rtol=0.02, atol=0.02)
    for found, wanted in zip(rough, gradients, strict=True):
        assert found.dtype == torch.float32
        assert (found - wanted).norm() < 0.1 * wanted.norm() + 0.01


def test_a_model_in_bfloat16(parts):
    encoders, head, inputs, labels = parts
    parts = encoders.bfloat16(), head.bfloat16(), {name: x.bfloat16() for name, x in inputs.items()}, labels
    loss, terms, gradients, _ = run(parts, C3RConfig())
    assert loss.dtype == terms.moments.cov.dtype == torch.float32 and terms.z_bar.dtype == torch.bfloat16
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


def test_the_parts_alone(parts):
    """First stage and counterfactual keep their precision under autocast."""
    _, head, inputs, labels = parts
    expected = first_stage(inputs["text"], inputs["image"])
    z = inputs["image"][:, :4]
    moved = counterfactual(head, z, labels)
    with torch.autocast("cpu", torch.bfloat16):
        stage = first_stage(inputs["text"], inputs["image"])
        again = counterfactual(head, z, labels)
    torch.testing.assert_close(stage.fitted, expected.fitted)
    assert again.dtype == torch.float32
    assert 0 < (again - moved).abs().max() < 0.1  # the head alone was in bfloat16


def test_the_share_of_held_out_rows(parts):
    """Under autocast as without it, up to what the model says in bfloat16."""
    _, head, inputs, labels = parts
    features = {name: x[:, :4] for name, x in inputs.items()}
    moments = c3r_loss(head, fuse, features, labels)[1].moments

    def share():
        return held_out_share(lambda z: 5 * z[:, :3], fuse, features, labels, moments)

    expected = share()
    with torch.autocast("cpu", torch.bfloat16):
        found = share()
    assert found.dtype == torch.float32 and expected > 0.05
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)


def test_float16_with_a_scaled_loss(parts):
    """GradScaler begins at 65536, beyond float16; the gradient of features is not."""
    encoders, head, inputs, labels = parts
    with torch.autocast("cpu", torch.float16):
        loss, _ = c3r_loss(head, fuse, {n: e(inputs[n]) for n, e in encoders.items()}, labels, explained=1.0)
    (65536 * loss).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for part in (encoders, head) for p in part.parameters())
