"""Rows that are held out of training: for calibration, for the C3 risk, and for the gate."""

import numpy as np

from c3r_jax.estimator.redrawn import first_ones

MIN_HELD_OUT = 20  # rows below which calibration, risk and gate would be noise
LARGEST_SHARE = 0.25  # of all rows, to have so many


def stratified_holdout(
    labels: np.ndarray, fraction: float, rng: np.random.Generator, *, source: np.ndarray | None = None
) -> np.ndarray:
    """Marks a random share ``fraction`` of every class's rows, rounded down: (n,) bool.

    Of few rows the share is larger, up to :data:`LARGEST_SHARE`, until :data:`MIN_HELD_OUT` rows are marked.

    Args:
      labels: (n,).
      fraction: the share.
      rng: where random numbers come from.
      source: (n,) from :func:`c3r_jax.estimator.redrawn.first_of_equal`: copies of a row stay together, and the share
        is that of different rows. None: all are different.
    """
    source = np.arange(len(labels)) if source is None else source
    held, different = np.zeros(len(labels), bool), first_ones(source)
    classes, counts = np.unique(labels[different], return_counts=True)
    if 0 < fraction < LARGEST_SHARE:
        shares = [fraction, *np.linspace(fraction, LARGEST_SHARE, 100)]
        enough = [share for share in shares if (share * counts).astype(int).sum() >= MIN_HELD_OUT]
        fraction = enough[0] if enough else fraction
    for label in classes:
        rows = rng.permutation(np.flatnonzero((labels == label) & different))
        held[rows[: int(fraction * len(rows))]] = True
    return held[source]


def drawn_alike(held: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Numbers of the held-out rows, drawn as often as their weights say: as training rows are, so that losses compare.

    Args:
      held: (n,) bool.
      weights: (n,) numbers >= 0; None, or 0 in all held-out rows: each row once.

    Examples:
      >>> drawn_alike(np.array([True, False, True]), None), drawn_alike(np.ones(4, bool), np.array([1.0, 0, 0, 3]))
      (array([0, 2]), array([0, 3, 3, 3]))
    """
    rows = np.flatnonzero(held)
    if weights is None or not weights[rows].any():
        return rows
    ends = np.cumsum(weights[rows])
    return rows[np.searchsorted(ends, (np.arange(len(rows)) + 0.5) / len(rows) * ends[-1], side="right")]


def unjudged_notes(num_held: int, *, wanted: bool, gated: bool, plainly: bool) -> list[str]:
    """What a fit with too few held-out rows has to say, as sentences.

    Args:
      num_held: how many rows are held out.
      wanted: whether rows were to be held out.
      gated: whether C3R was trained with a gate, which is then that of the training batches.
      plainly: whether C3R was asked for and left out, for want of rows for its gate.
    """
    if wanted:
        effect = ", and C3R trains plainly, for its gate needs such rows" if plainly else ""
        return [
            f"only {num_held} rows are held out, but {MIN_HELD_OUT} were expected: probabilities stay uncalibrated, "
            f"c3_risk_ is None{effect}; give more rows or a larger validation_fraction."
        ]
    if not gated:
        return []
    return [
        "validation_fraction is 0, so that the gate is measured on rows that are trained on: C3R may silence what only "
        "one modality says, and cost accuracy; hold rows out, such as the default of 0.1."
    ]
