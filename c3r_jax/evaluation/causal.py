"""Risks with intervals, first-stage diagnostics and a probe of what the hypothetical world still tells."""

import warnings
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from c3r_jax.core.diagnostics import (
    COLLAPSED,
    WEAK_F,
    collapse_advice,
    collapse_note,
    f_statistics,
    over_identification,
    relative_spread,
)
from c3r_jax.core.instrument import Moments, apply_modalities, columns, fit_modalities
from c3r_jax.core.regression import Regression
from c3r_jax.core.regularizer import C3RConfig
from c3r_jax.core.tasks import CLASSIFICATION, Task
from c3r_jax.evaluation.branches import Branches, measured_risk
from c3r_jax.evaluation.segmentation import Voxels


def wilson_interval(share: float, count: int, level: float = 0.95) -> list[float]:
    """Wilson score interval of a share of ``count`` examples.

    Examples:
      >>> [round(end, 3) for end in wilson_interval(0.5, 100)]
      [0.404, 0.596]

    References:
      E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    z = stats.norm.ppf(0.5 + level / 2)
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return [float(max(0.0, centre - half)), float(min(1.0, centre + half))]


def risk_report(
    train: Branches, train_labels: np.ndarray, test: Branches, labels: np.ndarray, task: Task = CLASSIFICATION
) -> dict[str, Any]:
    """The C3 risk of evaluated examples, its sampling intervals, and what a fresh probe reads from z_bar.

    Args:
      train: branches of the training split (the probe is fitted there).
      train_labels: (n_train,).
      test: branches of the evaluated split.
      labels: (n,), or what else the task has.
      task: what outputs and labels mean.

    Returns:
      The ``risk`` part of results.json: risks, 95 % Wilson intervals, mean p_y(z_bar) (or what stands for it), the
      probe's accuracy, and chance: the largest share that one answer for all rows gets right.
    """
    risk = measured_risk(test, labels, task)
    values: dict[str, Any] = {name: float(value) for name, value in risk._asdict().items()}
    values["intervals"] = {
        name: wilson_interval(values[name], len(labels)) for name in ("sufficiency", "necessity", "joint")
    }
    told = task.probability(jnp.asarray(test.counterfactual_logits), jnp.asarray(labels))
    values["label_probability"] = float(np.asarray(told, np.float64).mean())
    if isinstance(task, Regression):
        probe = make_pipeline(StandardScaler(), LinearRegression()).fit(_wide(train.z_bar), train_labels)
        read = np.asarray(probe.predict(_wide(test.z_bar)))
        values["probe_accuracy"] = float((np.abs(read - labels) <= task.tolerance).mean())
        values["chance"] = _densest_share(labels, task.tolerance)
        return values
    columns = [(train_labels, labels)]
    if labels.ndim == 2:
        columns = list(zip(train_labels.T, labels.T, strict=True))
    probes = [probe_accuracy(train.z_bar, own, test.z_bar, held) for own, held in columns]
    values["probe_accuracy"] = float(np.mean(probes))
    values["chance"] = float(np.mean([np.bincount(held).max() / len(held) for _, held in columns]))
    return values


def _densest_share(labels: np.ndarray, tolerance: float) -> float:
    """The largest share of the labels that one number is within the tolerance of."""
    ordered = np.sort(np.asarray(labels, np.float64))
    inside = np.searchsorted(ordered, ordered + 2 * tolerance, side="right") - np.arange(len(ordered))
    return float(inside.max() / len(ordered))


def _wide(z: np.ndarray) -> np.ndarray:
    return np.asarray(z, np.float64)


def voxel_probe(train: Voxels, held_out: Voxels) -> dict[str, float]:
    """What the hypothetical world still tells of voxels, each counted by its class's weight as in the risk of voxels.

    Args:
      train: voxels of training volumes; the probe is fitted there.
      held_out: of the evaluated split.

    Returns:
      As in :func:`risk_report`: mean p_y(z_bar), the probe's accuracy, and chance, the largest weight of one class.
    """
    weights = np.asarray(held_out.weights, np.float64)
    weights = weights / weights.sum()
    own = (train.z_bar, train.labels, held_out.z_bar, held_out.labels)
    return {
        "label_probability": float((weights * held_out.told).sum()),
        "probe_accuracy": probe_accuracy(*own, weights=(np.asarray(train.weights), weights)),
        "chance": float(np.bincount(held_out.labels, weights).max()),
    }


def probe_accuracy(
    train_z: np.ndarray,
    train_labels: np.ndarray,
    z: np.ndarray,
    labels: np.ndarray,
    *,
    weights: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> float:
    """Accuracy of a linear probe (logistic regression) fitted on one split and scored on another.

    Args:
      train_z: (n_train, d).
      train_labels: (n_train,).
      z: (n, d).
      labels: (n,).
      weights: of the rows of both; None: all alike.
    """
    if len(np.unique(train_labels)) < 2:
        return float(np.average(labels == train_labels[0], weights=weights[1]))
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that has not settled is still a probe
        probe.fit(_wide(train_z), train_labels, logisticregression__sample_weight=weights[0])
    return float(probe.score(_wide(z), labels, sample_weight=weights[1]))


def collapse_notes(z: np.ndarray, logits: np.ndarray, labels: np.ndarray, *, lambda_n: float) -> list[str]:
    """Says in plain words whether the representation has collapsed or the label is coded upside down.

    Args:
      z: (n, d) representations of held-out rows.
      logits: (n, K) predict(z).
      labels: (n,).
      lambda_n: weight of the necessity term in training, the usual culprit; 0: it took no part.

    Returns:
      Warnings, [] if there is nothing to say.
    """
    notes = []
    spread = relative_spread(z)
    if not spread > COLLAPSED:
        notes.append(f"{collapse_note(spread, lambda_n)}.")
    advice = collapse_advice(lambda_n)
    shares = np.bincount(labels, minlength=logits.shape[1]) / len(labels)
    accuracy = float((logits.argmax(1) == labels).mean())
    # Two standard errors below the majority share: not by chance.
    slack = 2 * np.sqrt(shares.max() * (1 - shares.max()) / len(labels))
    if accuracy < shares.max() - slack:
        notes.append(
            f"accuracy {accuracy:.3f} on held-out rows is below the majority share {shares.max():.3f}: the label may "
            f"be coded upside down; {advice}."
        )
    elif len(labels) >= 50:
        log_p = logits - logits.max(1, keepdims=True)
        log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
        task = float(-log_p[np.arange(len(labels)), labels].mean())
        known = shares[shares > 0]
        entropy = float(-(known * np.log(known)).sum())
        if abs(task - entropy) < 0.02 * entropy and accuracy < shares.max() + slack:
            notes.append(
                f"the loss on held-out rows ({task:.3f}) is the entropy of the labels ({entropy:.3f}): z tells nothing "
                f"about them; {advice}."
            )
    return notes


def first_stage_report(
    moments: Moments | None,
    h: Mapping[str, np.ndarray],
    present: np.ndarray,
    labels: np.ndarray,
    *,
    config: C3RConfig,
    num_classes: int,
) -> tuple[dict[str, Any], list[str]]:
    """Strength and over-identification of every modality's first stage, on rows that did not fit it.

    Args:
      moments: of the training set.
      h: {modality: (n, d)} held-out representations.
      present: (n, M) bool; rows that miss a modality are left out.
      labels: (n,) class ids, numbers, or (n, K) of 0 and 1.
      config: instrument and ridge.
      num_classes: K, of class ids.

    Returns:
      The ``first_stage`` part of results.json ({} unless the instrument is "two_stage") and warnings in plain words.
    """
    if config.instrument != "two_stage" or moments is None:
        return {}, []
    complete = present.all(1)
    h = {name: value[complete] for name, value in h.items()}
    labels = labels[complete]
    if not np.issubdtype(labels.dtype, np.integer):
        labels = labels[:, None]
    stages = fit_modalities(moments, columns(h), ridge=config.ridge)  # type: ignore[arg-type]
    h_hat, _ = apply_modalities(stages, h, np.ones((len(labels), len(h)), bool))  # type: ignore[arg-type]
    report, notes = {}, []
    for name, value in h.items():
        num_instruments = sum(other.shape[1] for key, other in h.items() if key != name)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            strength = f_statistics(value, h_hat[name], num_instruments, names=name)
        notes += [str(warning.message) for warning in caught]
        test = over_identification(h, labels, name, num_classes=num_classes)
        rejected = None
        if test.dof > 0:
            # Bonferroni over classes: the smallest p-value times their number.
            p_value = float(min(1.0, np.nanmin(test.p_value) * len(test.p_value)))
            rejected = {"statistic": float(np.nanmax(test.statistic)), "dof": test.dof, "p_value": p_value}
            if p_value < 0.05:
                notes.append(
                    f"over-identification is rejected for {name} (p = {p_value:.2g}): the other modalities tell the "
                    "label also by other ways than through it."
                )
        report[name] = {
            "r2_mean": float(strength.r2.mean()),
            "f_median": strength.f_median,
            "n": strength.num_rows,
            "p": num_instruments,
            "weak": strength.weak,
            "weak_below": WEAK_F,
            "over_identification": rejected,
        }
    return report, notes
