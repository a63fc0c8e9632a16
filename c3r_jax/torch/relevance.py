"""The relevance loss L_v, as :mod:`c3r_jax.core.relevance`."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from c3r_jax.torch.first_stage import FirstStage


class Relevance(NamedTuple):
    """L_v of a batch, as it is and with each stage times its :func:`supported_share`; ``gate`` trains on the latter."""

    measured: Float[Tensor, ""]
    supported: Float[Tensor, ""]


def supported_share(num_rows: Float[Tensor, "*modalities"], num_columns: int) -> Float[Tensor, "*modalities"]:
    """How far a first stage's R^2 is about more than its own rows: 0 up to 3 rows for each column, 1 from 6 on."""
    return (num_rows / (3 * num_columns) - 1).clamp(0, 1)


def relevance(stages: Mapping[str, FirstStage], num_rows: Float[Tensor, "*modalities"]) -> Relevance:
    """Mean over modalities and features of 1 - R^2 (scale-free), of stages that have rows; zero if none has."""
    num_rows = num_rows.expand(len(stages))
    unexplained = torch.cat([1 - stage.r2 for stage in stages.values()])
    columns = [stage.coef.shape for stage in stages.values()]  # (p, d)
    fitted = torch.cat([(n > 0).expand(d) for n, (_, d) in zip(num_rows, columns, strict=True)])
    share = torch.cat([supported_share(n, p).expand(d) for n, (p, d) in zip(num_rows, columns, strict=True)])
    count = fitted.sum().clamp(min=1)
    unexplained = torch.where(fitted, unexplained, 0)
    return Relevance(unexplained.sum() / count, (share * unexplained).sum() / count)
