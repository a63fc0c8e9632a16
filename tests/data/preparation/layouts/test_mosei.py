"""CMU-MOSEI: small pickles in the layout of each public file come back exactly, damage with its reason."""

import json
import os
import re

import numpy as np
import pytest

from c3r_jax.data.preparation.convert import Converter
from c3r_jax.data.preparation.layout import DamagedItem
from c3r_jax.data.preparation.layouts.mosei import Mosei, MoseiMult, MoseiMultUnaligned, MoseiUnaligned
from c3r_jax.data.preparation.prepare import prepare
from c3r_jax.data.sets.prepared import load_prepared
from c3r_jax.errors import DataError
from tests.data.preparation.media_files import mosei_content, write_mosei

LAYOUTS = [Mosei, MoseiUnaligned, MoseiMult, MoseiMultUnaligned]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_come_back_exactly(tmp_path, layout):
    content = mosei_content(layout)
    write_mosei(layout, tmp_path, content)
    assert layout().problems(tmp_path) == [] and layout().class_names(tmp_path) == ()
    items, read = layout().items(tmp_path), layout().reader(tmp_path)
    assert {split: len(found) for split, found in items.items()} == {"train": 5, "validation": 3, "test": 4}
    for split, found in items.items():
        part = content[layout.splits[split]]
        np.testing.assert_array_equal([item.label for item in found], np.linspace(-3, 3, len(found)).astype(np.float32))
        for position, item in enumerate(found):
            record = read(item)
            assert sorted(record) == sorted(layout.kinds)
            for name, array in record.items():
                expected = part[name][position].copy()
                if f"{name}_lengths" in part:
                    expected[part[f"{name}_lengths"][position] :] = 0
                assert array.dtype == np.float32 and array.shape == layout.shapes[name]
                np.testing.assert_array_equal(array, expected)
    key = items["train"][1].key
    assert key == ("video0$_$1" if layout in (Mosei, MoseiUnaligned) else "video0 1 9.5")


def test_keys_are_unique_even_where_ids_are_not(tmp_path):
    content = mosei_content(Mosei)
    content["train"]["id"][3] = content["train"]["id"][2]
    del content["valid"]["id"]
    write_mosei(Mosei, tmp_path, content)
    items = Mosei().items(tmp_path)
    assert [item.key for item in items["train"]][2:] == ["video0$_$2", "video0$_$2#3", "video0$_$4"]
    assert [item.key for item in items["validation"]] == ["0", "1", "2"]


@pytest.mark.parametrize("name, value", [("audio", np.nan), ("vision", -np.inf), ("text", np.inf)])
def test_features_that_are_not_finite_are_damage(tmp_path, name, value):
    content = mosei_content(Mosei)
    content["test"][name][1, 7, 3:5] = value
    write_mosei(Mosei, tmp_path, content)
    items, convert = Mosei().items(tmp_path)["test"], Converter(Mosei(), tmp_path, 0).reader()
    assert re.search(f"{name}: 2 of [0-9]+ values are NaN or infinite", convert(1, items[1])["reason"])
    assert "reason" not in convert(0, items[0])


@pytest.mark.parametrize("layout", [Mosei, MoseiMultUnaligned])
def test_silence_of_minus_infinity_becomes_zero_and_is_counted(tmp_path, layout):
    content = mosei_content(layout)
    content["train"]["audio"][2, 4, :6] = -np.inf
    content["train"]["audio"][3, 0, 0] = -np.inf
    content["valid"]["audio"][0, -1, -1] = -np.inf
    write_mosei(layout, tmp_path, content)
    made = prepare(layout(), tmp_path, tmp_path / "out")
    splits = json.loads((made / "manifest.json").read_text())["splits"]
    assert {split: counts["mended"] for split, counts in splits.items()} == {
        "train": {"sound of -inf set to 0": 7},
        "validation": {"sound of -inf set to 0": 1},
        "test": {},
    }
    source = load_prepared("train", name=layout.name, path=tmp_path / "out")
    for example in (source[i] for i in range(len(source))):
        raw = content["train"]["audio"][example["index"]]
        np.testing.assert_array_equal(example["audio"], np.where(np.isneginf(raw), 0, raw))
        assert (
            example["label"] == content["train"][layout.label_keys[layout is MoseiMultUnaligned]].flat[example["index"]]
        )


