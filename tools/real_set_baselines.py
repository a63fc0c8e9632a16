"""Logistic regression on the real data sets from package registries: the baseline that a network has to beat.

    python tools/real_set_baselines.py watch --source build/watch

``--source`` is the directory of the package, see docs/real_sets.md. Penalties are chosen on the validation split. Each
line has the accuracy of one model of all named features on the fixed test split, and over five folds of all examples
that keep groups (people, families of near-duplicates) together.
"""

import argparse
import pathlib
import sys
import warnings
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from c3r_jax.data.catalogue import find_layout
from c3r_jax.data.media.audio import spectrogram
from c3r_jax.data.media.image import decode_image
from c3r_jax.data.preparation.layout import Item, Layout

PENALTIES = (1.0, 10.0, 100.0, 1000.0)
SPLITS = ("train", "validation", "test")


def moments(frames: np.ndarray) -> np.ndarray:
    """What a sequence is like on the whole: mean, spread, ends and roughness of each column, and slow waves' sizes."""
    waves = np.abs(np.fft.rfft(frames - frames.mean(0), axis=0))[1:11] / len(frames)
    steps = np.abs(np.diff(frames, axis=0)).mean(0)
    parts = (frames.mean(0), frames.std(0), frames.min(0), frames.max(0), steps, waves.ravel())
    return np.concatenate(parts)


def bands(sound: np.ndarray, rate: int) -> np.ndarray:
    """Mean log spectrum in 25 bands of four stretches of the sound, and its spread."""
    frames = spectrogram(sound, rate, "stft")[: max(8, 1 + len(sound) * 22050 // rate // 353)]
    columns = np.stack([part.mean(1) for part in np.array_split(frames, 25, axis=1)], 1)
    return np.concatenate([part.mean(0) for part in np.array_split(columns, 4)] + [columns.std(0)])


def columns_of(layout: Layout, source: pathlib.Path, items: list[Item]) -> dict[str, list]:
    """The plain features (texts: the texts) of each modality; zeros or "" where it is missing."""
    read = layout.reader(source)
    records = [read(item) for item in items]
    found: dict[str, list] = {}
    for name, kind in layout.kinds.items():
        values: list[Any] = [record[name] for record in records]
        if kind == "text":
            found[name] = [value or "" for value in values]
            continue
        if kind == "image":
            made = [None if value is None else decode_image(value, 16, fit="squash") / 127.5 - 1 for value in values]
        elif kind == "audio":
            made = [None if value is None else bands(value, layout.sample_rate or 1) for value in values]
        elif kind == "sequence":
            made = [None if value is None else moments(value) for value in values]
        else:
            made = values
        empty: Any = np.zeros_like(next(value for value in made if value is not None))
        found[name] = [(empty if value is None else value).ravel() for value in made]
    return found


def features(kind: str, column: list, train: np.ndarray) -> sparse.csr_matrix:
    """Features of all rows, scaled by the training rows so that a row has a norm of about 1."""
    if kind == "text":
        vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)).fit([column[i] for i in train])
        return sparse.csr_matrix(vectorizer.transform(column))
    whole = np.stack(column)
    return sparse.csr_matrix(StandardScaler().fit(whole[train]).transform(whole) / np.sqrt(whole.shape[1]))


class Baselines:
    """The columns, labels, groups and splits of a set."""

    def __init__(self, layout: Layout, source: pathlib.Path):
        items = layout.items(source)
        self.kinds = layout.kinds
        self.sides = np.repeat(SPLITS, [len(items[split]) for split in SPLITS])
        whole = sum((items[split] for split in SPLITS), [])
        self.labels = np.array([item.label for item in whole])
        # People are in the first part of a key, families in the place; digits have neither.
        names = [item.place if isinstance(item.place, str) else item.key.split("/")[0] for item in whole]
        self.groups = np.unique(names, return_inverse=True)[1]
        self.columns = columns_of(layout, source, whole)

    def accuracies(
        self, subset: tuple[str, ...], penalties: tuple[float, ...], train: np.ndarray, rows: np.ndarray
    ) -> list[float]:
        """Of rows, by models of the training rows, for each penalty."""
        blocks = [features(self.kinds[name], self.columns[name], train) for name in subset]
        x, y = sparse.csr_matrix(sparse.hstack(blocks)), self.labels
        models = (LogisticRegression(C=c, max_iter=300).fit(x[train], y[train]) for c in penalties)
        return [float((fitted.predict(x[rows]) == y[rows]).mean()) for fitted in models]

    def scores(self, subset: tuple[str, ...]) -> tuple[float, float, float]:
        """Penalty that is best on validation, accuracy on test with it, and over folds."""
        train, validation, test = (np.flatnonzero(self.sides == split) for split in SPLITS)
        penalty = PENALTIES[int(np.argmax(self.accuracies(subset, PENALTIES, train, validation)))]
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(self.sides, self.labels, self.groups)
        parts = [(train, test), *folds]
        found = [self.accuracies(subset, (penalty,), *part)[0] for part in parts]
        return penalty, found[0], float(np.mean(found[1:]))


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("watch", "uci_views", "stamps"))
    parser.add_argument("--source", type=pathlib.Path, required=True, help="directory of the package")
    arguments = parser.parse_args()
    layout = find_layout(arguments.name)
    problems = layout.problems(arguments.source)
    if problems:
        sys.exit("\n".join(problems))
    warnings.simplefilter("ignore", ConvergenceWarning)  # the weakest penalties: validation tells their worth
    baselines = Baselines(layout, arguments.source)
    names = list(layout.kinds)
    subsets = [(name,) for name in names] + [tuple(names)]
    if arguments.name == "uci_views":
        subsets.append(("fou", "mor", "zer"))
    print(f"majority {np.bincount(baselines.labels).max() / len(baselines.labels):.3f}, n = {len(baselines.labels)}")
    print("| features | C | test | 5 grouped folds |\n|---|---:|---:|---:|")
    for subset in subsets:
        penalty, test, folds = baselines.scores(subset)
        print(f"| {' + '.join(subset)} | {penalty:g} | {100 * test:.1f} | {100 * folds:.1f} |")


if __name__ == "__main__":
    main()
