"""The tokenisers of this package: texts to int32 ids, 0 for padding, 1 for masked or unknown words."""

import json
from collections.abc import Iterable

import numpy as np
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import models, normalizers, pre_tokenizers

from c3r_jax.data.text.tokens import (
    MASK_ID,
    MASK_MARKER,
    PAD_ID,
    PAD_TOKEN,
    HuggingFaceFile,
    Tokenizer,
    check_text,
    fit_ids,
    word_numbers,
)
from c3r_jax.data.text.word_piece import word_piece_vocabulary
from c3r_jax.errors import DataError


class WordPieceTokenizer(Tokenizer):
    """Greedy longest-match word pieces of lower-cased text, by Hugging Face ``tokenizers``.

    Args:
      vocabulary: the pieces in the order of their ids, "[PAD]" and "[MASK]" first.

    Raises:
      DataError: the vocabulary does not begin with these two, or has a piece twice.
    """

    def __init__(self, vocabulary: Iterable[str]):
        self.vocabulary = tuple(vocabulary)
        if self.vocabulary[:2] != (PAD_TOKEN, MASK_MARKER) or len(set(self.vocabulary)) != len(self.vocabulary):
            raise DataError(
                f"The vocabulary begins with {self.vocabulary[:2]}, expected {(PAD_TOKEN, MASK_MARKER)} and no piece "
                "twice: train it with train_word_piece or restore the saved one."
            )
        vocab = {piece: number for number, piece in enumerate(self.vocabulary)}
        self._tokenizer = HuggingFaceTokenizer(models.WordPiece(vocab, unk_token=MASK_MARKER))
        self._tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)  # type: ignore[assignment]
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
        # Only the marker is special: a "[PAD]" written in a text must not become padding.
        self._tokenizer.add_special_tokens([MASK_MARKER])

    @property
    def vocab_size(self) -> int:
        """Number of ids, including padding and mask."""
        return len(self.vocabulary)

    @property
    def mask_id(self) -> int:
        """The id of a hidden word."""
        return MASK_ID

    def encode_words(self, text: str, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids and, for each, the number of its word (split at spaces), -1 for padding."""
        check_text(text)
        encoding = self._tokenizer.encode(text)
        return fit_ids(encoding.ids, word_numbers(text, encoding.offsets), length)

    def to_json(self) -> str:
        """Returns a description from which ``tokenizer_from_json`` rebuilds the tokeniser."""
        return json.dumps({"kind": "word_piece", "vocabulary": self.vocabulary}, ensure_ascii=False)

    def to_hugging_face(self) -> HuggingFaceFile:
        """See :meth:`Tokenizer.to_hugging_face`; ``load_tokenizer`` gives the same tokeniser back."""
        rules: dict[str, str | int] = {"mask": MASK_MARKER, "padding": PAD_ID, "unknown": MASK_ID}
        return HuggingFaceFile(self._tokenizer.to_str(pretty=True) + "\n", rules)


def stand_in_word_piece(vocab_size: int) -> WordPieceTokenizer:
    """A tokeniser with a number of pieces that no text has, for a run on paper without training texts.

    Examples:
      >>> stand_in_word_piece(100).vocab_size
      100
    """
    return WordPieceTokenizer((PAD_TOKEN, MASK_MARKER, *(f"piece{number}" for number in range(vocab_size - 2))))


class ByteTokenizer(Tokenizer):
    """The UTF-8 bytes of a text, each plus 2; needs no training.

    Examples:
      >>> ByteTokenizer().encode("a[MASK]", 4).tolist()
      [99, 1, 0, 0]
    """

    @property
    def vocab_size(self) -> int:
        """Number of ids, including padding and mask."""
        return 258

    @property
    def mask_id(self) -> int:
        """The id of a hidden word."""
        return MASK_ID

    def encode_words(self, text: str, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids and, for each, the number of its word (split at spaces), -1 for padding."""
        check_text(text)
        ids: list[int] = []
        words: list[int] = []
        for number, word in enumerate(text.split()):
            space = " " if number else ""
            pieces = (space + word).split(MASK_MARKER)
            for position, piece in enumerate(pieces):
                ids += ([MASK_ID] if position else []) + [byte + 2 for byte in piece.encode()]
            words += [number] * (len(ids) - len(words))
        return fit_ids(ids, words, length)

    def decode(self, ids: np.ndarray) -> str:
        """Returns the text of some ids, with the marker for masked bytes and nothing for padding."""
        marker = MASK_MARKER.encode()
        parts = [marker if i == MASK_ID else bytes([int(i) - 2]) for i in ids if i != PAD_ID]
        return b"".join(parts).decode(errors="replace")

    def to_json(self) -> str:
        """Returns a description from which ``tokenizer_from_json`` rebuilds the tokeniser."""
        return json.dumps({"kind": "byte"})


def train_word_piece(texts: Iterable[str], *, vocab_size: int = 2000, min_count: int = 2) -> WordPieceTokenizer:
    """Learns word pieces from the training texts; the same texts give the same tokeniser, in any order.

    Args:
      texts: the texts of the training split only.
      vocab_size: largest number of ids, including padding and mask.
      min_count: less frequent pairs are not joined.

    Returns:
      The tokeniser; words that its pieces cannot spell become the mask id.

    Raises:
      DataError: there is no text, one has half of a surrogate pair, or vocab_size has no room for the letters.

    Examples:
      >>> tokenizer = train_word_piece(["red apple", "green apple"], vocab_size=60)
      >>> tokenizer.encode("apple", 3)[1:].tolist()
      [0, 0]
    """
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    counts: dict[str, int] = {}
    for text in texts:
        check_text(text)
        for part in text.split(MASK_MARKER):
            for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(part)):
                counts[word] = counts.get(word, 0) + 1
    pieces = word_piece_vocabulary(counts, size=vocab_size - 2, min_count=min_count)
    return WordPieceTokenizer([PAD_TOKEN, MASK_MARKER, *pieces])
