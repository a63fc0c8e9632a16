"""Causal Complete Cause Regularization for multi-modal learning in JAX."""

from typing import TYPE_CHECKING, Any

from c3r_jax.core.counterfactual import counterfactual
from c3r_jax.core.instrument import FirstStage, first_stage
from c3r_jax.core.regularizer import C3RConfig, C3RTerms, c3r_loss
from c3r_jax.core.risk import C3Risk, c3_risk, necessity_loss, sufficiency_loss

if TYPE_CHECKING:
    from c3r_jax.estimator.classifier import C3RClassifier
    from c3r_jax.estimator.post_hoc import PostHocInstrument

__version__ = "0.1.0"

__all__ = [
    "C3RClassifier",
    "C3RConfig",
    "C3RTerms",
    "C3Risk",
    "FirstStage",
    "PostHocInstrument",
    "c3_risk",
    "c3r_loss",
    "counterfactual",
    "first_stage",
    "necessity_loss",
    "sufficiency_loss",
]

# Imported when first asked for: whoever needs the objective alone waits neither for Flax nor for scikit-learn.
_LATER = {"C3RClassifier": "c3r_jax.estimator.classifier", "PostHocInstrument": "c3r_jax.estimator.post_hoc"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LATER[name]), name)
