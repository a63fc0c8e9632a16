"""Prepared benchmarks as sources: random access to the output of ``c3r prepare``."""

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from c3r_jax.data.media.audio import spectrogram
from c3r_jax.data.media.image import decode_frames, decode_image
from c3r_jax.data.sets.manifest import ENVIRONMENTS, find_prepared, read_manifest
from c3r_jax.data.sets.records import evenly_spaced
from c3r_jax.data.source import ENVIRONMENT, DatasetInfo, Example, choose_environments
from c3r_jax.errors import DataError
from c3r_jax.tasks.registry import named

HELD_OUT = 0.1  # share of the training split that becomes "validation" if a benchmark has none


class PreparedSource:
    """A split of a prepared benchmark.

    ``source[i]`` has the modalities, decoded to fixed shapes (None if missing), "label", "present", "key" and "index",
    the item's position in the benchmark's list; and "environment" where ``info.environments`` has names.

    Attributes:
      info: the data set's description.
      environment: (n,) ids into ``info.environments``; None if there are none.
      streamed: True, so that nothing per example is cached in memory.
    """

    streamed = True

    def __init__(
        self, directory: pathlib.Path, manifest: dict[str, Any], split: str, positions: np.ndarray, info: DatasetInfo
    ):
        self.info = info
        self._directory, self._manifest, self._split, self._positions = directory, manifest, split, positions
        self._labelled = manifest["splits"][split]["labelled"]
        self._labels = None
        if not info.spec.dense:
            self._labels = np.load(directory / f"labels-{split}.npy", allow_pickle=False)[positions]
            if self._labelled:
                self._labels = info.check_labels(self._labels)
        self.environment = None
        if info.environments:
            ids = np.load(directory / ENVIRONMENTS.format(split), allow_pickle=False)
            column = list(manifest["environments"]).index(info.environment)
            self.environment = info.check_environments(ids[positions, column], len(positions))
        self._records: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_records": None}  # each process opens the files itself

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def labels(self) -> Any:
        """The labels ``(n, ...)`` of all examples; None for masks, which are as large as the inputs.

        Raises:
          DataError: the split has no labels.
        """
        if not self._labelled:
            raise DataError(
                f"Split {self._split!r} of {self.info.name!r} has no labels, so nothing can be evaluated on it: "
                "choose another config.eval.split, or prepare the set again with its labels."
            )
        return self._labels

    @property
    def texts(self) -> list[str]:
        """Texts of up to ``SAMPLE`` examples, evenly spread."""
        names = [name for name, kind in self._manifest["kinds"].items() if kind == "text"]
        records = (self.record(i) for i in evenly_spaced(len(self)))
        return [record[name].decode() for record in records for name in names if record[name]]

    def __getitem__(self, position: int, /) -> Example:
        record = self.record(int(position))
        present = np.asarray(record["present"], bool)
        example: Example = {"present": present, "index": int(record["index"]), "key": record["key"].decode()}
        try:
            for name, is_present in zip(self.info.modalities, present, strict=True):
                kind = self._manifest["kinds"][name]
                example[name] = self._decoders[kind](record[name]) if is_present else None
        except DataError as error:
            raise DataError(f"{example['key']!r} of {self.info.name!r}: {error}") from error
        if self.environment is not None:
            example[ENVIRONMENT] = int(self.environment[position])
        label = record["label"]
        example["label"] = label if np.ndim(label) else label.item() if isinstance(label, np.generic) else label
        return example

    def record(self, position: int) -> dict[str, Any]:
        """One example as it is stored, with images and frames encoded."""
        if self._records is None:
            from c3r_jax.data.sets.tfds_records import open_records  # TensorFlow Datasets is slow to import

            encoded = {name: kind for name, kind in self._manifest["kinds"].items() if kind in ("image", "video")}
            self._records = open_records(self._directory, self._split, undecoded=encoded)
        return self._records[int(self._positions[position])]

    @property
    def _decoders(self) -> dict[str, Callable[[Any], Any]]:
        """The function that decodes a stored value, by kind."""
        size, manifest = self.info.image_size, self._manifest
        assert size is not None
        return {
            "image": functools.partial(decode_image, size=size, fit=manifest["fit"]),
            "video": lambda frames: decode_frames(list(frames), size, fit=manifest["fit"]),
            "text": bytes.decode,
            "audio": functools.partial(spectrogram, rate=manifest["sample_rate"], kind=manifest["spectrogram"]),
            "features": np.array,
            "sequence": np.array,
            "volume": np.array,
        }


