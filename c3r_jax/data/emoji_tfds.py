"""The emoji set as a TensorFlow Datasets builder, written and read without TensorFlow (format ``array_record``).

Not imported by ``c3r_jax.data``: TensorFlow Datasets is slow to import and only some need it.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from c3r_jax.data.emoji import SPLITS, encode_png, load_emoji, read_index
from c3r_jax.data.source import DatasetInfo, Example

IMAGE_SIZE = 64


class Emoji(tfds.core.GeneratorBasedBuilder):
    """1,906 emoji as image on white (64 x 64) and name, 9 classes, one fixed leak-free split.

    Args:
      path: another emoji.zip, see ``load_emoji``; the embedded file if not given.
      file_format: "array_record" unless TensorFlow is there.
      **kwargs: as for every builder, such as ``data_dir``.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}

    def __init__(self, *, path: str | os.PathLike[str] | None = None, file_format: str = "array_record", **kwargs: Any):
        self._path = path
        super().__init__(file_format=file_format, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        index, archive, _ = read_index(self._path)
        archive.close()
        return self.dataset_info_from_configs(
            description="Emoji as image and name, to be told apart by Unicode group.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(IMAGE_SIZE, IMAGE_SIZE, 3), encoding_format="png"),
                    "text": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=index["class_names"]),
                    "index": tfds.features.Scalar(np.int32),
                }
            ),
            supervised_keys=None,
            license="Apache-2.0 (images), MIT (names)",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing to download: the file is part of the package
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, Example]]:
        source = load_emoji(split, path=self._path, image_size=IMAGE_SIZE)
        for position in range(len(source)):
            example = source[position]
            # An array as it is would need TensorFlow to be encoded.
            yield example["index"], {**example, "image": encode_png(example["image"])}


class TfdsSource:
    """A split of any prepared builder as a source for the pipelines; texts come back as ``str``.

    Args:
      builder: a prepared builder with a "label" of ``ClassLabel``.
      split: the split's name or a part of it, such as "train[:50%]".
      modalities: names of the features that are inputs, in the order of ``present``.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, *, modalities: tuple[str, ...]):
        as_data_source: Any = builder.as_data_source  # its decorator hides the parameters from type checkers
        self._records = as_data_source(split=split)
        features: Any = builder.info.features
        self._keys = tuple(features)
        shapes = [features[name].shape for name in modalities if isinstance(features[name], tfds.features.Image)]
        self.info = DatasetInfo(
            name=builder.name,
            modalities=tuple(modalities),
            class_names=tuple(features["label"].names),
            split_sizes={name: part.num_examples for name, part in builder.info.splits.items()},
            image_size=shapes[0][0] if shapes else None,
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, position: int, /) -> Example:
        record = self._records[int(position)]
        example: Example = {}
        for name in self.info.modalities:
            value = record[name]
            example[name] = value.decode() if isinstance(value, bytes) else value
        example["label"] = int(record["label"])
        if "index" in self._keys:
            example["index"] = int(record["index"])
        return example
