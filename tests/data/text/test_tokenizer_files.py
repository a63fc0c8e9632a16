"""Tokenisers from files: BERT's ids by hand, special tokens, hidden words, cutting, and files that are refused."""

import json
import pickle
import zipfile

import numpy as np
import pytest

from c3r_jax.data.array_source import ArraySource
from c3r_jax.data.batches.augment import AugmentConfig
from c3r_jax.data.batches.one_pass import eval_batches
from c3r_jax.data.batches.pipeline import train_batches
from c3r_jax.data.conditions.corruptions import mask_words
from c3r_jax.data.source import DatasetInfo
from c3r_jax.data.text.tokenizer_files import bert_tokenizer, load_tokenizer, tokenizer_from_json
from c3r_jax.data.text.tokenizers import ByteTokenizer, train_word_piece
from c3r_jax.errors import DataError

SPECIAL = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [
    "un",
    "##aff",
    "##able",
    "want",
    "##ed",
    "runn",
    "##ing",
    ",",
    "low",
    "##est",
    "cafe",
    "中",
    "文",
    "'",
    "s",
    "!",
]
VOCABULARY = SPECIAL + PIECES
CASES = {  # text: pieces, as BERT's basic tokenisation and greedy longest match give them
    "UNwanted, running": ["[UNK]", ",", "runn", "##ing"],
    "unaffable wanted!": ["un", "##aff", "##able", "want", "##ed", "!"],
    "Café lowest\tlow": ["cafe", "low", "##est", "low"],
    "中文low": ["中", "文", "low"],
    "cafe's wantedX": ["cafe", "'", "s", "[UNK]"],
    "": [],
    "want [MASK] low": ["want", "[MASK]", "low"],
}


@pytest.fixture
def tokenizer(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return load_tokenizer(path)


@pytest.mark.parametrize("text", CASES)
def test_ids_are_berts(tokenizer, text):
    pieces = ["[CLS]", *CASES[text], "[SEP]"]
    expected = [VOCABULARY.index(piece) for piece in pieces]
    ids = tokenizer.encode(text, 12)
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, expected + [0] * (12 - len(expected)))
    again = tokenizer_from_json(tokenizer.to_json())
    np.testing.assert_array_equal(again.encode(text, 12), ids)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tokenizer)).encode(text, 12), ids)


def test_cut_texts_keep_their_end_and_words_their_numbers(tokenizer):
    ids, words = tokenizer.encode_words("unaffable  wanted low", 6)
    assert [VOCABULARY[i] for i in ids] == ["[CLS]", "un", "##aff", "##able", "want", "[SEP]"]
    assert words.tolist() == [-1, 0, 0, 0, 1, -1]
    assert (tokenizer.encode("want", 2) > 0).all() and tokenizer.encode("want", 1).shape == (1,)


def test_padding_that_is_written_is_no_padding(tokenizer):
    assert VOCABULARY[tokenizer.encode("[PAD] low", 6)[2]] != "[PAD]"
    assert (tokenizer.encode("low [PAD] low", 9) != 0).sum() >= 5


def test_capitals_in_the_vocabulary_keep_the_case():
    cased = bert_tokenizer([*VOCABULARY, "Want"])
    assert cased.encode("Want want", 5).tolist() == [3, len(VOCABULARY), VOCABULARY.index("want"), 4, 0]


def other_file(tmp_path, **changes):
    """A tokenizer.json whose padding is 1 and whose mask is called <mask>, in the way of other models."""
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "red": 4, "apple": 5, "<mask>": 6}
    state = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
        **changes,
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(state))
    return path


def test_other_paddings_and_masks(tmp_path):
    tokenizer = load_tokenizer(other_file(tmp_path))
    ids, words = tokenizer.encode_words("red [MASK] apple pear", 6)
    assert ids.tolist() == [4, 6, 5, 3, 0, 0] and words.tolist() == [0, 1, 2, 3, -1, -1]
    assert (tokenizer.vocab_size, tokenizer.mask_id) == (7, 6)
    assert tokenizer.encode("<s>", 1).tolist() == [1]  # what had the id 0 has that of padding
    assert tokenizer_from_json(tokenizer.to_json()).padding_row == 1


