"""The train step: one pure function from state and batch to state and metrics, for every method."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jaxtyping import Array, PRNGKeyArray

from c3r_jax.core.batch import first_row
from c3r_jax.core.moments import Moments, merge_moments
from c3r_jax.methods.encoded_batch import encoded_batch
from c3r_jax.methods.losses import method_loss, with_rival
from c3r_jax.methods.method import Method
from c3r_jax.methods.modality_dropout import drop_modalities
from c3r_jax.methods.rival import NO_RIVAL, Rival, RivalTerms
from c3r_jax.models.twin import TwinNetwork, apply
from c3r_jax.step.frozen import joined, split_frozen
from c3r_jax.step.optimizer import plateau_scale
from c3r_jax.step.state import Batch, TrainState


def step_columns(batch: Batch, rival: Rival = NO_RIVAL, explained: float | None = None) -> Batch:
    """The columns of a pipeline's batch that a step reads.

    "environment" only where the rival compares environments, and "evidence" where experts of all rows are known.

    Args:
      batch: a batch of the input pipeline.
      rival: the method's rival.
      explained: the explained share of rows that are not trained on, NaN where it is unknown; each row gets it, so that
        every device does. None: there is no such column.
    """
    more = ("environment",) if rival.needs_environments and "environment" in batch else ()
    more += ("evidence",) if "evidence" in batch else ()
    columns = {name: batch[name] for name in ("inputs", "present", "labels", "where", *more)}
    if explained is None:
        return columns
    return columns | {"explained": np.full(batch["where"].shape, explained, np.float32)}


def example_keys(key: PRNGKeyArray, num_examples: int, axis_name: str | None) -> PRNGKeyArray:
    """One key per example of the global batch: the same draws for any number of devices."""
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
    rows: NamedSharding | None = None,
    key_chunks: int | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One step of training on this device's share of the global batch.

    Losses, risks and moments are those of the global batch, and the gradients are averaged over ``axis_name``: that
    is the gradient of the global loss (a sum over devices inside it is differentiated on every device).

    Args:
      state: :class:`TrainState`, equal on every device.
      batch: {"inputs", "present", "labels", "where"}, and "environment" for a rival that compares environments,
        "evidence" {modality: (B, K)} where experts of all training rows are known, and "explained", a scalar or that in
        each row, where the explained share of rows that are not trained on is.
      model: the twin network.
      method: the training method.
      optimizer: output of :func:`build_optimizer`.
      moments_decay: decay of the running moments.
      axis_name: mapped axis over which the batch is split.
      accumulation: chunks in which this device's rows are encoded, see :func:`encode_in_chunks`.
      ema_decay: decay of the averaged parameters, smaller in the first steps: min(decay, (1 + step) / (10 + step)).
      rows: how the batch is split over a mesh, where no axis is mapped; contrastive losses then gather their keys once.
      key_chunks: ``chunks`` of :func:`c3r_jax.core.contrastive.contrastive_c3r_loss`.

    Returns:
      The next state and scalar metrics.
    """
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    drop_key, unit_key, pair_key = jax.random.split(key, 3)
    num_examples = batch["labels"].shape[0]
    present = batch["present"]
    if method.dropout_rate > 0:
        present = drop_modalities(example_keys(drop_key, num_examples, axis_name), present, method.dropout_rate)
    rival_key = jax.random.fold_in(pair_key, 1)  # so that the draws of a run without a rival stay the same
    unit_keys = example_keys(unit_key, num_examples, axis_name)
    trained, frozen = split_frozen(state.params, model)

    def objective(trained: Any) -> tuple[Array, tuple[dict[str, Array], Moments | None, RivalTerms | None]]:
        variables = {**state.variables, "params": joined(trained, frozen)}
        encode = partial(apply, model, variables, model.encode)
        h = encode_in_chunks(encode, (batch["inputs"], present, unit_keys), accumulation)
        smoothing = method.c3r.label_smoothing
        shared = {"target": method.target, "label_smoothing": smoothing, "axis_name": axis_name}
        encoded = encoded_batch(model, variables, h, present, batch, **shared)
        encoded = encoded._replace(rows=rows, key_chunks=key_chunks)
        terms = method.rival.terms(encoded, step=state.step, state=state.instrument, key=rival_key)
        main = method.beside_own_loss() if terms is not None and terms.task is not None else method
        loss, (metrics, moments) = method_loss(encoded, main, pair_key)
        if terms is not None:
            loss, metrics = with_rival(loss, metrics, terms, method)
        return loss, (metrics, moments, terms)

    (loss, (metrics, moments, terms)), gradient = jax.value_and_grad(objective, has_aux=True)(trained)
    if axis_name:
        gradient = jax.lax.pmean(gradient, axis_name)
    if terms is not None:
        gradient = method.rival.change_gradient(gradient, terms, rival_key)
    update = optax.with_extra_args_support(optimizer).update  # "plateau" reads the loss
    updates, opt_state = update(gradient, state.opt_state, trained, value=loss)
    instrument = state.instrument
    if moments is not None:
        merged = merge_moments(state.earlier_moments(moments_decay), moments)
        instrument = {**instrument, **merged._asdict()}
    if terms is not None:
        instrument = {**instrument, **terms.state}
    metrics = {"loss": loss, **metrics, "gradient_norm": optax.tree.norm(gradient)}
    scale = plateau_scale(opt_state)
    if scale is not None:
        metrics["plateau_scale"] = scale
    trained = optax.apply_updates(trained, updates)
    ema = state.ema
    if ema:
        done = state.step.astype(jnp.float32)
        rate = 1 - jnp.minimum(ema_decay, (1 + done) / (10 + done))
        ema = joined(optax.incremental_update(trained, split_frozen(ema, model)[0], rate), frozen)
    return TrainState(state.step + 1, state.seed, joined(trained, frozen), opt_state, instrument, ema), metrics


def encode_in_chunks(encode: Callable[..., Any], rows: Any, chunks: int) -> Any:
    """Encodes rows chunk by chunk; each is encoded again for the gradient, so that one at a time is in memory.

    This is gradient accumulation that stays exact for losses over the full batch (first stage, counterfactuals by
    permutation, contrastive negatives): the loss sees all representations, which are small. It costs one more pass
    through the encoders.

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
    # Chunk c has the rows c, c + chunks, ...: rows stay on the device that holds them.
    parts = jax.tree.map(lambda x: x.reshape(-1, chunks, *x.shape[1:]).swapaxes(0, 1), rows)
    encoded = jax.lax.map(jax.checkpoint(lambda part: encode(*part)), parts)
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), encoded)
