"""The build script on a made source: rules for near-duplicates, the split, and the same bytes twice."""

import importlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

TOOLS = pathlib.Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def concepts():
    sys.path.insert(0, str(TOOLS))
    try:
        yield importlib.import_module("emoji_concepts")
    finally:
        sys.path.remove(str(TOOLS))


@pytest.mark.parametrize(
    ("names", "group", "subgroup"),
    [
        (("man walking", "woman walking: facing right", "person walking"), 1, "person-activity"),
        (("boy", "man: beard", "person: red hair", "old woman", "baby"), 1, "person"),
        (("three o’clock", "four-thirty"), 5, "time"),
        (("keycap: #", "keycap: 10"), 8, "keycap"),
        (("red heart", "heart", "light blue heart"), 0, "heart"),
        (("dog", "dog face"), 3, "animal-mammal"),
        (("family: man, woman, boy", "family", "family: adult, child"), 1, "family"),
        (("kiss", "kiss: woman, man"), 1, "family"),
        (("magnifying glass tilted left", "magnifying glass tilted right"), 7, "light-video"),
        (("merman", "mermaid", "merperson"), 1, "person-fantasy"),
        (("closed book", "books", "green book"), 7, "book-paper"),
        (("1st place medal", "3rd place medal"), 6, "award-medal"),
    ],
)
def test_near_duplicates_by_name(concepts, names, group, subgroup):
    assert len({concepts.concept_key(name, group, subgroup) for name in names}) == 1


def test_different_things_by_name(concepts):
    names = ("apple", "pear", "ear of corn", "hot pepper", "bell pepper")
    assert len({concepts.concept_key(name, 4, "food") for name in names}) == 5
    assert concepts.concept_key("South Sudan", 9, "country-flag") != concepts.concept_key("Sudan", 9, "country-flag")


def test_near_duplicates_by_sight(concepts):
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 256, (2, 8, 8, 3)).astype(np.float32)
    images = np.stack([one, other, one[:, ::-1], one + 5, one])
    assert concepts.near_duplicate_pairs(images, [0, 0, 0, 0, 1]) == [(0, 2), (0, 3), (2, 3)]


@pytest.fixture
def source(tmp_path):
    """Two unpacked packages with sixty emoji of two classes, one component and one without an image."""
    rng = np.random.default_rng(0)
    images = tmp_path / "google/package/img/google/64"
    text = tmp_path / "text/package/en"
    images.mkdir(parents=True)
    text.mkdir(parents=True)
    manifests = {"google": ("emoji-datasource-google", "16.0.0"), "text": ("emojibase-data", "17.0.0")}
    for folder, (name, version) in manifests.items():
        manifest = tmp_path / folder / "package" / "package.json"
        manifest.write_text(json.dumps({"name": name, "version": version}))
    data = []
    for i in range(60):
        label = f"flag: Land {chr(97 + i % 26)}{i}" if i % 2 else f"thing{i}"
        data.append({"hexcode": f"1F{i:03X}", "label": label, "group": 9 if i % 2 else 7, "subgroup": i % 2})
        suffix = "-fe0f" if i % 3 == 0 else ""
        Image.fromarray(rng.integers(0, 256, (64, 64, 4)).astype(np.uint8)).save(images / f"1f{i:03x}{suffix}.png")
    data.append({"hexcode": "1F3FB", "label": "light skin tone", "group": 2, "subgroup": 0})
    data.append({"hexcode": "1FFFF", "label": "too new", "group": 7, "subgroup": 0})
    (text / "data.json").write_text(json.dumps(data))
    groups = [{"order": order, "message": message} for order, message in ((7, "objects"), (9, "flags"))]
    subgroups = [{"order": order, "key": key} for order, key in enumerate(("tool", "country-flag"))]
    (text / "messages.json").write_text(json.dumps({"groups": groups, "subgroups": subgroups}))
    return tmp_path


def build(source, *arguments):
    command = [sys.executable, str(TOOLS / "build_emoji.py"), "--source", str(source), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_same_bytes_twice_and_loadable(source, tmp_path):
    from c3r_jax.data.sets.emoji import load_emoji

    for out in ("one", "two"):
        assert build(source, "--out", str(tmp_path / out)).returncode == 0
    assert (tmp_path / "one/emoji.zip").read_bytes() == (tmp_path / "two/emoji.zip").read_bytes()
    assert build(source, "--out", str(tmp_path / "one"), "--check").returncode == 0
    loaded = [load_emoji(split, path=tmp_path / "one/emoji.zip") for split in ("train", "validation", "test")]
    assert [len(part) for part in loaded] == [36, 12, 12]
    assert loaded[0].info.class_names == ("objects", "flags")
    assert not any("flag" in text for part in loaded for text in part.texts)
    manifest = tmp_path / "one/emoji.zip"
    manifest.write_bytes(b"changed")
    assert "differs" in build(source, "--out", str(tmp_path / "one"), "--check").stderr


def test_another_version_of_a_package(source):
    manifest = source / "text/package/package.json"
    manifest.write_text(json.dumps({"name": "emojibase-data", "version": "16.0.0"}))
    result = build(source, "--out", str(source))
    assert result.returncode != 0
    assert "expected emojibase-data 17.0.0" in result.stderr
    manifest.unlink()
    assert "npm pack emojibase-data@17.0.0" in build(source, "--out", str(source)).stderr
