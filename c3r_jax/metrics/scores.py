"""How every score is read: its name in words, and whether more is better. ``c3r_jax.tasks`` says who has which."""

from typing import NamedTuple


class Score(NamedTuple):
    """How a score is read.

    Attributes:
      name: in words.
      percent: whether it is a share, shown in percent.
      higher: whether a higher value is better.
    """

    name: str
    percent: bool = True
    higher: bool = True


SCORES = {
    "accuracy": Score("accuracy"),  # in every task: the share that is correct, see ``Task.correct``
    # classification
    "balanced_accuracy": Score("balanced accuracy"),
    "nll": Score("NLL", False, False),
    "ece": Score("ECE", False, False),
    "auroc": Score("AUROC"),
    "average_precision": Score("average precision"),
    # several labels
    "macro_f1": Score("macro-F1"),
    "micro_f1": Score("micro-F1"),
    "map": Score("mAP"),
    "exact_match": Score("exact match"),
    # numbers
    "mae": Score("MAE", False, False),
    "pearson": Score("Pearson r", False),
    "acc2_nonzero": Score("acc2 without zero"),
    "f1_nonzero": Score("F1 without zero"),
    "acc2": Score("acc2 with zero"),
    "f1": Score("F1 with zero"),
    "acc7": Score("acc7"),
    # pairs
    "retrieval": Score("retrieval"),
    "zero_shot": Score("zero-shot accuracy"),
    "linear_probe": Score("linear-probe accuracy"),
    # masks
    "dice": Score("mean Dice"),
}
_UNKNOWN = Score("")


def score_of(metric: str) -> Score:
    """How a metric is read; the Dice of a region is called ``dice_REGION``.

    Examples:
      >>> score_of("mae").higher, score_of("dice_WT").name
      (False, 'Dice WT')
    """
    if metric.startswith("dice_"):
        return Score(f"Dice {metric.removeprefix('dice_')}")
    return SCORES.get(metric, _UNKNOWN._replace(name=metric, percent=False))


MEAN, WORST_ENVIRONMENT = "mean_", "worst_environment_"  # before a score's name in config.train.select_by


def selected_score(select_by: str) -> str:
    """The score that a value of ``config.train.select_by`` is a mean or the worst of.

    Examples:
      >>> selected_score("mean_mae"), selected_score("worst_environment_accuracy"), selected_score("map")
      ('mae', 'accuracy', 'map')
    """
    return select_by.removeprefix(MEAN).removeprefix(WORST_ENVIRONMENT)


METRIC_NOTES = {
    "nll": "NLL: mean negative log-likelihood in nats.",
    "ece": "ECE: expected calibration error, 0 to 1.",
    "map": "mAP: mean over labels of the average precision.",
    "acc7": "Acc7 after clipping to [-3, 3] and rounding; acc2 and weighted F1 with zero (>= 0) and without (> 0).",
    "dice": "Dice: mean over volumes, 1 where a region is neither there nor predicted.",
}
