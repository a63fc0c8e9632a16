"""A TensorFlow Datasets builder for a layout, written and read without TensorFlow (format ``array_record``).

Imported only when needed: TensorFlow Datasets is slow to import.
"""

import contextlib
import io
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from c3r_jax.data.media.image import encode_png
from c3r_jax.data.preparation.convert import Entry, unpack
from c3r_jax.data.preparation.layout import Layout

EMPTY_IMAGE = encode_png(np.full((1, 1, 3), 255, np.uint8))  # for a missing image: readers expect one
_IMAGE = tfds.features.Image(shape=(None, None, 3))


class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The builder of a benchmark, as its layout describes it.

    Features are the modalities (images encoded as they were, texts, tensors; empty ones where ``present`` is False),
    ``present`` (M,) in the order of their names, ``label`` by task, ``key`` (the item's name for people) and ``index``
    (its position in the split's list).

    Args:
      layout: layout of the benchmark.
      class_names: names by class id.
      entries: returns the entries of a split, including damaged ones.
      splits: the splits to write.
      data_dir: directory in which ``NAME/VERSION`` is written.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}

    def __init__(
        self,
        layout: Layout,
        class_names: tuple[str, ...],
        entries: Callable[[str], Iterator[Entry]],
        splits: tuple[str, ...],
        *,
        data_dir: str | os.PathLike[str],
    ):
        self.name = layout.name
        self.VERSION = tfds.core.Version(layout.version)
        self.RELEASE_NOTES = {layout.version: f"Written by the layout's version {layout.version}."}
        self._layout, self._class_names, self._entries, self._splits = layout, class_names, entries, splits
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        layout = self._layout
        features = {name: self._feature(name) for name in layout.kinds}
        features |= {
            "present": tfds.features.Tensor(shape=(len(layout.kinds),), dtype=np.bool_),
            "label": self._label_feature(),
            "key": tfds.features.Text(),
            "index": tfds.features.Scalar(np.int64),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{layout.title}, as prepared from the files that its owners distribute.",
            features=tfds.features.FeaturesDict(features),
            homepage=layout.homepage,
            license=layout.license,
        )

    def _feature(self, name: str) -> Any:
        kind, tensor = self._layout.kinds[name], tfds.features.Tensor
        if kind == "image":
            return _IMAGE
        if kind == "video":
            return tfds.features.Sequence(_IMAGE)
        if kind == "text":
            return tfds.features.Text()
        if kind == "audio":
            return tensor(shape=self._shape(name), dtype=np.int16, encoding="bytes")
        encoding = "zlib" if kind == "volume" else "bytes"  # most of a volume is air
        return tensor(shape=self._shape(name), dtype=np.float32, encoding=encoding)

    def _shape(self, name: str) -> tuple[int | None, ...]:
        layout = self._layout
        rank = {"features": 1, "sequence": 2, "audio": 1, "volume": 4, "mask": 3}[layout.kinds.get(name, "mask")]
        return tuple(layout.shapes.get(name, (None,) * rank))

    def _label_feature(self) -> Any:
        task, tensor = self._layout.task, tfds.features.Tensor
        if task.one_class_per_example:
            return tfds.features.ClassLabel(names=list(self._class_names))
        if task.label_per_class:
            return tensor(shape=(len(self._class_names),), dtype=np.uint8)
        if task.dense:
            return tensor(shape=self._shape("label"), dtype=np.uint8, encoding="zlib")
        return tfds.features.Scalar(task.dtype)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing to download
        return {split: self._generate_examples(split) for split in self._splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for entry in self._entries(split):
            if "reason" not in entry:
                yield entry["key"], self._example(entry)

    def _example(self, entry: Entry) -> dict[str, Any]:
        kinds = self._layout.kinds
        label = entry["label"]
        if self._layout.task.dense:
            label = unpack(label)
        elif self._layout.task.label_per_class:
            label = np.array(label, np.uint8)
        example = {name: self._stored(name, kind, entry[name]) for name, kind in kinds.items()}
        present = np.array([entry[name] is not None for name in kinds])
        return {**example, "present": present, "label": label, "key": entry["key"], "index": entry["index"]}

    def _stored(self, name: str, kind: str, value: Any) -> Any:
        if kind == "text":
            return value or ""
        if kind == "image":
            return value or EMPTY_IMAGE
        if kind == "video":
            return value or [EMPTY_IMAGE]
        if value is None:
            # 1 where a side has no fixed length: TensorFlow Datasets cannot read such arrays if they are empty.
            return np.zeros([side or 1 for side in self._shape(name)], np.int16 if kind == "audio" else np.float32)
        return unpack(value)


def write_tfds(builder: Prepared) -> pathlib.Path:
    """Writes all splits, with TensorFlow Datasets' own bar on a terminal; returns the directory that holds them."""
    if sys.stderr.isatty():
        tfds.enable_progress_bar()
    else:
        tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()), _in_fixed_order():  # it would print its output directory twice
        builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)


@contextlib.contextmanager
def _in_fixed_order() -> Iterator[None]:
    """Writes features sorted by name: otherwise their order, and all checksums, would differ between processes."""
    serializer: Any = ExampleSerializer
    original = serializer.serialize_example

    def serialize_example(self: Any, example: Any) -> bytes:
        return self.get_tf_example(example).SerializeToString(deterministic=True)

    serializer.serialize_example = serialize_example
    try:
        yield
    finally:
        serializer.serialize_example = original
