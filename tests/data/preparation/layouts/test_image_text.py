"""Food-101, MVSA and Hateful Memes: from lists and images to a prepared source; hostile lines with their reasons."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from c3r_jax.data.batches.pipeline import train_batches
from c3r_jax.data.preparation.layout import DamagedItem
from c3r_jax.data.preparation.layouts import image_text
from c3r_jax.data.preparation.layouts.image_text import Food101, HatefulMemes, MvsaSingle
from c3r_jax.data.preparation.listing import list_source
from c3r_jax.data.preparation.prepare import prepare
from c3r_jax.data.sets.prepared import load_prepared
from c3r_jax.data.text.tokenizers import ByteTokenizer
from c3r_jax.errors import ConfigError, DataError
from configs import food101, hateful_memes, mvsa
from tests.data.preparation.training import shrunk, take_step

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:etils", "ignore::ResourceWarning")
SIZE = 8


def picture(number):
    return np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)


def write_set(source, lists, place):
    """Lists of (id, label, text) and a PNG for each; ``place`` is the name of an id's image in the lists."""
    source.mkdir(exist_ok=True)
    for name, lines in lists.items():
        text = ""
        for number, label, words in lines:
            line = {"id": number, "text": words, "img": place.format(number)}
            text += json.dumps(line if label is None else {**line, "label": label}) + "\n"
            path = source / place.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(number)).save(path, "png")
        (source / f"{name}.jsonl").write_text(text)
    return source


FOOD = {
    "train": [
        (1, "sushi", "Sushi at home"),
        (2, "apple_pie", "Pie"),
        (3, "sushi", "Rolls – 巻き寿司"),
        (4, "nachos", "Chips"),
    ],
    "dev": [(5, "nachos", "Nachos"), (6, "apple_pie", "Apfelkuchen")],
    "test": [(7, "sushi", "  "), (8, "apple_pie", "Grandma's")],
}
TWEETS = {
    "train": [(1, "positive", "great"), (2, "neutral", "well"), (3, "negative", "bad")],
    "dev": [(4, "negative", "no")],
    "test": [(5, "positive", "yes")],
}
MEMES = {
    "train": [(101, 1, "a meme"), (102, 0, "another"), (103, 0, "third")],
    "dev_seen": [(104, 1, "seen")],
    "dev_unseen": [(105, 0, "unseen")],
    "test_seen": [(106, None, "no label")],
    "test_unseen": [(107, 1, "a label")],
}
SETS = {
    "food101": (Food101, FOOD, "images/train/dish/dish_{}.jpg"),
    "mvsa": (MvsaSingle, TWEETS, "data/{}.jpg"),
    "hateful_memes": (HatefulMemes, MEMES, "img/{}.png"),
}


@pytest.fixture(params=SETS)
def case(request, tmp_path):
    layout, lists, place = SETS[request.param]
    return layout(), write_set(tmp_path / "source", lists, place), lists, tmp_path / "out"


def test_what_is_in_the_lists_comes_out_of_the_prepared_source(case):
    layout, source, lists, out = case
    prepare(layout, source, out)
    names = sorted({line[1] for line in lists["train"]})
    for split, there in layout.splits.items():
        found = load_prepared(split, name=layout.name, path=out, image_size=SIZE)
        examples = {found[i]["key"]: found[i] for i in range(len(found))}
        assert sorted(examples) == sorted(str(line[0]) for line in lists[there])
        for position, (number, label, text) in enumerate(lists[there]):
            example = examples[str(number)]
            np.testing.assert_array_equal(example["image"], picture(number))
            assert example["text"] == (text if text.strip() else None)
            assert example["present"].tolist() == [True, bool(text.strip())]
            assert example["index"] == position
            assert example["label"] == (-1 if label is None else names.index(label))
    train = load_prepared("train", name=layout.name, path=out, image_size=SIZE)
    assert [train[i]["label"] for i in range(len(train))] == train.labels.tolist()
    assert sorted(train.texts) == sorted(line[2] for line in lists["train"])
    batches = train_batches(train, ByteTokenizer(), batch_size=2, seed=0, text_length=8)
    batch = next(batches)
    assert batch["inputs"]["image"].shape == (2, SIZE, SIZE, 3) and batch["inputs"]["text"].shape == (2, 8)
    batches.close()


