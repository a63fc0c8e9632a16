"""Every layout describes itself as the preparation, the manifest and the documentation need it."""

import json
import pathlib

import numpy as np
import pytest

from c3r_jax.data.catalogue import LAYOUTS, find_layout, find_loader
from c3r_jax.data.media.image import FITS
from c3r_jax.data.preparation.layout import KINDS, Item
from c3r_jax.data.preparation.layouts.brats import Brats2020
from c3r_jax.data.preparation.prepare import prepare
from c3r_jax.data.source import RESERVED
from c3r_jax.errors import ConfigError
from c3r_jax.tasks.registry import LABELLED
from c3r_jax.tasks.segmentation import SEGMENTATION

GUIDE = pathlib.Path(__file__).parents[2] / "docs/data.md"


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "table"])  # which its source describes
def test_layouts_describe_themselves(name):
    layout = find_layout(name)
    assert layout.name == name and layout.title and layout.license and layout.homepage.startswith("https://")
    assert layout.task in LABELLED.values() and layout.fit in FITS
    assert list(layout.kinds) == sorted(layout.kinds) and len(layout.kinds) >= 2
    assert set(layout.kinds.values()) <= set(KINDS) and not set(layout.kinds) & {*RESERVED, "key"}
    assert "train" in layout.splits and "test" in layout.splits
    assert set(layout.published_sizes) <= set(layout.splits) and set(layout.unlabelled) <= set(layout.splits)
    assert ("audio" in layout.kinds.values()) == (layout.sample_rate is not None)
    assert all(part.isdigit() for part in layout.version.split(".")) and layout.part_size >= 1
    for modality, kind in layout.kinds.items():
        assert kind not in ("features", "sequence", "volume") or modality in layout.shapes
    assert f"`{name}`" in GUIDE.read_text()


def test_unknown_layouts_are_named():
    with pytest.raises(ConfigError, match="'imagenet' is unknown: expected one of brats2020, "):
        find_layout("imagenet")


@pytest.mark.parametrize("older", [False, True])
def test_regions_of_masks_are_the_data_sets(tmp_path, older):
    class Small(Brats2020):
        shapes = {**dict.fromkeys(Brats2020.kinds, (2, 2, 2, 1)), "label": (2, 2, 2)}

        def problems(self, source):
            return []

        def items(self, source):
            return {split: [Item(f"{split} {i}", None) for i in range(2)] for split in self.splits}

        def reader(self, source):
            return lambda item: (
                dict.fromkeys(self.kinds, np.ones((2, 2, 2, 1), np.float32)) | {"label": np.ones((2, 2, 2), np.uint8)}
            )

    made = prepare(Small(), tmp_path, tmp_path / "out")
    if older:  # written before manifests had them
        manifest = json.loads((made / "manifest.json").read_text())
        del manifest["regions"]
        (made / "manifest.json").write_text(json.dumps(manifest))
    load, splits = find_loader("brats2020", str(tmp_path / "out"))
    source = load("train", path=str(tmp_path / "out"), image_size=8)
    assert splits == ("train", "validation", "test") and source.info.spec is SEGMENTATION
    assert source.info.regions == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
