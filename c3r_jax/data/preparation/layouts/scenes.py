"""Scenes in colour and depth, side by side in one image, one folder per class: NYU Depth V2 and SUN RGB-D."""

import pathlib
from collections.abc import Callable
from typing import ClassVar

from c3r_jax.data.media.image import PLAIN
from c3r_jax.data.preparation.layout import Item, Layout, Record
from c3r_jax.data.preparation.source_files import cut_image, is_clutter, read_file
from c3r_jax.files.natural import in_natural_order

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")


class SceneLayout(Layout):
    """``{train,test}/<class>/*.png``: colour on the left, depth (as three HHA channels) on the right, cut at w/2."""

    kinds = {"depth": "image", "rgb": "image"}
    splits = {"train": "train", "test": "test"}
    num_classes: ClassVar[int]

    def problems(self, source: pathlib.Path) -> list[str]:
        """See :class:`Layout`: a folder per split, with the published number of classes in each."""
        found = []
        for split in self.splits.values():
            folder = source / split
            names = _folders(folder)
            if not names:
                found.append(f"{folder} is missing or has no folder: expected one per class, with its images.")
            elif len(names) != self.num_classes:
                found.append(f"{folder} has {len(names)} folders, expected one for each of {self.num_classes} classes.")
        unmatched = set(_folders(source / "train")) ^ set(_folders(source / "test"))
        if unmatched and not found:
            found.append(f"{source} has classes in one of train and test only: {', '.join(sorted(unmatched))}.")
        return found

    def class_names(self, source: pathlib.Path) -> tuple[str, ...]:
        """See :class:`Layout`: the folders' names."""
        return tuple(_folders(source / "train"))

    def items(self, source: pathlib.Path) -> dict[str, list[Item]]:
        """See :class:`Layout`: one item per image, by class and name."""
        names = self.class_names(source)
        items: dict[str, list[Item]] = {}
        for split, folder in self.splits.items():
            files = [
                (f"{folder}/{name}/{path.name}", label)
                for label, name in enumerate(names)
                for path in in_natural_order((source / folder / name).iterdir())
                if path.suffix.lower() in IMAGE_ENDINGS and not is_clutter(path.name)
            ]
            items[split] = [Item(file, label) for file, label in files]
        return items

    def reader(self, source: pathlib.Path) -> Callable[[Item], Record]:
        """See :class:`Layout`: both halves as PNG."""
        rules = self.pictures.get("depth", PLAIN)

        def read(item: Item) -> Record:
            rgb, depth = cut_image(read_file(source, item.key), rules)
            return {"rgb": rgb, "depth": depth}

        return read


class NyuDepthV2(SceneLayout):
    """NYU Depth V2 in ten scene classes.

    References:
      N. Silberman et al., Indoor Segmentation and Support Inference from RGBD Images, 2012.
    """

    name = "nyud2"
    title = "NYU Depth V2 scenes (colour and depth)"
    homepage = "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html"
    license = "of the NYU Depth V2 authors, for research"
    published_sizes = {"train": 795, "test": 654}
    num_classes = 10


class SunRgbd(SceneLayout):
    """SUN RGB-D in 19 scene classes.

    References:
      S. Song et al., SUN RGB-D: A RGB-D Scene Understanding Benchmark Suite, 2015.
    """

    name = "sunrgbd"
    title = "SUN RGB-D scenes (colour and depth)"
    homepage = "https://rgbd.cs.princeton.edu"
    license = "of the SUN RGB-D authors, for research"
    published_sizes = {"train": 4845, "test": 4659}
    num_classes = 19


def _folders(path: pathlib.Path) -> list[str]:
    entries = path.iterdir() if path.is_dir() else ()
    return sorted(entry.name for entry in entries if entry.is_dir() and not is_clutter(entry.name))
