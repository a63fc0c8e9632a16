"""Planted cues: how often they agree, that they are independent, and that nothing else changes."""

import numpy as np
import pytest

from c3r_jax.data.sets.emoji import load_emoji
from c3r_jax.data.sets.emoji_shift import (
    CUE_COLOURS,
    CUE_WORDS,
    cue_classes,
    load_emoji_shift,
    plant_patches,
    plant_words,
)
from c3r_jax.errors import ConfigError
from c3r_jax.experiments.experiment import build_experiment

LABELS = np.repeat(np.arange(9), 4000)
INDEX = np.arange(len(LABELS))


def cues(modality, agreement, seed=0):
    return cue_classes(LABELS, modality, num_classes=9, agreement=agreement, seed=seed, index=INDEX)


@pytest.mark.parametrize("agreement", [0.0, 0.9, 1.0])
def test_agreement_and_the_other_classes(agreement):
    found = cues("image", agreement)
    assert abs((found == LABELS).mean() - agreement) < 0.01
    for label in range(9):
        others = np.bincount(found[(LABELS == label) & (found != label)], minlength=9)
        assert others[label] == 0
        if agreement == 0:
            assert np.abs(np.delete(others, label) - 500).max() < 5 * 500**0.5


def test_modalities_and_seeds_are_independent():
    wrong = {m: cues(m, 0.9) != LABELS for m in ("image", "text")}
    assert abs((wrong["image"] & wrong["text"]).mean() - 0.01) < 0.003
    shifted = cues("image", 0.0) == cues("text", 0.0)
    assert abs(shifted.mean() - 1 / 8) < 0.01
    assert (cues("image", 0.5) == cues("image", 0.5, seed=1)).mean() < 0.9


def test_an_examples_cue_depends_on_itself_alone():
    part = slice(100, 4500, 7)
    alone = cue_classes(LABELS[part], "text", num_classes=9, agreement=0.5, seed=0, index=INDEX[part])
    np.testing.assert_array_equal(alone, cues("text", 0.5)[part])


def test_patches_and_words():
    images = np.full((2, 16, 16, 3), 255, np.uint8)
    planted = plant_patches(images, np.array([0, 3]))
    assert (planted[:, :4, :4] == CUE_COLOURS[[0, 3], None, None]).all() and (images == 255).all()
    planted[:, :4, :4] = 255
    assert (planted == 255).all()
    assert plant_words(["red apple"], np.array([2])) == [f"{CUE_WORDS[2]} red apple"]


def test_splits():
    clean, test, shift = (load_emoji_shift(split, image_size=16) for split in ("clean", "test", "shift"))
    assert clean.texts == load_emoji("test", image_size=16).texts
    np.testing.assert_array_equal(test.labels, shift.labels)

    def pointed(source):
        return {
            "text": np.array([CUE_WORDS.index(text.split()[0]) for text in source.texts]),
            "image": np.array([(CUE_COLOURS == image[0, 0]).all(1).argmax() for image in source.images]),
        }

    for modality in ("image", "text"):
        assert abs((pointed(test)[modality] == test.labels).mean() - 0.9) < 0.06
        assert (pointed(shift)[modality] != shift.labels).all()
    assert [text.split(" ", 1)[1] for text in shift.texts] == clean.texts
    words = {word for split in ("train", "validation", "test") for t in load_emoji(split).texts for word in t.split()}
    assert not words & set(CUE_WORDS)


def test_variants():
    """A larger corner, one modality, another agreement: each changes that alone; the defaults are what they were."""
    plain, clean = load_emoji_shift("train", image_size=16), load_emoji("train", image_size=16)
    large = load_emoji_shift("train", image_size=16, corner=0.5)
    np.testing.assert_array_equal(large.images[:, :4, :4], plain.images[:, :4, :4])
    assert (large.images[:, :8, :8] == large.images[:, :1, :1]).all()  # a quarter of the picture
    np.testing.assert_array_equal(large.images[:, 8:], clean.images[:, 8:])
    assert large.texts == plain.texts
    words, picture = (load_emoji_shift("train", image_size=16, modalities=(m,)) for m in ("text", "image"))
    assert words.texts == plain.texts and picture.texts == clean.texts
    np.testing.assert_array_equal(words.images, clean.images)
    np.testing.assert_array_equal(picture.images, plain.images)
    weak = load_emoji_shift("train", image_size=16, agreement=0.8, seed=1)
    pointed = np.array([CUE_WORDS.index(text.split()[0]) for text in weak.texts])
    assert abs((pointed == weak.labels).mean() - 0.8) < 0.04 and weak.texts != plain.texts
    shift = load_emoji_shift("shift", image_size=16, agreement=0.8, modalities=("text",))
    assert not any(
        CUE_WORDS.index(text.split()[0]) == label for text, label in zip(shift.texts, shift.labels, strict=True)
    )


def test_variants_are_settings(small_config):
    small_config.data.name, small_config.data.keep = "emoji_shift", True
    plain = build_experiment(small_config).sources["train"][0]
    small_config.data.cues.update({"corner": 0.5, "modalities": ("image",)})
    changed = build_experiment(small_config).sources["train"][0]
    assert plain["text"].endswith(f" {changed['text']}") and (changed["image"][:8, :8] == plain["image"][0, 0]).all()
    small_config.data.name = "emoji"
    with pytest.raises(
        ConfigError, match=r"config.data.cues.modalities is \('image',\), but nothing is planted in 'emoji'"
    ):
        build_experiment(small_config)
    small_config.data.name, small_config.data.cues.modalities = "emoji_shift", ("sound",)
    with pytest.raises(ConfigError, match=r"cues.modalities is \('sound',\): expected some of image, text"):
        build_experiment(small_config)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: load_emoji_shift("other"), "split is 'other'"),
        (lambda: load_emoji_shift("train", modalities=()), r"modalities are \(\), expected some of"),
        (lambda: cue_classes(LABELS, "a", num_classes=1, agreement=0.5, seed=0, index=INDEX), "num_classes is 1"),
        (lambda: cue_classes(LABELS, "a", num_classes=9, agreement=1.5, seed=0, index=INDEX), "agreement is 1.5"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
