"""Image-text data sets larger than memory: random access to ArrayRecord shards or WebDataset tar files.

A directory holds ``dataset.json`` and the shards of each split, ``SPLIT-*.arrayrecord`` or ``SPLIT-*.tar``. The
description has {"name", "class_names"}; for classification without labels "phrases": {class: what a person would call
its examples}; where examples come from known environments, "environments": {field of an ArrayRecord's records: names by
id}; for 16-bit greys such as depth "range": [low, high], the values that become black and white; and "upright": false
for pictures that are not to be turned as their EXIF orientation says. Thanks to random access, shuffling over the whole
set, exact resume in the middle of an epoch and sharding by process work as they do in memory; only offsets and labels
are in memory, 20 to 60 bytes per example.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, Protocol

import msgpack
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from c3r_jax.data.media.image import PLAIN, PictureRules, decode_on_white, encode_png
from c3r_jax.data.sets.description import read_description
from c3r_jax.data.sets.shard_files import check_complete, check_different, shards_of
from c3r_jax.data.sets.tar_shards import TarFiles, has_samples
from c3r_jax.data.source import ENVIRONMENT, UNKNOWN, DatasetInfo, Example, choose_environments
from c3r_jax.errors import DataError

SAMPLE = 10_000  # texts from which a word-piece vocabulary is learned


class Examples(Protocol):
    """Anything with a length and examples by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> Example: ...


def write_records(examples: Examples, directory: str | os.PathLike[str], split: str, *, shard_size: int) -> None:
    """Writes a split of {"image", "text", "label"} examples as ArrayRecord shards; also "environment", if they have it.

    Args:
      examples: e.g. ``load_emoji("train", image_size=64)``.
      directory: directory of the data set.
      split: name of the split.
      shard_size: examples per file.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    beside = [directory / f"{split}-{name}.npy" for name in ("labels", ENVIRONMENT)]
    for old in (*directory.glob(f"{split}-*.arrayrecord"), *beside):
        old.unlink(missing_ok=True)
    count, labels, environments = -(-len(examples) // shard_size), [], []
    for shard in range(count):
        path = directory / f"{split}-{shard:05d}-of-{count:05d}.arrayrecord"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for i in range(shard * shard_size, min((shard + 1) * shard_size, len(examples))):
            example = examples[i]
            labels.append(int(example["label"]))
            record = {"image": encode_png(example["image"]), "text": example["text"] or "", "label": labels[-1]}
            if ENVIRONMENT in example:
                environments.append(int(example[ENVIRONMENT]))
                record[ENVIRONMENT] = environments[-1]
            writer.write(msgpack.packb(record))
        writer.close()
    # Stored beside the shards, so that opening the set does not read all of it.
    np.save(beside[0], np.array(labels, np.int32))
    if environments:
        np.save(beside[1], np.array(environments, np.int32))


class _ArrayRecords:
    """Reads {"image": bytes, "text": str, "label": int} by position from ArrayRecord shards."""

    def __init__(self, paths: list[pathlib.Path]):
        self.paths = paths
        self._reader: ArrayRecordDataSource | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "_reader": None}  # each process opens the files itself

    def _open(self) -> ArrayRecordDataSource:
        if self._reader is None:
            self._reader = ArrayRecordDataSource([str(path) for path in self.paths])
        return self._reader

    def __len__(self) -> int:
        try:
            return len(self._open())
        except (RuntimeError, OSError) as error:
            names = ", ".join(path.name for path in self.paths[:4])
            raise DataError(
                f"{names} in {self.paths[0].parent} cannot be opened ({error or type(error).__name__}): one is damaged "
                "or cut short; fetch or write them again."
            ) from error

    def read(self, position: int) -> dict[str, Any]:
        """One example, as it was written."""
        return msgpack.unpackb(self._open()[position])

    def picture(self, position: int) -> bytes:
        """The image of an example, as it was written."""
        return self.read(position)["image"]

    def labels(self) -> np.ndarray:
        """The labels of all examples."""
        written = self._beside("labels")
        return np.array([self.read(i)["label"] for i in range(len(self))]) if written is None else written

    def environments(self, field: str) -> np.ndarray:
        """The ids of the environments of all examples; -1 in records without this field."""
        written = self._beside(field)
        return np.array([self.read(i).get(field, UNKNOWN) for i in range(len(self))]) if written is None else written

    def _beside(self, name: str) -> np.ndarray | None:
        """A number for each example from the file beside the shards, if there is one."""
        split = self.paths[0].name.rsplit("-", 3)[0]
        path = self.paths[0].with_name(f"{split}-{name}.npy")
        if not path.exists():
            return None
        try:
            written = np.load(path, allow_pickle=False)
            if len(written) == len(self):
                return written
            problem = f"has {len(written)} {name} for {len(self)} examples"
        except (OSError, ValueError, EOFError, TypeError) as error:
            problem = f"cannot be read as {name} ({type(error).__name__})"
        raise DataError(f"{path} {problem}: delete it, or write the split again.")

    def key(self, position: int) -> str:
        """The name of an example: its place in the split."""
        name = self.paths[0].name
        return f"record {position} of {name.rsplit('-', 3 if '-of-' in name else 1)[0]}"

    def where(self, position: int) -> str:
        """The location of an example, for messages."""
        return f"record {position} of {self.paths[0].parent}"


def evenly_spaced(count: int) -> list[int]:
    """Positions of up to :data:`SAMPLE` of ``count`` examples, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(SAMPLE, count)).astype(int)).tolist()


