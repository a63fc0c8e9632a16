"""Sources, tokenisers, corruptions and Grain pipelines."""

from c3r_jax.data.altered import AlteredSource, Misaligned, Missing
from c3r_jax.data.augment import AugmentConfig
from c3r_jax.data.corruptions import Noise, Strength, gaussian_noise, mask_words, salt_and_pepper
from c3r_jax.data.crops import Crops
from c3r_jax.data.emoji import EmojiSource, load_emoji
from c3r_jax.data.pipeline import EvalBatches, TrainIterator, eval_batches, train_batches
from c3r_jax.data.protocols import (
    PROTOCOL_NAMES,
    PROTOCOLS,
    Condition,
    Protocol,
    apply_condition,
    noise_condition,
    protocol_conditions,
    standard_conditions,
)
from c3r_jax.data.source import ArraySource, DatasetInfo, Source
from c3r_jax.data.statistics import feature_scales
from c3r_jax.data.text import (
    MASK_ID,
    MASK_MARKER,
    PAD_ID,
    ByteTokenizer,
    Tokenizer,
    WordPieceTokenizer,
    train_word_piece,
)
from c3r_jax.data.token_files import FileTokenizer, load_tokenizer, tokenizer_from_json

__all__ = [
    "MASK_ID",
    "MASK_MARKER",
    "PAD_ID",
    "PROTOCOLS",
    "PROTOCOL_NAMES",
    "AlteredSource",
    "ArraySource",
    "AugmentConfig",
    "ByteTokenizer",
    "Condition",
    "Crops",
    "DatasetInfo",
    "EmojiSource",
    "EvalBatches",
    "FileTokenizer",
    "Misaligned",
    "Missing",
    "Noise",
    "Protocol",
    "Source",
    "Strength",
    "Tokenizer",
    "TrainIterator",
    "WordPieceTokenizer",
    "apply_condition",
    "eval_batches",
    "feature_scales",
    "gaussian_noise",
    "load_emoji",
    "load_tokenizer",
    "mask_words",
    "noise_condition",
    "protocol_conditions",
    "salt_and_pepper",
    "standard_conditions",
    "tokenizer_from_json",
    "train_batches",
    "train_word_piece",
]
