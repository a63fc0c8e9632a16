"""From the files that people have on disk to a step of training: CMU-MOSEI, BraTS, CREMA-D and IEMOCAP."""

import pytest

from c3r_jax.data.builders.cremad import CremaD
from c3r_jax.data.builders.iemocap import Iemocap
from c3r_jax.data.prepare import prepare
from c3r_jax.data.prepared import load_prepared
from tests.data.builders.media_files import write_cremad, write_iemocap
from tests.data.builders.training import take_step


def iemocap(source):
    clips = {f"Ses01F_F{i:03d}": ("Excuse me.", ("Angry", "Sad")[i % 2]) for i in range(16)}
    write_iemocap(source, {"train": clips, "dev": {"Ses01F_F100": ("No.", "Sad")}, "test": {"Ses02F": ("Yes.", "Sad")}})


def prepared(tmp_path, layout, write):
    source = tmp_path / "source"
    source.mkdir()
    write(source)
    prepare(layout, source, tmp_path / "out")
    return str(tmp_path / "out")


def test_cremad_to_its_inputs(tmp_path):
    example = load_prepared("train", name="cremad", path=prepared(tmp_path, CremaD(), write_cremad), image_size=8)[0]
    assert example["audio"].shape == (188, 257) and example["video"].shape == (3, 8, 8, 3)


@pytest.mark.parametrize("layout, write", [(Iemocap(), iemocap)])
def test_to_a_step_of_training(tmp_path, layout, write, small_config):
    small_config.data.update(name=layout.name, path=prepared(tmp_path, layout, write), image_size=8)
    small_config.data.augment.shift = 1
    small_config.model.sequence.update(patch=32, width=8, depth=1)
    small_config.train.batch_size = small_config.eval.batch_size = 16
    _, batch = take_step(small_config)
    assert sorted(batch["inputs"]) == sorted(layout.kinds)
