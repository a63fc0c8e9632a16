"""The end of a preparation: shards from the parts, labels beside them, and what the set says of itself."""

import collections
import pathlib
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np

import c3r_jax
from c3r_jax.data.builders.convert import Entry
from c3r_jax.data.builders.layout import Layout
from c3r_jax.data.builders.listing import Listing
from c3r_jax.data.builders.manifest import DAMAGED, FORMAT, MANIFEST, describe_files, file_sha256, write_json
from c3r_jax.data.builders.parts import Damaged, Part, read_part

Mended = dict[str, collections.Counter[str]]  # {split: {what was mended: how often}}
LIBRARIES = ("numpy", "pillow", "tensorflow-datasets", "array-record")


def write_shards(
    layout: Layout, class_names: tuple[str, ...], parts: list[Part], splits: tuple[str, ...], work: pathlib.Path
) -> tuple[pathlib.Path, Mended]:
    """Writes the shards and, for each split, its labels in the order of the records; counts what was mended.

    Args:
      layout: the benchmark's.
      class_names: by class id.
      parts: all of them, whose files are in ``work/parts``.
      splits: those that have items.
      work: where the shards go, below ``tfds``.

    Returns:
      The directory of the shards, and {split: {what was mended: how often}}.
    """
    from c3r_jax.data.builders.tfds_builder import Prepared, open_records, write_tfds  # slow to import

    labels: dict[str, dict[int, Any]] = {}
    mended: Mended = {}

    def entries(split: str) -> Iterator[Entry]:
        labels[split], mended[split] = {}, collections.Counter()
        for part in parts:
            if part.split == split:
                for entry in read_part(part.find(work / "parts")):
                    if "reason" not in entry and layout.task != "segmentation":
                        labels[split][entry["index"]] = entry["label"]
                    mended[split].update(entry.get("mended", {}))
                    yield entry

    shutil.rmtree(work / "tfds", ignore_errors=True)  # of a run that was stopped
    made = write_tfds(Prepared(layout, class_names, entries, splits, data_dir=work / "tfds"))
    for split in splits:
        records = open_records(made, split)
        order = [int(records[i]["index"]) for i in range(len(records))]
        if layout.task != "segmentation":
            dtype = np.float32 if layout.task == "regression" else np.int32
            np.save(made / f"labels-{split}.npy", np.array([labels[split][i] for i in order], dtype))
    return made, mended


def describe(
    made: pathlib.Path,
    layout: Layout,
    source: pathlib.Path,
    listing: Listing,
    damaged: list[Damaged],
    mended: Mended,
    order: str,
) -> None:
    """Writes the report of damaged items and the manifest beside the shards."""
    lost = {split: sum(one["split"] == split for one in damaged) for split in listing.items}
    splits = {
        split: {
            "in_source": layout.splits[split],
            "found": len(items),
            "damaged": lost[split],
            "written": len(items) - lost[split],
            "mended": dict(mended.get(split, {})),
            "published": layout.published_sizes.get(split),
            "labelled": listing.labelled[split],
        }
        for split, items in listing.items.items()
    }
    write_json(made / DAMAGED, damaged)
    manifest = {
        "format": FORMAT,
        "name": layout.name,
        "version": layout.version,
        "title": layout.title,
        "homepage": layout.homepage,
        "license": layout.license,
        "task": layout.task,
        "kinds": dict(layout.kinds),
        "shapes": {name: list(shape) for name, shape in layout.shapes.items()},
        "sample_rate": layout.sample_rate,
        "spectrogram": layout.spectrogram,
        "fit": layout.fit,
        "class_names": list(listing.class_names),
        "class_order": order,
        "splits": splits,
        "warnings": list(listing.warnings),
        "listing": listing.digest(layout),
        "lists": {str(path.relative_to(source)): file_sha256(path) for path in layout.list_files(source)},
        "files": describe_files(made),
        "libraries": {"c3r_jax": c3r_jax.__version__, **{name: version(name) for name in LIBRARIES}},
    }
    write_json(made / MANIFEST, manifest)
