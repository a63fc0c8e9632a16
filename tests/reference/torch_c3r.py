"""C3R in PyTorch, written from the formulas of docs/method.md: what a PyTorch user compares this package with.

It shares no code with the package. Everything is eager autograd on plain tensors, any float dtype; batches are whole
(no devices), and ``present`` has its columns in the sorted order of the modalities' names.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

Tensor = torch.Tensor
Predict = Callable[[Tensor], Tensor]
Fuse = Callable[[Mapping[str, Tensor], Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Weights and modes, by the names of ``c3r_jax.C3RConfig``."""

    w_task: float = 1.0
    lambda_s: float = 0.3
    lambda_n: float = 3.0
    lambda_v: float = 4.0
    lambda_fe: float = 0.0
    ridge: float = 1e-2
    instrument: str = "two_stage"
    counterfactual: str = "removal"
    necessity: str = "hinge"
    step_size: float = 0.5
    num_steps: int = 1
    prior: tuple[float, ...] | None = None
    num_heads: int = 1
    attention_keys: str = "others"
    label_smoothing: float = 0.0


@dataclasses.dataclass(frozen=True)
class Terms:
    """Each term before its weight, the 0/1 risks, and the representations."""

    task: Tensor
    sufficiency: Tensor
    necessity: Tensor
    relevance: Tensor
    closeness: Tensor
    risk: dict[str, Tensor]
    z: Tensor
    z_c: Tensor
    z_bar: Tensor


def sufficiency_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy per example."""
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)


def necessity_loss(logits: Tensor, labels: Tensor, kind: str, prior: tuple[float, ...] | None = None) -> Tensor:
    """Hinge, log or KL(prior || p) per example, of the hypothetical world's logits."""
    log_p = torch.log_softmax(logits, dim=1)
    if kind == "hinge":
        return F.relu(log_p.gather(1, labels[:, None])[:, 0] + math.log(logits.shape[1]))
    if kind == "log":
        return F.softplus(-log_odds_against(logits, labels))
    shares = torch.tensor(prior, dtype=logits.dtype)
    return (torch.xlogy(shares, shares)[None] - shares[None] * log_p).sum(1)


def log_odds_against(logits: Tensor, labels: Tensor) -> Tensor:
    """logsumexp of the other classes' logits, less the label's."""
    own = labels[:, None] == torch.arange(logits.shape[1])
    others = torch.logsumexp(logits.masked_fill(own, -math.inf), dim=1)
    return others - logits.gather(1, labels[:, None])[:, 0]


