"""Whether the representation has collapsed: one measure and one wording for training, reports, estimator and sweeps."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.special import log_softmax

from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION

COLLAPSED = 1e-3  # relative spread of z at or below which it carries no information
ERRORS = 2.0  # standard errors below a share that are not chance


def relative_spread(z: np.ndarray) -> float:
    """Standard deviation of z (n, d) over its root mean square norm: 0 if all rows are equal.

    Examples:
      >>> round(relative_spread(np.array([[3.0, 4.0], [3.0, 4.5]])), 3)
      0.048
    """
    z = np.asarray(z, np.float64)
    size = np.sqrt(np.square(z).sum(1).mean())
    return float(np.sqrt(np.square(z - z.mean(0)).sum(1).mean()) / size) if size else 0.0


def traced_spread(z: Array) -> Array:
    """:func:`relative_spread` within a program, in z's own precision."""
    centred = z - z.mean(0, keepdims=True)
    return jnp.sqrt(jnp.square(centred).sum() / jnp.maximum(jnp.square(z).sum(), 1e-30))


def collapse_note(spread: float, lambda_n: float) -> str | None:
    """A warning that z has collapsed, with advice; None if it has not.

    Args:
      spread: from :func:`relative_spread`.
      lambda_n: weight of the necessity term in training, the usual cause; 0: it is off.
    """
    if spread > COLLAPSED:
        return None
    return (
        f"the representation has collapsed: z hardly varies (its sd is {spread:.2g} of its size); "
        f"{collapse_advice(lambda_n)}"
    )


def collapse_advice(lambda_n: float) -> str:
    """Advice for a representation that carries no information; lambda_n is 0 where the necessity term is off."""
    return f"lower lambda_n ({lambda_n:g}) or raise w_task" if lambda_n else "train longer or check the labels"


def collapse_notes(z: np.ndarray, logits: np.ndarray, labels: np.ndarray, *, lambda_n: float) -> list[str]:
    """Warns if the representation has collapsed or the labels are inverted.

    Args:
      z: (n, d) representations of held-out rows.
      logits: (n, K) predict(z).
      labels: (n,).
      lambda_n: weight of the necessity term in training, the usual cause; 0: it is off.

    Returns:
      Warnings, [] if there are none.
    """
    notes = []
    collapsed = collapse_note(relative_spread(z), lambda_n)
    if collapsed:
        notes.append(f"{collapsed}.")
    advice = collapse_advice(lambda_n)
    shares = np.bincount(labels, minlength=logits.shape[1]) / len(labels)
    accuracy = float((logits.argmax(1) == labels).mean())
    # Two standard errors below the majority share is not chance.
    slack = ERRORS * standard_error(float(shares.max()), len(labels))
    if accuracy < shares.max() - slack:
        notes.append(
            f"accuracy {accuracy:.3f} on held-out rows is below the majority share {shares.max():.3f}: the labels "
            f"may be inverted; {advice}."
        )
    elif len(labels) >= 50:
        task, entropy = mean_loss(logits, labels), label_entropy(labels)
        if abs(task - entropy) < 0.02 * entropy and accuracy < shares.max() + slack:
            notes.append(
                f"the loss on held-out rows ({task:.3f}) is the entropy of the labels ({entropy:.3f}): z has no "
                f"information about them; {advice}."
            )
    return notes


def mean_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy of logits (n, K) in nats."""
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def label_entropy(labels: np.ndarray) -> float:
    """Loss of the best constant prediction of labels (n,), in nats."""
    shares = np.bincount(labels) / len(labels)
    return -float((shares[shares > 0] * np.log(shares[shares > 0])).sum())


def constant_prediction_notes(
    logits: np.ndarray,
    labels: np.ndarray,
    train_labels: np.ndarray,
    target: Task = CLASSIFICATION,
    *,
    regularised: bool = True,
) -> list[str]:
    """Warns if predictions are worse than one constant prediction by more than chance, for any labelled task.

    Args:
      logits: (n, K) predict(z), evaluated rows.
      labels: (n,), or the task's own shape.
      train_labels: labels of the training rows, from which the constant is chosen.
      target: the task's losses and correctness.
      regularised: whether C3R's terms were trained on, for the advice.

    Returns:
      Warnings, [] if there are none.
    """
    accuracy = float(np.asarray(target.correct(jnp.asarray(logits), jnp.asarray(labels))).mean())
    constant, words = target.spec.constant_accuracy(train_labels, labels, target.tolerance)
    found = []
    if accuracy < constant - ERRORS * standard_error(constant, len(labels)):
        found.append(worse_than_constant(accuracy, constant, words))
    errors = target.spec.constant_errors(train_labels, labels)
    if errors is not None:
        found += larger_error(float(np.abs(logits[:, 0] - labels).mean()), mean_and_error(errors))
    return [f"{words}; {constant_advice(regularised)}." for words in found]


def mean_and_error(values: np.ndarray | None) -> tuple[float, float]:
    """The mean of values (n,) and its standard error; NaN without values."""
    if values is None or not len(values):
        return math.nan, math.nan
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def larger_error(error: float, constant: tuple[float, float]) -> list[str]:
    """The sentence, without advice, for a mean absolute error above that of one constant prediction; [] if it is not.

    Args:
      error: of the predictions; NaN: not known.
      constant: of the constant prediction, from :func:`mean_and_error`.

    Examples:
      >>> larger_error(2.5, (1.0, 0.1))
      ['mean absolute error 2.5 is above the 1 of the training median for every example']
      >>> larger_error(1.1, (1.0, 0.1)), larger_error(2.5, mean_and_error(None))
      ([], [])
    """
    mean, deviation = constant
    if not error > mean + ERRORS * deviation:
        return []
    return [f"mean absolute error {error:.4g} is above the {mean:.4g} of the training median for every example"]


def standard_error(share: float, num_rows: int) -> float:
    """Of a share that was counted on so many rows."""
    return math.sqrt(share * (1 - share) / max(num_rows, 1))


def constant_advice(regularised: bool) -> str:
    """Advice for predictions that are worse than a constant one."""
    if regularised:
        return "lower config.c3r.strength (0 is plain training) or config.c3r.lambda_n"
    return "check labels and config.optimizer.learning_rate, or train longer"


def worse_than_constant(accuracy: float, constant: float, words: str) -> str:
    """The sentence for predictions that are worse than one constant prediction, without advice.

    Args:
      accuracy: of the predictions.
      constant: of the constant prediction.
      words: what the constant prediction's accuracy is.
    """
    return (
        f"accuracy {accuracy:.3f} is below {words} {constant:.3f}: the representation has collapsed or the labels are "
        "inverted"
    )
