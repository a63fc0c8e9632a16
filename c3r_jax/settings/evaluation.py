"""Evaluation of a trained run: ``config.eval``."""

from dataclasses import dataclass

from c3r_jax.settings.fields import Part, setting


@dataclass(frozen=True)
class EvalSettings(Part, place="eval"):
    """The split, the conditions and the batches of evaluation."""

    batch_size: int = setting(128, "Examples per batch, over all devices.")
    split: str = setting(
        "test",
        "validation or test; emoji_shift also has shift and clean, emoji_styles has twitter and what is prepared.",
    )
    protocols: tuple[str, ...] = setting(
        ("gaussian", "salt"),
        "Conditions to evaluate under, besides modality subsets.",
    )
    whole_volumes: bool = setting(True, "Evaluate complete volumes; validation uses their centres, as large as crops.")
    environment_size: int = setting(10, "Examples that an environment needs to count as the worst one.", least=1)
    noise_seed: int = setting(0, "Seed of all noise.", least=0)
    calibrate: str = setting(
        "none",
        "biases: a temperature and a bias for each class, fitted on validation logits, are part of every prediction of "
        "eval.py and of exports; for one class per example.",
        choices=("none", "biases"),
    )
    num_bins: int = setting(10, "Bins of the calibration error.", least=1)
