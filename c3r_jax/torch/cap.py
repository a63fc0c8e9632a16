"""A bound on what penalties may do: their gradient never exceeds the task's, so they can steer but not overrule it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from c3r_jax.torch.batch import Weighted, Where, expand, promote
from c3r_jax.torch.calls import differentiating
from c3r_jax.torch.processes import Group, global_sum, size

Losses = Callable[[dict[str, Tensor]], tuple[Tensor, Tensor, Any]]  # rows -> task, penalty, anything

LARGEST_SLOPE = 256  # leaves room for gradients of up to that length in float16


class Cap(NamedTuple):
    """How strong the penalties' gradient was, over the global batch (scalars).

    Attributes:
      scale: what it was multiplied by; below 1 where the cap was reached.
      limit: the cap, its largest length relative to the task's.
      task_norm: length of the task's gradient.
      penalty_norm: length of the penalties' gradient before it was scaled.
    """

    scale: Float[Tensor, ""]
    limit: Float[Tensor, ""]
    task_norm: Float[Tensor, ""]
    penalty_norm: Float[Tensor, ""]


def capped_loss(
    losses: Losses,
    rows: Mapping[str, Tensor],
    *,
    cap: float | Callable[[Any], Tensor] = 1.0,
    counted: bool = True,
    group: Group | None = None,
    where: Where | None = None,
) -> tuple[Float[Tensor, ""], Cap, Any]:
    r"""Task loss plus penalty, whose gradient is :math:`g_T + \min(1, \text{cap}\,|g_T| / |g_P|)\, g_P`.

    Both gradients, with respect to ``rows`` and to every parameter that ``losses`` uses beside them, are computed here
    and kept as constants; ``backward`` of the result only passes them on. Encoders in front of ``rows`` are
    differentiated once, as always. The value is task + penalty. Only first derivatives are capped: a second
    differentiation of the result raises RuntimeError.

    Args:
      losses: function of ``rows``; its last output is passed on. Parameters that it uses, such as the head's, are
        found in its autograd graph: all tensors there that require a gradient and were not computed.
      rows: {name: (B, ...)} floating-point tensors, this process's part of the global batch.
      cap: largest length of the penalties' gradient, relative to the task's; a function of the last output of
        ``losses`` where it depends on what they measured, whose result is a constant.
      counted: whether the task's loss is part of the result; False: it only says how long the penalties' gradient may
        be, since a task loss of the caller's is added elsewhere.
      group: process group over which the batch is split.
      where: rows that count; where each counts with a weight, a row's gradient has the length of so many equal rows'.

    Returns:
      The loss, :class:`Cap` and the last output of ``losses``.

    Examples:
      >>> x = torch.ones(4, requires_grad=True)
      >>> losses = lambda rows: (rows["x"].sum(), 10 * rows["x"][0], None)
      >>> capped_loss(losses, {"x": x}, cap=0.5)[0].backward()  # |g_T| = 2, |g_P| = 10
      >>> x.grad
      tensor([2., 1., 1., 1.])
    """
    fixed = {name: value.detach().requires_grad_() for name, value in rows.items()}
    task, penalty, passed = losses(fixed)
    own = list(fixed.values())
    shared = _leaves((task, penalty), own)
    num_rows = max(1, *(len(x) for x in own))
    slope = float(min(LARGEST_SLOPE, 2 ** (num_rows.bit_length() - 1)))
    of_task = _gradient(task, [*own, *shared], slope)
    of_penalty = _gradient(penalty, [*own, *shared], slope)
    task_norm, penalty_norm = _norms((of_task, of_penalty), len(own), group, where)
    limit = torch.as_tensor(cap(passed) if callable(cap) else cap).detach().to(task_norm)
    reached = penalty_norm > limit * task_norm
    scale = torch.where(reached, limit * task_norm / torch.where(reached, penalty_norm, 1), 1)
    if not counted:
        task, of_task = torch.zeros_like(task), [torch.zeros_like(g) for g in of_task]
    kept = [t + scale * p for t, p in zip(of_task, of_penalty, strict=True)]
    loss: Any = _Known.apply((task + penalty).detach(), *rows.values(), *shared, *kept)
    return loss, Cap(scale, limit, task_norm, penalty_norm), passed


class _Known(torch.autograd.Function):
    """A number whose gradients are known: of (number, *values, *gradients), one gradient for each value."""

    @staticmethod
    def forward(ctx: Any, number: Tensor, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(*parts)
        return number.clone()

    @staticmethod
    def backward(ctx: Any, *of_number: Any) -> Any:
        half = len(ctx.saved_tensors) // 2
        values, gradients = ctx.saved_tensors[:half], ctx.saved_tensors[half:]
        # Narrowed last: a scaled loss has a gradient of 65536, beyond float16, but times these it is not.
        found = [
            (of_number[0].detach() * gradient).to(value.dtype) if needed else None
            for gradient, value, needed in zip(gradients, values, ctx.needs_input_grad[1:], strict=False)
        ]
        if torch.is_grad_enabled():  # create_graph=True
            found = [x if x is None else _Once.apply(x, *values) for x in found]
        return None, *found, *(None for _ in found)


class _Once(torch.autograd.Function):
    """The gradient at some values, that must not be differentiated by them: it is a constant here."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *values: Tensor) -> Tensor:
        del ctx, values
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise RuntimeError(
            "a loss of c3r_loss with a cap was differentiated twice, but only its first derivative is known: use "
            "C3RConfig(cap=0.0)."
        )


