"""The last steps of a preparation: shards from the parts, labels beside them, and the manifest."""

import collections
import pathlib
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np

from c3r_jax.data.preparation.convert import Entry
from c3r_jax.data.preparation.layout import Layout
from c3r_jax.data.preparation.leaks import Leaks, sentences
from c3r_jax.data.preparation.listing import Listing
from c3r_jax.data.preparation.parts import Damaged, Part, read_part
from c3r_jax.data.sets.manifest import DAMAGED, ENVIRONMENTS, FORMAT, MANIFEST, describe_files, file_sha256, write_json
from c3r_jax.data.source import UNKNOWN
from c3r_jax.version import __version__

Repairs = dict[str, collections.Counter[str]]  # {split: {repair: count}}
LIBRARIES = ("numpy", "pillow", "tensorflow-datasets", "array-record")


def write_shards(
    layout: Layout, listing: Listing, parts: list[Part], splits: tuple[str, ...], work: pathlib.Path
) -> tuple[pathlib.Path, Repairs, list[dict[str, Any]]]:
    """Writes the shards and, for each split, its labels and environments in the order of the records; counts repairs.

    Args:
      layout: layout of the benchmark.
      listing: the items.
      parts: all parts, whose files are in ``work/parts``.
      splits: splits with at least one item.
      work: directory in which shards are written, below ``tfds``.

    Returns:
      The directory of the shards, {split: {repair: count}}, and the items that are in two splits.
    """
    from c3r_jax.data.preparation.tfds_builder import Prepared, write_tfds  # slow to import
    from c3r_jax.data.sets.tfds_records import open_records  # slow to import

    labels: dict[str, dict[int, Any]] = {}
    repairs: Repairs = {}
    leaks = Leaks(layout.kinds)

    def entries(split: str) -> Iterator[Entry]:
        labels[split], repairs[split] = {}, collections.Counter()
        for part in parts:
            if part.split == split:
                for entry in read_part(part.find(work / "parts")):
                    if "reason" not in entry and not layout.task.dense:
                        labels[split][entry["index"]] = entry["label"]
                    if "reason" not in entry:
                        leaks.add(split, entry)
                    repairs[split].update(entry.get("mended", {}))
                    yield entry

    shutil.rmtree(work / "tfds", ignore_errors=True)  # from a run that was stopped
    shards = write_tfds(Prepared(layout, listing.class_names, entries, splits, data_dir=work / "tfds"))
    for split in splits:
        records = open_records(shards, split)
        order = [int(records[i]["index"]) for i in range(len(records))]
        if not layout.task.dense:
            np.save(shards / f"labels-{split}.npy", np.array([labels[split][i] for i in order], layout.task.dtype))
        if layout.environments:
            np.save(shards / ENVIRONMENTS.format(split), _environments(layout, listing, split)[order])
    return shards, repairs, leaks.found()


def _environments(layout: Layout, listing: Listing, split: str) -> np.ndarray:
    """Ids of the environments of a split's items, a column for each of the layout's; -1: unknown. (n, C) int32."""
    ids = [{name: i for i, name in enumerate(names)} for names in listing.environments(layout).values()]
    unknown = ("",) * len(ids)
    values = (item.environments or unknown for item in listing.items[split])
    rows = [[known.get(name, UNKNOWN) for known, name in zip(ids, of_item, strict=True)] for of_item in values]
    return np.array(rows, np.int32).reshape(-1, len(ids))


def write_manifest(
    shards: pathlib.Path,
    layout: Layout,
    source: pathlib.Path,
    listing: Listing,
    damaged: list[Damaged],
    repairs: Repairs,
    leaks: list[dict[str, Any]],
    order: str,
) -> None:
    """Writes the report of damaged items and the manifest beside the shards."""
    lost = {split: sum(item["split"] == split for item in damaged) for split in listing.items}
    splits = {
        split: {
            "in_source": layout.splits[split],
            "found": len(items),
            "damaged": lost[split],
            "written": len(items) - lost[split],
            "mended": dict(repairs.get(split, {})),
            "published": layout.published_sizes.get(split),
            "labelled": listing.labelled[split],
        }
        for split, items in listing.items.items()
    }
    write_json(shards / DAMAGED, damaged)
    manifest = {
        "format": FORMAT,
        "name": layout.name,
        "version": layout.version,
        "title": layout.title,
        "homepage": layout.homepage,
        "license": layout.license,
        "task": layout.task.name,
        "kinds": dict(layout.kinds),
        "shapes": {name: list(shape) for name, shape in layout.shapes.items()},
        "sample_rate": layout.sample_rate,
        "spectrogram": layout.spectrogram,
        "fit": layout.fit,
        "columns": {name: list(columns) for name, columns in layout.columns.items()},
        "pictures": {
            name: {"upright": rules.upright, "range": rules.span} for name, rules in sorted(layout.pictures.items())
        },
        "class_names": list(listing.class_names),
        "class_order": order,
        "phrases": {label: list(some) for label, some in layout.phrases.items()},
        "regions": {name: list(ids) for name, ids in layout.regions.items()},
        "splits": splits,
        "environments": listing.environments(layout),
        "warnings": [*listing.warnings, *sentences(leaks)],
        "leaks": leaks,
        "notes": list(listing.notes),
        "missing_values": layout.missing_values(source),
        "listing": listing.digest(layout),
        "lists": {str(path.relative_to(source)): file_sha256(path) for path in layout.list_files(source)},
        "files": describe_files(shards),
        "libraries": {"c3r_jax": __version__, **{name: version(name) for name in LIBRARIES}},
    }
    write_json(shards / MANIFEST, manifest)
