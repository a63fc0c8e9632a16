"""How strong? The default objective at strengths from plain training upwards, and what each rule would have chosen.

python -m c3r_jax.sweep --config=configs/sweeps/path.py --workdir=runs/path

One program per structural model trains all strengths and seeds. The tables compare the strengths on validation rows and
under shift, and say which strength each rule chooses from validation rows alone; path.png draws them.
"""

from ml_collections import ConfigDict

from configs.sweeps import base

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)


def get_config() -> ConfigDict:
    """Returns the study of strengths."""
    config = base.get_config()
    config.data.worlds = ("anticausal", "confounded", "null")
    config.baseline = "c3r"
    config.cells = ConfigDict(
        {"c3r": {"preset": "default", "expert": 0.5, "row_experts": True, "c3r_strength": STRENGTHS}}
    )
    return config
