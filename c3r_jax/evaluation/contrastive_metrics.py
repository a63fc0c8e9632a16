"""Contrastive losses, risks and retrieval of a full split, whose n x n logits are never in memory at once."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from c3r_jax.core.batch import global_mean, in_blocks, keep
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.contrastive import Match, key_logits, of_modality, others_mean, pair_loss, shared_first_stage, unit
from c3r_jax.core.counterfactual import closeness
from c3r_jax.core.instruments import Features
from c3r_jax.core.risk import necessity_loss, risk_events, risk_of, sufficiency_loss
from c3r_jax.core.worlds import hypothetical_representation, real_world

LOGITS_HELD = 1 << 24  # logits in memory at a time: 64 MB in float32


def block_rows(num_examples: int) -> int:
    """Rows whose logits against every example are in memory at a time.

    Examples:
      >>> block_rows(1000), block_rows(50_000)
      (16777, 335)
    """
    return max(1, LOGITS_HELD // max(1, num_examples))


def pair_metrics(
    match: Match,
    features: Features,
    present: Bool[Array, "batch modalities"],
    *,
    kind: str,
    config: C3RConfig,
    regularised: bool,
    key: Array | None = None,
) -> dict[str, Float[Array, ""]]:
    """The numbers of :func:`contrastive_c3r_loss` with all examples as one batch, in memory linear in n.

    Args:
      match: queries (B, d), keys (N, d) -> logits (B, N).
      features: {name: (n, d)} representations of equal width.
      present: (n, M) bool, columns in sorted order of the names.
      kind: "softmax" or "sigmoid".
      config: weights and modes.
      regularised: whether to compute C3R's terms and risks.
      key: PRNG key for counterfactual "permute".

    Returns:
      task, accuracy, C3R's terms and risks: means over the modalities.
    """
    h = {name: unit(keep(present[:, m], features[name])) for m, name in enumerate(sorted(features))}
    all_rows = jnp.ones(len(present), bool)
    shared = shared_first_stage(h, present, all_rows, config) if regularised else None
    per_modality = [_matching(match, h, present, name, kind, config, regularised, shared, key) for name in h]
    return jax.tree.map(lambda *values: jnp.stack(values).mean(), *per_modality)


def _matching(match, h, present, name, kind, config, regularised, shared, key):
    """The metrics of matching one modality with the mean of the others."""
    labels = jnp.arange(present.shape[0])
    keys, exists = others_mean(h, present, name)
    rows = exists & present[:, list(h).index(name)]
    predict = partial(key_logits, match, keys, rows)
    block = block_rows(len(labels))

    def matched(z: Array, labels: Array) -> Array:
        logits = predict(z)
        return jnp.stack([pair_loss(kind, logits, labels, rows), logits.argmax(-1) == labels], axis=1)

    task, accuracy = global_mean(in_blocks(matched, (h[name], labels), block), rows, None)
    if not regularised:
        return {"task": task, "accuracy": accuracy}
    masked = {other: keep(rows & present[:, m], value) for m, (other, value) in enumerate(h.items())}

    def fuse(features: Features, _: Array) -> Array:
        return features[name]

    z = masked[name]
    real, relevance, _ = of_modality(shared, name) or real_world(fuse, masked, z, config, present, rows, rows)
    z_bar = hypothetical_representation(
        predict, fuse, masked, z, labels, real, present, config=config, where=rows, key=key, block_rows=block
    )

    def both_worlds(z_c: Array, z_bar: Array, labels: Array) -> Array:
        causal, hypothetical = predict(z_c), predict(z_bar)
        losses = sufficiency_loss(causal, labels), necessity_loss(hypothetical, labels, kind=config.necessity)
        return jnp.concatenate([jnp.stack(losses, axis=1), risk_events(causal, hypothetical, labels)], axis=1)

    values = in_blocks(both_worlds, (real.z_c, z_bar, labels), block)
    sufficiency, necessity = global_mean(values[:, :2], rows, None)
    risk = risk_of(values[:, 2:], where=rows)
    return {
        "task": task,
        "accuracy": accuracy,
        "sufficiency": sufficiency,
        "necessity": necessity,
        "relevance": relevance,
        "closeness": closeness(z, z_bar, rows, None),
        **{f"risk_{event}": value for event, value in risk._asdict().items()},
    }


def retrieval(match: Match, h: dict[str, np.ndarray]) -> dict[str, float]:
    """Share of examples whose own partner in the split is the best match, by direction.

    Args:
      match: queries (B, d), keys (N, d) -> logits (B, N).
      h: {modality: (n, d)} representations.
    """

    @jax.jit
    def share(queries: Array, keys: Array) -> Array:
        best = in_blocks(lambda rows: match(rows, keys).argmax(1), (queries,), block_rows(len(keys)))
        return (best == jnp.arange(len(keys))).mean()

    rows = {name: unit(jnp.asarray(value)) for name, value in h.items()}
    return {f"{query} to {key}": float(share(rows[query], rows[key])) for query in rows for key in rows if key != query}
