"""C3R for PyTorch: the objective of :mod:`c3r_jax` on tensors, with its names, defaults and masks; imports no JAX."""

try:
    import torch as _torch  # noqa: F401  (asked for first, so that the reason is clear)
except ImportError as error:
    raise ImportError("c3r_jax.torch needs PyTorch, which is not installed: pip install 'c3r-jax[torch]'.") from error

from c3r_jax.objective_config import C3RConfig
from c3r_jax.torch.counterfactual import counterfactual
from c3r_jax.torch.first_stage import FirstStage, first_stage
from c3r_jax.torch.held_out import held_out_share
from c3r_jax.torch.instruments import no_moments
from c3r_jax.torch.moments import Moments, merge_moments
from c3r_jax.torch.multilabel import MultiLabel
from c3r_jax.torch.objective import C3RTerms, c3r_loss
from c3r_jax.torch.regression import Regression
from c3r_jax.torch.risk import C3Risk, c3_risk, necessity_loss, sufficiency_loss

__all__ = [
    "C3RConfig",
    "C3RTerms",
    "C3Risk",
    "FirstStage",
    "Moments",
    "MultiLabel",
    "Regression",
    "c3_risk",
    "c3r_loss",
    "counterfactual",
    "first_stage",
    "held_out_share",
    "merge_moments",
    "necessity_loss",
    "no_moments",
    "sufficiency_loss",
]
