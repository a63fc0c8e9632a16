"""C3R for contrastive pretraining: the label of an example is the example itself, seen through its other modalities."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from c3r_jax.core.batch import all_rows, check_where, first_row, global_mean, keep, promote
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.instruments import Features
from c3r_jax.core.moments import Moments
from c3r_jax.core.objective import C3RTerms, c3r_loss
from c3r_jax.core.risk import sufficiency_loss
from c3r_jax.core.worlds import Fitted, real_world
from c3r_jax.tasks.contrastive import SOFTMAX
from c3r_jax.tasks.registry import CONTRASTIVE

DEFAULT = C3RConfig.hinge()
Match = Callable[[Float[Array, "batch d"], Float[Array, "keys d"]], Float[Array, "batch keys"]]


class ContrastiveTerms(NamedTuple):
    """Terms of :func:`contrastive_c3r_loss` (scalars of the global batch, means over the modalities).

    Attributes:
      task: the contrastive loss, in nats.
      accuracy: share of examples whose own key is the best match in the batch.
      c3r: {modality: :class:`C3RTerms`} for that modality's matching; {} where C3R is off.
      moments: :class:`Moments` of the batch's unit representations; None without an instrument.
    """

    task: Float[Array, ""]
    accuracy: Float[Array, ""]
    c3r: dict[str, C3RTerms]
    moments: Moments | None


def unit(h: Float[Array, "batch d"]) -> Float[Array, "batch d"]:
    """Scales rows to length 1, in float32 or wider; a zero row stays zero, with gradient zero.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(unit(jnp.array([[3.0, 4.0], [0.0, 0.0]])))
      [[0.6 0.8]
       [0.  0. ]]
    """
    h = promote(h)
    square = jnp.square(h).sum(-1, keepdims=True)
    return jnp.where(square > 0, h * jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)


def others_mean(
    features: Features, present: Bool[Array, "batch modalities"], name: str
) -> tuple[Float[Array, "batch d"], Bool[Array, " batch"]]:
    """The keys for matching one modality: the unit mean of each example's other present modalities.

    Args:
      features: {name: (B, d)} unit representations, all of equal width.
      present: (B, M) bool, columns in sorted order of the names.
      name: the matched modality.

    Returns:
      (B, d) keys, and which rows have one (B,).
    """
    others = [(m, other) for m, other in enumerate(sorted(features)) if other != name]
    total = sum((keep(present[:, m], features[other]) for m, other in others), jnp.zeros_like(features[name]))
    return unit(total), present[:, jnp.array([m for m, _ in others])].any(1)


def contrastive_c3r_loss(
    match: Match,
    features: Features,
    *,
    kind: str = SOFTMAX.name,
    config: C3RConfig = DEFAULT,
    regularised: bool = True,
    present: Bool[Array, "batch modalities"] | None = None,
    where: Bool[Array, " batch"] | None = None,
    axis_name: str | None = None,
    key: Array | None = None,
) -> tuple[Float[Array, ""], ContrastiveTerms]:
    r"""Contrastive loss of one global batch with C3R's terms, for any encoders and any number of modalities.

    Each modality m of example i is matched against the keys k of all examples of the batch (the unit mean of the other
    modalities; with image and text, a CLIP model):

    .. math::
       softmax: -\log \frac{e^{\ell_{ii}}}{\sum_j e^{\ell_{ij}}}, \quad
       sigmoid: -\sum_j \log \sigma(\pm \ell_{ij}), \quad \ell_{ij} = \text{match}(h^m_i, k_j)

    z = h^m, so the instrument for an image is its text: z_c is the part of the image that the text explains, and
    must match the text; z_bar is the image without that part, and must not. The softmax losses of C3R use the same
    logits. The mean over modalities is returned.

    Args:
      match: queries (B, d), keys (N, d) -> logits (B, N), e.g. ``lambda q, k: scale * q @ k.T + bias``.
      features: {name: (B, d)} representations of equal width; they are scaled to length 1 here.
      kind: "softmax" (CLIP) or "sigmoid" (SigLIP).
      config: weights and modes; ``w_task`` is the weight of the contrastive loss; ``expert``, ``subsets`` and ``cap``
        are not read.
      regularised: False: the contrastive loss alone, at no further cost.
      present: (B, M) bool, columns in sorted order of the names.
      where: (B,) bool, rows that count; other rows are not keys (but necessity "hinge" and counterfactual "minimal"
        take chance as one in all B rows of the global batch).
      axis_name: mapped axis over which the batch is split; keys are then gathered over it.
      key: PRNG key for counterfactual "permute".

    Returns:
      The loss and :class:`ContrastiveTerms`.

    Raises:
      ValueError: on an unknown kind, necessity "kl", modalities of different widths, or fewer than two.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> image = jax.random.normal(jax.random.key(0), (64, 8))
      >>> text = image + 0.1 * jax.random.normal(jax.random.key(1), (64, 8))
      >>> loss, terms = contrastive_c3r_loss(lambda q, k: 20 * q @ k.T, {"image": image, "text": text})
      >>> bool(terms.accuracy > 0.9), bool(terms.c3r["image"].risk.sufficiency < 0.1)
      (True, True)

    References:
      A. Radford et al., Learning transferable visual models from natural language supervision, 2021.
      X. Zhai et al., Sigmoid loss for language image pre-training, 2023.
    """
    if kind not in CONTRASTIVE:
        raise ValueError(f"contrastive kind {kind!r} is unknown: expected one of {', '.join(CONTRASTIVE)}.")
    widths = {name: h.shape[1] for name, h in features.items()}
    if len(widths) < 2 or len(set(widths.values())) != 1:
        raise ValueError(f"features have widths {widths}, but at least two modalities of equal width were expected.")
    if config.necessity == "kl":
        raise ValueError("config.necessity is 'kl', which needs classes with a prior: use 'hinge' or 'log' here.")
    num_examples = next(iter(features.values())).shape[0]
    present = jnp.ones((num_examples, len(features)), bool) if present is None else present
    where = check_where(where, num_examples)
    h = {name: unit(keep(where & present[:, m], features[name])) for m, name in enumerate(sorted(features))}
    # Experts, subsets and the cap are about a task with classes: they do not apply to matchings.
    without_task = dataclasses.replace(
        config, w_task=0.0, label_smoothing=0.0, expert=0.0, subsets=False, cap=0.0, gate=False
    )
    shared = shared_first_stage(h, present, where, config, axis_name) if regularised else None
    measured, c3r = [], {}
    for m, name in enumerate(h):
        partners, exists = others_mean(h, present, name)
        rows = where & exists & present[:, m]
        keys, usable, labels = _all_keys(partners, rows, axis_name)
        predict = partial(key_logits, match, keys, usable)
        logits = predict(h[name])
        correct = (logits.argmax(-1) == labels).astype(logits.dtype)
        columns = jnp.stack([pair_loss(kind, logits, labels, usable), correct], axis=1)
        task, accuracy = global_mean(columns, rows, axis_name)
        loss = config.w_task * task
        if regularised:
            regularisation, c3r[name] = c3r_loss(
                predict,
                lambda features, _, name=name: features[name],
                h,
                labels,
                config=without_task,
                present=present,
                where=rows,
                axis_name=axis_name,
                key=key,
                fitted=of_modality(shared, name),
            )
            loss = loss + regularisation
        measured.append(jnp.stack([loss, task, accuracy]))
    loss, task, accuracy = jnp.stack(measured).mean(0)
    moments = next(iter(c3r.values())).moments if c3r else None
    return loss, ContrastiveTerms(task, accuracy, c3r, moments)


def shared_first_stage(
    h: Features,
    present: Bool[Array, "batch modalities"],
    where: Bool[Array, " batch"],
    config: C3RConfig,
    axis_name: str | None = None,
) -> Fitted | None:
    """The first stage of every modality on the others, fitted once for all matchings; None unless "two_stage".

    It uses the rows that have every modality, which are the same for each matched modality.

    Args:
      h: {name: (B, d)} unit representations, zero where absent.
      present: (B, M) bool.
      where: (B,) bool, rows that count.
      config: instrument and ridge.
      axis_name: mapped axis over which the batch is split.
    """
    if config.instrument != "two_stage":
        return None
    first = next(iter(h))
    return real_world(lambda h, _: h[first], h, h[first], config, present, where, where, axis_name)


def of_modality(shared: Fitted | None, name: str) -> Fitted | None:
    """The result of :func:`shared_first_stage` for one matched modality: z_c is the part that the others explain."""
    if shared is None:
        return None
    real, relevance, moments = shared
    assert real.h_hat is not None
    return real._replace(z_c=real.h_hat[name]), relevance, moments


def _all_keys(keys: Array, rows: Array, axis_name: str | None) -> tuple[Array, Array, Array]:
    """Keys of the global batch, which of them exist, and the index of each of this device's examples among them."""
    return *all_rows((keys, rows), axis_name), first_row(len(keys), axis_name) + jnp.arange(len(keys))


def key_logits(match: Match, keys: Array, usable: Array, z: Array) -> Array:
    """Logits against every key; missing keys are never matched."""
    logits = promote(match(z, keys))
    return jnp.where(usable[None, :], logits, -1e9)


def pair_loss(kind: str, logits: Array, labels: Array, usable: Array) -> Array:
    """The contrastive loss of each row (B,) among the keys that exist."""
    if kind == SOFTMAX.name:
        return sufficiency_loss(logits, labels)
    is_pair = jnp.arange(logits.shape[1])[None, :] == labels[:, None]
    return jnp.where(usable[None, :], jax.nn.softplus(jnp.where(is_pair, -logits, logits)), 0).sum(1)
