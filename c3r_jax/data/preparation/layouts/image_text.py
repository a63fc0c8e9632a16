"""Images with texts, listed as one JSON object per line: UPMC Food-101, MVSA-Single, Hateful Memes."""

import collections
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, ClassVar, TypeGuard

from c3r_jax.data.preparation.layout import DamagedItem, Item, Layout, Record
from c3r_jax.data.preparation.missing_values import Counts, as_counts, count, described
from c3r_jax.data.preparation.source_files import read_file, resolve_inside
from c3r_jax.files.json_objects import each_key_once
from c3r_jax.files.pointers import lfs_hint
from c3r_jax.tasks.spellings import is_number, plain_spelling, spelled_in_several_ways

MAX_LINE = 1 << 20  # bytes; no caption is that long


def read_lines(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    """Reads a file of one JSON object per line.

    Yields:
      The line's number from 1, its object, and "" or, if the object is None, the reason why it cannot be read.
    """
    with path.open("rb") as file:
        for number, line in enumerate(_lines(file), 1):
            if not line.strip():
                continue
            shown = line[:60].decode("utf-8", "replace").strip()
            try:
                if len(line) > MAX_LINE:
                    raise ValueError(f"it has more than {MAX_LINE:,} bytes")
                found = json.loads(line.decode("utf-8-sig"), object_pairs_hook=each_key_once)
                if not isinstance(found, dict):
                    raise ValueError("it is no object {...}")
                yield number, found, ""
            except (ValueError, RecursionError) as error:
                comma = " and ends with a comma, expected one object a line and no commas between them"
                said = comma if isinstance(error, json.JSONDecodeError) and line.rstrip().endswith(b",") else ""
                yield number, None, f"the line {shown!r} is no JSON object ({error}){said}"


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, those that are too long only in part: a whole file may be one line."""
    while line := file.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE + 1)


def _labelled(line: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
    return line is not None and line.get("label") is not None


def _no_list(path: pathlib.Path) -> str:
    """A sentence if a file is no list of one object per line at all; else ""."""
    with path.open("rb") as file:
        start = file.read(200).removeprefix(b"\xef\xbb\xbf").lstrip()
    if hint := lfs_hint(start):
        return f"{path} {hint}."
    if start.startswith(b"["):
        return (
            f"{path} is a JSON array, expected one object {{...}} a line without commas between them: write it with "
            "`jq -c '.[]'`."
        )
    lines = list(itertools.islice(read_lines(path), 20))
    if lines and all(found is None for _, found, _ in lines):
        return f"{path} has no JSON object a line: in line {lines[0][0]} {lines[0][2]}."
    return ""


class ImageTextLayout(Layout):
    """``<split>.jsonl`` with keys id, label, text and img, and the images that it names.

    Attributes:
      folders: possible folders of an image, put before its name in the list.
      optional: lists (names as on disk) that may be missing.
      most_classes: largest number of labels in the training list; 0 if the labels are 0 and 1.
      number_names: names of the labels 0, 1, ... if they are numbers.
    """

    kinds = {"image": "image", "text": "text"}
    splits = {"train": "train", "validation": "dev", "test": "test"}
    folders: ClassVar[tuple[str, ...]] = ("",)
    optional: ClassVar[tuple[str, ...]] = ()
    most_classes: ClassVar[int] = 0
    number_names: ClassVar[tuple[str, ...]] = ()

    def problems(self, source: pathlib.Path) -> list[str]:
        """See :class:`Layout`: every list, a folder of images, and no more labels than classes."""
        lists = [source / f"{there}.jsonl" for there in self.splits.values() if there not in self.optional]
        found = [f"{path} is missing: it lists the items of its split, one JSON object a line." for path in lists]
        found = [problem for path, problem in zip(lists, found, strict=True) if not path.is_file()]
        images = [source / folder for folder in self.image_folders]
        if not any(folder.is_dir() for folder in images):
            found.append(f"{' or '.join(map(str, images))} is missing: it holds the images.")
        unusual = [sentence for path in lists if path.is_file() and (sentence := _no_list(path))]
        found += unusual
        if not self.number_names and not unusual and (source / "train.jsonl").is_file():
            counts = collections.Counter(self._labels(source))
            if not 0 < len(counts) <= self.most_classes:
                rare = ", ".join(f"{name!r} ({count})" for name, count in counts.most_common()[:-6:-1])
                other = [line["label"] for _, line, _ in read_lines(source / "train.jsonl") if _labelled(line)]
                rare = rare or f"none, since labels are texts and the first is {other[0]!r}" if other else "none"
                pairs = "".join(f"; perhaps one label: {group}" for group in spelled_in_several_ways(counts))
                found.append(
                    f"{source / 'train.jsonl'} has {len(counts)} different labels, expected 1 to {self.most_classes}; "
                    f"the rarest are {rare}{pairs}."
                )
        return found

    @property
    def image_folders(self) -> tuple[str, ...]:
        """Folders of which at least one must exist."""
        return tuple(folder for folder in self.folders if folder)

    def _labels(self, source: pathlib.Path) -> Iterator[str]:
        """The named labels of the training list."""
        for _, found, _ in read_lines(source / "train.jsonl"):
            if _labelled(found) and isinstance(found["label"], str) and not self.missing.says(found["label"], "label"):
                yield found["label"]

    def missing_values(self, source: pathlib.Path) -> dict[str, dict[str, int]]:
        """See :class:`Layout`: of the lists' keys."""
        counts: Counts = {}
        for path in self.list_files(source):
            for _, found, _ in read_lines(path):
                for key in ("text", "img", "label"):
                    if found is not None and key in found and self.missing.says(found[key], key):
                        count(counts, key, found[key])
        return as_counts(counts)

    def notes(self, source: pathlib.Path, items: Mapping[str, list[Item]]) -> list[str]:
        """See :class:`Layout`: words that were taken for missing values."""
        del items
        return described(self.missing_values(source), "--na_values WORD ...")

    def class_names(self, source: pathlib.Path) -> tuple[str, ...]:
        """See :class:`Layout`: the labels of the training list, sorted."""
        return self.number_names or tuple(sorted(set(self._labels(source))))

    def list_files(self, source: pathlib.Path) -> list[pathlib.Path]:
        """See :class:`Layout`."""
        paths = [source / f"{there}.jsonl" for there in self.splits.values()]
        return [path for path in paths if path.is_file()]

    def items(self, source: pathlib.Path) -> dict[str, list[Item]]:
        """See :class:`Layout`: one item per line."""
        names = self.class_names(source)
        ids = {label: i for i, label in enumerate(range(len(names)) if self.number_names else names)}
        there = {split: source / f"{name}.jsonl" for split, name in self.splits.items()}
        return {split: self._items(path, ids) for split, path in there.items() if path.is_file()}

    def _items(self, path: pathlib.Path, ids: dict[Any, int]) -> list[Item]:
        items = []
        for number, found, reason in read_lines(path):
            try:
                if found is None:
                    raise DamagedItem(reason)
                items.append(self._item(found, ids))
            except DamagedItem as error:
                items.append(Item(f"{path.name}, line {number}", None, damage=str(error)))
        return items

    def _item(self, found: dict[str, Any], ids: dict[Any, int]) -> Item:
        for key, types in (("id", (str, int)), ("text", (str, type(None))), ("img", (str, type(None)))):
            if key not in found:
                raise DamagedItem(f"it has no key {key!r}, expected 'id', 'text', 'img' and, if it is known, 'label'")
            if key != "id" and self.missing.says(found[key], key):
                found = {**found, key: None}
            if not isinstance(found[key], types) or isinstance(found[key], bool):
                raise DamagedItem(f"its {key!r} is {found[key]!r}, expected a {types[0].__name__}")
        if isinstance(found["id"], str) and not found["id"].strip():
            raise DamagedItem("its 'id' is empty, expected a name of its own")
        label = None if self.missing.says(found.get("label"), "label") else found["label"]
        if self.number_names and not isinstance(label, bool) and is_number(str(label)) and float(str(label)) in ids:
            label = int(float(str(label)))  # "1" and 1.0 as programs write 1
        if label is not None and (isinstance(label, (bool, float, list, dict)) or label not in ids):
            like = next((name for name in ids if plain_spelling(str(name)) == plain_spelling(str(label))), None)
            hint = "" if like is None else f"; the training list writes it {like!r}"
            known = ", ".join(map(repr, list(ids)[:5]))
            raise DamagedItem(f"its label is {label!r}, expected one of {known}, ...{hint}")
        image = found["img"]
        place = (None if image is None else image.replace("\\", "/"), found["text"])
        return Item(str(found["id"]), None if label is None else ids[label], place)

    def reader(self, source: pathlib.Path) -> Callable[[Item], Record]:
        """See :class:`Layout`."""

        def read(item: Item) -> Record:
            image, text = item.place
            return {"image": None if image is None else self._image(source, image), "text": text}

        return read

    def _image(self, source: pathlib.Path, name: str) -> bytes:
        resolve_inside(source, name)
        names = [folder + name for folder in self.folders]
        existing = next((path for path in names if resolve_inside(source, path).is_file()), name)
        return read_file(source, existing)


class Food101(ImageTextLayout):
    """UPMC Food-101: pictures of dishes and the titles of the pages they were found on.

    References:
      X. Wang et al., Recipe recognition with large multimodal food dataset, 2015.
    """

    name = "food101"
    title = "UPMC Food-101 (image and text)"
    homepage = "https://visiir.isir.upmc.fr/explore"
    license = "of the UPMC Food-101 authors, for research"
    published_sizes = {"validation": 5000, "test": 22715}
    folders = ("", "images/")
    most_classes = 101
    first_seen = True


class MvsaSingle(ImageTextLayout):
    """MVSA-Single: tweets and their sentiment.

    References:
      T. Niu et al., Sentiment Analysis on Multi-View Social Data, 2016.
    """

    name = "mvsa"
    title = "MVSA-Single (image and text)"
    homepage = "https://mcrlab.net/research/mvsa-sentiment-analysis-on-multi-view-social-data/"
    license = "of the MVSA authors, for research"
    published_sizes = {"train": 1555, "validation": 518, "test": 519}
    folders = ("", "data/")
    most_classes = 3
    first_seen = True


class HatefulMemes(ImageTextLayout):
    """Hateful Memes, with both test phases; "validation" is dev_seen and "test" is test_seen.

    References:
      D. Kiela et al., The Hateful Memes Challenge: Detecting Hate Speech in Multimodal Memes, 2020.
    """

    name = "hateful_memes"
    title = "Hateful Memes (image and text)"
    homepage = "https://ai.meta.com/tools/hatefulmemes/"
    license = "Hateful Memes data set licence (Meta), for research"
    published_sizes = {"train": 8500, "validation": 500, "test": 1000, "dev_unseen": 540, "test_unseen": 2000}
    splits = {
        "train": "train",
        "validation": "dev_seen",
        "test": "test_seen",
        "dev_unseen": "dev_unseen",
        "test_unseen": "test_unseen",
    }
    unlabelled = ("test", "test_unseen")
    optional = ("dev_unseen", "test_unseen")
    folders = ("", "img/")
    number_names = ("not hateful", "hateful")
    fit = "squash"
