"""Watch: recordings written as the package has them come back as windows, person by person on one side."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from c3r_jax.data.preparation.convert import Converter
from c3r_jax.data.preparation.layouts.watch import FILE, Watch
from c3r_jax.data.preparation.prepare import prepare
from configs import watch
from tests.data.preparation.training import shrunk, take_step

LAYOUT = Watch()


class Hostile:
    def __reduce__(self):
        return os.getenv, ("HOME",)


def recordings():
    """One recording of each of 10 people, of 200 to 650 samples; every value is its own."""
    lengths = [200 + 50 * i for i in range(10)]
    series = [1000.0 * i + np.arange(6.0 * n).reshape(n, 6) / 7 for i, n in enumerate(lengths)]
    return {
        "X": series,
        "y": np.arange(10) % 2,
        "subject": np.arange(1, 11),
        "side": np.ones(10),
        "X_labels": ["ax"],
        "y_labels": ["PEN", "ABD"],
    }


def write(source, content):
    array = np.empty((), object)
    array[()] = content
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    with zipfile.ZipFile(source / "seglearn-1.2.5-py3-none-any.whl", "w") as wheel:
        wheel.writestr(FILE, file.getvalue())


def test_windows(tmp_path):
    data = recordings()
    write(tmp_path, data)
    assert LAYOUT.problems(tmp_path) == []
    assert LAYOUT.class_names(tmp_path) == ("PEN", "ABD")
    items, read = LAYOUT.items(tmp_path), LAYOUT.reader(tmp_path)
    expected = {"train": range(6), "validation": (6, 7), "test": (8, 9)}
    for split, numbers in expected.items():
        places = [(n, start) for n in numbers for start in range(0, len(data["X"][n]) - 199, 200)]
        assert [item.place for item in items[split]] == places
        assert len({item.key for item in items[split]}) == len(places)
        for item, (number, start) in zip(items[split], places, strict=True):
            window = data["X"][number][start : start + 200].astype(np.float32)
            record = read(item)
            np.testing.assert_array_equal(record["accelerometer"], window[:, :3])
            np.testing.assert_array_equal(record["gyroscope"], window[:, 3:])
            assert record["gyroscope"].dtype == np.float32 and item.label == data["y"][number]


def test_values_that_are_not_finite_are_damage(tmp_path):
    data = recordings()
    data["X"][1][17, 2] = np.nan
    write(tmp_path, data)
    entry = Converter(LAYOUT, tmp_path, 2).reader()(1, LAYOUT.items(tmp_path)["train"][1])
    assert entry["reason"] == "accelerometer: 1 of 600 values are NaN or infinite"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"y": np.arange(9)}, "do not match"),
        ({"y": np.full(10, 2)}, "do not match"),
        ({"X": [np.zeros((300, 5))] * 10}, "do not match"),
        ({"X": None}, "has another format"),
        ({"subject": Hostile()}, "it may be an attack"),
    ],
)
def test_what_cannot_be_used_is_a_problem(change, reason, tmp_path):
    write(tmp_path, recordings() | change)
    (problem,) = LAYOUT.problems(tmp_path)
    assert reason in problem and "seglearn-1.2.5-py3-none-any.whl" in problem


def test_no_pickle_at_all(tmp_path):
    with zipfile.ZipFile(tmp_path / "seglearn-1.2.5-py3-none-any.whl", "w") as wheel:
        wheel.writestr(FILE, pickle.dumps(1)[:3])
    (problem,) = LAYOUT.problems(tmp_path)
    assert "no whole pickle" in problem


def test_to_a_training_step(tmp_path):
    write(tmp_path, recordings())
    prepare(LAYOUT, tmp_path, tmp_path / "out")
    experiment, batch = take_step(shrunk(watch.get_config(), tmp_path / "out"))
    assert {name: value.shape for name, value in batch["inputs"].items()} == {
        "accelerometer": (64, 200, 3),
        "gyroscope": (64, 200, 3),
    }
    train, test = (experiment.sources[split] for split in ("train", "test"))
    assert len(train) == 8 and set(batch["environment"].tolist()) == set(range(6))
    assert train.info.environment == "subject" and train.info.environments[0] == "subject_01"
    people = {train.info.environments[i] for i in test.environment}
    assert people == {"subject_09", "subject_10"}
