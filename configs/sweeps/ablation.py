"""Every part, term, instrument and counterfactual of the default objective, where the true cause is known.

python -m c3r_jax.sweep --config=configs/sweeps/ablation.py --workdir=runs/ablation

A cell gives what differs from the estimator's objective; docs/results.md has the table.
"""

from ml_collections import ConfigDict

from configs.sweeps import base

DEFAULT = {"preset": "default", "expert": 0.5, "row_experts": True}  # the estimator's
# Experts and the negative control exclude each other, and only the two-stage instrument has experts.
WITHOUT_EXPERTS = {"preset": "default"}
FIRST = {"preset": "hinge"}  # the first version of the objective
NO_PENALTIES = {"lambda_s": 0.0, "lambda_n": 0.0}


def get_config() -> ConfigDict:
    """Returns the ablation study."""
    config = base.get_config()
    cells = {
        "plain": {"regularised": False},
        "dropout": {"regularised": False, "dropout": 0.4},
        "c3r": DEFAULT,
        "c3r + dropout": {**DEFAULT, "dropout": 0.4},
        "strong": {"preset": "strong", "row_experts": True},
        # Each part of the default off, and parts alone.
        "without experts": WITHOUT_EXPERTS,
        "experts of each batch": {**DEFAULT, "row_experts": False},
        "without subsets": {**DEFAULT, "subsets": 0.0},
        "half of subsets": {**DEFAULT, "subsets": 0.5},
        "without cap": {**DEFAULT, "cap": 0.0},
        "without gate": {**DEFAULT, "gate": False},
        "without penalties": {**DEFAULT, **NO_PENALTIES},
        "subsets alone": {**WITHOUT_EXPERTS, **NO_PENALTIES},
        # Each term off.
        "without sufficiency": {**DEFAULT, "lambda_s": 0.0},
        "without necessity": {**DEFAULT, "lambda_n": 0.0},
        "with relevance": {**DEFAULT, "lambda_v": 1.0},
        "with closeness": {**DEFAULT, "lambda_fe": 0.4},
        # The instrument; the row to compare with is "without experts".
        "attention, others": {**WITHOUT_EXPERTS, "instrument": "attention"},
        "attention, all": {**WITHOUT_EXPERTS, "instrument": "attention", "attention_keys": "all"},
        "no instrument": {**WITHOUT_EXPERTS, "instrument": "none"},
        "shuffled instrument": {**WITHOUT_EXPERTS, "shuffled": True},
        "stop-gradient": {**DEFAULT, "stop_gradient": True},
        # The counterfactual.
        "gradient, 1 step": {**DEFAULT, "counterfactual": "gradient"},
        "gradient, 5 steps": {**DEFAULT, "counterfactual": "gradient", "num_steps": 5},
        "removal": {**DEFAULT, "counterfactual": "removal"},
        "minimal": {**DEFAULT, "counterfactual": "minimal"},
        "instrumented": {**DEFAULT, "counterfactual": "instrumented"},
        "mean": {**DEFAULT, "counterfactual": "mean"},
        "permute": {**DEFAULT, "counterfactual": "permute"},
        # The necessity term.
        "shares": {**DEFAULT, "necessity": "kl"},
        "hinge": {**DEFAULT, "necessity": "hinge"},
        "log": {**DEFAULT, "necessity": "log"},
        # The first version, and what its hinge needs to gain what it does.
        "first version": FIRST,
        "first version, shuffled instrument": {**FIRST, "shuffled": True},
        # What the public PyTorch code computes, made runnable (docs/pytorch.md).
        "official_compat": {"official": True},
    }
    config.cells = ConfigDict(cells)
    return config
