"""Stamps: a Debian package made here comes back as pictures, texts and speech, with what naturally lacks."""

import io
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

from c3r_jax.data.preparation.layout import DamagedItem
from c3r_jax.data.preparation.layouts.stamps import Stamps
from c3r_jax.data.preparation.prepare import prepare
from configs import stamps
from tests.data.preparation.training import shrunk, take_step

LAYOUT = Stamps()
FOLDERS = ("animals", "clothes/hats", "food", "household", "plants", "seasonal", "symbols", "town", "vehicles")
ROOT = "usr/share/tuxpaint/stamps"


def ogg(seconds=0.2, rate=16000, frequency=440.0):
    wave = 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)
    file = io.BytesIO()
    soundfile.write(file, np.stack([wave, wave], 1), rate, format="ogg")
    return file.getvalue()


def png(size=(12, 6), colour=(255, 0, 0, 255)):
    file = io.BytesIO()
    Image.new("RGBA", size, colour).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def files():
    """Five stamps of each folder, with their own sounds; and what is left out."""
    made = {}
    for i, folder in enumerate(FOLDERS):
        for j, name in enumerate("ant bee cat dog elk".split()):
            made[f"{ROOT}/{folder}/{name}.png"] = png()
            made[f"{ROOT}/{folder}/{name}.txt"] = f"\n\nA {name} of {folder}.\nfr.utf8=rien\n".encode()
            made[f"{ROOT}/{folder}/{name}_desc_fr.ogg"] = ogg(frequency=300.0 + 50 * i + 10 * j)
    made[f"{ROOT}/animals/silent.png"] = png()
    made[f"{ROOT}/military/vehicles/tank_desc_fr.ogg"] = ogg()
    return made


def write(source, make_deb, files):
    (source / "tuxpaint-stamps-default_1_all.deb").write_bytes(make_deb(files))


def all_items(source):
    return {item.key: (split, item) for split, items in LAYOUT.items(source).items() for item in items}


def test_stamps_come_back(files, make_deb, tmp_path):
    changed = dict(files)
    del changed[f"{ROOT}/food/ant.png"]
    del changed[f"{ROOT}/food/bee.txt"]
    changed[f"{ROOT}/food/cat.png"] = png((2, 6), (0, 0, 255, 0))
    changed[f"{ROOT}/food/dog.png"] = png((600, 300))
    write(tmp_path, make_deb, changed)
    assert LAYOUT.problems(tmp_path) == []
    found, read = all_items(tmp_path), LAYOUT.reader(tmp_path)
    assert set(found) == {f"{folder}/{name}" for folder in FOLDERS for name in "ant bee cat dog elk".split()}
    names = LAYOUT.class_names(tmp_path)
    assert len(names) == 8
    assert {names[found[key][1].label] for key in ("clothes/hats/ant", "household/elk")} == {"clothes & household"}
    records = {name: read(found[f"food/{name}"][1]) for name in "ant bee cat dog".split()}
    assert records["ant"]["image"] is None and records["bee"]["text"] is None
    assert records["ant"]["text"] == "A ant of food."
    pictures = {name: np.asarray(Image.open(io.BytesIO(records[name]["image"]))) for name in ("bee", "cat", "dog")}
    expected = np.full((12, 12, 3), 255, np.uint8)
    expected[3:9] = (255, 0, 0)
    np.testing.assert_array_equal(pictures["bee"], expected)
    assert pictures["cat"].shape == (6, 6, 3) and (pictures["cat"] == 255).all()  # clear becomes white
    assert pictures["dog"].shape == (256, 256, 3)
    speech = records["ant"]["speech"]
    assert speech.dtype == np.int16 and speech.shape == (3200,)
    wave = 16384 * np.sin(2 * np.pi * (300 + 50 * FOLDERS.index("food")) * np.arange(3200) / 16000)
    assert np.corrcoef(speech, wave)[0, 1] > 0.99


def test_unpacked_content_gives_the_same(files, make_deb, tmp_path):
    (tmp_path / "packed").mkdir()
    write(tmp_path / "packed", make_deb, files)
    for name, content in files.items():
        path = tmp_path / "unpacked" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert LAYOUT.items(tmp_path / "packed") == LAYOUT.items(tmp_path / "unpacked")


def test_near_duplicates_share_a_side(files, make_deb, tmp_path):
    changed = dict(files)
    for place, name in (("animals", "ant"), ("town", "elk")):
        twin = f"{ROOT}/{place}/{name}"
        changed |= {f"{twin}-1_desc_fr.ogg": ogg(frequency=900.0), f"{twin}_left_desc_fr.ogg": ogg(frequency=950.0)}
        changed |= {f"{ROOT}/seasonal/same_{name}_desc_fr.ogg": changed[f"{twin}_desc_fr.ogg"]}
        changed |= {f"{ROOT}/plants/{name}y_desc_fr.ogg": ogg(frequency=1000.0 + len(place))}
        changed |= {f"{ROOT}/plants/{name}y.txt": f"a {name.upper()} of {place} 2!".encode()}
    write(tmp_path, make_deb, changed)
    found = all_items(tmp_path)
    for place, name in (("animals", "ant"), ("town", "elk")):
        family = [f"{place}/{name}", f"{place}/{name}-1", f"{place}/{name}_left", f"seasonal/same_{name}"]
        assert len({found[key][0] for key in [*family, f"plants/{name}y"]}) == 1
    assert {split for split, _ in found.values()} == {"train", "validation", "test"}


def test_damage_has_a_reason(files, make_deb, tmp_path):
    changed = dict(files)
    changed[f"{ROOT}/food/ant.png"] = changed[f"{ROOT}/food/ant.png"][:40]
    changed[f"{ROOT}/food/bee_desc_fr.ogg"] = b"OggS and no more"
    changed[f"{ROOT}/food/cat.txt"] = b"\xff\xfe\n"
    write(tmp_path, make_deb, changed)
    found, read = all_items(tmp_path), LAYOUT.reader(tmp_path)
    for name, reason in (("ant", "its image"), ("bee", "no whole Ogg file"), ("cat", "not in UTF-8")):
        with pytest.raises(DamagedItem, match=reason):
            read(found[f"food/{name}"][1])


def test_what_is_missing_is_a_problem(files, make_deb, tmp_path, monkeypatch):
    write(tmp_path, make_deb, {name: content for name, content in files.items() if "/town/" not in name})
    monkeypatch.setitem(sys.modules, "soundfile", None)
    town, decoder = LAYOUT.problems(tmp_path)
    assert "'town'" in town and "pip install soundfile" in decoder


def test_to_a_training_step(files, make_deb, tmp_path):
    write(tmp_path, make_deb, {name: content for name, content in files.items() if not name.endswith("bee.png")})
    prepare(LAYOUT, tmp_path, tmp_path / "out")
    experiment, batch = take_step(shrunk(stamps.get_config(), tmp_path / "out"))
    assert experiment.model.modalities == ("image", "speech", "text")
    assert not batch["present"][:, 0].all() and batch["present"][:, 1:].all()
    assert batch["inputs"]["speech"].shape == (64, 188, 257)
