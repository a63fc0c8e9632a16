"""Random splits of tables: the documented shares, a training row for every class, and old splits as they were."""

import hashlib

import pytest

from c3r_jax.data.preparation.layouts.table import Table
from c3r_jax.data.preparation.listing import list_source

SPEC = 'key = "id"\nlabel = "kind"\n[modalities]\na = { numbers = ["a"] }\nb = { text = "b" }\n'


def listed(source, classes, rows, more="", split=""):
    """A listing of ``rows`` rows of ``classes`` classes in turn, of four rows a group."""
    lines = [f"r{i},{i},w{i},c{i % classes},g{i // 4}" for i in range(rows)]
    (source / "t.csv").write_text("\n".join(["id,a,b,kind,g", *lines]))
    (source / "u.csv").write_text("id,a,b,kind,g\nx,1,w,c0,g")
    files = f'{{ train = "t.csv", {split} = "u.csv" }}' if split else '"t.csv"'
    (source / "table.toml").write_text(f"rows = {files}\n{more}{SPEC}")
    return list_source(Table().for_source(source), source)


@pytest.mark.parametrize(
    ("classes", "rows", "sizes"),
    [
        (30, 60, [36, 12, 12]),  # one by one, classes of two rows leave no test row
        (30, 90, [54, 18, 18]),  # and those of three a third for each
        (2, 6, [4, 1, 1]),
        (40, 60, [40, 10, 10]),  # half of the classes have one row
    ],
)
def test_classes_of_few_rows_have_training_rows_and_the_shares(tmp_path, classes, rows, sizes):
    found = listed(tmp_path, classes, rows)
    assert [len(found.items[split]) for split in ("train", "validation", "test")] == sizes
    assert not found.damaged and not found.notes and len(found.class_names) == classes


@pytest.mark.parametrize(
    ("classes", "rows", "more", "digest"),
    [
        (5, 10, "", "3d6f0f"),
        (5, 25, "", "088e09"),
        (30, 120, "", "8a5bcc"),
        (9, 1000, "", "dea7a0"),
        (3, 60, 'group = "g"\n', "13b19a"),
    ],
)
def test_sets_that_split_well_keep_their_splits(tmp_path, classes, rows, more, digest):
    keys = {split: [item.key for item in items] for split, items in listed(tmp_path, classes, rows, more).items.items()}
    assert hashlib.sha256(repr(keys).encode()).hexdigest().startswith(digest)


def test_a_tenth_is_held_out_of_classes_of_two_rows(tmp_path):
    found = listed(tmp_path, 20, 40, split="test")
    assert [len(found.items[split]) for split in ("train", "validation", "test")] == [36, 4, 1]
    assert not found.damaged and not found.notes


def test_shares_that_cannot_be_met_are_said(tmp_path):
    """Three groups of four rows: one for each split."""
    (note,) = listed(tmp_path, 2, 12, 'group = "g"\n').notes
    assert note.startswith(
        "The random split has 33 % train, 33 % validation, 33 % test, where 60, 20, 20 % are aimed at:"
    )
