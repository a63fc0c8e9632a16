"""Causal Complete Cause Regularization for multi-modal learning in JAX."""

from typing import TYPE_CHECKING, Any

from c3r_jax.version import __version__

if TYPE_CHECKING:
    from c3r_jax.core.config import C3RConfig
    from c3r_jax.core.counterfactual import counterfactual
    from c3r_jax.core.expert import residual_experts
    from c3r_jax.core.first_stage import FirstStage, first_stage
    from c3r_jax.core.held_out import held_out_share
    from c3r_jax.core.instruments import no_moments
    from c3r_jax.core.moments import Moments, merge_moments
    from c3r_jax.core.objective import c3r_loss
    from c3r_jax.core.own_causes import OwnCauses, own_causes
    from c3r_jax.core.risk import C3Risk, c3_risk, necessity_loss, sufficiency_loss
    from c3r_jax.core.rows_experts import experts_of_rows
    from c3r_jax.core.tasks.classification import Classification
    from c3r_jax.core.terms import C3RTerms
    from c3r_jax.estimator.classifier import C3RClassifier
    from c3r_jax.estimator.path import C3RClassifierCV
    from c3r_jax.estimator.post_hoc import PostHocInstrument
    from c3r_jax.estimator.table import MultiModal

__all__ = [
    "C3RClassifier",
    "C3RClassifierCV",
    "C3RConfig",
    "C3RTerms",
    "C3Risk",
    "Classification",
    "FirstStage",
    "Moments",
    "MultiModal",
    "OwnCauses",
    "PostHocInstrument",
    "__version__",
    "c3_risk",
    "c3r_loss",
    "counterfactual",
    "experts_of_rows",
    "first_stage",
    "held_out_share",
    "merge_moments",
    "necessity_loss",
    "no_moments",
    "own_causes",
    "residual_experts",
    "sufficiency_loss",
]

# Imported when first asked for: a report needs no JAX, the objective and the audit neither Flax nor scikit-learn.
_HOMES = {
    "core.config": ("C3RConfig",),
    "core.counterfactual": ("counterfactual",),
    "core.expert": ("residual_experts",),
    "core.first_stage": ("FirstStage", "first_stage"),
    "core.held_out": ("held_out_share",),
    "core.instruments": ("no_moments",),
    "core.moments": ("Moments", "merge_moments"),
    "core.objective": ("c3r_loss",),
    "core.own_causes": ("OwnCauses", "own_causes"),
    "core.risk": ("C3Risk", "c3_risk", "necessity_loss", "sufficiency_loss"),
    "core.rows_experts": ("experts_of_rows",),
    "core.tasks.classification": ("Classification",),
    "core.terms": ("C3RTerms",),
    "estimator.classifier": ("C3RClassifier",),
    "estimator.path": ("C3RClassifierCV",),
    "estimator.post_hoc": ("PostHocInstrument",),
    "estimator.table": ("MultiModal",),
}
_EXTRAS = {"C3RClassifier": "sklearn", "C3RClassifierCV": "sklearn"}  # what the small install lacks
_LATER = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    from c3r_jax.errors import extra_of

    with extra_of(name, _EXTRAS.get(name, "train")):
        return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