def load_prepared(
    split: str,
    *,
    name: str | None = None,
    path: str | os.PathLike[str] | None = None,
    image_size: int = 32,
    environments: str = "",
) -> PreparedSource:
    """Opens one split of a prepared benchmark.

    If the benchmark has no validation split, "validation" is the last tenth of each class of "train" (of all items, if
    labels are not classes), in the random order of the records, and "train" is the rest.

    Args:
      split: name of the split.
      name: name of the benchmark; any prepared one if not given.
      path: the directory that was given as ``--out``, or the prepared set's directory.
      image_size: height and width S to which images are scaled.
      environments: column that names the examples' environments; "": the first one, if the set has any.

    Returns:
      :class:`PreparedSource`, after comparing names and sizes of its files with its manifest.

    Raises:
      DataError: the set is missing or incomplete, or has no such split or column.
    """
    directory = find_prepared(pathlib.Path(path), name or "*") if path else None
    if directory is None:
        name = name or "NAME"
        place = f"{path} has no prepared {name!r}" if path else f"config.data.path of {name!r} is empty"
        raise DataError(
            f"{place}: run 'python -m c3r_jax.data.prepare {name} --source DIR --out {path or 'OUT'}' and give the "
            "directory after --out as config.data.path."
        )
    manifest = read_manifest(directory)
    if name not in (None, manifest["name"]):
        raise DataError(f"{directory} has {manifest['name']!r} prepared, expected {name!r}: give its own directory.")
    sizes = {part: counts["written"] for part, counts in manifest["splits"].items() if counts["written"]}
    stored_split, positions = split, np.arange(sizes.get(split, 0))
    if "validation" not in manifest["splits"] and split in ("train", "validation"):
        stored_split, (train, validation) = "train", _hold_out(directory, manifest["task"], sizes["train"])
        sizes |= {"train": len(train), "validation": len(validation)}
        positions = train if split == "train" else validation
    if not len(positions):
        raise DataError(f"{directory} has no items of split {split!r}, expected one of {', '.join(sizes)}.")
    column, names = choose_environments(manifest.get("environments", {}), environments, manifest["name"])
    info = DatasetInfo(
        name=manifest["name"],
        modalities=tuple(manifest["kinds"]),
        class_names=tuple(manifest["class_names"]),
        split_sizes=sizes,
        sha256=hashlib.sha256(json.dumps(manifest["files"], sort_keys=True).encode()).hexdigest(),
        image_size=image_size,
        task=manifest["task"],
        regions={name: tuple(ids) for name, ids in manifest.get("regions", {}).items()},
        environment=column,
        environments=names,
        columns={name: tuple(columns) for name, columns in manifest.get("columns", {}).items()},
        phrases={label: tuple(some) for label, some in manifest.get("phrases", {}).items()},
    )
    return PreparedSource(directory, manifest, stored_split, positions, info)


def _hold_out(directory: pathlib.Path, task: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the training examples, and of those that are held out for validation."""
    labels = np.zeros(count, np.int32)
    if named(task).one_class_per_example:
        labels = np.load(directory / "labels-train.npy", allow_pickle=False)
    held = np.zeros(count, bool)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        held[places[len(places) - round(HELD_OUT * len(places)) :]] = True
    if not held.any():
        held[-1] = True  # the set is so small that no class has ten examples
    return np.flatnonzero(~held), np.flatnonzero(held)


def prepared_splits(path: str | os.PathLike[str] | None, name: str) -> tuple[str, ...]:
    """Returns the splits that :func:`load_prepared` can open, "train" and "validation" first."""
    sizes = load_prepared("train", name=name, path=path).info.split_sizes
    return ("train", "validation", *sorted(set(sizes) - {"train", "validation"}))
