"""The layouts by name; one is imported when it is asked for."""

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any

from c3r_jax.data.preparation.layout import Layout
from c3r_jax.data.sets.cached import CachedSource
from c3r_jax.data.sets.emoji import SPLITS, EmojiSource, load_emoji
from c3r_jax.data.sets.emoji_shift import SHIFT_SPLITS, load_emoji_shift
from c3r_jax.data.sets.prepared import PreparedSource, load_prepared, prepared_splits
from c3r_jax.data.sets.records import RecordSource, load_records
from c3r_jax.data.sets.standardised import (
    StandardisedSource,
)
from c3r_jax.errors import ConfigError

LAYOUTS = {  # name: module and class
    "brats2020": "brats:Brats2020",
    "brats2021": "brats:Brats2021",
    "cremad": "cremad:CremaD",
    "food101": "image_text:Food101",
    "hateful_memes": "image_text:HatefulMemes",
    "iemocap": "iemocap:Iemocap",
    "mosei": "mosei:Mosei",
    "mosei_mult": "mosei:MoseiMult",
    "mosei_mult_unaligned": "mosei:MoseiMultUnaligned",
    "mosei_unaligned": "mosei:MoseiUnaligned",
    "mvsa": "image_text:MvsaSingle",
    "nyud2": "scenes:NyuDepthV2",
    "stamps": "stamps:Stamps",
    "sunrgbd": "scenes:SunRgbd",
    "table": "table:Table",
    "uci_views": "uci_views:UciViews",
    "watch": "watch:Watch",
}


def find_layout(name: str) -> Layout:
    """Returns the layout of a benchmark.

    Raises:
      ConfigError: there is no benchmark of this name.

    Example:
      >>> find_layout("nyud2").published_sizes["test"]
      654
    """
    if name not in LAYOUTS:
        raise ConfigError(f"The benchmark {name!r} is unknown: expected one of {', '.join(LAYOUTS)}.")
    module, _, attribute = LAYOUTS[name].partition(":")
    return getattr(importlib.import_module(f"c3r_jax.data.preparation.layouts.{module}"), attribute)()


AnySource = EmojiSource | RecordSource | PreparedSource | StandardisedSource | CachedSource


SOURCES: dict[str, tuple[Callable[..., AnySource], tuple[str, ...]]] = {  # name: how a split is loaded, and which
    "emoji": (load_emoji, SPLITS),
    "emoji_shift": (load_emoji_shift, SHIFT_SPLITS),
    "records": (load_records, SPLITS),
}


def _load_prepared(split: str, *, name: str, **settings: Any) -> PreparedSource:
    """As :func:`load_prepared`; regions that an older manifest does not have are those of the layout."""
    source = load_prepared(split, name=name, **settings)
    if source.info.spec.dense and not source.info.regions:
        source.info = dataclasses.replace(source.info, regions=find_layout(name).regions)
    return source


def find_loader(name: str, path: str) -> tuple[Callable[..., AnySource], tuple[str, ...]]:
    """Returns the function that loads a split of a data set, and the names of its splits."""
    if name in SOURCES:
        return SOURCES[name]
    if name in LAYOUTS:
        return functools.partial(_load_prepared, name=name), prepared_splits(path, name)
    raise ConfigError(f"config.data.name is {name!r}: expected one of {', '.join([*SOURCES, *LAYOUTS])}.")
