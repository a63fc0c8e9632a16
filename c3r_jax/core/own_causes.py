"""Is what a modality knows beyond the others a cause of its own, or an effect of the label as cues are?"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

POSSIBLE = 0.5  # D from which on part of what single modalities know may be causes of their own
FEW, MANY = (300, 0.55), (4000, 0.75)  # rows, and D from which on most of it is: noise draws D to the middle
VARIES = 1e-6  # standard deviation in each half, of standardised columns, below which a column is constant there
MIN_ROWS = 200  # with fewer, the share is too uncertain
MOST_ROWS = 4000  # more would hardly change it
COMPONENTS = 32  # principal components of a modality
SURE = 3.0  # standard errors above 0 of what modalities know beyond the others
RIDGE = 0.03  # relative to the mean variance


class OwnCauses(NamedTuple):
    """What :func:`own_causes` finds.

    Attributes:
      share: D, 0 to 1; NaN with fewer than 200 rows that have every modality, or where what the modalities know beyond
        the others is no more than noise.
      by_modality: {name: D of that modality}.
      num_rows: rows that it is measured on.
    """

    share: float
    by_modality: dict[str, float]
    num_rows: int

    @property
    def possible(self) -> bool:
        """Whether D is at least 0.5; a structural model of hidden confounders has 0.4 to 0.7."""
        return self.share >= POSSIBLE

    @property
    def likely(self) -> bool:
        """Whether D is at least 0.55 on 300 rows or fewer, and up to 0.75 on 4,000: above those models."""
        (fewest, first), (most, last) = FEW, MANY
        return bool(self.share >= np.interp(np.log(max(self.num_rows, 1)), np.log([fewest, most]), [first, last]))


def own_causes(
    inputs: Mapping[str, Any], labels: Any, *, num_classes: int, present: Any = None, seed: int = 0
) -> OwnCauses:
    r"""The share of what single modalities know beyond the others that does not behave as an effect of the label.

    A cue that the label brings about, such as a background chosen by it, is independent of the other modalities given
    the label. So it has to go along with what they say of the label, :math:`p = E[1_y \mid x_{others}]`, as far as its
    own means by class demand:

    .. math::
       \pi_{ik} = \sum_j E[t_i \mid y = j]\, \mathrm{Cov}(1_{y=j}, p_k), \quad
       \kappa_i = \frac{\sum_k \mathrm{Cov}(t_i, p_k)\, \pi_{ik}}{\sum_k \pi_{ik}^2}, \quad
       D = \frac{\sum_i I_i\, [1 - \kappa_i]_0^1}{\sum_i I_i}

    t_i are the canonical directions of a modality with respect to the others, and I_i is how much t_i less its linear
    prediction by the others says of the label. For an effect of the label kappa is 1. A cause that only this modality
    sees brings the label about together with the others' causes: it is independent of them, and kappa is 0. So D is
    near 0 for cues and for classes that every modality sees, and near 1 where the evidence is dealt out. A cue that
    stands for a hidden cause of the label is such a cause, until it shifts: D cannot tell them apart, and nothing can
    that sees no shift. What is not linear is not seen.

    Directions are found on one half of the rows and measured on the other, and the other way round.

    Args:
      inputs: {name: (n, p)} vectors, at least two modalities; a row with NaN lacks the modality.
      labels: (n,) class ids.
      num_classes: K.
      present: (n, M) bool, columns in the sorted order of the names; rows that lack a modality do not count.
      seed: of the halves, and of which rows are used where there are more than 4,000.

    Raises:
      ValueError: if the numbers of rows differ.

    Examples:
      >>> import numpy as np
      >>> rng = np.random.default_rng(0)
      >>> a, b, c, d = rng.normal(size=(4, 2000, 3))
      >>> labels = (a[:, 0] + b[:, 0] > 0).astype(int)
      >>> causes = {"m1": a, "m2": b}  # each modality sees a cause of its own
      >>> effects = {"m1": c + labels[:, None], "m2": d + labels[:, None]}  # the label shows in both
      >>> [own_causes(x, labels, num_classes=2).likely for x in (causes, effects)]
      [True, False]

    References:
      A. Blum and T. Mitchell, Combining labeled and unlabeled data with co-training, COLT 1998, for independence given
      the label.
    """
    labels = np.asarray(labels).astype(int)
    names = sorted(inputs)
    shapes = {name: np.shape(inputs[name]) for name in names}
    if len(names) < 2 or any(len(shape) != 2 or shape[0] != len(labels) for shape in shapes.values()):
        raise ValueError(
            f"inputs have shapes {shapes}, but two modalities or more of shape ({len(labels)}, p) were expected."
        )
    rng = np.random.default_rng(seed)
    if present is None:
        present = np.stack([~np.isnan(np.asarray(inputs[name], np.float32)).any(1) for name in names], axis=1)
    rows = rng.permutation(np.flatnonzero(np.asarray(present).all(1)))[:MOST_ROWS]
    unknown = OwnCauses(float("nan"), dict.fromkeys(names, float("nan")), len(rows))
    if len(rows) < MIN_ROWS:
        return unknown
    columns = {name: _components(np.asarray(inputs[name])[rows].astype(np.float64)) for name in names}
    y = np.eye(num_classes)[labels[rows]]
    halves = np.arange(len(rows)) % 2 == 0
    found = {}
    for name in names:
        x, others = columns[name], np.concatenate([columns[other] for other in names if other != name], axis=1)
        found[name] = _lacking(x, others, y, halves, ~halves) + _lacking(x, others, y, ~halves, halves)
    total = np.sum(list(found.values()), axis=0)
    if not total[2] > SURE * np.sqrt(2 * total[3]):  # the halves change places, so that their products are alike
        return unknown
    shares = {name: float(part[0] / part[1]) if part[1] > 0 else float("nan") for name, part in found.items()}
    return OwnCauses(float(total[0] / total[1]), shares, len(rows))


def _components(x: np.ndarray) -> np.ndarray:
    """The first principal components (n, q) of the standardised columns that vary."""
    x = x[:, x.std(0) > 1e-9 * np.abs(x).max(0, initial=0)]
    x = (x - x.mean(0)) / x.std(0)
    size = min(x.shape)
    if x.shape[1] <= COMPONENTS:
        return x
    wide = x.shape[1] > len(x)  # the smaller of the two squares has the same eigenvalues
    largest = (max(size - COMPONENTS, 0), size - 1)
    values, vectors = scipy.linalg.eigh(x @ x.T if wide else x.T @ x, subset_by_index=largest)
    return vectors * np.sqrt(np.maximum(values, 0)) if wide else x @ vectors


def _lacking(x: np.ndarray, others: np.ndarray, y: np.ndarray, fitted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Of one modality, with directions from some rows, measured on others: the numerator and the denominator of D.

    And the latter before it is clipped at 0, with its variance if there is nothing to know.
    """
    x, others = (
        values[:, np.minimum(values[fitted].std(0), values[measured].std(0)) > VARIES] for values in (x, others)
    )
    if not x.size or not others.size:
        return np.zeros(4)
    one, rest, labels = (values[fitted] - values[fitted].mean(0) for values in (x, others, y))
    whitened = _inverse_root(one) @ (one.T @ rest / len(one)) @ _inverse_root(rest)
    directions = _inverse_root(one) @ np.linalg.svd(whitened)[0]
    penalised = rest.T @ rest + RIDGE * np.trace(rest.T @ rest) / rest.shape[1] * np.eye(rest.shape[1])
    of_x, of_y = np.linalg.solve(penalised, rest.T @ one), np.linalg.solve(penalised, rest.T @ labels)

    before = ((one - rest @ of_x) @ directions).T @ labels / len(labels)
    one, rest, labels = (values[measured] - values[measured].mean(0) for values in (x, others, y))
    own = (one - rest @ of_x) @ directions
    after = own.T @ labels / len(labels)
    known = (before * after).sum(1) / np.maximum(own.var(0), 1e-12)
    information, shares = np.maximum(known, 0), y.mean(0)
    by_chance = len(known) * ((shares * (1 - shares)) ** 2).sum() / fitted.sum() / measured.sum()
    t, p, counts = one @ directions, rest @ of_y, y[measured].sum(0)
    means = y[measured].T @ t / np.maximum(counts, 1)[:, None]
    demanded, there = (means.T @ labels.T) @ p / len(p), t.T @ p / len(p)
    kappa = (there * demanded).sum(1) / np.maximum((demanded**2).sum(1), 1e-30)
    return np.array([information @ np.clip(1 - kappa, 0, 1), information.sum(), known.sum(), by_chance])


def _inverse_root(x: np.ndarray) -> np.ndarray:
    """The inverse square root of the covariance of centred columns, with a ridge."""
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    values = np.maximum(values, 0) + RIDGE * values.sum() / len(values)
    return vectors @ np.diag(values**-0.5) @ vectors.T
