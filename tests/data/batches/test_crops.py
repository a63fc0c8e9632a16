"""Crops: random in training, central in evaluation, the same for images, depth, frames, volumes and masks."""

import dataclasses
import itertools

import numpy as np
import pytest

from c3r_jax.data.array_source import ArraySource
from c3r_jax.data.batches.augment import AugmentConfig
from c3r_jax.data.batches.crops import Crops, crop, mask_space
from c3r_jax.data.batches.one_pass import eval_batches
from c3r_jax.data.batches.pipeline import train_batches
from c3r_jax.data.conditions.protocols import noise_condition
from c3r_jax.data.source import DatasetInfo
from c3r_jax.data.text.tokenizers import ByteTokenizer
from c3r_jax.errors import DataError

KEYS = (np.zeros(2000, int), np.arange(2000))
# Each pixel says where it was, so that a crop says where it was taken.
PLACES = np.stack(np.meshgrid(np.arange(8), np.arange(8), [0], indexing="ij"), axis=-1)[:, :, 0].astype(np.uint8)
INFO = DatasetInfo("places", ("clip", "depth", "rgb"), ("a", "b"), image_size=8)
GEOMETRY = AugmentConfig(shift=1, flip=True)
COLOURS = AugmentConfig(shift=1, flip=True, brightness=0.3, contrast=0.3)
N = 12


@pytest.fixture
def pictures():
    rgb = np.tile(PLACES, (N, 1, 1, 1))
    columns = {"rgb": rgb, "depth": rgb.copy(), "clip": np.stack([rgb] * 3, axis=1)}
    return ArraySource(columns, np.arange(N) % 2, info=INFO)


def take(batches, count):
    return list(itertools.islice(iter(batches), count))


def test_every_place_is_equally_likely():
    values = np.arange(4 * 5).reshape(1, 4, 5).repeat(2000, 0)
    found = crop(values, 1, (3, 3), 0, KEYS)
    assert found.shape == (2000, 3, 3)
    np.testing.assert_array_equal(found[:, 2, 2] - found[:, 0, 0], 12)  # rows and columns that follow each other
    counts = np.bincount(found[:, 0, 0], minlength=20)
    assert set(np.flatnonzero(counts)) == {0, 1, 2, 5, 6, 7}
    assert np.abs(counts[counts > 0] - 2000 / 6).max() < 60
    np.testing.assert_array_equal(crop(values, 1, (3, 3))[0], values[0, :3, 1:4])  # the centre
    assert crop(values, 1, (4, 5), 0, KEYS) is values


def test_all_images_of_an_example_are_cropped_and_moved_alike(pictures):
    how = {"batch_size": N, "seed": 3, "crops": Crops(image=5)}
    batches = take(train_batches(pictures, None, augment=GEOMETRY, **how), 4)
    for batch in batches:
        inputs = batch["inputs"]
        assert inputs["rgb"].shape == (N, 5, 5, 3) and inputs["clip"].shape == (N, 3, 5, 5, 3)
        np.testing.assert_array_equal(inputs["rgb"], inputs["depth"])
        for frame in range(3):
            np.testing.assert_array_equal(inputs["clip"][:, frame], inputs["rgb"])
    assert len({image.tobytes() for batch in batches for image in batch["inputs"]["rgb"]}) > 24
    centre = next(iter(eval_batches(pictures, None, batch_size=N, crops=Crops(image=5))))["inputs"]
    np.testing.assert_array_equal(centre["rgb"], pictures.columns["rgb"][:, 1:6, 1:6])
    np.testing.assert_array_equal(centre["clip"], pictures.columns["clip"][:, :, 1:6, 1:6])
    central = next(train_batches(pictures, None, batch_size=N, seed=3, crops=Crops(image=5, central=True)))["inputs"]
    np.testing.assert_array_equal(central["rgb"], centre["rgb"])


def test_depth_keeps_its_values(pictures):
    moved, coloured = (
        next(train_batches(pictures, None, batch_size=N, seed=3, crops=Crops(image=5), augment=augment))["inputs"]
        for augment in (GEOMETRY, COLOURS)
    )
    np.testing.assert_array_equal(moved["depth"], coloured["depth"])
    assert not np.array_equal(moved["rgb"], coloured["rgb"])
    np.testing.assert_array_equal(coloured["clip"][:, 1], coloured["rgb"])


