"""The train step: one pure function from state and batch to state and metrics, whatever the method."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from c3r_jax.core._batch import first_row, weighted_mean
from c3r_jax.core.contrastive import ContrastiveTerms, contrastive_c3r_loss
from c3r_jax.core.instrument import Moments, merge_moments
from c3r_jax.core.official import official_compat_loss
from c3r_jax.core.real_world import instrument_moments
from c3r_jax.core.regularizer import C3RTerms, c3r_loss
from c3r_jax.core.tasks import Task
from c3r_jax.models.contrastive import match
from c3r_jax.models.twin import TwinNetwork, apply, rows_of
from c3r_jax.rivals.modulation import modulated
from c3r_jax.rivals.settings import NO_RIVAL, Rival
from c3r_jax.rivals.terms import RivalTerms, first_state, rival_terms, with_rival
from c3r_jax.training.frozen import blank_frozen, joined, split_frozen
from c3r_jax.training.method import Method, drop_modalities
from c3r_jax.training.optimizer import plateau_scale

Batch = dict[str, Any]
TERMS = ("task", "sufficiency", "necessity", "relevance", "closeness")


class TrainState(NamedTuple):
    """All that a step changes.

    Attributes:
      step: number of steps done.
      seed: of everything random in training.
      params: the model's parameters.
      opt_state: the optimiser's state.
      instrument: the running moments' collection, {} without an instrument; beside them what a rival keeps.
      ema: averaged parameters, {} if they are not kept.
    """

    step: Array
    seed: Array
    params: Any
    opt_state: Any
    instrument: dict[str, Array]
    ema: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What ``model.apply`` takes."""
        return {"params": self.params, **({"instrument": self.instrument} if self.instrument else {})}

    @property
    def evaluated(self) -> Any:
        """The parameters that are evaluated: the averaged ones, where they are kept."""
        return self.ema or self.params


def init_state(
    model: TwinNetwork,
    optimizer: optax.GradientTransformation,
    batch: Batch,
    seed: int | Array,
    *,
    ema: bool = False,
    rival: Rival = NO_RIVAL,
) -> TrainState:
    """Initialises parameters, optimiser and (empty) moments from a seed.

    Args:
      model: the twin network.
      optimizer: of :func:`build_optimizer`.
      batch: any batch, for the shapes of its inputs.
      seed: of the parameters.
      ema: whether averaged parameters are kept.
      rival: of the method.
    """
    # Zeros: the program must not differ between processes, which read different rows.
    inputs = {name: jnp.zeros((1, *value.shape[1:]), value.dtype) for name, value in batch["inputs"].items()}
    present = jnp.ones((1, len(model.modalities)), bool)

    @jax.jit
    def init(key: PRNGKeyArray) -> TrainState:
        variables: dict[str, Any] = dict(model.init(key, inputs, present, "instrument"))
        params = blank_frozen(variables["params"], model)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            seed=jnp.asarray(seed, jnp.uint32),
            params=params,
            opt_state=optimizer.init(split_frozen(params, model)[0]),
            instrument={**variables.get("instrument", {}), **first_state(rival)},
            ema=jax.tree.map(jnp.copy, params) if ema else {},  # a copy: the state is given back to its successor
        )

    return init(jax.random.key(seed))


def step_columns(batch: Batch) -> Batch:
    """The part of a pipeline's batch that a step takes."""
    return {name: batch[name] for name in ("inputs", "present", "labels", "where")}


