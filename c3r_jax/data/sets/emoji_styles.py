"""Emoji drawn by other makers: training and selection on Noto's pictures, shifted tests on the same names elsewhere.

Nothing is planted here: the shift is that another maker draws the same things in another style. Twemoji's pictures of
the test names are embedded (see NOTICE); Apple's and Facebook's are read from a set that was prepared from their
packages, see :mod:`c3r_jax.data.preparation.layouts.emoji_styles`.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib

import numpy as np

from c3r_jax.caches import CacheArgument
from c3r_jax.data.media.image import decode_on_white
from c3r_jax.data.sets.emoji import ASSET, SPLITS, EmojiSource, decoded, load_emoji, read_index
from c3r_jax.data.sets.prepared import load_prepared
from c3r_jax.errors import DataError

NAME = "emoji_styles"
EMBEDDED = "twitter"  # the maker whose pictures come with the package
OTHERS = ("apple", "facebook")  # makers whose packages the user fetches
MAKERS = (*OTHERS, EMBEDDED)
TWITTER = ASSET.with_name("emoji_twitter.zip")


def picture_names(hexcode: str) -> tuple[str, ...]:
    """The names that a maker's file of an emoji may have: in lower case, with or without the variation selector.

    Examples:
      >>> picture_names("2764-FE0F")
      ('2764-fe0f.png', '2764.png', '2764-fe0f-fe0f.png')
    """
    code = hexcode.lower()
    return tuple(f"{name}.png" for name in (code, code.replace("-fe0f", ""), f"{code}-fe0f"))


def style_splits(path: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
    """The splits that :func:`load_emoji_styles` can open.

    Args:
      path: the directory that was given as ``--out`` of the preparation; None or "": only what is embedded.

    Examples:
      >>> style_splits()
      ('train', 'validation', 'test', 'twitter')
    """
    prepared: tuple[str, ...] = ()
    if path:
        sizes = load_prepared("train", name=NAME, path=path).info.split_sizes
        prepared = tuple(maker for maker in OTHERS if maker in sizes)
    return (*SPLITS, EMBEDDED, *prepared)


def load_emoji_styles(split: str, *, path: str | os.PathLike[str] | None = None, image_size: int = 32) -> EmojiSource:
    """Loads one split into memory.

    Args:
      split: "train", "validation" and "test" are those of :func:`load_emoji`; "twitter" is the test split as Twemoji
        draws it, and "apple" and "facebook" as these do, as far as they draw it.
      path: the directory that was given as ``--out`` of the preparation, for "apple" and "facebook"; the other splits
        are the embedded ones whether it is given or not.
      image_size: height and width S of the images, 1 to 256; those in the files are 64 x 64.

    Returns:
      The source; an example's index is that of the same emoji in the test split.

    Raises:
      ValueError: the split does not exist.
      DataError: a file is missing or damaged, or the maker was not prepared.

    Examples:
      >>> test, shifted = (load_emoji_styles(split, image_size=16) for split in ("test", "twitter"))
      >>> test.texts == shifted.texts, (test.images == shifted.images).all().item()
      (True, False)
    """
    known = (*SPLITS, EMBEDDED, *OTHERS)
    if split not in known:
        raise ValueError(f"split is {split!r}, expected one of {known}: name a split of {NAME}.")
    drawn = load_emoji(split if split in SPLITS else "test", image_size=image_size)
    index, _, digest = read_index()
    archive, twitter_digest = _twitter()
    sizes = {**drawn.info.split_sizes, EMBEDDED: drawn.info.split_sizes["test"]}
    checksum = hashlib.sha256(f"{digest} {twitter_digest}".encode()).hexdigest()
    info = dataclasses.replace(drawn.info, name=NAME, split_sizes=sizes, sha256=checksum)
    if split in SPLITS:
        return EmojiSource(drawn.columns, drawn.labels, info=info, index=drawn.index)
    hexcodes = tuple(index["items"][i]["hexcode"] for i in drawn.index)
    if split == EMBEDDED:
        images, rows = decoded(CacheArgument(twitter_digest, archive), hexcodes, image_size), np.arange(len(drawn))
    else:
        images, rows, prepared = _prepared(split, path, hexcodes, image_size)
        info = dataclasses.replace(info, split_sizes={**sizes, split: len(rows)}, sha256=prepared)
    columns = {"image": images, "text": [drawn.texts[i] for i in rows]}
    return EmojiSource(columns, drawn.labels[rows], info=info, index=drawn.index[rows])


@functools.lru_cache(maxsize=1)
def _twitter():
    """Twemoji's pictures and the file's SHA-256, checked once."""
    _, archive, digest = read_index(TWITTER)
    return archive, digest


def _prepared(
    maker: str, path: str | os.PathLike[str] | None, hexcodes: tuple[str, ...], size: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """A maker's pictures (n, S, S, 3), the rows of the test split that they draw (n,), and a checksum of the set."""
    if not path or maker not in style_splits(path):
        raise DataError(
            f"{pathlib.Path(path) if path else 'config.data.path'} has no pictures of {maker!r}: fetch its package by "
            f"'npm pack emoji-datasource-{maker}@16.0.0' and run 'c3r prepare {NAME} --source DIR --out OUT'; OUT is "
            "then config.data.path."
        )
    source = load_prepared(maker, name=NAME, path=path)
    records = [source.record(i) for i in range(len(source))]
    pictures = {record["key"].decode(): record["image"] for record in records}
    rows = np.array([row for row, code in enumerate(hexcodes) if code in pictures])
    images = np.stack([decode_on_white(pictures[hexcodes[row]], size) for row in rows])
    return images, rows, str(source.info.sha256)
