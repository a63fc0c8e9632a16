import itertools

import numpy as np
import pytest

from c3r_jax.data import (
    PROTOCOLS,
    Condition,
    apply_condition,
    gaussian_noise,
    mask_words,
    noise_conditions,
    salt_and_pepper,
    standard_conditions,
)
from c3r_jax.data.corruptions import gaussian_features, salt_features
from c3r_jax.errors import DataError


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


def test_standard_conditions_of_two():
    conditions = standard_conditions(("image", "text"))
    names = ["clean", "image only", "text only", *(f"{a} {n}" for a in ("noise", "salt") for n in (1, 2, 3))]
    assert [condition.name for condition in conditions] == names
    groups = ["clean"] + ["modality_subset"] * 2 + ["gaussian"] * 3 + ["salt"] * 3
    assert [condition.group for condition in conditions] == groups


def test_standard_conditions_of_four_have_every_proper_subset_once():
    kept = [c.modalities for c in standard_conditions("abcd") if c.group == "modality_subset"]
    assert len(kept) == len(set(kept)) == 14
    assert ("a", "c") in kept


@pytest.fixture
def example():
    rng = np.random.default_rng(1)
    return {
        "image": rng.integers(0, 256, (8, 8, 3)).astype(np.uint8),
        "text": "one two three four five six",
        "sound": rng.standard_normal(6).astype(np.float32),
        "label": 2,
        "index": 17,
    }


MODALITIES = ("image", "text", "sound")


def same(left, right):
    return all(np.array_equal(left[name], right[name]) for name in MODALITIES)


def test_clean_adds_present_only(example):
    clean = apply_condition(example, standard_conditions(MODALITIES)[0], 0)
    assert same(clean, example)
    np.testing.assert_array_equal(clean["present"], [True] * 3)
    assert "present" not in example


def test_subset_empties_what_is_missing(example):
    changed = apply_condition(example, Condition("text only", "modality_subset", 0, ("text",)), 0)
    np.testing.assert_array_equal(changed["present"], [False, True, False])
    assert not changed["image"].any()
    assert not changed["sound"].any()
    assert changed["text"] == example["text"]


def test_missing_stays_missing(example):
    present = np.array([True, False, True])
    changed = apply_condition({**example, "present": present}, standard_conditions(MODALITIES)[0], 0)
    np.testing.assert_array_equal(changed["present"], present)


def test_noise_depends_on_seed_index_and_condition_only(example):
    first, second = noise_conditions("gaussian", MODALITIES)[1:]
    noisy = apply_condition(example, first, 3)
    assert same(noisy, apply_condition(example, first, 3))
    assert not same(noisy, apply_condition(example, first, 4))
    assert not same(noisy, apply_condition({**example, "index": 18}, first, 3))
    assert not same(noisy, apply_condition(example, second, 3))


def test_modalities_draw_independently(example):
    """Another modality beside it must not change what an image goes through."""
    condition = noise_conditions("gaussian", ("image",))[0]
    alone = {key: value for key, value in example.items() if key not in ("text", "sound")}
    whole = apply_condition(example, noise_conditions("gaussian", MODALITIES)[0], 0)
    np.testing.assert_array_equal(apply_condition(alone, condition, 0)["image"], whole["image"])


def test_two_modalities_of_one_kind_get_different_noise(example):
    views = {"front": example["image"], "back": example["image"], "index": 0}
    for protocol in ("gaussian", "salt"):
        noisy = apply_condition(views, noise_conditions(protocol, ("front", "back"))[1], 0)
        assert not np.array_equal(noisy["front"], noisy["back"])


def test_harder_levels_change_more(example):
    for protocol in ("gaussian", "salt"):
        change = [
            np.abs(apply_condition(example, c, 0)["image"].astype(int) - example["image"]).mean()
            for c in noise_conditions(protocol, MODALITIES)
        ]
        assert all(low < high for low, high in itertools.pairwise(change))


@pytest.mark.parametrize(("protocol", "share"), [("official", 0.5), ("official_salt", 0.25), ("qmf_salt", 0.025)])
def test_published_protocols_hit_as_often_as_they_say(protocol, share):
    condition = noise_conditions(protocol, ("image",))[0]
    assert condition.level == 5
    image = np.full((16, 16, 3), 128, np.uint8)
    hits = [(apply_condition({"image": image, "index": i}, condition, 0)["image"] != image).any() for i in range(2000)]
    assert abs(np.mean(hits) - share) < 4 * np.sqrt(share * (1 - share) / 2000)


def test_every_protocol_runs(example):
    names = set()
    for protocol in PROTOCOLS:
        for condition in noise_conditions(protocol, MODALITIES):
            names.add(condition.name)
            apply_condition(example, condition, 0)
    assert len(names) == sum(len(protocol.levels) for protocol in PROTOCOLS.values())


def test_what_cannot_be_applied(example):
    with pytest.raises(DataError, match=r"keeps \('smell',\), expected some of"):
        apply_condition(example, Condition("x", "clean", 0, ("smell",)), 0)
    with pytest.raises(DataError, match=r"keeps \(\)"):
        apply_condition(example, Condition("x", "clean", 0, ()), 0)
    with pytest.raises(DataError, match="group 'rain'"):
        apply_condition(example, Condition("x", "rain", 1, MODALITIES), 0)
    with pytest.raises(DataError, match="level 9"):
        apply_condition(example, Condition("x", "gaussian", 9, MODALITIES), 0)
    with pytest.raises(DataError, match="Modality 'text' is a int, expected"):
        apply_condition({**example, "text": 3}, standard_conditions(MODALITIES)[0], 0)
    with pytest.raises(ValueError, match="seed is -1"):
        apply_condition(example, standard_conditions(MODALITIES)[0], -1)
    with pytest.raises(ValueError, match="protocol is 'rain'"):
        noise_conditions("rain", MODALITIES)
