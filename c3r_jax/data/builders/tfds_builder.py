"""A TensorFlow Datasets builder made from a layout, written and read without TensorFlow (format ``array_record``).

Not imported by ``c3r_jax.data``: TensorFlow Datasets is slow to import and only some need it.
"""

import contextlib
import io
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from c3r_jax.data.builders.convert import Entry, unpack
from c3r_jax.data.builders.layout import Layout
from c3r_jax.data.emoji import encode_png

EMPTY_IMAGE = encode_png(np.full((1, 1, 3), 255, np.uint8))  # where an image is missing: readers must find one
_IMAGE = tfds.features.Image(shape=(None, None, 3))


class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A benchmark as its layout describes it.

    Features are the modalities (images encoded as they were, texts, tensors; empty ones where ``present`` is False),
    ``present`` (M,) in the order of their names, ``label`` by task, ``key`` (what a person knows the item by) and
    ``index`` (its place in the split's list).

    Args:
      layout: the benchmark's.
      class_names: by class id.
      entries: gives the entries of a split, damaged ones included.
      splits: the splits to write.
      data_dir: where ``NAME/VERSION`` is written.
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
            description=f"{layout.title}, as prepared from the files that its owners give out.",
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
        if task == "classification":
            return tfds.features.ClassLabel(names=list(self._class_names))
        if task == "regression":
            return tfds.features.Scalar(np.float32)
        if task == "multilabel":
            return tensor(shape=(len(self._class_names),), dtype=np.uint8)
        return tensor(shape=self._shape("label"), dtype=np.uint8, encoding="zlib")

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
        if self._layout.task == "segmentation":
            label = unpack(label)
        elif self._layout.task == "multilabel":
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
            # 1 where a side has no fixed length: TensorFlow Datasets cannot read arrays of no value then.
            return np.zeros([side or 1 for side in self._shape(name)], np.int16 if kind == "audio" else np.float32)
        return unpack(value)


def write_tfds(builder: Prepared) -> pathlib.Path:
    """Writes all splits, with TensorFlow Datasets' own bar on a terminal; returns the directory that holds them."""
    if sys.stderr.isatty():
        tfds.enable_progress_bar()
    else:
        tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()), _in_fixed_order():  # it would say twice where it writes, in bold
        builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)


@contextlib.contextmanager
def _in_fixed_order() -> Iterator[None]:
    """Writes features sorted by name: else their order, and all checksums, differ from process to process."""
    serializer: Any = ExampleSerializer
    usual = serializer.serialize_example

    def serialize_example(self: Any, example: Any) -> bytes:
        return self.get_tf_example(example).SerializeToString(deterministic=True)

    serializer.serialize_example = serialize_example
    try:
        yield
    finally:
        serializer.serialize_example = usual


class _AsStored(tfds.decode.SkipDecoding):
    """Leaves a feature as the record has it, also frames of a video."""

    def decode_example_np(self, serialized_example: Any) -> Any:
        return serialized_example

    def decode_batch_example_np(self, serialized_example: Any) -> Any:
        return serialized_example


def open_records(directory: str | os.PathLike[str], split: str, *, undecoded: Mapping[str, str] | None = None) -> Any:
    """Opens a split for reading by position: a sequence of dicts, which can be given to other processes.

    Args:
      directory: of the prepared set.
      split: its name.
      undecoded: {feature: its kind} of which the bytes are wanted; None: of all features.
    """
    builder = tfds.builder_from_directory(directory)
    features: Any = builder.info.features
    names = features if undecoded is None else undecoded
    as_data_source: Any = builder.as_data_source  # its decorator hides the parameters from type checkers
    return as_data_source(split=split, decoders={name: _AsStored() for name in names})
