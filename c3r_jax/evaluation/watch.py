"""Warnings of a run: thresholds and wording, the same for training and the estimator."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from c3r_jax.core.available import stage_rows
from c3r_jax.evaluation.collapse import ERRORS, constant_advice, larger_error, standard_error, worse_than_constant

WINDOW, MIN_STEPS = 50, 20  # the most and the fewest steps over which rows and capped steps are averaged
# C3R's terms would overrule the task where they are cut to less than a fifth in more than half of the window's steps.
# Gentler cuts are usual: runs of the default that learn well have .3 to .9, and less as the task's loss falls.
CUT, OVERRULED = 0.2, 0.5
ROWS_PER_COLUMN = 4  # below it, the R^2 of a first stage is mostly noise
BELOW_IN_ROW = 2  # validations below a constant prediction until it is said: a run may begin there
SURE = 1.1  # loss, relative to that of guessing, above which a model is sure of wrong classes


class Note(NamedTuple):
    """One warning, said once in a run.

    Attributes:
      kind: its name in ``metrics.jsonl``.
      text: a sentence with the way out, without its full stop.
      figures: the numbers in it.
    """

    kind: str
    text: str
    figures: dict[str, float]


class Baseline(NamedTuple):
    """What a run's numbers are compared with.

    Attributes:
      constant: validation accuracy of the constant prediction chosen on training labels; NaN: there is none.
      words: its description.
      num_rows: number of validation examples.
      num_classes: K where the label of an example is one class, else 0.
      num_instruments: columns of the widest instrument; 0: no first stage is trained on.
      error: mean absolute error of that prediction and its standard error, where labels are numbers; else NaN.
    """

    constant: float
    words: str
    num_rows: int
    num_classes: int
    num_instruments: int
    error: tuple[float, float] = (math.nan, math.nan)


NO_BASELINE = Baseline(math.nan, "", 0, 0, 0)


def prediction_notes(
    accuracy: float, loss: float, baseline: Baseline, *, regularised: bool, error: float = math.nan
) -> list[Note]:
    """Notes of predictions that are worse than a constant one, or upside down; [] if there are none.

    Labels count as inverted where accuracy is also below half of 1/K, or the loss 10 % above log K: then the model
    prefers wrong classes, where one that knows nothing guesses.

    Args:
      accuracy: on validation examples.
      loss: their mean negative log-likelihood in nats; NaN: not known.
      baseline: what to compare with.
      regularised: whether C3R's terms are trained on.
      error: their mean absolute error, where labels are numbers.

    Examples:
      >>> baseline = Baseline(0.3, "the commonest label's share", 400, 9, 32)
      >>> [note.kind for note in prediction_notes(0.1, 4.2, baseline, regularised=True)]
      ['below_constant', 'inverted_labels']
      >>> prediction_notes(0.28, 2.0, baseline, regularised=True)
      []
    """
    advice = constant_advice(regularised)
    slack = ERRORS * standard_error(baseline.constant, baseline.num_rows)
    if not accuracy < baseline.constant - slack:
        figures = {"error": error, "constant": baseline.error[0]}
        larger = larger_error(error, baseline.error)
        return [Note("below_constant", f"validation {words}; {advice}", figures) for words in larger]
    figures = {"accuracy": accuracy, "constant": baseline.constant}
    words = worse_than_constant(accuracy, baseline.constant, baseline.words)
    notes = [Note("below_constant", f"validation {words}; {advice}", figures)]
    if not baseline.num_classes:
        return notes
    chance, nothing = 1 / baseline.num_classes, math.log(baseline.num_classes)
    far_below = accuracy < min(chance / 2, chance - ERRORS * standard_error(chance, baseline.num_rows))
    if far_below or loss > SURE * nothing:
        text = (
            f"labels are inverted: validation accuracy is {accuracy:.3f} where guessing has {chance:.3f}, with a loss "
            f"of {loss:.3f} where guessing has {nothing:.3f}, so wrong classes are preferred; {advice}, and keep "
            "config.c3r.necessity='constant' with config.c3r.cap=1"
        )
        notes.append(Note("inverted_labels", text, {**figures, "loss": loss}))
    return notes


def rows_note(num_rows: float, num_instruments: int) -> Note | None:
    """A note of a first stage that has too few rows for its columns; None if it has enough.

    Args:
      num_rows: mean number of rows of a batch in the first stage that has the fewest.
      num_instruments: p, columns of the widest instrument; 0: there is no first stage.

    Examples:
      >>> print(rows_note(64.0, 16), rows_note(0.0, 0))
      None None
      >>> print(rows_note(3.0, 16).text.partition(":")[0])
      the first stage means nothing
    """
    if not num_instruments or num_rows >= ROWS_PER_COLUMN * num_instruments:
        return None
    nothing = num_rows <= num_instruments + 1
    words = "means nothing" if nothing else "is mostly noise"
    expected = f"more than p + 1 = {num_instruments + 1}" if nothing else f"4 p = {ROWS_PER_COLUMN * num_instruments}"
    text = (
        f"the first stage {words}: {num_rows:.1f} rows of a batch are fitted on average, but {expected} were "
        f"expected for an instrument of p = {num_instruments} columns; use larger batches (batch_size), fewer features "
        "(dim), or rows with fewer missing modalities"
    )
    return Note("first_stage_rows", text, {"rows": float(num_rows), "instruments": float(num_instruments)})


def batch_rows_notes(present: np.ndarray, batch_size: int, dim: int, kind: str = "available") -> list[str]:
    """:func:`rows_note` before any step, as sentences: the rows that a first stage has in a batch on average.

    Args:
      present: (n, M) bool of the training rows.
      batch_size: examples of a batch, at most n.
      dim: features of each modality.
      kind: ``C3RConfig.stage_rows``.

    Examples:
      >>> batch_rows_notes(np.ones((200, 2), bool), 64, 16)
      []
      >>> len(batch_rows_notes(np.ones((200, 2), bool), 32, 16))
      1
    """
    usable = stage_rows(np.asarray(present), kind)
    num_rows = min(batch_size, len(present)) * float(usable.mean(1).min())
    note = rows_note(num_rows, (present.shape[1] - 1) * dim)
    return [] if note is None else [f"{note.text}."]


def cap_note(capped: Sequence[bool]) -> Note | None:
    """A note of terms that pull more than five times as hard as the task in most steps; None if they do not.

    Args:
      capped: of the last steps, whether the other terms' gradient was cut to less than :data:`CUT` of its length times
        the cap.

    Examples:
      >>> cap_note([True] * 20 + [False] * 30) is None, cap_note([True] * 30) is None  # not over a whole window
      (True, True)
      >>> cap_note([True] * 30 + [False] * 20).figures
      {'share': 0.6, 'steps': 50.0}
    """
    share = float(np.mean(capped)) if capped else 0.0
    if len(capped) < WINDOW or share <= OVERRULED:
        return None
    text = (
        f"C3R's terms would overrule the task: in {share:.0%} of the last {len(capped)} steps config.c3r.cap cut them "
        "to less than a fifth; unless the task's loss is near 0 by now, lower config.c3r.strength, or "
        "config.c3r.lambda_n, or use larger batches"
    )
    return Note("capped", text, {"share": share, "steps": float(len(capped))})
