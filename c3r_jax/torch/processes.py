"""Sums over the processes of a distributed job, through which gradients flow.

Every process has its part of the global batch and computes the same global loss. The gradient of a sum over processes
is summed over them as well: each process then has its rows' gradient times the number of processes, and the average
that ``DistributedDataParallel`` takes is the gradient of the global loss.
"""

import functools
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Group = Any  # a torch.distributed.ProcessGroup; the class is missing where PyTorch was built without it


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        total = x.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Sum.apply(gradients[0], ctx.group), None


def global_sum(x: Tensor, group: Group | None) -> Tensor:
    """Sums ``x`` over the processes of ``group`` (identity without one), with a gradient.

    Args:
      x: equal shapes in all processes.
      group: a process group, such as ``torch.distributed.group.WORLD``.

    Examples:
      >>> global_sum(torch.ones(2), None)
      tensor([1., 1.])
    """
    if group is None:
        return x
    summed: Any = _Sum.apply(x, group)
    return summed


def size(group: Group | None) -> int:
    """Number of processes; 1 without a group."""
    return 1 if group is None else dist.get_world_size(group)


def check_group(group: Group | None) -> None:
    """Warns, once, of a loss to be differentiated that is this process's alone in a job of several.

    Args:
      group: as it was given.

    Warns:
      UserWarning: when ``torch.distributed`` has several processes and ``group`` is None.
    """
    if group is None and torch.is_grad_enabled() and dist.is_available() and dist.is_initialized():
        if dist.get_world_size() > 1:
            _warn_of_no_group(dist.get_world_size())


@functools.cache
def _warn_of_no_group(processes: int) -> None:
    warnings.warn(
        f"c3r_loss has no group= in a job of {processes} processes: its means, moments and cap are of this process's "
        "rows alone, and averaged gradients are not the global batch's; pass group=torch.distributed.group.WORLD.",
        stacklevel=7,
    )


def first_row(num_rows: int, group: Group | None, device: torch.device) -> tuple[int, int]:
    """Place of this process's first row in the global batch, and the number of all rows; parts may differ in size."""
    if group is None:
        return 0, num_rows
    rank = dist.get_rank(group)
    rows = torch.zeros(size(group), dtype=torch.long, device=device)
    rows[rank] = num_rows
    dist.all_reduce(rows, group=group)
    counts = rows.tolist()
    return sum(counts[:rank]), sum(counts)


def all_rows(x: Tensor, first: int, total: int, group: Group | None) -> Tensor:
    """The rows of all processes, with a gradient; see :func:`first_row`."""
    if group is None:
        return x
    before = x.new_zeros((first, *x.shape[1:]))
    after = x.new_zeros((total - first - x.shape[0], *x.shape[1:]))
    return global_sum(torch.cat([before, x, after]), group)
