import io
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from c3r_jax.data.array_source import ArraySource
from c3r_jax.data.media.image import PictureRules, decode_on_white
from c3r_jax.data.sets.emoji import ASSET, SPLITS, load_emoji, write_subset
from c3r_jax.data.source import DatasetInfo
from c3r_jax.errors import DataError


def test_counts(emoji_index):
    items = emoji_index["items"]
    counts = np.bincount([item["label"] for item in items])
    assert len(items) == 1906
    assert emoji_index["class_names"][0] == "smileys & emotion"
    assert emoji_index["class_names"][-1] == "flags"
    np.testing.assert_array_equal(counts, [169, 386, 159, 131, 218, 85, 264, 224, 270])
    assert round(counts.max() / counts.sum(), 3) == 0.203


def test_every_class_is_split_60_20_20(emoji_index):
    for label in range(9):
        splits = [item["split"] for item in emoji_index["items"] if item["label"] == label]
        for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
            assert abs(splits.count(split) / len(splits) - share) < 0.03


def test_no_concept_is_in_two_splits(emoji_index):
    homes = {}
    for item in emoji_index["items"]:
        assert homes.setdefault(item["concept"], item["split"]) == item["split"], item["name"]


def test_no_normalised_name_is_in_two_splits(emoji_index):
    """A blunt rule of the test's own: without who it is, which way it looks and what colour it has."""
    words = "man woman person men women people red green blue yellow orange purple black white left right facing"
    drop = set(words.split())
    homes = {}
    for item in emoji_index["items"]:
        if emoji_index["class_names"][item["label"]] == "flags":
            continue
        found = re.findall(r"\w+", item["name"].lower())
        key = " ".join(sorted(word for word in found if word not in drop)) or "nobody"
        assert homes.setdefault(key, item["split"]) == item["split"], item["name"]


@pytest.mark.parametrize(
    "pattern", ["o’clock|-thirty$", "^keycap", "^family", "^(man|woman|person): ", "^kiss($|:)", "^couple with heart"]
)
def test_families_of_emoji_stay_together(emoji_index, pattern):
    homes = [item["split"] for item in emoji_index["items"] if re.search(pattern, item["name"])]
    assert len(homes) > 3
    assert len(set(homes)) == 1


def test_no_picture_is_in_two_splits():
    seen = {}
    for split in SPLITS:
        source = load_emoji(split, image_size=64)
        for image, text in zip(source.images, source.texts, strict=True):
            for view in (image, image[:, ::-1]):
                home = seen.setdefault(view.tobytes(), (split, text))
                assert home[0] == split, (home, text)


def test_names_do_not_contain_the_class(emoji_index):
    assert not any(item["name"].lower().startswith("flag:") for item in emoji_index["items"])


def test_splits_cover_the_file_once():
    sources = [load_emoji(split, image_size=8) for split in SPLITS]
    every = np.concatenate([source.index for source in sources])
    np.testing.assert_array_equal(np.sort(every), np.arange(1906))
    assert sources[0].info.split_sizes == {"train": 1143, "validation": 383, "test": 380}
    assert [len(source) for source in sources] == list(sources[0].info.split_sizes.values())


def test_example(emoji_train):
    example = emoji_train[7]
    assert list(example) == ["image", "text", "label", "index"]
    assert example["image"].shape == (16, 16, 3)
    assert example["image"].dtype == np.uint8
    assert isinstance(example["text"], str)
    assert type(example["label"]) is int
    assert emoji_train.info.num_classes == 9
    assert emoji_train.labels.dtype == np.int32


def test_transparent_is_white_and_box_means_are_exact():
    images = load_emoji("validation", image_size=64).images
    small = load_emoji("validation", image_size=32).images
    assert (images[:, 0, 0] == 255).mean() > 0.9
    blocks = images.reshape(len(images), 32, 2, 32, 2, 3).astype(float).mean((2, 4))
    assert np.abs(blocks - small).max() <= 0.5 + 1e-6


def test_half_transparent_black_is_grey(tmp_path):
    from PIL import Image

    path = tmp_path / "grey.png"
    Image.fromarray(np.full((2, 2, 4), (0, 0, 0, 128), np.uint8)).save(path)
    np.testing.assert_array_equal(decode_on_white(path.read_bytes(), 2), np.full((2, 2, 3), 127))
    np.testing.assert_array_equal(decode_on_white(path.read_bytes(), 3), np.full((3, 3, 3), 127))
    deep = io.BytesIO()
    Image.fromarray(np.full((4, 4), 100 * 256 + 7, np.uint16)).save(deep, "png")
    whole = PictureRules(span=(0, 65535))  # without a stated range such a dark picture is refused
    np.testing.assert_array_equal(decode_on_white(deep.getvalue(), 2, whole), np.full((2, 2, 3), 100))
    with pytest.raises(DataError, match="of which 101 of 256 levels would remain"):
        decode_on_white(deep.getvalue(), 2)


