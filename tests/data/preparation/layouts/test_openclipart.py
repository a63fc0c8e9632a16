"""Open Clip Art: a made tree of the two packages comes back as drawings, on sides by title and author."""

import io

import numpy as np
import pytest
from PIL import Image

from c3r_jax.data.preparation.convert import Converter
from c3r_jax.data.preparation.layouts import openclipart
from c3r_jax.data.preparation.layouts.openclipart import CLASSES, UNSEEN, Openclipart, OpenclipartDescribed
from c3r_jax.data.preparation.listing import list_source
from c3r_jax.data.preparation.prepare import prepare
from c3r_jax.errors import DataError
from configs import openclipart as configuration
from tests.data.preparation.training import shrunk, take_step

ROOT = "usr/share/openclipart"
METADATA = """<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><metadata>
<rdf:RDF xmlns:cc="http://web.resource.org/cc/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><cc:Work rdf:about=""><dc:title> {title}
</dc:title><dc:description>{description}</dc:description>
<dc:publisher><cc:Agent><dc:title>A library</dc:title></cc:Agent></dc:publisher>
<dc:creator><cc:Agent><dc:title>{author}</dc:title></cc:Agent></dc:creator>
<dc:subject><rdf:Bag><rdf:li>{author}</rdf:li></rdf:Bag></dc:subject></cc:Work></rdf:RDF></metadata></svg>"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def add(source, key, title="", author="", description="", size=(12, 6), colour=None):
    """A drawing in both trees; its picture is its own unless a colour is given."""
    shade = colour or tuple(np.random.default_rng(list(key.encode())).integers(0, 255, 3).tolist())
    for kind, ending in (("png", "png"), ("svg", "svg")):
        path = source / ROOT / kind / f"{key}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "png":
            Image.new("RGBA", size, (*shade, 255)).save(path)
        else:
            path.write_text(METADATA.format(title=title, description=description, author=author), encoding="utf-8")


@pytest.fixture
def source(tmp_path):
    """Ten drawings of each class: by an author of 72, by small authors, by nobody; and one of a class left out."""
    for i, name in enumerate(CLASSES):
        for j in range(10):
            number = 10 * i + j
            author = "Big Bear" if j < 6 else f"Author {LETTERS[number % 20]}x" if j < 9 else "Anonymous"
            add(tmp_path, f"{name}/deep/thing_{j}", f"Title {LETTERS[i]}{LETTERS[j]}", author, "told" * (j == 3))
    add(tmp_path, "shapes/star", "A star", "Big Bear")
    return tmp_path


def by_key(source, layout=None):
    layout = layout or Openclipart()
    return {item.key: (split, item) for split, items in layout.items(source).items() for item in items}


def test_drawings_come_back(source):
    layout = OpenclipartDescribed()
    assert layout.problems(source) == []
    found, read = by_key(source, layout), layout.reader(source)
    assert len(found) == 120 and not any(key.startswith("shapes") for key in found)
    item = found["food/deep/thing_3"][1]
    assert CLASSES[item.label] == "food" and item.environments == ("big bear",)
    record = read(item)
    assert record["text"] == "Title dd" and record["description"] == "told"
    picture = np.asarray(Image.open(io.BytesIO(record["image"])))
    assert picture.shape == (12, 12, 3) and (picture[:3] == 255).all() and (picture[5] != 255).any()
    assert read(found["food/deep/thing_2"][1])["description"] is None
    assert found["food/deep/thing_9"][1].environments == ("",)  # nobody's
    assert set(Openclipart().reader(source)(item)) == {"image", "text"}


def test_unseen_authors_drew_nothing_else_and_every_other_is_in_training(source):
    sides = {}
    for split, item in by_key(source).values():
        sides.setdefault(split, set()).add(item.environments[0])
    authors = {f"author {letter}x" for letter in LETTERS[:20]} & set().union(*sides.values())
    assert len(sides[UNSEEN]) == round(0.8 * len(authors)) and not sides[UNSEEN] & sides["train"]
    assert "big bear" in sides["train"]  # has more than sixty
    assert (sides["validation"] | sides["test"]) - {""} <= sides["train"]


def test_near_duplicates_stay_on_one_side(source):
    unseen = next(item for split, item in by_key(source).values() if split == UNSEEN)
    author = unseen.environments[0]
    add(source, "tools/like", "title DD, 17", "Big Bear")  # as food/deep/thing_3, in another class
    add(source, "people/twin", "Something else", "Big Bear", colour=(1, 2, 3))
    add(source, "plants/twin", "Another thing", "Big Bear", colour=(1, 2, 3))
    add(source, "plants/again", unseen.place[0], "Big Bear")
    found = by_key(source)
    assert found["tools/like"][0] == found["food/deep/thing_3"][0]
    assert found["people/twin"][0] == found["plants/twin"][0]
    assert unseen.key not in found and found["plants/again"][0] != UNSEEN  # the title is no longer new
    notes = Openclipart().notes(source, Openclipart().items(source))
    assert any("Left out are 1 drawings by unseen authors" in note for note in notes)
    assert author.startswith("author")


def test_one_author_in_several_spellings(source):
    for i, name in enumerate(
        ("Bear, the great", "Bär Big", "Big Béar (big@bear.org)", "Mr. Big Bear and Some One", "Big")
    ):
        add(source, f"tools/spelt_{i}", f"Spelt {LETTERS[i]}", name)
    found = by_key(source)
    names = [found[f"tools/spelt_{i}"][1].environments[0] for i in range(5)]
    assert names == ["bear", "bär big", "big bear", "big bear", "big"]


def test_what_cannot_be_read_has_a_name_and_a_reason(source, monkeypatch):
    add(source, "tools/huge", "Huge", "Big Bear", size=(40, 40))
    add(source, "tools/cut", "Cut", "Big Bear")
    add(source, "tools/odd", "Odd", "Big Bear")
    (source / ROOT / "svg/tools/odd.svg").write_text("<svg")
    path = source / ROOT / "png/tools/cut.png"
    path.write_bytes(path.read_bytes()[:40])
    monkeypatch.setattr(openclipart, "MAX_PIXELS", 1000)
    listing = list_source(Openclipart(), source)
    assert listing.notes[0] == "Left out are 1 pictures of more than 1,000 pixels: tools/huge."
    (damaged,) = listing.damaged
    assert damaged["key"] == "tools/odd" and "its metadata cannot be read" in damaged["reason"]
    item = next(item for items in listing.items.values() for item in items if item.key == "tools/cut")
    assert "its image" in Converter(Openclipart(), source, 12).reader()(0, item)["reason"]


def test_what_is_missing_is_a_problem(source, tmp_path_factory):
    with pytest.raises(
        DataError, match=r"has no folder usr/share/openclipart/png: run `apt-get download openclipart-png"
    ):
        list_source(Openclipart(), tmp_path_factory.mktemp("empty"))
    for path in (source / ROOT / "png/plants").rglob("*.png"):
        path.unlink()
    (problem,) = Openclipart().problems(source)
    assert "no drawings of class 'plants'" in problem
    assert Openclipart().problems(source / "usr") == [problem.replace(str(source), str(source / "usr"))]


def test_to_a_training_step(source, tmp_path):
    prepare(Openclipart().for_source(source), source, tmp_path / "out")
    config = shrunk(configuration.get_config(), tmp_path / "out")
    config.model.text.pretrained = config.model.text.weights = config.model.image.weights = ""
    config.model.text.frozen = config.model.image.frozen = config.train.cache_frozen = False
    config.data.tokenizer, config.eval.split, config.rival.name = "bytes", UNSEEN, "vrex"
    experiment, batch = take_step(config)
    info = experiment.sources["train"].info
    assert info.phrases == openclipart.PHRASES and list(info.phrases) == list(info.class_names) == list(CLASSES)
    assert info.environment == "author" and experiment.method.rival.environments == len(
        set(batch["environment"]) - {-1}
    )
    assert (experiment.sources[UNSEEN].environment >= experiment.method.rival.environments).all()
