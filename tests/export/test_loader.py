"""What an exported model takes for one example: missing values as in training, and columns by name."""

import json
import sys
import types

import numpy as np
import pytest
import tokenizers

from c3r_jax.data.array_source import ArraySource
from c3r_jax.data.source import DatasetInfo
from c3r_jax.data.text.tokenizer_files import FileTokenizer, bert_tokenizer, load_tokenizer
from c3r_jax.data.text.tokenizers import ByteTokenizer, WordPieceTokenizer, train_word_piece
from c3r_jax.export.loader import Model
from c3r_jax.export.run import input_specs

SPEC = {"dtype": "float32", "limit": 0, "tokens": "", "columns": []}


class NAType:
    """As pandas' NA: neither equal to itself, nor not, nor true or false."""

    def __ne__(self, other):
        return self

    __eq__ = __ne__

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


NA = NAType()


@pytest.fixture
def model():
    made = Model.__new__(Model)  # without files
    made.inputs = {
        "colour": {**SPEC, "kind": "features", "shape": [2], "columns": ["red", "green"]},
        "image": {**SPEC, "kind": "image", "shape": [2, 2, 3], "dtype": "uint8", "limit": 256},
        "text": {**SPEC, "kind": "text", "shape": [4], "dtype": "int32", "limit": 258, "tokens": "bytes"},
    }
    return made


@pytest.mark.parametrize("nothing", ["", "   ", "\n\t", None, float("nan"), np.float64("nan"), np.float32("nan"), NA])
def test_missing_values_are_missing_modalities(model, nothing):
    pixels = np.zeros((2, 2, 3), np.uint8)
    assert list(model.row({"image": pixels, "text": nothing})) == ["image"]
    with pytest.raises(ValueError, match="All modalities of the example are missing: expected one of colour, image"):
        model.row({"text": nothing, "image": None})
    assert list(model.row({"text": "a", "image": None, "colour": None})) == ["text"]


@pytest.mark.parametrize("value", [{"green": 2, "red": 1}, {"red": 1.0, "green": 2.0}, [1, 2], np.array([1, 2])])
def test_columns_by_name_or_in_their_order(model, value):
    np.testing.assert_array_equal(model.row({"colour": value})["colour"], np.float32([1, 2]))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"red": 1}, r"'colour' has \['red'\], but the columns \['red', 'green'\] were expected"),
        ({"red": 1, "green": 2, "blue": 3}, "the columns"),
        ({"red": 1, "green": None}, "some of its values are null: fill them in, or leave 'colour' out"),
        ([None, 1.0], "some of its values are null"),
        ([1.0, float("nan")], "some values are not finite"),
        ([1.0, 1e39], "'colour' must be float32 .* but some values are not finite in float32"),
        ({"red": 1, "green": NA}, "some of its values are null"),
    ],
)
def test_values_that_are_missing_in_part(model, value, message):
    with pytest.raises(ValueError, match=message):
        model.row({"colour": value})


@pytest.mark.parametrize("nothing", [float("nan"), NA])
def test_a_row_of_missing_columns_is_a_missing_modality(model, nothing):
    assert list(model.row({"colour": {"red": None, "green": nothing}, "text": "a"})) == ["text"]
    with pytest.raises(ValueError, match="Modality 'speech' is unknown"):
        model.row({"speech": None, "text": "a"})


@pytest.mark.parametrize("padding", [[0] * 4, np.zeros(4, np.int32), np.zeros(4)])
def test_ids_that_are_all_padding_are_a_missing_text(model, padding):
    assert list(model.row({"colour": [1, 2], "text": padding})) == ["colour"]
    with pytest.raises(ValueError, match="All modalities of the example are missing"):
        model.row({"text": padding})
    for wrong in ([0, 0], [[0, 0], [0]], []):
        with pytest.raises(ValueError, match="'text' must be int32 of shape"):
            model.row({"text": wrong})
    assert list(model.row({"colour": [0, 0], "text": [0, 0, 0, 3]})) == ["colour", "text"]


def test_examples_may_be_an_iterator(model):
    model.call = lambda inputs, present: {"z": inputs["colour"]}
    assert model.predict({"colour": [i, 2]} for i in range(2))["z"].tolist() == [[0, 2], [1, 2]]
    for wrong, message in ((None, "examples is of type NoneType: give a list of dicts"), ({"text": "a"}, "An example")):
        with pytest.raises(ValueError, match=message):
            model.predict(wrong)


def test_no_examples_are_one_sentence(model):
    with pytest.raises(ValueError, match="There are no examples: give at least one."):
        model.predict([])


def test_logits_that_are_not_finite_are_refused(model):
    model.signature, model.labels = {"decision": "largest"}, ["a", "b"]
    model.call = lambda inputs, present: {
        "z": np.zeros((len(present), 2)),
        "x": np.where(inputs["colour"] > 1e38, np.nan, 1),
    }
    good, bad = {"colour": [1, 2]}, {"colour": [1, 3e38]}
    assert model.predict([good])["x"].tolist() == [[1, 1]]
    with pytest.raises(ValueError, match="The logits of example 1 are not finite: give values nearer to those of the"):
        model.predict([good, bad], padded=True)
    logits = model.predict([good, bad], checked=False)["x"]
    assert model.label(logits[0]) == "a"
    for found in (logits[1], logits[1].tolist()):
        with pytest.raises(ValueError, match="The logits are not finite"):
            model.label(found)


