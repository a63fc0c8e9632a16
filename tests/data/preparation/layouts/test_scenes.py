"""NYU Depth V2 and SUN RGB-D: colour and depth are the two halves of an image, exactly, up to a training step."""

import numpy as np
import pytest
from PIL import Image

from c3r_jax.data.preparation.layouts.scenes import NyuDepthV2, SunRgbd
from c3r_jax.data.preparation.prepare import prepare
from c3r_jax.data.sets.prepared import load_prepared
from c3r_jax.errors import DataError
from configs import nyud2 as nyud2_config
from configs import sunrgbd as sunrgbd_config
from tests.data.preparation.training import shrunk, take_step

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:etils", "ignore::ResourceWarning")
SIZE = 16


def scene(split, label, number):
    return np.random.default_rng([len(split), label, number]).integers(0, 256, (SIZE, 2 * SIZE, 3)).astype(np.uint8)


def write_scenes(source, classes, counts):
    for split, count in counts.items():
        for label in range(classes):
            folder = source / split / f"room {label:02d}"
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(scene(split, label, number)).save(folder / f"{number}.png")
    return source


@pytest.fixture(scope="module")
def nyud2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nyud2")
    source = write_scenes(folder / "source", 10, {"train": 10, "test": 1})
    (source / "train/.hidden").mkdir()
    (source / "train/room 00/notes.txt").write_text("no image")
    return prepare(NyuDepthV2(), source, folder / "out").parents[1]


def test_halves_of_every_scene(nyud2):
    """A tenth of each class is held out for validation, for there is no such split."""
    parts = {
        split: load_prepared(split, name="nyud2", path=nyud2, image_size=SIZE)
        for split in ("train", "validation", "test")
    }
    assert {split: len(part) for split, part in parts.items()} == {"train": 90, "validation": 10, "test": 10}
    assert parts["train"].info.split_sizes == {"train": 90, "validation": 10, "test": 10}
    keys = set()
    for split, part in parts.items():
        assert np.bincount(part.labels).tolist() == [len(part) // 10] * 10
        for i in range(len(part)):
            example = part[i]
            there, room, file = example["key"].split("/")
            label = int(room.removeprefix("room "))
            whole = scene(there, label, int(file.removesuffix(".png")))
            np.testing.assert_array_equal(example["rgb"], whole[:, :SIZE])
            np.testing.assert_array_equal(example["depth"], whole[:, SIZE:])
            assert example["label"] == part.labels[i] == label and example["present"].all()
            assert there == ("test" if split == "test" else "train")
            keys.add(example["key"])
    assert len(keys) == 110
    assert parts["train"].info.modalities == ("depth", "rgb")
    assert parts["train"].info.class_names == tuple(f"room {label:02d}" for label in range(10))


@pytest.fixture(scope="module")
def sunrgbd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sunrgbd")
    return prepare(SunRgbd(), write_scenes(folder / "source", 19, {"train": 4, "test": 1}), folder / "out").parents[1]


@pytest.mark.parametrize("name, config", [("nyud2", nyud2_config), ("sunrgbd", sunrgbd_config)])
def test_to_a_training_step(name, config, request):
    experiment, batch = take_step(shrunk(config.get_config(), request.getfixturevalue(name)))
    assert sorted(experiment.sources) == ["test", "train", "validation"]
    assert sorted(batch["inputs"]) == ["depth", "rgb"] and batch["present"].all()


def test_folders_are_checked(tmp_path):
    write_scenes(tmp_path, 18, {"train": 1})
    with pytest.raises(DataError) as error:
        prepare(SunRgbd(), tmp_path, tmp_path / "out")
    assert "train has 18 folders, expected one for each of 19 classes" in str(error.value)
    assert "test is missing or has no folder" in str(error.value) and "rgbd.cs.princeton.edu" in str(error.value)
    write_scenes(tmp_path / "other", 19, {"train": 1, "test": 1})
    (tmp_path / "other/test/room 03").rename(tmp_path / "other/test/attic")
    with pytest.raises(DataError, match=r"in one of train and test only: attic, room 03"):
        prepare(SunRgbd(), tmp_path / "other", tmp_path / "out")
    for split in ("train", "test"):
        (tmp_path / "other" / split / ("room 03" if split == "train" else "attic")).rename(
            tmp_path / "other" / split / "two\nlines"
        )
    with pytest.raises(DataError, match=r"a class named 'two\\nlines': expected different names of one line each"):
        prepare(SunRgbd(), tmp_path / "other", tmp_path / "out")
    for split in ("train", "test"):
        (tmp_path / "other" / split / "two\nlines").rename(tmp_path / "other" / split / "room 03")
    prepare(SunRgbd(), tmp_path / "other", tmp_path / "out")
    few = load_prepared("validation", name="sunrgbd", path=tmp_path / "out")
    assert len(few) == 1  # no class has ten scenes here, and none to validate on would not do


@pytest.mark.parametrize("clutter", ["__MACOSX", "@eaDir", ".DS_Store", "#recycle"])
def test_what_systems_leave_is_no_class_and_no_scene(tmp_path, clutter):
    source = write_scenes(tmp_path, 10, {"train": 1, "test": 1})
    for split in ("train", "test"):
        (source / split / clutter / "room 00").mkdir(parents=True)
        (source / split / clutter / "0.png").write_bytes(b"fork")
        (source / split / "room 00" / "._0.png").write_bytes(b"fork")
        (source / split / "room 01" / clutter).mkdir()
    layout = NyuDepthV2()
    assert layout.problems(source) == [] and len(layout.class_names(source)) == 10
    assert {split: len(items) for split, items in layout.items(source).items()} == {"train": 10, "test": 10}