def test_large_jpegs_look_the_same():
    """They are decoded smaller than they are."""
    from PIL import Image

    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8))
    file = io.BytesIO()
    small.resize((800, 600), Image.Resampling.BICUBIC).save(file, "jpeg", quality=95)
    plain = Image.open(io.BytesIO(file.getvalue())).resize((40, 40), Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(plain).astype(int) - decode_on_white(file.getvalue(), 40))
    assert difference.mean() < 1 and difference.max() < 12


@pytest.fixture
def copy(tmp_path):
    path = tmp_path / "emoji.zip"
    shutil.copy(ASSET, path)
    shutil.copy(ASSET.with_name("emoji.zip.sha256"), tmp_path)
    return path


def test_copy_loads(copy):
    assert len(load_emoji("test", path=copy, image_size=8)) == 380


def test_pictures_are_decoded_once_and_cannot_be_changed(emoji_index, tmp_path):
    one, other = (load_emoji("test", image_size=16) for _ in range(2))
    assert np.shares_memory(one.images, other.images)
    with pytest.raises(ValueError, match="read-only"):
        one.images[0] = 0
    assert not np.shares_memory(one.images, load_emoji("validation", image_size=16).images)
    items = [{**item, "split": "test"} for item in emoji_index["items"][:3]]
    write_subset(tmp_path / "emoji.zip", items)
    first = load_emoji("test", path=tmp_path / "emoji.zip", image_size=16)
    write_subset(tmp_path / "emoji.zip", items[::-1])  # another file of the same name
    np.testing.assert_array_equal(
        load_emoji("test", path=tmp_path / "emoji.zip", image_size=16).images, first.images[::-1]
    )


def test_flipped_byte(copy):
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    with pytest.raises(DataError, match=r"emoji.zip .* has SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}.*modified"):
        load_emoji("test", path=copy)


def test_truncated(copy):
    copy.write_bytes(copy.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"\(1000 bytes\) has SHA-256 .* truncated"):
        load_emoji("test", path=copy)


def test_missing_file_and_missing_checksum(copy):
    copy.with_name("emoji.zip.sha256").unlink()
    with pytest.raises(DataError, match=r"emoji.zip.sha256 cannot be read \(FileNotFoundError\)"):
        load_emoji("test", path=copy)
    copy.unlink()
    with pytest.raises(DataError, match=r"emoji.zip cannot be read \(FileNotFoundError\)"):
        load_emoji("test", path=copy)


def test_empty_checksum(copy):
    copy.with_name("emoji.zip.sha256").write_text("")
    with pytest.raises(DataError, match="expected nothing"):
        load_emoji("test", path=copy)


def test_unknown_split_and_size():
    with pytest.raises(ValueError, match="split is 'dev'"):
        load_emoji("dev")
    with pytest.raises(ValueError, match="image_size is 0"):
        load_emoji("test", image_size=0)


@pytest.mark.parametrize("label", [-1, 2])
def test_label_outside_the_classes(label):
    info = DatasetInfo("demo", ("sound",), ("a", "b"))
    with pytest.raises(DataError, match=rf"Example 1 of 'demo' has label {label}, expected 0 to 1"):
        ArraySource({"sound": np.zeros((3, 4), np.float32)}, np.array([0, label, 1]), info=info)


def test_labels_that_are_no_integers():
    info = DatasetInfo("demo", ("sound",), ("a", "b"))
    with pytest.raises(DataError, match="float64 array of shape"):
        ArraySource({"sound": np.zeros((1, 4), np.float32)}, np.array([0.5]), info=info)


def test_columns_must_fit():
    info = DatasetInfo("demo", ("sound",), ("a", "b"))
    with pytest.raises(DataError, match="expected its modalities"):
        ArraySource({"image": np.zeros((1, 4))}, np.array([0]), info=info)
    with pytest.raises(DataError, match="has 2 labels but"):
        ArraySource({"sound": np.zeros((1, 4))}, np.array([0, 1]), info=info)
    with pytest.raises(DataError, match=r"shape \(2, 2\), expected \(2, 1\)"):
        ArraySource({"sound": np.zeros((2, 4))}, np.array([0, 1]), info=info, present=np.ones((2, 2)))


def test_importing_the_data_layer_imports_no_tensorflow():
    code = (
        "import sys, c3r_jax.data; "
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'torch', 'sklearn') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
