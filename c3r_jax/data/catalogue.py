"""The layouts by name; one is imported when it is asked for."""

import dataclasses
import functools
import importlib
import pathlib
from collections.abc import Callable
from typing import Any

from c3r_jax.data.preparation import stand_in
from c3r_jax.data.preparation.layout import Layout
from c3r_jax.data.preparation.shard_leaks import warn_of_leaks
from c3r_jax.data.sets.cached import CachedSource
from c3r_jax.data.sets.emoji import SPLITS, EmojiSource, load_emoji
from c3r_jax.data.sets.emoji_shift import MODALITIES, SHIFT_SPLITS, load_emoji_shift
from c3r_jax.data.sets.emoji_styles import load_emoji_styles, style_splits
from c3r_jax.data.sets.manifest import find_prepared
from c3r_jax.data.sets.prepared import PreparedSource, load_prepared, prepared_splits
from c3r_jax.data.sets.records import RecordSource, load_records
from c3r_jax.data.sets.standardised import (
    StandardisedSource,
)
from c3r_jax.errors import ConfigError
from c3r_jax.settings.data import CueSettings
from c3r_jax.settings.fields import values_of

LAYOUTS = {  # name: module and class
    "brats2020": "brats:Brats2020",
    "brats2021": "brats:Brats2021",
    "cremad": "cremad:CremaD",
    "emoji_styles": "emoji_styles:EmojiStyles",
    "food101": "image_text:Food101",
    "hateful_memes": "image_text:HatefulMemes",
    "iemocap": "iemocap:Iemocap",
    "mosei": "mosei:Mosei",
    "mosei_mult": "mosei:MoseiMult",
    "mosei_mult_unaligned": "mosei:MoseiMultUnaligned",
    "mosei_unaligned": "mosei:MoseiUnaligned",
    "mvsa": "image_text:MvsaSingle",
    "nyud2": "scenes:NyuDepthV2",
    "openclipart": "openclipart:Openclipart",
    "openclipart_described": "openclipart:OpenclipartDescribed",
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

    Examples:
      >>> find_layout("nyud2").published_sizes["test"]
      654
    """
    if name not in LAYOUTS:
        raise ConfigError(f"The benchmark {name!r} is unknown: expected one of {', '.join(LAYOUTS)}.")
    module, _, attribute = LAYOUTS[name].partition(":")
    return getattr(importlib.import_module(f"c3r_jax.data.preparation.layouts.{module}"), attribute)()


AnySource = EmojiSource | RecordSource | PreparedSource | StandardisedSource | CachedSource | stand_in.StandIn


SOURCES: dict[str, tuple[Callable[..., AnySource], tuple[str, ...]]] = {  # name: how a split is loaded, and which
    "emoji": (load_emoji, SPLITS),
    "emoji_shift": (load_emoji_shift, SHIFT_SPLITS),
    "emoji_styles": (load_emoji_styles, style_splits()),
    "records": (load_records, SPLITS),
}


SPLITS_AT = {"emoji_styles": style_splits}  # of SOURCES that have more splits where config.data.path has a prepared set
WITH_ENVIRONMENTS = ("records",)  # of SOURCES
# What a run says of SOURCES that nobody prepared: of config.data.path and the open splits.
WARNINGS = {"records": warn_of_leaks}
WITH_CUES = "emoji_shift"


def _load_prepared(split: str, *, name: str, **settings: Any) -> PreparedSource:
    """As :func:`load_prepared`; regions that an older manifest does not have are those of the layout."""
    source = load_prepared(split, name=name, **settings)
    if source.info.spec.dense and not source.info.regions:
        source.info = dataclasses.replace(source.info, regions=find_layout(name).regions)
    return source


def _check_cues(name: str, cues: CueSettings) -> None:
    """Refuses cues in modalities that there are not, and cues for sets in which none are planted."""
    if not cues.modalities or not set(cues.modalities) <= set(MODALITIES):
        raise ConfigError(
            f"config.data.cues.modalities is {cues.modalities}: expected some of {', '.join(MODALITIES)}."
        )
    default = values_of(CueSettings())
    changed = [leaf for leaf, value in values_of(cues).items() if value != default[leaf]]
    if changed and name != WITH_CUES:
        raise ConfigError(
            f"config.data.cues.{changed[0]} is {getattr(cues, changed[0])!r}, but nothing is planted in {name!r}: set "
            f"it to {default[changed[0]]!r}, or config.data.name to {WITH_CUES!r}."
        )


def is_missing(name: str, path: str) -> bool:
    """Whether a data set is one that has to be prepared, and is not.

    Examples:
      >>> is_missing("food101", "no/such/folder"), is_missing("emoji", "")
      (True, False)
    """
    return name in LAYOUTS and name not in SOURCES and (not path or find_prepared(pathlib.Path(path), name) is None)


def find_loader(
    name: str, path: str, *, environments: str = "", cues: CueSettings | None = None, on_paper: bool = False
) -> tuple[Callable[..., AnySource], tuple[str, ...]]:
    """Returns the function that loads a split of a data set, and the names of its splits.

    Args:
      name: ``config.data.name``.
      path: ``config.data.path``.
      environments: column of the examples' environments; "": the set's first one, if it has any.
      cues: what is planted; None: the defaults.
      on_paper: examples of the right shapes stand in for a set that :func:`is_missing`.

    Raises:
      ConfigError: there is no such data set, it never has columns of environments, or the planted cues cannot be
        used.
      DataError: it is not there, or was prepared without such a column.
    """
    cues = CueSettings() if cues is None else cues
    _check_cues(name, cues)
    if name in SOURCES:
        load, splits = SOURCES[name]
        if name == WITH_CUES:
            load = functools.partial(load, **values_of(cues))
        if environments and name not in WITH_ENVIRONMENTS:
            raise ConfigError(
                f"config.data.environments is {environments!r}, but {name!r} has no columns of environments: set it to "
                "'', or prepare a table with such a column (docs/own_data.md)."
            )
        if name in WITH_ENVIRONMENTS:
            load = functools.partial(load, environments=environments)
        return load, SPLITS_AT[name](path) if name in SPLITS_AT else splits
    if on_paper and is_missing(name, path):
        return functools.partial(stand_in.stand_in, layout=find_layout(name)), stand_in.SPLITS
    if name in LAYOUTS:
        load = functools.partial(_load_prepared, name=name, environments=environments)
        return load, prepared_splits(path, name)
    raise ConfigError(
        f"config.data.name is {name!r}: expected one of {', '.join(dict.fromkeys([*SOURCES, *LAYOUTS]))}."
    )