def example_keys(key: PRNGKeyArray, num_examples: int, axis_name: str | None) -> PRNGKeyArray:
    """One key per example of the global batch: the same draws however many devices share it."""
    return jax.vmap(partial(jax.random.fold_in, key))(first_row(num_examples, axis_name) + jnp.arange(num_examples))


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: TwinNetwork,
    method: Method,
    optimizer: optax.GradientTransformation,
    moments_decay: float,
    axis_name: str | None = None,
    accumulation: int = 1,
    ema_decay: float = 0.0,
) -> tuple[TrainState, dict[str, Array]]:
    """One step of training on this device's share of the global batch.

    Losses, risks and moments are those of the global batch, and the gradients are averaged over ``axis_name``: that
    is the gradient of the global loss (a sum over devices inside it is differentiated on every device).

    Args:
      state: :class:`TrainState`, equal on every device.
      batch: {"inputs", "present", "labels", "where"}.
      model: the twin network.
      method: what the loss is made of.
      optimizer: of :func:`build_optimizer`.
      moments_decay: of the running moments.
      axis_name: mapped axis over which the batch is split.
      accumulation: chunks in which this device's rows are encoded, see :func:`encode_in_chunks`.
      ema_decay: of the averaged parameters, smaller in the first steps: min(decay, (1 + step) / (10 + step)).

    Returns:
      The next state and scalar metrics.
    """
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    drop_key, unit_key, pair_key = jax.random.split(key, 3)
    num_examples = batch["labels"].shape[0]
    present = batch["present"]
    if method.dropout_rate > 0:
        present = drop_modalities(example_keys(drop_key, num_examples, axis_name), present, method.dropout_rate)
    rival_key = jax.random.fold_in(pair_key, 1)  # so that a run without a rival draws what it always drew
    unit_keys = example_keys(unit_key, num_examples, axis_name)
    trained, kept = split_frozen(state.params, model)

    def objective(trained: Any) -> tuple[Array, tuple[dict[str, Array], Moments | None, RivalTerms | None]]:
        variables = {**state.variables, "params": joined(trained, kept)}
        encode = partial(apply, model, variables, model.encode)
        h = encode_in_chunks(encode, (batch["inputs"], present, unit_keys), accumulation)
        shared = (model, variables, h, present, batch)
        rival = rival_terms(
            *shared, method, step=state.step, state=state.instrument, key=rival_key, axis_name=axis_name
        )
        rest = method.without_task() if rival is not None and rival.task is not None else method
        loss, (metrics, moments) = _loss(*shared, rest, pair_key, axis_name)
        if rival is not None:
            loss, metrics = with_rival(loss, metrics, rival, method)
        return loss, (metrics, moments, rival)

    (loss, (metrics, moments, rival)), gradient = jax.value_and_grad(objective, has_aux=True)(trained)
    if axis_name is not None:
        gradient = jax.lax.pmean(gradient, axis_name)
    if rival is not None and rival.scales:
        gradient = modulated(gradient, rival.scales, rival_key)
    update = optax.with_extra_args_support(optimizer).update  # "plateau" reads the loss
    updates, opt_state = update(gradient, state.opt_state, trained, value=loss)
    instrument = state.instrument
    if moments is not None:
        running = Moments(*(instrument[name] for name in Moments._fields))
        merged = merge_moments(running._replace(count=running.count * moments_decay), moments)
        instrument = {**instrument, **merged._asdict()}
    if rival is not None:
        instrument = {**instrument, **rival.state}
    metrics = {"loss": loss, **metrics, "gradient_norm": optax.tree.norm(gradient)}
    scale = plateau_scale(opt_state)
    if scale is not None:
        metrics["plateau_scale"] = scale
    trained = optax.apply_updates(trained, updates)
    ema = state.ema
    if ema:
        done = state.step.astype(jnp.float32)
        rate = 1 - jnp.minimum(ema_decay, (1 + done) / (10 + done))
        ema = joined(optax.incremental_update(trained, split_frozen(ema, model)[0], rate), kept)
    return TrainState(state.step + 1, state.seed, joined(trained, kept), opt_state, instrument, ema), metrics


def encode_in_chunks(encode: Callable[..., Any], rows: Any, chunks: int) -> Any:
    """Encodes rows chunk by chunk; for the gradient each chunk is encoded again, so that one at a time is in memory.

    This is gradient accumulation that is exact for losses of the whole batch (first stage, counterfactuals by
    permutation, contrastive negatives): only the representations meet in the loss, and they are small. It costs one
    more pass through the encoders.

    Args:
      encode: (*arrays with rows first) -> tree of arrays with rows first; a row's result depends on that row alone.
      rows: its arguments.
      chunks: 1: all at once.

    Returns:
      What ``encode(*rows)`` returns.

    References:
      L. Gao et al., Scaling deep contrastive learning batch size under memory limited setup, 2021.
    """
    if chunks == 1:
        return encode(*rows)
    # Chunk c has the rows c, c + chunks, ...: a batch that is split over devices stays where it is.
    parts = jax.tree.map(lambda x: x.reshape(-1, chunks, *x.shape[1:]).swapaxes(0, 1), rows)
    encoded = jax.lax.map(jax.checkpoint(lambda part: encode(*part)), parts)
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), encoded)


