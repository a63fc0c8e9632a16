"""Random access to the shards that TensorFlow Datasets writes."""

import os
from collections.abc import Mapping
from typing import Any

import tensorflow_datasets as tfds


class _AsStored(tfds.decode.SkipDecoding):
    """Returns a feature as it is stored, also the frames of a video."""

    def decode_example_np(self, serialized_example: Any) -> Any:
        return serialized_example

    def decode_batch_example_np(self, serialized_example: Any) -> Any:
        return serialized_example


def open_records(directory: str | os.PathLike[str], split: str, *, undecoded: Mapping[str, str] | None = None) -> Any:
    """Opens a split for random access: a sequence of dicts, which can be passed to other processes.

    Args:
      directory: directory of the prepared set.
      split: name of the split.
      undecoded: {feature: kind} of the features whose bytes are returned; None for all features.
    """
    builder = tfds.builder_from_directory(directory)
    features: Any = builder.info.features
    names = features if undecoded is None else undecoded
    as_data_source: Any = builder.as_data_source  # its decorator hides the parameters from type checkers
    return as_data_source(split=split, decoders={name: _AsStored() for name in names})
