"""The relevance loss L_v: what the instruments leave unexplained, and how far a batch has the rows to train on it."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from c3r_jax.core.first_stage import FirstStage


class Relevance(NamedTuple):
    """L_v of a batch.

    Attributes:
      measured: mean of 1 - R^2 over modalities and features.
      supported: the same mean with each stage times its :func:`supported_share`; what ``C3RConfig.gate`` trains on.
    """

    measured: Float[Array, ""]
    supported: Float[Array, ""]


def supported_share(num_rows: Float[Array, "*modalities"], num_columns: int) -> Float[Array, "*modalities"]:
    r"""How far a first stage's R^2 is about more than its own rows: 0 up to 3 rows for each column, 1 from 6 on.

    .. math::
       \left[ \frac{n}{3p} - 1 \right]_0^1

    p columns of pure noise explain p/n of anything in-sample: at n = 3p still a third. To raise such an R^2 is to fit
    this batch.

    Args:
      num_rows: n of each stage.
      num_columns: p of the instrument.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(supported_share(jnp.array([20.0, 45.0, 70.0]), 10).round(3))
      [0.  0.5 1. ]
    """
    return jnp.clip(num_rows / (3 * num_columns) - 1, 0, 1)


def relevance(stages: Mapping[str, FirstStage], num_rows: Float[Array, "*modalities"]) -> Relevance:
    """Mean over modalities and features of 1 - R^2 (scale-free), of stages that have rows; zero if none has."""
    num_rows = jnp.broadcast_to(num_rows, (len(stages),))
    unexplained = jnp.concatenate([1 - stage.r2 for stage in stages.values()])
    columns = [stage.coef.shape for stage in stages.values()]  # (p, d)
    fitted = jnp.concatenate([jnp.broadcast_to(n > 0, d) for n, (_, d) in zip(num_rows, columns, strict=True)])
    share = [jnp.broadcast_to(supported_share(n, p), d) for n, (p, d) in zip(num_rows, columns, strict=True)]
    count = jnp.maximum(fitted.sum(), 1)
    unexplained = jnp.where(fitted, unexplained, 0)
    return Relevance(unexplained.sum() / count, (jnp.concatenate(share) * unexplained).sum() / count)