def _loss(model, variables, h, present, batch, method, key, axis_name):
    """Loss, metrics and the batch's moments; methods without C3R terms pay for none of them."""
    predict, fuse = (partial(apply, model, variables, part) for part in (model.predict, model.fuse))
    h, (present, where) = rows_of(h, present, batch["where"])
    labels = batch["labels"].reshape(-1) if method.task == "segmentation" else batch["labels"]
    target = method.target
    if method.contrastive:
        loss, found = contrastive_c3r_loss(
            partial(match, model, variables),
            h,
            kind=method.task,
            config=method.c3r,
            regularised=method.regularised,
            present=present,
            where=where,
            axis_name=axis_name,
            key=key,
        )
        return loss, (contrastive_metrics(found), found.moments)
    if method.official:
        layers = {**variables["params"]["fusion"], "head": variables["params"]["head"]}
        image, text = h.values()
        loss, found = official_compat_loss(layers, image, text, labels)
        return loss, ({"task": found.task, "relevance": found.relevance, "closeness": found.closeness}, None)
    if method.regularised:
        loss, terms = c3r_loss(
            predict,
            fuse,
            h,
            labels,
            config=method.c3r,
            present=present,
            where=where,
            axis_name=axis_name,
            key=key,
            task=target,
        )
        return loss, (_metrics(terms, labels, where, target, axis_name), terms.moments)
    z = fuse(h, present)
    logits = predict(z)
    losses = target.loss(logits, labels, label_smoothing=method.c3r.label_smoothing)
    both = jnp.stack([losses, _told(target, logits, labels)], axis=1)
    task, accuracy = weighted_mean(both, where, target.weights(labels), axis_name)
    moments = None
    if method.c3r.instrument != "none":
        frozen = jax.lax.stop_gradient((h, z))
        moments = instrument_moments(*frozen, present, config=method.c3r, where=where, axis_name=axis_name)
    return task, ({"task": task, "accuracy": accuracy}, moments)


def _told(target: Task, logits: Array, labels: Array) -> Array:
    """1 for a row whose label is told, 0 for another; the share of its labels where it has several."""
    return target.right(logits, labels).astype(logits.dtype).reshape(logits.shape[0], -1).mean(-1)


def _metrics(terms: C3RTerms, labels: Array, where: Array, target: Task, axis_name: str | None) -> dict[str, Array]:
    """Every term alone, the 0/1 risk with its interval, and the first stage's R^2 and F (median over features)."""
    right = _told(target, terms.logits, labels)
    metrics = {name: getattr(terms, name) for name in TERMS}
    metrics |= {f"risk_{name}": value for name, value in terms.risk._asdict().items()}
    metrics |= {
        "accuracy": weighted_mean(right, where, target.weights(labels), axis_name),
        "label_probability": terms.label_probability,
    }
    for name, stage in (terms.first_stage or {}).items():
        metrics[f"r2/{name}"] = stage.r2.mean()
        metrics[f"f/{name}"] = jnp.median(stage.f_stat)
    return metrics


def contrastive_metrics(terms: ContrastiveTerms) -> dict[str, Array]:
    """Task and accuracy, and C3R's terms and 0/1 risks as means over the modalities that are matched."""
    metrics = {"task": terms.task, "accuracy": terms.accuracy}
    if terms.c3r:
        each = [
            {name: getattr(own, name) for name in TERMS[1:]}
            | {f"risk_{name}": value for name, value in own.risk._asdict().items()}
            for own in terms.c3r.values()
        ]
        metrics |= jax.tree.map(lambda *values: jnp.stack(values).mean(), *each)
    return metrics
