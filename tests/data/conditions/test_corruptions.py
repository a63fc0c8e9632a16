import numpy as np
import pytest

from c3r_jax.data.conditions.corruptions import (
    Noise,
    Strength,
    gaussian_features,
    gaussian_noise,
    mask_words,
    salt_and_pepper,
    salt_features,
)


class Fixed:
    """A generator whose draws are written down."""

    def __init__(self, values):
        self.values = np.asarray(values, np.float32)

    def standard_normal(self, shape, dtype=np.float64):
        return np.resize(self.values, shape).astype(dtype)

    def random(self, shape=None):
        return float(self.values[0]) if shape is None else np.resize(self.values, shape)


def test_gaussian_by_hand_rounds_and_saturates():
    image = np.array([[[10], [250], [0], [100]]], np.uint8)
    noisy = gaussian_noise(image, 10, Fixed([0.26, 2.0, -3.0, -0.24]))
    np.testing.assert_array_equal(noisy.ravel(), [13, 255, 0, 98])
    assert noisy.dtype == np.uint8


def test_gaussian_moments_in_the_middle_of_the_range():
    noisy = gaussian_noise(np.full((64, 64, 3), 128, np.uint8), 20, np.random.default_rng(0)).astype(float)
    assert abs(noisy.mean() - 128) < 0.6
    assert abs(noisy.std() - 20) < 0.5


@pytest.mark.parametrize("value", [0, 255])
def test_constant_images_never_wrap(value):
    noisy = gaussian_noise(np.full((32, 32, 3), value, np.uint8), 30, np.random.default_rng(0)).astype(int)
    assert np.abs(noisy - value).max() < 180  # a wrapped value would be about 255 away
    assert 0.4 < (noisy == value).mean() < 0.6


def test_salt_and_pepper_by_hand():
    image = np.full((1, 4, 3), 77, np.uint8)
    noisy = salt_and_pepper(image, 0.4, Fixed([0.1, 0.3, 0.5, 0.2]))
    np.testing.assert_array_equal(noisy[0, :, 0], [0, 255, 77, 255])
    np.testing.assert_array_equal(noisy, np.repeat(noisy[..., :1], 3, -1))
    np.testing.assert_array_equal(image, 77)


def test_salt_and_pepper_shares():
    noisy = salt_and_pepper(np.full((200, 200, 3), 9, np.uint8), 0.2, np.random.default_rng(0))
    assert abs((noisy == 0).mean() - 0.1) < 0.01
    assert abs((noisy == 255).mean() - 0.1) < 0.01


def test_mask_words_by_hand():
    assert mask_words("a  b c", 0.5, Fixed([0.4, 0.6, 0.5])) == "[MASK] b c"
    assert mask_words("a b", 1, np.random.default_rng(0)) == "[MASK] [MASK]"


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_text_without_words_stays(text):
    assert mask_words(text, 1, np.random.default_rng(0)) == text


def test_level_zero_is_identity():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (5, 5, 3)).astype(np.uint8)
    sound = rng.standard_normal(9).astype(np.float32)
    np.testing.assert_array_equal(gaussian_noise(image, 0, rng), image)
    np.testing.assert_array_equal(salt_and_pepper(image, 0, rng), image)
    np.testing.assert_array_equal(gaussian_features(sound, 0, rng), sound)
    np.testing.assert_array_equal(salt_features(sound, 0, rng), sound)
    assert mask_words("two  words", 0, rng) == "two  words"


def test_feature_noise_scales_with_the_feature():
    sound = np.zeros((4000, 2), np.float32)
    noisy = gaussian_features(sound, 0.5, np.random.default_rng(0), np.array([1.0, 10.0]))
    np.testing.assert_allclose(noisy.std(0), [0.5, 5.0], rtol=0.05)
    assert noisy.dtype == np.float32
    salted = salt_features(np.arange(10.0), 1, np.random.default_rng(0))
    assert set(salted) == {0.0, 9.0}


@pytest.mark.parametrize(
    "call",
    [
        lambda rng: gaussian_noise(np.zeros((1, 1, 3), np.uint8), -1, rng),
        lambda rng: salt_and_pepper(np.zeros((1, 1, 3), np.uint8), 1.5, rng),
        lambda rng: mask_words("a", -0.1, rng),
        lambda rng: gaussian_features(np.zeros(3), -1, rng),
    ],
)
def test_levels_out_of_range(call):
    with pytest.raises(ValueError, match="expected"):
        call(np.random.default_rng(0))


@pytest.mark.parametrize("how", ["gaussian", "salt"])
def test_noise_treats_videos_as_images_and_sequences_and_volumes_as_features(how):
    noise = Noise(how, Strength(image=20 if how == "gaussian" else 0.5, text=1, features=0.5))
    rng = np.random.default_rng(0)
    video = noise(np.full((3, 40, 40, 2), 128, np.uint8), rng)
    assert video.dtype == np.uint8
    hit = video != 128
    if how == "salt":
        np.testing.assert_array_equal(hit[..., 0], hit[..., 1])  # all channels together, each frame by itself
        assert abs(hit.mean() - 0.5) < 0.05 and (hit[0] != hit[1]).any()
    else:
        assert abs(video.astype(float).std() - 20) < 1
    for shape in ((50, 6), (9, 8, 7), (9, 8, 7, 2)):
        value = rng.standard_normal(shape).astype(np.float32)
        noisy = noise(value, rng)
        assert noisy.shape == shape and noisy.dtype == np.float32
        if how == "salt":
            changed = noisy[noisy != value]
            assert np.isin(changed, (value.min(), value.max())).all() and abs(changed.size / value.size - 0.5) < 0.15
        else:
            assert abs((noisy - value).std() / value.std() - 0.5) < 0.08


@pytest.mark.parametrize("how", ["gaussian", "salt"])
def test_padding_of_sequences_stays_empty(how):
    sequence = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    sequence[4:] = 0
    noisy = Noise(how, Strength(0, 0, 1.0))(sequence, np.random.default_rng(1))
    assert (noisy[4:] == 0).all() and (noisy[:4] != sequence[:4]).all() and noisy.dtype == np.float32