def test_workers_and_batch_sizes_change_no_crop(pictures):
    how = {"seed": 3, "augment": COLOURS, "crops": Crops(image=5)}
    one = take(train_batches(pictures, None, batch_size=N, **how), 2)
    several = train_batches(pictures, None, batch_size=N // 2, num_workers=2, **how)
    try:
        parts = take(several, 4)
    finally:
        several.close()
    for name in INFO.modalities:
        whole, split = (np.concatenate([batch["inputs"][name] for batch in batches]) for batches in (one, parts))
        np.testing.assert_array_equal(whole, split)


@pytest.mark.parametrize("kind", ["volume", "image"])
def test_masks_follow_the_modalities(kind):
    rng = np.random.default_rng(0)
    shape = (N, 6, 5, 7) if kind == "volume" else (N, 6, 6)
    mask = rng.integers(0, 3, shape).astype(np.uint8)
    values = mask[..., None].astype(np.float32 if kind == "volume" else np.uint8).repeat(2, -1)
    info = DatasetInfo("masks", ("flair", "t1"), ("a", "b", "c"), task="segmentation")
    plain = values[..., 0] if kind == "volume" else values
    source = ArraySource({"flair": values, "t1": plain}, mask, info=info)
    crops = Crops(volume=(3, 4, 5)) if kind == "volume" else Crops(image=4)
    sizes = crops.window(kind)[1]
    firsts = []
    for batch in take(train_batches(source, None, batch_size=N, seed=0, crops=crops, augment=GEOMETRY), 3):
        assert batch["labels"].shape == (N, *sizes)
        np.testing.assert_array_equal(batch["inputs"]["flair"][..., 1], batch["labels"])
        firsts.append(batch["labels"][np.argsort(batch["index"])][0].tobytes())
    assert len(set(firsts)) > 1  # another place in another epoch
    batch = next(iter(eval_batches(source, None, batch_size=N, crops=crops)))
    np.testing.assert_array_equal(batch["inputs"]["flair"][..., 0], batch["labels"])
    whole = next(iter(eval_batches(source, None, batch_size=N)))
    np.testing.assert_array_equal(whole["labels"], mask)


def test_noise_is_the_same_whether_volumes_are_cut_or_not(list_source):
    """Cut batches are made example by example: each keeps its own noise, text and place."""
    rng = np.random.default_rng(0)
    info = DatasetInfo("scans", ("note", "scan"), ("a",))
    scans = rng.standard_normal((6, 4, 4, 4)).astype(np.float32)
    source = list_source([{"note": f"case {i} of six", "scan": scans[i], "label": 0} for i in range(6)], info)
    condition = noise_condition("gaussian:2", info.modalities)
    how = {"batch_size": 6, "condition": condition, "seed": 1, "text_length": 16}
    whole, cut = (
        next(iter(eval_batches(source, ByteTokenizer(), crops=crops, **how)))["inputs"]
        for crops in (Crops(), Crops(volume=(2, 2, 2)))
    )
    np.testing.assert_array_equal(whole["scan"][:, 1:3, 1:3, 1:3], cut["scan"])
    np.testing.assert_array_equal(whole["note"], cut["note"])
    noise = {"noise": condition, "seed": 0, "batch_size": 6, "text_length": 16, "augment": AugmentConfig(word_drop=0.5)}
    whole, cut = (
        next(train_batches(source, ByteTokenizer(), crops=crops, **noise))
        for crops in (Crops(volume=(4, 4, 4)), Crops())
    )
    for name in info.modalities:
        np.testing.assert_array_equal(whole["inputs"][name], cut["inputs"][name])
    assert list(whole) == list(cut) and list(whole["inputs"]) == list(cut["inputs"])


def test_space_of_a_mask():
    assert mask_space({"a": "image", "b": "volume"}) == "volume"
    assert mask_space({"a": "text"}) == ""


def test_crops_that_do_not_fit(pictures):
    with pytest.raises(DataError, match=r"'clip' has \(8, 8\) along .* at least \(9, 9\)"):
        next(iter(eval_batches(pictures, None, batch_size=2, crops=Crops(image=9))))
    for wrong in ({"image": -1}, {"volume": (3, 3)}, {"volume": (3, 3, 0)}):
        with pytest.raises(ValueError, match="choose sizes in pixels and voxels"):
            Crops(**wrong)
    assert dataclasses.replace(Crops(), image=3).window("text") == (0, ())