def _leaves(roots: Iterable[Tensor], without: list[Tensor]) -> list[Tensor]:
    """Tensors at the end of an autograd graph, in the order in which they are met: the same in every process."""
    excluded, seen = {id(value) for value in without}, set[Any]()
    waiting: list[Any] = [root.grad_fn for root in roots]
    found: list[Tensor] = []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().endswith("AccumulateGrad") and id(node.variable) not in excluded:
            found.append(node.variable)
        waiting += [before for before, _ in node.next_functions]
    return found


def _gradient(value: Tensor, inputs: list[Tensor], slope: float) -> list[Tensor]:
    """Gradients, zero where an input is not used; the graph stays, for parts of it may be the caller's.

    A scaler's factor comes later, and the gradient of a mean of a thousand rows is below float16's numbers: so the
    value is differentiated times ``slope``, a power of 2, which is exact in wider floats.
    """
    if not value.requires_grad:
        return [torch.zeros_like(promote(x)) for x in inputs]
    with differentiating():
        found = torch.autograd.grad(value, inputs, torch.full_like(value, slope), retain_graph=True, allow_unused=True)
    return [promote(torch.zeros_like(x) if g is None else g) / slope for x, g in zip(inputs, found, strict=True)]


def _norms(
    gradients: tuple[list[Tensor], list[Tensor]], num_rows: int, group: Group | None, where: Where | None
) -> tuple[Tensor, Tensor]:
    """Lengths of two gradients of the global loss, whose rows are spread over processes.

    A sum over processes inside the loss is differentiated in every process: each has its own rows' gradient times the
    number of processes, and a part of the shared ones' that becomes the gradient when it is averaged.
    """
    processes = size(group)
    own = [gradient[:num_rows] for gradient in gradients]
    if isinstance(where, Weighted):
        times = torch.where(where.rows, where.weights, 1).sqrt()
        own = [[promote(x) / expand(times, x) for x in gradient] for gradient in own]
    of_rows = torch.stack([_square(gradient) for gradient in own])
    of_rows = global_sum(of_rows, group) / processes**2
    of_shared = []
    for gradient in gradients:
        shared = [promote(g).reshape(-1) for g in gradient[num_rows:]]
        if group is not None and shared:
            shared = [global_sum(torch.cat(shared), group) / processes]
        of_shared.append(_square(shared) if shared else of_rows.new_zeros(()))
    task_norm, penalty_norm = (of_rows + torch.stack(of_shared)).sqrt().unbind()
    return task_norm, penalty_norm


def _square(parts: list[Tensor]) -> Float[Tensor, ""]:
    return torch.stack([promote(x).square().sum() for x in parts]).sum()
