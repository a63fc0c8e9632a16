"""Every kind of modality and label from a layout to the source and back, exactly; what cannot be used says why."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from c3r_jax.data.media.audio import spectrogram
from c3r_jax.data.preparation.convert import Converter
from c3r_jax.data.preparation.layout import DamagedItem, Item, Layout
from c3r_jax.data.preparation.prepare import prepare
from c3r_jax.data.sets.prepared import load_prepared
from c3r_jax.errors import DataError
from c3r_jax.tasks.registry import LABELLED

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:etils", "ignore::ResourceWarning")
KINDS = {
    "face": "video",
    "gaze": "sequence",
    "pulse": "features",
    "scan": "volume",
    "sound": "audio",
    "view": "image",
    "words": "text",
}


def png(number, shape=(4, 6, 3)):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, shape).astype(np.uint8)).save(file, "png")
    return file.getvalue()


def record(number, missing=()):
    rng = np.random.default_rng(number)
    whole = {
        "face": [png(number + i) for i in range(3)],
        "gaze": rng.standard_normal((2 + number % 3, 2)).astype(np.float32),
        "pulse": rng.standard_normal(5).astype(np.float32),
        "scan": rng.standard_normal((2, 3, 4, 1)).astype(np.float32),
        "sound": rng.integers(-32768, 32768, 900 + number).astype(np.int16),
        "view": png(number),
        "words": f"wörd {number}",
    }
    return {name: None if name in missing else value for name, value in whole.items()}


class Everything(Layout):
    """Seven kinds; every item lacks another modality, but for the first."""

    name, title, homepage, license = "everything", "Everything", "https://example.org", "none"
    kinds = KINDS
    shapes = {"gaze": (None, 2), "pulse": (5,), "label": (2, 3, 4)}
    sample_rate = 16000
    published_sizes = {"train": 8}
    splits = {"train": "all"}
    names = ("a", "b", "c")
    records = {number: record(number, list(KINDS)[number - 1 : number] if number else ()) for number in range(8)}

    def __init__(self, task="classification"):
        self.task = LABELLED[task]

    def label(self, number):
        if self.task.dense:
            return np.random.default_rng(number).integers(0, 3, (2, 3, 4)).astype(np.uint8)
        return {
            "classification": number % 3,
            "regression": number / 3,
            "multilabel": np.array([number & 1, number >> 1 & 1, number >> 2 & 1]),
        }[self.task.name]

    def problems(self, source):
        return []

    def class_names(self, source):
        return self.names if self.task.has_classes else ()

    def items(self, source):
        given = not self.task.dense
        return {"train": [Item(f"item {i}", self.label(i) if given else None, place=i) for i in self.records]}

    def reader(self, source):
        def read(item):
            more = {"label": self.label(item.place)} if self.task.dense else {}
            return self.records[item.place] | more

        return read


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression", "segmentation"])
def test_every_kind_and_label_comes_back(task, tmp_path):
    import tensorflow_datasets as tfds

    layout = Everything(task)
    made = prepare(layout, tmp_path, tmp_path / "out")
    parts = [load_prepared(split, path=made, image_size=4) for split in ("train", "validation")]
    found = {part[i]["key"]: part[i] for part in parts for i in range(len(part))}
    assert [len(part) for part in parts] == [7, 1] and len(found) == 8
    for number, whole in layout.records.items():
        example = found[f"item {number}"]
        assert example["present"].tolist() == [whole[name] is not None for name in KINDS]
        np.testing.assert_array_equal(np.float32(example["label"]), np.float32(layout.label(number)))
        assert example["words"] == whole["words"]
        for name in ("gaze", "pulse", "scan"):
            np.testing.assert_array_equal(example[name], whole[name])
        if whole["sound"] is None:
            assert example["sound"] is None
        else:
            np.testing.assert_array_equal(example["sound"], spectrogram(whole["sound"], 16000, "fbank"))
        if whole["view"] is not None and whole["face"] is not None:
            np.testing.assert_array_equal(example["view"], example["face"][0])
            assert example["face"].shape == (3, 4, 4, 3)
    labels = [part.labels for part in parts]
    if task == "segmentation":
        assert labels == [None, None]
    else:
        for part in parts:
            np.testing.assert_array_equal([part[i]["label"] for i in range(len(part))], part.labels)
    # Also where something is missing, others can read it.
    plain = tfds.builder_from_directory(made).as_data_source("train")
    for i in range(8):
        assert plain[i]["view"].ndim == 3 and plain[i]["gaze"].shape[1] == 2 and plain[i]["scan"].ndim == 4
        np.testing.assert_array_equal(plain[i]["label"], found[plain[i]["key"].decode()]["label"])


def converted(values, label=0, task="classification", item=None):
    layout = Everything(task)
    layout.records = {0: record(0) | values}
    layout.label = lambda number: label
    item = item or Item("one", label if task != "segmentation" else None, place=0)
    return Converter(layout, None, 3).reader()(0, item)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"pulse": np.array([1, np.nan, 3, np.inf, 5])}, "pulse: 2 of 5 values are NaN or infinite"),
        ({"pulse": np.ones(4)}, r"pulse: it has shape \(4,\), expected \(5,\)"),
        ({"gaze": np.ones((3, 3))}, r"gaze: it has shape \(3, 3\), expected \(None, 2\)"),
        ({"gaze": np.ones((0, 2))}, "gaze: it has shape"),
        ({"scan": np.ones((0, 2, 2, 1))}, "scan: it has shape .* expected at least one value"),
        ({"sound": np.ones(9)}, "sound: its sound is a float64 array"),
        ({"sound": np.ones(0, np.int16)}, "sound: it has shape"),
        ({"face": []}, "face: it has 0 frames"),
        ({"face": [png(0), b"odd"]}, "face: its image"),
        ({"view": png(0)[:-30]}, "view: its image"),
        ({"words": "x" * (1 << 20) + "y"}, "words: its text has 1,048,577 bytes"),
        ({"words": ""}, "words: its text has 0 bytes"),
        (dict.fromkeys(KINDS), "all of its modalities are missing"),
    ],
)
def test_values_that_cannot_be_used(values, reason):
    with pytest.raises(DamagedItem, match=reason):
        raise DamagedItem(converted(values)["reason"])


@pytest.mark.parametrize(
    ("task", "label", "reason"),
    [
        ("classification", 3, "its label is 3, expected 0 to 2"),
        ("classification", 0.5, "its label is a float64, expected whole numbers"),
        ("classification", np.zeros(2, int), r"its label has shape \(2,\), expected \(\)"),
        ("multilabel", np.array([0, 2, 0]), "its label is 0 to 2, expected 0 to 1"),
        ("multilabel", np.array([0, 1]), r"its label has shape \(2,\), expected \(3,\)"),
        ("regression", np.nan, "its label is nan, expected a finite number"),
        ("regression", None, "its label is None"),
        ("segmentation", np.full((2, 3, 4), 4), "its label is 4 to 4, expected 0 to 2"),
        ("segmentation", np.zeros((2, 3, 5), int), r"it has shape \(2, 3, 5\), expected \(2, 3, 4\)"),
        ("segmentation", None, "its label is a object"),
    ],
)
def test_labels_that_cannot_be_used(task, label, reason):
    with pytest.raises(DamagedItem, match=reason):
        raise DamagedItem(converted({}, label, task)["reason"])


def test_a_fault_of_the_layout_is_no_damage():
    """What a reader gives too much, or does wrong, must end the run instead of losing items."""
    with pytest.raises(TypeError, match=r"everything gives \['smell'\], which are none of its modalities"):
        converted({"smell": np.ones(3)})
    with pytest.raises(KeyError):
        converted({}, item=Item("one", 0, place="elsewhere"))


def test_damage_while_reading_is_reported(tmp_path):
    layout = Everything()
    layout.records = {**layout.records, 8: {"view": b"no image"}}
    with pytest.raises(DataError, match=r"- train, item 8: view: its image \(8 bytes\) is none of JPEG"):
        prepare(layout, tmp_path, tmp_path / "out")
    made = prepare(layout, tmp_path, tmp_path / "out", max_damaged=1)
    assert [one["key"] for one in json.loads((made / "damaged.json").read_text())] == ["item 8"]
