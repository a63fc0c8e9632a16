"""Causal Complete Cause Regularization for multi-modal learning in JAX."""

from c3r_jax.core.counterfactual import counterfactual
from c3r_jax.core.instrument import FirstStage, first_stage
from c3r_jax.core.regularizer import C3RConfig, C3RTerms, c3r_loss
from c3r_jax.core.risk import C3Risk, c3_risk, necessity_loss, sufficiency_loss

__version__ = "0.1.0"

__all__ = [
    "C3RConfig",
    "C3RTerms",
    "C3Risk",
    "FirstStage",
    "c3_risk",
    "c3r_loss",
    "counterfactual",
    "first_stage",
    "necessity_loss",
    "sufficiency_loss",
]
