"""Items that two splits share, words for missing values, names of columns: what a manifest says of a prepared set."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from c3r_jax.data.preparation.convert import pack
from c3r_jax.data.preparation.layouts.table import Table
from c3r_jax.data.preparation.leaks import Leaks, sentences
from c3r_jax.data.preparation.listing import list_source
from c3r_jax.data.preparation.prepare import prepare
from c3r_jax.data.sets.prepared import load_prepared
from c3r_jax.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:etils", "ignore::ResourceWarning")
SPEC = """rows = { train = "train.csv", validation = "validation.csv", test = "test.csv" }
key = "id"
label = "kind"
[modalities]
colour = { numbers = ["red", "green"] }
name = { text = "name" }
picture = { image = "file", folder = "pictures" }
"""


def write(folder, change=lambda split, rows: rows):
    (folder / "pictures").mkdir(parents=True)
    number = 0
    for split, count in (("train", 9), ("validation", 3), ("test", 3)):
        rows = []
        for i in range(count):
            pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / f"{number}.png")
            rows.append([f"t{number}", f"{number}.png", f"name {number}", "ab"[i % 2], number, -number])
            number += 1
        with open(folder / f"{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows([["id", "file", "name", "kind", "red", "green"], *change(split, rows)])
    (folder / "table.toml").write_text(SPEC)
    return folder


def test_the_manifest_lists_what_splits_share_and_what_is_missing(tmp_path, capsys):
    def change(split, rows):
        if split == "test":
            rows[0][1:3], rows[0][4:] = ["copy.png", "name 2"], [2, -2]  # item t2 of train in another file
            rows[1][1] = "4.png"  # the picture of t4, with a text of its own
            rows[2][2] = "N/A"
        return rows

    source = write(tmp_path / "source", change)
    (source / "pictures" / "copy.png").write_bytes((source / "pictures" / "2.png").read_bytes())
    out = prepare(Table(), source, tmp_path / "out")
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["leaks"] == [
        {
            "split": "test",
            "key": "t12",
            "same_as": {"split": "train", "key": "t2"},
            "shared": ["colour", "name", "picture"],
        },
        {"split": "test", "key": "t13", "same_as": {"split": "train", "key": "t4"}, "shared": ["picture"]},
    ]
    printed = capsys.readouterr().out
    for warning in (
        "1 items of split 'test' have the same colour and name and picture as an item of split 'train' under another "
        "name, such as 't12' and 't2'",
        "1 items of split 'test' have the same picture as an item of split 'train' under another name",
    ):
        assert warning in printed and any(text.startswith(warning) for text in manifest["warnings"])
    assert manifest["missing_values"] == {"name": {"N/A": 1}} and "'name' ('N/A' 1 times)" in printed
    assert manifest["columns"] == {"colour": ["red", "green"]} and manifest["pictures"] == {}
    assert load_prepared("train", path=out, image_size=4).info.columns == {"colour": ("red", "green")}


@pytest.mark.parametrize(
    "how", [{"compress_level": 1}, {"palette": True}, {"bmp": True}, {"exif": True}, {"grey": True}]
)
def test_one_picture_in_two_files_is_one(tmp_path, how):
    """Saved again, with other metadata or in another format: what it shows counts."""

    def change(split, rows):
        if split == "test":
            rows[0][1] = "copy"
        return rows

    source = write(tmp_path / "source", change)
    folder = source / "pictures"
    with Image.open(folder / "2.png") as picture:
        few = picture.quantize(4) if "palette" in how else picture.convert("L") if "grey" in how else picture
        few.convert("RGB").save(folder / "2.png")
        exif = Image.Exif()
        exif[0x010E] = "a description"
        options = {"exif": exif} if "exif" in how else {"compress_level": 1} if "compress_level" in how else {}
        few.save(folder / "copy", "bmp" if "bmp" in how else "png", **options)
    assert (folder / "copy").read_bytes() != (folder / "2.png").read_bytes()
    manifest = json.loads((prepare(Table(), source, tmp_path / "out") / "manifest.json").read_text())
    assert [(leak["key"], leak["same_as"]["key"], leak["shared"]) for leak in manifest["leaks"]] == [
        ("t12", "t2", ["picture"])
    ]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([("train", "a", b"1", "x"), ("test", "b", b"1", "x")], [("test", "b", "a", ["note", "photo"])]),
        ([("train", "a", b"1", "x"), ("test", "b", b"1", "y")], [("test", "b", "a", ["photo"])]),
        ([("train", "a", b"1", "x"), ("test", "b", b"2", "x")], []),  # texts repeat
        ([("train", "a", b"1", "x"), ("train", "b", b"1", "x")], []),  # in one split
        ([("train", "a", None, "x"), ("test", "b", None, "x")], [("test", "b", "a", ["note", "photo"])]),
        (
            [("validation", "a", b"1", "x"), ("test", "b", b"1", "y"), ("test", "c", b"1", "x")],
            [("test", "b", "a", ["photo"]), ("test", "c", "a", ["note", "photo"])],
        ),
    ],
)
def test_what_two_splits_share(items, expected):
    leaks = Leaks({"photo": "image", "note": "text"})
    for split, key, photo, note in items:
        leaks.add(split, {"key": key, "label": 0, "index": 7, "photo": photo, "note": note})
    found = leaks.found()
    assert [(one["split"], one["key"], one["same_as"]["key"], one["shared"]) for one in found] == expected
    assert len(sentences(found)) == len({tuple(one["shared"]) for one in found})


def test_an_item_that_lists_show_is_not_said_twice():
    leaks = Leaks({"note": "text"})
    for split in ("train", "test"):
        leaks.add(split, {"key": "a", "note": "x"})
    assert len(leaks.found()) == 1 and not sentences(leaks.found())


def test_few_items_of_one_content_are_listed_and_all_are_counted():
    leaks = Leaks({"photo": "image", "note": "text"})
    leaks.add("train", {"key": "t", "photo": b"1", "note": "x"})
    for i in range(1000):
        leaks.add("test", {"key": f"s{i:03}", "photo": b"1", "note": "x" if i < 300 else f"{i}"})
    leaks.add("test", {"key": "t", "photo": b"1", "note": "of the same name"})
    found = leaks.found()
    assert [leak["key"] for leak in found] == [f"s{i:03}" for i in (0, 1, 2, 3, 4, 300, 301, 302, 303, 304)] + ["t"]
    assert {leak["key"]: leak["more"] for leak in found if "more" in leak} == {"s004": 295, "s304": 695}
    whole, photo = sentences(found)
    assert whole.startswith("300 items of split 'test' have the same note and photo as")
    assert photo.startswith("700 items of split 'test' have the same photo as")


@pytest.mark.parametrize(
    ("values", "expected"),
    [([40, 1, 0], 0), ([40, 1, 0.5], 1), (range(64), 1)],  # of few whole numbers, equal ones are no copies
)
def test_equal_rows_of_a_few_whole_numbers_are_no_leak(values, expected):
    leaks = Leaks({"a": "features", "b": "features"})
    for split in ("train", "test"):
        leaks.add(split, {"key": split, "a": pack(np.array(values, np.float32)), "b": pack(np.ones(2, np.float32))})
    assert len(leaks.found()) == len(sentences(leaks.found())) == expected


@pytest.mark.parametrize("start", [1_700_000_000, 2**40, 1_700_000_000_000])
@pytest.mark.parametrize("what", ["feature", "label"])
def test_tables_whose_numbers_float32_does_not_keep_apart(tmp_path, start, what):
    def change(split, rows):
        del split
        for row in rows:
            row[4 if what == "feature" else 3] = start + int(row[0][1:])
        return rows

    source = write(tmp_path, change)
    if what == "label":
        (source / "table.toml").write_text(SPEC.replace('label = "kind"', 'label = "kind"\ntask = "regression"'))
    with pytest.raises(DataError, match="has 15 different numbers, of which float32 keeps . apart: give differences"):
        list_source(Table().for_source(source), source)
