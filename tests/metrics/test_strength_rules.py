"""Rules that choose a strength: each by its own figure, ties to the weaker, and never a number that is none."""

import numpy as np
import pytest

from c3r_jax.metrics.strength_rules import RULES, choose_strength

STRENGTHS = (1.0, 0.0, 2.0, 0.5)  # in any order
FIGURES = {
    "accuracy": (0.895, 0.90, 0.80, 0.90),
    "balanced_accuracy": (0.90, 0.70, 0.70, 0.70),
    "c3_risk": (0.8, 0.9, 0.7, 0.7),
    "expert_accuracy": (0.409, 0.6, 0.5, 0.4),
    "group_accuracy": (0.6, 0.5, 0.7, 0.5),
    "worst_group": (0.4, 0.4, 0.3, 0.2),
}
CHOICES = {
    "accuracy": 0.0,
    "one_standard_error": 1.0,
    "balanced_accuracy": 1.0,
    "c3_risk": 0.5,
    "expert_accuracy": 1.0,
    "held_out_groups": 2.0,
    "worst_group": 0.0,
}

ERRORS = {"accuracy": [0.006] * 4, "expert_accuracy": [0.01] * 4}  # with that of accuracy, experts choose otherwise


def test_every_rule_has_its_choice():
    assert CHOICES.keys() == RULES.keys()
    for rule, strength in CHOICES.items():
        assert STRENGTHS[choose_strength(rule, STRENGTHS, FIGURES, ERRORS)] == strength, rule


@pytest.mark.parametrize(("error", "strength"), [(0.0, 0.5), (0.004, 0.5), (0.006, 1.0), (0.2, 2.0), (np.nan, 0.5)])
def test_the_strongest_within_one_standard_error(error, strength):
    """The error is that of the best, here of strength 0."""
    errors = {"accuracy": [9.0, error, 9.0, 9.0]}
    assert STRENGTHS[choose_strength("one_standard_error", STRENGTHS, FIGURES, errors)] == strength


def test_a_strength_without_a_number_is_never_chosen():
    figures = {"accuracy": [0.5, np.nan, np.inf, 0.4], "c3_risk": [np.nan, np.nan, 0.3, np.nan]}
    for rule, index in (("accuracy", 0), ("one_standard_error", 0), ("c3_risk", 2)):
        assert choose_strength(rule, [0, 1, 2, 3], figures, {"accuracy": [0.0] * 4}) == index, rule
    with pytest.raises(ValueError, match="no strength has a finite accuracy"):
        choose_strength("accuracy", [0, 1], {"accuracy": [np.nan, np.nan]}, {})
