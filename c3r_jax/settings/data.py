"""A run's data and the augmentation of training examples: ``config.data``."""

from dataclasses import dataclass

from c3r_jax.errors import ConfigError
from c3r_jax.settings.fields import Part, part, setting


@dataclass(frozen=True)
class AugmentSettings(Part, place="data.augment"):
    """Augmentation of training examples."""

    shift: int = setting(2, "Largest shift of images in pixels, in each direction.", least=0)
    flip: bool = setting(True, "Images are mirrored with probability 1/2.")
    brightness: float = setting(0.0, "Images become lighter or darker by up to this share of 255.", least=0, most=1)
    contrast: float = setting(0.0, "Differences from mid-grey change by up to this share.", least=0, most=1)
    colour: float = setting(0.0, "Each channel of a colour changes by up to this share.", least=0, most=1)
    word_drop: float = setting(0.1, "Probability that a word is masked.", least=0, most=1)
    feature_noise: float = setting(
        0.0, "Standard deviation of the noise on features, sequences and volumes, as the model sees them.", least=0
    )


@dataclass(frozen=True)
class CueSettings(Part, place="data.cues"):
    """Planted cues of emoji_shift."""

    modalities: tuple[str, ...] = setting(("image", "text"), "Modalities with a cue: image, text or both.")
    corner: float = setting(0.25, "Side of the coloured corner as a share of the picture's side.", above=0, most=1)
    agreement: float = setting(
        0.9, "Probability that a cue agrees with the label, in every split but shift.", least=0, most=1
    )
    seed: int = setting(0, "Seed of the cues.", least=0)


@dataclass(frozen=True)
class DataSettings(Part, place="data"):
    """The data set, the preparation of its examples, and missing or noisy modalities in training."""

    name: str = setting(
        "emoji",
        "Data set; docs/data.md describes the benchmarks, emoji_shift has planted cues, emoji_styles other makers.",
    )
    path: str = setting(
        "", 'Directory of "records" or of the prepared benchmark; or another file like the embedded one.'
    )
    environments: str = setting(
        "", "Column of the data set that says which environment an example is from; empty: its first, if it has any."
    )
    image_size: int = setting(32, "Side in pixels of images and frames, as the model sees them.", least=1)
    resize: int = setting(0, "Side to which images are scaled before a crop, random in training; 0: no crop.", least=0)
    volume_size: tuple[int, ...] = setting(
        (), "Voxels (depth, height, width) of the crop of volumes in training; empty: no crop."
    )
    tokenizer: str = setting(
        "bytes",
        "bytes, word_piece (trained on the training texts), a tokenizer.json or vocab.txt, or a folder or wheel with "
        "one.",
    )
    vocab_size: int = setting(1000, "Vocabulary size of word_piece.", least=1)
    text_length: int = setting(40, "Tokens per text; longer texts are truncated.", least=1)
    standardise: bool = setting(
        True, "Scale features and sequences by the training split's means and standard deviations."
    )
    keep: bool = setting(False, "Keep decoded examples in memory: for prepared sets and records that fit.")
    num_workers: int = setting(0, "Processes that prepare batches; the order does not depend on it.", least=0)
    train_missing: tuple[str, ...] = setting(
        (), '"modality=share" or "modality@class=share" of training examples that lack it.'
    )
    train_misaligned: tuple[str, ...] = setting((), '"modality=share" with another example\'s.')
    train_noise: str = setting(
        "",
        '"family:level" of c3r_jax.data.conditions.protocols.PROTOCOLS, drawn again in each epoch; empty: no noise.',
    )
    augment: AugmentSettings = part(AugmentSettings)
    cues: CueSettings = part(CueSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.volume_size) not in (0, 3) or min(self.volume_size, default=1) < 1:
            raise ConfigError(
                f"config.data.volume_size is {self.volume_size}: expected three sides of at least 1 voxel, such as "
                "(32, 64, 64), or () for no crop."
            )
