"""Causal Complete Cause Regularization for multi-modal learning in JAX."""

from typing import TYPE_CHECKING, Any

from c3r_jax.version import __version__

if TYPE_CHECKING:
    from c3r_jax.core.config import C3RConfig
    from c3r_jax.core.counterfactual import counterfactual
    from c3r_jax.core.first_stage import FirstStage, first_stage
    from c3r_jax.core.objective import C3RTerms, c3r_loss
    from c3r_jax.core.risk import C3Risk, c3_risk, necessity_loss, sufficiency_loss
    from c3r_jax.estimator.classifier import C3RClassifier
    from c3r_jax.estimator.path import C3RClassifierCV
    from c3r_jax.estimator.post_hoc import PostHocInstrument

__all__ = [
    "C3RClassifier",
    "C3RClassifierCV",
    "C3RConfig",
    "C3RTerms",
    "C3Risk",
    "FirstStage",
    "PostHocInstrument",
    "__version__",
    "c3_risk",
    "c3r_loss",
    "counterfactual",
    "first_stage",
    "necessity_loss",
    "sufficiency_loss",
]

# Imported when first asked for: a report needs no JAX, the objective neither Flax nor scikit-learn.
_HOMES = {
    "core.config": ("C3RConfig",),
    "core.counterfactual": ("counterfactual",),
    "core.first_stage": ("FirstStage", "first_stage"),
    "core.objective": ("C3RTerms", "c3r_loss"),
    "core.risk": ("C3Risk", "c3_risk", "necessity_loss", "sufficiency_loss"),
    "estimator.classifier": ("C3RClassifier",),
    "estimator.path": ("C3RClassifierCV",),
    "estimator.post_hoc": ("PostHocInstrument",),
}
_LATER = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
