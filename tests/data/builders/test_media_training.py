"""From the files that people have on disk to a step of training: CMU-MOSEI, BraTS, CREMA-D and IEMOCAP."""

import pytest

from c3r_jax.data.builders.cremad import CremaD
from c3r_jax.data.builders.iemocap import Iemocap
from c3r_jax.data.builders.mosei import Mosei
from c3r_jax.data.prepare import prepare
from c3r_jax.data.prepared import load_prepared
from tests.data.builders.media_files import (
    SmallBrats,
    mosei_content,
    write_brats_case,
    write_cremad,
    write_iemocap,
    write_mosei,
)
from tests.data.builders.training import take_step


def iemocap(source):
    clips = {f"Ses01F_F{i:03d}": ("Excuse me.", ("Angry", "Sad")[i % 2]) for i in range(16)}
    write_iemocap(source, {"train": clips, "dev": {"Ses01F_F100": ("No.", "Sad")}, "test": {"Ses02F": ("Yes.", "Sad")}})


def mosei(source):
    write_mosei(Mosei, source, mosei_content(Mosei, {"train": 16, "valid": 3, "test": 3}))


def brats(source):
    for number in range(1, 14):
        write_brats_case(source, number, skip=("t2",) if number == 1 else ())


def prepared(tmp_path, layout, write):
    source = tmp_path / "source"
    source.mkdir()
    write(source)
    prepare(layout, source, tmp_path / "out")
    return str(tmp_path / "out")


def test_cremad_to_its_inputs(tmp_path):
    example = load_prepared("train", name="cremad", path=prepared(tmp_path, CremaD(), write_cremad), image_size=8)[0]
    assert example["audio"].shape == (188, 257) and example["video"].shape == (3, 8, 8, 3)


@pytest.mark.parametrize(
    "layout, write, batch_size", [(Iemocap(), iemocap, 16), (Mosei(), mosei, 16), (SmallBrats(), brats, 8)]
)
def test_to_a_step_of_training(tmp_path, layout, write, batch_size, small_config):
    small_config.task = layout.task
    small_config.data.update(name=layout.name, path=prepared(tmp_path, layout, write), image_size=8)
    small_config.data.augment.shift, small_config.train.label_smoothing = 1, 0.0
    small_config.model.sequence.update(patch=32, width=8, depth=1)
    small_config.model.volume.update(width=4, depth=1)
    small_config.train.batch_size = small_config.eval.batch_size = batch_size
    _, batch = take_step(small_config)
    assert sorted(batch["inputs"]) == sorted(layout.kinds)