def c3_risk(logits: Tensor, hypothetical: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """0/1 risks of both branches, and the interval they leave for C3."""
    right, told = logits.argmax(1) == labels, hypothetical.argmax(1) == labels
    sufficiency, necessity = 1 - right.to(logits.dtype).mean(), told.to(logits.dtype).mean()
    return {
        "sufficiency": sufficiency,
        "necessity": necessity,
        "total": sufficiency + necessity,
        "lower": (1 - sufficiency - necessity).clamp(min=0),
        "upper": torch.minimum(1 - sufficiency, 1 - necessity),
        "joint": (right & ~told).to(logits.dtype).mean(),
    }


def _centred(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over some rows, and what they differ from it by; 0 in the other rows."""
    mean = (x * rows[:, None]).sum(0) / rows.sum()
    return mean, (x - mean) * rows[:, None]


def two_stage(features: Mapping[str, Tensor], present: Tensor, fuse: Fuse, ridge: float) -> tuple[Tensor, Tensor]:
    """z_c by ridge regression of each modality on the others, and L_v = mean of 1 - R^2."""
    names = sorted(features)
    complete = present.all(1)  # the fit uses the rows that have every modality
    count = complete.sum()
    h_hat, unexplained = {}, []
    for name in names:
        others = [other for other in names if other != name]
        v, h = torch.cat([features[other] for other in others], dim=1), features[name]
        mean_v, centred_v = _centred(v, complete)
        mean_h, centred_h = _centred(h, complete)
        cov = centred_v.T @ centred_v / count
        penalty = ridge * torch.trace(cov) / cov.shape[0] * torch.eye(cov.shape[0], dtype=cov.dtype)
        coef = torch.linalg.solve(cov + penalty, centred_v.T @ centred_h / count)
        residual = centred_h - centred_v @ coef
        unexplained.append(residual.square().sum(0) / centred_h.square().sum(0))
        # An absent block of the instrument counts as its mean.
        means = dict(zip(others, mean_v.split([features[other].shape[1] for other in others]), strict=True))
        filled = [
            torch.where(present[:, names.index(other), None], features[other], means[other][None]) for other in others
        ]
        h_hat[name] = mean_h + (torch.cat(filled, dim=1) - mean_v) @ coef
    others_present = (present.sum(1, keepdim=True) - present.long()) > 0
    return fuse(h_hat, others_present), torch.cat(unexplained).mean()


def attention(
    features: Mapping[str, Tensor], present: Tensor, z: Tensor, num_heads: int, keys: str
) -> tuple[Tensor, Tensor]:
    """z_c = attention over the modality tokens, brought to the scale of z; L_v = KL(softmax z || softmax v)."""
    tokens = torch.stack([features[name] for name in sorted(features)], dim=1)
    batch, count, dim = tokens.shape
    split = tokens.reshape(batch, count, num_heads, dim // num_heads).transpose(1, 2)
    scores = split @ split.transpose(2, 3) / math.sqrt(dim // num_heads)
    visible = present[:, None, :].expand(batch, count, count)
    if keys == "others":
        visible = visible & ~torch.eye(count, dtype=torch.bool)
    has_key = visible.any(2)
    # Rows without any key are computed as if all were visible and then left out, so that softmax has no empty set.
    weights = torch.softmax(scores.masked_fill(~(visible | ~has_key[..., None])[:, None], -math.inf), dim=3)
    attended = (weights @ split).transpose(1, 2).reshape(batch, count, dim)
    used = has_key.sum(1)
    v = (attended * has_key[..., None]).sum(1) / used.clamp(min=1)[:, None]
    rows = used > 0
    _, centred_v = _centred(v, rows)
    mean_z, centred_z = _centred(z, rows)
    slope = (centred_v * centred_z).sum(0) / centred_v.square().sum(0)
    log_p, log_q = torch.log_softmax(z, 1), torch.log_softmax(v, 1)
    relevance = ((log_p.exp() * (log_p - log_q)).sum(1) * rows).sum() / rows.sum()
    return mean_z + slope * centred_v, relevance


def _direction(predict: Predict, at: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log-odds against the label and each row's gradient of them, differentiable once more."""

    def total(point: Tensor) -> tuple[Tensor, Tensor]:
        odds = log_odds_against(predict(point), labels)
        return odds.sum(), odds

    gradient, odds = torch.func.grad(total, has_aux=True)(at)
    return odds, gradient


def counterfactual(
    predict: Predict,
    z: Tensor,
    labels: Tensor,
    settings: Settings,
    z_c: Tensor | None = None,
    partners: Tensor | None = None,
) -> Tensor:
    """z in the hypothetical world; ``partners`` (B,) are the rows that "permute" gives."""
    mode, start = settings.counterfactual, z if z_c is None else z_c
    if mode == "mean":
        return z.mean(0, keepdim=True).expand_as(z)
    if mode == "instrumented":
        return z - start + start.mean(0, keepdim=True)
    if mode == "permute":
        return z[partners]
    rms = z.detach().square().sum(1).mean().sqrt()
    changed = z if mode == "gradient" else start
    centre = start.mean(0, keepdim=True)
    for _ in range(settings.num_steps):
        odds, gradient = _direction(predict, changed, labels)
        unit = F.normalize(gradient, dim=1, eps=0)
        if mode == "gradient":
            changed = changed + settings.step_size / settings.num_steps * rms * unit
        elif mode == "removal":
            towards = ((changed - centre) * unit).sum(1, keepdim=True).clamp(max=0)
            changed = changed - towards * unit
        else:
            classes = predict(changed).shape[1]
            step = F.relu(-odds + math.log(classes - 1)) / gradient.square().sum(1)
            changed = changed + step[:, None] * gradient
    return changed if mode == "gradient" else z - start + changed


def c3r_loss(
    predict: Predict,
    fuse: Fuse,
    features: Mapping[str, Tensor],
    labels: Tensor,
    settings: Settings,
    *,
    present: Tensor | None = None,
    partners: Tensor | None = None,
) -> tuple[Tensor, Terms]:
    """The C3R objective of one batch and its terms."""
    names = sorted(features)
    if present is None:
        present = torch.ones(len(labels), len(names), dtype=torch.bool)
    features = {name: features[name] * present[:, m, None] for m, name in enumerate(names)}
    z = fuse(features, present)
    if settings.instrument == "two_stage":
        z_c, relevance = two_stage(features, present, fuse, settings.ridge)
    elif settings.instrument == "attention":
        z_c, relevance = attention(features, present, z, settings.num_heads, settings.attention_keys)
    else:
        z_c, relevance = z, z.new_zeros(())
    start = None if settings.instrument == "none" else z_c
    z_bar = counterfactual(predict, z, labels, settings, start, partners)
    causal, hypothetical = predict(z_c), predict(z_bar)
    closeness = (z_bar - z).square().sum(1).mean() / z.detach().square().sum(1).mean()
    terms = Terms(
        task=sufficiency_loss(predict(z), labels, settings.label_smoothing).mean(),
        sufficiency=sufficiency_loss(causal, labels, settings.label_smoothing).mean(),
        necessity=necessity_loss(hypothetical, labels, settings.necessity, settings.prior).mean(),
        relevance=relevance,
        closeness=closeness,
        risk=c3_risk(causal, hypothetical, labels),
        z=z,
        z_c=z_c,
        z_bar=z_bar,
    )
    loss = (
        settings.w_task * terms.task
        + settings.lambda_s * terms.sufficiency
        + settings.lambda_n * terms.necessity
        + settings.lambda_v * terms.relevance
        + settings.lambda_fe * terms.closeness
    )
    return loss, terms
