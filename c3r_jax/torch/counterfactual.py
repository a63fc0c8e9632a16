"""The hypothetical world: z with its causal part changed or removed, by autograd and plain algebra on z."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from c3r_jax.torch.autocast import without_autocast
from c3r_jax.torch.batch import (
    Where,
    check_counts,
    check_float,
    expand,
    global_count,
    keep,
    mask_of,
    not_zero,
    promote,
    weigh,
)
from c3r_jax.torch.calls import differentiating, predict_of
from c3r_jax.torch.classification import CLASSIFICATION
from c3r_jax.torch.counterfactual_modes import MODES, Problem, rms
from c3r_jax.torch.eager import eager
from c3r_jax.torch.inference import outside_inference
from c3r_jax.torch.processes import Group, global_sum
from c3r_jax.torch.task import Task, valid_labels

Predict = Callable[[Float[Tensor, "batch features"]], Float[Tensor, "batch classes"]]


@eager
@outside_inference
def counterfactual(
    predict: Predict,
    z: Float[Tensor, "batch features"],
    labels: Num[Tensor, "batch ..."],
    *,
    mode: str = "projection",
    step_size: float = 0.5,
    num_steps: int = 1,
    z_c: Float[Tensor, "batch features"] | None = None,
    where: Where | None = None,
    group: Group | None = None,
    generator: torch.Generator | None = None,
    ball: float | None = None,
    task: Task = CLASSIFICATION,
) -> Float[Tensor, "batch features"]:
    r"""Takes each representation to the hypothetical world, where its causal part says less of the label, or nothing.

    With u_i the unit gradient of example i's log-odds against its label, taken at the causal part c (``z_c``, or ``z``
    without one), and all means over the valid rows of the global batch:

    .. math::
       \text{projection:}\ & \bar z = z - c + a, \quad a = c - \langle c - \bar c, u \rangle\, u \\
       \text{removal:}\ & a = c - \min(0, \langle c - \bar c, u \rangle)\, u \quad \text{(what favours the label)} \\
       \text{minimal:}\ & a = c + \frac{[\log(K-1) - m]_+}{|g|^2}\, g, \quad m, g: \text{log-odds against, gradient} \\
       \text{gradient:}\ & \bar z = z + \text{step\_size} \cdot \text{rms}(z)\, u \quad \text{(ascends the loss)} \\
       \text{instrumented:}\ & \bar z = z - z_c + \bar z_c \quad (do(\text{causal part} := \text{its mean})) \\
       \text{mean:}\ & \bar z = \text{mean}(z) \qquad \text{permute: } z \text{ of a random row with another label}

    Derivatives flow through u (second order) and through the means; rms(z) is a constant. Under ``torch.no_grad`` the
    result is a constant; so it is under ``torch.inference_mode``.

    Args:
      predict: maps z (B, d) to logits (B, K), row by row; any function that can be differentiated twice.
      z: (B, d) representations.
      labels: (B,) class ids.
      mode: one of "projection", "removal", "gradient", "minimal", "instrumented", "mean", "permute".
      step_size: length of the "gradient" move, over all its steps, in units of rms(z); unused by the other modes.
      num_steps: repetitions with a fresh direction ("projection", "removal", "minimal", "gradient").
      z_c: (B, d) causal part; needed by "instrumented".
      where: (B,) bool, rows that count; other rows return z. None: all.
      group: process group over which the batch is split.
      generator: with the same seed in every process; needed by "permute".
      ball: largest |z_bar - z| in units of rms(z) for "gradient"; None: no bound.
      task: what outputs and labels mean.

    Returns:
      (B, d) z_bar in the dtype of z.

    Raises:
      ValueError: on an unknown mode, a missing ``z_c`` or ``generator``, arguments of the wrong shape, dtype or range,
        or a ``predict`` that cannot be differentiated.

    Examples:
      >>> z = torch.tensor([[1.0, 2.0], [-1.0, 0.0]])
      >>> predict = lambda z: z * torch.tensor([[1.0, 0.0]])  # only the first feature matters
      >>> counterfactual(predict, z, torch.tensor([0, 1])).detach()
      tensor([[0., 2.],
              [0., 0.]])

    References:
      Towards the Causal Complete Cause of Multi-Modal Representation Learning, arXiv 2407.14058.
    """
    z, labels, causal, where = _check(z, labels, mode, num_steps, step_size, z_c, where, generator, task)
    outside, dtype = predict_of(predict, z.device), z.dtype
    with without_autocast(z.device):
        wide = keep(where, promote(z))
        start = wide if causal is None else keep(where, promote(causal))

        def direction(at: Tensor) -> tuple[Tensor, Tensor]:
            return _excess_and_gradient(outside, at, labels, dtype, task)

        problem = Problem(wide, start, labels, where, direction, num_steps, step_size, ball, group, generator, task)
        return torch.where(expand(mask_of(where), z), MODES[mode](problem).to(dtype), z)


def _check(
    z: Any,
    labels: Any,
    mode: str,
    num_steps: Any,
    step_size: Any,
    z_c: Any,
    where: Any,
    generator: torch.Generator | None,
    task: Task,
) -> tuple[Tensor, Tensor, Tensor | None, Where]:
    if mode not in MODES:
        raise ValueError(f"counterfactual mode {mode!r} is unknown: expected one of {', '.join(MODES)}.")
    z = check_float("z", z, 2)
    where = check_counts(where, z.shape[0], z.device)
    labels = valid_labels(labels, mask_of(where), task)
    if z_c is not None:
        z_c = check_float("z_c", z_c, 2)
        if z_c.shape != z.shape:
            raise ValueError(f"z_c has shape {tuple(z_c.shape)}, but z has {tuple(z.shape)}: they must be equal.")
    elif mode == "instrumented":
        raise ValueError("counterfactual mode 'instrumented' needs z_c, the causal part of z, but it is None.")
    if mode == "permute" and generator is None:
        raise ValueError("counterfactual mode 'permute' needs generator, a torch.Generator, but it is None.")
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
        raise ValueError(f"num_steps is {num_steps!r}, but a whole number of at least 1 was expected.")
    if not step_size >= 0:
        raise ValueError(f"step_size is {step_size}, but a number >= 0 was expected.")
    return z, labels, z_c, where


def _excess_and_gradient(
    predict: Predict, at: Tensor, labels: Tensor, dtype: torch.dtype, task: Task
) -> tuple[Tensor, Tensor]:
    """How far each row's label is from being predicted (B,), relative to chance, and its gradient (B, d), at ``at``."""
    again = torch.is_grad_enabled()  # whether someone may differentiate the gradient
    with torch.enable_grad():
        if not (again and at.requires_grad):
            at = at.detach().requires_grad_()
        excess = task.excess(*task.check(predict(at.to(dtype)), labels))
        with differentiating():
            (gradient,) = torch.autograd.grad(excess.sum(), at, create_graph=again)
    return (excess, gradient) if again else (excess.detach(), gradient)


def closeness(
    z: Float[Tensor, "batch features"],
    z_bar: Float[Tensor, "batch features"],
    where: Where,
    group: Group | None,
) -> Float[Tensor, ""]:
    """L_fe = mean |z_bar - z|^2 / rms(z)^2 over the valid rows: how far the hypothetical world is (scale-free)."""
    z, z_bar = keep(where, promote(z)), keep(where, promote(z_bar))
    scale = rms(z, where, group).square()
    distance = global_sum(weigh(where, (z_bar - z).square().sum(1)).sum(), group)
    count = not_zero(global_count(where, group, z.dtype))
    return torch.where(scale > 0, distance / torch.where(scale > 0, scale, 1) / count, 0)
