"""All strengths of one fold as one compiled program: training under ``vmap``, then both worlds of every row."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool

from c3r_jax.caches import make_room
from c3r_jax.core.risk import c3_risk
from c3r_jax.core.worlds import both_worlds
from c3r_jax.evaluation.expert_accuracy import joint_expert_accuracy
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.models.twin import apply
from c3r_jax.step.in_memory import Rows, Structure, model_of, train_run


class Trained(NamedTuple):
    """What one run says of all n rows; from :func:`path_of` with a leading axis over strengths.

    Attributes:
      logits: {route: (n, K)}.
      risk: 0/1 C3 risk of the held-out rows.
      expert_accuracy: :func:`joint_expert_accuracy` of the held-out rows.
      losses: (steps,) training losses.
    """

    logits: dict[str, Array]
    risk: Array
    expert_accuracy: Array
    losses: Array


def train_and_predict(
    structure: Structure,
    rows: Rows,
    plan: Any,
    seed: Any,
    learning_rate: Any,
    weight_decay: Any,
    train: Bool[Array, " n"],
    held: Bool[Array, " n"],
    judges: Rows | None,
    weights: Any,
) -> Trained:
    """One run of a fold; pure.

    Args:
      structure: the compiled-in structure.
      rows: all rows, in every fold the same number.
      plan: (steps, batch) numbers of training rows.
      seed: seed of everything random.
      learning_rate: learning rate of AdamW.
      weight_decay: weight decay of AdamW.
      train: which rows the instrument's moments are measured on.
      held: the rows held out of the fold.
      judges: rows of neither, which the gate is measured on, as ``held`` of :func:`c3r_jax.step.in_memory.train_run`.
      weights: one run's, as from :func:`c3r_jax.step.in_memory.weights_of`.
    """
    params, losses = train_run(structure, rows, plan, seed, weights, learning_rate, weight_decay, judges)
    model, config, variables = model_of(structure)[0], structure.config, {"params": params}
    predict, fuse = (functools.partial(apply, model, variables, part) for part in (model.predict, model.fuse))
    h = apply(model, variables, model.encode, rows.inputs, rows.present)
    moments = None
    if config.instrument != "none":
        moments = apply(model, variables, model.measure, rows.inputs, rows.present, train)
    shared = {"config": config, "where": held, "key": jax.random.key(0)}
    worlds = both_worlds(predict, fuse, h, rows.present, rows.labels, moments, **shared)
    at_z, at_z_c, at_z_bar = (predict(value) for value in worlds)
    of_experts = joint_expert_accuracy(
        h, rows.labels, num_classes=structure.num_classes, present=rows.present, where=held
    )
    risk = c3_risk(at_z_c, at_z_bar, rows.labels, where=held).total
    return Trained(dict(zip(ROUTES, (at_z, at_z_c), strict=True)), risk, of_experts, losses)


@functools.lru_cache(maxsize=32)
def path_of(structure: Structure) -> Callable[..., Trained]:
    """:func:`train_and_predict` of a structure for several weights at once; folds of one data set share the program."""
    make_room()
    one = functools.partial(train_and_predict, structure)
    return jax.jit(jax.vmap(one, in_axes=(*[None] * 8, 0)))
