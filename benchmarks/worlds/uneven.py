"""Ordinary data whose modalities differ: each sees a part of what decides the label, or one far more than others.

Nothing shifts in them. They are the hard cases for an objective that makes every modality predict alone, or that
silences what the others do not explain: there is little that the others explain, and what one says is not said twice.
In the last two all modalities see the same, but the mean of all rows, where z_bar lies, is the place of one class.
"""

from collections.abc import Callable

import numpy as np
from sklearn.datasets import load_digits, make_classification
from sklearn.model_selection import train_test_split

Sample = tuple[dict[str, np.ndarray], np.ndarray]  # inputs and labels
World = Callable[[int], dict[str, Sample]]  # seed -> "train", "same" and perhaps "shift"

TRAIN_ROWS, TEST_ROWS = 1000, 4000
FEW = 190  # a tenth of them are fewer than the estimator's gate is measured on


def split(inputs: dict[str, np.ndarray], labels: np.ndarray, seed: int, test: int) -> dict[str, Sample]:
    """Training and test rows, with equal shares of the classes in both."""
    rows = np.arange(len(labels))
    train, same = train_test_split(rows, test_size=test, random_state=seed, stratify=labels)
    inputs = {name: values.astype(np.float32) for name, values in inputs.items()}
    return {
        name: ({key: values[chosen] for key, values in inputs.items()}, labels[chosen])
        for name, chosen in (("train", train), ("same", same))
    }


def sum_of_two(seed: int) -> dict[str, Sample]:
    """Six classes by the sum of two numbers, one in each modality, among ten of noise: neither says much alone."""
    rng = np.random.default_rng(seed)
    inputs = {name: rng.standard_normal((TRAIN_ROWS + TEST_ROWS, 10)) for name in ("m1", "m2")}
    total = inputs["m1"][:, 0] + inputs["m2"][:, 0]
    return split(inputs, np.digitize(total, (-2, -1, 0, 1, 2)), seed, TEST_ROWS)


def shared_and_own(seed: int) -> dict[str, Sample]:
    """Two classes by a cause that both modalities see and one that only each sees; all three weigh the same."""
    rng = np.random.default_rng(seed)
    shared, *own = rng.standard_normal((3, TRAIN_ROWS + TEST_ROWS))
    inputs = {name: rng.standard_normal((len(shared), 10)) for name in ("m1", "m2")}
    for values, cause in zip(inputs.values(), own, strict=True):
        values[:, 0], values[:, 1] = shared + 0.3 * values[:, 0], cause
    total = shared + sum(own) + 0.2 * rng.standard_normal(len(shared))
    return split(inputs, (total > 0).astype(int), seed, TEST_ROWS)


def own_bit_of_few(seed: int) -> dict[str, Sample]:
    """Four classes in 190 rows: three modalities see one bit of the label, and only the first sees the other."""
    rng = np.random.default_rng(seed)
    shared, own = rng.integers(0, 2, FEW + TEST_ROWS), rng.integers(0, 2, (FEW + TEST_ROWS, 3))
    bits = {f"m{m + 1}": np.stack([shared, shared, own[:, m], own[:, m]], axis=1) for m in range(3)}
    inputs = {name: 2 * value - 1 + rng.standard_normal(value.shape) for name, value in bits.items()}
    return split(inputs, 2 * shared + own[:, 0], seed, TEST_ROWS)


def strong_and_weak(seed: int) -> dict[str, Sample]:
    """Four Gaussian classes of which one modality says everything and the other very little."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, TRAIN_ROWS + TEST_ROWS)
    centres = {"strong": 1.5 * rng.standard_normal((4, 20)), "weak": 0.15 * rng.standard_normal((4, 20))}
    noise = {name: rng.standard_normal((len(labels), 20)) for name in centres}
    return split({name: centres[name][labels] + noise[name] for name in centres}, labels, seed, TEST_ROWS)


def clusters(num_modalities: int, num_classes: int, informative: int) -> World:
    """Classes of two clusters each in a few informative columns, which are dealt out to the modalities at random."""
    width = 20

    def parts(seed: int) -> dict[str, Sample]:
        columns = width * num_modalities
        values, labels = make_classification(
            TRAIN_ROWS + TEST_ROWS,
            columns,
            n_informative=informative,
            n_redundant=0,
            n_classes=num_classes,
            n_clusters_per_class=2,
            class_sep=1.5,
            random_state=seed,
            shuffle=False,
        )
        values = values[:, np.random.default_rng(seed).permutation(columns)]
        inputs = {f"m{m + 1}": values[:, m * width : (m + 1) * width] for m in range(num_modalities)}
        return split(inputs, labels, seed, TEST_ROWS)

    return parts


def digits(rows: int, columns: int) -> World:
    """Scikit-learn's handwritten digits, 8 x 8, cut into so many rows and columns of pieces: each is a modality."""

    def parts(seed: int) -> dict[str, Sample]:
        found = load_digits()
        pieces = {
            f"{i + 1},{j + 1}": part.reshape(len(part), -1)
            for i, band in enumerate(np.split(found.images, rows, axis=1))
            for j, part in enumerate(np.split(band, columns, axis=2))
        }
        return split(pieces, found.target, seed, 719)

    return parts


def on_a_plane(centres: np.ndarray, shares: tuple[float, ...], num_modalities: int) -> World:
    """Classes around points of a line or plane that every modality sees, with noise of its own, in 20 columns."""

    def parts(seed: int) -> dict[str, Sample]:
        rng = np.random.default_rng(seed)
        labels = rng.choice(len(centres), TRAIN_ROWS + TEST_ROWS, p=shares)
        place = centres[labels] + 0.6 * rng.standard_normal((len(labels), centres.shape[1]))
        inputs = {}
        for m in range(num_modalities):
            mixing = rng.standard_normal((centres.shape[1], 20)) / np.sqrt(centres.shape[1])
            seen = place + 0.4 * rng.standard_normal(place.shape)
            inputs[f"m{m + 1}"] = np.tanh(seen @ mixing) + 0.1 * rng.standard_normal((len(labels), 20))
        return split(inputs, labels, seed, TEST_ROWS)

    return parts


CORNERS = 1.8 * np.array([[1, 0], [-0.5, 0.866], [-0.5, -0.866], [0, 0]])  # and their middle
UNEVEN: dict[str, World] = {
    "sum of two modalities": sum_of_two,
    "a shared cause, and one of each modality's own": shared_and_own,
    "190 rows, a bit of one modality alone": own_bit_of_few,
    "a strong and a weak modality": strong_and_weak,
    "clusters, 2 modalities": clusters(2, 8, 12),
    "clusters, 4 modalities": clusters(4, 4, 16),
    "digits in halves": digits(2, 1),
    "digits in quarters": digits(2, 2),
    "one class amid three others": on_a_plane(CORNERS, (0.2, 0.2, 0.2, 0.4), 3),
    "five ordered classes": on_a_plane(np.arange(-2.0, 3.0)[:, None], (0.2,) * 5, 2),
}