@pytest.mark.parametrize("label", [np.nan, 3.5, -np.inf])
def test_labels_out_of_range_are_damage(tmp_path, label):
    content = mosei_content(Mosei)
    content["test"]["regression_labels"][2] = label
    write_mosei(Mosei, tmp_path, content)
    damage = [item.damage for item in Mosei().items(tmp_path)["test"]]
    assert damage[2].startswith(f"its label is {label}, expected a number in [-3, 3]") and damage.count(None) == 3


def test_lengths_that_cannot_be_are_damage(tmp_path):
    content = mosei_content(MoseiUnaligned)
    content["train"]["audio_lengths"][0] = -1
    write_mosei(MoseiUnaligned, tmp_path, content)
    with pytest.raises(DamagedItem, match="audio is said to have -1 steps"):
        MoseiUnaligned().reader(tmp_path)(MoseiUnaligned().items(tmp_path)["train"][0])


def test_problems_name_what_is_missing_or_of_another_shape(tmp_path):
    assert "has no aligned_50.pkl" in Mosei().problems(tmp_path)[0]
    content = mosei_content(Mosei)
    del content["valid"]
    del content["test"]["audio"]
    content["train"]["text"] = content["train"]["text"][..., :300]
    write_mosei(Mosei, tmp_path, content)
    split, text, audio = sorted(
        Mosei().problems(tmp_path), key=lambda text: ("valid" not in text, "'text'" not in text)
    )
    assert "has no split 'valid'" in split
    assert "has 'text' of shape (5, 50, 300) in 'train', expected (5, 50, 768)" in text
    assert "has 'audio' of shape (0,) in 'test', expected (4, 50, 74)" in audio
    for other in (["a list"], {"train": 1, "valid": None, "test": {"labels": "x", "text": [[1], [2, 3]]}}):
        write_mosei(Mosei, tmp_path, other)
        assert len(Mosei().problems(tmp_path)) == 3
    assert (
        "has a number for each item in 'test' under neither 'regression_labels' nor 'labels'"
        in (Mosei().problems(tmp_path)[2])
    )


def billions(depth=40):
    """A list of lists that stands for 2^40 numbers, and takes a few bytes of a pickle."""
    return [billions(depth - 1)] * 2 if depth else [1.0]


@pytest.mark.parametrize("key", ["audio", "regression_labels", "id"])
def test_lists_that_stand_for_billions_end_at_once(tmp_path, key):
    content = mosei_content(Mosei)
    content["train"][key] = [billions()] * 5
    write_mosei(Mosei, tmp_path, content)
    problems = Mosei().problems(tmp_path)
    if key == "id":
        assert problems == [] and [item.key for item in Mosei().items(tmp_path)["train"]] == ["0", "1", "2", "3", "4"]
    else:
        assert len(problems) == 1 and "'train'" in problems[0]


@pytest.mark.parametrize("ids", [None, {"a": 1}, np.array("a")])
def test_ids_of_another_kind_are_none(tmp_path, ids):
    content = mosei_content(Mosei)
    content["train"]["id"] = ids
    write_mosei(Mosei, tmp_path, content)
    assert [item.key for item in Mosei().items(tmp_path)["train"]] == ["0", "1", "2", "3", "4"]


def test_lengths_must_be_there(tmp_path):
    content = mosei_content(MoseiUnaligned)
    del content["test"]["vision_lengths"]
    write_mosei(MoseiUnaligned, tmp_path, content)
    (problem,) = MoseiUnaligned().problems(tmp_path)
    assert "has no 'vision_lengths' of each item in 'test'" in problem


def test_a_hostile_file_is_refused_unrun(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/marker",)

    write_mosei(Mosei, tmp_path, {"train": Evil()})
    (problem,) = Mosei().problems(tmp_path)
    assert re.search(r"aligned_50\.pkl asks for \w+\.system", problem)
    with pytest.raises(DataError, match=re.escape(problem)):
        Mosei().reader(tmp_path)
    assert not (tmp_path / "marker").exists()
