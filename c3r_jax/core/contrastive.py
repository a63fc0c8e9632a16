"""C3R for contrastive pretraining: the label of an example is the example itself, seen through its other modalities."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from c3r_jax.core.batch import check_where, global_mean, keep, promote
from c3r_jax.core.batch_checks import check_kinds, checked_features, checked_present
from c3r_jax.core.cap import Cap, Losses, capped_loss
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.gate import cap_of, is_zero
from c3r_jax.core.instruments import Features
from c3r_jax.core.mapped_axes import checked_axis, has_explicit_axes
from c3r_jax.core.matching import OWN, PAIRS, Match, Matching, match_rows
from c3r_jax.core.moments import Moments
from c3r_jax.core.objective import c3r_loss
from c3r_jax.core.terms import C3RTerms
from c3r_jax.core.worlds import Fitted, real_world
from c3r_jax.tasks.contrastive import SIGMOID, SOFTMAX
from c3r_jax.tasks.registry import CONTRASTIVE

DEFAULT = C3RConfig()


class ContrastiveTerms(NamedTuple):
    """Terms of :func:`contrastive_c3r_loss` (scalars of the global batch, means over the modalities).

    Attributes:
      task: the contrastive loss, in nats.
      accuracy: share of examples whose own key is the best match in the batch.
      c3r: {modality: :class:`C3RTerms`} for that modality's matching, whose ``logits`` are the outputs of
        :func:`c3r_jax.core.matching.match_rows`; {} where C3R is off.
      moments: :class:`Moments` of the batch's unit representations; None without an instrument.
      cap: :class:`Cap`, how strong the gradient of C3R's terms was; None without a cap. With a cap only the loss can be
        differentiated.
    """

    task: Float[Array, ""]
    accuracy: Float[Array, ""]
    c3r: dict[str, C3RTerms]
    moments: Moments | None
    cap: Cap | None = None


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
    chunks: int | None = None,
) -> tuple[Float[Array, ""], ContrastiveTerms]:
    r"""Contrastive loss of one global batch with C3R's terms, for any encoders and any number of modalities.

    Each modality m of example i is matched against the keys k of all examples of the batch (the unit mean of the other
    modalities; with image and text, a CLIP model):

    .. math::
       softmax: -\log \frac{e^{\ell_{ii}}}{\sum_j e^{\ell_{ij}}}, \quad
       sigmoid: -\sum_j \log \sigma(\pm \ell_{ij}), \quad \ell_{ij} = \text{match}(h^m_i, k_j)

    z = h^m, so the instrument for an image is its text: z_c is the part of the image that the text explains, and
    must match the text; z_bar is the image without that part, and must not: necessity "kl" is KL(1/n || p(z_bar)), n
    the number of keys that exist. The softmax losses of C3R use the same logits. The mean over modalities is returned.

    C3R's terms steer and never overrule: necessity counts as far as z_c finds the keys that z finds
    (:func:`c3r_jax.core.gate.explained_share` of the softmax losses at z and z_c and of log n), and the gradient of all
    terms with respect to the features and what ``match`` closes over is at most ``config.cap`` times that share of the
    contrastive loss's, the mean over modalities.

    Args:
      match: queries (B, d), keys (N, d) -> logits (B, N), e.g. ``lambda q, k: scale * q @ k.T + bias``; each logit
        is of its query and its key alone.
      features: {name: (B, d)} representations of equal width; they are scaled to length 1 here.
      kind: "softmax" (CLIP) or "sigmoid" (SigLIP).
      config: weights and modes; ``w_task`` is the weight of the contrastive loss; ``expert``, ``subsets`` and
        ``prior`` are about classes and not read.
      regularised: False: the contrastive loss alone, at no further cost.
      present: (B, M) bool, columns in sorted order of the names.
      where: (B,) bool, rows that count; other rows are not keys.
      axis_name: mapped axis over which the batch is split.
      key: PRNG key for counterfactual "permute".
      chunks: None: each device gathers all keys. A number, for large batches: keys go round the devices, and each
        device has logits of its examples against one of so many parts of a device's keys in memory at a time.

    Returns:
      The loss and :class:`ContrastiveTerms`.

    Raises:
      ValueError: on an unknown kind, modalities of different widths, or fewer than two.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> image = jax.random.normal(jax.random.key(0), (64, 8))
      >>> text = image + 0.1 * jax.random.normal(jax.random.key(1), (64, 8))
      >>> compute = jax.jit(lambda h: contrastive_c3r_loss(lambda q, k: 20 * q @ k.T, h))  # not compiled, it is slow
      >>> loss, terms = compute({"image": image, "text": text})
      >>> bool(terms.accuracy > 0.9), bool(terms.c3r["image"].risk.sufficiency < 0.1)
      (True, True)

    References:
      A. Radford et al., Learning transferable visual models from natural language supervision, 2021.
      X. Zhai et al., Sigmoid loss for language image pre-training, 2023.
    """
    check_kinds(features, config)
    if kind not in CONTRASTIVE:
        raise ValueError(f"contrastive kind {kind!r} is unknown: expected one of {', '.join(CONTRASTIVE)}.")
    if not is_zero(config.label_smoothing):
        raise ValueError(
            f"C3RConfig.label_smoothing is {config.label_smoothing}, but an example's own key is its only label: use 0."
        )
    if chunks is not None and (isinstance(chunks, str) or chunks < 1 or chunks != int(chunks)):
        raise ValueError(f"chunks is {chunks!r}, but None or a whole number of at least 1 was expected.")
    features = checked_features(features)
    widths = {name: h.shape[1] for name, h in features.items()}
    if len(widths) < 2 or len(set(widths.values())) != 1:
        raise ValueError(f"features have widths {widths}, but at least two modalities of equal width were expected.")
    if config.prior is not None:
        config = dataclasses.replace(config, prior=None)  # of classes: every key is as likely as any other
    if has_explicit_axes(features):
        raise ValueError(
            "features lie on a mesh with axes of type Explicit, for which matchings are not made: make the mesh with "
            "axis_types=(jax.sharding.AxisType.Auto,) * n, or run the loss under jax.shard_map with axis_name."
        )
    axis_name = checked_axis(axis_name)
    num_examples = next(iter(features.values())).shape[0]
    present = checked_present(present, num_examples, sorted(features))
    given, where = where, check_where(where, num_examples)  # without a mask, rows are counted before tracing
    features = {name: keep(where & present[:, m], h) for m, (name, h) in enumerate(features.items())}

    def losses(features: Features) -> tuple[tuple[Array, Array], ContrastiveTerms]:
        return _losses(
            match,
            features,
            kind=kind,
            config=config,
            regularised=regularised,
            present=present,
            where=where,
            given=given,
            axis_name=axis_name,
            key=key,
            chunks=chunks,
        )

    if not regularised or any(is_zero(x) for x in (config.cap, config.w_task, config.strength)):
        (task, others), terms = losses(features)
        return task + others, terms
    pure, of_match = _with_parameters(losses, match, features)
    loss, cap, terms = capped_loss(pure, features, of_match, cap=cap_of(config, _mean_explained), axis_name=axis_name)
    return loss, terms._replace(cap=cap)


def _mean_explained(terms: ContrastiveTerms) -> Float[Array, ""]:
    """The mean explained share of the matchings, which share one cap; with a gate all have one."""
    return jnp.stack([x.explained for x in terms.c3r.values() if x.explained is not None]).mean()


def _with_parameters(losses: Callable[[Features], Any], match: Match, features: Features) -> tuple[Losses, list[Array]]:
    """The losses as a function of the features and of what ``match`` closes over, such as a learned scale; its values.

    ``match`` is called with several shapes, so all of the losses are converted; what they close over besides, such as
    weights that vary from one strength to the next, is not of the model and stays where it is.
    """
    h = next(iter(features.values()))
    _, of_match = jax.closure_convert(lambda queries, keys: match(queries, keys), promote(h), promote(h))
    pure, all_of_them = jax.closure_convert(losses, features)
    own = [any(value is of_model for of_model in of_match) for value in all_of_them]

    def function(features: Features, parameters: list[Array]) -> Any:
        given = iter(parameters)
        return pure(features, *(next(given) if of_model else x for x, of_model in zip(all_of_them, own, strict=True)))

    return function, [value for value, of_model in zip(all_of_them, own, strict=True) if of_model]


def _losses(
    match: Match,
    features: Features,
    *,
    kind: str,
    config: C3RConfig,
    regularised: bool,
    present: Bool[Array, "batch modalities"],
    where: Bool[Array, " batch"],
    given: Any,
    axis_name: str | None,
    key: Array | None,
    chunks: int | None,
) -> tuple[tuple[Float[Array, ""], Float[Array, ""]], ContrastiveTerms]:
    """The weighted contrastive loss, the sum of all other weighted terms, and the terms."""
    h = {name: unit(value) for name, value in features.items()}
    # The task's part, experts and subsets are about classes; the cap is around all matchings together.
    without_task = dataclasses.replace(config, w_task=0.0, label_smoothing=0.0, expert=0.0, subsets=0.0, cap=0.0)
    shared = shared_first_stage(h, present, where, config, axis_name, given=given) if regularised else None
    measured, c3r = [], {}
    for m, name in enumerate(h):
        partners, exists = others_mean(h, present, name)
        rows = where & exists & present[:, m]
        pairs = kind == SIGMOID.name
        predict, labels, matching = match_rows(match, partners, rows, axis_name=axis_name, chunks=chunks, pairs=pairs)
        outputs = predict(h[name])
        columns = jnp.stack([pair_loss(kind, outputs, labels, matching), matching.correct(outputs, labels)], axis=1)
        task, accuracy = global_mean(columns, rows, axis_name)
        others = jnp.zeros_like(task)
        if regularised:
            others, c3r[name] = c3r_loss(
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
                task=matching,
            )
        measured.append((task, others, accuracy))
    # One by one: in one array, the slope of the task would go through C3R's terms, and over the devices, as zeros.
    task, others, accuracy = (jnp.stack(values).mean() for values in zip(*measured, strict=True))
    moments = next(iter(c3r.values())).moments if c3r else None
    return (config.w_task * task, others), ContrastiveTerms(task, accuracy, c3r, moments)


def shared_first_stage(
    h: Features,
    present: Bool[Array, "batch modalities"],
    where: Bool[Array, " batch"],
    config: C3RConfig,
    axis_name: str | None = None,
    *,
    given: Any,
) -> Fitted | None:
    """The first stage of every modality on the others, fitted once for all matchings; None unless "two_stage".

    It uses the rows that have every modality, which are the same for each matched modality.

    Args:
      h: {name: (B, d)} unit representations, zero where absent.
      present: (B, M) bool.
      where: (B,) bool, rows that count.
      config: instrument and ridge.
      axis_name: mapped axis over which the batch is split.
      given: the rows as the caller gave them; None, that all count, can be checked before tracing.
    """
    if config.instrument != "two_stage":
        return None
    first = next(iter(h))
    return real_world(lambda h, _: h[first], h, h[first], config, present, where, given, axis_name)


def of_modality(shared: Fitted | None, name: str) -> Fitted | None:
    """The result of :func:`shared_first_stage` for one matched modality: z_c is the part that the others explain."""
    if shared is None:
        return None
    real, relevance, moments = shared
    assert real.h_hat is not None
    return real._replace(z_c=real.h_hat[name]), relevance, moments


def pair_loss(
    kind: str, outputs: Float[Array, "batch columns"], labels: Array, matching: Matching
) -> Float[Array, " batch"]:
    """The contrastive loss of each row among the keys that exist, from the outputs of :func:`match_rows`."""
    if kind == SOFTMAX.name:
        return matching.loss(outputs, labels)
    return outputs[:, PAIRS] + jax.nn.softplus(-outputs[:, OWN])
