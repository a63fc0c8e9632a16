"""From the files that people have on disk to a step of training: CMU-MOSEI, BraTS, CREMA-D and IEMOCAP."""

import pytest

import configs.brats
import configs.cremad
import configs.iemocap
import configs.mosei
from c3r_jax.data.preparation.layouts.cremad import CremaD
from c3r_jax.data.preparation.layouts.iemocap import Iemocap
from c3r_jax.data.preparation.layouts.mosei import Mosei
from c3r_jax.data.preparation.prepare import prepare
from c3r_jax.tasks.classification import CLASSIFICATION
from tests.data.preparation.media_files import (
    SmallBrats,
    mosei_content,
    write_brats_case,
    write_cremad,
    write_iemocap,
    write_mosei,
)
from tests.data.preparation.training import shrunk, take_step


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


def cremad(source):
    clips = {f"1001_DFA_ANG_{i:02d}": ("Anger", "Sad")[i % 2] for i in range(16)}
    write_cremad(source, {"train": clips, "test": {"1003_IEO_HAP_LO": "Happy"}})


@pytest.mark.parametrize(
    "layout, write, config, shapes",
    [
        (CremaD(), cremad, configs.cremad, {"audio": (188, 257), "video": (3, 8, 8, 3)}),
        (Iemocap(), iemocap, configs.iemocap, {"audio": (1024, 128), "text": (12,), "video": (4, 8, 8, 3)}),
        (Mosei(), mosei, configs.mosei, {name: Mosei.shapes[name] for name in Mosei.kinds}),
        (SmallBrats(), brats, configs.brats, dict.fromkeys(SmallBrats.kinds, (4, 4, 4, 1))),
    ],
)
def test_to_a_step_of_training(tmp_path, layout, write, config, shapes):
    method = "plain" if layout.task is CLASSIFICATION else "c3r"  # numbers and masks have an objective of their own
    small = shrunk(config.get_config(), prepared(tmp_path, layout, write), method)
    small.train.batch_size = small.eval.batch_size = 16
    _, batch = take_step(small)
    assert {name: value.shape[1:] for name, value in batch["inputs"].items()} == shapes