def test_to_a_training_step(case):
    layout, source, lists, out = case
    prepare(layout, source, out)
    config = {"food101": food101, "mvsa": mvsa, "hateful_memes": hateful_memes}[layout.name].get_config()
    experiment, batch = take_step(shrunk(config, out))
    assert list(experiment.sources) == ["train", "validation", *sorted(set(layout.splits) - {"train", "validation"})]
    # 64 rows out of three or four examples: each is there, with its label.
    names = sorted({line[1] for line in lists["train"]})
    labels = {(number, names.index(line[1])) for number, line in enumerate(lists["train"])}
    assert set(zip(batch["index"].tolist(), batch["labels"].tolist(), strict=True)) == labels


def test_a_split_without_labels_can_be_read_but_not_evaluated(tmp_path):
    source = write_set(tmp_path / "memes", MEMES, "img/{}.png")
    prepare(HatefulMemes(), source, tmp_path)
    found = load_prepared("test", name="hateful_memes", path=tmp_path)
    assert found[0]["text"] == "no label" and found[0]["label"] == -1
    with pytest.raises(DataError, match="Split 'test' of 'hateful_memes' has no labels, so nothing can be eval"):
        next(train_batches(found, ByteTokenizer(), batch_size=1, seed=0))
    assert load_prepared("test_unseen", name="hateful_memes", path=tmp_path).labels.tolist() == [1]


def test_lists_of_later_phases_may_be_missing(tmp_path):
    lists = {name: lines for name, lines in MEMES.items() if "unseen" not in name}
    source = write_set(tmp_path / "memes", lists, "img/{}.png")
    prepare(HatefulMemes(), source, tmp_path)
    with pytest.raises(DataError, match="no items of split 'dev_unseen', expected one of train, validation, test"):
        load_prepared("dev_unseen", name="hateful_memes", path=tmp_path)


def test_a_line_without_end_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(image_text, "MAX_LINE", 40)
    good = [json.dumps({"id": i}) for i in range(3)]
    long = "x" * 1000
    (tmp_path / "list").write_text("\n".join([good[0], long, good[1], "", long + "{}", good[2], long]))
    found = list(image_text.read_lines(tmp_path / "list"))
    assert [line for _, line, _ in found] == [{"id": 0}, None, {"id": 1}, None, {"id": 2}, None]
    assert [number for number, _, _ in found] == [1, 2, 3, 5, 6, 7]
    assert "more than 40 bytes" in found[1][2]


def test_class_ids_in_the_order_of_first_appearance(tmp_path):
    source = write_set(tmp_path / "food", FOOD, SETS["food101"][2])
    prepare(Food101(), source, tmp_path, class_order="first_seen")
    found = load_prepared("validation", name="food101", path=tmp_path)
    assert found.info.class_names == ("sushi", "apple_pie", "nachos")
    assert {found[i]["key"]: found[i]["label"] for i in range(2)} == {"5": 2, "6": 1}
    with pytest.raises(ConfigError, match="class_order is 'first_seen': hateful_memes offers sorted"):
        prepare(HatefulMemes(), source, tmp_path, class_order="first_seen")


def test_all_that_is_missing_is_said_at_once(tmp_path):
    (tmp_path / "train.jsonl").write_text(
        "".join(json.dumps({"id": i, "label": f"dish {i}"}) + "\n" for i in range(102))
    )
    with pytest.raises(DataError) as error:
        prepare(Food101(), tmp_path, tmp_path / "out")
    for part in (
        "dev.jsonl is missing",
        "test.jsonl is missing",
        "images is missing",
        "102 different labels",
        "visiir",
    ):
        assert part in str(error.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="no directory"):
        prepare(Food101(), tmp_path / "nowhere", tmp_path / "out")


