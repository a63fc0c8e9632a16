"""What a rival adds to a training step: one function from its configuration value to terms of the loss."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from c3r_jax.core._batch import global_mean, weighted_mean
from c3r_jax.core.tasks import Task
from c3r_jax.errors import ConfigError
from c3r_jax.models.decision import CONFIDENCE_SCALE, Confidence, Evidential
from c3r_jax.models.twin import TwinNetwork, apply
from c3r_jax.rivals.environments import group_dro_loss, irm_penalty, vrex_penalty
from c3r_jax.rivals.evidence import ranking_loss, trusted_loss
from c3r_jax.rivals.features import agreement, alignment_loss, mixup_loss, reversed_gradient
from c3r_jax.rivals.modulation import modulation
from c3r_jax.rivals.settings import BY_ENVIRONMENT, Rival

if TYPE_CHECKING:
    from c3r_jax.training.method import Method

WEIGHTS = "environment_weights"  # of group_dro, by their name in the state


class RivalTerms(NamedTuple):
    """What a rival makes of one global batch.

    Attributes:
      task: its loss in the place of the task's; None: the task's stays.
      penalty: what is added to the loss, weighted.
      state: what the next step needs anew (group_dro's weights), {} for most.
      scales: {modality: factor of its encoder's gradient} of ogm_ge, {} for others.
    """

    task: Float[Array, ""] | None
    penalty: Float[Array, ""]
    state: dict[str, Array]
    scales: dict[str, Array]


class _Rows(NamedTuple):
    """The rows of a step, as the functions of this package take them."""

    h: Mapping[str, Array]
    labels: Array
    present: Bool[Array, "batch modalities"]
    where: Bool[Array, " batch"]


def first_state(rival: Rival) -> dict[str, Array]:
    """The state before the first step: equal weights for group_dro, nothing for others."""
    count = rival.environments
    return {WEIGHTS: jnp.full(count, 1 / count, jnp.float32)} if rival.name == "group_dro" else {}


def rival_terms(
    model: TwinNetwork,
    variables: Mapping[str, Any],
    h: Mapping[str, Array],
    present: Bool[Array, "batch modalities"],
    batch: Mapping[str, Any],
    method: "Method",
    *,
    step: Array,
    state: dict[str, Array],
    key: PRNGKeyArray,
    axis_name: str | None = None,
) -> RivalTerms | None:
    """The terms of ``method.rival`` and of fusions that have a loss of their own.

    Args:
      model: the twin network.
      variables: its variables.
      h: {modality: (B, d)} representations, zero where absent.
      present: (B, M) bool.
      batch: {"labels", "where"}, and "environment" (B,) for rivals that compare environments.
      method: whose ``rival``, ``target`` and label smoothing are read.
      step: steps done.
      state: of the step before, see :func:`first_state`.
      key: the same on every device.
      axis_name: mapped axis over which the batch is split.

    Returns:
      :class:`RivalTerms`, those of the global batch; None if there is nothing to add.

    Raises:
      ConfigError: if a rival needs environments and the batch has none.
    """
    rival, target = method.rival, method.target
    if rival.name == "none" and not isinstance(model.fusion, Evidential | Confidence):
        return None
    rows = _Rows(h, batch["labels"], present, batch["where"])
    loss = partial(target.loss, label_smoothing=method.c3r.label_smoothing)
    predict, fuse = (partial(apply, model, variables, part) for part in (model.predict, model.fuse))
    ramp = jnp.minimum(1, (step + 1) / rival.warmup) if rival.warmup else 1.0
    shared = {"where": rows.where, "axis_name": axis_name}
    task, penalty, scales = None, jnp.zeros(()), {}
    if isinstance(model.fusion, Evidential):
        alone = apply(model, variables, model.alone, h, present)
        task = trusted_loss(fuse(h, present), alone, rows.labels, present, ramp * rival.strength, **shared)
    elif isinstance(model.fusion, Confidence):
        penalty = _confidence(apply(model, variables, model.alone, h, present), rows, rival, loss, axis_name)
    elif rival.name == "mixup":
        task = mixup_loss(predict, fuse, h, rows.labels, loss, alpha=rival.strength, key=key, present=present, **shared)
    elif rival.name == "ogm_ge":
        alone = apply(model, variables, model.alone, h, present)
        scales = _scales(model.modalities, alone, rows, target, rival, axis_name)
    elif rival.name == "alignment":
        penalty = rival.strength * alignment_loss(h, temperature=rival.temperature, present=present, **shared)
    elif rival.name == "casn":
        intervene = partial(apply, model, _with_reversed(variables), model.intervene)
        penalty = ramp * rival.strength * agreement(predict, intervene, fuse(h, present), radius=rival.radius, **shared)
    elif rival.name in BY_ENVIRONMENT:
        logits = predict(fuse(h, present))
        return _by_environment(logits, rows, batch.get("environment"), rival, loss, ramp, state, axis_name)
    return RivalTerms(task, penalty, {}, scales)


def with_rival(
    loss: Float[Array, ""], metrics: dict[str, Array], terms: RivalTerms, method: "Method"
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Adds a rival's terms to a method's loss (which has no task's where the rival has its own), and reports them."""
    if terms.task is not None:
        loss = loss + method.c3r.w_task * terms.task if method.regularised else terms.task
        metrics = {**metrics, "rival_task": terms.task}
    metrics = {**metrics, "rival": terms.penalty}
    metrics |= {f"modulation/{name}": scale for name, scale in terms.scales.items()}
    return loss + terms.penalty, metrics


def _confidence(alone: Array, rows: _Rows, rival: Rival, loss: Any, axis_name: str | None) -> Array:
    """Each modality's own loss, and the ranking of its confidence."""
    total = jnp.zeros(())
    for m, logits in enumerate(alone):
        own = rows.where & rows.present[:, m]
        losses, confidence = loss(logits, rows.labels), jax.nn.logsumexp(logits, axis=-1) / CONFIDENCE_SCALE
        ranking = ranking_loss(confidence, losses, where=own, axis_name=axis_name)
        total = total + global_mean(losses, own, axis_name) + rival.strength * ranking
    return total


def _scales(
    names: tuple[str, ...], alone: Array, rows: _Rows, target: Task, rival: Rival, axis_name: str | None
) -> dict[str, Array]:
    scores = [
        weighted_mean(
            target.probability(logits, rows.labels),
            rows.where & rows.present[:, m],
            target.weights(rows.labels),
            axis_name,
        )
        for m, logits in enumerate(alone)
    ]
    return dict(zip(names, modulation(jnp.stack(scores), rival.strength), strict=True))


def _with_reversed(variables: Mapping[str, Any]) -> dict[str, Any]:
    params = variables["params"]
    turned = jax.tree.map(reversed_gradient, params["intervener"])
    return {**variables, "params": {**params, "intervener": turned}}


def _by_environment(
    logits: Array,
    rows: _Rows,
    environment: Array | None,
    rival: Rival,
    loss: Any,
    ramp: Any,
    state: dict[str, Array],
    axis_name: str | None,
) -> RivalTerms:
    if environment is None:
        raise ConfigError(
            f"rival {rival.name!r} compares environments, but the batch has no column 'environment': train on data "
            "with known environments, such as the structural models of configs/sweeps/rivals.py."
        )
    shared = {"where": rows.where, "axis_name": axis_name}
    nothing, count = jnp.zeros(()), rival.environments
    own = partial(loss, labels=rows.labels)
    if rival.name == "irm":
        penalty = irm_penalty(own, logits, environment, count, **shared)
        return RivalTerms(None, ramp * rival.strength * penalty, {}, {})
    if rival.name == "vrex":
        penalty = vrex_penalty(own(logits), environment, count, **shared)
        return RivalTerms(None, ramp * rival.strength * penalty, {}, {})
    task, weights = group_dro_loss(own(logits), environment, state[WEIGHTS], rival.strength, **shared)
    return RivalTerms(task, nothing, {WEIGHTS: weights}, {})
