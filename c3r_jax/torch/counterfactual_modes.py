"""The modes of a counterfactual, one function each: from a problem to z in the hypothetical world.

The mathematics is in :func:`c3r_jax.torch.counterfactual`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from c3r_jax.torch.batch import Where, global_mean, mask_of
from c3r_jax.torch.processes import Group, all_rows, first_row
from c3r_jax.torch.task import Task

Direction = Callable[[Tensor], tuple[Tensor, Tensor]]  # at a point: each label's excess and its gradient


class Problem(NamedTuple):
    """The input of a mode; excluded rows are zero.

    Attributes:
      z: (B, d) in float32 or wider.
      start: (B, d) causal part; z if it is unknown.
      labels: (B,).
      where: (B,) bool.
      direction: excess and its gradient at a point.
      num_steps: repetitions with a fresh direction.
      step_size: length of the "gradient" move in units of rms(z).
      ball: largest move in units of rms(z); None: no bound.
      group: process group over which the batch is split.
      generator: random numbers, the same in every process.
      task: what outputs and labels mean.
    """

    z: Tensor
    start: Tensor
    labels: Tensor
    where: Where
    direction: Direction
    num_steps: int
    step_size: float
    ball: float | None
    group: Group | None
    generator: torch.Generator | None
    task: Task


def rms(z: Float[Tensor, "batch features"], where: Where, group: Group | None) -> Float[Tensor, ""]:
    """Root mean square length of the valid rows, uncentred, as a constant (no gradient)."""
    return global_mean(z.detach().square().sum(-1), where, group).sqrt()


def unit_rows(g: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
    """Unit vectors g / |g|, zero with zero gradient where g is zero; scaled first, so that tiny g do not underflow."""
    largest = g.detach().abs().amax(-1, keepdim=True)
    g = g / torch.where(largest > 0, largest, 1)
    square = g.square().sum(-1, keepdim=True)
    return torch.where(square > 0, g * torch.where(square > 0, square, 1).rsqrt(), 0)


def _projection(problem: Problem) -> Tensor:
    """do(component along u := the mean's), whether it favours the label or not."""
    return _without(problem, lambda along, excess, slope: along)


def _removal(problem: Problem) -> Tensor:
    """Removes the component along -u (towards the label) that exceeds the mean's."""
    return _without(problem, problem.task.removable)


def _without(problem: Problem, taken: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """Takes ``taken(along, excess, slope)``, (B, 1) each, of the causal part's component along u out of z."""
    part, centre = problem.start, global_mean(problem.start, problem.where, problem.group)
    for _ in range(problem.num_steps):
        excess, gradient = problem.direction(part)
        u = unit_rows(gradient)
        along = ((part - centre[None, :]) * u).sum(-1, keepdim=True)
        slope = (gradient * u).sum(-1, keepdim=True)
        part = part - taken(along, excess[:, None], slope) * u
    return problem.z - problem.start + part


def _minimal(problem: Problem) -> Tensor:
    """Takes the smallest linearised step after which the label's probability is at most 1/K."""
    part = problem.start
    for _ in range(problem.num_steps):
        excess, gradient = problem.direction(part)  # negative: the label is favoured
        square = gradient.square().sum(-1)
        step = torch.where(square > 0, (-excess).relu() / torch.where(square > 0, square, 1), 0)
        part = part + step[:, None] * gradient
    return problem.z - problem.start + part


def _gradient(problem: Problem) -> Tensor:
    """Ascends each row's loss by step_size * rms(z) in total, within the ball around z."""
    z = moved = problem.z
    unit = rms(z, problem.where, problem.group)
    for _ in range(problem.num_steps):
        _, gradient = problem.direction(moved)
        moved = moved + (problem.step_size / problem.num_steps) * unit * unit_rows(gradient)
        if problem.ball is not None:
            offset = moved - z
            square = offset.square().sum(-1, keepdim=True)
            limit = problem.ball * unit
            outside = square > limit.square()
            moved = z + offset * torch.where(outside, limit * torch.where(outside, square, 1).rsqrt(), 1)
    return moved


def _instrumented(problem: Problem) -> Tensor:
    """do(causal part := its mean)."""
    return problem.z - problem.start + global_mean(problem.start, problem.where, problem.group)[None, :]


def _mean(problem: Problem) -> Tensor:
    """do(z := its mean)."""
    return global_mean(problem.z, problem.where, problem.group)[None, :].expand_as(problem.z)


def _permute(problem: Problem) -> Tensor:
    """Gives each row a uniformly drawn valid row of the global batch with another label; the mean if there is none.

    Sorted by label, the rows with another label are all but one block: draw a position among them and skip the block.
    O(B log B), and the same draw however the batch is split over processes.
    """
    assert problem.generator is not None
    z, group, task = problem.z, problem.group, problem.task
    mean = global_mean(z, problem.where, group)
    first, total = first_row(len(z), group, z.device)
    all_z = all_rows(z, first, total, group)
    all_labels = task.keys(all_rows(problem.labels, first, total, group))
    all_where = all_rows(mask_of(problem.where).long(), first, total, group)
    labels = all_labels[first : first + len(z)]
    count = all_where.sum()
    last = torch.inf if all_labels.dtype.is_floating_point else torch.iinfo(all_labels.dtype).max  # excluded rows
    ranked, order = torch.sort(torch.where(all_where > 0, all_labels, last), stable=True)
    same = torch.tensor(task.tolerance, device=z.device).to(all_labels.dtype)
    begin = torch.searchsorted(ranked, labels - same, right=False)
    end = torch.searchsorted(ranked, labels + same, right=True)
    others = count - (end - begin)
    draws = uniform(total, problem.generator).to(z.device)[first : first + len(z)]
    draw = torch.minimum((draws * others).floor().long(), others - 1)
    position = torch.where(draw < begin, draw, draw + end - begin)
    chosen = all_z[order[position.clamp(0, total - 1)]]
    return torch.where((others > 0)[:, None], chosen, mean[None, :])


def uniform(count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
    """Uniform numbers in [0, 1), on the generator's device."""
    return torch.rand(count, generator=generator, device=generator.device)


MODES: dict[str, Callable[[Problem], Tensor]] = {
    "projection": _projection,
    "removal": _removal,
    "gradient": _gradient,
    "minimal": _minimal,
    "instrumented": _instrumented,
    "mean": _mean,
    "permute": _permute,
}
