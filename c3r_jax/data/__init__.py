"""Sources, tokenisers, corruptions and Grain pipelines."""

from c3r_jax.data.augment import AugmentConfig
from c3r_jax.data.corruptions import (
    PROTOCOLS,
    Condition,
    Protocol,
    Strength,
    apply_condition,
    gaussian_noise,
    mask_words,
    noise_conditions,
    salt_and_pepper,
    standard_conditions,
)
from c3r_jax.data.emoji import EmojiSource, load_emoji
from c3r_jax.data.pipeline import EvalBatches, TrainIterator, eval_batches, train_batches
from c3r_jax.data.source import ArraySource, DatasetInfo, Source
from c3r_jax.data.text import (
    MASK_ID,
    MASK_MARKER,
    PAD_ID,
    ByteTokenizer,
    Tokenizer,
    WordPieceTokenizer,
    tokenizer_from_json,
    train_word_piece,
)

__all__ = [
    "MASK_ID",
    "MASK_MARKER",
    "PAD_ID",
    "PROTOCOLS",
    "ArraySource",
    "AugmentConfig",
    "ByteTokenizer",
    "Condition",
    "DatasetInfo",
    "EmojiSource",
    "EvalBatches",
    "Protocol",
    "Source",
    "Strength",
    "Tokenizer",
    "TrainIterator",
    "WordPieceTokenizer",
    "apply_condition",
    "eval_batches",
    "gaussian_noise",
    "load_emoji",
    "mask_words",
    "noise_conditions",
    "salt_and_pepper",
    "standard_conditions",
    "tokenizer_from_json",
    "train_batches",
    "train_word_piece",
]
