"""Emoji by other makers: the same names, other pictures; makers that are not embedded come from their packages."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from c3r_jax.data.catalogue import find_loader
from c3r_jax.data.preparation.layouts.emoji_styles import EmojiStyles
from c3r_jax.data.preparation.listing import list_source
from c3r_jax.data.preparation.prepare import prepare
from c3r_jax.data.sets.emoji import load_emoji, read_index
from c3r_jax.data.sets.emoji_styles import TWITTER, load_emoji_styles, picture_names
from c3r_jax.errors import DataError

TEST = [item for item in read_index()[0]["items"] if item["split"] == "test"]
LACKING = {"facebook": 3}  # how many of the first test names a maker does not draw


def pictures(maker):
    """{path in the package: PNG} of a made package: red and yellow squares, some with the variation selector."""
    made = {}
    for i, item in enumerate(TEST[LACKING.get(maker, 0) :]):
        file = io.BytesIO()
        Image.new("RGBA", (64, 64), (200, i % 200, 0, 255) if maker == "apple" else (0, 0, 0, 0)).save(file, "png")
        made[f"package/img/{maker}/64/{picture_names(item['hexcode'])[1 + i % 2]}"] = file.getvalue()
    made[f"package/img/{maker}/64/not-an-emoji.png"] = b""
    made[f"package/img/{maker}/sheets/32.png"] = b"large"
    return made


def pack(source, maker):
    with tarfile.open(source / f"emoji-datasource-{maker}-16.0.0.tgz", "w:gz") as file:
        for name, content in pictures(maker).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))


def unpack(source, maker):
    for name, content in pictures(maker).items():
        path = source / maker / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_training_and_selection_see_the_embedded_pictures_alone():
    for split in ("train", "validation", "test"):
        here, there = load_emoji_styles(split, image_size=8), load_emoji(split, image_size=8)
        np.testing.assert_array_equal(here.images, there.images)
        assert here.texts == there.texts and here.info.name == "emoji_styles"


def test_twitter_draws_the_same_names_otherwise():
    test, shifted = load_emoji_styles("test", image_size=32), load_emoji_styles("twitter", image_size=32)
    assert shifted.texts == test.texts and len(shifted) == 380
    np.testing.assert_array_equal(shifted.labels, test.labels)
    np.testing.assert_array_equal(shifted.index, test.index)
    differs = np.abs(shifted.images.astype(int) - test.images).mean((1, 2, 3))
    assert differs.min() > 0
    # Drawn in one style, not at random: for many a picture the nearest of all 380 is its own name's, by chance for one.
    flat = [source.images.reshape(380, -1).astype(float) for source in (shifted, test)]
    distances = ((flat[0][:, None, ::16] - flat[1][None, :, ::16]) ** 2).sum(-1)
    assert (distances.argmin(1) == np.arange(380)).mean() > 0.25


def test_the_embedded_file_says_whose_pictures_it_has():
    about, archive, _ = read_index(TWITTER)
    assert "CC-BY-4.0" in about["provenance"][0]["licence"] and "Twemoji" in about["provenance"][0]["attribution"]
    assert set(archive.namelist()) == {f"images/{item['hexcode']}.png" for item in TEST} | {"index.json"}


def test_makers_from_packages(tmp_path, capsys):
    source, out = tmp_path / "packages", tmp_path / "out"
    source.mkdir()
    pack(source, "apple")
    unpack(source, "facebook")
    prepare(EmojiStyles(), source, out)
    said = capsys.readouterr().out
    assert "Note: 'apple' draws 380 of the 380 test names.\n" in said
    missing = "; ".join(item["name"] for item in TEST[:3])
    assert f"Note: 'facebook' draws 377 of the 380 test names; missing: {missing}.\n" in said
    load, splits = find_loader("emoji_styles", str(out))
    assert splits == ("train", "validation", "test", "twitter", "apple", "facebook")
    apple, facebook = (load(maker, path=out, image_size=24) for maker in ("apple", "facebook"))
    test = load("test", path=out, image_size=24)
    np.testing.assert_array_equal(test.images, load_emoji("test", image_size=24).images)
    assert apple.texts == test.texts and facebook.texts == test.texts[3:]
    np.testing.assert_array_equal(apple.labels, test.labels)
    np.testing.assert_array_equal(facebook.index, test.index[3:])
    assert (apple.images[:, 5, 7] == [[200, i % 200, 0] for i in range(380)]).all()
    assert (facebook.images == 255).all()  # clear becomes white
    assert len({source.info.sha256 for source in (test, apple)}) == 2


def test_one_package_is_enough(tmp_path):
    unpack(tmp_path, "apple")
    listing = list_source(EmojiStyles(), tmp_path)
    assert "facebook" not in listing.items and len(listing.items["apple"]) == 380
    assert "npm pack emoji-datasource-facebook@16.0.0" in listing.notes[1] and not listing.warnings
    (tmp_path / "emoji-datasource-facebook-16.0.0.tgz").write_bytes(b"cut short")
    with pytest.raises(DataError, match=r"facebook-16.0.0.tgz is damaged or cut short"):
        list_source(EmojiStyles(), tmp_path)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DataError, match=r"(?s)run `npm pack emoji-datasource-apple@16.0.0`.*datasource-facebook@"):
        list_source(EmojiStyles(), tmp_path)
    with pytest.raises(DataError, match=r"config.data.path has no pictures of 'apple': fetch its package by 'npm pack"):
        load_emoji_styles("apple")
    with pytest.raises(ValueError, match="split is 'samsung', expected one of"):
        load_emoji_styles("samsung")
