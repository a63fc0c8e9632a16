"""The embedded data set: 1,906 emoji as image and name, 9 classes, one fixed split without leaks (see NOTICE)."""

import functools
import hashlib
import io
import json
import os
import pathlib
import zipfile
from typing import Any

import numpy as np

from c3r_jax.caches import CacheArgument
from c3r_jax.data.array_source import ArraySource
from c3r_jax.data.media.image import decode_on_white
from c3r_jax.data.source import DatasetInfo
from c3r_jax.errors import DataError

# Phrases of a person who has seen neither the pictures nor their names, for zero-shot classification.
CLASS_PHRASES = {
    "smileys & emotion": ("smiling face", "crying face", "angry face", "face with tongue", "heart", "skull", "ghost"),
    "people & body": ("man", "woman", "person walking", "hand", "family", "woman doctor", "man cook", "girl", "boy"),
    "animals & nature": ("dog", "cat", "bird", "fish", "insect", "flower", "tree", "horse", "leaf"),
    "food & drink": ("bread", "fruit", "cake", "meat", "glass of wine", "vegetable", "bowl of rice", "cup of coffee"),
    "travel & places": ("house", "building", "car", "train", "airplane", "moon", "rain cloud", "clock", "sun", "ship"),
    "activities": ("ball", "game", "sports medal", "party", "ticket", "tennis", "fishing", "playing card"),
    "objects": ("tool", "book", "telephone", "camera", "shirt", "guitar", "box", "lamp", "scissors", "envelope"),
    "symbols": ("arrow", "sign", "button", "circle", "square", "cross mark", "star sign", "number", "question mark"),
    "flags": ("flag", "France", "Japan", "Brazil", "Kenya", "Australia", "Islands", "Republic", "South"),
}
SPLITS = ("train", "validation", "test")
ASSET = pathlib.Path(__file__).parent / "assets" / "emoji.zip"
REPAIR = "restore it with git or reinstall the package, or build it with the script in tools/ that builds it"


class EmojiSource(ArraySource):
    """One split of the emoji set; ``source[i]`` is ``{"image", "text", "label", "index"}``, see ``load_emoji``."""

    @property
    def images(self) -> np.ndarray:
        """Images on white. Shape ``(n, S, S, 3)``, uint8."""
        images = self.columns["image"]
        assert isinstance(images, np.ndarray)
        return images

    @property
    def texts(self) -> list[str]:
        """The n names."""
        return list(self.columns["text"])


def read_checked(path: str | os.PathLike[str]) -> tuple[bytes, str]:
    """Returns a file's bytes and SHA-256, after comparing it with ``<path>.sha256`` beside it.

    Raises:
      DataError: the file or its checksum is missing, or they do not match (truncated or modified file).
    """
    path = pathlib.Path(path)
    checksum = path.with_name(path.name + ".sha256")
    try:
        content = path.read_bytes()
        words = checksum.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        missing = path if not path.is_file() else checksum
        raise DataError(f"The data file {missing} cannot be read ({type(error).__name__}): {REPAIR}.") from error
    expected = words[0] if words else "nothing"
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataError(
            f"The data file {path} ({len(content)} bytes) has SHA-256 {found}, expected {expected}: it is truncated or "
            f"modified; {REPAIR}."
        )
    return content, found


def read_index(path: str | os.PathLike[str] | None = None) -> tuple[dict[str, Any], zipfile.ZipFile, str]:
    """Returns the data set's index, its open archive and its SHA-256, after checking it."""
    content, digest = read_checked(ASSET if path is None else path)
    archive = zipfile.ZipFile(io.BytesIO(content))
    return json.loads(archive.read("index.json")), archive, digest


@functools.lru_cache(maxsize=12)
def decoded(file: CacheArgument[zipfile.ZipFile], hexcodes: tuple[str, ...], size: int) -> np.ndarray:
    """Images of an archive (n, size, size, 3), decoded once for all runs of a process and therefore read-only."""
    images = np.stack([decode_on_white(file.value.read(f"images/{code}.png"), size) for code in hexcodes])
    images.flags.writeable = False
    return images


def write_subset(path: str | os.PathLike[str], items: list[dict[str, Any]]) -> None:
    """Writes a subset of the emoji, possibly with other splits, as a file of the same format with its checksum.

    Args:
      path: the zip to write; ``<path>.sha256`` is written beside it.
      items: entries of the embedded index's "items".
    """
    path = pathlib.Path(path)
    index, archive, _ = read_index()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("index.json", json.dumps({**index, "items": items}))
        for item in items:
            name = f"images/{item['hexcode']}.png"
            file.writestr(name, archive.read(name))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n", encoding="ascii")


def load_emoji(split: str, *, path: str | os.PathLike[str] | None = None, image_size: int = 32) -> EmojiSource:
    """Loads one split of the embedded emoji set into memory.

    Near-duplicates (gender, age, colour, direction, numbers, similar flags) are in one split, and the name of a flag
    does not contain the word "flag", so only the content of picture and name can predict the class.

    Args:
      split: "train" (1,143), "validation" (383) or "test" (380).
      path: another emoji.zip, with its checksum in ``<path>.sha256``; the embedded file if not given.
      image_size: height and width S of the images, 1 to 256; those in the file are 64 x 64.

    Returns:
      The source: ``{"image": uint8 (S, S, 3), "text": str, "label": int, "index": int}``, the index being the
      example's position in the whole file.

    Raises:
      ValueError: the split or size does not exist.
      DataError: the file is missing, truncated or modified.

    Examples:
      >>> source = load_emoji("test", image_size=16)
      >>> source.images.shape[1:], source.info.num_classes
      ((16, 16, 3), 9)
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {SPLITS}: name a split of the emoji set.")
    if not 1 <= image_size <= 256:
        raise DataError(f"image_size is {image_size}, expected 1 to 256: the images in the file are 64 x 64.")
    index, archive, digest = read_index(path)
    items = index["items"]
    info = DatasetInfo(
        name=index["name"],
        modalities=("image", "text"),
        class_names=tuple(index["class_names"]),
        split_sizes={name: sum(item["split"] == name for item in items) for name in SPLITS},
        sha256=digest,
        image_size=image_size,
        phrases=CLASS_PHRASES,
    )
    chosen = np.array([position for position, item in enumerate(items) if item["split"] == split], np.int32)
    images = decoded(CacheArgument(digest, archive), tuple(items[i]["hexcode"] for i in chosen), image_size)
    texts = [items[i]["name"] for i in chosen]
    labels = np.array([items[i]["label"] for i in chosen])
    return EmojiSource({"image": images, "text": texts}, labels, info=info, index=chosen)
