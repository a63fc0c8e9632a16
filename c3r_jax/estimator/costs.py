"""What a fit does where single modalities know causes of the label that the others do not see."""

from collections.abc import Mapping

import numpy as np

from c3r_jax.core.config import C3RConfig
from c3r_jax.core.own_causes import OwnCauses, own_causes
from c3r_jax.evaluation.collapse import label_entropy, mean_loss
from c3r_jax.step.in_memory import Rows

ACTS = 0.1  # explained share below which the gate leaves next to nothing of what could silence a modality


def own_causes_of(rows: Rows, num_classes: int, source: np.ndarray, weights: np.ndarray | None) -> OwnCauses:
    """:func:`own_causes` of training rows of weight above 0; copies of a row, by ``source`` (n,), are one."""
    drawn = np.arange(len(source)) if weights is None else np.flatnonzero(weights)
    first = drawn[np.unique(source[drawn], return_index=True)[1]]
    inputs = {name: values[first] for name, values in rows.inputs.items()}
    return own_causes(inputs, rows.labels[first], num_classes=num_classes, present=rows.present[first])


def own_causes_notes(
    found: OwnCauses | None,
    logits: Mapping[str, np.ndarray] | None,
    labels: np.ndarray,
    config: C3RConfig | None,
) -> list[str]:
    """A warning, as a sentence, where C3R would silence causes of the label or has silenced what may be some.

    Args:
      found: of the training rows; None: not measured.
      logits: {route: (n, K)} of held-out rows; None: there are none.
      labels: (n,) their class numbers.
      config: what C3R was trained with; None: it was left out because of what was found.
    """
    if found is None or not found.possible:
        return []
    words = f"{found.share:.0%} of what single modalities know beyond the others"
    kind = "is likely to" if found.likely else "may"
    causes = f"{words} {kind} be causes of the label that only they see rather than cues"
    if config is None:
        return [
            f"C3R trains plainly: {causes}, and silencing them would cost accuracy; if they are cues that will shift, "
            "give config=C3RConfig.strong(), or let C3RClassifierCV choose a strength."
        ]
    if not (config.expert or config.lambda_n) or (
        config.gate and logits is not None and _explained(logits, labels) < ACTS
    ):
        return []
    return [
        f"C3R may cost accuracy here: {causes}; compare with strength=0 on rows like those of use, or let "
        "C3RClassifierCV choose a strength."
    ]


def _explained(logits: Mapping[str, np.ndarray], labels: np.ndarray) -> float:
    """How much of what z predicts z_c predicts too, on held-out rows."""
    constant = label_entropy(labels)
    at_z, at_z_c = (constant - mean_loss(logits[route], labels) for route in ("representation", "instrument"))
    return float(np.clip(at_z_c / at_z, 0, 1)) if at_z > 0 else 0.0