def test_without_a_mask_the_unknown_token_hides(tmp_path):
    model = {"type": "WordLevel", "vocab": {"[PAD]": 0, "[UNK]": 1, "red": 2}, "unk_token": "[UNK]"}
    tokenizer = load_tokenizer(other_file(tmp_path, model=model))
    assert tokenizer.encode("red [MASK]", 3).tolist() == [2, 1, 0]
    assert (tokenizer.mask_id, tokenizer.padding_row) == (1, 0)


def test_hidden_words_in_training_and_in_noise(tokenizer):
    texts = ["unaffable wanted low"] * 50
    sound = np.ones((50, 2), np.float32)
    info = DatasetInfo("demo", ("sound", "text"), ("a",))
    source = ArraySource({"sound": sound, "text": texts}, np.zeros(50, int), info=info)
    how = {"batch_size": 50, "text_length": 10}
    plain = next(iter(eval_batches(source, tokenizer, **how)))["inputs"]["text"]
    dropped = next(train_batches(source, tokenizer, seed=0, augment=AugmentConfig(word_drop=0.5), **how))
    ids, mask = dropped["inputs"]["text"], VOCABULARY.index("[MASK]")
    assert set(np.unique(ids[ids != plain])) == {mask}
    gone = ids == mask
    assert 0.3 < gone[:, 1].mean() < 0.7 and (gone[:, 1] == gone[:, 3]).all()  # whole words
    assert not gone[:, [0, 7]].any()  # never [CLS] or [SEP]
    noisy = tokenizer.encode(mask_words(texts[0], 1, np.random.default_rng(0)), 10)
    assert [VOCABULARY[i] for i in noisy[:5]] == ["[CLS]", "[MASK]", "[MASK]", "[MASK]", "[SEP]"]


def test_the_tokeniser_of_an_earlier_run(tokenizer, tmp_path):
    for saved in (tokenizer, train_word_piece(["red apple", "green apple"], vocab_size=60), ByteTokenizer()):
        (tmp_path / "tokenizer.json").write_text(saved.to_json(), encoding="utf-8")
        found = load_tokenizer(tmp_path / "tokenizer.json")
        np.testing.assert_array_equal(found.encode("low apple", 9), saved.encode("low apple", 9))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n", "no '\\[SEP\\]'"),
        ("vocab.txt", "\n".join([*VOCABULARY, "low"]), "an empty line or a piece twice"),
        ("vocab.txt", "\n\n".join(VOCABULARY), "an empty line or a piece twice"),
        ("vocab.txt", "", "no '\\[PAD\\]'"),
        ("vocab.txt", b"\xff\xfe", "cannot be read"),
        ("tokenizer.json", "{", "cannot be read"),
        ("tokenizer.json", '{"kind": "bytes"}', "has kind 'bytes'"),
        ("tokenizer.json", "[]", "cannot be read"),
        ("missing.json", None, "cannot be read"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as error:
        load_tokenizer(path)
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["<pad>", "<unk>"])
def test_files_without_what_is_needed(tmp_path, name):
    path = other_file(tmp_path)
    path.write_text(path.read_text().replace(name, "other"))
    with pytest.raises(DataError, match="has no token for|cannot be read"):
        load_tokenizer(path)


@pytest.mark.parametrize(("name", "start"), [("vocab.txt", "\ufeff"), ("tokenizer.json", "\ufeff"), ("vocab.txt", "")])
def test_a_mark_at_the_start_of_a_file(tmp_path, tokenizer, name, start):
    text = "\n".join(VOCABULARY) + "\n" if name == "vocab.txt" else json.loads(tokenizer.to_json())["tokenizer"]
    (tmp_path / "marked").mkdir()
    path = tmp_path / "marked" / name
    path.write_text(start + text, encoding="utf-8")
    found = load_tokenizer(path)
    assert found.encode("wanted low", 8).tolist() == tokenizer.encode("wanted low", 8).tolist()


