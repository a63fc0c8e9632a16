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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: load_emoji_shift("other"), "split is 'other'"),
        (lambda: cue_classes(LABELS, "a", num_classes=1, agreement=0.5, seed=0, index=INDEX), "num_classes is 1"),
        (lambda: cue_classes(LABELS, "a", num_classes=9, agreement=1.5, seed=0, index=INDEX), "agreement is 1.5"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
