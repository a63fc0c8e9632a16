import numpy as np
import pytest

from c3r_jax.data.batches.augment import AugmentConfig, add_noise, augment_batch, augment_images, drop_words
from c3r_jax.data.counter_rng import example_rng, hash64, permutation, uniform

HASHES = [4607845897163955596, 10807453009806115804, 3922805665946695360]
ORDER = [4, 3, 5, 0, 1, 2]
KEYS = (np.zeros(2000, int), np.arange(2000))


def test_hash_is_fixed_for_ever():
    """A changed hash would change every run: these are the values of the first release."""
    assert [int(x) for x in hash64(0, "flip", np.arange(3))] == HASHES
    assert permutation(6, 1, "epoch", 0).tolist() == ORDER


def test_uniform_is_uniform():
    draws = uniform(3, "x", *KEYS)
    assert draws.dtype == np.float32
    assert 0 <= draws.min() <= draws.max() < 1
    assert np.abs(np.histogram(draws, 10, (0, 1))[0] - 200).max() < 60
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.07
    assert abs(np.corrcoef(draws, uniform(3, "y", *KEYS))[0, 1]) < 0.07
    assert abs(np.corrcoef(draws, uniform(4, "x", *KEYS))[0, 1]) < 0.07


def test_order_is_uniform():
    first = [permutation(5, seed, "epoch", 0)[0] for seed in range(1000)]
    assert np.abs(np.bincount(first) - 200).max() < 60


def test_example_rng_differs_by_each_part():
    draws = {example_rng(*parts).random() for parts in ((0, 1, "a"), (1, 1, "a"), (0, 2, "a"), (0, 1, "b"))}
    assert len(draws) == 4


def test_nothing_by_default():
    images = np.random.default_rng(0).integers(0, 256, (2000, 2, 2, 3)).astype(np.uint8)
    np.testing.assert_array_equal(augment_images(images, AugmentConfig(), 0, KEYS), images)


def test_shift_moves_and_repeats_the_border():
    image = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1)
    moved = augment_images(np.repeat(image, 2000, 0), AugmentConfig(shift=1), 0, KEYS)
    found = {m.tobytes() for m in moved}
    expected = set()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            rows, columns = np.clip(np.arange(3) + dy, 0, 2), np.clip(np.arange(3) + dx, 0, 2)
            expected.add(image[0][rows][:, columns].tobytes())
    assert found == expected


def test_flip_mirrors_half():
    image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
    flipped = augment_images(np.repeat(image, 2000, 0), AugmentConfig(flip=True), 0, KEYS)
    mirrored = (flipped == image[:, :, ::-1]).all((1, 2, 3))
    assert ((flipped == image).all((1, 2, 3)) ^ mirrored).all()
    assert abs(mirrored.mean() - 0.5) < 0.05


def test_brightness_saturates():
    images = np.repeat(np.array([[[[0, 128, 255]]]], np.uint8), 2000, 0)
    bright = augment_images(images, AugmentConfig(brightness=0.2), 0, KEYS)[:, 0, 0].astype(int)
    assert bright[:, 0].min() == 0
    assert bright[:, 2].max() == 255
    assert abs(bright[:, 0].max() - 51) <= 1
    assert abs(bright[:, 1].min() - 77) <= 1
    assert abs(bright[:, 1].max() - 179) <= 1


def test_contrast_keeps_the_middle():
    images = np.repeat(np.array([[[[28, 128, 228]]]], np.uint8), 2000, 0)
    changed = augment_images(images, AugmentConfig(contrast=0.5), 0, KEYS)[:, 0, 0].astype(int)
    assert np.abs(changed[:, 1] - 128).max() <= 1
    assert np.abs(changed.sum(1) - 384).max() <= 2
    assert abs(changed[:, 0].max() - 78) <= 1


def test_colour_scales_channels_apart():
    images = np.full((2000, 1, 1, 3), 100, np.uint8)
    changed = augment_images(images, AugmentConfig(colour=0.1), 0, KEYS)[:, 0, 0].astype(float)
    assert changed.min() == 90
    assert changed.max() == 110
    assert np.abs(np.corrcoef(changed.T) - np.eye(3)).max() < 0.08


def test_whole_words_are_dropped():
    ids = np.tile(np.array([[5, 6, 7, 8, 0]], np.int32), (2000, 1))
    words = np.tile(np.array([[0, 0, 1, 2, -1]], np.int32), (2000, 1))
    dropped = drop_words(ids, words, 0.3, 0, KEYS)
    gone = dropped == 1
    np.testing.assert_array_equal(gone[:, 0], gone[:, 1])
    assert not gone[:, 4].any()
    assert np.abs(gone[:, [0, 2, 3]].mean(0) - 0.3).max() < 0.05
    assert ((dropped == ids) | gone).all()
    assert dropped.dtype == np.int32


def test_feature_noise_is_gaussian():
    noise = add_noise(np.zeros((2000, 4), np.float32), 2.0, 0, KEYS)
    assert noise.dtype == np.float32
    assert np.abs(noise.mean(0)).max() < 0.2
    np.testing.assert_allclose(noise.std(0), 2, rtol=0.06)
    assert abs((np.abs(noise) < 2).mean() - 0.683) < 0.02
    assert np.isfinite(noise).all()


@pytest.mark.parametrize("wrong", [{"shift": -1}, {"shift": 0.5}, {"word_drop": 1.5}, {"colour": -0.1}])
def test_settings_out_of_range(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        AugmentConfig(**wrong)


def test_noise_leaves_padding_alone():
    sound = np.ones((5, 4, 2), np.float32)
    sound[:, 3] = 0
    batch = {"inputs": {"sound": sound.copy()}}
    config = AugmentConfig(feature_noise=1.0)
    found = augment_batch(batch, {}, {"sound": "sequence"}, config, 0, (np.arange(5),))["inputs"]["sound"]
    assert (found[:, 3] == 0).all() and (found[:, :3] != 1).all()
