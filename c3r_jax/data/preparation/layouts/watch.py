"""Watch: shoulder exercises, recorded by a smartwatch's accelerometer and gyroscope, from the package seglearn."""

import pathlib
import tempfile
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from c3r_jax.data.preparation.layout import Item, Layout, Record
from c3r_jax.data.preparation.packages import Package
from c3r_jax.errors import DataError
from c3r_jax.files.pickles import load_pickle

FILE = "seglearn/data/watch_dataset.npy"
WINDOW = 200  # samples, 4 seconds
SUBJECTS = {"train": range(1, 7), "validation": range(7, 9), "test": range(9, 11)}
PACKAGE = Package(
    command="pip download --no-deps seglearn==1.2.5",
    archives=("seglearn-1.2.5*.whl", "seglearn-1.2.5*.tar.gz"),
    wanted=FILE,
)


class Watch(Layout):
    """140 recordings of 10 people at 50 Hz, cut into windows of 200 samples without overlap (the remainder is dropped).

    The split is by person: 1 to 6 for training, 7 and 8 for validation, 9 and 10 for test; persons are environments, so
    that tests are on persons never seen. Values stay as recorded
    (both sensors have standard deviations between 0.5 and 2.5).

    References:
      D. Burns et al., Shoulder physiotherapy exercise recognition, 2018 (arXiv 1802.01489).
    """

    name = "watch"
    title = "Smartwatch exercises (accelerometer and gyroscope)"
    homepage = "https://pypi.org/project/seglearn"
    license = "BSD-3-Clause"
    kinds = {"accelerometer": "sequence", "gyroscope": "sequence"}
    shapes = {"accelerometer": (WINDOW, 3), "gyroscope": (WINDOW, 3)}
    published_sizes = {"train": 656, "validation": 246, "test": 247}
    splits = {"train": "train", "validation": "validation", "test": "test"}
    environments = ("subject",)
    version = "1.1.0"  # names each window's subject

    def problems(self, source: pathlib.Path) -> list[str]:
        """See :class:`Layout`: the package, with matching arrays."""
        found = PACKAGE.problems(source, (FILE,))
        if not found:
            try:
                _recordings(source)
            except DataError as error:
                found.append(str(error))
        return found

    def class_names(self, source: pathlib.Path) -> tuple[str, ...]:
        """See :class:`Layout`: in the order of the file's class ids."""
        return tuple(str(name) for name in _recordings(source)["y_labels"])

    def list_files(self, source: pathlib.Path) -> list[pathlib.Path]:
        """See :class:`Layout`: the package."""
        archive = PACKAGE.archive(source)
        return [] if archive is None else [archive]

    def items(self, source: pathlib.Path) -> dict[str, list[Item]]:
        """See :class:`Layout`: windows in the order of recordings and time."""
        data = _recordings(source)
        items: dict[str, list[Item]] = {split: [] for split in SUBJECTS}
        for number, (series, label, subject) in enumerate(zip(data["X"], data["y"], data["subject"], strict=True)):
            split = next((split for split, people in SUBJECTS.items() if subject in people), "train")
            for start in range(0, len(series) - WINDOW + 1, WINDOW):
                person = f"subject_{int(subject):02d}"
                key = f"{person}/recording_{number:03d}/{start:05d}"
                items[split].append(Item(key, int(label), place=(number, start), environments=(person,)))
        return items

    def reader(self, source: pathlib.Path) -> Callable[[Item], Record]:
        """See :class:`Layout`."""
        series = _recordings(source)["X"]

        def read(item: Item) -> Record:
            number, start = item.place
            window = series[number][start : start + WINDOW]
            return {"accelerometer": window[:, :3], "gyroscope": window[:, 3:]}

        return read


def _recordings(source: pathlib.Path) -> dict[str, Any]:
    """The dict in the package's file: "X" (list of (n, 6)), "y", "subject", "y_labels".

    Raises:
      DataError: the file is missing, damaged or has another format.
    """
    place = str(PACKAGE.archive(source) or source)
    content = PACKAGE.files(source).get(FILE, b"")
    # The array is a single Python object, so a pickle follows the header of the .npy file.
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / pathlib.PurePath(FILE).name
        path.write_bytes(content[10 + int.from_bytes(content[8:10], "little") :])
        try:
            loaded = load_pickle(path)
        except DataError as error:
            raise DataError(str(error).replace(str(path), f"{FILE} in {place}")) from error
        data = loaded.item() if isinstance(loaded, np.ndarray) and loaded.ndim == 0 else loaded
        return _checked(data, place)


def _checked(data: Any, place: str) -> dict[str, Any]:
    try:
        series = [np.array(recording, np.float32) for recording in data["X"]]
        labels, subjects, names = np.array(data["y"]), np.array(data["subject"]), list(data["y_labels"])
        fits = len(series) == len(labels) == len(subjects) and all(recording.shape[1:] == (6,) for recording in series)
        fits = fits and labels.dtype.kind == subjects.dtype.kind == "i" and bool(series)
        fits = fits and 0 <= labels.min() and labels.max() < len(names)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"{FILE} in {place} has another format than expected ({type(error).__name__}: {error})."
        ) from error
    if not fits:
        raise DataError(
            f"{FILE} in {place} has recordings, labels and subjects that do not match: expected arrays (n, 6), each "
            f"with a class id and a subject. Fetch it with `{PACKAGE.command}`."
        )
    return {"X": series, "y": cast(Any, labels), "subject": subjects, "y_labels": names}