def test_items_of_two_lists_are_told(tmp_path):
    lists = {**TWEETS, "test": [*TWEETS["train"][1:], (5, "positive", "yes"), (1, "positive", "another of that id")]}
    source = write_set(tmp_path / "source", lists, "data/{}.jpg")
    overlaps = [warning for warning in list_source(MvsaSingle(), source).warnings if "training split" in warning]
    assert overlaps == ["2 items of split 'test' are also in the training split: correct its list."]


HOSTILE = {
    '{"id": 1, "label": "sushi", "text": "cut short': "no JSON object",
    "[1, 2]": "no object",
    '{"id": 1, "label": "sushi", "label": "ramen", "text": "x", "img": "images/1.jpg"}': "has the key 'label' twice",
    "[" * 100_000: "no JSON object",
    '{"label": "sushi", "text": "x", "img": "images/1.jpg"}': "it has no key 'id'",
    '{"id": true, "label": "sushi", "text": "x", "img": "images/1.jpg"}': "its 'id' is True",
    '{"id": 1, "label": "sushi", "text": ["x"], "img": "images/1.jpg"}': "its 'text' is",
    '{"id": 1, "label": "sushi", "text": "x", "img": 5}': "its 'img' is 5, expected a str",
    '{"id": 1, "label": "pizza", "text": "x", "img": "images/1.jpg"}': "its label is 'pizza', expected one of",
    '{"id": 1, "label": {"a": 1}, "text": "x", "img": "images/1.jpg"}': "its label is {'a': 1}",
    '{"id": 1, "text": "x", "img": "images/1.jpg"}': "it has no label",
    '{"id": "twice", "label": "sushi", "text": "x", "img": "images/train/dish/dish_1.jpg"}': "was there before",
    '{"id": 1, "label": "sushi", "text": "x", "img": "../secret.png"}': "no name inside the source",
    '{"id": 1, "label": "sushi", "text": "x", "img": "/etc/passwd"}': "no name inside the source",
    '{"id": 1, "label": "sushi", "text": "x", "img": "images/none.jpg"}': "'images/none.jpg' is missing",
    '{"id": 1, "label": "sushi", "text": "x", "img": "images/short.jpg"}': "image: its image .* damaged or cut short",
    '{"id": 1, "label": "sushi", "text": "x", "img": "images/link.jpg"}': "a link that leads out",
    '{"id": 1, "label": "sushi", "text": "\\ud800", "img": "images/train/dish/dish_1.jpg"}': "surrogates not allowed",
    '{"id": 1, "label": "sushi", "text": null, "img": null}': "all of its modalities are missing",
}


def test_hostile_lines_are_reported_with_their_reason(tmp_path):
    """None of them ends the preparation, is dropped silently or opens a file outside the source."""
    source = write_set(tmp_path / "food", FOOD, SETS["food101"][2])
    (tmp_path / "secret.png").write_bytes((source / "images/train/dish/dish_1.jpg").read_bytes())
    (source / "images/link.jpg").symlink_to(tmp_path / "secret.png")
    file = io.BytesIO()
    Image.fromarray(picture(0)).save(file, "jpeg")
    (source / "images/short.jpg").write_bytes(file.getvalue()[:-30])
    good = '{"id": "twice", "label": "sushi", "text": "x", "img": "images/train/dish/dish_1.jpg"}'
    lines = [good, *(line.replace('"id": 1,', f'"id": "bad {i}",') for i, line in enumerate(HOSTILE))]
    (source / "test.jsonl").write_text("\n".join(lines))
    with pytest.raises(
        DataError, match=r"(?s)19 items of food101 cannot be used, at most 18 are allowed.*--max_damaged 19"
    ) as error:
        prepare(Food101(), source, tmp_path, max_damaged=18)
    assert "and 14 more" in str(error.value)
    report = json.loads((tmp_path / "food101/damaged.json").read_text())
    assert len(report) == len(HOSTILE) and {one["split"] for one in report} == {"test"}
    made = prepare(Food101(), source, tmp_path, max_damaged=19)
    report = json.loads((made / "damaged.json").read_text())
    for one, reason in zip(report, HOSTILE.values(), strict=True):
        with pytest.raises(DamagedItem, match=reason):
            raise DamagedItem(one["reason"])
    counts = json.loads((made / "manifest.json").read_text())["splits"]["test"]
    assert (counts["found"], counts["damaged"], counts["written"], counts["published"]) == (20, 19, 1, 22715)
    assert load_prepared("test", name="food101", path=tmp_path)[0]["key"] == "twice"


