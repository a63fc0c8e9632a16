"""The scores of every task: what readers call them, whether more is better, and which one is the headline."""

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


_ACCURACY = Score("accuracy")  # in every task: the share of what is told, see ``Task.right``
_CALIBRATION = {"nll": Score("NLL", False, False), "ece": Score("ECE", False, False)}
TASK_SCORES: dict[str, dict[str, Score]] = {  # the first of each task is its headline
    "classification": {
        "accuracy": _ACCURACY,
        "balanced_accuracy": Score("balanced accuracy"),
        "macro_f1": Score("macro-F1"),
        **_CALIBRATION,
        "auroc": Score("AUROC"),
        "average_precision": Score("average precision"),
    },
    "multilabel": {
        "macro_f1": Score("macro-F1"),
        "micro_f1": Score("micro-F1"),
        "map": Score("mAP"),
        "exact_match": Score("exact match"),
        "accuracy": _ACCURACY,
        "nll": Score("NLL", False, False),
    },
    "regression": {
        "mae": Score("MAE", False, False),
        "pearson": Score("Pearson r", False),
        "acc2_nonzero": Score("acc2 without zero"),
        "f1_nonzero": Score("F1 without zero"),
        "acc2": Score("acc2 with zero"),
        "f1": Score("F1 with zero"),
        "acc7": Score("acc7"),
        "accuracy": _ACCURACY,
    },
    "segmentation": {
        "dice": Score("mean Dice"),
        "accuracy": _ACCURACY,
    },
}
SCORES = {name: score for scores in reversed(TASK_SCORES.values()) for name, score in scores.items()}
BINARY_SCORES = ("auroc", "average_precision")  # of two classes alone
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


def headline(task: str) -> str:
    """The score that a task's tables show and its summaries are taken of.

    Examples:
      >>> headline("regression")
      'mae'
    """
    return next(iter(TASK_SCORES[task]))
