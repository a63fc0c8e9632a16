"""Training sets and tests of a study: drawn once for each seed of a world, and shared by all of its cells."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from c3r_jax.data.sets.structural import StructuralModel
from c3r_jax.evaluation.structural import NOISE_SD, noisy
from c3r_jax.step.in_memory import Rows, batch_plan, with_experts
from c3r_jax.sweep.grid import NUM_CLASSES, SweepRun, world_of
from c3r_jax.sweep.settings import SweepSettings

VALIDATION = "validation"


class Data(NamedTuple):
    """The data of one seed of one world.

    Attributes:
      train: training :class:`Rows`.
      tests: :class:`Rows` with a leading axis over :func:`test_names`.
      plan: (steps, batch) row numbers of every batch.
    """

    train: Rows
    tests: Rows
    plan: np.ndarray


def test_names(modalities: Sequence[str]) -> list[str]:
    """Names of the evaluations of a run: the first is for selection, the others are tests."""
    return [VALIDATION, "same", "shift", *(f"only {name}, shift" for name in modalities), "noise, shift"]


def make_data(settings: SweepSettings, run: SweepRun, *, row_experts: bool = False) -> Data:
    """Samples a seed's training set and tests, which do not depend on the cell but for experts of all training rows."""
    data, train = settings.data, settings.train
    sizes = (data.num_train, data.num_eval, train.batch_size, train.steps)
    drawn = (world_of(settings, run), run.seed, *sizes, data.environments)
    return _draw_with_experts(*drawn) if row_experts else _draw(*drawn)


@functools.lru_cache(maxsize=32)
def _draw_with_experts(*drawn: Any) -> Data:
    """Cached apart, so that studies without experts do not compute any."""
    data = _draw(*drawn)
    return data._replace(train=with_experts(data.train, NUM_CLASSES))


@functools.lru_cache(maxsize=32)
def _draw(
    world: StructuralModel,
    seed: int,
    num_train: int,
    num_eval: int,
    batch_size: int,
    steps: int,
    environments: tuple[float, ...],
) -> Data:
    """Cached, because the cells of a study use the same seeds one after another."""
    begin = 10 * seed
    count = len(world.modalities)

    def rows(inputs: Any, labels: np.ndarray, present: list[bool] | None = None) -> Rows:
        mask = np.tile(np.array(present or [True] * count), (len(labels), 1))
        return Rows(inputs, mask, labels)

    def sample(count: int, seed: int) -> tuple[Any, np.ndarray | None]:
        """Training data; environments alternate row by row."""
        if not environments:
            return world.sample(count, seed=seed), None
        environment = np.arange(count, dtype=np.int32) % len(environments)
        return world.sample(count, seed=seed, cue_strength=np.array(environments)[environment]), environment

    train, environment = sample(num_train, begin)
    validation, same = sample(num_eval, begin + 1)[0], sample(num_eval, begin + 2)[0]
    shift = world.sample(num_eval, seed=begin + 3, regime="shift")
    alone = [rows(shift.inputs, shift.labels, [m == only for m in range(count)]) for only in range(count)]
    tests = [
        rows(validation.inputs, validation.labels),
        rows(same.inputs, same.labels),
        rows(shift.inputs, shift.labels),
        *alone,
        rows(noisy(shift.inputs, NOISE_SD, begin), shift.labels),
    ]
    plan = batch_plan(num_train, batch_size=batch_size, steps=steps, seed=seed)
    train_rows = rows(train.inputs, train.labels)._replace(environment=environment)
    return Data(train_rows, jax.tree.map(lambda *x: np.stack(x), *tests), plan)