class RecordSource:
    """A split in files; ``source[i]`` is {"image": uint8 (S, S, 3), "text" (None if empty), "label", "index"}.

    Attributes:
      info: the data set's description.
      labels: (n,) int32.
      environment: (n,) ids into ``info.environments``; None if there are none.
      streamed: True, so that nothing per example is cached in memory.
    """

    streamed = True

    def __init__(
        self, files: _ArrayRecords | TarFiles, info: DatasetInfo, image_size: int, rules: PictureRules = PLAIN
    ):
        self.info = info
        self._files, self._size, self._rules = files, image_size, rules
        self.labels = info.check_labels(files.labels())
        named = bool(info.environments)
        self.environment = info.check_environments(files.environments(info.environment), len(files)) if named else None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def texts(self) -> list[str]:
        """Texts of up to :data:`SAMPLE` examples, evenly spaced."""
        return [self.stored(i)["text"] for i in evenly_spaced(len(self))]

    def key(self, position: int) -> str:
        """The name of an example, for people: as its file has it."""
        return self._files.key(position)

    def stored(self, position: int) -> dict[str, Any]:
        """An example as it is in its file: the picture's bytes, the text, the label."""
        with self._named(position):
            stored = self._files.read(position)
            if not isinstance(stored["image"], bytes) or not isinstance(stored["text"], str):
                raise TypeError("expected an image's bytes and a text")
            return stored

    def picture(self, position: int) -> bytes:
        """The picture's bytes alone: a tar file is opened once for them."""
        with self._named(position):
            picture = self._files.picture(position)
            if not isinstance(picture, bytes):
                raise TypeError("expected an image's bytes")
            return picture

    @contextlib.contextmanager
    def _named(self, position: int) -> Iterator[None]:
        """Gives an error the name of the example that is read."""
        try:
            yield
        except DataError:
            raise
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise DataError(
                f"{self._files.where(position)} cannot be read ({type(error).__name__}: {error}): write it again, "
                "or leave it out."
            ) from error

    def __getitem__(self, position: int, /) -> Example:
        stored = self.stored(int(position))
        try:
            image = decode_on_white(stored["image"], self._size, self._rules)
        except DataError as error:
            raise DataError(f"{self._files.where(int(position))} cannot be read. {error}") from error
        text = stored["text"] if stored["text"].strip() else None  # as in prepared sets, an empty text is a missing one
        found = {"image": image, "text": text, "label": int(self.labels[position]), "index": int(position)}
        return found if self.environment is None else {**found, ENVIRONMENT: int(self.environment[position])}


def load_records(
    split: str, *, path: str | os.PathLike[str] | None = None, image_size: int = 32, environments: str = ""
) -> RecordSource:
    """Opens one split of a directory of shards.

    Args:
      split: "train", "validation" or "test".
      path: the directory.
      image_size: height and width S to which images are scaled.
      environments: field of the records that names their environments; "": the first of the description, if any.

    Returns:
      :class:`RecordSource`.

    Raises:
      DataError: the directory, its description or the split's shards are missing or damaged.
    """
    if not path:
        raise DataError(
            "config.data.name is 'records', but config.data.path is empty: give the directory of the shards."
        )
    directory = pathlib.Path(path)
    about = read_description(directory)
    shards = shards_of(directory, split)
    kinds = {path.suffix for path in shards}
    if len(kinds) != 1:
        raise DataError(
            f"{directory} has {'both kinds of' if kinds else 'no'} shards of split {split!r}: expected "
            f"{split}-*.arrayrecord or {split}-*.tar."
        )
    check_complete(shards)
    check_different(shards, _has_examples)
    files = TarFiles(shards) if kinds == {".tar"} else _ArrayRecords(shards)
    sizes = {file.name: file.stat().st_size for file in shards}
    column, names = choose_environments(about.environments, environments, about.name)
    info = DatasetInfo(
        name=about.name,
        modalities=("image", "text"),
        class_names=about.class_names,
        split_sizes={split: len(files)},
        sha256=_fingerprint(sizes),
        image_size=image_size,
        phrases=about.phrases,
        environment=column,
        environments=names,
    )
    return RecordSource(files, info, image_size, about.rules)


def _has_examples(path: pathlib.Path) -> bool:
    """Whether a shard has examples; programs that write in parallel leave some without."""
    return has_samples(path) if path.suffix == ".tar" else len(_ArrayRecords([path])) > 0


def _fingerprint(sizes: dict[str, int]) -> str:
    """A hash of names and sizes of the shards: a checksum of terabytes would take longer than many runs."""
    return hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).hexdigest()
