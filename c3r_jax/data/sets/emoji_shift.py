"""Planted cues: real pictures and names with a spurious cue that agrees with the label in training, not under shift."""

import os

import numpy as np

from c3r_jax.data.counter_rng import check_seed, hash64, uniform
from c3r_jax.data.sets.emoji import EmojiSource, load_emoji

# One word and one colour for each class; more classes need more of both. No word is part of an emoji's name.
CUE_WORDS = ("zorb", "quil", "veth", "jaxo", "wumb", "kriv", "plyx", "oonf", "thag", "yeld", "brux", "nimf")
CUE_COLOURS = np.array(
    [
        *([230, 25, 75], [60, 180, 75], [255, 225, 25], [0, 130, 200], [245, 130, 48], [145, 30, 180]),
        *([70, 240, 240], [240, 50, 230], [210, 245, 60], [0, 128, 128], [170, 110, 40], [0, 0, 0]),
    ],
    np.uint8,
)
MODALITIES = ("image", "text")
SHIFT_SPLITS = ("train", "validation", "test", "shift", "clean")


def cue_classes(
    labels: np.ndarray, modality: str, *, num_classes: int, agreement: float, seed: int, index: np.ndarray
) -> np.ndarray:
    """The class that the cue in one modality indicates, for each example; drawn independently for each modality.

    Args:
      labels: (n,) class ids.
      modality: name of the modality, part of the draw.
      num_classes: K >= 2.
      agreement: probability that the cue indicates the label; otherwise it indicates a random other class.
      seed: seed of the draws.
      index: (n,) ids of the examples; an example's cue does not depend on other examples.

    Returns:
      (n,) class ids.

    Examples:
      >>> labels = np.zeros(1000, int)
      >>> cues = cue_classes(labels, "image", num_classes=9, agreement=0.9, seed=0, index=np.arange(1000))
      >>> bool(abs((cues == labels).mean() - 0.9) < 0.04)
      True
    """
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}, but at least 2 were expected: a cue must be able to differ.")
    if not 0 <= agreement <= 1:
        raise ValueError(f"agreement is {agreement}, but a probability of 0 to 1 was expected.")
    check_seed(seed)
    other = (labels + 1 + hash64(seed, modality, "other", index) % np.uint64(num_classes - 1)).astype(int) % num_classes
    return np.where(uniform(seed, modality, "agrees", index) < agreement, labels, other)


def plant_patches(images: np.ndarray, cues: np.ndarray, corner: float = 0.25) -> np.ndarray:
    """Paints a square in the upper left corner in the colour of the cue's class.

    Args:
      images: (n, S, S, 3) uint8; not changed.
      cues: (n,) class ids.
      corner: side of the square as a share of the image's side.

    Returns:
      uint8 of the same shape.
    """
    side = max(1, int(corner * images.shape[1]))
    planted = images.copy()
    planted[:, :side, :side] = CUE_COLOURS[cues][:, None, None, :]
    return planted


def plant_words(texts: list[str], cues: np.ndarray) -> list[str]:
    """Puts the word of the cue's class before each text."""
    return [f"{CUE_WORDS[cue]} {text}" for cue, text in zip(cues, texts, strict=True)]


def load_emoji_shift(
    split: str,
    *,
    path: str | os.PathLike[str] | None = None,
    image_size: int = 32,
    agreement: float = 0.9,
    seed: int = 0,
    corner: float = 0.25,
    modalities: tuple[str, ...] = ("image", "text"),
) -> EmojiSource:
    """Loads the emoji set with a planted cue in each of some modalities: a coloured corner, a word before the name.

    In "train", "validation" and "test" each cue agrees with the label with probability ``agreement``. In "shift" (the
    test examples again) each cue independently indicates a random other class; "clean" is the test split without cues.

    Args:
      split: "train", "validation", "test", "shift" or "clean".
      path: another emoji.zip; the embedded one if not given.
      image_size: height and width.
      agreement: probability that a cue agrees with the label, except in "shift".
      seed: seed of the cues; what an example's cue in one modality is does not depend on the other arguments.
      corner: side of the coloured square as a share of the image's side.
      modalities: the modalities that have a cue: "image", "text" or both.

    Returns:
      The source.

    Raises:
      ValueError: the split does not exist, there are more classes than cues, or a modality is unknown.
      DataError: the file is missing or damaged.

    Examples:
      >>> load_emoji_shift("train", image_size=16).texts[0].split()[0] in CUE_WORDS
      True
    """
    if split not in SHIFT_SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {SHIFT_SPLITS}: name a split of emoji_shift.")
    if not modalities or not set(modalities) <= set(MODALITIES):
        raise ValueError(f"modalities are {modalities}, expected some of {MODALITIES}: name those that have a cue.")
    source = load_emoji("test" if split in ("shift", "clean") else split, path=path, image_size=image_size)
    classes = source.info.num_classes
    if classes > len(CUE_WORDS):
        raise ValueError(f"the data set has {classes} classes, but there are cues for {len(CUE_WORDS)} at most.")
    if split == "clean":
        return source
    cues = {
        modality: cue_classes(
            source.labels,
            modality,
            num_classes=classes,
            agreement=0.0 if split == "shift" else agreement,
            seed=seed,
            index=source.index,
        )
        for modality in modalities
    }
    columns = dict(source.columns)
    if "image" in cues:
        columns["image"] = plant_patches(source.images, cues["image"], corner)
    if "text" in cues:
        columns["text"] = plant_words(source.texts, cues["text"])
    return EmojiSource(columns, source.labels, info=source.info, index=source.index)
