"""Rules that choose how strong C3R is, from what validation rows say of each strength."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Rule(NamedTuple):
    """A rule: the best value of a figure.

    Attributes:
      figure: the figure that it reads.
      lowest: whether low values are good.
      tolerated: standard errors by which the choice may be worse than the best; the strongest of these is chosen.
      groups: whether the rows have to be in groups.
    """

    figure: str
    lowest: bool = False
    tolerated: float = 0.0
    groups: bool = False


RULES = {
    "accuracy": Rule("accuracy"),
    "one_standard_error": Rule("accuracy", tolerated=1.0),
    "held_out_groups": Rule("group_accuracy", groups=True),
    "worst_group": Rule("worst_group", groups=True),
    "balanced_accuracy": Rule("balanced_accuracy"),
    "c3_risk": Rule("c3_risk", lowest=True),
    "expert_accuracy": Rule("expert_accuracy", lowest=True, tolerated=1.0),
}


def choose_strength(
    rule: str, strengths: Sequence[float], figures: Mapping[str, ArrayLike], errors: Mapping[str, ArrayLike]
) -> int:
    """The index of the strength that a rule chooses; among equals the weakest, but see those with a standard error.

    ==================== ====================================================================================
    accuracy             the highest accuracy
    one_standard_error   the strongest whose accuracy is within one standard error of the highest
    held_out_groups      the highest mean accuracy over groups that were left out of training
    worst_group          the highest accuracy in the worst of these groups
    balanced_accuracy    the highest mean recall over classes
    c3_risk              the lowest C3 risk
    expert_accuracy      the strongest whose accuracy of experts on what was learned, beyond the instrument, is within
                         one standard error of the lowest
    ==================== ====================================================================================

    Args:
      rule: a name of :data:`RULES`.
      strengths: (S,) in any order.
      figures: {figure: (S,)}, at least the rule's; NaN where a strength cannot be chosen.
      errors: {figure: (S,) its standard errors}, of which the best strength's is read; of the figures of rules that
        tolerate one.

    Returns:
      The index.

    Raises:
      ValueError: no strength has a number.

    Examples:
      >>> accuracy = {"accuracy": [0.90, 0.91, 0.905, 0.80]}
      >>> rules, errors = ("accuracy", "one_standard_error"), {"accuracy": [0.01] * 4}
      >>> [choose_strength(rule, [0, 0.5, 1, 2], accuracy, errors) for rule in rules]
      [1, 2]

    References:
      L. Breiman et al., Classification and regression trees, 1984 (the rule of one standard error).
    """
    chosen = RULES[rule]
    values = np.asarray(figures[chosen.figure], np.float64) * (-1 if chosen.lowest else 1)
    if not np.isfinite(values).any():
        raise ValueError(f"no strength has a finite {chosen.figure}: {figures[chosen.figure]}.")
    order = sorted(range(len(strengths)), key=lambda i: strengths[i])
    best = max(order, key=lambda i: values[i] if math.isfinite(values[i]) else -math.inf)
    if not chosen.tolerated:
        return best
    values = np.where(np.isfinite(values), values, -np.inf)
    least = values[best] - chosen.tolerated * np.nan_to_num(np.asarray(errors[chosen.figure])[best])
    return max((i for i in order if values[i] >= least), key=lambda i: strengths[i])
