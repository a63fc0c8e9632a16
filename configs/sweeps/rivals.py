"""Published fusion and training methods, each alone and with C3R, with one budget and one selection rule.

python -m c3r_jax.sweep --config=configs/sweeps/rivals.py --workdir=runs/rivals

Every method with a strength is trained with three values of it, with and without C3R, and validation selects; C3R is
the estimator's default everywhere, never tuned here, and in its first version in one row. docs/rivals.md describes the
cells, docs/results.md the results.
"""

from ml_collections import ConfigDict

from configs.sweeps import base
from configs.sweeps.ablation import DEFAULT

RIVALS = {
    "mean": {},
    # Fusions.
    "late": {"fusion": "late"},
    "concat": {"fusion": "concat"},
    "gated": {"fusion": "gated"},
    "bottleneck": {"fusion": "bottleneck"},
    "evidential": {"fusion": "evidential", "strength": (0.1, 0.3, 1.0)},
    "confidence": {"fusion": "confidence", "strength": (0.1, 0.3, 1.0)},
    # Ways of training.
    "modality dropout": {"dropout": 0.4},
    "OGM-GE": {"rival": "ogm_ge", "strength": (0.1, 0.3, 1.0)},
    "mixup": {"rival": "mixup", "strength": (0.1, 0.4, 1.0)},
    "CaSN": {"rival": "casn", "strength": (0.1, 0.3, 1.0)},
    "alignment": {"rival": "alignment", "strength": (0.03, 0.1, 0.3)},
    "IRM": {"rival": "irm", "strength": (1.0, 10.0, 100.0)},
    "V-REx": {"rival": "vrex", "strength": (1.0, 10.0, 100.0)},
    "GroupDRO": {"rival": "group_dro", "strength": (0.01, 0.1, 1.0)},
}


def get_config() -> ConfigDict:
    """Returns the study of rivals."""
    config = base.get_config()
    config.baseline = "mean"
    config.train.steps = 300
    config.train.batch_size = 128
    config.data.environments = (1.3, 0.7)  # in the mean those of the models; r is .955 and .745, g 1.95 and 1.05
    cells = {}
    for name, settings in RIVALS.items():
        cells[name] = {**settings, "regularised": False}
        cells[f"{name} + C3R"] = settings | DEFAULT
    cells["C3R, first version"] = {"preset": "hinge"}
    config.cells = ConfigDict(cells)
    return config