@pytest.mark.parametrize("piece", ["X", "##A", "Ünder", "LATEX"])
def test_one_capital_piece_does_not_make_a_vocabulary_one_with_case(piece):
    found = bert_tokenizer([*VOCABULARY, piece])
    assert found.encode("WANTED Low", 8).tolist() == bert_tokenizer(VOCABULARY).encode("wanted low", 8).tolist()


@pytest.mark.parametrize(("stated", "kept"), [("true", False), ("false", True), ("null", False)])
def test_the_configuration_beside_a_vocabulary_says_whether_case_counts(tmp_path, stated, kept):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(f'{{"do_lower_case": {stated}}}')
    unknown = VOCABULARY.index("[UNK]")
    assert (load_tokenizer(tmp_path / "vocab.txt").encode("LOW", 4)[1] == unknown) == kept


@pytest.mark.parametrize(
    ("stated", "text", "pieces"),
    [
        ('{"do_lower_case": true}', "CAFÉ 中文", ["cafe", "中", "文"]),
        ('{"do_lower_case": true, "strip_accents": false}', "CAFÉ", ["café"]),
        ('{"do_lower_case": false, "strip_accents": true}', "Café café", ["[UNK]", "cafe"]),
        ('{"strip_accents": null, "tokenize_chinese_chars": null}', "CAFÉ 中文", ["cafe", "中", "文"]),
        ('{"tokenize_chinese_chars": false}', "中文", ["中文"]),
    ],
)
def test_the_configuration_beside_a_vocabulary_says_what_becomes_of_letters(tmp_path, stated, text, pieces):
    vocabulary = [*VOCABULARY, "café", "中文"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(stated)
    found = load_tokenizer(tmp_path / "vocab.txt").encode(text, len(pieces) + 2)
    assert [vocabulary[i] for i in found[1:-1]] == pieces


def in_a_folder(files, path):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def in_a_wheel(files, path):
    with zipfile.ZipFile(path / "some-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return path / "some-1.0-py3-none-any.whl"


@pytest.mark.parametrize("within", [in_a_folder, in_a_wheel])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_vocabulary_in_a_folder_or_wheel(tmp_path, within, mark):
    files = {
        "some/vocab.txt": (mark + "\n".join([*VOCABULARY, "café"])).encode(),
        "some/tokenizer_config.json": b'{"strip_accents": false}',
        "tokenizer_config.json": b"{}",
    }
    assert load_tokenizer(within(files, tmp_path)).encode("Café low", 4)[1] == len(VOCABULARY)


@pytest.mark.parametrize("within", [in_a_folder, in_a_wheel])
@pytest.mark.parametrize("kind", ["published", "saved", "word pieces"])
def test_a_tokeniser_in_a_folder_or_wheel(tmp_path, tokenizer, within, kind):
    saved = train_word_piece(["low want"], vocab_size=20) if kind == "word pieces" else tokenizer
    text = json.loads(saved.to_json())["tokenizer"] if kind == "published" else saved.to_json()
    (tmp_path / "a").mkdir()
    files = {"a/tokenizer.json": f"\ufeff{text}".encode(), "a/b/tokenizer.json": b"", "a/vocab.txt": b""}
    found = load_tokenizer(within(files, tmp_path / "a"))
    np.testing.assert_array_equal(found.encode("low [MASK] want", 8), saved.encode("low [MASK] want", 8))


@pytest.mark.parametrize("within", [in_a_folder, in_a_wheel])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"README.md": b""}, "has no file that ends in tokenizer.json, vocab.txt"),
        (
            {"a/tokenizer.json": b"version https://git-lfs.github.com/spec/v1\n"},
            "a/tokenizer.json: this is a pointer of Git",
        ),
        ({"vocab.txt": b"\xff\xfe"}, "vocab.txt: it cannot be read"),
    ],
)
def test_folders_and_wheels_without_a_tokeniser(tmp_path, within, files, message):
    with pytest.raises(DataError, match=message):
        load_tokenizer(within(files, tmp_path))


def test_a_pointer_of_git_lfs_is_no_vocabulary(tmp_path):
    for name in ("vocab.txt", "tokenizer.json"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n")
        with pytest.raises(DataError, match="this is a pointer of Git LFS"):
            load_tokenizer(tmp_path / name)
