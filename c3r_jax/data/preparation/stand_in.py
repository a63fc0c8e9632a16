"""A prepared benchmark without its files: examples of the right kinds and shapes, for a run on paper."""

import pathlib
from typing import Any

import numpy as np

from c3r_jax.data.array_source import ArraySource
from c3r_jax.data.media.audio import SPECTROGRAMS
from c3r_jax.data.preparation.layout import Layout
from c3r_jax.data.source import DatasetInfo
from c3r_jax.errors import DataError

SPLITS = ("train", "validation", "test")
SIDE = 128  # of an array whose side differs between items
EXAMPLES = 4  # at least; there is one of each class


class StandIn(ArraySource):
    """Made-up examples with the shapes of a benchmark; nothing can be learned from them.

    Attributes:
      texts: texts of its examples.
    """

    texts: tuple[str, ...] = ("a text", "another text")


def stand_in(split: str, *, layout: Layout, path: str | None = None, image_size: int = 32, **settings: Any) -> StandIn:
    """A split of a benchmark whose files are not there.

    Args:
      split: name of the split; all are equal.
      layout: the benchmark's layout.
      path: where it was looked for, for messages.
      image_size: height and width of its images and frames.
      settings: what else loaders take; not used.

    Raises:
      DataError: modalities, shapes or number of classes are only in its files.

    Examples:
      >>> from c3r_jax.data.preparation.layouts.image_text import HatefulMemes
      >>> source = stand_in("train", layout=HatefulMemes(), image_size=8)
      >>> source.info.num_classes, source[0]["image"].shape, source[0]["text"]
      (2, (8, 8, 3), 'a text')
    """
    del split, settings
    kinds = dict(sorted(getattr(layout, "kinds", {}).items()))
    if not kinds:
        raise _only_in_files(layout, path, "which modalities it has")
    task, classes = layout.task, _num_classes(layout, path)
    count = 1 if task.dense else max(EXAMPLES, classes)  # one map has pixels of every class
    columns = {name: _column(layout, name, kind, count, image_size) for name, kind in kinds.items()}
    if task.dense:
        shape = tuple(side or SIDE for side in layout.shapes["label"])
        labels = np.resize(np.arange(classes, dtype=np.uint8), (count, *shape))
    elif task.label_per_class:
        labels = np.eye(count, classes, dtype=np.int32)
    else:
        labels = np.arange(count) % classes if task.has_classes else np.linspace(-1, 1, count, dtype=np.float32)
    info = DatasetInfo(
        name=layout.name,
        modalities=tuple(kinds),
        class_names=tuple(f"class {number}" for number in range(classes)),
        split_sizes=dict.fromkeys(SPLITS, count),
        image_size=image_size,
        task=task.name,
        regions=layout.regions,
    )
    return StandIn(columns, labels, info=info)


def _only_in_files(layout: Layout, path: str | None, what: str) -> DataError:
    """The error that only files say something."""
    place = f" in {path}" if path else ""
    return DataError(
        f"{layout.name!r} is not prepared{place}, and only its files say {what}: prepare it first (c3r prepare "
        f"{layout.name} --source DIR --out OUT), and give the directory after --out as config.data.path."
    )


def _num_classes(layout: Layout, path: str | None) -> int:
    if not layout.task.has_classes:
        return 0
    try:
        known = len(layout.class_names(pathlib.Path("not there")))
    except (OSError, DataError):
        known = 0
    known = known or getattr(layout, "num_classes", 0) or getattr(layout, "most_classes", 0)
    if not known:
        raise _only_in_files(layout, path, "how many classes it has")
    return known


def _column(layout: Layout, name: str, kind: str, count: int, image_size: int) -> Any:
    if kind == "text":
        return [StandIn.texts[number % 2] for number in range(count)]
    if kind in ("image", "video"):
        frames = (getattr(layout, "num_frames", 1),) if kind == "video" else ()
        # A view of one number, for videos and volumes of all examples would fill the memory.
        return np.broadcast_to(np.uint8(127), (count, *frames, image_size, image_size, 3))
    shape = SPECTROGRAMS[layout.spectrogram] if kind == "audio" else layout.shapes[name]
    sides = tuple(side or SIDE for side in shape)
    return np.broadcast_to(np.linspace(-1, 1, sides[-1], dtype=np.float32), (count, *sides))
