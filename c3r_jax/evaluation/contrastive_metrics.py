"""Contrastive losses, risks and retrieval of a full split, whose n x n logits are never in memory at once."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from c3r_jax.core.batch import in_blocks
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.contrastive import contrastive_c3r_loss, unit
from c3r_jax.core.instruments import Features
from c3r_jax.core.matching import Match
from c3r_jax.methods.losses import contrastive_metrics

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
    num_examples = present.shape[0]
    _, terms = contrastive_c3r_loss(
        match,
        features,
        kind=kind,
        config=dataclasses.replace(config, cap=0.0),  # there is no gradient to cap
        regularised=regularised,
        present=present,
        where=jnp.ones(num_examples, bool),  # a mask that is traced: a small split is measured, not refused
        key=key,
        chunks=-(-num_examples // block_rows(num_examples)),
    )
    return contrastive_metrics(terms)


def retrieval(
    match: Match, h: dict[str, np.ndarray], present: Bool[np.ndarray, "batch modalities"]
) -> dict[str, float]:
    """Share of examples whose own partner in the split is the best match, by direction.

    Only examples that have both modalities are queries and keys of a direction (:func:`compared_examples`): without a
    partner there is nothing to find.

    Args:
      match: queries (B, d), keys (N, d) -> logits (B, N).
      h: {modality: (n, d)} representations.
      present: (n, M) bool, columns in sorted order of the names.

    Returns:
      {direction: share}, NaN where no example has both modalities.
    """

    @jax.jit
    def share(queries: Array, keys: Array) -> Array:
        best = in_blocks(lambda rows: match(rows, keys).argmax(1), (queries,), block_rows(len(keys)))
        return (best == jnp.arange(len(keys))).mean()

    rows = {name: unit(jnp.asarray(value)) for name, value in h.items()}
    pairs = {(query, key): _both(sorted(h), present, query, key) for query in rows for key in rows if key != query}
    return {
        f"{query} to {key}": float(share(rows[query][both], rows[key][both])) if both.any() else math.nan
        for (query, key), both in pairs.items()
    }


def compared_examples(names: Iterable[str], present: Bool[np.ndarray, "batch modalities"]) -> dict[str, int]:
    """How many examples :func:`retrieval` compares, by direction: those that have both modalities.

    Args:
      names: of the modalities.
      present: (n, M) bool, columns in sorted order of the names.

    Examples:
      >>> compared_examples(("image", "text"), np.array([[True, True], [True, False], [True, True]]))
      {'image to text': 2, 'text to image': 2}
    """
    names = sorted(names)
    return {
        f"{query} to {key}": int(_both(names, present, query, key).sum())
        for query in names
        for key in names
        if key != query
    }


def _both(names: Sequence[str], present: np.ndarray, query: str, key: str) -> Bool[np.ndarray, " batch"]:
    """Which examples have both modalities, of names in sorted order."""
    return present[:, names.index(query)] & present[:, names.index(key)]