def listed(tmp_path, change=lambda text: text, layout=MvsaSingle, **labels):
    """A list of thirty items whose lines a function changes, and its listing."""
    names = ("negative", "neutral", "positive")
    lines = [(i, labels.get(f"_{i}", names[i % 3]), f"text {i}") for i in range(30)]
    source = write_set(tmp_path / "set", {"train": lines, "dev": lines[:3], "test": lines[:3]}, "data/{}.jpg")
    (source / "images").mkdir()
    path = source / "train.jsonl"
    path.write_text(change(path.read_text()))
    return list_source(layout(), source), layout().missing_values(source)


@pytest.mark.parametrize("word", ['"nan"', '"None"', "NaN", '"n/a"', "null", '""'])
def test_words_for_missing_values_are_no_texts_and_no_labels(tmp_path, word):
    def change(text):
        text = text.replace('"text 0"', word).replace('"data/1.jpg"', word)
        lines = text.splitlines()
        return "\n".join([*lines[:-1], lines[-1].replace('"positive"', word)])

    found, missing = listed(tmp_path, change)
    train = {item.key: item for item in found.items["train"]}
    assert train["0"].place == ("data/0.jpg", None) and train["1"].place == (None, "text 1")
    assert found.class_names == ("negative", "neutral", "positive")
    assert [one["reason"] for one in found.damaged] == ["it has no label"]
    assert {key: sum(counts.values()) for key, counts in missing.items()} == {"img": 1, "label": 1, "text": 1}


@pytest.mark.parametrize("other", ["Positive", "positive ", "po\u200bsitive"])
def test_one_label_in_several_ways(tmp_path, other):
    if other == "Positive":
        (warning,) = [text for text in listed(tmp_path, layout=Food101, _2=other)[0].warnings if "ways" in text]
        assert "'Positive' (1 training items)" in warning and "'positive' (9 training items)" in warning
        return
    with pytest.raises(DataError, match=r"4 different labels.* perhaps one label: \('po"):
        listed(tmp_path, _2=other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: "[" + text.strip().replace("}\n", "},\n") + "]",
            "is a JSON array, expected one object .* a line",
        ),
        (lambda text: text.replace("}\n", "},\n"), "ends with a comma, expected one object a line and no commas"),
        (lambda text: json.dumps(json.loads(text.splitlines()[0]), indent=1), "has no JSON object a line: in line 1"),
        (lambda text: "version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a pointer of Git LFS"),
        (lambda text: text.replace('"label": "', '"label": 1, "was": "'), "labels are texts and the first is 1"),
    ],
)
def test_what_is_no_list_is_said(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        listed(tmp_path, change)


def test_a_comma_after_one_line_and_a_path_of_windows(tmp_path):
    found, _ = listed(tmp_path, lambda text: text.replace("}\n", "},\n", 1).replace("data/5", "data\\\\5"))
    (damaged,) = found.damaged
    assert damaged["key"] == "train.jsonl, line 1" and "ends with a comma" in damaged["reason"]
    assert found.items["train"][5].place[0] == "data/5.jpg"


@pytest.mark.parametrize("write", [str, float, lambda label: f"{label}.0"])
def test_numbers_of_classes_may_be_texts_or_floats(tmp_path, write):
    lists = {
        name: [(i, None if y is None else write(y), text) for i, y, text in lines] for name, lines in MEMES.items()
    }
    found = list_source(HatefulMemes(), write_set(tmp_path / "memes", lists, "img/{}.png"))
    assert [item.label for item in found.items["train"]] == [1, 0, 0] and not found.damaged
