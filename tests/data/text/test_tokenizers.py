import json
import random
import subprocess
import sys

import numpy as np
import pytest

from c3r_jax.data.batches.pipeline import TEXT_LENGTH
from c3r_jax.data.text.tokenizer_files import bert_tokenizer, tokenizer_from_json
from c3r_jax.data.text.tokenizers import ByteTokenizer, WordPieceTokenizer, train_word_piece
from c3r_jax.data.text.word_piece import word_piece_vocabulary
from c3r_jax.errors import DataError

TEXTS = ["red apple", "green apple", "flag of Türkiye", "piñata", "man’s shoe", "apple pie"]


def test_vocabulary_by_hand():
    # aab, aab, ab: a+##b is seen once, a+##a and ##a+##b twice; the tie goes to the pair that is spelled first.
    pieces = word_piece_vocabulary({"aab": 2, "ab": 1}, size=6)
    assert pieces == ["##a", "##b", "a", "##ab", "aab"]


def test_rare_pairs_are_not_joined():
    assert word_piece_vocabulary({"ab": 1}, size=9, min_count=2) == ["##b", "a"]
    assert word_piece_vocabulary({"ab": 1}, size=9, min_count=1) == ["##b", "a", "ab"]


def test_repeated_letters_count_right():
    assert word_piece_vocabulary({"aaaa": 3}, size=9)[:3] == ["##a", "a", "##aa"]


def test_known_words_unknown_letters_and_padding():
    tokenizer = train_word_piece(TEXTS, vocab_size=100)
    ids = tokenizer.encode("Apple Ж", 5)
    assert ids.dtype == np.int32
    assert tokenizer.vocabulary[ids[0]] == "apple"
    np.testing.assert_array_equal(ids[1:], [1, 0, 0, 0])


def test_cut_to_length_and_empty():
    tokenizer = train_word_piece(TEXTS, vocab_size=100)
    np.testing.assert_array_equal(tokenizer.encode("apple " * 9, 3), [tokenizer.vocabulary.index("apple")] * 3)
    for text in ("", "   "):
        np.testing.assert_array_equal(tokenizer.encode(text, 3), [0, 0, 0])
        np.testing.assert_array_equal(ByteTokenizer().encode(text, 3), [0, 0, 0])


def test_marker_is_the_mask_id_and_a_written_pad_is_no_padding():
    tokenizer = train_word_piece([*TEXTS, "[ ] pad"], vocab_size=100)
    ids, words = tokenizer.encode_words("red [MASK] apple", 12)
    np.testing.assert_array_equal(ids == 1, words == 1)
    assert (tokenizer.encode("[PAD]", 3) != 0).all()


def test_word_numbers_follow_spaces():
    tokenizer = train_word_piece(TEXTS, vocab_size=30)
    ids, words = tokenizer.encode_words("  man’s  piñata", 20)
    n = int((ids != 0).sum())
    assert sorted(set(words[:n].tolist())) == [0, 1]
    assert (np.diff(words[:n]) >= 0).all()
    assert (words[n:] == -1).all()
    ids, words = ByteTokenizer().encode_words("ab  c", 6)
    np.testing.assert_array_equal(words, [0, 0, 1, 1, -1, -1])


def test_order_of_texts_does_not_matter():
    shuffled = TEXTS * 3
    random.Random(0).shuffle(shuffled)
    assert train_word_piece(shuffled, vocab_size=60).vocabulary == train_word_piece(TEXTS * 3, vocab_size=60).vocabulary


def test_same_vocabulary_in_another_process():
    """The trainer of the library we encode with fails this test: its hash map is randomly seeded."""
    code = "from c3r_jax.data.text.tokenizers import train_word_piece; "
    code += f"print(train_word_piece({TEXTS * 2!r}, vocab_size=60).to_json())"
    found = subprocess.run([sys.executable, "-X", "utf8", "-c", code], capture_output=True, check=True)
    assert found.stdout.decode().strip() == train_word_piece(TEXTS * 2, vocab_size=60).to_json()


def test_every_training_text_can_be_written(emoji_train, tokenizer):
    assert tokenizer.vocab_size == 500
    ids = np.stack([tokenizer.encode(text, 32) for text in emoji_train.texts])
    assert ids.max() < 500
    assert not (ids == 1).any()
    assert not ids[:, TEXT_LENGTH:].any()  # the default length cuts none


def test_pieces_spell_the_text_again(tokenizer):
    ids = tokenizer.encode("waving hand", 16)
    pieces = [tokenizer.vocabulary[i] for i in ids if i]
    assert " ".join(pieces).replace(" ##", "") == "waving hand"


def test_bytes_round_trip():
    tokenizer = ByteTokenizer()
    text = "piñata ’ 😀 end"
    assert tokenizer.decode(tokenizer.encode(text, 40)) == text
    assert tokenizer.decode(tokenizer.encode("a [MASK] b", 40)) == "a [MASK] b"
    assert tokenizer.encode("\xff", 4).max() < tokenizer.vocab_size


def test_json_round_trip(tokenizer):
    again = tokenizer_from_json(tokenizer.to_json())
    for text in ("waving hand", "[MASK] Türkiye", ""):
        np.testing.assert_array_equal(again.encode(text, 12), tokenizer.encode(text, 12))
    assert isinstance(tokenizer_from_json(ByteTokenizer().to_json()), ByteTokenizer)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kind": "word_piece"}', '{"kind": "bpe"}'])
def test_bad_json(text):
    with pytest.raises(DataError, match="tokeniser"):
        tokenizer_from_json(text)


def test_bad_vocabulary():
    with pytest.raises(DataError, match="begins with"):
        tokenizer_from_json(json.dumps({"kind": "word_piece", "vocabulary": ["a", "b"]}))
    with pytest.raises(DataError, match="twice"):
        WordPieceTokenizer(["[PAD]", "[MASK]", "a", "a"])


def test_no_texts_and_no_room():
    with pytest.raises(DataError, match="0 different characters"):
        train_word_piece([])
    with pytest.raises(DataError, match="expected 1 to 3"):
        train_word_piece(TEXTS, vocab_size=5)


@pytest.mark.parametrize("kind", ["bytes", "word pieces", "file"])
@pytest.mark.parametrize(("text", "place"), [("\ud800", 0), ("red \udc00 apple", 4)])
def test_half_of_a_surrogate_pair_is_refused_in_one_sentence(kind, text, place):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red"]
    tokenizers = {
        "bytes": ByteTokenizer(),
        "word pieces": train_word_piece(TEXTS, vocab_size=100),
        "file": bert_tokenizer(pieces),
    }
    with pytest.raises(DataError, match=rf"at place {place}, half of a surrogate pair, expected whole characters"):
        tokenizers[kind].encode(text, 8)
    assert tokenizers[kind].encode("\U0001f600", 8).any()
    with pytest.raises(DataError, match=rf"at place {place}, half of a surrogate pair"):
        train_word_piece(["red apple", text], vocab_size=60)
