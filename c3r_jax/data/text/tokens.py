"""What every tokeniser shares: special ids, the protocol, and cutting and padding of ids. Needs only NumPy."""

from typing import NamedTuple, Protocol

import numpy as np

from c3r_jax.errors import DataError

PAD_ID = 0
MASK_ID = 1
PAD_TOKEN = "[PAD]"
MASK_MARKER = "[MASK]"  # stands for a hidden word in a text


class HuggingFaceFile(NamedTuple):
    """A tokeniser for programs without this package.

    Attributes:
      content: of a Hugging Face ``tokenizer.json``.
      rules: "mask", the token that stands for ``[MASK]`` in a text; "padding", the file's id of padding, which changes
        places with 0; "unknown", the id in place of padding that a text has written.
    """

    content: str
    rules: dict[str, str | int]


class Tokenizer(Protocol):
    """Turns a text into a fixed number of ids; ``tokenizer_from_json`` inverts ``to_json``."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, including padding and mask."""
        ...

    @property
    def mask_id(self) -> int:
        """The id of a hidden word."""
        ...

    @property
    def padding_row(self) -> int:
        """The row of padding in published word embeddings; here it and row 0 change places."""
        return PAD_ID

    def encode(self, text: str, length: int) -> np.ndarray:
        """Returns the ids of a text, cut or padded with 0 at the end. Shape ``(length,)``, int32."""
        return self.encode_words(text, length)[0]

    def encode_words(self, text: str, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids and, for each, the number of its word (split at spaces), -1 for padding.

        Raises:
          DataError: the text has half of a surrogate pair.
        """
        ...

    def to_json(self) -> str:
        """Returns a description from which ``tokenizer_from_json`` rebuilds the tokeniser."""
        ...

    def to_hugging_face(self) -> HuggingFaceFile | None:
        """Returns the tokeniser as :class:`HuggingFaceFile`; None for bytes, which need no file."""
        return None


def check_text(text: str) -> None:
    """Refuses a text with half of a surrogate pair, which is no character and has no bytes.

    Raises:
      DataError: naming its place.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"The text {text[:40]!r} has {text[error.start]!r} at place {error.start}, half of a surrogate pair, "
            "expected whole characters: decode it again, or replace the half by text.encode(errors='replace').decode()."
        ) from error


def fit_ids(ids: list[int], words: list[int], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts ids and word numbers to a length, or pads them with 0 and -1. Each ``(length,)``, int32."""
    padded = np.full(length, PAD_ID, np.int32)
    numbers = np.full(length, -1, np.int32)
    n = min(len(ids), length)
    padded[:n] = ids[:n]
    numbers[:n] = words[:n]
    return padded, numbers


def word_numbers(text: str, offsets: list[tuple[int, int]]) -> list[int]:
    """Returns, for each piece of a text (given by its offsets), the number of the word it ends in, split at spaces.

    Examples:
      >>> word_numbers("red apple", [(0, 3), (4, 6), (6, 9)])
      [0, 1, 1]
    """
    starts = [not letter.isspace() and (i == 0 or text[i - 1].isspace()) for i, letter in enumerate(text)]
    number = np.cumsum(starts) - 1
    return [int(number[max(begin, end - 1)]) if end else -1 for begin, end in offsets]