@pytest.mark.parametrize("columns", [{}, {"colour": ("red", "green")}, {"colour": ("green", "red")}])
def test_the_signature_names_the_columns(columns):
    info = DatasetInfo("demo", ("colour",), ("a", "b"), columns=columns)
    values = np.ones((2, 2), np.float32)
    experiment = types.SimpleNamespace(
        sources={"train": ArraySource({"colour": values}, np.array([0, 1]), info=info)},
        example_batch=lambda: {"inputs": {"colour": values}},
        model=types.SimpleNamespace(modalities=("colour",)),
    )
    found = json.loads(json.dumps(input_specs(experiment)["colour"]._asdict()))
    assert found["columns"] == list(columns.get("colour", ())) and found["shape"] == [2]


@pytest.mark.parametrize(("first", "more"), [("[PAD]", ""), ("[CLS]", ", with 1 (its padding) and 0 exchanged")])
def test_the_signature_says_which_ids_a_text_has(first, more):
    pieces = [first, *sorted({"[CLS]", "[PAD]", "[SEP]", "[UNK]"} - {first}, key="[PAD][CLS][SEP][UNK]".index)]
    texts = ["a", "b"]
    experiment = types.SimpleNamespace(
        sources={"train": ArraySource({"text": texts}, np.zeros(2, int), info=DatasetInfo("demo", ("text",), ("a",)))},
        example_batch=lambda: {"inputs": {"text": np.ones((2, 4), np.int32)}},
        model=types.SimpleNamespace(modalities=("text",)),
        tokenizer=bert_tokenizer(pieces),
    )
    found = input_specs(experiment)["text"]
    assert found.tokens == f"give the ids of tokenizer.json, padded with 0{more}"
    assert found.tokenizer == {"mask": "[UNK]", "padding": pieces.index("[PAD]"), "unknown": pieces.index("[UNK]")}


def test_half_of_a_surrogate_pair_is_refused(model):
    with pytest.raises(ValueError, match=r"The text 'a\\ud800' has half of a surrogate pair"):
        model.row({"text": "a\ud800"})


BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "apple", "##s", "caf", "##e"]
WORDS = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "red": 4, "apple": 5, "<mask>": 6}


def file_of_words(vocabulary):
    """A published file whose padding is not 0, which pads and cuts by itself."""
    unknown, padding = ("<unk>", "<pad>") if "<unk>" in vocabulary else ("[UNK]", "[PAD]")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=unknown))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.enable_padding(pad_id=vocabulary[padding], pad_token=padding, length=3)
    made.enable_truncation(2)
    return FileTokenizer(made.to_str())


TOKENIZERS = {
    "word pieces": lambda: train_word_piece(["red apples", "green apples", "café"], vocab_size=40),
    "bert": lambda: bert_tokenizer(BERT),
    "bert with another padding": lambda: bert_tokenizer(["[CLS]", *(piece for piece in BERT if piece != "[CLS]")]),
    "words": lambda: file_of_words(WORDS),
    "words without a mask": lambda: file_of_words({"[PAD]": 0, "[UNK]": 1, "red": 2}),
}
TEXTS = [
    "red apple",
    "Red APPLES, café!",
    "red [MASK] apples",
    "[MASK]red",
    "[PAD] <pad> red <s>",
    "[CLS] red",
    "red " * 9,
    "\0",
]


@pytest.fixture
def of_words(model, tmp_path):
    """The model with another tokeniser, as its export has it."""

    def make(tokenizer, length):
        published = tokenizer.to_hugging_face()
        (tmp_path / "tokenizer.json").write_text(published.content, encoding="utf-8")
        made = Model.__new__(Model)
        made.folder, made.inputs = tmp_path, json.loads(json.dumps(model.inputs))
        made.inputs["text"] |= {
            "shape": [length],
            "limit": tokenizer.vocab_size,
            "tokens": "give the ids of tokenizer.json, padded with 0",
            "tokenizer": json.loads(json.dumps(published.rules)),
        }
        return made

    return make


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("length", [1, 2, 4, 9])
def test_texts_have_the_ids_of_training(of_words, tmp_path, name, length):
    """And so have those of the tokeniser that is read from the export's folder."""
    tokenizer = TOKENIZERS[name]()
    made = of_words(tokenizer, length)
    tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    again = load_tokenizer(tmp_path)
    assert type(again) is type(tokenizer) and again.to_json() == tokenizer.to_json()
    for text in TEXTS:
        expected = tokenizer.encode(text, length)
        np.testing.assert_array_equal(made.array("text", text), expected, err_msg=text)
        np.testing.assert_array_equal(again.encode(text, length), expected)
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        made.row({"text": "a\ud800"})


def test_texts_need_the_package_or_are_ids(of_words, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)  # importing it is an error
    made = of_words(bert_tokenizer(BERT), 4)
    wanted = "'text' is a text, but a str was given: give the ids of tokenizer.json, padded with 0, or pip install tok"
    with pytest.raises(ValueError, match=wanted):
        made.row({"text": "red"})
    assert made.row({"text": [2, 5, 3, 0]})["text"].tolist() == [2, 5, 3, 0]
    del made.inputs["text"]["tokenizer"]  # as earlier exports
    with pytest.raises(ValueError, match="but a str was given: give the ids of tokenizer.json, padded with 0.$"):
        made.row({"text": "red"})


def test_word_pieces_of_another_library_are_read_as_they_are(tmp_path):
    """A file with the special tokens of this package, but not its rules, is no file of this package."""
    exported = WordPieceTokenizer(["[PAD]", "[MASK]", "[UNK]", "red", "Red"]).to_hugging_face().content
    (tmp_path / "tokenizer.json").write_text(exported)
    assert isinstance(load_tokenizer(tmp_path), WordPieceTokenizer)
    (tmp_path / "tokenizer.json").write_text(exported.replace('"lowercase": true', '"lowercase": false'))
    other = load_tokenizer(tmp_path)
    assert isinstance(other, FileTokenizer) and other.encode("Red", 1).tolist() == [4]


def test_bytes_need_no_file():
    assert ByteTokenizer().to_hugging_face() is None
