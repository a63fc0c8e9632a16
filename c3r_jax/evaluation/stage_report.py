"""First-stage diagnostics of a trained model: how strong the instruments are, and what speaks against them."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from c3r_jax.core.available import stage_rows
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.diagnostics import WEAK_F, exclusion, instrument_strength, over_identification


def first_stage_report(
    h: Mapping[str, np.ndarray],
    present: np.ndarray,
    labels: np.ndarray,
    *,
    config: C3RConfig,
    num_classes: int,
    held: np.ndarray | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Strength of every modality's first stage, over-identification, and whether modalities err together.

    The strength is leave-one-out, on all rows. What reads labels is measured on rows that the encoders were not trained
    on.

    Args:
      h: {modality: (n, d)} representations.
      present: (n, M) bool; the first stages use the rows that ``config.stage_rows`` says, the other tests those with
        every modality.
      labels: (n,) class ids, numbers, or (n, K) of 0 and 1.
      config: instrument and ridge.
      num_classes: K, for class ids.
      held: (n,) bool, rows that were held out of training; None: all.

    Returns:
      The ``first_stage`` part of results.json ({} unless the instrument is "two_stage") and warnings as sentences.
    """
    if config.instrument != "two_stage":
        return {}, []
    complete = present.all(1)
    tested = complete if held is None else complete & held
    fitted = stage_rows(np.asarray(present), config.stage_rows)
    unseen, outcomes = {name: value[tested] for name, value in h.items()}, labels[tested]
    has_classes = np.issubdtype(labels.dtype, np.integer) and labels.ndim == 1
    shared = exclusion(unseen, outcomes, num_classes=num_classes) if has_classes else {}
    report, notes = {}, []
    for (name, value), rows in zip(h.items(), fitted, strict=True):
        others = [_at_mean(h[key], present[:, k], rows) for k, key in enumerate(h) if key != name]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            strength = instrument_strength(np.concatenate(others, 1), value[rows], ridge=config.ridge, names=name)
        notes += [str(warning.message) for warning in caught]
        over_identified, said = _over_identified(unseen, outcomes, name, num_classes)
        notes += said
        rho = shared.get(name)
        report[name] = {
            "r2_mean": float(strength.r2.mean()),
            "f_median": strength.f_median,
            "n": strength.num_rows,
            "p": strength.num_instruments,
            "weak": strength.weak,
            "weak_below": WEAK_F,
            "leave_one_out": True,
            "over_identification": over_identified,
            "exclusion": None if rho is None or np.isnan(rho.rho) else rho._asdict(),
        }
    return report, notes


def weak_said_once(notes: list[str], report: Mapping[str, Any]) -> list[str]:
    """The notes of :func:`first_stage_report`, with one sentence for all modalities whose first stage is weak.

    Args:
      notes: sentences.
      report: {modality: its part of the report}.

    Examples:
      >>> stages = {name: {"weak": True, "f_median": 2.0, "n": 300} for name in ("image", "text")}
      >>> said = weak_said_once(["the first stage of image is weak", "the first stage of text is weak"], stages)
      >>> len(said), said[0].partition(":")[0]
      (1, 'the first stages of image and text are weak')
    """
    weak = {name: stage for name, stage in report.items() if stage["weak"]}
    if len(weak) < 2:
        return notes
    medians = " and ".join(f"{stage['f_median']:.2f}" for stage in weak.values())
    rows = " and ".join(dict.fromkeys(str(stage["n"]) for stage in weak.values()))
    said = (
        f"the first stages of {' and '.join(weak)} are weak: median F = {medians} on {rows} rows, but at least "
        f"{WEAK_F:g} was expected; what the instrument explains is then mostly noise."
    )
    return [said, *(note for note in notes if not (note.startswith("the first stage of ") and " is weak" in note))]


def _at_mean(h: np.ndarray, known: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The chosen rows, with those that are absent at the mean of the known ones."""
    known = known[rows, None]
    return np.where(known, h[rows], (known * h[rows]).sum(0) / max(known.sum(), 1))


def _over_identified(
    h: Mapping[str, np.ndarray], labels: np.ndarray, name: str, num_classes: int
) -> tuple[dict[str, Any] | None, list[str]]:
    """The J test of one modality, None where it cannot be made, and a warning where it rejects."""
    if not np.issubdtype(labels.dtype, np.integer):
        labels = labels[:, None]
    test = over_identification(h, labels, name, num_classes=num_classes)
    known = np.isfinite(test.p_value)  # of a class that every row has, or none, nothing can be tested
    if test.dof <= 0 or not known.any():
        return None, []
    # Bonferroni over classes: the smallest p-value times their number.
    p_value = float(min(1.0, test.p_value[known].min() * known.sum()))
    found = {"statistic": float(test.statistic[known].max()), "dof": test.dof, "p_value": p_value}
    if p_value >= 0.05:
        return found, []
    return found, [
        f"over-identification is rejected for {name} (p = {p_value:.2g}): the other modalities also predict the label "
        "by paths that bypass it."
    ]
