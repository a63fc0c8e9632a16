"""Every term, instrument and counterfactual of C3R on its own, where the true cause is known.

python -m c3r_jax.sweep --config=configs/sweeps/ablation.py --workdir=runs/ablation

A cell gives what differs from the defaults of C3RConfig; docs/results.md has the table.
"""

from ml_collections import ConfigDict

from configs.sweeps import base


def get_config() -> ConfigDict:
    """Returns the ablation study."""
    config = base.get_config()
    config.cells = ConfigDict(
        {
            "plain": {"regularised": False},
            "dropout": {"regularised": False, "dropout": 0.4},
            "c3r": {},
            "c3r + dropout": {"dropout": 0.4, "lambda_n": 2.0},
            # Each term off.
            "without sufficiency": {"lambda_s": 0.0},
            "without necessity": {"lambda_n": 0.0},
            "without relevance": {"lambda_v": 0.0},
            "with closeness": {"lambda_fe": 0.4},
            # The instrument.
            "attention, others": {"instrument": "attention"},
            "attention, all": {"instrument": "attention", "attention_keys": "all"},
            "no instrument": {"instrument": "none", "lambda_v": 0.0},
            "shuffled instrument": {"shuffled": True},
            "stop-gradient": {"stop_gradient": True},
            # The counterfactual.
            "gradient, 1 step": {"counterfactual": "gradient"},
            "gradient, 5 steps": {"counterfactual": "gradient", "num_steps": 5},
            "minimal": {"counterfactual": "minimal"},
            "instrumented": {"counterfactual": "instrumented"},
            "mean": {"counterfactual": "mean"},
            "permute": {"counterfactual": "permute"},
            # The necessity term.
            "log": {"necessity": "log"},
            "kl": {"necessity": "kl", "lambda_n": 20.0},
            # What the public PyTorch code computes, made runnable (docs/pytorch.md).
            "official_compat": {"official": True},
        }
    )
    return config
