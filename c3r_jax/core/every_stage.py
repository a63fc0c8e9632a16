"""The first stages of all modalities at once, each on all the others, from one set of joint moments."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from c3r_jax.core import shared_inverses
from c3r_jax.core.available import imputed_moments
from c3r_jax.core.batch import promote
from c3r_jax.core.first_stage import FirstStage, fit_parts, penalised, predict_rows, varies_from, where_varying
from c3r_jax.core.moments import Moments, diagonal
from c3r_jax.core.others import of_others, of_own


def columns(features: Mapping[str, Array]) -> dict[str, slice]:
    """The columns of each modality in the concatenated features."""
    ends, begin = {}, 0
    for name, h in features.items():
        ends[name] = slice(begin, begin + h.shape[1])
        begin += h.shape[1]
    return ends


def fit_modalities(
    moments: Moments,
    blocks: Mapping[str, slice],
    *,
    ridge: float,
    stop_gradient: bool = False,
    axis_name: Any = None,
) -> dict[str, FirstStage]:
    """Fits, from one set of joint moments, the first stage of every modality on all the others.

    One inverse of the joint covariance would be enough only with one shared penalty; here the penalty is relative to
    the variance of each instrument, so every modality needs its own solve.

    Args:
      moments: joint :class:`Moments` of the concatenated features, over rows that have every modality; or of each
        modality's own rows (:func:`c3r_jax.core.available.available_moments`).
      blocks: {name: columns} from :func:`columns`.
      ridge: penalty relative to the mean variance of each instrument.
      stop_gradient: treat the coefficients as constants.
      axis_name: mapped axis whose devices all have these moments, and may share the work.

    Returns:
      {name: :class:`FirstStage`} with ``fitted`` empty (0, d_name).
    """
    own = moments.count.ndim > 0
    rows = jax.vmap(lambda moments: imputed_moments(moments, blocks))(moments) if own else moments
    solve = partial(fit_parts, ridge=ridge, stop_gradient=stop_gradient)
    if len({block.stop - block.start for block in blocks.values()}) == 1:
        # Stages of equal shapes are one batched solve: the program does not grow with the number of modalities.
        wide = moments.mean.shape[-1] >= shared_inverses.WIDE * len(blocks)
        parts = _of_two(rows) if wide and len(blocks) == 2 else _of_each(rows, len(blocks))
        inverses = _inverses(parts, ridge, axis_name)
        together = jax.vmap(lambda parts, inverse: solve(*parts, inverse=inverse))(parts, inverses)
        return {name: FirstStage(*(value[m] for value in together)) for m, name in enumerate(blocks)}
    stages = {}
    for m, (name, block) in enumerate(blocks.items()):
        others = [other for key, other in blocks.items() if key != name]
        count, mean, cov = (x[m] if own else x for x in rows)
        # Slices and not lists of indices, whose gradient is a scatter: it compiles to many kernels.
        between = jnp.concatenate(
            [jnp.concatenate([cov[one, other] for other in others], axis=1) for one in others], axis=0
        )
        across = jnp.concatenate([cov[one, block] for one in others])
        mean_v = jnp.concatenate([mean[one] for one in others])
        variance = diagonal(cov)
        var_v = jnp.concatenate([variance[one] for one in others])
        stages[name] = solve(count, mean_v, mean[block], between, across, var_v, variance[block])
    return stages


def _of_each(moments: Moments, stages: int) -> tuple[Array, ...]:
    """The parts of the moments that :func:`fit_parts` needs, for each stage (M, ...)."""
    own = moments.count.ndim > 0
    each = moments if own else Moments(*(jnp.broadcast_to(x, (stages, *x.shape)) for x in moments))
    between, variance = of_others(each.cov, 1), jax.vmap(diagonal)(each.cov)
    (mean_v, mean_h), (var_v, var_h) = ((of_others(x, 1), of_own(x, 1)) for x in (each.mean, variance))
    return each.count, mean_v, mean_h, of_others(between, 2), of_own(between, 2), var_v, var_h


def _of_two(moments: Moments) -> tuple[Array, ...]:
    """:func:`_of_each` for two wide stages on the same rows: blocks as they are, which a TPU need not move.

    Joining blocks takes long to compile for CPUs, and selecting between blocks of narrow stages is fast enough.
    """
    (a, ab), (ba, b) = (jnp.split(rows, 2, axis=1) for rows in jnp.split(moments.cov, 2, axis=0))
    mean, variance = moments.mean.reshape(2, -1), jnp.stack([diagonal(a), diagonal(b)])
    count = jnp.broadcast_to(moments.count, (2,))
    return count, mean[::-1], mean, jnp.stack([b, a]), jnp.stack([ba, ab]), variance[::-1], variance


def _inverses(parts: tuple[Array, ...], ridge: float, axis_name: Any) -> Float[Array, "modalities p p"] | None:
    """The inverses that the solves need, each made by one device; None where every device makes its own."""
    _, mean_v, _, cov_vv, _, var_v, _ = jax.lax.stop_gradient(parts)
    if not shared_inverses.are_shared(len(cov_vv), cov_vv.shape[1], axis_name):
        return None
    of_v = varies_from(var_v, mean_v)
    var_v = jnp.where(of_v, var_v, 0)
    varying = jax.vmap(where_varying)(of_v, cov_vv)
    a = jax.vmap(lambda cov, variance: penalised(cov, ridge, variance)[0])(varying, var_v)
    condition, largest = penalised(cov_vv[0], ridge, var_v[0])[1], None
    if condition is not None:
        # No eigenvalue is above the trace, but for rounding, and the ridge relative to it is known: steps are saved.
        of_trace = 1.001 * condition / cov_vv.shape[1] ** 0.5
        if of_trace < 1 / jnp.finfo(a.dtype).eps:
            condition, largest = of_trace, 1.001 * (1 + ridge) * var_v.sum(1)
    return shared_inverses.shared_inverses(a, largest=largest, condition=condition, axis_name=axis_name)


def apply_modalities(
    stages: Mapping[str, FirstStage],
    features: Mapping[str, Float[Array, "batch _"]],
    present: Bool[Array, "batch modalities"],
) -> tuple[dict[str, Array], Bool[Array, "batch modalities"]]:
    """Predicts every modality from the others, row by row; an absent block of the instrument counts as its mean.

    Args:
      stages: {name: :class:`FirstStage`} from :func:`fit_modalities`, in the order of ``features``.
      features: {name: (B, d_name)}.
      present: (B, M) bool.

    Returns:
      ``h_hat`` {name: (B, d_name)} in the dtype of the features, and its mask (B, M): h_hat[m] exists if any other
      modality does.
    """
    names, h_hat = list(features), {}
    if len({h.shape[1] for h in features.values()}) == 1:
        together = FirstStage(*(jnp.stack(values) for values in zip(*stages.values(), strict=True)))
        x = jnp.concatenate([promote(h) for h in features.values()], axis=1)
        known = jnp.repeat(present, x.shape[1] // len(names), axis=1, total_repeat_length=x.shape[1])
        v, known = (of_others(jnp.broadcast_to(a, (len(names), *a.shape)), 2) for a in (x, known))
        fitted = jax.vmap(predict_rows)(together, jnp.where(known, v, together.mean_v[:, None, :]))
        h_hat = {name: fitted[m].astype(features[name].dtype) for m, name in enumerate(names)}
    else:
        for name, stage in stages.items():
            others = [n for n in names if n != name]
            means = jnp.split(stage.mean_v, _ends([features[n].shape[1] for n in others]))
            blocks = [
                jnp.where(present[:, names.index(n), None], promote(features[n]), mean[None, :])
                for n, mean in zip(others, means, strict=True)
            ]
            h_hat[name] = predict_rows(stage, jnp.concatenate(blocks, axis=1)).astype(features[name].dtype)
    counts = present.sum(1, keepdims=True)
    return h_hat, (counts - present.astype(counts.dtype)) > 0


def _ends(sizes: list[int]) -> list[int]:
    total, ends = 0, []
    for size in sizes[:-1]:
        total += size
        ends.append(total)
    return ends
