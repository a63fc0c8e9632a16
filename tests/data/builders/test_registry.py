"""Every layout describes itself as the preparation, the manifest and the documentation need it."""

import pathlib

import pytest

from c3r_jax.data.builders.layout import KINDS, TASKS
from c3r_jax.data.builders.registry import LAYOUTS, find_layout
from c3r_jax.data.decode import FITS
from c3r_jax.data.source import RESERVED
from c3r_jax.errors import ConfigError

GUIDE = pathlib.Path(__file__).parents[3] / "docs/data.md"


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "table"])  # which its source describes
def test_layouts_describe_themselves(name):
    layout = find_layout(name)
    assert layout.name == name and layout.title and layout.license and layout.homepage.startswith("https://")
    assert layout.task in TASKS and layout.fit in FITS
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
